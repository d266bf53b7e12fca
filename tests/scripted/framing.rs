//! Tests of message framing. The bytes are forwarded unchanged for DATA frames of one byte,
//! messages split anywhere, and a socket that transfers one byte at a time (P1, P2).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::support::scripted_etcd::framed;
use crate::{Client, OK, PUT, RANGE, STREAM, Scene, UNKNOWN, join_task};

const PATHS: [&str; 4] = [RANGE, PUT, STREAM, UNKNOWN];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_forwarded_at_every_split() {
    let mut scene = Scene::start(1).await;
    let body = [framed(b"first message"), framed(b""), framed(b"third")].concat();
    for path in PATHS {
        for cut in 0..=body.len() {
            let mut client = scene.open(path).await;
            client.send_raw(body[..cut].to_vec().into()).await;
            tokio::task::yield_now().await;
            client.send_raw(body[cut..].to_vec().into()).await;
            client.half_close();
            let mut call = scene.etcd.next().await;
            assert_eq!(call.body().await, body, "{path} cut at {cut}");
            call.headers(&[]);
            call.send_raw(body[..cut].to_vec());
            tokio::task::yield_now().await;
            call.send_raw(body[cut..].to_vec());
            call.trailers(&[("grpc-status", "0")]);
            let reply = client.finish().await;
            assert_eq!(
                reply.messages,
                ["first message", "", "third"],
                "{path} cut at {cut}"
            );
            assert_eq!(reply.code(), OK);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_frames_are_accepted() {
    let mut scene = Scene::start(1).await;
    for path in PATHS {
        let message: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        let body = framed(&message);
        let mut client = scene.open(path).await;
        for byte in body.chunks(1) {
            client.send_raw(byte.to_vec().into()).await;
        }
        client.half_close();
        let mut call = scene.etcd.next().await;
        assert_eq!(call.body().await, body, "{path}");
        call.headers(&[]);
        for byte in body.chunks(1) {
            call.send_raw(byte.to_vec());
        }
        call.trailers(&[("grpc-status", "0")]);
        let reply = client.finish().await;
        assert_eq!(reply.code(), OK, "{path}: {:?}", reply.reset);
        assert_eq!(reply.only(), message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_byte_socket_reads_and_writes_are_accepted() {
    let mut scene = Scene::start(1).await;
    let socket = TcpStream::connect(scene.proxy.address()).await.unwrap();
    socket.set_nodelay(true).unwrap();
    scene.client = Client::over(OneByteWrites(socket), scene.proxy.address(), "http").await;
    for path in PATHS {
        let reply = scene.call_with(path, "request", &[("token", "t"), ("x-bin", "AAAA")]);
        let mut call = scene.etcd.next().await;
        call.conn.limit_writes(1);
        assert_eq!(call.body().await, framed(b"request"), "{path}");
        assert_eq!(call.metadata("x-bin"), ["AAAA"]);
        call.headers(&[("x", "y")]);
        call.send("first");
        call.send("second");
        call.trailers(&[("grpc-status", "0"), ("z", "w")]);
        let reply = join_task(reply).await;
        assert_eq!(reply.messages, ["first", "second"], "{path}");
        assert_eq!(reply.code(), OK);
        assert!(reply.trailers.contains(&("z".into(), "w".into())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_are_forwarded_in_both_directions() {
    let mut scene = Scene::start(1).await;
    for size in [4_000, 65_530, 65_536, 131_072, 262_144, 1_500_000] {
        let message: Vec<u8> = (0..size).map(|n: u32| (n * 7) as u8).collect();
        for path in PATHS {
            let reply = scene.call_with(path, message.clone(), &[]);
            let mut call = scene.etcd.next().await;
            assert_eq!(call.body().await, framed(&message), "{path} {size}");
            call.headers(&[]);
            call.send(&message);
            call.send(&message);
            call.trailers(&[("grpc-status", "0")]);
            let reply = join_task(reply).await;
            assert_eq!(reply.code(), OK, "{path} {size}");
            assert!(
                reply.messages.iter().all(|each| each == &message),
                "{path} {size}"
            );
            assert_eq!(reply.messages.len(), 2);
        }
    }
}

/// A socket that accepts one byte per write.
struct OneByteWrites(TcpStream);

impl AsyncRead for OneByteWrites {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for OneByteWrites {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let one = &buf[..buf.len().min(1)];
        Pin::new(&mut self.0).poll_write(cx, one)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
