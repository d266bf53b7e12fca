//! Profiles below `/debug/pprof/`, enabled by `--enable-pprof`. Paths and formats are those of Go's
//! `net/http/pprof`; profiles without a meaning in Rust are missing.

use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use tokio::sync::Semaphore;
use tokio::sync::oneshot::Receiver;

use crate::driver::WorkerContext;
use crate::limits;
use crate::profile::cpu::CpuProfiler;
use crate::profile::{ProfileKind, heap, run_on_thread};
use crate::server::admin::response::{not_found, plain, query_value, redirect, response};

const ROOT: &str = "/debug/pprof/";
/// The path without its final slash. Redirects to [`ROOT`], as in Go.
const ROOT_WITHOUT_SLASH: &str = "/debug/pprof";

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const PROFILE: HeaderValue = HeaderValue::from_static("application/octet-stream");

const INDEX: &str = "<!doctype html>
<html lang=\"en\"><meta charset=\"utf-8\"><title>etcd-edge profiles</title>
<h1>Profiles</h1>
<ul>
<li><a href=\"profile?seconds=30\">profile</a>: CPU profile over the given number of seconds
<li><a href=\"heap\">heap</a>: memory in use, by allocation site
<li><a href=\"allocs\">allocs</a>: memory allocated since start, by allocation site
<li><a href=\"cmdline\">cmdline</a>: command line of the process
</ul>
<p>Read the profiles with <code>go tool pprof URL</code>.
";

/// Returns whether a path belongs to the profiles, whether or not a profile exists there.
pub(in crate::server) fn is_pprof_path(path: &str) -> bool {
    path.starts_with(ROOT) || path == ROOT_WITHOUT_SLASH
}

/// Returns the response for a path of [`is_pprof_path`].
pub(in crate::server) async fn respond(
    ctx: &Rc<WorkerContext>,
    path: &str,
    query: &str,
) -> Response<Bytes> {
    if path == ROOT_WITHOUT_SLASH {
        return redirect(ROOT);
    }
    match path.strip_prefix(ROOT) {
        Some("") => response(StatusCode::OK, HTML, Bytes::from_static(INDEX.as_bytes())),
        Some("profile") => cpu_profile(ctx, query).await,
        Some("heap") => heap_profile(ProfileKind::InUse, "heap").await,
        Some("allocs") => heap_profile(ProfileKind::Allocated, "allocs").await,
        Some("cmdline") => cmdline(),
        _ => not_found(),
    }
}

/// Returns the command line. A NUL separates the arguments, as in Go.
fn cmdline() -> Response<Bytes> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let arguments: Vec<&[u8]> = arguments
        .iter()
        .map(|argument| argument.as_bytes())
        .collect();
    let mut response = plain(StatusCode::OK, "");
    *response.body_mut() = arguments.join(&0).into();
    response
}

async fn cpu_profile(ctx: &Rc<WorkerContext>, query: &str) -> Response<Bytes> {
    let Some(time) = seconds(query) else {
        let max = limits::PROFILE_TIME.as_secs();
        let text = format!("seconds: must be a whole number from 1 to {max}\n");
        return plain(StatusCode::BAD_REQUEST, &text);
    };
    let Some(profiler) = CpuProfiler::begin() else {
        return unavailable("a CPU profile is already in progress");
    };
    let mut profile = match run_on_thread(move |is_wanted| profiler.record(time, is_wanted)) {
        Ok(profile) => profile,
        Err(error) => return unavailable(&error.to_string()),
    };
    // A CPU profile does not delay the end of the process (S2). Closing the channel ends the
    // recording.
    let recorded = tokio::select! {
        profile = &mut profile => profile.ok(),
        () = ctx.drain.begun() => {
            profile.close();
            None
        }
    };
    match recorded {
        Some(Ok(profile)) => download(profile, "profile"),
        Some(Err(error)) => unavailable(&error.to_string()),
        None => unavailable("etcd-edge is shutting down"),
    }
}

/// Limits heap profiles to one at a time: each needs a thread and the symbols of the program.
static HEAP_PROFILE: Semaphore = Semaphore::const_new(1);

async fn heap_profile(kind: ProfileKind, name: &str) -> Response<Bytes> {
    // The semaphore is never closed, so the result is always a permit.
    let permit = HEAP_PROFILE.acquire().await.ok();
    let started: std::io::Result<Receiver<Vec<u8>>> = run_on_thread(move |_| {
        // The thread ends later than a request that is cancelled, so it owns the permit.
        let _permit = permit;
        heap::profile(kind)
    });
    match started {
        Ok(profile) => match profile.await {
            Ok(profile) => download(profile, name),
            Err(_) => unavailable("profiling failed"),
        },
        Err(error) => unavailable(&error.to_string()),
    }
}

/// Returns the duration requested by a query; `None` if it is invalid.
fn seconds(query: &str) -> Option<Duration> {
    let Some(seconds) = query_value(query, "seconds") else {
        return Some(limits::PROFILE_DEFAULT_TIME);
    };
    let time = Duration::from_secs(seconds.parse().ok()?);
    (!time.is_zero() && time <= limits::PROFILE_TIME).then_some(time)
}

fn unavailable(reason: &str) -> Response<Bytes> {
    plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{reason}\n"))
}

fn download(profile: Vec<u8>, name: &str) -> Response<Bytes> {
    let mut response = response(StatusCode::OK, PROFILE, profile.into());
    // Both names are valid header values.
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        response
            .headers_mut()
            .insert(header::CONTENT_DISPOSITION, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn heap_profiles_are_created_one_at_a_time() {
        let permit = HEAP_PROFILE.acquire().await.unwrap();
        let mut waiting = tokio::spawn(heap_profile(ProfileKind::InUse, "heap"));
        let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
        assert!(early.is_err(), "two heap profiles at once");
        drop(permit);
        assert_eq!(waiting.await.unwrap().status(), StatusCode::OK);
    }

    #[test]
    fn seconds_are_whole_and_bounded() {
        let some = |n| Some(Duration::from_secs(n));
        assert_eq!(seconds(""), some(30));
        assert_eq!(seconds("debug=1"), some(30));
        assert_eq!(seconds("debug=1&seconds=2"), some(2));
        assert_eq!(seconds("seconds=300"), some(300));
        for bad in [
            "seconds=",
            "seconds=0",
            "seconds=301",
            "seconds=-1",
            "seconds=1.5",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
