//! Traces: trace metadata of clients passes unchanged. With a collector, calls have spans that are
//! linked to the spans of their callers and of etcd.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::RANGE;
use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::{log_entries, wait_metric};
use crate::support::release::NEWEST;
use crate::support::scripted_etcd::ScriptedEtcd;
use crate::support::tls::Tls;

const LIMIT: Duration = Duration::from_secs(10);
const UNKNOWN: &str = "/future.Service/New";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A collector that records the requests it receives.
struct Collector {
    flag: String,
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    /// Values of the `authorization` header.
    tokens: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    async fn start(tls: Option<TlsAcceptor>) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let requests = Arc::<Mutex<Vec<_>>>::default();
        let tokens = Arc::<Mutex<Vec<String>>>::default();
        let received = (requests.clone(), tokens.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, received) = (tls.clone(), received.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| receive(received.clone(), request));
                    let http = hyper::server::conn::http1::Builder::new();
                    let served = match tls {
                        None => http.serve_connection(TokioIo::new(socket), service).await,
                        Some(tls) => {
                            let Ok(socket) = tls.accept(socket).await else {
                                return;
                            };
                            http.serve_connection(TokioIo::new(socket), service).await
                        }
                    };
                    drop(served);
                });
            }
        });
        Collector {
            flag: format!("--otlp-endpoint={scheme}://localhost:{port}"),
            requests,
            tokens,
        }
    }

    /// Returns all received spans, oldest first.
    fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

type Recorded = (
    Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    Arc<Mutex<Vec<String>>>,
);

async fn receive(
    (requests, tokens): Recorded,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    assert_eq!(request.uri().to_string(), "/v1/traces");
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    if let Some(token) = request.headers().get("authorization") {
        let token = token.to_str().unwrap().to_owned();
        tokens.lock().unwrap().push(token);
    }
    let body = request.into_body().collect().await?.to_bytes();
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    requests.lock().unwrap().push(request);
    Ok(Response::new(Full::default()))
}

fn acceptor(tls: &Tls) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(&tls.server.cert).unwrap();
    let chain: Result<Vec<_>, _> = chain.collect();
    let key = PrivateKeyDer::from_pem_file(&tls.server.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.unwrap(), key);
    Arc::new(config.unwrap()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, name: &str) -> String {
    let found = span.attributes.iter().find(|each| each.key == name);
    match found.and_then(|each| each.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{name} is {other:?} in {span:?}"),
    }
}

/// Stops the proxy, which sends its queued spans first.
fn stop(mut proxy: Proxy) {
    proxy.process.signal("TERM");
    assert_eq!(proxy.process.wait(LIMIT).code(), Some(0));
}

/// Makes a relayed and a decoded call with this `traceparent`. Returns the `traceparent` values at
/// etcd.
async fn traceparents_at_etcd(
    etcd: &mut ScriptedEtcd,
    client: &Client,
    parent: Option<&str>,
) -> Vec<Vec<String>> {
    let mut seen = Vec::new();
    for path in [UNKNOWN, RANGE] {
        let mut metadata = vec![("tracestate", "a=b,c=d")];
        metadata.extend(parent.map(|parent| ("traceparent", parent)));
        let (reply, sent) = tokio::join!(client.unary(path, b"\x0a\x01a", &metadata), async {
            let mut call = etcd.next().await;
            let sent = call.metadata("traceparent");
            assert_eq!(call.metadata("tracestate"), ["a=b,c=d"]);
            call.respond("y");
            sent
        });
        assert_eq!(reply.only(), b"y");
        seen.push(sent);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_are_linked_to_the_caller_and_to_etcd() {
    let mut etcd = ScriptedEtcd::start(1).await;
    let collector = Collector::start(None).await;
    let recorded = format!("00-{TRACE}-{CALLER}-01");
    let unrecorded = format!("00-{TRACE}-{CALLER}-00");

    // Without a collector the client's metadata passes unchanged.
    let proxy = Proxy::start_with(&[etcd.flag()]);
    let client = Client::connect(proxy.address()).await;
    for parent in [Some(&recorded[..]), Some(&unrecorded), Some("odd"), None] {
        let sent = traceparents_at_etcd(&mut etcd, &client, parent).await;
        let same: Vec<String> = parent.iter().map(|&parent| parent.to_owned()).collect();
        assert_eq!(sent, [same.clone(), same]);
    }

    // The sampling decision of the caller takes precedence over the ratio.
    let flags = [
        etcd.flag(),
        collector.flag.clone(),
        "--otlp-sample-ratio=0".to_owned(),
    ];
    let proxy = Proxy::start_with(&flags);
    let client = Client::connect(proxy.address()).await;
    let sent = traceparents_at_etcd(&mut etcd, &client, None).await;
    assert_eq!(sent, [[""; 0]; 2]);
    let sent = traceparents_at_etcd(&mut etcd, &client, Some(&unrecorded)).await;
    assert_eq!(sent, [[unrecorded.clone()], [unrecorded.clone()]]);
    let sent = traceparents_at_etcd(&mut etcd, &client, Some(&recorded)).await;
    stop(proxy);
    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:?}");
    for (span, sent) in spans.iter().zip(&sent) {
        assert_eq!(
            (hex(&span.trace_id), hex(&span.parent_span_id)),
            (TRACE.to_owned(), CALLER.to_owned())
        );
        let ours = format!("00-{TRACE}-{}-01", hex(&span.span_id));
        assert_eq!(sent, &[ours]);
        // SPAN_KIND_SERVER.
        assert_eq!(span.kind, 2);
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
        assert_eq!(attribute(span, "rpc.system"), "grpc");
        assert_eq!(attribute(span, "rpc.grpc.status_code"), "0");
        assert_eq!(attribute(span, "client.address"), "127.0.0.1");
        assert_eq!(attribute(span, "etcd_edge.source"), "etcd");
        assert!(
            etcd.flag()
                .contains(&attribute(span, "etcd_edge.endpoint")[7..])
        );
    }
    assert_eq!(spans[0].name, "future.Service/New");
    assert_eq!(attribute(&spans[1], "rpc.service"), "etcdserverpb.KV");
    assert_eq!(attribute(&spans[1], "rpc.method"), "Range");
    let requests = collector.requests.lock().unwrap().clone();
    let resource = requests[0].resource_spans[0].resource.clone().unwrap();
    let named = |name: &str| resource.attributes.iter().any(|each| each.key == name);
    assert!(named("service.name") && named("service.version") && named("host.name"));

    // A call without a valid trace starts a new one.
    let flags = [
        etcd.flag(),
        collector.flag.clone(),
        "--otlp-sample-ratio=1".to_owned(),
    ];
    let proxy = Proxy::start_with(&flags);
    let client = Client::connect(proxy.address()).await;
    let sent = traceparents_at_etcd(&mut etcd, &client, None).await;
    let odd = traceparents_at_etcd(&mut etcd, &client, Some("odd")).await;
    // The deadline has already expired: the client receives an error or a reset.
    client.unary(UNKNOWN, b"", &[("grpc-timeout", "0n")]).await;
    stop(proxy);
    let spans = collector.spans().split_off(2);
    let sent = [sent, odd].concat();
    assert_eq!(spans.len(), 5);
    for (span, sent) in spans.iter().zip(&sent) {
        let ours = format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
        assert_eq!((sent, span.parent_span_id.len()), (&vec![ours], 0));
    }
    // DEADLINE_EXCEEDED is an error of the proxy; nothing was sent to etcd.
    let status = spans[4].status.clone().unwrap();
    assert_eq!(
        (status.code, attribute(&spans[4], "etcd_edge.source")),
        (2, "proxy".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collector_works_over_tls_and_an_outage_only_drops_spans() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    let collector = Collector::start(Some(acceptor(&tls))).await;
    let flags = [collector.flag.clone(), "--otlp-sample-ratio=1".to_owned()];
    let roots: &Path = &tls.ca;
    let mut all = cluster.proxy_flags();
    all.extend(flags);
    let headers = Path::new("authorization=Bearer%20abc");
    let env = [
        ("SSL_CERT_FILE", roots),
        ("OTEL_EXPORTER_OTLP_HEADERS", headers),
    ];
    let proxy = Proxy::start_with_env(&env, &all);
    let client = Client::connect(proxy.address()).await;
    client.unary(RANGE, b"\x0a\x01a", &[]).await.only();
    stop(proxy);
    assert_eq!(collector.spans().len(), 1);
    assert_eq!(collector.tokens.lock().unwrap()[..], ["Bearer abc"]);

    let down = [
        "--otlp-endpoint=http://127.0.0.1:1",
        "--otlp-sample-ratio=1",
    ];
    let mut proxy = Proxy::start(&cluster, &down);
    let client = Client::connect(proxy.address()).await;
    for _ in 0..20 {
        client.unary(RANGE, b"\x0a\x01a", &[]).await.only();
    }
    let lost = "etcd_edge_telemetry_dropped_total{kind=\"span\"}";
    wait_metric(proxy.address(), lost, LIMIT, |lost| lost == 20.0);
    let warning = "span export failed or queue full: dropping spans";
    let found = |line: &str| line.contains(warning).then_some(());
    proxy.process.wait_line(LIMIT, found).unwrap();
    assert_eq!(
        log_entries(&proxy, warning).len(),
        1,
        "{}",
        proxy.process.tail()
    );
    stop(proxy);
}
