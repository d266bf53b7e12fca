//! Finds out whether the etcd version of an endpoint responds reliably to progress requests (W8).

use std::rc::Rc;
use std::time::Instant;

use serde_json::Value;
use tokio::time::timeout;

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::driver::state::identity::Credential;
use crate::limits;
use crate::upstream::conn::Conn;
use crate::upstream::http1_client;

/// Returns whether progress responses of the endpoint are reliable, or `None` if it does not
/// respond.
///
/// A known version is valid for [`limits::ETCD_VERSION_TTL`], an unknown one for
/// [`limits::BACKOFF_LONGEST`]; an unknown version counts as unreliable.
pub(super) async fn supports_progress(
    ctx: &Rc<WorkerContext>,
    conn: &Rc<Conn>,
    credential: Option<&Credential>,
) -> Option<bool> {
    let endpoint = conn.endpoint();
    let cached = ctx
        .watches
        .progress_support
        .borrow()
        .get(&endpoint)
        .copied();
    if let Some((supported, until)) = cached
        && Instant::now() < until
    {
        return Some(supported);
    }
    let query = async {
        match version_from_status(conn, credential).await {
            Some(version) => Some(version),
            // Older versions allow only root to call Status, and not every listener serves
            // `/version`.
            None => version_from_page(ctx, conn).await,
        }
    };
    let version = timeout(limits::HEALTH_TIME, query).await.ok()?;
    let supported = version.as_deref().is_some_and(has_reliable_progress);
    let valid_for = match version {
        Some(_) => limits::ETCD_VERSION_TTL,
        None => limits::BACKOFF_LONGEST,
    };
    let entry = (supported, Instant::now() + valid_for);
    let mut progress_support = ctx.watches.progress_support.borrow_mut();
    progress_support.retain(|_, (_, until)| Instant::now() < *until);
    progress_support.insert(endpoint, entry);
    if !supported {
        tracing::warn!(
            endpoint = %conn.target().endpoint,
            version = version.as_deref().unwrap_or("unknown"),
            "watch progress requests are declined: the etcd version is too old"
        );
    }
    Some(supported)
}

async fn version_from_status(conn: &Rc<Conn>, credential: Option<&Credential>) -> Option<String> {
    let status = etcd_client::member_status(conn, credential).await?;
    Some(status.version).filter(|version| !version.is_empty())
}

async fn version_from_page(ctx: &Rc<WorkerContext>, conn: &Conn) -> Option<String> {
    let page = http1_client::fetch_page(ctx.pool.endpoints(), conn.target(), "/version").await;
    let page: Value = serde_json::from_slice(&page.ok()?.body).ok()?;
    page.get("etcdserver")?.as_str().map(str::to_owned)
}

/// Returns whether a version responds reliably to progress requests. The first fixed releases are
/// 3.4.25, 3.5.8 and 3.6.0.
fn has_reliable_progress(version: &str) -> bool {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    let mut numbers = release.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    match (next(), next(), next()) {
        (3, 4, patch) => patch >= 25,
        (3, 5, patch) => patch >= 8,
        (3, minor, _) => minor > 5,
        (major, _, _) => major > 3,
    }
}

#[cfg(test)]
mod tests {
    use super::has_reliable_progress;

    #[test]
    fn only_fixed_releases_have_reliable_progress() {
        for old in ["3.4.24", "3.5.0", "3.5.7", "3.3.99", "2.3.8", "", "x"] {
            assert!(!has_reliable_progress(old), "{old}");
        }
        for new in [
            "3.4.25",
            "3.5.8",
            "3.5.35",
            "3.6.0",
            "3.7.1",
            "3.8.0-alpha.0",
            "4.0.0",
        ] {
            assert!(has_reliable_progress(new), "{new}");
        }
    }
}
