//! The gzip format (RFC 1952), whole messages at a time.
//!
//! [`decompress`] accepts and rejects what Go's `compress/gzip` accepts and rejects, with the same
//! error texts: etcd uses that package. Memory grows with the bytes that are decompressed, never
//! with a length that the input claims, and decompression stops one byte above the maximum (S1).

use std::fmt;

use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};

/// Length in bytes of the fixed part of a member's header.
const HEADER_LEN: usize = 10;

/// Length in bytes of a member's trailer: checksum and length of the content.
const TRAILER_LEN: usize = 8;

/// First bytes of a member: identification, and the method "deflate".
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// Flags of a header: parts that follow its fixed part, in the order that [`read_header`] reads
/// them. Go ignores all other flags.
const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;

/// Maximum length in bytes of a name or comment in a header, with its zero byte, as in Go.
const MAX_HEADER_TEXT: usize = 512;

/// First allocation for the output, in bytes. The output doubles when it is full.
const FIRST_RESERVE: usize = 4 * 1024;

/// Error of [`decompress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GzipError {
    /// The first header is missing or invalid: the input is not gzip.
    Header(GzipFault),
    /// The content, or the header of a later member, is invalid.
    Content(GzipFault),
    /// The output would be longer than the maximum.
    TooLarge,
}

/// Reason why input is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GzipFault {
    /// The input is empty.
    Empty,
    /// The input ends inside a member.
    Truncated,
    /// A header is invalid.
    InvalidHeader,
    /// Checksum or length in a trailer differ from the content.
    InvalidChecksum,
    /// The compressed data is invalid, near this offset in its member.
    Corrupt(u64),
}

/// The text of Go's error.
impl fmt::Display for GzipFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GzipFault::Empty => f.write_str("EOF"),
            GzipFault::Truncated => f.write_str("unexpected EOF"),
            GzipFault::InvalidHeader => f.write_str("gzip: invalid header"),
            GzipFault::InvalidChecksum => f.write_str("gzip: invalid checksum"),
            GzipFault::Corrupt(offset) => {
                write!(f, "flate: corrupt input before offset {offset}")
            }
        }
    }
}

/// Decompresses all members of `input`. Returns at most `max` bytes.
///
/// # Errors
/// [`GzipError`] if the input is invalid or the output is too large.
pub fn decompress(input: &[u8], max: usize) -> Result<Vec<u8>, GzipError> {
    let mut rest = read_header(input).map_err(GzipError::Header)?;
    let mut out = Vec::new();
    let mut inflater = Decompress::new(false);
    loop {
        let start = out.len();
        rest = inflate(&mut inflater, rest, &mut out, max.saturating_add(1))
            .map_err(GzipError::Content)?;
        if out.len() > max {
            return Err(GzipError::TooLarge);
        }
        rest = check_trailer(rest, &out[start..]).map_err(GzipError::Content)?;
        if rest.is_empty() {
            return Ok(out);
        }
        rest = read_header(rest).map_err(GzipError::Content)?;
        inflater.reset(false);
    }
}

/// Decompresses at most the first `max` bytes of `input`, as far as the input is complete and
/// valid. Checks no checksum. Returns `None` if the input is not gzip.
pub fn decompress_prefix(input: &[u8], max: usize) -> Option<Vec<u8>> {
    let data = read_header(input).ok()?;
    let mut out = Vec::new();
    // What was decompressed before an error is in `out`.
    let _ = inflate(&mut Decompress::new(false), data, &mut out, max);
    Some(out)
}

/// Appends the compressed pieces to `out`, as one member, and returns it.
pub fn compress<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, mut out: Vec<u8>) -> Vec<u8> {
    // No flags, no time, fast compression, unknown system.
    const FIELDS: [u8; HEADER_LEN - MAGIC.len()] = [0, 0, 0, 0, 0, 4, 255];
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FIELDS);
    let mut crc = Crc::new();
    let mut deflater = Compress::new(Compression::fast(), false);
    for piece in pieces {
        crc.update(piece);
        deflate(&mut deflater, piece, &mut out, FlushCompress::None);
    }
    deflate(&mut deflater, &[], &mut out, FlushCompress::Finish);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
    out
}

/// Appends output until the input is consumed; with [`FlushCompress::Finish`] to the end of the
/// stream.
fn deflate(deflater: &mut Compress, mut input: &[u8], out: &mut Vec<u8>, flush: FlushCompress) {
    loop {
        out.reserve(FIRST_RESERVE);
        let consumed = deflater.total_in();
        let status = deflater.compress_vec(input, out, flush);
        // No truncation: at most the length of the input.
        input = &input[(deflater.total_in() - consumed) as usize..];
        let is_done = match flush {
            FlushCompress::Finish => !matches!(status, Ok(Status::Ok | Status::BufError)),
            _ => input.is_empty() || status.is_err(),
        };
        if is_done {
            return;
        }
    }
}

/// Appends the content of one member, up to a length of `max` bytes of `out`. Returns the input
/// behind the content; the content is complete unless `out` has reached `max`.
fn inflate<'a>(
    inflater: &mut Decompress,
    input: &'a [u8],
    out: &mut Vec<u8>,
    max: usize,
) -> Result<&'a [u8], GzipFault> {
    let mut rest = input;
    loop {
        if out.len() == out.capacity() {
            let more = out.len().max(FIRST_RESERVE);
            out.reserve_exact(more.min(max.saturating_sub(out.len())));
        }
        let (consumed, produced) = (inflater.total_in(), out.len());
        let status = inflater.decompress_vec(rest, out, FlushDecompress::None);
        // No truncation: at most the length of the input.
        rest = &rest[(inflater.total_in() - consumed) as usize..];
        match status {
            Ok(Status::StreamEnd) => return Ok(rest),
            Err(_) => return Err(GzipFault::Corrupt(inflater.total_in())),
            Ok(_) if out.len() >= max => return Ok(rest),
            // There was room for output, so the input is at its end.
            Ok(_) if inflater.total_in() == consumed && out.len() == produced => {
                return Err(GzipFault::Truncated);
            }
            Ok(_) => {}
        }
    }
}

/// Checks the trailer of a member against its content. Returns the input behind the trailer.
fn check_trailer<'a>(input: &'a [u8], content: &[u8]) -> Result<&'a [u8], GzipFault> {
    let (trailer, rest) = split(input, TRAILER_LEN)?;
    let mut crc = Crc::new();
    crc.update(content);
    match trailer == [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat() {
        true => Ok(rest),
        false => Err(GzipFault::InvalidChecksum),
    }
}

/// Returns the input behind a header.
fn read_header(input: &[u8]) -> Result<&[u8], GzipFault> {
    if input.is_empty() {
        return Err(GzipFault::Empty);
    }
    let (fixed, mut rest) = split(input, HEADER_LEN)?;
    if fixed[..MAGIC.len()] != MAGIC {
        return Err(GzipFault::InvalidHeader);
    }
    let flags = fixed[MAGIC.len()];
    if flags & EXTRA != 0 {
        let (length, extra) = split(rest, 2)?;
        let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
        rest = split(extra, length)?.1;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            rest = skip_text(rest)?;
        }
    }
    if flags & HEADER_CRC != 0 {
        let covered = &input[..input.len() - rest.len()];
        let (checksum, behind) = split(rest, 2)?;
        let mut crc = Crc::new();
        crc.update(covered);
        if crc.sum().to_le_bytes()[..2] != *checksum {
            return Err(GzipFault::InvalidHeader);
        }
        rest = behind;
    }
    Ok(rest)
}

/// Returns the input behind a text that ends with a zero byte.
fn skip_text(input: &[u8]) -> Result<&[u8], GzipFault> {
    let text = &input[..input.len().min(MAX_HEADER_TEXT)];
    match text.iter().position(|byte| *byte == 0) {
        Some(end) => Ok(&input[end + 1..]),
        None if text.len() == MAX_HEADER_TEXT => Err(GzipFault::InvalidHeader),
        None => Err(GzipFault::Truncated),
    }
}

fn split(input: &[u8], at: usize) -> Result<(&[u8], &[u8]), GzipFault> {
    input.split_at_checked(at).ok_or(GzipFault::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1 << 20;

    fn gzip(content: &[u8]) -> Vec<u8> {
        compress([content], Vec::new())
    }

    proptest! {
        #[test]
        fn decompresses_what_it_compressed(
            pieces in prop::collection::vec(prop::collection::vec(0u8..4, 0..3000), 0..4),
        ) {
            let content = pieces.concat();
            let compressed = compress(pieces.iter().map(Vec::as_slice), b"head".to_vec());
            prop_assert_eq!(&compressed[..4], b"head");
            let compressed = &compressed[4..];
            prop_assert_eq!(&decompress(compressed, content.len()).unwrap(), &content);
            if let Some(less) = content.len().checked_sub(1) {
                prop_assert_eq!(decompress(compressed, less), Err(GzipError::TooLarge));
                prop_assert_eq!(decompress_prefix(compressed, less).unwrap(), &content[..less]);
            }
            for cut in 0..compressed.len().min(40) {
                prop_assert!(decompress(&compressed[..compressed.len() - 1 - cut], MAX).is_err());
            }
        }

        #[test]
        fn accepts_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&[0x1f, 0x8b, 8][..], &bytes].concat();
            for max in [0, 10, 5000] {
                prop_assert!(decompress(&bytes, max).map_or(true, |out| out.len() <= max));
                prop_assert!(decompress_prefix(&bytes, max).is_none_or(|out| out.len() <= max));
            }
        }
    }

    #[test]
    fn a_bomb_allocates_no_more_than_the_maximum() {
        let bomb = gzip(&vec![0; 50 << 20]);
        assert!(bomb.len() < 300_000);
        let header = read_header(&bomb).unwrap();
        let mut out = Vec::new();
        inflate(&mut Decompress::new(false), header, &mut out, 1001).unwrap();
        assert_eq!((out.len(), out.capacity()), (1001, 1001));
        assert_eq!(decompress(&bomb, 1000), Err(GzipError::TooLarge));
        // The length that the trailer claims changes nothing.
        let mut small = gzip(b"abc");
        let end = small.len();
        small[end - 4..].fill(0xff);
        let checksum = GzipError::Content(GzipFault::InvalidChecksum);
        assert_eq!(decompress(&small, MAX), Err(checksum));
    }

    #[test]
    fn members_are_concatenated_and_share_the_maximum() {
        let two = [gzip(b"abc"), gzip(b""), gzip(b"de")].concat();
        assert_eq!(decompress(&two, 5).unwrap(), b"abcde");
        assert_eq!(decompress(&two, 4), Err(GzipError::TooLarge));
    }

    /// The errors of Go's `compress/gzip`, which etcd returns.
    #[test]
    fn errors_are_those_of_go() {
        let valid = gzip(b"abc");
        let with = |at: usize, byte: u8| {
            let mut changed = valid.clone();
            changed[at] = byte;
            changed
        };
        let error = |input: &[u8]| decompress(input, MAX).unwrap_err();
        let header = GzipError::Header;
        let content = GzipError::Content;
        assert_eq!(error(b""), header(GzipFault::Empty));
        assert_eq!(error(&valid[..9]), header(GzipFault::Truncated));
        assert_eq!(error(b"junkjunkjunk"), header(GzipFault::InvalidHeader));
        assert_eq!(error(&with(2, 7)), header(GzipFault::InvalidHeader));
        for cut in 10..valid.len() {
            assert_eq!(error(&valid[..cut]), content(GzipFault::Truncated));
        }
        let end = valid.len();
        for at in [end - 1, end - 8] {
            let changed = with(at, valid[at] ^ 1);
            assert_eq!(error(&changed), content(GzipFault::InvalidChecksum));
        }
        let corrupt = error(&with(10, 0xff));
        assert!(matches!(corrupt, GzipError::Content(GzipFault::Corrupt(_))));
        let followed_by = |rest: &[u8]| error(&[&valid, rest].concat());
        assert_eq!(followed_by(b"short"), content(GzipFault::Truncated));
        assert_eq!(followed_by(&[0; 20]), content(GzipFault::InvalidHeader));
    }

    #[test]
    fn reads_every_part_of_a_header() {
        let valid = gzip(b"abc");
        // Extra, name, comment, header checksum, and flags without a meaning.
        let mut head = valid[..10].to_vec();
        head[3] = 0xfe;
        head.extend_from_slice(b"\x03\0xyzname\0comment\0");
        let mut crc = Crc::new();
        crc.update(&head);
        head.extend_from_slice(&crc.sum().to_le_bytes()[..2]);
        let whole = [&head, &valid[10..]].concat();
        assert_eq!(decompress(&whole, MAX).unwrap(), b"abc");
        for cut in 0..head.len() {
            let fault = match cut {
                0 => GzipFault::Empty,
                _ => GzipFault::Truncated,
            };
            assert_eq!(decompress(&head[..cut], MAX), Err(GzipError::Header(fault)));
        }
        let mut changed = whole.clone();
        changed[14] = b'X';
        let invalid = Err(GzipError::Header(GzipFault::InvalidHeader));
        assert_eq!(decompress(&changed, MAX), invalid);
        let mut long = valid[..10].to_vec();
        long[3] = NAME;
        long.extend_from_slice(&[b'n'; MAX_HEADER_TEXT]);
        assert_eq!(decompress(&long, MAX), invalid);
    }
}
