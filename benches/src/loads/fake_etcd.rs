//! A small etcd for tests, in this process. It responds correctly except for one selected fault.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::etcdpb::{Field, bytes_field, frame_end, frame_start, varint_field, walk};

/// A selected fault. Faults of events affect only the tenth event of one watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    /// An event is lost.
    LosesEvent,
    /// An event is sent twice.
    DoublesEvent,
    /// An event is sent after its successor.
    SwapsEvents,
    /// An event has another value than was put.
    ChangesValue,
    /// An event has another key.
    ChangesKey,
    /// An event has the id of another watch of the stream.
    MistakesWatch,
    /// The server cancels a watch.
    CancelsWatch,
    /// The watch stream ends.
    EndsStream,
    /// The first events from the requested start revision are missing.
    SkipsHistory,
    /// A created response is sent, but no watch is created.
    CreatesNothing,
    /// The response to a heartbeat has the id of another lease.
    MistakesLease,
    /// The response to a heartbeat has another TTL.
    ChangesTtl,
    /// A heartbeat gets no response.
    LosesHeartbeat,
    /// A heartbeat gets two responses.
    DoublesHeartbeat,
    /// A read returns another value than was put.
    ReadsOther,
}

/// Starts a server, which runs as long as the process.
pub(crate) fn start(fault: Fault) -> SocketAddr {
    let (address_sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        crate::client::runtime().unwrap().block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            address_sender.send(listener.local_addr().unwrap()).unwrap();
            let store = Arc::new(Mutex::new(Store::new(fault)));
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, store.clone()));
            }
        });
    });
    address.recv().unwrap()
}

struct Store {
    fault: Fault,
    revision: i64,
    /// All puts: key, value, revision.
    puts: Vec<(Vec<u8>, Vec<u8>, i64)>,
    watches: BTreeMap<u64, Watch>,
    watches_made: u64,
    heartbeats: u64,
    leases: i64,
}

struct Watch {
    /// Watch id, unique on the stream.
    id: i64,
    key: Vec<u8>,
    end: Vec<u8>,
    delivered: u64,
    delayed: Option<Vec<u8>>,
    sender: UnboundedSender<Vec<u8>>,
}

impl Store {
    fn new(fault: Fault) -> Store {
        Store {
            fault,
            revision: 1,
            puts: Vec::new(),
            watches: BTreeMap::new(),
            watches_made: 0,
            heartbeats: 0,
            leases: 0,
        }
    }

    fn header(&self) -> Vec<u8> {
        let (mut header, mut message) = (Vec::new(), Vec::new());
        varint_field(&mut header, 3, self.revision);
        bytes_field(&mut message, 1, &header);
        message
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Vec<u8> {
        self.revision += 1;
        let revision = self.revision;
        let mut watches = std::mem::take(&mut self.watches);
        for (number, watch) in &mut watches {
            if watch.key <= key && key < watch.end {
                self.deliver(*number, watch, (&key, &value, revision));
            }
        }
        self.watches = watches;
        self.puts.push((key, value, revision));
        self.header()
    }

    fn deliver(&self, number: u64, watch: &mut Watch, (key, value, revision): (&[u8], &[u8], i64)) {
        watch.delivered += 1;
        let (mut key, mut value, mut id) = (key.to_vec(), value.to_vec(), watch.id);
        let is_chosen = watch.delivered == 10 && number == 1;
        let fault = if is_chosen {
            self.fault
        } else {
            Fault::Nothing
        };
        match fault {
            Fault::ChangesKey => key.push(b'x'),
            Fault::ChangesValue => *value.last_mut().unwrap() ^= 1,
            Fault::MistakesWatch => id += 1,
            _ => {}
        }
        let (mut pair, mut event) = (Vec::new(), Vec::new());
        bytes_field(&mut pair, 1, &key);
        varint_field(&mut pair, 3, revision);
        bytes_field(&mut pair, 5, &value);
        bytes_field(&mut event, 2, &pair);
        let mut message = self.header();
        varint_field(&mut message, 2, id);
        if fault == Fault::CancelsWatch {
            varint_field(&mut message, 4, 1);
        }
        bytes_field(&mut message, 11, &event);
        match fault {
            Fault::LosesEvent => return,
            Fault::SwapsEvents => {
                watch.delayed = Some(message);
                return;
            }
            Fault::DoublesEvent => drop(watch.sender.send(message.clone())),
            Fault::EndsStream => message.clear(),
            _ => {}
        }
        // Fails only if the stream is closed.
        let _ = watch.sender.send(message);
        if let Some(delayed) = watch.delayed.take() {
            let _ = watch.sender.send(delayed);
        }
    }

    fn watch(&mut self, request: &[u8], id: i64, sender: &UnboundedSender<Vec<u8>>) -> u64 {
        let (mut key, mut end, mut start) = (Vec::new(), Vec::new(), i64::MAX);
        walk(request, |field, content| {
            match (field, content) {
                (1, Field::Bytes(bytes)) => key = bytes.to_vec(),
                (2, Field::Bytes(bytes)) => end = bytes.to_vec(),
                (3, Field::Varint(number)) => start = number.cast_signed(),
                _ => {}
            }
            Ok(())
        })
        .unwrap();
        let mut created = self.header();
        varint_field(&mut created, 2, id);
        varint_field(&mut created, 3, 1);
        sender.send(created).unwrap();
        let number = self.watches_made;
        self.watches_made += 1;
        let mut watch = Watch {
            id,
            key,
            end,
            delivered: 0,
            delayed: None,
            sender: sender.clone(),
        };
        if self.fault == Fault::SkipsHistory && start != i64::MAX && number == 1 {
            start += 3;
        }
        for (key, value, revision) in &self.puts {
            if (&watch.key..&watch.end).contains(&key) && *revision >= start {
                self.deliver(number, &mut watch, (key, value, *revision));
            }
        }
        if self.fault != Fault::CreatesNothing {
            self.watches.insert(number, watch);
        }
        number
    }

    /// Returns the responses to a heartbeat.
    fn heartbeat(&mut self, lease: i64) -> Vec<Vec<u8>> {
        self.heartbeats += 1;
        let fault = if self.heartbeats == 10 {
            self.fault
        } else {
            Fault::Nothing
        };
        let response = |lease, ttl| {
            let mut message = self.header();
            varint_field(&mut message, 2, lease);
            varint_field(&mut message, 3, ttl);
            message
        };
        match fault {
            Fault::LosesHeartbeat => Vec::new(),
            Fault::DoublesHeartbeat => vec![response(lease, TTL); 2],
            // The tests use leases 1 to 4.
            Fault::MistakesLease => vec![response(lease % 4 + 1, TTL)],
            Fault::ChangesTtl => vec![response(lease, TTL - 1)],
            _ => vec![response(lease, TTL)],
        }
    }

    fn unary(&mut self, path: &str, request: &[u8]) -> Vec<u8> {
        let [mut key, mut value] = [Vec::new(), Vec::new()];
        walk(request, |field, content| {
            match (field, content) {
                (1, Field::Bytes(bytes)) => key = bytes.to_vec(),
                (2, Field::Bytes(bytes)) => value = bytes.to_vec(),
                _ => {}
            }
            Ok(())
        })
        .unwrap();
        match path {
            "/etcdserverpb.KV/Put" => self.put(key, value),
            "/etcdserverpb.KV/Range" => {
                let found = self.puts.iter().rev().find(|put| put.0 == key).unwrap();
                let mut value = found.1.clone();
                if self.fault == Fault::ReadsOther {
                    value.push(b'x');
                }
                let mut pair = Vec::new();
                bytes_field(&mut pair, 1, &key);
                varint_field(&mut pair, 3, found.2);
                bytes_field(&mut pair, 5, &value);
                let mut message = self.header();
                bytes_field(&mut message, 2, &pair);
                varint_field(&mut message, 4, 1);
                message
            }
            "/etcdserverpb.Lease/LeaseGrant" => {
                self.leases += 1;
                let mut message = self.header();
                varint_field(&mut message, 2, self.leases);
                varint_field(&mut message, 3, TTL);
                message
            }
            "/etcdserverpb.Lease/LeaseRevoke" => self.header(),
            _ => panic!("{path} is not implemented"),
        }
    }
}

/// TTL of every lease in seconds.
pub(crate) const TTL: i64 = 3;

async fn serve(socket: TcpStream, store: Arc<Mutex<Store>>) {
    let mut connection = h2::server::handshake(socket).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(handle_call(request, respond, store.clone()));
    }
}

async fn handle_call(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    store: Arc<Mutex<Store>>,
) {
    let path = request.uri().path().to_string();
    let mut body = request.into_body();
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let stream = respond.send_response(head, false).unwrap();
    let (sender, mut messages) = unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        let mut stream = stream;
        while let Some(message) = messages.recv().await {
            // An empty message means the end of the stream.
            if message.is_empty() {
                break;
            }
            send(&mut stream, &message);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let _ = stream.send_trailers(trailers);
    });
    let mut buffer = BytesMut::new();
    let mut own = BTreeMap::new();
    while let Some(Ok(chunk)) = body.data().await {
        body.flow_control().release_capacity(chunk.len()).unwrap();
        buffer.extend_from_slice(&chunk);
        while let Some(message) = next(&mut buffer) {
            match path.as_str() {
                "/etcdserverpb.Watch/Watch" => watch(&store, &message, &sender, &mut own),
                "/etcdserverpb.Lease/LeaseKeepAlive" => {
                    let responses = store.lock().heartbeat(integer(&message));
                    responses
                        .into_iter()
                        .for_each(|response| drop(sender.send(response)));
                }
                unary => drop(sender.send(store.lock().unary(unary, &message))),
            }
        }
    }
    for number in own.into_values() {
        store.lock().watches.remove(&number);
    }
}

fn watch(
    store: &Mutex<Store>,
    message: &[u8],
    sender: &UnboundedSender<Vec<u8>>,
    own: &mut BTreeMap<i64, u64>,
) {
    walk(message, |field, content| {
        let mut store = store.lock();
        match (field, content) {
            (1, Field::Bytes(create)) => {
                let id = own.keys().last().map_or(0, |last| last + 1);
                own.insert(id, store.watch(create, id, sender));
            }
            (2, Field::Bytes(cancel)) => {
                let id = integer(cancel);
                store.watches.remove(&own.remove(&id).unwrap());
                let mut canceled = store.header();
                varint_field(&mut canceled, 2, id);
                varint_field(&mut canceled, 4, 1);
                sender.send(canceled).unwrap();
            }
            _ => panic!("field {field} is not implemented"),
        }
        Ok(())
    })
    .unwrap();
}

/// Returns field 1 of a message, 0 if it is absent.
fn integer(message: &[u8]) -> i64 {
    let mut found = 0;
    walk(message, |field, content| {
        if let (1, Field::Varint(number)) = (field, content) {
            found = number.cast_signed();
        }
        Ok(())
    })
    .unwrap();
    found
}

fn next(buffer: &mut BytesMut) -> Option<Vec<u8>> {
    let length = u32::from_be_bytes(*buffer.get(1..)?.first_chunk()?) as usize;
    let message = buffer.get(5..5 + length)?.to_vec();
    buffer.advance(5 + length);
    Some(message)
}

fn send(stream: &mut SendStream<Bytes>, message: &[u8]) {
    let mut frame = frame_start(message.len());
    frame.extend(message);
    // Fails only if the stream is closed.
    let _ = stream.send_data(frame_end(frame).into(), false);
}
