//! The contract of a client program (`README.md`), the servers that it runs against, and the
//! comparison of its output with the steps of the contract.

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use rcgen::SanType;

use crate::support::auth_users;
use crate::support::cluster::Cluster;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;
use crate::support::tls::CertFiles;

/// Longest run of a program, which gives up by itself after 60 seconds.
const LIMIT: Duration = Duration::from_secs(90);

/// The user of the modes with auth, who may use the keys below `clients/` only.
const USER: &str = "ann";

/// Steps of a program, in order.
const STEPS: [&str; 9] = [
    "put",
    "get",
    "txn",
    "watch",
    "watch resume",
    "watch cancel",
    "lease",
    "lease expiry",
    "lock",
];

/// Every mode.
pub(crate) const MODES: [Mode; 4] = [Mode::Plain, Mode::Tls, Mode::Auth, Mode::TlsAuth];

/// Transport and authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Plaintext, without auth.
    Plain,
    /// TLS with client certificates, without auth.
    Tls,
    /// Plaintext, with a user and a password.
    Auth,
    /// TLS with client certificates that name no user, with a user and a password.
    TlsAuth,
}

/// A member and a proxy in front of it.
struct Scene {
    mode: Mode,
    /// Certificate of the clients.
    identity: Option<CertFiles>,
    cluster: Cluster,
    proxy: Proxy,
}

/// The outcome of a run.
#[derive(Debug)]
pub(crate) struct Run {
    /// Whether the client succeeded.
    pub(crate) success: bool,
    /// The steps that succeeded, in order.
    pub(crate) steps: Vec<String>,
    /// Everything that the client wrote.
    pub(crate) output: String,
}

/// A server for a client.
pub(crate) struct Target<'a> {
    scene: &'a Scene,
    /// `host:port` of the proxy or of etcd.
    pub(crate) endpoint: String,
}

impl Mode {
    fn tls(self) -> bool {
        matches!(self, Mode::Tls | Mode::TlsAuth)
    }

    fn auth(self) -> bool {
        matches!(self, Mode::Auth | Mode::TlsAuth)
    }

    /// Returns the names of a program's steps in this mode.
    pub(crate) fn steps(self) -> Vec<String> {
        let auth = self.auth().then_some("auth");
        STEPS.into_iter().chain(auth).map(str::to_owned).collect()
    }
}

impl Scene {
    /// Returns the scene of a mode, which all tests share.
    fn of(mode: Mode) -> &'static Scene {
        static SCENES: [OnceLock<Scene>; 4] = [const { OnceLock::new() }; 4];
        SCENES[mode as usize].get_or_init(|| Scene::start(mode))
    }

    fn start(mode: Mode) -> Scene {
        let mut builder = Cluster::builder(NEWEST);
        if mode.tls() {
            builder = builder.tls();
        }
        if mode.auth() {
            builder = builder.auth();
        }
        let cluster = builder.start();
        let mut flags = vec!["--advertise-client-url=".to_owned()];
        if mode.auth() {
            auth_users::add(&cluster, USER, &["clients/"]);
        }
        let identity = mode.tls().then(|| {
            let tls = cluster.tls();
            flags.push(format!("--cert-file={}", tls.server.cert.display()));
            flags.push(format!("--key-file={}", tls.server.key.display()));
            flags.push(format!("--trusted-ca-file={}", tls.ca.display()));
            // Java accepts no certificate without any name. etcd looks for a user in the Common
            // Name only.
            let name = SanType::DnsName("client".try_into().expect("a DNS name"));
            tls.issue("named-client", |params| {
                params.subject_alt_names = vec![name]
            })
        });
        let proxy = Proxy::start(&cluster, &flags);
        Scene {
            mode,
            identity,
            cluster,
            proxy,
        }
    }

    /// Returns the proxy as a server.
    fn proxy(&self) -> Target<'_> {
        Target {
            scene: self,
            endpoint: self.proxy.address().to_owned(),
        }
    }

    /// Returns etcd as a server.
    fn etcd(&self) -> Target<'_> {
        Target {
            scene: self,
            endpoint: self.cluster.endpoint(0),
        }
    }
}

impl Target<'_> {
    /// Returns the flags for the certificates.
    pub(crate) fn tls_flags(&self) -> Vec<String> {
        let Some(CertFiles { cert, key }) = &self.scene.identity else {
            return Vec::new();
        };
        let ca = &self.scene.cluster.tls().ca;
        let files = [("--cacert", ca), ("--cert", cert), ("--key", key)];
        let flags = files.map(|(flag, path)| [flag.to_owned(), path.display().to_string()]);
        flags.into_iter().flatten().collect()
    }

    /// Returns the user and the password, if the mode has auth.
    pub(crate) fn user(&self) -> Option<(&str, &str)> {
        let user = self.scene.mode.auth().then_some(USER);
        user.map(|user| (user, auth_users::password(user)))
    }

    /// Runs a program with the arguments of the contract.
    pub(crate) fn run(&self, command: &mut Command) -> Run {
        command.arg(&self.endpoint).args(self.tls_flags());
        if let Some((user, password)) = self.user() {
            command.args(["--user", user, "--password", password]);
        }
        let mut program = Process::spawn("the client", command);
        let success = program.wait(LIMIT).success();
        let output = program.log();
        let steps = output.lines().filter_map(|line| line.strip_suffix(" ok"));
        Run {
            success,
            steps: steps.map(str::to_owned).collect(),
            output,
        }
    }
}

/// Runs a program through the proxy. Every step of the contract must succeed.
pub(crate) fn check(mode: Mode, program: impl Fn() -> Command) {
    check_steps(mode, &mode.steps(), |target| target.run(&mut program()));
}

/// Runs a client through the proxy, which must succeed with these steps. If it does not, it runs
/// directly at etcd too, so that the message shows whether the proxy is the cause.
pub(crate) fn check_steps(mode: Mode, steps: &[String], client: impl Fn(&Target<'_>) -> Run) {
    let scene = Scene::of(mode);
    let through = client(&scene.proxy());
    if through.success && through.steps == steps {
        return;
    }
    let direct = client(&scene.etcd());
    let cause = match direct.success && direct.steps == steps {
        true => "the proxy is the cause: directly at etcd the client works",
        false => "the client fails directly at etcd, too",
    };
    panic!(
        "{mode:?}: {cause}\nthrough the proxy:\n{}\ndirectly:\n{}\nlog of the proxy:\n{}",
        through.output,
        direct.output,
        scene.proxy.process.log()
    );
}

/// Records a known limit: a client works directly at etcd, and fails through the proxy at its first
/// call with this message.
pub(crate) fn check_limit(
    mode: Mode,
    steps: &[String],
    message: &str,
    client: impl Fn(&Target<'_>) -> Run,
) {
    let scene = Scene::of(mode);
    let direct = client(&scene.etcd());
    assert!(
        direct.success && direct.steps == steps,
        "{mode:?}: the client fails directly at etcd:\n{}",
        direct.output
    );
    let through = client(&scene.proxy());
    assert!(
        !through.success && through.steps.is_empty() && through.output.contains(message),
        "{mode:?}: not the known limit. If the client works now, expect that here, and remove the \
         limit from docs/migrating.md:\n{}",
        through.output
    );
}
