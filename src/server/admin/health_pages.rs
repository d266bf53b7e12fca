//! Health pages of etcd and of the proxy: `/health`, `/livez` and `/readyz`, the same below
//! `/proxy`, and one page per check such as `/readyz/linearizable_read`. Statuses and bodies are
//! those of etcd.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::driver::WorkerContext;
use crate::driver::health::{self, CheckOutcome, CheckReport};
use crate::server::admin::response::{not_found, plain, query_values, response};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A health page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct HealthPage<'a> {
    /// For the proxy, not for etcd.
    is_proxy: bool,
    kind: PageKind,
    /// The check that the path names.
    check: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PageKind {
    Health,
    Livez,
    Readyz,
}

impl<'a> HealthPage<'a> {
    /// Returns the page at a path, `None` if it is no health page. Whether the check of the path
    /// exists is not known yet.
    pub(in crate::server) fn at(path: &'a str) -> Option<HealthPage<'a>> {
        let (is_proxy, page) = match path.strip_prefix("/proxy") {
            Some(page) => (true, page),
            None => (false, path),
        };
        let (name, check) = match page.strip_prefix('/')?.split_once('/') {
            Some((name, check)) => (name, Some(check)),
            None => (page.strip_prefix('/')?, None),
        };
        let kind = match name {
            "health" if check.is_none() => PageKind::Health,
            "livez" => PageKind::Livez,
            "readyz" => PageKind::Readyz,
            _ => return None,
        };
        Some(HealthPage {
            is_proxy,
            kind,
            check,
        })
    }

    /// Returns the response.
    pub(in crate::server) async fn respond(
        self,
        ctx: &Rc<WorkerContext>,
        query: &str,
    ) -> Response<Bytes> {
        let excluded: Vec<&str> = query_values(query, "exclude").collect();
        let wanted = |name: &str| match self.check {
            Some(check) => check == name,
            None => !excluded.contains(&name),
        };
        let report = match (self.kind, self.is_proxy) {
            (PageKind::Health, false) => return health_response(&health::check_etcd(ctx).await),
            (PageKind::Health, true) => return health_response(&health::check_proxy(ctx).await),
            (PageKind::Livez, false) => health::check_livez(ctx).await,
            (PageKind::Livez, true) => health::proxy_livez(),
            (PageKind::Readyz, false) => health::check_readyz(ctx).await,
            (PageKind::Readyz, true) => health::proxy_readyz(ctx, wanted).await,
        };
        let report = match self.check {
            Some(check) => report.only(check),
            None => Some(report.without(&excluded)),
        };
        let is_verbose = query_values(query, "verbose").next().is_some();
        report.map_or_else(not_found, |report| report_response(&report, is_verbose))
    }
}

fn health_response(health: &CheckOutcome) -> Response<Bytes> {
    let body = |health: &str, reason: &str| json!({"health": health, "reason": reason});
    // etcd grpc-proxy ends only the failure response with a newline.
    match health {
        Ok(()) => response(StatusCode::OK, JSON, body("true", "").to_string().into()),
        Err(reason) => {
            let body = format!("{}\n", body("false", reason));
            response(StatusCode::SERVICE_UNAVAILABLE, JSON, body.into())
        }
    }
}

fn report_response(report: &CheckReport, is_verbose: bool) -> Response<Bytes> {
    match report.is_success() {
        true if is_verbose => plain(StatusCode::OK, &format!("{report}ok\n")),
        true => plain(StatusCode::OK, "ok\n"),
        // As in etcd, the lines of the checks and an empty line.
        false => plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{report}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_pages() {
        let page = |is_proxy, kind, check| {
            Some(HealthPage {
                is_proxy,
                kind,
                check,
            })
        };
        assert_eq!(
            HealthPage::at("/health"),
            page(false, PageKind::Health, None)
        );
        assert_eq!(
            HealthPage::at("/proxy/livez"),
            page(true, PageKind::Livez, None)
        );
        assert_eq!(
            HealthPage::at("/proxy/readyz/watch"),
            page(true, PageKind::Readyz, Some("watch"))
        );
        assert_eq!(
            HealthPage::at("/livez/"),
            page(false, PageKind::Livez, Some(""))
        );
        for path in [
            "",
            "*",
            "/",
            "/health/",
            "/healthz",
            "health",
            "/proxy",
            "/proxy/",
            "/proxylivez",
            "/proxy/proxy/livez",
            "//livez",
            "/x/livez",
        ] {
            assert_eq!(HealthPage::at(path), None, "{path}");
        }
    }
}
