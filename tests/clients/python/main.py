"""A client program: each step uses a part of etcd's API through the package `etcd3` of PyPI, which
uses grpcio, and prints a line. The contract is that of all programs beside this folder, see
../README.md."""

import argparse
import os
import queue
import sys
import threading
import time

import etcd3
import grpc

parser = argparse.ArgumentParser()
parser.add_argument("endpoint")
for name in ["--cacert", "--cert", "--key", "--user", "--password"]:
    parser.add_argument(name)
flags = parser.parse_args()
PREFIX = f"clients/python-{os.getpid()}/"


def connect(password=flags.password):
    host, port = flags.endpoint.rsplit(":", 1)
    return etcd3.client(
        host=host,
        port=int(port),
        ca_cert=flags.cacert,
        cert_cert=flags.cert,
        cert_key=flags.key,
        user=flags.user,
        password=password,
        timeout=20,
    )


def check(good, what):
    if not good:
        raise RuntimeError(what)


class Events:
    """The events of a watch, to compare them when their number is right."""

    def __init__(self, client, key, prefix=False, **options):
        self.queue = queue.Queue()
        self.client = client
        add = client.add_watch_prefix_callback if prefix else client.add_watch_callback
        self.id = add(key, self.queue.put, **options)

    def expect(self, *expected):
        received = []
        while len(received) < len(expected):
            response = self.queue.get(timeout=20)
            check(not isinstance(response, Exception), f"the watch ended: {response}")
            for event in response.events:
                name = event.key.decode().rsplit("/", 1)[1]
                put = isinstance(event, etcd3.events.PutEvent)
                received.append(f"PUT {name}={event.value.decode()}" if put else f"DELETE {name}")
        check(received == list(expected), f"received {received} instead of {expected}")

    def cancel(self):
        self.client.cancel_watch(self.id)


def put(client, other):
    response = client.put(PREFIX + "key", "value")
    check(response.header.revision > 0, "no revision")


def get(client, other):
    values = [value for value, _ in client.get_prefix(PREFIX)]
    check(values == [b"value"], f"received {values}")
    value, _ = client.get(PREFIX + "key", serializable=True)
    check(value == b"value", f"received {value}")


def txn(client, other):
    key = PREFIX + "key"
    parts = client.transactions
    for expected in [True, False]:
        succeeded, responses = client.transaction(
            compare=[parts.value(key) == "value"],
            success=[parts.put(key, "changed")],
            failure=[parts.get(key)],
        )
        check(succeeded == expected, f"succeeded: {succeeded}")
    check(responses[0][0][0] == b"changed", f"received {responses}")


def watch(client, other):
    """Receives the events of another client, in order."""
    events = Events(client, PREFIX + "watch/", prefix=True, prev_kv=True)
    other.put(PREFIX + "watch/a", "1")
    other.put(PREFIX + "watch/b", "2")
    other.delete(PREFIX + "watch/a")
    events.expect("PUT a=1", "PUT b=2", "DELETE a")
    events.cancel()


def watch_resume(client, other):
    """Starts at a revision of the past, as a client does after a lost connection."""
    _, metadata = client.get(PREFIX + "watch/b")
    start = metadata.mod_revision
    events = Events(client, PREFIX + "watch/", prefix=True, start_revision=start)
    events.expect("PUT b=2", "DELETE a")
    events.cancel()


def watch_cancel(client, other):
    """Cancels one of two watches on a stream. The other one goes on."""
    key = PREFIX + "cancel"
    cancelled, stays = Events(client, key), Events(client, key)
    cancelled.cancel()
    other.put(key, "1")
    stays.expect("PUT cancel=1")
    check(cancelled.queue.empty(), "an event of the cancelled watch")
    stays.cancel()


def lease(client, other):
    lease = client.lease(5)
    key = PREFIX + "leased"
    client.put(key, "1", lease=lease)
    for _ in range(2):
        time.sleep(1)
        responses = lease.refresh()
        check([each.TTL for each in responses] == [5], f"heartbeat: {responses}")
    check(lease.granted_ttl == 5 and list(lease.keys) == [key.encode()], "time to live")
    lease.revoke()
    check(client.get(key)[0] is None, "the key still exists")


def lease_expiry(client, other):
    """Sends no heartbeat, so etcd deletes the key."""
    key = PREFIX + "expires"
    events = Events(client, key)
    client.put(key, "1", lease=client.lease(1))
    events.expect("PUT expires=1", "DELETE expires")
    check(client.get(key)[0] is None, "the key still exists")
    events.cancel()


def lock(client, other):
    """Hands a lock over from one client to another one that waits."""
    first, second = (each.lock(PREFIX + "lock", ttl=10) for each in [client, other])
    for each in [first, second]:
        # The default is a folder for the locks of all users.
        each.key = PREFIX + "lock"
    check(first.acquire(), "no lock")
    check(first.is_acquired() and not second.is_acquired(), "a wrong holder")
    done = queue.Queue()
    threading.Thread(target=lambda: done.put(second.acquire()), daemon=True).start()
    time.sleep(0.3)
    check(done.empty() and not second.is_acquired(), "both clients have the lock")
    check(first.release(), "not released")
    check(done.get(timeout=20) and second.is_acquired(), "no handover")
    check(second.release(), "not released")


def auth(client, other):
    """Expects refusals for another user's key and for a wrong password."""
    refused(lambda: client.get("forbidden"), "permission denied")
    refused(lambda: connect("wrong"), "authentication failed")


def refused(call, expected):
    try:
        call()
    except grpc.RpcError as error:
        check(expected in error.details(), f"{expected}: {error.details()}")
    else:
        raise RuntimeError(f"{expected}: no error")


def run():
    client, other = connect(), connect()
    steps = [put, get, txn, watch, watch_resume, watch_cancel, lease, lease_expiry, lock]
    for step in steps + ([auth] if flags.user else []):
        name = step.__name__.replace("_", " ")
        try:
            step(client, other)
        except BaseException as error:
            raise RuntimeError(f"{name}: {error!r}") from error
        print(name, "ok", flush=True)


def late():
    print("the steps take more than 60 seconds", file=sys.stderr)
    os._exit(1)


timer = threading.Timer(60, late)
timer.daemon = True
timer.start()
run()
# The library's watch thread never ends.
sys.stdout.flush()
os._exit(0)
