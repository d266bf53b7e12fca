//! A client program: each step uses a part of etcd's API through the library `etcd-client` and
//! prints a line. The contract is that of all programs beside this folder, see ../../README.md.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, EventType, GetOptions, Identity,
    LeaseTimeToLiveOptions, LockOptions, PutOptions, TlsOptions, Txn, TxnOp, WatchOptions,
    WatchStream,
};

type Step = Result<(), Box<dyn Error>>;

/// Arguments of the program.
#[derive(Default)]
struct Arguments {
    endpoint: String,
    cacert: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    user: Option<String>,
    password: String,
}

/// Two connections: most steps need a second writer or a second waiter.
struct Program {
    client: Client,
    other: Client,
    /// Prefix of all keys.
    prefix: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Step {
    let arguments = Arguments::parse()?;
    tokio::time::timeout(Duration::from_secs(60), run(&arguments)).await?
}

async fn run(arguments: &Arguments) -> Step {
    let mut program = Program {
        client: arguments.connect(&arguments.password).await?,
        other: arguments.connect(&arguments.password).await?,
        prefix: format!("clients/rust-{}/", std::process::id()),
    };
    done("put", program.put().await)?;
    done("get", program.get().await)?;
    done("txn", program.txn().await)?;
    done("watch", program.watch().await)?;
    done("watch resume", program.watch_resume().await)?;
    done("watch cancel", program.watch_cancel().await)?;
    done("lease", program.lease().await)?;
    done("lease expiry", program.lease_expiry().await)?;
    done("lock", program.lock().await)?;
    if arguments.user.is_some() {
        done("auth", program.auth(arguments).await)?;
    }
    Ok(())
}

/// Prints the name of a step that succeeded, or adds it to the error.
fn done(name: &str, step: Step) -> Step {
    step.map_err(|error| format!("{name}: {error}"))?;
    println!("{name} ok");
    Ok(())
}

fn check(good: bool, what: impl Into<String>) -> Step {
    if good {
        Ok(())
    } else {
        Err(what.into().into())
    }
}

impl Arguments {
    fn parse() -> Result<Arguments, Box<dyn Error>> {
        let mut given = std::env::args().skip(1);
        let mut arguments = Arguments {
            endpoint: given.next().ok_or("no endpoint")?,
            ..Arguments::default()
        };
        while let Some(name) = given.next() {
            let value = given.next().ok_or("a flag without a value")?;
            match name.as_str() {
                "--cacert" => arguments.cacert = Some(value),
                "--cert" => arguments.cert = Some(value),
                "--key" => arguments.key = Some(value),
                "--user" => arguments.user = Some(value),
                "--password" => arguments.password = value,
                _ => return Err(format!("unknown flag {name}").into()),
            }
        }
        Ok(arguments)
    }

    async fn connect(&self, password: &str) -> Result<Client, Box<dyn Error>> {
        let mut options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(10));
        let mut scheme = "http";
        if let Some(cacert) = &self.cacert {
            scheme = "https";
            let ca = Certificate::from_pem(std::fs::read(cacert)?);
            let mut tls = TlsOptions::new().ca_certificate(ca);
            if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
                let (cert, key) = (std::fs::read(cert)?, std::fs::read(key)?);
                tls = tls.identity(Identity::from_pem(cert, key));
            }
            options = options.with_tls(tls);
        }
        if let Some(user) = &self.user {
            options = options.with_user(user, password);
        }
        let endpoint = format!("{scheme}://{}", self.endpoint);
        Ok(Client::connect([endpoint], Some(options)).await?)
    }
}

impl Program {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn put(&mut self) -> Step {
        let key = self.key("key");
        let put = self.client.put(key, "value", None).await?;
        let revision = put.header().map_or(0, |header| header.revision());
        check(revision > 0, "no revision")
    }

    async fn get(&mut self) -> Step {
        let options = GetOptions::new();
        for options in [options.clone().with_prefix(), options.with_serializable()] {
            let get = self.client.get(self.key("key"), Some(options)).await?;
            let values: Vec<&[u8]> = get.kvs().iter().map(|kv| kv.value()).collect();
            check(values == [b"value"], format!("received {get:?}"))?;
        }
        Ok(())
    }

    async fn txn(&mut self) -> Step {
        let key = self.key("key");
        for expected in [true, false] {
            let txn = Txn::new()
                .when([Compare::value(key.as_str(), CompareOp::Equal, "value")])
                .and_then([TxnOp::put(key.as_str(), "changed", None)])
                .or_else([TxnOp::get(key.as_str(), None)]);
            let response = self.client.txn(txn).await?;
            check(
                response.succeeded() == expected,
                format!("received {response:?}"),
            )?;
        }
        let get = self.client.get(key, None).await?;
        check(get.kvs()[0].value() == b"changed", format!("then {get:?}"))
    }

    /// Receives the events of another client, in order.
    async fn watch(&mut self) -> Step {
        let options = WatchOptions::new().with_prefix().with_prev_key();
        let mut stream = self.client.watch(self.key("watch/"), Some(options)).await?;
        created(&mut stream).await?;
        self.other.put(self.key("watch/a"), "1", None).await?;
        self.other.put(self.key("watch/b"), "2", None).await?;
        self.other.delete(self.key("watch/a"), None).await?;
        expect(&mut stream, &["PUT a=1", "PUT b=2", "DELETE a"]).await
    }

    /// Starts at a revision of the past, as a client does after a lost connection.
    async fn watch_resume(&mut self) -> Step {
        let get = self.client.get(self.key("watch/b"), None).await?;
        let from = get.kvs()[0].mod_revision();
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        let mut stream = self.client.watch(self.key("watch/"), Some(options)).await?;
        created(&mut stream).await?;
        expect(&mut stream, &["PUT b=2", "DELETE a"]).await
    }

    /// Cancels one of two watches on a stream. The other one goes on.
    async fn watch_cancel(&mut self) -> Step {
        let key = self.key("cancel");
        let mut stream = self.client.watch(key.as_str(), None).await?;
        let cancelled = created(&mut stream).await?;
        stream.watch(key.as_str(), None).await?;
        let stays = created(&mut stream).await?;
        check(cancelled != stays, "one id for two watches")?;
        stream.cancel(cancelled).await?;
        let response = stream.message().await?.ok_or("the stream ended")?;
        check(
            response.canceled() && response.watch_id() == cancelled,
            format!("received {response:?}"),
        )?;
        self.other.put(key, "1", None).await?;
        expect(&mut stream, &["PUT cancel=1"]).await
    }

    async fn lease(&mut self) -> Step {
        let lease = self.client.lease_grant(5, None).await?.id();
        let key = self.key("leased");
        let options = PutOptions::new().with_lease(lease);
        self.client.put(key.as_str(), "1", Some(options)).await?;
        let (mut keeper, mut responses) = self.client.lease_keep_alive(lease).await?;
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            keeper.keep_alive().await?;
            let response = responses.message().await?.ok_or("the stream ended")?;
            check(response.ttl() == 5, format!("heartbeat: {response:?}"))?;
        }
        let options = LeaseTimeToLiveOptions::new().with_keys();
        let left = self.client.lease_time_to_live(lease, Some(options)).await?;
        check(
            left.granted_ttl() == 5 && left.keys().len() == 1,
            format!("time to live: {left:?}"),
        )?;
        self.client.lease_revoke(lease).await?;
        self.expect_no_key(&key).await
    }

    /// Sends no heartbeat, so etcd deletes the key.
    async fn lease_expiry(&mut self) -> Step {
        let lease = self.client.lease_grant(1, None).await?.id();
        let key = self.key("expires");
        let mut stream = self.client.watch(key.as_str(), None).await?;
        created(&mut stream).await?;
        let options = PutOptions::new().with_lease(lease);
        self.client.put(key.as_str(), "1", Some(options)).await?;
        expect(&mut stream, &["PUT expires=1", "DELETE expires"]).await?;
        self.expect_no_key(&key).await
    }

    /// Hands a lock over from one client to another one that waits.
    async fn lock(&mut self) -> Step {
        let name = self.key("lock");
        let first = self.client.lease_grant(10, None).await?.id();
        let second = self.other.lease_grant(10, None).await?.id();
        let with_lease = |lease| Some(LockOptions::new().with_lease(lease));
        let held = self.client.lock(name.as_str(), with_lease(first)).await?;
        let second = {
            let mut waiting = pin!(self.other.lock(name.as_str(), with_lease(second)));
            let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
            check(early.is_err(), "both clients have the lock")?;
            self.client.unlock(held.key()).await?;
            waiting.await?
        };
        self.other.unlock(second.key()).await?;
        Ok(())
    }

    /// Expects refusals for another user's key and for a wrong password.
    async fn auth(&mut self, arguments: &Arguments) -> Step {
        let refused = |error: Option<String>, expected: &str| {
            let error = error.unwrap_or_else(|| "no error".to_owned());
            check(error.contains(expected), format!("{expected}: {error}"))
        };
        let get = self.client.get("forbidden", None).await;
        refused(get.err().map(|e| e.to_string()), "permission denied")?;
        let login = arguments.connect("wrong").await;
        let error = login.err().map(|e| e.to_string());
        refused(error, "authentication failed")
    }

    async fn expect_no_key(&mut self, key: &str) -> Step {
        let get = self.client.get(key, None).await?;
        check(get.count() == 0, format!("{key} still exists"))
    }
}

/// Receives the confirmation of a watch and returns the watch's id.
async fn created(stream: &mut WatchStream) -> Result<i64, Box<dyn Error>> {
    let response = stream.message().await?.ok_or("the stream ended")?;
    check(
        response.created() && !response.canceled(),
        format!("not created: {response:?}"),
    )?;
    Ok(response.watch_id())
}

/// Receives events until their number is right, and compares them.
async fn expect(stream: &mut WatchStream, expected: &[&str]) -> Step {
    let mut received = Vec::new();
    while received.len() < expected.len() {
        let response = tokio::time::timeout(Duration::from_secs(20), stream.message()).await;
        let response = response.map_err(|_| format!("no event after {received:?}"))??;
        let response = response.ok_or("the stream ended")?;
        check(!response.canceled(), format!("cancelled: {response:?}"))?;
        for event in response.events() {
            let kv = event.kv().ok_or("an event without a key")?;
            let name = kv.key_str()?.rsplit('/').next().unwrap_or_default();
            received.push(match event.event_type() {
                EventType::Put => format!("PUT {name}={}", kv.value_str()?),
                EventType::Delete => format!("DELETE {name}"),
            });
        }
    }
    check(received == expected, format!("received {received:?}"))
}
