//! A small etcd over HTTP/2: Put, Range and Txn in the form that the loads use. A fault can change
//! a response before it is sent. Responses to the first puts, which prepare a load, are correct.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};

/// A response before it is encoded. A fault changes it.
pub(crate) struct FakeResponse {
    pub(crate) http: u16,
    pub(crate) grpc: Option<&'static str>,
    /// Revision in the header.
    pub(crate) revision: u64,
    /// Number of equal pairs in the response to a read.
    pub(crate) pairs: u64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) mod_revision: u64,
    /// Result of a transaction.
    pub(crate) succeeded: bool,
    /// Bytes cut off at the end of the body.
    pub(crate) body_cut: usize,
}

/// The server. It runs until the test process ends.
pub(crate) struct FakeEtcd {
    port: u16,
}

#[derive(Default)]
struct Store {
    revision: u64,
    pairs: HashMap<Vec<u8>, (Vec<u8>, u64)>,
}

/// Puts before the first fault: the probe, and three keys.
const FAULTLESS_PUTS: u64 = 4;

type Fault = fn(&mut FakeResponse);

impl FakeEtcd {
    pub(crate) fn start(fault: Fault) -> FakeEtcd {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let store = Arc::new(Mutex::new(Store::default()));
            runtime.block_on(async {
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    tokio::spawn(serve(socket, store.clone(), fault));
                }
            })
        });
        FakeEtcd { port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

async fn serve(socket: TcpStream, store: Arc<Mutex<Store>>, fault: Fault) {
    let Ok(mut connection) = h2::server::handshake(socket).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(handle_call(request, respond, store.clone(), fault));
    }
}

async fn handle_call(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    store: Arc<Mutex<Store>>,
    fault: Fault,
) -> Option<()> {
    let path = request.uri().path().to_string();
    let mut stream = request.into_body();
    let mut body = Vec::new();
    while let Some(Ok(chunk)) = stream.data().await {
        stream.flow_control().release_capacity(chunk.len()).ok()?;
        body.extend(chunk);
    }
    let message = body.get(5..)?;
    let (key, value) = match path.rsplit('/').next()? {
        "Range" => (field(message, 1)?, None),
        "Put" => (field(message, 1)?, Some(field(message, 2)?)),
        "Txn" => {
            let put = field(field(message, 2)?, 2)?;
            (field(put, 1)?, Some(field(put, 2)?))
        }
        "Status" => (&b"bench/probe"[..], None),
        _ => return None,
    };
    let mut response = store.lock().unwrap().response(key, value);
    if response.revision > FAULTLESS_PUTS {
        fault(&mut response);
    }
    let mut frame = vec![0];
    let message = message_of(&path, &response);
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame.truncate(frame.len() - response.body_cut);
    let head = Response::builder().status(response.http).body(()).ok()?;
    let mut stream = respond.send_response(head, false).ok()?;
    stream
        .send_data(frame.into(), response.grpc.is_none())
        .ok()?;
    if let Some(status) = response.grpc {
        let status = HeaderValue::from_static(status);
        let trailers = HeaderMap::from_iter([("grpc-status".parse().ok()?, status)]);
        stream.send_trailers(trailers).ok()?;
    }
    Some(())
}

impl Store {
    fn response(&mut self, key: &[u8], value: Option<&[u8]>) -> FakeResponse {
        if let Some(value) = value {
            self.revision += 1;
            let pair = (value.to_vec(), self.revision);
            self.pairs.insert(key.to_vec(), pair);
        }
        let (value, mod_revision) = self.pairs.get(key).cloned().unwrap_or_default();
        FakeResponse {
            http: 200,
            grpc: Some("0"),
            revision: self.revision,
            pairs: 1,
            key: key.to_vec(),
            value,
            mod_revision,
            succeeded: true,
            body_cut: 0,
        }
    }
}

fn message_of(path: &str, response: &FakeResponse) -> Vec<u8> {
    let mut header = Vec::new();
    number(&mut header, 3, response.revision);
    let mut pair = Vec::new();
    bytes(&mut pair, 1, &response.key);
    number(&mut pair, 3, response.mod_revision);
    bytes(&mut pair, 5, &response.value);
    let mut read = Vec::new();
    for _ in 0..response.pairs {
        bytes(&mut read, 2, &pair);
    }
    number(&mut read, 4, response.pairs);
    let mut message = Vec::new();
    bytes(&mut message, 1, &header);
    match path.rsplit('/').next() {
        Some("Range") => message.extend(read),
        Some("Txn") => {
            number(&mut message, 2, response.succeeded.into());
            let (mut put, mut range) = (Vec::new(), Vec::new());
            bytes(&mut put, 2, &[]);
            bytes(&mut range, 1, &read);
            bytes(&mut message, 3, &put);
            bytes(&mut message, 3, &range);
        }
        _ => {}
    }
    message
}

/// Returns the first field with that number and a length-delimited value.
fn field(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
    loop {
        let tag = varint(&mut message)?;
        let length = varint(&mut message)?;
        if tag & 7 == 0 {
            continue;
        }
        let (content, rest) = message.split_at_checked(length as usize)?;
        if tag >> 3 == wanted {
            return Some(content);
        }
        message = rest;
    }
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    Some(value)
}

fn bytes(message: &mut Vec<u8>, field: u64, content: &[u8]) {
    write_varint(message, field << 3 | 2);
    write_varint(message, content.len() as u64);
    message.extend(content);
}

fn number(message: &mut Vec<u8>, field: u64, value: u64) {
    write_varint(message, field << 3);
    write_varint(message, value);
}

fn write_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}
