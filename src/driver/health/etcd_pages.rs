//! `/livez` and `/readyz` of etcd, fetched from an endpoint. Only etcd knows all results of these
//! checks: with authentication it reports alarms and learners to no call without a token.

use std::rc::Rc;

use http::StatusCode;
use tokio::time::timeout;

use crate::driver::WorkerContext;
use crate::driver::state::check_report::{CheckOutcome, CheckReport};
use crate::limits;
use crate::upstream::http1_client::fetch_page;

/// A page of etcd, and the check that decides if no endpoint has the page.
pub(super) struct EtcdPage {
    /// The page with the results of its checks.
    path: &'static str,
    /// The check that `read` of [`EtcdPage::report`] makes.
    read: &'static str,
}

/// `/livez`, or a serializable read.
pub(super) const LIVEZ: EtcdPage = EtcdPage {
    path: "/livez?verbose",
    read: "serializable_read",
};

/// `/readyz`, or a linearizable read.
pub(super) const READYZ: EtcdPage = EtcdPage {
    path: "/readyz?verbose",
    read: "linearizable_read",
};

impl EtcdPage {
    /// Returns the report of the page. If no endpoint has the page, `read` decides.
    pub(super) async fn report(
        &self,
        ctx: &Rc<WorkerContext>,
        read: impl Future<Output = CheckOutcome>,
    ) -> CheckReport {
        if let Some(report) = fetch(ctx, self.path).await {
            return report;
        }
        match read.await {
            Ok(()) => CheckReport::new([(self.read.into(), Ok(()))]),
            Err(reason) => CheckReport::no_etcd(reason),
        }
    }
}

/// Returns the first report with only successes, else the first report. The serving endpoint is
/// the first. `None`: no endpoint has the page (releases before 3.4.29 and
/// 3.5.11 do not), or none responds within [`limits::HEALTH_TIME`].
async fn fetch(ctx: &Rc<WorkerContext>, path: &str) -> Option<CheckReport> {
    let endpoints = ctx.pool.endpoints();
    let mut failed = None;
    let all = async {
        for target in endpoints.all_current_first() {
            // The next endpoint has a chance if this one is silent.
            let page = timeout(
                limits::HEALTH_TIME / 2,
                fetch_page(endpoints, &target, path),
            )
            .await;
            let Ok(Ok(page)) = page else { continue };
            if !matches!(
                page.status,
                StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE
            ) {
                continue;
            }
            match CheckReport::parse(&String::from_utf8_lossy(&page.body)) {
                Some(report) if report.is_success() => return Some(report),
                Some(report) if failed.is_none() => failed = Some(report),
                _ => {}
            }
        }
        None
    };
    let succeeded = timeout(limits::HEALTH_TIME, all).await.ok().flatten();
    succeeded.or(failed)
}
