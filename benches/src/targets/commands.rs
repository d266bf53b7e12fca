//! Command line and configuration of each proxy.
//!
//! All proxies have two threads or workers, no access log, and no limit that the loads would reach.
//! Otherwise they use their own defaults.

use std::net::SocketAddr;
use std::path::Path;

use super::certs::Certs;
use super::{NAMESPACE, TargetKind};

/// Addresses and files for the configuration of a proxy.
pub(crate) struct ProxyConfig<'a> {
    pub(crate) listen: SocketAddr,
    /// The etcd members behind the proxy.
    pub(crate) members: &'a [SocketAddr],
    /// Set for TLS on both sides.
    pub(crate) certs: Option<&'a Certs>,
    /// Folder of the configuration file.
    pub(crate) directory: &'a Path,
}

impl ProxyConfig<'_> {
    /// Returns the arguments of a proxy, and writes its configuration file if it needs one.
    ///
    /// # Errors
    ///
    /// Fails for etcd, which is not a proxy, and if the file cannot be written.
    pub(crate) fn arguments(&self, kind: TargetKind) -> Result<Vec<String>, String> {
        match kind {
            TargetKind::Etcd => Err("etcd is not a proxy".into()),
            TargetKind::Edge | TargetKind::OtherEdge => Ok(self.proxy("start")),
            TargetKind::EdgeUncached => {
                let mut arguments = self.proxy("start");
                arguments.push("--cache-bytes=0".into());
                Ok(arguments)
            }
            TargetKind::EdgeNamespaced => {
                let mut arguments = self.proxy("start");
                arguments.push(format!("--namespace={NAMESPACE}"));
                Ok(arguments)
            }
            TargetKind::GoProxy => {
                let mut arguments = vec!["grpc-proxy".into()];
                arguments.extend(self.proxy("start"));
                Ok(arguments)
            }
            TargetKind::HaproxyH2 => {
                let file = self.write("haproxy-h2.cfg", &self.haproxy_h2())?;
                Ok(vec!["-db".into(), "-f".into(), file])
            }
            TargetKind::HaproxyTcp => {
                let file = self.write("haproxy-tcp.cfg", &self.haproxy_tcp())?;
                Ok(vec!["-db".into(), "-f".into(), file])
            }
            TargetKind::Nginx => {
                let file = self.write("nginx.conf", &self.nginx())?;
                let folder = self.directory.display().to_string();
                Ok(vec!["-p".into(), folder, "-c".into(), file])
            }
        }
    }

    fn proxy(&self, verb: &str) -> Vec<String> {
        let scheme = if self.certs.is_some() {
            "https"
        } else {
            "http"
        };
        let endpoints: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{scheme}://{member}"))
            .collect();
        let mut arguments = vec![
            verb.into(),
            format!("--listen-addr={}", self.listen),
            format!("--endpoints={}", endpoints.join(",")),
        ];
        if let Some(Certs { ca, cert, key, .. }) = self.certs {
            let (ca, cert, key) = (ca.display(), cert.display(), key.display());
            arguments.extend([
                format!("--cacert={ca}"),
                format!("--cert={cert}"),
                format!("--key={key}"),
                format!("--cert-file={cert}"),
                format!("--key-file={key}"),
            ]);
        }
        arguments
    }

    /// Sets a stream window that does not slow large values down: the default of 64 KiB costs a
    /// tenth of the throughput. haproxy assumes two files per connection and would not start if a
    /// process may not open that many. With HTTP/2 to etcd it needs few beyond those of its
    /// clients.
    fn haproxy_h2(&self) -> String {
        let (bind, server) = match self.certs {
            None => (" proto h2".into(), " proto h2".into()),
            Some(Certs { ca, both, .. }) => (
                format!(" ssl crt {} alpn h2", both.display()),
                format!(" ssl ca-file {} verify required alpn h2", ca.display()),
            ),
        };
        let redispatch = "    option redispatch\n    retries 3\n    http-reuse always\n";
        self.haproxy("http", &bind, &server, redispatch)
    }

    fn haproxy_tcp(&self) -> String {
        self.haproxy("tcp", "", "", "    option redispatch\n")
    }

    fn haproxy(&self, mode: &str, bind: &str, server: &str, backend: &str) -> String {
        let listen = self.listen;
        // Health checks are useful only with another member to switch to.
        let check = if self.members.len() > 1 {
            " check inter 500ms"
        } else {
            ""
        };
        let servers: String = self
            .members
            .iter()
            .enumerate()
            .map(|(number, member)| format!("    server etcd{number} {member}{server}{check}\n"))
            .collect();
        format!(
            "global
    nbthread 2
    maxconn 12000
    no strict-limits
    tune.h2.initial-window-size 1048576
defaults
    mode {mode}
    timeout connect 5s
    timeout client 10m
    timeout server 10m
    timeout tunnel 1h
frontend clients
    bind {listen}{bind}
    default_backend etcd
backend etcd
{backend}{servers}"
        )
    }

    /// nginx opens an upstream connection for every call in flight and reuses them later.
    fn nginx(&self) -> String {
        let (listen, folder) = (self.listen, self.directory.display());
        let servers: String = self
            .members
            .iter()
            .map(|member| format!("server {member}; "))
            .collect();
        let (server, pass) = match self.certs {
            None => (String::new(), "grpc_pass grpc://etcd;".into()),
            Some(Certs { ca, cert, key, .. }) => (
                format!(
                    " ssl;
        ssl_certificate {};
        ssl_certificate_key {}",
                    cert.display(),
                    key.display()
                ),
                format!(
                    "grpc_pass grpcs://etcd; grpc_ssl_verify on; grpc_ssl_name localhost;
            grpc_ssl_trusted_certificate {};",
                    ca.display()
                ),
            ),
        };
        format!(
            "daemon off;
worker_processes 2;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 12000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    keepalive_time 24h;
    http2_max_concurrent_streams 100000;
    client_header_timeout 1h;
    client_body_timeout 1h;
    client_max_body_size 0;
    send_timeout 1h;
    grpc_read_timeout 1h;
    grpc_send_timeout 1h;
    upstream etcd {{
        {servers}
        keepalive 1024;
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
        keepalive_time 24h;
    }}
    server {{
        listen {listen} http2{server};
        location / {{
            {pass}
        }}
    }}
}}
"
        )
    }

    fn write(&self, name: &str, text: &str) -> Result<String, String> {
        let file = self.directory.join(name);
        std::fs::write(&file, text).map_err(|e| e.to_string())?;
        Ok(file.display().to_string())
    }
}
