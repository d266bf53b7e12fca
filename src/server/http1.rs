//! HTTP/1.1 towards one client: pages only.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;

use crate::driver::WorkerContext;
use crate::limits;
use crate::net::stream::Stream;
use crate::server::admin::router::Pages;

/// Serves the connection to its end; an error if it broke or was no HTTP/1.1.
pub async fn serve(ctx: &Rc<WorkerContext>, pages: &Arc<Pages>, stream: Stream) -> io::Result<()> {
    let making = Rc::new(Cell::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        let (ctx, pages, making) = (ctx.clone(), pages.clone(), making.clone());
        async move {
            making.set(true);
            let page = pages.answer(&ctx, request.method(), request.uri()).await;
            making.set(false);
            Ok::<Response<Full<Bytes>>, Infallible>(page.map(Full::new))
        }
    });
    // Who comes while the process drains has one request answered.
    let late = ctx.drain.has_begun();
    let connection = http1::Builder::new()
        .keep_alive(!late)
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HANDSHAKE_TIME)
        .max_buf_size(limits::ADMIN_HEAD_BYTES)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let drain = ctx.drain.clone();
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.begun() => {
            // It would end one that has not asked for anything yet.
            if !late {
                connection.as_mut().graceful_shutdown();
            }
            loop {
                // A request is answered; half of one is not waited for (S2).
                match timeout(limits::CLOSE_TIME, connection.as_mut()).await {
                    Ok(ended) => break ended,
                    Err(_) if making.get() => {}
                    Err(_) => break Ok(()),
                }
            }
        }
    };
    ended.map_err(io::Error::other)
}
