package client

import (
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/ordering"
)

func TestMirror(t *testing.T) {
	c, ctx, p := setup(t)
	for _, key := range []string{"a", "b", "c"} {
		_, err := c.Put(ctx, p+key, key)
		ok(t, err)
	}
	syncer := mirror.NewSyncer(c, p, 0)
	base, errs := syncer.SyncBase(ctx)
	copied := 0
	for page := range base {
		copied += len(page.Kvs)
	}
	for err := range errs {
		t.Fatal(err)
	}
	equal(t, "keys", copied, 3)
	updates := syncer.SyncUpdates(ctx)
	_, err := c.Put(ctx, p+"d", "d")
	ok(t, err)
	got := events(t, ctx, updates, 1)
	equal(t, "key", string(got[0].Kv.Key), p+"d")
}

func TestNaming(t *testing.T) {
	c, ctx, p := setup(t)
	service := p + "service"
	manager, err := endpoints.NewManager(c, service)
	ok(t, err)
	changes, err := manager.NewWatchChannel(ctx)
	ok(t, err)
	ok(t, manager.AddEndpoint(ctx, service+"/one", endpoints.Endpoint{Addr: "127.0.0.1:1"}))
	equal(t, "added", receive(t, ctx, changes)[0].Endpoint.Addr, "127.0.0.1:1")
	list, err := manager.List(ctx)
	ok(t, err)
	equal(t, "address", list[service+"/one"].Addr, "127.0.0.1:1")
	ok(t, manager.DeleteEndpoint(ctx, service+"/one"))
	equal(t, "change", receive(t, ctx, changes)[0].Op, endpoints.Delete)
}

func TestNamespace(t *testing.T) {
	c, ctx, p := setup(t)
	kv := namespace.NewKV(c.KV, p)
	watched := namespace.NewWatcher(c.Watcher, p).Watch(ctx, "a", clientv3.WithCreatedNotify())
	receive(t, ctx, watched)
	_, err := kv.Put(ctx, "a", "1")
	ok(t, err)
	got := events(t, ctx, watched, 1)
	equal(t, "key inside", string(got[0].Kv.Key), "a")
	get, err := kv.Get(ctx, "", clientv3.WithFromKey())
	ok(t, err)
	equal(t, "keys inside", get.Count, 1)
	get, err = c.Get(ctx, p+"a")
	ok(t, err)
	equal(t, "keys outside", get.Count, 1)
}

func TestLeasing(t *testing.T) {
	c, ctx, p := setup(t)
	kv, closeKV, err := leasing.NewKV(c, p+"leasing/")
	ok(t, err)
	defer closeKV()
	_, err = kv.Put(ctx, p+"a", "1")
	ok(t, err)
	for range 3 {
		get, err := kv.Get(ctx, p+"a")
		ok(t, err)
		equal(t, "value", string(get.Kvs[0].Value), "1")
	}
	// Before another client writes, the owner gives the key up.
	other, closeOther, err := leasing.NewKV(connect(t, "", ""), p+"leasing/")
	ok(t, err)
	defer closeOther()
	_, err = other.Put(ctx, p+"a", "2")
	ok(t, err)
	get, err := kv.Get(ctx, p+"a")
	ok(t, err)
	equal(t, "value", string(get.Kvs[0].Value), "2")
}

func TestOrdering(t *testing.T) {
	c, ctx, p := setup(t)
	kv := ordering.NewKV(c.KV, ordering.NewOrderViolationSwitchEndpointClosure(c))
	for range 20 {
		_, err := kv.Put(ctx, p+"a", "1")
		ok(t, err)
		_, err = kv.Get(ctx, p+"a", clientv3.WithSerializable())
		ok(t, err)
	}
}
