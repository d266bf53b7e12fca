//! Where spans are sent to, and the way there: over the dialer and the TLS that this program has anyway.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, Uri};
use opentelemetry_http::{HttpClient, HttpError};
use tokio::time::timeout;

use crate::error::StartError;
use crate::limits;
use crate::net::tls::client::{ClientFiles, ClientTls, Dialer, Trust};
use crate::upstream::dial;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::http1_client::exchange;

/// The port that OTLP over HTTP has, meant when an address names none.
const DEFAULT_PORT: u16 = 4318;

/// Where a collector takes spans, below its address.
const TRACES: &str = "/v1/traces";

/// A collector's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorUrl {
    endpoint: Endpoint,
    /// The whole address of what takes spans.
    url: String,
}

impl CollectorUrl {
    /// Reads `http://host`, with a port or without, and a path below which it is, or without; the same
    /// with `https://`.
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

    /// The whole address of what takes spans.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// How it is reached.
    pub(super) fn client(&self) -> Result<Client, StartError> {
        // It is no etcd: the certificates for etcd are neither shown to it nor trusted for it.
        let files = ClientFiles {
            trust: Trust::System,
            identity: None,
        };
        let tls = match self.endpoint.is_tls() {
            true => Some(Dialer::load(files, Arc::default())?.0.current()),
            false => None,
        };
        let endpoint = self.endpoint.clone();
        Ok(Client { endpoint, tls })
    }
}

/// Sends requests, each over a connection of its own: there is one a second at most.
#[derive(Debug)]
pub(super) struct Client {
    endpoint: Endpoint,
    tls: Option<Arc<ClientTls>>,
}

impl HttpClient for Client {
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
    fn addresses_are_of_what_takes_spans() {
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
