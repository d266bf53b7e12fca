//! The pages under `/debug/pprof/`, where `--enable-pprof` says that they are there: as Go's programs have
//! them, as far as they make sense here.

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
use crate::server::admin::response::{made, moved, not_found, plain, value};

const FOLDER: &str = "/debug/pprof/";
/// As it is typed by who forgets that it is a folder: Go's programs send them there.
const BARE: &str = "/debug/pprof";

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

/// Whether a path is one of these pages', whether there is one or not.
pub(in crate::server) fn is_one(path: &str) -> bool {
    path.starts_with(FOLDER) || path == BARE
}

/// The page at such a path.
pub(in crate::server) async fn answer(
    ctx: &Rc<WorkerContext>,
    path: &str,
    query: &str,
) -> Response<Bytes> {
    if path == BARE {
        return moved(FOLDER);
    }
    match path.strip_prefix(FOLDER) {
        Some("") => made(StatusCode::OK, HTML, Bytes::from_static(INDEX.as_bytes())),
        Some("profile") => cpu(ctx, query).await,
        Some("heap") => memory(ProfileKind::InUse, "heap").await,
        Some("allocs") => memory(ProfileKind::Allocated, "allocs").await,
        Some("cmdline") => cmdline(),
        _ => not_found(),
    }
}

/// With a NUL between arguments, as Go has it.
fn cmdline() -> Response<Bytes> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let arguments: Vec<&[u8]> = arguments.iter().map(|each| each.as_bytes()).collect();
    let mut page = plain(StatusCode::OK, "");
    *page.body_mut() = arguments.join(&0).into();
    page
}

async fn cpu(ctx: &Rc<WorkerContext>, query: &str) -> Response<Bytes> {
    let Some(time) = seconds(query) else {
        let most = limits::PROFILE_TIME.as_secs();
        let text = format!("seconds: must be a whole number from 1 to {most}\n");
        return plain(StatusCode::BAD_REQUEST, &text);
    };
    let Some(profiler) = CpuProfiler::begin() else {
        return failed("a CPU profile is already in progress");
    };
    let mut taken = match run_on_thread(move |wanted| profiler.record(time, wanted)) {
        Ok(taken) => taken,
        Err(error) => return failed(&error.to_string()),
    };
    // One that ends with the process holds up its end no longer than others (S2): to close is to have it
    // end, with what it has.
    let taken = tokio::select! {
        taken = &mut taken => taken.ok(),
        () = ctx.drain.begun() => {
            taken.close();
            None
        }
    };
    match taken {
        Some(Ok(profile)) => download(profile, "profile"),
        Some(Err(error)) => failed(&error.to_string()),
        None => failed("etcd-edge is shutting down"),
    }
}

/// One profile of memory is made at a time: each takes a thread, and all the names of the program.
static MAKING: Semaphore = Semaphore::const_new(1);

async fn memory(kind: ProfileKind, name: &str) -> Response<Bytes> {
    // It is never closed, so there is one to be had in the end.
    let turn = MAKING.acquire().await.ok();
    let made: std::io::Result<Receiver<Vec<u8>>> = run_on_thread(move |_| {
        // Who asked may leave; the thread is there until it is done.
        let _turn = turn;
        heap::profile(kind)
    });
    match made {
        Ok(made) => match made.await {
            Ok(profile) => download(profile, name),
            Err(_) => failed("profiling failed"),
        },
        Err(error) => failed(&error.to_string()),
    }
}

/// How long a profile is asked to take; `None` for what is no time to take.
fn seconds(query: &str) -> Option<Duration> {
    let Some(seconds) = value(query, "seconds") else {
        return Some(limits::PROFILE_DEFAULT_TIME);
    };
    let time = Duration::from_secs(seconds.parse().ok()?);
    (!time.is_zero() && time <= limits::PROFILE_TIME).then_some(time)
}

fn failed(why: &str) -> Response<Bytes> {
    plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n"))
}

fn download(profile: Vec<u8>, name: &str) -> Response<Bytes> {
    let mut page = made(StatusCode::OK, PROFILE, profile.into());
    // The names are these here, which are header values.
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        page.headers_mut()
            .insert(header::CONTENT_DISPOSITION, value);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_profile_of_memory_is_made_at_a_time() {
        let turn = MAKING.acquire().await.unwrap();
        let mut waits = tokio::spawn(memory(ProfileKind::InUse, "heap"));
        let early = tokio::time::timeout(Duration::from_millis(200), &mut waits).await;
        assert!(early.is_err(), "made beside another");
        drop(turn);
        assert_eq!(waits.await.unwrap().status(), StatusCode::OK);
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
