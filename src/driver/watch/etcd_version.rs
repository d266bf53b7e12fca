//! Whether an endpoint's answers to progress requests are sound, by the release it runs (W8).

use std::rc::Rc;
use std::time::Instant;

use serde_json::Value;
use tokio::time::timeout;

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::driver::state::identity::Credential;
use crate::limits;
use crate::upstream::conn::Conn;
use crate::upstream::etcd_page;

/// Asks the endpoint once in a while; `None` when it is silent.
pub(super) async fn answers_progress(
    ctx: &Rc<WorkerContext>,
    conn: &Rc<Conn>,
    credential: Option<&Credential>,
) -> Option<bool> {
    let endpoint = conn.endpoint();
    let known = ctx.watches.releases.borrow().get(&endpoint).copied();
    if let Some((sound, until)) = known
        && Instant::now() < until
    {
        return Some(sound);
    }
    let asking = async {
        match by_status(conn, credential).await {
            Some(version) => Some(version),
            // Older releases let only root ask that, and the page is not everywhere.
            None => by_page(ctx, conn).await,
        }
    };
    let version = timeout(limits::HEALTH_TIME, asking).await.ok()?;
    let sound = version.as_deref().is_some_and(is_sound);
    let counts = match version {
        Some(_) => limits::RELEASE_TIME,
        None => limits::BACKOFF_LONGEST,
    };
    let entry = (sound, Instant::now() + counts);
    let mut releases = ctx.watches.releases.borrow_mut();
    releases.retain(|_, (_, until)| Instant::now() < *until);
    releases.insert(endpoint, entry);
    if !sound {
        tracing::warn!(
            endpoint = %conn.target().endpoint,
            version = version.as_deref().unwrap_or("unknown"),
            "watch progress requests are declined: the etcd version is too old"
        );
    }
    Some(sound)
}

async fn by_status(conn: &Rc<Conn>, credential: Option<&Credential>) -> Option<String> {
    let status = etcd_client::status(conn, credential).await?;
    Some(status.version).filter(|version| !version.is_empty())
}

async fn by_page(ctx: &Rc<WorkerContext>, conn: &Conn) -> Option<String> {
    let page = etcd_page::fetch(ctx.pool.endpoints(), conn.target(), "/version").await;
    let page: Value = serde_json::from_slice(&page.ok()?.body).ok()?;
    page.get("etcdserver")?.as_str().map(str::to_owned)
}

/// 3.4.25 and 3.5.8 are the first of their lines.
fn is_sound(version: &str) -> bool {
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
    use super::is_sound;

    #[test]
    fn old_releases_are_not_sound() {
        for old in ["3.4.24", "3.5.0", "3.5.7", "3.3.99", "2.3.8", "", "x"] {
            assert!(!is_sound(old), "{old}");
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
            assert!(is_sound(new), "{new}");
        }
    }
}
