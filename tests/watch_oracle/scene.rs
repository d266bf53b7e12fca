//! One seed: watchers are created and cancelled, writers write, endpoints fail, and at the end the
//! checker compares everything that each watcher received with the history.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::plan::{self, Span};
use crate::support::cluster::{Cluster, ROOT_PASSWORD};
use crate::support::http;
use crate::support::proxy::Proxy;
use crate::support::proxy_output;
use crate::support::watch::checker::{self, Rules};
use crate::support::watch::client::{
    ClientConfig, Credentials, Expect, SharedConnection, WatchClient,
};
use crate::support::watch::history::{HistoryRecorder, all_keys};
use crate::writer::{self, Caller, WriterState};

/// Time after which the proxy's status is recorded, because a client has not received everything.
const LATE: Duration = Duration::from_secs(30);

/// A cluster with a proxy, for many seeds.
pub(crate) struct Environment {
    pub(crate) cluster: Cluster,
    pub(crate) proxy: Proxy,
    pub(crate) auth: bool,
    /// The server shares watches, so it is a proxy.
    pub(crate) merges: bool,
}

/// Load of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) streams: usize,
    pub(crate) watchers: usize,
    /// Time in which watchers are created and cancelled.
    pub(crate) time: Duration,
    /// Members are killed and paused.
    pub(crate) chaos: bool,
}

/// Runs one seed and checks its records.
pub(crate) async fn run(environment: &mut Environment, seed: u64, load: Load) {
    let begun = Instant::now();
    let mut rng = Rng::with_seed(seed);
    let root = environment.auth.then(|| credentials("root", ROOT_PASSWORD));
    let members: Vec<String> = (0..environment.cluster.size())
        .map(|member| environment.cluster.endpoint(member))
        .collect();
    let through = vec![environment.proxy.address().to_owned()];
    let (know_direct, known) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let recorder = HistoryRecorder::start(members.clone(), root.clone()).await;
    let from = recorder.through() + 1;

    let writer_state = Arc::new(WriterState::default());
    let mut writers = Vec::new();
    for number in 0..3 {
        let caller = match number {
            0 => Caller::new(members.clone(), root.clone(), know_direct.clone()),
            _ => Caller::new(through.clone(), root.clone(), known.clone()),
        };
        let large = number == 1 && rng.u32(..3) == 0;
        let pause = Duration::from_millis(rng.u64(2..12));
        writers.push(tokio::spawn(writer::run(
            caller,
            writer_state.clone(),
            rng.u64(..),
            large,
            pause,
        )));
    }

    let mut clients = Vec::new();
    let mut shared: Arc<SharedConnection> = Arc::default();
    for number in 0..load.streams {
        let direct = number % 4 == 3;
        let limited = environment.auth && number % 4 == 1;
        // Now and then several streams share one connection, also streams of different users.
        if direct || rng.bool() {
            shared = Arc::default();
        }
        let mut addresses = if direct {
            members.clone()
        } else {
            through.clone()
        };
        rng.shuffle(&mut addresses);
        let credentials = match limited {
            true => Some(credentials(plan::LIMITED, "secret")),
            false if environment.auth && number % 2 == 0 => Some(credentials("alice", "secret")),
            false => root.clone(),
        };
        let leader = ("hasleader".to_owned(), "true".to_owned());
        let config = ClientConfig {
            name: format!(
                "{} client {number}",
                if direct { "direct" } else { "proxied" }
            ),
            addresses,
            credentials,
            metadata: Vec::from_iter(rng.bool().then_some(leader)),
            known: if direct { &know_direct } else { &known }.clone(),
            connection: std::mem::take(&mut shared),
        };
        shared = config.connection.clone();
        if direct {
            shared = Arc::default();
        }
        clients.push((WatchClient::start(config), direct, limited));
    }
    drive(
        environment,
        load,
        &mut rng,
        &recorder,
        from,
        &root,
        &clients,
    )
    .await;

    writer_state.stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.expect("a writer that does not panic");
    }
    let failed = std::mem::take(&mut *writer_state.failed.lock().expect("no writer panicked"));
    let done = writer_state.done.load(Ordering::SeqCst);
    assert!(done > 0, "seed {seed}: no write succeeded: {failed:#?}");
    assert!(load.chaos || failed.is_empty(), "seed {seed}: {failed:#?}");
    let (revision, _) = all_keys(&members, root.as_ref()).await;
    let quiet = begun.elapsed();
    let mut records = Vec::new();
    // All clients get the request to finish before the first one is awaited.
    let finishing: Vec<_> = clients
        .into_iter()
        .map(|(client, direct, _)| (tokio::spawn(client.finish(revision)), direct))
        .collect();
    // Record the status of the proxy if a client is late.
    let address = environment.proxy.address().to_owned();
    let status = tokio::spawn(async move {
        tokio::time::sleep(LATE).await;
        http::get(&address, "/proxy/status")
            .map_or_else(|error| error.to_string(), |page| page.body)
    });
    // A watch that a client resumed after the last write starts in the future. etcd sends no
    // progress for it before the next write. A client with a lasting stream needs no such write.
    let (first, second): (Vec<_>, Vec<_>) = finishing
        .into_iter()
        .partition(|(_, direct)| environment.merges && !direct && !environment.auth);
    for (client, direct) in first {
        records.push((client.await.expect("a client that does not panic"), direct));
    }
    let ticker = tokio::spawn(writer::tick(Caller::new(
        members.clone(),
        root,
        know_direct,
    )));
    for (client, direct) in second {
        records.push((client.await.expect("a client that does not panic"), direct));
    }
    ticker.abort();
    let status = match status.is_finished() {
        true => status.await.unwrap_or_default(),
        false => String::new(),
    };
    let history = recorder.complete().await;
    let mut violations = Vec::new();
    let (mut events, mut watchers, mut streams) = (0, 0, 0);
    for (record, direct) in &records {
        let rules = Rules {
            exact: environment.merges && !direct,
            // A killed member forgets its tokens. After all members were killed, clients log in
            // again.
            lasting: !load.chaos || environment.merges && !direct && !environment.auth,
        };
        violations.extend(checker::check(&history, rules, record));
        streams += record.sessions.len();
        for session in &record.sessions {
            watchers += session.creates.len();
            let received = session.received.iter().map(|each| each.events.len());
            events += received.sum::<usize>();
        }
    }
    println!(
        "seed {seed}: etcd {} x {}, auth {}: {done} writes to revision {}, {} events; {watchers} \
         watchers on {streams} streams received {events}; {:?} and {:?} to the end",
        environment.cluster.version(),
        members.len(),
        environment.auth,
        history.through(),
        history.events.len(),
        quiet,
        begun.elapsed() - quiet,
    );
    assert!(
        violations.is_empty(),
        "ETCD_EDGE_SEED={seed}, etcd {} x {}, auth {}: {} violations, compactions {:?}\n{}\n{}\n{}",
        environment.cluster.version(),
        members.len(),
        environment.auth,
        violations.len(),
        history.compactions,
        violations[..violations.len().min(20)].join("\n"),
        status,
        environment.proxy.process.tail(),
    );
    assert!(events > 0, "seed {seed}: no watcher received an event");
}

/// Creates and cancels watches, requests progress, pauses readers, compacts and causes outages.
async fn drive(
    environment: &mut Environment,
    load: Load,
    rng: &mut Rng,
    recorder: &HistoryRecorder,
    from: i64,
    root: &Option<Credentials>,
    clients: &[(WatchClient, bool, bool)],
) {
    let members =
        (0..environment.cluster.size()).map(|member| environment.cluster.endpoint(member));
    let mut compacter = Caller::new(members.collect(), root.clone(), Arc::default());
    let begun = Instant::now();
    let mut compacted = 0;
    let mut count = 0;
    let mut outage = Outage::new(load.time);
    while count < load.watchers || begun.elapsed() < load.time {
        let progress = begun.elapsed().as_secs_f64() / load.time.as_secs_f64();
        // Watchers are created in bursts, evenly over the time.
        while count < load.watchers && (count as f64) < progress * load.watchers as f64 {
            let (client, _, limited) = &clients[rng.usize(..clients.len())];
            for _ in 0..rng.usize(1..6) {
                let span = Span {
                    from,
                    now: recorder.through(),
                };
                let (create, expect) = plan::create(rng, span, count, *limited);
                client.create(count, create.clone(), expect);
                count += 1;
                if create.id != 0 && create.start == 0 && expect == Expect::Created && rng.bool() {
                    let again = Expect::Refused("duplicate watch ID");
                    client.create(count, create, again);
                    count += 1;
                } else if rng.u32(..6) == 0 {
                    client.cancel(rng.usize(..count));
                }
            }
        }
        let (client, ..) = &clients[rng.usize(..clients.len())];
        match rng.u32(..30) {
            0..=9 => client.progress(),
            10 => client.read(false),
            11..=16 => client.read(true),
            17 => {
                let through = recorder.through();
                let revision = rng.i64(compacted.max(from)..=through.max(from));
                if revision > compacted && revision <= through {
                    recorder.note_compaction(revision);
                    let done = compacter.compact(revision).await;
                    assert!(load.chaos || done.is_ok(), "{done:?}");
                    compacted = revision;
                }
            }
            _ => {}
        }
        if load.chaos {
            outage.step(environment, rng, begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    outage.end(&mut environment.cluster);
}

/// An outage: one member at a time is killed or paused.
struct Outage {
    member: Option<(usize, bool)>,
    next: Duration,
    length: Duration,
}

impl Outage {
    fn new(time: Duration) -> Outage {
        Outage {
            member: None,
            next: time / 6,
            length: time / 6,
        }
    }

    fn step(&mut self, environment: &mut Environment, rng: &mut Rng, now: Duration) {
        if now < self.next {
            return;
        }
        self.next += self.length;
        let cluster = &mut environment.cluster;
        if self.member.is_some() {
            self.end(cluster);
        } else {
            // Mostly the member that serves the proxy, since a loss of another one has no effect.
            let serving =
                proxy_output::current_endpoint(&environment.proxy).filter(|_| rng.u32(..4) > 0);
            let serving = serving.and_then(|endpoint| {
                (0..cluster.size()).find(|member| endpoint.ends_with(&cluster.endpoint(*member)))
            });
            let member = serving.unwrap_or(rng.usize(..cluster.size()));
            let kill = rng.bool();
            if kill {
                cluster.kill(member);
            } else {
                cluster.stop(member);
            }
            self.member = Some((member, kill));
        }
    }

    fn end(&mut self, cluster: &mut Cluster) {
        match self.member.take() {
            Some((member, true)) => cluster.restart(member),
            Some((member, false)) => cluster.resume(member),
            None => {}
        }
    }
}

fn credentials(name: &str, password: &str) -> Credentials {
    Credentials {
        name: name.to_owned(),
        password: password.to_owned(),
    }
}
