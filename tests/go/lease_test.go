package client

import (
	"context"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestLease(t *testing.T) {
	c, ctx, p := setup(t)
	lease, err := c.Grant(ctx, 60)
	ok(t, err)
	_, err = c.Put(ctx, p+"a", "1", clientv3.WithLease(lease.ID))
	ok(t, err)
	ttl, err := c.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	ok(t, err)
	equal(t, "granted", ttl.GrantedTTL, 60)
	equal(t, "keys", len(ttl.Keys), 1)
	equal(t, "key", string(ttl.Keys[0]), p+"a")
	leases, err := c.Leases(ctx)
	ok(t, err)
	found := false
	for _, known := range leases.Leases {
		found = found || known.ID == lease.ID
	}
	equal(t, "the lease is listed", found, true)
	once, err := c.KeepAliveOnce(ctx, lease.ID)
	ok(t, err)
	equal(t, "TTL", once.TTL, 60)
	_, err = c.Revoke(ctx, lease.ID)
	ok(t, err)
	get, err := c.Get(ctx, p+"a")
	ok(t, err)
	equal(t, "keys after the revoke", get.Count, 0)

	_, err = c.Revoke(ctx, lease.ID)
	fails(t, err, rpctypes.ErrLeaseNotFound)
	_, err = c.KeepAliveOnce(ctx, lease.ID)
	fails(t, err, rpctypes.ErrLeaseNotFound)
	ttl, err = c.TimeToLive(ctx, lease.ID)
	ok(t, err)
	equal(t, "TTL of an unknown lease", ttl.TTL, -1)
	_, err = c.Grant(ctx, 9_000_000_001)
	fails(t, err, rpctypes.ErrLeaseTTLTooLarge)
}

func TestKeepAlive(t *testing.T) {
	c, ctx, p := setup(t)
	short, err := c.Grant(ctx, 2)
	ok(t, err)
	dies, err := c.Grant(ctx, 2)
	ok(t, err)
	_, err = c.Put(ctx, p+"dies", "1", clientv3.WithLease(dies.ID))
	ok(t, err)
	gone := c.Watch(ctx, p+"dies")
	alive, cancel := context.WithCancel(ctx)
	responses, err := c.KeepAlive(alive, short.ID)
	ok(t, err)
	// Six responses at a third of the TTL take longer than the TTL.
	for range 6 {
		response := receive(t, ctx, responses)
		equal(t, "TTL", response.TTL, 2)
	}
	ttl, err := c.TimeToLive(ctx, short.ID)
	ok(t, err)
	if ttl.TTL < 0 {
		t.Fatal("a renewed lease has expired")
	}
	event := receive(t, ctx, gone).Events[0]
	equal(t, "the other lease's key", event.Type, clientv3.EventTypeDelete)
	cancel()
	ends(t, ctx, responses)

	responses, err = c.KeepAlive(ctx, dies.ID)
	ok(t, err)
	ends(t, ctx, responses)
}
