//! Address of the span collector, and an HTTP client for it that uses the dialer and TLS of this
//! program.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, Uri};
use opentelemetry_http::{HttpClient, HttpError};
use tokio::time::timeout;

use crate::error::StartError;
use crate::limits;
use crate::net::tls::client::{ClientFiles, ClientTls, CurrentClientTls, Trust};
use crate::upstream::dial;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::http1_client::exchange;

/// Default port: the port of OTLP over HTTP.
const DEFAULT_PORT: u16 = 4318;

/// Path of the trace endpoint, below the path of the collector.
const TRACES: &str = "/v1/traces";

/// Address of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorUrl {
    endpoint: Endpoint,
    /// URL of the trace endpoint.
    url: String,
}

impl CollectorUrl {
    /// Parses `http://HOST` or `https://HOST`, each with an optional port and base path.
    ///
    /// # Errors
    /// The reason, for the message about the flag.
    pub fn parse(text: &str) -> Result<CollectorUrl, String> {
        let form = "must be http://HOST:PORT or https://HOST:PORT";
        let uri: Uri = text.parse().map_err(|_| form.to_owned())?;
        let scheme = uri.scheme_str();
        let scheme = scheme.filter(|scheme| matches!(*scheme, "http" | "https"));
        let (Some(scheme), Some(host)) = (scheme, uri.host()) else {
            return Err(form.to_owned());
        };
        if uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err("only a path may follow the host, and nothing may precede it".to_owned());
        }
        let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
        let base = format!("{scheme}://{host}:{port}");
        let endpoint = Endpoint::parse(&base).map_err(|reason| reason.to_string())?;
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix(TRACES).unwrap_or(path);
        let url = format!("{base}{path}{TRACES}");
        Ok(CollectorUrl { endpoint, url })
    }

    /// Returns the URL of the trace endpoint.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Creates a client of the collector.
    ///
    /// # Errors
    /// The root certificates of the system cannot be loaded.
    pub(super) fn client(&self) -> Result<CollectorClient, StartError> {
        // The collector is not etcd, so the CA and the client certificate for etcd do not apply.
        let files = ClientFiles {
            trust: Trust::System,
            identity: None,
        };
        let tls = match self.endpoint.is_tls() {
            true => Some(CurrentClientTls::load(files, Arc::default())?.0.current()),
            false => None,
        };
        let endpoint = self.endpoint.clone();
        Ok(CollectorClient { endpoint, tls })
    }
}

/// HTTP client of a collector. Each request uses a new connection: at most one per second is sent.
#[derive(Debug)]
pub(super) struct CollectorClient {
    endpoint: Endpoint,
    tls: Option<Arc<ClientTls>>,
}

impl HttpClient for CollectorClient {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let sent = async {
                let tls = self.tls.as_ref().map(|tls| (&tls.pages, &*tls.counts));
                let stream = dial::connect(&self.endpoint, tls).await?;
                exchange(stream, request, limits::SPAN_RESPONSE_BYTES).await
            };
            Ok(timeout(limits::SPAN_EXPORT_TIME, sent).await??)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::CollectorUrl;

    #[test]
    fn urls_end_with_the_path_of_traces() {
        for (text, url) in [
            ("http://a:1", "http://a:1/v1/traces"),
            ("http://a:1/", "http://a:1/v1/traces"),
            ("https://a", "https://a:4318/v1/traces"),
            ("http://[::1]:9/otel/", "http://[::1]:9/otel/v1/traces"),
            ("http://a:1/x/v1/traces", "http://a:1/x/v1/traces"),
        ] {
            let parsed = CollectorUrl::parse(text).unwrap();
            assert_eq!(parsed.url(), url);
            assert_eq!(parsed.endpoint.is_tls(), url.starts_with("https"));
        }
        for bad in [
            "",
            "a:1",
            "grpc://a:1",
            "http://",
            "http://u@a:1",
            "http://a:1?x",
        ] {
            assert!(CollectorUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
