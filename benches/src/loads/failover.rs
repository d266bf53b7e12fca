//! Failover: a three-member cluster loses one member after the other, under load, and gets it back.
//!
//! Reads and puts in turn, at a pace, each with a deadline. Failed calls are counted by kind, and the
//! longest time without a right answer to anyone is the gap. These are the measure, so they do not
//! fail the sample. What does: a wrong answer, a read that misses a put whose answer came before it,
//! and a key that in the end does not hold the last answered put or one after it. A connection that
//! breaks is opened again; where there is no proxy, at the next member, as a client with a list of
//! members does it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use argh::FromArgs;
use bytes::Bytes;
use http::{HeaderValue, Request};
use parking_lot::Mutex;

use super::outage::{Outage, lose_in_turn};
use super::pace::{self, Place};
use super::tally::{Failure, Tally};
use super::{Servers, Stage, Workload};
use crate::client::{self, Address, Client, DEFAULT_WINDOWS};
use crate::etcdpb;
use crate::sample::Sample;

/// Calls while one member after the other is lost.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "failover")]
pub(crate) struct Failover {
    /// how a member is lost: kill, or pause, as a machine that hangs (default kill)
    #[argh(option, default = "Outage::Kill")]
    pub(crate) outage: Outage,
    /// seconds for which a member is lost, and then is back (default 2)
    #[argh(option, default = "2.0")]
    pub(crate) lost: f64,
    /// connections (default 50)
    #[argh(option, default = "50")]
    pub(crate) connections: usize,
    /// calls a second over all connections (default 500)
    #[argh(option, default = "500.0")]
    pub(crate) rate: f64,
    /// seconds until a call's deadline (default 5)
    #[argh(option, default = "5.0")]
    pub(crate) deadline: f64,
}

impl Workload for Failover {
    fn servers(&self) -> Servers {
        Servers::Fresh
    }

    fn members(&self) -> usize {
        MEMBERS as usize
    }

    fn tls(&self) -> bool {
        false
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn check(&self) -> Result<(), String> {
        if self.connections == 0 || !(1.0..1e6).contains(&self.rate) {
            return Err("at least one connection, and a rate of 1 to 1,000,000".into());
        }
        if !(0.1..=600.0).contains(&self.lost) || !(0.1..=600.0).contains(&self.deadline) {
            return Err("an outage and a deadline last 0.1 s to 600 s".into());
        }
        Ok(())
    }

    fn sample(&self, stage: &Stage) -> Result<Sample, String> {
        let members = stage.world.started();
        let members = members.ok_or("no member can be lost that was not started here")?;
        let addresses = &stage.world.members;
        client::runtime()?.block_on(async {
            let job = Arc::new(Job {
                addresses: if stage.target.is_etcd {
                    addresses.clone()
                } else {
                    vec![stage.target.address.clone()]
                },
                deadline: Duration::from_secs_f64(self.deadline),
                keys: (0..self.connections).map(|_| Mutex::default()).collect(),
                tally: Mutex::new(Tally::new(Instant::now())),
            });
            let mut callers = Vec::new();
            for number in 0..self.connections {
                let mut caller = Caller::new(&job, number)?;
                // So that there is something to read, before anything is lost.
                caller.put().await?;
                callers.push(caller);
            }
            *job.tally.lock() = Tally::new(Instant::now());
            let lost = Duration::from_secs_f64(self.lost);
            // A killed member needs a second or so until it is whole again.
            let window = (2 * lost + Duration::from_secs(1)) * MEMBERS;
            let calls = pace::run(callers, Some(self.rate), Duration::ZERO, window, || ());
            let outages = lose_in_turn(members, addresses, self.outage, lost);
            let (calls, outages) = tokio::join!(calls, outages);
            outages?;
            let mut sample = job.tally.lock().sample()?;
            sample.set_latency(calls?.latency);
            let mut reader = Caller::new(&job, 0)?;
            for number in 0..self.connections {
                reader.number = number;
                reader.read().await?;
            }
            job.tally.lock().sample()?;
            Ok(sample)
        })
    }
}

/// Members of the cluster.
const MEMBERS: u32 = 3;

struct Job {
    /// The target, or every member where there is none between.
    addresses: Vec<Address>,
    deadline: Duration,
    /// What is known of each caller's key.
    keys: Vec<Mutex<Known>>,
    tally: Mutex<Tally>,
}

/// A key's value is the number of its put.
#[derive(Clone, Copy, Default)]
struct Known {
    answered: u64,
    sent: u64,
}

/// One call at a time.
struct Caller {
    job: Arc<Job>,
    /// Of its key.
    number: usize,
    /// Which address is next.
    turn: usize,
    client: Option<Client>,
    range: Request<()>,
    put: Request<()>,
    body: Vec<u8>,
    puts_next: bool,
}

impl Place for Caller {
    async fn call(&mut self) -> Result<u64, String> {
        self.puts_next = !self.puts_next;
        let is_put = !self.puts_next;
        let outcome = if is_put {
            self.put().await
        } else {
            self.read().await
        };
        let now = Instant::now();
        match outcome {
            Ok(()) => self.job.tally.lock().right(now),
            Err(Ended::Failed(failure, _)) => self.job.tally.lock().failed(is_put, failure),
            Err(Ended::Wrong(text)) => self.job.tally.lock().wrong(text),
        }
        Ok(0)
    }
}

/// How a call ended that was not right.
enum Ended {
    Failed(Failure, String),
    Wrong(String),
}

impl From<Ended> for String {
    fn from(ended: Ended) -> String {
        match ended {
            Ended::Failed(_, text) | Ended::Wrong(text) => text,
        }
    }
}

impl Caller {
    fn new(job: &Arc<Job>, number: usize) -> Result<Caller, String> {
        let address = &job.addresses[number % job.addresses.len()];
        let millis = job.deadline.as_millis();
        let timeout = HeaderValue::from_str(&format!("{millis}m")).map_err(|e| e.to_string())?;
        let head = |path| {
            let mut head = client::head(address, path)?;
            head.headers_mut().insert("grpc-timeout", timeout.clone());
            Ok::<_, String>(head)
        };
        Ok(Caller {
            job: job.clone(),
            number,
            turn: number,
            client: None,
            range: head(etcdpb::RANGE)?,
            put: head(etcdpb::PUT)?,
            body: Vec::new(),
            puts_next: false,
        })
    }

    fn key(&self) -> Vec<u8> {
        format!("bench/failover/{}", self.number).into_bytes()
    }

    async fn put(&mut self) -> Result<(), Ended> {
        let number = {
            let mut known = self.job.keys[self.number].lock();
            known.sent += 1;
            known.sent
        };
        let frame = etcdpb::put(&self.key(), &number.to_be_bytes());
        let head = self.put.clone();
        self.exchange(&head, frame).await?;
        etcdpb::put_answer(&self.body).map_err(Ended::Wrong)?;
        let mut known = self.job.keys[self.number].lock();
        known.answered = known.answered.max(number);
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Ended> {
        let least = self.job.keys[self.number].lock().answered;
        let frame = etcdpb::range(&self.key(), false);
        let head = self.range.clone();
        self.exchange(&head, frame).await?;
        let found = etcdpb::range_answer(&self.body).map_err(Ended::Wrong)?;
        let number = found.pair.value.try_into().map(u64::from_be_bytes);
        let number = number.map_err(|_| Ended::Wrong("another value than was put".into()))?;
        if found.pair.key != self.key() {
            return Err(Ended::Wrong("another key than asked for".into()));
        }
        let most = self.job.keys[self.number].lock().sent;
        judge(number, least, most).map_err(Ended::Wrong)
    }

    async fn exchange(&mut self, head: &Request<()>, frame: Vec<u8>) -> Result<(), Ended> {
        // A second more than the server has, whose own answer is the better one.
        let limit = self.job.deadline + Duration::from_secs(1);
        let outcome = tokio::time::timeout(limit, self.attempt(head, frame)).await;
        let outcome =
            outcome.unwrap_or_else(|_| Err(Ended::Failed(Failure::Deadline, "no answer".into())));
        if let Err(Ended::Failed(Failure::Lost | Failure::Deadline, _)) = outcome {
            self.client = None;
            self.turn += 1;
        }
        outcome
    }

    async fn attempt(&mut self, head: &Request<()>, frame: Vec<u8>) -> Result<(), Ended> {
        let lost = |text| Ended::Failed(Failure::Lost, text);
        let client = match &mut self.client {
            Some(client) => client,
            none => {
                let address = &self.job.addresses[self.turn % self.job.addresses.len()];
                let opened = Client::open(address, DEFAULT_WINDOWS).await;
                none.insert(opened.map_err(lost)?)
            }
        };
        self.body.clear();
        let frame = Bytes::from(frame);
        match client.exchange(head, &frame, &mut self.body).await {
            Err(error) => Err(lost(error.to_string())),
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => {
                let failure = match refusal.code() {
                    Some(b"14") => Failure::Unavailable,
                    Some(b"4") => Failure::Deadline,
                    _ => Failure::Other,
                };
                Err(Ended::Failed(failure, refusal.to_string()))
            }
        }
    }
}

/// Whether a read may find the put `number`: `least` had been answered when the read began, and
/// `most` been sent when it ended.
fn judge(number: u64, least: u64, most: u64) -> Result<(), String> {
    if (least..=most).contains(&number) {
        return Ok(());
    }
    Err(format!(
        "a read found put {number}, where {least} was answered and {most} sent"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_finds_the_last_answered_put_or_a_later_one() {
        // Puts 4 and 5 failed, and may have been done or not.
        for number in 3..=5 {
            judge(number, 3, 5).unwrap();
        }
        assert!(judge(2, 3, 5).is_err(), "an answered put was lost");
        assert!(judge(6, 3, 5).is_err(), "a put that was never sent");
    }
}
