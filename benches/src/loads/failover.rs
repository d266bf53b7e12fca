//! Failover: a cluster of three loses one member after the other under load, and each returns.
//!
//! The load alternates reads and puts at a fixed rate, each with a deadline. It counts failed calls
//! by kind, and measures the longest time without a correct response to any client. Failed calls do
//! not fail the sample. These do: a wrong response, a read that misses a put acknowledged before
//! the read began, and a key that at the end has a value older than its last acknowledged put.
//! After a broken connection a client reconnects. Without a proxy it connects to the next member,
//! as a client with a list of members does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use argh::FromArgs;
use bytes::Bytes;
use http::{HeaderValue, Request};
use parking_lot::Mutex;

use super::outage::{Outage, lose_in_turn};
use super::pace::{self, Slot};
use super::tally::{Failure, Tally};
use super::{SampleContext, Servers, Workload};
use crate::client::{self, Address, Client, DEFAULT_WINDOWS};
use crate::etcdpb;
use crate::sample::Sample;

/// Calls while one member after the other is lost.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "failover")]
pub(crate) struct Failover {
    /// how a member is lost: kill, or pause as a machine that hangs (default kill)
    #[argh(option, default = "Outage::Kill")]
    pub(crate) outage: Outage,
    /// seconds for which each member is lost (default 2)
    #[argh(option, default = "2.0")]
    pub(crate) lost: f64,
    /// connections (default 50)
    #[argh(option, default = "50")]
    pub(crate) connections: usize,
    /// calls per second over all connections (default 500)
    #[argh(option, default = "500.0")]
    pub(crate) rate: f64,
    /// deadline of a call in seconds (default 5)
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
            return Err("--connections is at least 1, --rate from 1 to 1,000,000".into());
        }
        if !(0.1..=600.0).contains(&self.lost) || !(0.1..=600.0).contains(&self.deadline) {
            return Err("--lost and --deadline are from 0.1 to 600".into());
        }
        Ok(())
    }

    fn sample(&self, context: &SampleContext) -> Result<Sample, String> {
        let members = context.testbed.started();
        let members = members.ok_or("failover needs members that the harness has started")?;
        let addresses = &context.testbed.members;
        client::runtime()?.block_on(async {
            let job = Arc::new(Job {
                addresses: if context.target.is_etcd {
                    addresses.clone()
                } else {
                    vec![context.target.address.clone()]
                },
                deadline: Duration::from_secs_f64(self.deadline),
                keys: (0..self.connections).map(|_| Mutex::default()).collect(),
                tally: Mutex::new(Tally::new(Instant::now())),
            });
            let mut callers = Vec::new();
            for number in 0..self.connections {
                let mut caller = Caller::new(&job, number)?;
                // Every read then finds a value, before any member is lost.
                caller.put().await?;
                callers.push(caller);
            }
            *job.tally.lock() = Tally::new(Instant::now());
            let lost = Duration::from_secs_f64(self.lost);
            // A killed member needs about a second until it serves again.
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
    /// The proxy, or all members if the target is etcd.
    addresses: Vec<Address>,
    deadline: Duration,
    /// Puts to the key of each caller.
    keys: Vec<Mutex<PutNumbers>>,
    tally: Mutex<Tally>,
}

/// Numbers of the last puts to a key. The value of a key is the number of its put.
#[derive(Clone, Copy, Default)]
struct PutNumbers {
    answered: u64,
    sent: u64,
}

/// A slot for one call at a time.
struct Caller {
    job: Arc<Job>,
    /// Number of its key.
    number: usize,
    /// Index of the next address, modulo their number.
    turn: usize,
    client: Option<Client>,
    range: Request<()>,
    put: Request<()>,
    body: Vec<u8>,
    puts_next: bool,
}

impl Slot for Caller {
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
            Err(CallError::Failed(failure, _)) => self.job.tally.lock().failed(is_put, failure),
            Err(CallError::Wrong(text)) => self.job.tally.lock().wrong(text),
        }
        Ok(0)
    }
}

/// Error of a call.
enum CallError {
    Failed(Failure, String),
    Wrong(String),
}

impl From<CallError> for String {
    fn from(error: CallError) -> String {
        match error {
            CallError::Failed(_, text) | CallError::Wrong(text) => text,
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

    async fn put(&mut self) -> Result<(), CallError> {
        let number = {
            let mut puts = self.job.keys[self.number].lock();
            puts.sent += 1;
            puts.sent
        };
        let frame = etcdpb::put(&self.key(), &number.to_be_bytes());
        let head = self.put.clone();
        self.exchange(&head, frame).await?;
        etcdpb::put_response(&self.body).map_err(CallError::Wrong)?;
        let mut puts = self.job.keys[self.number].lock();
        puts.answered = puts.answered.max(number);
        Ok(())
    }

    async fn read(&mut self) -> Result<(), CallError> {
        let least = self.job.keys[self.number].lock().answered;
        let frame = etcdpb::range(&self.key(), false);
        let head = self.range.clone();
        self.exchange(&head, frame).await?;
        let found = etcdpb::range_response(&self.body).map_err(CallError::Wrong)?;
        let number = found.pair.value.try_into().map(u64::from_be_bytes);
        let number = number.map_err(|_| CallError::Wrong("another value than was put".into()))?;
        if found.pair.key != self.key() {
            return Err(CallError::Wrong("another key than requested".into()));
        }
        let most = self.job.keys[self.number].lock().sent;
        check_put_number(number, least, most).map_err(CallError::Wrong)
    }

    async fn exchange(&mut self, head: &Request<()>, frame: Vec<u8>) -> Result<(), CallError> {
        // One second more than the server's deadline: the server's response is more precise.
        let limit = self.job.deadline + Duration::from_secs(1);
        let outcome = tokio::time::timeout(limit, self.attempt(head, frame)).await;
        let outcome = outcome
            .unwrap_or_else(|_| Err(CallError::Failed(Failure::Deadline, "no response".into())));
        if let Err(CallError::Failed(Failure::Lost | Failure::Deadline, _)) = outcome {
            self.client = None;
            self.turn += 1;
        }
        outcome
    }

    async fn attempt(&mut self, head: &Request<()>, frame: Vec<u8>) -> Result<(), CallError> {
        let lost = |text| CallError::Failed(Failure::Lost, text);
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
            Ok(Err(error)) => {
                let failure = match error.code() {
                    Some(b"14") => Failure::Unavailable,
                    Some(b"4") => Failure::Deadline,
                    _ => Failure::Other,
                };
                Err(CallError::Failed(failure, error.to_string()))
            }
        }
    }
}

/// Checks whether a read may return the put `number`. `least` is the last put acknowledged before
/// the read began, `most` the last put sent before it ended.
fn check_put_number(number: u64, least: u64, most: u64) -> Result<(), String> {
    if (least..=most).contains(&number) {
        return Ok(());
    }
    Err(format!(
        "a read returned put {number}, but {least} was acknowledged and {most} sent"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_finds_the_last_answered_put_or_a_later_one() {
        // Puts 4 and 5 failed, and may or may not have been applied.
        for number in 3..=5 {
            check_put_number(number, 3, 5).unwrap();
        }
        assert!(
            check_put_number(2, 3, 5).is_err(),
            "an acknowledged put was lost"
        );
        assert!(
            check_put_number(6, 3, 5).is_err(),
            "a put that was never sent"
        );
    }
}
