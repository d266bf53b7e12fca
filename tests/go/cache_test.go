package client

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/mirror"
)

// cache is a copy of a prefix, built from a list and a watch. Its reads are linearizable: it waits until
// the watch reports progress at the required revision, as Kubernetes does.
type cache struct {
	mu       sync.Mutex
	keys     map[string]string
	revision int64
	moved    chan struct{} // closed and replaced when the revision changes
	broken   error
}

func startCache(ctx context.Context, c *clientv3.Client, p string) (*cache, error) {
	list, err := c.Get(ctx, p, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	own := &cache{keys: map[string]string{}, moved: make(chan struct{})}
	for _, kv := range list.Kvs {
		own.keys[string(kv.Key)] = string(kv.Value)
	}
	own.revision = list.Header.Revision
	watch := c.Watch(clientv3.WithRequireLeader(ctx), p, clientv3.WithPrefix(),
		clientv3.WithRev(own.revision+1), clientv3.WithProgressNotify(), clientv3.WithCreatedNotify())
	go func() {
		for response := range watch {
			own.apply(response)
		}
	}()
	go func() {
		for ctx.Err() == nil {
			c.RequestProgress(clientv3.WithRequireLeader(ctx))
			time.Sleep(100 * time.Millisecond)
		}
	}()
	return own, nil
}

func (own *cache) apply(response clientv3.WatchResponse) {
	own.mu.Lock()
	defer own.mu.Unlock()
	if err := response.Err(); err != nil {
		own.broken = err
	}
	before := own.revision
	for _, e := range response.Events {
		key := string(e.Kv.Key)
		if e.Kv.ModRevision <= before {
			own.broken = fmt.Errorf("at %d received %v", before, e)
		}
		if e.Type == clientv3.EventTypeDelete {
			delete(own.keys, key)
		} else {
			own.keys[key] = string(e.Kv.Value)
		}
		own.revision = e.Kv.ModRevision
	}
	if response.IsProgressNotify() {
		if response.Header.Revision < own.revision {
			own.broken = fmt.Errorf("progress went back from %d to %d", own.revision, response.Header.Revision)
		}
		own.revision = response.Header.Revision
	}
	close(own.moved)
	own.moved = make(chan struct{})
}

// read returns the keys and their revision, once that is at least the given one.
func (own *cache) read(ctx context.Context, revision int64) (map[string]string, int64, error) {
	for {
		own.mu.Lock()
		moved, at, err := own.moved, own.revision, own.broken
		keys := map[string]string{}
		if at >= revision {
			for key, value := range own.keys {
				keys[key] = value
			}
		}
		own.mu.Unlock()
		if err != nil || at >= revision {
			return keys, at, err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, at, fmt.Errorf("the cache stays at %d, below %d", at, revision)
		}
	}
}

func sameKeys(got map[string]string, want *clientv3.GetResponse) error {
	if len(got) != len(want.Kvs) {
		return fmt.Errorf("%d keys, not %d", len(got), len(want.Kvs))
	}
	for _, kv := range want.Kvs {
		if value, found := got[string(kv.Key)]; !found || value != string(kv.Value) {
			return fmt.Errorf("%s is %q, not %q", kv.Key, value, kv.Value)
		}
	}
	return nil
}

func TestConsistentCache(t *testing.T) {
	c, ctx, p := setup(t)
	writing, stop := context.WithCancel(ctx)
	var writers, readers sync.WaitGroup
	for n := range 2 {
		// One writer uses the prefix of a cache. Without the other, a quiet cache would see no new revision.
		prefix := p + []string{"in/", "out/"}[n]
		writers.Go(func() { write(writing, c, prefix, uint64(n)) })
	}
	for n := range 6 {
		readers.Go(func() {
			client := connect(t, "", "")
			prefix := p + []string{"in/", "quiet/"}[n%2]
			if _, err := client.Put(ctx, prefix+"there", "1"); err != nil {
				t.Error(err)
				return
			}
			own, err := startCache(ctx, client, prefix)
			if err != nil {
				t.Error(err)
				return
			}
			for range 15 {
				// The revision of a linearizable read at this time.
				fresh, err := client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
				if err != nil {
					t.Error(err)
					return
				}
				keys, at, err := own.read(ctx, fresh.Header.Revision)
				if err != nil {
					t.Error(err)
					return
				}
				want, err := client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(at))
				if err != nil {
					t.Error(err)
					return
				}
				if err := sameKeys(keys, want); err != nil {
					t.Errorf("cache of %s at %d: %v", prefix, at, err)
					return
				}
			}
		})
	}
	readers.Wait()
	stop()
	writers.Wait()
}

func TestMirrorOfAllUnderLoad(t *testing.T) {
	c, ctx, p := setup(t)
	writing, stop := context.WithCancel(ctx)
	var writers sync.WaitGroup
	for n := range 3 {
		writers.Go(func() { write(writing, c, fmt.Sprint(p, n, "/"), uint64(n)) })
	}
	syncer := mirror.NewSyncer(c, "", 0)
	copied := map[string]string{}
	base, errs := syncer.SyncBase(ctx)
	for page := range base {
		for _, kv := range page.Kvs {
			copied[string(kv.Key)] = string(kv.Value)
		}
	}
	for err := range errs {
		t.Fatal(err)
	}
	updates := syncer.SyncUpdates(ctx)
	time.Sleep(time.Second)
	stop()
	writers.Wait()
	last, err := c.Put(ctx, p+"last", "1")
	ok(t, err)
	for through := int64(0); through < last.Header.Revision; {
		response := receive(t, ctx, updates)
		ok(t, response.Err())
		for _, e := range response.Events {
			if e.Kv.ModRevision > last.Header.Revision {
				break
			}
			through = e.Kv.ModRevision
			if e.Type == clientv3.EventTypeDelete {
				delete(copied, string(e.Kv.Key))
			} else {
				copied[string(e.Kv.Key)] = string(e.Kv.Value)
			}
		}
	}
	want, err := c.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(last.Header.Revision))
	ok(t, err)
	ok(t, sameKeys(copied, want))
}

func TestLeaseExpiryIsOneRevision(t *testing.T) {
	c, ctx, p := setup(t)
	watched := c.Watch(ctx, p, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithFilterPut(),
		clientv3.WithCreatedNotify())
	receive(t, ctx, watched)
	lease, err := c.Grant(ctx, 2)
	ok(t, err)
	for _, key := range []string{"a", "b", "c"} {
		_, err := c.Put(ctx, p+key, key, clientv3.WithLease(lease.ID))
		ok(t, err)
	}
	response := receive(t, ctx, watched)
	ok(t, response.Err())
	equal(t, "events", len(response.Events), 3)
	for i, e := range response.Events {
		equal(t, "key", string(e.Kv.Key), p+string(rune('a'+i)))
		equal(t, "previous value", string(e.PrevKv.Value), string(rune('a'+i)))
		equal(t, "revision", e.Kv.ModRevision, response.Events[0].Kv.ModRevision)
	}
}
