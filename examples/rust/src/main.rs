//! Writes and reads a key, watches a prefix and keeps a lease alive through etcd-edge, with the
//! client library `etcd-client`. An application needs no change but the address.
//!
//! ```text
//! cargo run -- 127.0.0.1:23790
//! ```

use std::time::Duration;

use etcd_client::{
    Client, ConnectOptions, Error, EventType, GetOptions, PutOptions, WatchOptions, WatchResponse,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut endpoints: Vec<String> = std::env::args().skip(1).collect();
    if endpoints.is_empty() {
        endpoints.push("127.0.0.1:23790".to_owned());
    }
    // Pings detect a dead connection while only watches are open. The shortest interval that the
    // proxy accepts is its flag --grpc-keepalive-min-time, 5 seconds by default.
    let options = ConnectOptions::new()
        .with_connect_timeout(Duration::from_secs(5))
        .with_keep_alive(Duration::from_secs(30), Duration::from_secs(10));
    let client = Client::connect(endpoints, Some(options)).await?;

    read_and_write(client.clone()).await?;
    watch(client.clone()).await?;
    keep_alive(client).await
}

/// Puts a key and reads it in both ways that etcd has.
async fn read_and_write(mut client: Client) -> Result<(), Error> {
    let put = client.put("example/greeting", "hello", None).await?;
    let revision = put.header().map_or(0, |header| header.revision());
    println!("put example/greeting at revision {revision}");

    // The default is a linearizable read: it returns the newest value. The proxy merges equal
    // reads that wait at the same time.
    let get = client.get("example/greeting", None).await?;
    for kv in get.kvs() {
        println!("linearizable get: {}", kv.value_str()?);
    }

    // A serializable read can be older. The proxy can serve it from its cache.
    let serializable = GetOptions::new().with_serializable();
    let get = client.get("example/greeting", Some(serializable)).await?;
    for kv in get.kvs() {
        println!("serializable get: {}", kv.value_str()?);
    }
    Ok(())
}

/// Receives the events of a prefix. Equal watches of many clients cost etcd one watcher.
async fn watch(mut client: Client) -> Result<(), Error> {
    let prefix = WatchOptions::new().with_prefix();
    let mut stream = client.watch("example/watched/", Some(prefix)).await?;
    // The first response confirms that the watch is open.
    let created = stream.message().await?;
    if !created.is_some_and(|response| response.created() && !response.canceled()) {
        return Err(Error::WatchError("the watch was not created".to_owned()));
    }
    client.put("example/watched/a", "1", None).await?;
    client.delete("example/watched/a", None).await?;

    let mut events = 0;
    while events < 2 {
        let Some(response) = stream.message().await? else {
            return Err(Error::WatchError("the stream has ended".to_owned()));
        };
        events += print_events(&response)?;
    }
    Ok(())
}

/// Prints the events of a response and returns their number.
fn print_events(response: &WatchResponse) -> Result<usize, Error> {
    for event in response.events() {
        let Some(kv) = event.kv() else { continue };
        let kind = match event.event_type() {
            EventType::Put => "PUT",
            EventType::Delete => "DELETE",
        };
        let (key, revision) = (kv.key_str()?, kv.mod_revision());
        println!("event: {kind} {key} at revision {revision}");
    }
    Ok(response.events().len())
}

/// Renews a lease. The proxy sends the heartbeats of all clients on one stream to etcd.
async fn keep_alive(mut client: Client) -> Result<(), Error> {
    let lease = client.lease_grant(3, None).await?;
    let with_lease = PutOptions::new().with_lease(lease.id());
    client.put("example/leased", "1", Some(with_lease)).await?;

    let (mut keeper, mut responses) = client.lease_keep_alive(lease.id()).await?;
    for _ in 0..3 {
        // Unlike the Go client, this library does not send heartbeats by itself.
        keeper.keep_alive().await?;
        let Some(response) = responses.message().await? else {
            return Err(Error::LeaseKeepAliveError(
                "the stream has ended".to_owned(),
            ));
        };
        println!(
            "lease {:x} renewed, TTL {} s",
            response.id(),
            response.ttl()
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    client.lease_revoke(lease.id()).await?;
    let get = client.get("example/leased", None).await?;
    println!("keys of the lease after its end: {}", get.count());
    Ok(())
}
