//! Signals of the process: SIGTERM and SIGINT start the drain (S2), SIGHUP reloads files (S3).

use std::sync::Arc;
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::config_reload::ConfigReloader;
use crate::call_log::Observer;
use crate::error::StartError;
use crate::limits;

/// A stream of the signals that stop the process, SIGTERM and SIGINT. From its creation on, these
/// signals no longer end the process.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Registers the handlers. Needs a runtime.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(super) fn new() -> Result<StopSignals, StartError> {
        Ok(StopSignals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Returns the name of the next signal.
    pub(super) async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Ends the process at the second stop signal. The first one has just arrived. Signals within
    /// [`limits::SIGNAL_REPEAT_TIME`] after it are repetitions, for example of a supervisor that
    /// signals both the process and its group.
    pub(super) async fn exit_at_second(mut self) {
        let first = Instant::now();
        loop {
            let signal = self.recv().await;
            if first.elapsed() >= limits::SIGNAL_REPEAT_TIME {
                break;
            }
            info!(signal, "signal repeated: the drain continues");
        }
        warn!("second signal received: exiting immediately");
        std::process::exit(1);
    }
}

/// Handles SIGHUP: reloads the TLS files and the configuration file, and reopens the access log.
///
/// # Errors
/// The system refuses the handler.
pub(super) fn reload_on_hangup(
    reload: Arc<Notify>,
    observer: Option<Arc<Observer>>,
    mut reloader: Option<ConfigReloader>,
) -> Result<(), StartError> {
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            info!("SIGHUP received: reloading files");
            reload.notify_one();
            if let Some(observer) = &observer {
                observer.reopen();
            }
            if let Some(reloader) = &mut reloader {
                reloader.reload().await;
            }
        }
    });
    Ok(())
}

fn listen(kind: SignalKind) -> Result<Signal, StartError> {
    signal(kind).map_err(|e| StartError::new("signals", e))
}
