//! Tests of the proxy with a scripted etcd that misbehaves: GOAWAY, refused and reset streams,
//! stalls, incomplete messages, bad frames (P1 to P6, E1, E2, E5, E6).

mod support;

#[path = "scripted/cache.rs"]
mod cache;
#[path = "scripted/deadlines.rs"]
mod deadlines;
#[path = "scripted/dial_pings.rs"]
mod dial_pings;
#[path = "scripted/fleet.rs"]
mod fleet;
#[path = "scripted/forwarding.rs"]
mod forwarding;
#[path = "scripted/framing.rs"]
mod framing;
#[path = "scripted/goaway.rs"]
mod goaway;
#[path = "scripted/namespace.rs"]
mod namespace;
#[path = "scripted/reads.rs"]
mod reads;
#[path = "scripted/resets.rs"]
mod resets;
#[path = "scripted/watches.rs"]
mod watches;

use tokio::task::JoinHandle;

use support::grpc::{Call, Client, Metadata, Reply};
use support::proxy::Proxy;
use support::scripted_etcd::ScriptedEtcd;

/// A method that writes.
const PUT: &str = "/etcdserverpb.KV/Put";
/// A method that reads.
const RANGE: &str = "/etcdserverpb.KV/Range";
/// A method with a stream in both directions.
const STREAM: &str = "/etcdserverpb.KV/RangeStream";
/// A method that no release of etcd implements.
const UNKNOWN: &str = "/future.Service/New";

const OK: Option<u32> = Some(0);
const UNKNOWN_CODE: Option<u32> = Some(2);
const DEADLINE_EXCEEDED: Option<u32> = Some(4);
const UNAVAILABLE: Option<u32> = Some(14);

/// Scripted endpoints, a proxy for them, and a client connection.
struct Scene {
    etcd: ScriptedEtcd,
    proxy: Proxy,
    client: Client,
}

impl Scene {
    async fn start(endpoints: usize) -> Scene {
        Scene::with(endpoints, &[]).await
    }

    async fn with(endpoints: usize, flags: &[&str]) -> Scene {
        let etcd = ScriptedEtcd::start(endpoints).await;
        let mut all = vec![etcd.flag(), "--advertise-client-url=".to_owned()];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let proxy = Proxy::start_with(&all);
        let client = Client::connect(proxy.address()).await;
        Scene {
            etcd,
            proxy,
            client,
        }
    }

    /// Starts a unary call in the background.
    fn call(&self, path: &'static str, message: &'static str) -> JoinHandle<Reply> {
        self.call_with(path, message, &[])
    }

    fn call_with(
        &self,
        path: &'static str,
        message: impl AsRef<[u8]> + Send + 'static,
        metadata: Metadata<'static>,
    ) -> JoinHandle<Reply> {
        let client = self.client.clone();
        tokio::spawn(async move { client.unary(path, message, metadata).await })
    }

    /// Opens a call.
    async fn open(&self, path: &str) -> Call {
        self.client.call(path, &[]).await
    }

    /// Checks that the proxy serves a read, through any endpoint.
    async fn assert_serves(&mut self) {
        let reply = self.call(RANGE, "still there?");
        let mut call = self.etcd.next().await;
        assert_eq!(call.message().await.unwrap(), "still there?");
        call.respond("yes");
        assert_eq!(join_task(reply).await.only(), b"yes");
    }
}

async fn join_task<T>(task: JoinHandle<T>) -> T {
    match task.await {
        Ok(value) => value,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}
