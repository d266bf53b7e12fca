//! The HTTP pages, the same over HTTP/1.1 and HTTP/2: health and metrics, of etcd and of the
//! proxy itself.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use prometheus::{Encoder, Registry, TextEncoder};
use serde_json::json;
use tokio::time::timeout;

use crate::driver::health::CheckOutcome;
use crate::driver::status::status;
use crate::driver::{WorkerContext, health};
use crate::limits;
use crate::server::admin::response::{made, moved, not_found, plain, value};
use crate::server::admin::{pprof, status_page};
use crate::server::metrics_export::MetricsCollector;
use crate::upstream::etcd_page;

const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Makes pages.
pub struct Pages {
    registry: Registry,
    /// Those of profiles are there too.
    profiles: bool,
}

impl Pages {
    /// Pages that show these metrics and those of the process, and `profiles` if they may.
    pub fn new(metrics: MetricsCollector, profiles: bool) -> Result<Pages, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(metrics))?;
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process))?;
        Ok(Pages { registry, profiles })
    }

    /// The page at a path.
    pub async fn answer(
        &self,
        ctx: &Rc<WorkerContext>,
        method: &Method,
        uri: &Uri,
    ) -> Response<Bytes> {
        let path = uri.path();
        match path {
            // Metrics are shown to any method, as etcd does.
            "/health" | "/proxy/health" | "/proxy/status" | "/proxy/" | "/proxy"
                if method != Method::GET =>
            {
                only_get()
            }
            "/health" => health_page(health::read(ctx).await),
            "/proxy/health" => health_page(health::of_proxy(ctx).await),
            "/proxy/status" => status_page(ctx, uri.query().unwrap_or_default()).await,
            "/proxy/" => status_page::page(),
            "/proxy" => moved("/proxy/"),
            "/metrics" => member_metrics(ctx).await,
            "/proxy/metrics" => self.own_metrics(),
            _ if self.profiles && pprof::is_one(path) => match *method == Method::GET {
                true => pprof::answer(ctx, path, uri.query().unwrap_or_default()).await,
                false => only_get(),
            },
            _ => not_found(),
        }
    }

    fn own_metrics(&self) -> Response<Bytes> {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => made(StatusCode::OK, METRICS, text.into()),
            Err(e) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{e}\n")),
        }
    }
}

fn only_get() -> Response<Bytes> {
    let mut page = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    let headers = page.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
    page
}

fn health_page(health: CheckOutcome) -> Response<Bytes> {
    let body = |health: &str, reason: &str| json!({"health": health, "reason": reason});
    // With the end of line that Go's proxy has behind one and not behind the other.
    match &health {
        Ok(()) => made(StatusCode::OK, JSON, body("true", "").to_string().into()),
        Err(reason) => {
            let body = format!("{}\n", body("false", reason));
            made(StatusCode::SERVICE_UNAVAILABLE, JSON, body.into())
        }
    }
}

/// With `ranges=N` only the N ranges that are watched most.
async fn status_page(ctx: &Rc<WorkerContext>, query: &str) -> Response<Bytes> {
    let ranges = value(query, "ranges").and_then(|most| most.parse().ok());
    match timeout(limits::ADMIN_RESPONSE_TIME, status(ctx, ranges)).await {
        Ok(status) => made(StatusCode::OK, JSON, format!("{status:#}\n").into()),
        Err(_) => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "a worker did not respond in time\n",
        ),
    }
}

/// The page of the endpoint that serves, or of another if that one cannot be reached.
async fn member_metrics(ctx: &Rc<WorkerContext>) -> Response<Bytes> {
    let endpoints = ctx.pool.endpoints();
    let mut all = endpoints.all();
    let current = endpoints.current();
    let first = all.iter().position(|target| Some(target.id) == current);
    all.rotate_left(first.unwrap_or(0));
    let mut failed = String::new();
    for target in all {
        let fetched = timeout(
            limits::ADMIN_RESPONSE_TIME,
            etcd_page::fetch(endpoints, &target, "/metrics"),
        )
        .await;
        match fetched {
            Ok(Ok(page)) => {
                let kind = page.content_type.unwrap_or(METRICS);
                return made(page.status, kind, page.body);
            }
            Ok(Err(e)) => failed += &format!("{}: {e}\n", target.endpoint),
            Err(_) => failed += &format!("{}: timed out\n", target.endpoint),
        }
    }
    plain(StatusCode::SERVICE_UNAVAILABLE, &failed)
}
