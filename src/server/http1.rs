//! HTTP/1.1 server side of a connection, for admin requests only.

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
use crate::net::stream::ByteStream;
use crate::server::admin::router::AdminRouter;
use crate::server::unread_body::UnreadBody;

/// Serves a connection until its end.
///
/// # Errors
/// The connection broke, or the client does not use HTTP/1.1.
pub async fn serve(
    ctx: &Rc<WorkerContext>,
    admin: &Arc<AdminRouter>,
    stream: ByteStream,
) -> io::Result<()> {
    let responding = Rc::new(Cell::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        let (ctx, admin, responding) = (ctx.clone(), admin.clone(), responding.clone());
        async move {
            responding.set(true);
            let (head, body) = request.into_parts();
            let body = UnreadBody::of_http1(&ctx.drain, &head.headers, body);
            let response = admin.respond(&ctx, &head.method, &head.uri);
            let response = body.before(response).await;
            responding.set(false);
            Ok::<Response<Full<Bytes>>, Infallible>(response.map(Full::new))
        }
    });
    // A client that connects during the drain receives one response.
    let started_in_drain = ctx.drain.has_begun();
    let connection = http1::Builder::new()
        .keep_alive(!started_in_drain)
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
            // A graceful shutdown would close a connection that has not sent its request yet.
            if !started_in_drain {
                connection.as_mut().graceful_shutdown();
            }
            loop {
                // A complete request receives its response. An incomplete one is dropped (S2).
                match timeout(limits::CLOSE_TIME, connection.as_mut()).await {
                    Ok(ended) => break ended,
                    Err(_) if responding.get() => {}
                    Err(_) => break Ok(()),
                }
            }
        }
    };
    ended.map_err(io::Error::other)
}
