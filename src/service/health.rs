//! Whether etcd answers, asked as its clients would: a linearizable read, and a watch.

use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderValue, Request, header, request};
use tokio::time::{Instant, timeout_at};

use crate::limits;
use crate::service::Ctx;
use crate::service::fetch::{Begun, Read};
use crate::upstream::attempt;
use crate::wire::frame;
use crate::wire::status::{Code, Status};

const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// RangeRequest { key: "a" }, the key that etcd's own proxy asks for.
const RANGE_A: &[u8] = &[0x0a, 1, b'a'];

/// WatchRequest { create_request: { key: "a" } }.
const WATCH_A: &[u8] = &[0x0a, 3, 0x0a, 1, b'a'];

/// A linearizable read; on failure the reason. A refusal for lack of permission is an answer
/// too: etcd is well.
pub async fn read(ctx: &Rc<Ctx>) -> Result<(), String> {
    let until = Instant::now() + limits::HEALTH_TIME;
    let head = head(RANGE);
    let request = [frame::encode(RANGE_A)];
    let read = Read {
        ctx,
        head: &head,
        deadline: Some(until),
        request: &request,
        untranslated: false,
    };
    let answered = timeout_at(until, read.fetch(Begun::Nothing)).await;
    let status = match answered {
        Ok(Ok(answer)) => answer.status(),
        Ok(Err(status)) => Some(status),
        Err(_) => Some(Status::new(
            Code::DeadlineExceeded,
            "context deadline exceeded",
        )),
    };
    match status {
        Some(status) if is_healthy(&status) => Ok(()),
        Some(status) => Err(format!("GET ERROR:{}", status.message)),
        None => Err("GET ERROR:no status in the answer".to_owned()),
    }
}

/// The proxy's own: the read, then a watch whose creation is answered, and that it is registered where it
/// should be.
pub async fn of_proxy(ctx: &Rc<Ctx>) -> Result<(), String> {
    read(ctx).await?;
    let until = Instant::now() + limits::HEALTH_TIME;
    match timeout_at(until, watch(ctx, until)).await {
        Ok(Some(())) => {}
        Ok(None) | Err(_) => return Err("WATCH TIMEOUT".to_owned()),
    }
    match ctx.shared.fleet.trouble() {
        Some(why) => Err(format!("REGISTRATION ERROR:{why}")),
        None => Ok(()),
    }
}

async fn watch(ctx: &Rc<Ctx>, until: Instant) -> Option<()> {
    let conn = ctx.pool.connection(until).await.ok()?;
    let head = attempt::head(conn.target(), &head(WATCH), None);
    let mut taken = conn.open(head, false).ok()?;
    taken.body.send_data(frame::encode(WATCH_A), false).ok()?;
    let mut body = taken.response.await.ok()?.into_body();
    let first = poll_fn(|cx| body.poll_data(cx)).await;
    matches!(first, Some(Ok(_))).then_some(())
}

fn is_healthy(status: &Status) -> bool {
    match status.code {
        Code::Ok | Code::PermissionDenied => true,
        Code::InvalidArgument => status.message == "etcdserver: user name is empty",
        _ => false,
    }
}

fn head(path: &'static str) -> request::Parts {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = http::Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    request.into_parts().0
}
