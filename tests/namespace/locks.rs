//! Test of etcd's own Lock and Election services. In a namespace they respond like for names with
//! the prefix at another store, and their keys are below the prefix.

use crate::scene::{PUT, RANGE, TIME_TO_LIVE, call_ok, repeated};
use crate::support::cluster::Cluster;
use crate::support::grpc::{Call, Client};
use crate::support::pb::{self, Msg};
use crate::{start, stores};

const LOCK: &str = "/v3lockpb.Lock/Lock";
const UNLOCK: &str = "/v3lockpb.Lock/Unlock";
const CAMPAIGN: &str = "/v3electionpb.Election/Campaign";
const PROCLAIM: &str = "/v3electionpb.Election/Proclaim";
const LEADER: &str = "/v3electionpb.Election/Leader";
const OBSERVE: &str = "/v3electionpb.Election/Observe";
const RESIGN: &str = "/v3electionpb.Election/Resign";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";

/// One of two stores with the same history.
struct Side {
    client: Client,
    direct: Client,
    /// Prefix that the client adds to names.
    name_prefix: String,
    /// Prefix of all keys in the store.
    prefix: String,
}

impl Side {
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.name_prefix)
    }

    /// Returns a key as a client in the namespace sees it.
    fn shown(&self, key: &[u8]) -> String {
        let key = String::from_utf8(key.to_vec()).expect("UTF-8");
        let key = key
            .strip_prefix(&self.name_prefix)
            .unwrap_or_else(|| panic!("{key} is outside"));
        key.to_owned()
    }

    /// Returns all keys of the store with their revisions, without the prefix.
    async fn store(&self) -> Vec<String> {
        let all = Msg::new().bytes(1, "\0").bytes(2, "\0");
        let all = call_ok(&self.direct, RANGE, all).await;
        let kv = |kv: Vec<u8>| {
            let key = String::from_utf8(pb::bytes(&kv, &[1])).expect("UTF-8");
            let key = key
                .strip_prefix(&self.prefix)
                .unwrap_or_else(|| panic!("{key} is outside"));
            let value = String::from_utf8(pb::bytes(&kv, &[5])).expect("UTF-8");
            format!(
                "{key}={value} {:?}",
                [2, 3, 4, 6].map(|n| pb::int(&kv, &[n]))
            )
        };
        repeated(all.only(), 2).map(kv).collect()
    }

    async fn wait_two_keys(&self, under: &str) {
        let range = || {
            let end = format!("{}0", under.trim_end_matches('/'));
            Msg::new()
                .bytes(1, self.name(under))
                .bytes(2, self.name(&end))
                .int(9, 1)
        };
        while pb::int(call_ok(&self.client, RANGE, range()).await.only(), &[4]) < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Runs a script of locks and elections. Returns the results.
    async fn run(&self) -> Vec<String> {
        let mut results = Vec::new();
        for lease in [0x11, 0x12] {
            call_ok(&self.direct, GRANT, Msg::new().int(1, 600).int(2, lease)).await;
        }
        let revision = |message: &[u8]| pb::int(message, &[1, 3]);
        let open = async |path: &str, request: Msg| -> Call {
            let mut call = self.client.call(path, &[]).await;
            call.send(request).await;
            call.half_close();
            call
        };
        for name in ["lock", ""] {
            let lock = |lease| Msg::new().bytes(1, self.name(name)).int(2, lease);
            let first = call_ok(&self.client, LOCK, lock(0x11)).await;
            let key = pb::bytes(first.only(), &[2]);
            results.push(format!(
                "{} at {}",
                self.shown(&key),
                revision(first.only())
            ));
            let second = open(LOCK, lock(0x12)).await;
            self.wait_two_keys(&format!("{name}/")).await;
            let reply = call_ok(&self.client, UNLOCK, Msg::new().bytes(1, key)).await;
            results.push(format!("unlocked at {}", revision(reply.only())));
            let second = second.finish().await;
            let key = pb::bytes(second.only(), &[2]);
            results.push(format!(
                "{} at {}",
                self.shown(&key),
                revision(second.only())
            ));
            results.extend(self.store().await);
            call_ok(&self.client, UNLOCK, Msg::new().bytes(1, key)).await;
        }
        let reply = self
            .client
            .unary(LOCK, Msg::new().bytes(1, self.name("l")).int(2, 99), &[])
            .await;
        results.push(format!("{:?} {}", reply.code(), reply.message()));

        let named = || Msg::new().bytes(1, self.name("election"));
        let none = self.client.unary(LEADER, named(), &[]).await;
        results.push(format!("{:?} {}", none.code(), none.message()));
        let mut observed = self.client.call(OBSERVE, &[]).await;
        observed.send(named()).await;
        observed.half_close();
        let campaign = |lease, value| named().int(2, lease).bytes(3, value);
        let won = call_ok(&self.client, CAMPAIGN, campaign(0x11, "one")).await;
        let leader = pb::bytes(won.only(), &[2]);
        let describe = |leader: &[u8]| {
            let [name, key] = [1, 2].map(|n| self.shown(&pb::bytes(leader, &[n])));
            format!("{name} {key} {:?}", [3, 4].map(|n| pb::int(leader, &[n])))
        };
        results.push(describe(&leader));
        let observation = |message: &[u8]| {
            let kv = pb::bytes(message, &[2]);
            let value = String::from_utf8(pb::bytes(&kv, &[5])).expect("UTF-8");
            let key = self.shown(&pb::bytes(&kv, &[1]));
            format!(
                "{key}={value} {:?}",
                [2, 3, 4, 6].map(|n| pb::int(&kv, &[n]))
            )
        };
        results.push(observation(&observed.next().await.expect("a leader")));
        let proclaim = Msg::new().bytes(1, &leader).bytes(2, "again");
        call_ok(&self.client, PROCLAIM, proclaim).await;
        results.push(observation(&observed.next().await.expect("a leader")));
        let second = open(CAMPAIGN, campaign(0x12, "two")).await;
        self.wait_two_keys("election/").await;
        results.extend(self.store().await);
        call_ok(&self.client, RESIGN, Msg::new().bytes(1, &leader)).await;
        let second = second.finish().await;
        results.push(describe(&pb::bytes(second.only(), &[2])));
        results.push(observation(&observed.next().await.expect("a leader")));
        results.push(observation(
            call_ok(&self.client, LEADER, named()).await.only(),
        ));
        // Calls with the key of a former leader.
        for path in [PROCLAIM, RESIGN] {
            let reply = self
                .client
                .unary(path, Msg::new().bytes(1, &leader), &[])
                .await;
            results.push(format!("{path} {:?} {}", reply.code(), reply.message()));
            let reply = self.client.unary(path, Msg::new(), &[]).await;
            results.push(format!("{path} {:?} {}", reply.code(), reply.message()));
        }
        let keys = Msg::new().int(1, 0x12).int(2, 1);
        let keys = call_ok(&self.client, TIME_TO_LIVE, keys).await;
        results.extend(repeated(keys.only(), 5).map(|key| self.shown(&key)));
        results.extend(self.store().await);
        results
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_and_elections_behave_as_with_prefixed_names() {
    for (version, prefix) in stores() {
        let (one, other) = (Cluster::start(version, 1), Cluster::start(version, 1));
        let proxy = start(&one, prefix, &[]);
        let inside = Side {
            client: Client::connect(proxy.address()).await,
            direct: Client::connect(&one.endpoint(0)).await,
            name_prefix: String::new(),
            prefix: prefix.to_owned(),
        };
        let prefixed = Side {
            client: Client::connect(&other.endpoint(0)).await,
            direct: Client::connect(&other.endpoint(0)).await,
            name_prefix: prefix.to_owned(),
            prefix: prefix.to_owned(),
        };
        for side in [&inside, &prefixed] {
            let put = Msg::new().bytes(1, side.name("a")).bytes(2, "1");
            call_ok(&side.client, PUT, put).await;
        }
        let expected = prefixed.run().await;
        let results = inside.run().await;
        assert_eq!(results, expected, "etcd {version} in {prefix}");
    }
}
