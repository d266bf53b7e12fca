//! One seed: watchers come and go, writers write, endpoints fail, and at the end everything that
//! every watcher was told is judged.

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
use crate::writer::{self, Caller, Pen};

/// Who is not told everything by then is looked at.
const LATE: Duration = Duration::from_secs(30);

/// A cluster with a proxy, for many seeds.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) proxy: Proxy,
    pub(crate) auth: bool,
    /// The proxy merges watches.
    pub(crate) merges: bool,
}

/// How much happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) streams: usize,
    pub(crate) watchers: usize,
    /// How long watchers come and go.
    pub(crate) time: Duration,
    /// Members are killed and stopped.
    pub(crate) chaos: bool,
}

/// Plays one seed and judges it.
pub(crate) async fn play(stage: &mut Stage, seed: u64, shape: Shape) {
    let begun = Instant::now();
    let mut rng = Rng::with_seed(seed);
    let root = stage.auth.then(|| credentials("root", ROOT_PASSWORD));
    let members: Vec<String> = (0..stage.cluster.size())
        .map(|member| stage.cluster.endpoint(member))
        .collect();
    let through = vec![stage.proxy.address().to_owned()];
    let (know_direct, known) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let truth = HistoryRecorder::start(members.clone(), root.clone()).await;
    let from = truth.through() + 1;

    let pen = Arc::new(Pen::default());
    let mut writers = Vec::new();
    for number in 0..3 {
        let caller = match number {
            0 => Caller::new(members.clone(), root.clone(), know_direct.clone()),
            _ => Caller::new(through.clone(), root.clone(), known.clone()),
        };
        let fat = number == 1 && rng.u32(..3) == 0;
        let pause = Duration::from_millis(rng.u64(2..12));
        writers.push(tokio::spawn(writer::run(
            caller,
            pen.clone(),
            rng.u64(..),
            fat,
            pause,
        )));
    }

    let mut clients = Vec::new();
    let mut shared: Arc<SharedConnection> = Arc::default();
    for number in 0..shape.streams {
        let direct = number % 4 == 3;
        let limited = stage.auth && number % 4 == 1;
        // Several streams on one connection, now and then, whoever's they are.
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
            false if stage.auth && number % 2 == 0 => Some(credentials("alice", "secret")),
            false => root.clone(),
        };
        let leader = ("hasleader".to_owned(), "true".to_owned());
        let place = ClientConfig {
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
        shared = place.connection.clone();
        if direct {
            shared = Arc::default();
        }
        clients.push((WatchClient::start(place), direct, limited));
    }
    watch(stage, shape, &mut rng, &truth, from, &root, &clients).await;

    pen.stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.expect("a writer that does not panic");
    }
    let failed = std::mem::take(&mut *pen.failed.lock().expect("no writer panicked"));
    let done = pen.done.load(Ordering::SeqCst);
    assert!(done > 0, "seed {seed}: no write was done: {failed:#?}");
    assert!(shape.chaos || failed.is_empty(), "seed {seed}: {failed:#?}");
    let (revision, _) = all_keys(&members, root.as_ref()).await;
    let quiet = begun.elapsed();
    let mut records = Vec::new();
    // All are told to finish before the first is waited for.
    let finishing: Vec<_> = clients
        .into_iter()
        .map(|(client, direct, _)| (tokio::spawn(client.finish(revision)), direct))
        .collect();
    // What the proxy thinks while somebody is late.
    let address = stage.proxy.address().to_owned();
    let status = tokio::spawn(async move {
        tokio::time::sleep(LATE).await;
        http::get(&address, "/proxy/status")
            .map_or_else(|error| error.to_string(), |page| page.body)
    });
    // A watch that a client resumed behind the last write counts as one from the future, for which
    // etcd answers no progress request before the next write. Clients whose stream lasts need none.
    let (first, second): (Vec<_>, Vec<_>) = finishing
        .into_iter()
        .partition(|(_, direct)| stage.merges && !direct && !stage.auth);
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
    let history = truth.complete().await;
    let mut wrong = Vec::new();
    let (mut events, mut watchers, mut streams) = (0, 0, 0);
    for (record, direct) in &records {
        let rules = Rules {
            exact: stage.merges && !direct,
            // A killed member forgets its tokens; once all have been killed, clients log in again.
            lasting: !shape.chaos || stage.merges && !direct && !stage.auth,
        };
        wrong.extend(checker::check(&history, rules, record));
        streams += record.sessions.len();
        for session in &record.sessions {
            watchers += session.creates.len();
            let told = session.received.iter().map(|each| each.events.len());
            events += told.sum::<usize>();
        }
    }
    println!(
        "seed {seed}: etcd {} x {}, auth {}: {done} writes to revision {}, {} events; {watchers} \
         watchers on {streams} streams were told {events}; {:?} and {:?} to the end",
        stage.cluster.version(),
        members.len(),
        stage.auth,
        history.through(),
        history.events.len(),
        quiet,
        begun.elapsed() - quiet,
    );
    assert!(
        wrong.is_empty(),
        "ETCD_EDGE_SEED={seed}, etcd {} x {}, auth {}: {} findings, compactions {:?}\n{}\n{}\n{}",
        stage.cluster.version(),
        members.len(),
        stage.auth,
        wrong.len(),
        history.compactions,
        wrong[..wrong.len().min(20)].join("\n"),
        status,
        stage.proxy.process.log(),
    );
    assert!(events > 0, "seed {seed}: nobody was told anything");
}

/// Creates, cancels, asks, stops reading, compacts and breaks until the time is over.
async fn watch(
    stage: &mut Stage,
    shape: Shape,
    rng: &mut Rng,
    truth: &HistoryRecorder,
    from: i64,
    root: &Option<Credentials>,
    clients: &[(WatchClient, bool, bool)],
) {
    let members = (0..stage.cluster.size()).map(|member| stage.cluster.endpoint(member));
    let mut compacter = Caller::new(members.collect(), root.clone(), Arc::default());
    let begun = Instant::now();
    let mut compacted = 0;
    let mut made = 0;
    let mut outage = Outage::new(shape.time);
    while made < shape.watchers || begun.elapsed() < shape.time {
        let progress = begun.elapsed().as_secs_f64() / shape.time.as_secs_f64();
        // They come in bursts, and evenly over the time.
        while made < shape.watchers && (made as f64) < progress * shape.watchers as f64 {
            let (client, _, limited) = &clients[rng.usize(..clients.len())];
            for _ in 0..rng.usize(1..6) {
                let span = Span {
                    from,
                    now: truth.through(),
                };
                let (create, expect) = plan::create(rng, span, made, *limited);
                client.create(made, create.clone(), expect);
                made += 1;
                if create.id != 0 && create.start == 0 && expect == Expect::Created && rng.bool() {
                    let again = Expect::Refused("duplicate watch ID");
                    client.create(made, create, again);
                    made += 1;
                } else if rng.u32(..6) == 0 {
                    client.cancel(rng.usize(..made));
                }
            }
        }
        let (client, ..) = &clients[rng.usize(..clients.len())];
        match rng.u32(..30) {
            0..=9 => client.progress(),
            10 => client.read(false),
            11..=16 => client.read(true),
            17 => {
                let through = truth.through();
                let revision = rng.i64(compacted.max(from)..=through.max(from));
                if revision > compacted && revision <= through {
                    truth.note_compaction(revision);
                    let done = compacter.compact(revision).await;
                    assert!(shape.chaos || done.is_ok(), "{done:?}");
                    compacted = revision;
                }
            }
            _ => {}
        }
        if shape.chaos {
            outage.step(stage, rng, begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    outage.end(&mut stage.cluster);
}

/// One member at a time is killed or stopped.
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

    fn step(&mut self, stage: &mut Stage, rng: &mut Rng, now: Duration) {
        if now < self.next {
            return;
        }
        self.next += self.length;
        let cluster = &mut stage.cluster;
        if self.member.is_some() {
            self.end(cluster);
        } else {
            // Mostly the one that serves the proxy: the others are missed by nobody.
            let serving = proxy_output::current_endpoint(&stage.proxy).filter(|_| rng.u32(..4) > 0);
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
