//! Router of admin requests over HTTP/1.1 and HTTP/2: health and metrics of etcd and of the
//! proxy, status, and profiles.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::time::timeout;

use crate::driver::WorkerContext;
use crate::driver::status::status;
use crate::limits;
use crate::server::admin::health_pages::HealthPage;
use crate::server::admin::response::{not_found, plain, query_value, redirect, response};
use crate::server::admin::{pprof, status_page};
use crate::server::metrics_export::MetricsCollector;
use crate::upstream::http1_client;

const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Methods of pages.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

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
        let (path, query) = (uri.path(), uri.query().unwrap_or_default());
        let page = HealthPage::at(path);
        let is_pprof = self.pprof_enabled && pprof::is_pprof_path(path);
        match (path, method) {
            // Like etcd, with any path. A health page responds with its state: load balancers send
            // OPTIONS as a check.
            (_, &Method::OPTIONS) if page.is_none() => options(),
            // Like etcd, the proxy serves metrics to any method.
            ("/metrics", _) => member_metrics(ctx).await,
            ("/proxy/metrics", _) => self.proxy_metrics(),
            (_, &Method::GET) if is_pprof => pprof::respond(ctx, path, query).await,
            _ if is_pprof => method_not_allowed(HeaderValue::from_static("GET")),
            (_, &Method::GET | &Method::HEAD | &Method::OPTIONS) => match (path, page) {
                (_, Some(page)) => page.respond(ctx, query).await,
                ("/proxy/status", _) => status_json(ctx, query).await,
                ("/proxy/", _) => status_page::status_page(),
                ("/proxy", _) => redirect("/proxy/"),
                _ => not_found(),
            },
            ("/proxy/status" | "/proxy/" | "/proxy", _) => method_not_allowed(METHODS),
            _ if page.is_some() => method_not_allowed(METHODS),
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

fn method_not_allowed(allowed: HeaderValue) -> Response<Bytes> {
    let mut page = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    page.headers_mut().insert(header::ALLOW, allowed);
    page
}

/// Returns the response to OPTIONS. Unlike etcd's, it does not allow scripts of other sites to use
/// the pages.
fn options() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    response.headers_mut().insert(header::ALLOW, METHODS);
    response
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
    let mut failed = String::new();
    for target in endpoints.all_current_first() {
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
