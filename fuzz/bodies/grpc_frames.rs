//! Fuzz body for gRPC framing. The scanner and the reader get a stream in pieces, and a model sees
//! the whole stream at once.

use bytes::Bytes;
use etcd_edge::wire::frame::{self, FrameError, HEAD_LEN, Message, Reader, Scanner};

/// The first byte sets the size limit, the second the number of piece sizes that follow. The rest
/// of the input is the stream.
pub(crate) fn run(data: &[u8]) {
    let [limit, count, rest @ ..] = data else {
        return;
    };
    let (sizes, stream) = rest.split_at(rest.len().min(usize::from(count % 16)));
    check(stream, sizes, u64::from(*limit) * 3);
}

/// Feeds `stream` in pieces of `sizes` bytes, repeated as needed, and compares each step with the
/// model.
pub(crate) fn check(stream: &[u8], sizes: &[u8], max: u64) {
    let model = Model::read(stream, max);
    let pieces = pieces(stream.len(), sizes);
    check_scanner(stream, &pieces, max, &model);
    check_reader(stream, &pieces, max, &model);
    check_late_reader(stream, &pieces, max, &model);
    check_encode(stream, &model);
}

/// Content of a stream.
struct Model {
    messages: Vec<Message>,
    /// For each message the offset after its head.
    starts: Vec<usize>,
    /// 0 and the offset after each message.
    boundaries: Vec<usize>,
    /// The first fault and the offset after the byte that shows it.
    fault: Option<(FrameError, usize)>,
}

impl Model {
    fn read(stream: &[u8], max: u64) -> Self {
        let mut model = Self {
            messages: Vec::new(),
            starts: Vec::new(),
            boundaries: vec![0],
            fault: None,
        };
        let mut at = 0;
        while at < stream.len() {
            let flag = stream[at];
            if flag != 0 && flag != 1 {
                model.fault = Some((FrameError::BadFlag(flag), at + 1));
                break;
            }
            if stream.len() - at < HEAD_LEN {
                break;
            }
            let len = stream[at + 1..at + HEAD_LEN]
                .iter()
                .fold(0, |len, b| len * 256 + u64::from(*b));
            at += HEAD_LEN;
            if len > max {
                model.fault = Some((FrameError::TooLarge { len, max }, at));
                break;
            }
            model.starts.push(at);
            if len > (stream.len() - at) as u64 {
                break;
            }
            let end = at + len as usize;
            model.messages.push(Message {
                compressed: flag == 1,
                payload: Bytes::copy_from_slice(&stream[at..end]),
            });
            model.boundaries.push(end);
            at = end;
        }
        model
    }

    /// Returns the number of heads that end within the first `offset` bytes.
    fn starts_until(&self, offset: usize) -> u32 {
        self.starts.partition_point(|start| *start <= offset) as u32
    }

    /// Returns the fault that the first `offset` bytes show.
    fn fault_at(&self, offset: usize) -> Option<FrameError> {
        self.fault.filter(|f| f.1 <= offset).map(|f| f.0)
    }

    /// Returns the expected result if the stream ends after `offset` bytes.
    fn finish_at(&self, offset: usize) -> Result<(), FrameError> {
        match self.fault_at(offset) {
            Some(fault) => Err(fault),
            None if self.boundaries.binary_search(&offset).is_ok() => Ok(()),
            None => Err(FrameError::Truncated),
        }
    }
}

fn check_scanner(stream: &[u8], pieces: &[(usize, usize)], max: u64, model: &Model) {
    let mut scanner = Scanner::new(max);
    for &(from, to) in pieces {
        let started = model.starts_until(to) - model.starts_until(from);
        let want = match model.fault_at(to) {
            Some(fault) => Err(fault),
            None => Ok(started),
        };
        assert_eq!(scanner.feed(&stream[from..to]), want);
        assert_eq!(scanner.at_boundary(), model.finish_at(to).is_ok());
        assert_eq!(scanner.finish(), model.finish_at(to));
    }
}

fn check_reader(stream: &[u8], pieces: &[(usize, usize)], max: u64, model: &Model) {
    let mut reader = Reader::new(max);
    let mut got = 0;
    for &(from, to) in pieces {
        reader.push(Bytes::copy_from_slice(&stream[from..to]));
        let end = loop {
            match reader.next() {
                Ok(Some(message)) => {
                    assert_eq!(message, model.messages[got]);
                    got += 1;
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        assert_eq!(end, model.fault_at(to));
        // Boundary `got` is the one after message `got - 1`: nothing is returned early or late.
        assert!(model.boundaries[got] <= to);
        assert!(model.boundaries.get(got + 1).is_none_or(|b| *b > to));
        if end.is_none() {
            assert_eq!(reader.buffered(), to - model.boundaries[got]);
        }
        assert_eq!(reader.finish(), model.finish_at(to));
    }
}

/// Checks a reader that is polled only after the whole stream has been pushed.
fn check_late_reader(stream: &[u8], pieces: &[(usize, usize)], max: u64, model: &Model) {
    let mut reader = Reader::new(max);
    let whole = Bytes::copy_from_slice(stream);
    for &(from, to) in pieces {
        reader.push(whole.slice(from..to));
    }
    assert_eq!(reader.buffered(), stream.len());
    for message in &model.messages {
        assert_eq!(reader.next().as_ref(), Ok(&Some(message.clone())));
    }
    assert_eq!(reader.next().err(), model.fault_at(stream.len()));
    assert_eq!(reader.finish(), model.finish_at(stream.len()));
}

fn check_encode(stream: &[u8], model: &Model) {
    for (message, start) in model.messages.iter().zip(&model.starts) {
        let head = frame::head(message.compressed, message.payload.len() as u32);
        assert_eq!(head, stream[start - HEAD_LEN..*start]);
        let whole = &stream[start - HEAD_LEN..start + message.payload.len()];
        if !message.compressed {
            assert_eq!(frame::encode(&message.payload), whole);
        }
    }
}

/// Returns ranges that cut `len` bytes. A size of 0 is an empty piece, no sizes at all is one whole
/// piece.
fn pieces(len: usize, sizes: &[u8]) -> Vec<(usize, usize)> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let some = sizes.iter().any(|size| *size > 0);
    for size in sizes.iter().cycle().take_while(|_| some) {
        if at == len {
            break;
        }
        let to = len.min(at + usize::from(*size));
        pieces.push((at, to));
        at = to;
    }
    pieces.push((at, len));
    pieces
}
