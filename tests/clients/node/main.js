// A client program: each step uses a part of etcd's API through the npm package `etcd3` and prints
// a line. The contract is that of all programs beside this folder, see ../README.md.

import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { EtcdAuthenticationFailedError, EtcdLockFailedError, EtcdPermissionDeniedError, Etcd3 } from 'etcd3';

const text = { type: 'string' };
const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { cacert: text, cert: text, key: text, user: text, password: text },
});
const prefix = `clients/node-${process.pid}/`;

function connect(password = flags.password) {
  const options = { hosts: `${flags.cacert ? 'https' : 'http'}://${positionals[0]}` };
  if (flags.cacert) {
    options.credentials = { rootCertificate: readFileSync(flags.cacert) };
    if (flags.cert) {
      options.credentials.certChain = readFileSync(flags.cert);
      options.credentials.privateKey = readFileSync(flags.key);
    }
  }
  if (flags.user) options.auth = { username: flags.user, password };
  return new Etcd3(options);
}

// Most steps need a second writer or a second waiter.
const [client, other] = [connect(), connect()];

function check(good, what) {
  if (!good) throw new Error(what);
}

// Collects the events of a watcher, to compare them when their number is right.
function collect(watcher) {
  const events = [];
  const name = (kv) => kv.key.toString().split('/').pop();
  watcher.on('put', (kv) => events.push(`PUT ${name(kv)}=${kv.value}`));
  watcher.on('delete', (kv) => events.push(`DELETE ${name(kv)}`));
  watcher.on('error', (error) => events.push(`error: ${error}`));
  return async (...expected) => {
    const until = Date.now() + 20_000;
    while (events.length < expected.length) {
      check(Date.now() < until, `no event after ${events}`);
      await sleep(10);
    }
    check(events.join() === expected.join(), `received ${events} instead of ${expected}`);
  };
}

async function refused(call, type, what) {
  const error = await call.then(() => new Error('no error'), (error) => error);
  check(error instanceof type, `${what}: ${error}`);
}

const steps = {
  async put() {
    const put = await client.put(`${prefix}key`).value('value');
    check(Number(put.header.revision) > 0, 'no revision');
  },

  async get() {
    const all = await client.getAll().prefix(prefix).strings();
    check(all[`${prefix}key`] === 'value', `received ${JSON.stringify(all)}`);
    const one = await client.get(`${prefix}key`).serializable(true).string();
    check(one === 'value', `received ${one}`);
  },

  async txn() {
    const key = `${prefix}key`;
    for (const expected of [true, false]) {
      const txn = await client
        .if(key, 'Value', '==', 'value')
        .then(client.put(key).value('changed'))
        .else(client.get(key))
        .commit();
      check(txn.succeeded === expected, `succeeded: ${txn.succeeded}`);
    }
    const value = await client.get(key).string();
    check(value === 'changed', `then ${value}`);
  },

  // Receives the events of another client, in order.
  async watch() {
    const watcher = await client.watch().prefix(`${prefix}watch/`).withPreviousKV().create();
    const expect = collect(watcher);
    await other.put(`${prefix}watch/a`).value('1');
    await other.put(`${prefix}watch/b`).value('2');
    await other.delete().key(`${prefix}watch/a`);
    await expect('PUT a=1', 'PUT b=2', 'DELETE a');
    await watcher.cancel();
  },

  // Starts at a revision of the past, as a client does after a lost connection.
  async 'watch resume'() {
    const { kvs } = await client.get(`${prefix}watch/b`).exec();
    const from = kvs[0].mod_revision;
    const builder = client.watch().prefix(`${prefix}watch/`).startRevision(from);
    // The events can arrive before `create` resolves.
    const watcher = builder.watcher();
    const expect = collect(watcher);
    await expect('PUT b=2', 'DELETE a');
    await watcher.cancel();
  },

  // Cancels one of two watches on a stream. The other one goes on.
  async 'watch cancel'() {
    const key = `${prefix}cancel`;
    const cancelled = await client.watch().key(key).create();
    const stays = await client.watch().key(key).create();
    const [none, expect] = [collect(cancelled), collect(stays)];
    await cancelled.cancel();
    await other.put(key).value('1');
    await expect('PUT cancel=1');
    await none();
    await stays.cancel();
  },

  async lease() {
    const lease = client.lease(5, { autoKeepAlive: false });
    await lease.put(`${prefix}leased`).value('1');
    for (let heartbeats = 0; heartbeats < 2; heartbeats += 1) {
      await sleep(1000);
      const { TTL } = await lease.keepaliveOnce();
      check(TTL === '5', `heartbeat: ${TTL}`);
    }
    const left = await client.leaseClient.leaseTimeToLive({ ID: await lease.grant(), keys: true });
    check(left.grantedTTL === '5' && left.keys.length === 1, `time to live: ${JSON.stringify(left)}`);
    await lease.revoke();
    check((await client.get(`${prefix}leased`)) === null, 'the key still exists');
  },

  // Sends no heartbeat, so etcd deletes the key.
  async 'lease expiry'() {
    const key = `${prefix}expires`;
    const watcher = await client.watch().key(key).create();
    const expect = collect(watcher);
    const lease = client.lease(1, { autoKeepAlive: false });
    await lease.put(key).value('1');
    await expect('PUT expires=1', 'DELETE expires');
    check((await client.get(key)) === null, 'the key still exists');
    await watcher.cancel();
  },

  // Hands a lock over to another client. This client library does not wait for locks.
  async lock() {
    const [first, second] = [client, other].map((each) => each.lock(`${prefix}lock`).ttl(10));
    await first.acquire();
    await refused(second.acquire(), EtcdLockFailedError, 'a second holder');
    await first.release();
    await second.acquire();
    await second.release();
  },

  // Expects refusals for another user's key and for a wrong password.
  async auth() {
    await refused(client.get('forbidden').string(), EtcdPermissionDeniedError, "another user's key");
    const wrong = connect('wrong');
    const get = wrong.get(`${prefix}key`).string();
    await refused(get, EtcdAuthenticationFailedError, 'a wrong password');
    wrong.close();
  },
};

async function run() {
  for (const [name, step] of Object.entries(steps)) {
    if (name === 'auth' && !flags.user) continue;
    await step().catch((error) => {
      throw new Error(`${name}: ${error.message}`, { cause: error });
    });
    console.log(`${name} ok`);
  }
}

setTimeout(() => fail('the steps take more than 60 seconds'), 60_000);
// The library can leave the timer of a revoked lease behind, which would delay the end.
run().then(() => process.exit(), fail);

function fail(error) {
  console.error(error);
  process.exit(1);
}
