// A client program: each step uses a part of etcd's API through jetcd and prints a line. The
// contract is that of all programs beside this folder, see ../README.md.

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.ClientBuilder;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.kv.GetResponse;
import io.etcd.jetcd.lease.LeaseKeepAliveResponse;
import io.etcd.jetcd.lock.LockResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.watch.WatchEvent;
import io.etcd.jetcd.watch.WatchResponse;
import io.grpc.stub.StreamObserver;
import java.io.File;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

public final class Client {
    private static final Map<String, String> flags = new HashMap<>();
    private static final String prefix = "clients/jetcd-" + ProcessHandle.current().pid() + "/";

    // Most steps need a second writer or a second waiter.
    private final io.etcd.jetcd.Client client = connect(flags.get("--password"));
    private final io.etcd.jetcd.Client other = connect(flags.get("--password"));
    private final KV kv = client.getKVClient();

    private interface Step {
        void run() throws Exception;
    }

    public static void main(String[] arguments) {
        flags.put("endpoint", arguments[0]);
        for (int i = 1; i + 1 < arguments.length; i += 2) {
            flags.put(arguments[i], arguments[i + 1]);
        }
        try {
            new Client().run();
            System.exit(0);
        } catch (Exception error) {
            error.printStackTrace();
            System.exit(1);
        }
    }

    private void run() throws Exception {
        step("put", this::put);
        step("get", this::get);
        step("txn", this::txn);
        step("watch", this::watch);
        step("watch resume", this::watchResume);
        step("watch cancel", this::watchCancel);
        step("lease", this::lease);
        step("lease expiry", this::leaseExpiry);
        step("lock", this::lock);
        if (flags.containsKey("--user")) {
            step("auth", this::auth);
        }
    }

    private static void step(String name, Step step) throws Exception {
        try {
            step.run();
        } catch (Exception error) {
            throw new Exception(name, error);
        }
        System.out.println(name + " ok");
    }

    private static io.etcd.jetcd.Client connect(String password) {
        String scheme = flags.containsKey("--cacert") ? "https://" : "http://";
        ClientBuilder builder = io.etcd.jetcd.Client.builder().endpoints(scheme + flags.get("endpoint"));
        if (flags.containsKey("--user")) {
            builder.user(bytes(flags.get("--user"))).password(bytes(password));
        }
        try {
            if (flags.containsKey("--cacert")) {
                builder.sslContext(tls -> {
                    tls.trustManager(new File(flags.get("--cacert")));
                    if (flags.containsKey("--cert")) {
                        tls.keyManager(new File(flags.get("--cert")), new File(flags.get("--key")));
                    }
                });
            }
        } catch (java.io.IOException error) {
            throw new IllegalArgumentException(error);
        }
        return builder.build();
    }

    private void put() throws Exception {
        long revision = result(kv.put(key("key"), bytes("value"))).getHeader().getRevision();
        check(revision > 0, "no revision");
    }

    private void get() throws Exception {
        GetOption.Builder all = GetOption.builder().isPrefix(true);
        for (GetOption.Builder option : List.of(all, GetOption.builder().withSerializable(true))) {
            GetResponse get = result(kv.get(key("key"), option.build()));
            check(get.getCount() == 1, "received " + get);
            check(get.getKvs().get(0).getValue().equals(bytes("value")), "received " + get);
        }
    }

    private void txn() throws Exception {
        Cmp unchanged = new Cmp(key("key"), Cmp.Op.EQUAL, CmpTarget.value(bytes("value")));
        for (boolean expected : new boolean[] {true, false}) {
            var txn = result(kv.txn()
                    .If(unchanged)
                    .Then(Op.put(key("key"), bytes("changed"), PutOption.DEFAULT))
                    .Else(Op.get(key("key"), GetOption.DEFAULT))
                    .commit());
            check(txn.isSucceeded() == expected, "received " + txn);
        }
        GetResponse get = result(kv.get(key("key")));
        check(get.getKvs().get(0).getValue().equals(bytes("changed")), "then " + get);
    }

    /** Receives the events of another client, in order. */
    private void watch() throws Exception {
        WatchOption options = WatchOption.builder().isPrefix(true).withPrevKV(true)
                .withCreateNotify(true).build();
        try (Events events = new Events("watch/", options)) {
            events.created();
            result(other.getKVClient().put(key("watch/a"), bytes("1")));
            result(other.getKVClient().put(key("watch/b"), bytes("2")));
            result(other.getKVClient().delete(key("watch/a")));
            events.expect("PUT a=1", "PUT b=2", "DELETE a");
        }
    }

    /** Starts at a revision of the past, as a client does after a lost connection. */
    private void watchResume() throws Exception {
        long from = result(kv.get(key("watch/b"))).getKvs().get(0).getModRevision();
        WatchOption options = WatchOption.builder().isPrefix(true).withRevision(from).build();
        try (Events events = new Events("watch/", options)) {
            events.expect("PUT b=2", "DELETE a");
        }
    }

    /** Cancels one of two watches. The other one goes on. */
    private void watchCancel() throws Exception {
        WatchOption options = WatchOption.builder().withCreateNotify(true).build();
        Events cancelled = new Events("cancel", options);
        try (Events stays = new Events("cancel", options)) {
            cancelled.created();
            stays.created();
            cancelled.close();
            result(other.getKVClient().put(key("cancel"), bytes("1")));
            stays.expect("PUT cancel=1");
            check(cancelled.isEmpty(), "an event of the cancelled watch");
        }
    }

    private void lease() throws Exception {
        long lease = result(client.getLeaseClient().grant(5)).getID();
        result(kv.put(key("leased"), bytes("1"), PutOption.builder().withLeaseId(lease).build()));
        BlockingQueue<Object> responses = new LinkedBlockingQueue<>();
        // The client sends a heartbeat after each third of the TTL.
        try (var keepAlive = client.getLeaseClient().keepAlive(lease, observer(responses))) {
            for (int i = 0; i < 2; i++) {
                Object response = responses.poll(20, TimeUnit.SECONDS);
                boolean good = response instanceof LeaseKeepAliveResponse r && r.getTTL() == 5;
                check(good, "heartbeat: " + response);
            }
        }
        LeaseOption withKeys = LeaseOption.builder().withAttachedKeys().build();
        var left = result(client.getLeaseClient().timeToLive(lease, withKeys));
        check(left.getGrantedTTL() == 5 && left.getKeys().size() == 1, "time to live: " + left);
        result(client.getLeaseClient().revoke(lease));
        check(result(kv.get(key("leased"))).getCount() == 0, "the key still exists");
    }

    /** Sends no heartbeat, so etcd deletes the key. */
    private void leaseExpiry() throws Exception {
        long lease = result(client.getLeaseClient().grant(1)).getID();
        WatchOption options = WatchOption.builder().withCreateNotify(true).build();
        try (Events events = new Events("expires", options)) {
            events.created();
            PutOption leased = PutOption.builder().withLeaseId(lease).build();
            result(kv.put(key("expires"), bytes("1"), leased));
            events.expect("PUT expires=1", "DELETE expires");
        }
        check(result(kv.get(key("expires"))).getCount() == 0, "the key still exists");
    }

    /** Hands a lock over from one client to another one that waits. */
    private void lock() throws Exception {
        long firstLease = result(client.getLeaseClient().grant(10)).getID();
        long secondLease = result(other.getLeaseClient().grant(10)).getID();
        LockResponse held = result(client.getLockClient().lock(key("lock"), firstLease));
        CompletableFuture<LockResponse> waiting = other.getLockClient().lock(key("lock"), secondLease);
        Thread.sleep(300);
        check(!waiting.isDone(), "both clients have the lock");
        result(client.getLockClient().unlock(held.getKey()));
        result(other.getLockClient().unlock(result(waiting).getKey()));
    }

    /** Expects refusals for another user's key and for a wrong password. */
    private void auth() throws Exception {
        refused(kv.get(bytes("forbidden")), "permission denied");
        try (io.etcd.jetcd.Client wrong = connect("wrong")) {
            // The client does not pass the message on.
            refused(wrong.getKVClient().get(key("key")), "UNAUTHENTICATED");
        }
    }

    private static void refused(Future<?> call, String expected) throws Exception {
        try {
            result(call);
        } catch (ExecutionException error) {
            check(error.toString().contains(expected), expected + ": " + error);
            return;
        }
        check(false, expected + ": no error");
    }

    private static <T> T result(Future<T> call) throws Exception {
        return call.get(20, TimeUnit.SECONDS);
    }

    private static void check(boolean good, String what) {
        if (!good) {
            throw new IllegalStateException(what);
        }
    }

    private static ByteSequence bytes(String text) {
        return ByteSequence.from(text.getBytes());
    }

    private static ByteSequence key(String name) {
        return bytes(prefix + name);
    }

    private static <T> StreamObserver<T> observer(BlockingQueue<Object> queue) {
        return new StreamObserver<>() {
            public void onNext(T response) {
                queue.add(response);
            }

            public void onError(Throwable error) {
                queue.add(error);
            }

            public void onCompleted() {
                queue.add("end");
            }
        };
    }

    /** A watch and its responses, to compare the events when their number is right. */
    private final class Events implements AutoCloseable {
        private final BlockingQueue<Object> responses = new LinkedBlockingQueue<>();
        private final Watch.Watcher watcher;

        Events(String name, WatchOption options) {
            StreamObserver<WatchResponse> to = observer(responses);
            watcher = client.getWatchClient().watch(
                    key(name), options, to::onNext, to::onError, to::onCompleted);
        }

        void created() throws Exception {
            WatchResponse response = next();
            check(response.isCreatedNotify(), "not created: " + response);
        }

        void expect(String... expected) throws Exception {
            List<String> received = new ArrayList<>();
            while (received.size() < expected.length) {
                for (WatchEvent event : next().getEvents()) {
                    KeyValue kv = event.getKeyValue();
                    String name = kv.getKey().toString();
                    name = name.substring(name.lastIndexOf('/') + 1);
                    received.add(event.getEventType() == WatchEvent.EventType.PUT
                            ? "PUT " + name + "=" + kv.getValue()
                            : "DELETE " + name);
                }
            }
            check(received.equals(List.of(expected)), "received " + received);
        }

        boolean isEmpty() {
            return responses.stream().noneMatch(each -> each instanceof WatchResponse);
        }

        private WatchResponse next() throws Exception {
            Object response = responses.poll(20, TimeUnit.SECONDS);
            check(response instanceof WatchResponse, "the watch ended: " + response);
            return (WatchResponse) response;
        }

        @Override
        public void close() {
            watcher.close();
        }
    }
}
