//! The log: one JSON object per line on stderr, in the format of etcd's log.
//!
//! A line is `{"level":…,"ts":…,"caller":…,"msg":…` followed by the fields of the event. A line has
//! no colors and is one write. Of other crates only warnings and errors are logged, also with
//! `--debug`, because the HTTP/2 library logs every frame. If stderr is closed, the line is lost.
//! If stderr blocks, the program blocks.

use std::fmt::{self, Write};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::wire::json;

/// Installs the log of this process. With `debug` it includes debug events. A second call has no
/// effect.
pub fn init(debug: bool) {
    let (filter, handle) = reload::Layer::new(filter(debug));
    let lines = tracing_subscriber::fmt::layer()
        .event_format(JsonLine)
        .with_writer(std::io::stderr)
        // A message about a failed write would go to the same stderr, and would panic.
        .log_internal_errors(false);
    // Fails only if a log is already installed. That log remains in use.
    let set_up = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    if set_up.is_ok() {
        // Cannot fail: a log is installed once.
        let _ = FILTER.set(handle);
    }
}

/// Switches debug events on or off.
pub fn set_debug(debug: bool) {
    if let Some(handle) = FILTER.get() {
        // Fails only if no log is installed.
        let _ = handle.reload(filter(debug));
    }
}

/// The filter of the installed log, which can be replaced at run time. An event does not access the
/// filter, because every log statement caches whether it is enabled.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

fn filter(debug: bool) -> Targets {
    let own = if debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("etcd_edge", own)
}

/// Formats an event as one line.
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = Fields {
            msg: String::new(),
            rest: String::new(),
        };
        event.record(&mut fields);

        let level = level_name(*metadata.level());
        // A clock before 1970 shows as 1970.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = json::timestamp(now.unwrap_or_default());
        write!(out, r#"{{"level":"{level}","ts":"{now}""#)?;
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            out.write_str(r#","caller":"#)?;
            json::string(&mut out, &format!("{}:{line}", last_two(file)))?;
        }
        out.write_str(r#","msg":"#)?;
        json::string(&mut out, &fields.msg)?;
        out.write_str(&fields.rest)?;
        out.write_str("}\n")
    }
}

/// The fields of one event: its message, and the other fields as JSON with a leading comma each.
struct Fields {
    msg: String,
    rest: String,
}

impl Fields {
    /// Adds a field with a value that is valid JSON without quotes.
    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        self.key(field);
        // Writing to a String cannot fail.
        let _ = write!(self.rest, "{value}");
    }

    fn text(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.msg.push_str(value);
            return;
        }
        self.key(field);
        let _ = json::string(&mut self.rest, value);
    }

    fn key(&mut self, field: &Field) {
        self.rest.push(',');
        let _ = json::string(&mut self.rest, field.name());
        self.rest.push(':');
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.bare(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.bare(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no representation of infinity and NaN.
        if value.is_finite() {
            self.bare(field, value);
        } else {
            self.text(field, &value.to_string());
        }
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        _ => "debug",
    }
}

/// Returns the last two components of a path: `dir/file.rs`.
fn last_two(path: &str) -> &str {
    match path.rmatch_indices('/').nth(1) {
        Some((at, _)) => &path[at + 1..],
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::{JsonLine, last_two};
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tracing_subscriber::layer::SubscriberExt;

    /// Records the writes of the subscriber, each separately.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

    impl io::Write for Writes {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(buf.to_vec());
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(event: impl FnOnce()) -> Vec<String> {
        let writes = Writes::default();
        let sink = writes.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(JsonLine)
            .with_writer(move || sink.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), event);
        let writes = writes.0.lock().unwrap();
        writes
            .iter()
            .map(|bytes| String::from_utf8(bytes.clone()).unwrap())
            .collect()
    }

    #[test]
    fn a_line_begins_with_the_four_standard_fields_and_is_one_write() {
        let writes = logged(|| {
            let error = io::Error::other("no \"way\"\n");
            let error: &(dyn std::error::Error + 'static) = &error;
            tracing::warn!(
                endpoint = "http://a:1",
                tries = 3u64,
                below = -1i64,
                tls = true,
                ratio = 0.5,
                odd = f64::NAN,
                error,
                took = ?Duration::from_millis(1500),
                "lost \u{1b}[31m{}",
                "etcd"
            );
        });
        assert_eq!(writes.len(), 1, "{writes:?}");
        let line = writes[0].strip_suffix('\n').unwrap();
        let (head, tail) = line.split_once(r#"","caller":"src/logging.rs:"#).unwrap();
        let ts = head.strip_prefix(r#"{"level":"warn","ts":""#).unwrap();
        assert_eq!((ts.len(), &ts[19..20], &ts[26..]), (27, ".", "Z"));
        assert_eq!(
            tail.split_once('"').unwrap().1,
            concat!(
                r#","msg":"lost \u001b[31metcd","endpoint":"http://a:1","tries":3,"below":-1,"#,
                r#""tls":true,"ratio":0.5,"odd":"NaN","error":"no \"way\"\n","took":"1.5s"}"#
            )
        );
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }

    #[test]
    fn the_caller_is_a_directory_and_a_file() {
        assert_eq!(last_two("src/upstream/pool.rs"), "upstream/pool.rs");
        assert_eq!(last_two("src/app.rs"), "src/app.rs");
        assert_eq!(last_two("app.rs"), "app.rs");
    }
}
