//! Router of admin requests over HTTP/1.1 and HTTP/2: health and metrics of etcd and of the
//! proxy, status, and profiles.

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
use crate::server::admin::response::{not_found, plain, query_value, redirect, response};
use crate::server::admin::{pprof, status_page};
use crate::server::metrics_export::MetricsCollector;
use crate::upstream::http1_client;

const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Responds to admin requests.
pub struct AdminRouter {
    registry: Registry,
    /// Serves the profiles (`--enable-pprof`).
    pprof_enabled: bool,
}

impl AdminRouter {
    /// Creates a router that exports `metrics` and the metrics of the process, and serves profiles
    /// if `pprof_enabled`.
    ///
    /// # Errors
    /// A metric is registered twice.
    pub fn new(
        metrics: MetricsCollector,
        pprof_enabled: bool,
    ) -> Result<AdminRouter, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(metrics))?;
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process))?;
        Ok(AdminRouter {
            registry,
            pprof_enabled,
        })
    }

    /// Returns the response to a request.
    pub async fn respond(
        &self,
        ctx: &Rc<WorkerContext>,
        method: &Method,
        uri: &Uri,
    ) -> Response<Bytes> {
        let path = uri.path();
        match path {
            // Like etcd, the proxy serves metrics to any method.
            "/health" | "/proxy/health" | "/proxy/status" | "/proxy/" | "/proxy"
                if method != Method::GET =>
            {
                method_not_allowed()
            }
            "/health" => health_response(health::check_etcd(ctx).await),
            "/proxy/health" => health_response(health::check_proxy(ctx).await),
            "/proxy/status" => status_json(ctx, uri.query().unwrap_or_default()).await,
            "/proxy/" => status_page::status_page(),
            "/proxy" => redirect("/proxy/"),
            "/metrics" => member_metrics(ctx).await,
            "/proxy/metrics" => self.proxy_metrics(),
            _ if self.pprof_enabled && pprof::is_pprof_path(path) => match *method == Method::GET {
                true => pprof::respond(ctx, path, uri.query().unwrap_or_default()).await,
                false => method_not_allowed(),
            },
            _ => not_found(),
        }
    }

    fn proxy_metrics(&self) -> Response<Bytes> {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => response(StatusCode::OK, METRICS, text.into()),
            Err(e) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{e}\n")),
        }
    }
}

fn method_not_allowed() -> Response<Bytes> {
    let mut page = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    let headers = page.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
    page
}

fn health_response(health: CheckOutcome) -> Response<Bytes> {
    let body = |health: &str, reason: &str| json!({"health": health, "reason": reason});
    // etcd grpc-proxy ends only the failure response with a newline.
    match &health {
        Ok(()) => response(StatusCode::OK, JSON, body("true", "").to_string().into()),
        Err(reason) => {
            let body = format!("{}\n", body("false", reason));
            response(StatusCode::SERVICE_UNAVAILABLE, JSON, body.into())
        }
    }
}

/// Returns `/proxy/status`. With `ranges=N`, only the N ranges with the most watchers are included.
async fn status_json(ctx: &Rc<WorkerContext>, query: &str) -> Response<Bytes> {
    let ranges = query_value(query, "ranges").and_then(|max| max.parse().ok());
    match timeout(limits::ADMIN_RESPONSE_TIME, status(ctx, ranges)).await {
        Ok(status) => response(StatusCode::OK, JSON, format!("{status:#}\n").into()),
        Err(_) => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "a worker did not respond in time\n",
        ),
    }
}

/// Returns `/metrics` of the selected endpoint, or of the next endpoint if a request fails.
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
            http1_client::fetch_page(endpoints, &target, "/metrics"),
        )
        .await;
        match fetched {
            Ok(Ok(page)) => {
                let content_type = page.content_type.unwrap_or(METRICS);
                return response(page.status, content_type, page.body);
            }
            Ok(Err(e)) => failed += &format!("{}: {e}\n", target.endpoint),
            Err(_) => failed += &format!("{}: timed out\n", target.endpoint),
        }
    }
    plain(StatusCode::SERVICE_UNAVAILABLE, &failed)
}
