package client

import (
	"context"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// events receives exactly n events.
func events(t *testing.T, ctx context.Context, from clientv3.WatchChan, n int) []*clientv3.Event {
	t.Helper()
	var all []*clientv3.Event
	for len(all) < n {
		response := receive(t, ctx, from)
		ok(t, response.Err())
		all = append(all, response.Events...)
	}
	equal(t, "events", len(all), n)
	return all
}

func TestWatch(t *testing.T) {
	c, ctx, p := setup(t)
	first, err := c.Put(ctx, p+"a", "1")
	ok(t, err)
	_, err = c.Put(ctx, p+"a", "2")
	ok(t, err)
	past := c.Watch(ctx, p, clientv3.WithPrefix(), clientv3.WithRev(first.Header.Revision))
	now := c.Watch(ctx, p, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	deletes := c.Watch(ctx, p, clientv3.WithPrefix(), clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
	equal(t, "created", receive(t, ctx, now).Created, true)
	equal(t, "created", receive(t, ctx, deletes).Created, true)
	_, err = c.Put(ctx, p+"a", "3")
	ok(t, err)
	_, err = c.Delete(ctx, p+"a")
	ok(t, err)

	got := events(t, ctx, past, 4)
	for i, want := range []string{"1", "2", "3", ""} {
		equal(t, "value", string(got[i].Kv.Value), want)
		equal(t, "revision", got[i].Kv.ModRevision, first.Header.Revision+int64(i))
	}
	equal(t, "first is a create", got[0].IsCreate(), true)
	got = events(t, ctx, now, 2)
	equal(t, "previous value", string(got[0].PrevKv.Value), "2")
	equal(t, "previous value", string(got[1].PrevKv.Value), "3")
	got = events(t, ctx, deletes, 1)
	equal(t, "type", got[0].Type, clientv3.EventTypeDelete)
	if got[0].PrevKv != nil {
		t.Fatal("a previous value without a request for it")
	}
}

func TestWatchProgress(t *testing.T) {
	c, ctx, p := setup(t)
	watched := c.Watch(ctx, p+"quiet", clientv3.WithCreatedNotify())
	receive(t, ctx, watched)
	put, err := c.Put(ctx, p+"elsewhere", "1")
	ok(t, err)
	ok(t, c.RequestProgress(ctx))
	progress := receive(t, ctx, watched)
	equal(t, "progress", progress.IsProgressNotify(), true)
	if progress.Header.Revision < put.Header.Revision {
		t.Fatalf("progress at %d, below %d", progress.Header.Revision, put.Header.Revision)
	}
}

func TestWatchFragment(t *testing.T) {
	c, ctx, p := setup(t)
	// One revision of 4 MB, which etcd fragments: keys that one transaction deletes, with their previous
	// values.
	value := strings.Repeat("v", 400_000)
	for i := range 10 {
		_, err := c.Put(ctx, fmt.Sprint(p, i), value)
		ok(t, err)
	}
	watched := c.Watch(ctx, p, clientv3.WithPrefix(), clientv3.WithFragment(), clientv3.WithPrevKV(),
		clientv3.WithCreatedNotify())
	receive(t, ctx, watched)
	_, err := c.Delete(ctx, p, clientv3.WithPrefix())
	ok(t, err)
	for _, event := range events(t, ctx, watched, 10) {
		equal(t, "length", len(event.PrevKv.Value), len(value))
	}
}

func TestWatchCancel(t *testing.T) {
	c, ctx, p := setup(t)
	one, cancel := context.WithCancel(ctx)
	cancelled := c.Watch(one, p+"a")
	stays := c.Watch(ctx, p+"a", clientv3.WithCreatedNotify())
	receive(t, ctx, stays)
	cancel()
	ends(t, ctx, cancelled)
	_, err := c.Put(ctx, p+"a", "1")
	ok(t, err)
	events(t, ctx, stays, 1)
}

func TestWatchCompacted(t *testing.T) {
	c, ctx, p := setup(t)
	old, err := c.Put(ctx, p+"a", "1")
	ok(t, err)
	now, err := c.Put(ctx, p+"a", "2")
	ok(t, err)
	_, err = c.Compact(ctx, now.Header.Revision)
	ok(t, err)
	response := receive(t, ctx, c.Watch(ctx, p+"a", clientv3.WithRev(old.Header.Revision)))
	equal(t, "canceled", response.Canceled, true)
	equal(t, "compact revision", response.CompactRevision, now.Header.Revision)
}

func TestWatchMany(t *testing.T) {
	c, ctx, p := setup(t)
	// A context with different metadata has a separate stream.
	leader := clientv3.WithRequireLeader(ctx)
	var all []clientv3.WatchChan
	for i := range 100 {
		from := ctx
		if i%2 == 1 {
			from = leader
		}
		watched := c.Watch(from, fmt.Sprint(p, i%10), clientv3.WithCreatedNotify())
		receive(t, ctx, watched)
		all = append(all, watched)
	}
	for i := range 10 {
		_, err := c.Put(ctx, fmt.Sprint(p, i), fmt.Sprint(i))
		ok(t, err)
	}
	for i, watched := range all {
		got := events(t, ctx, watched, 1)
		equal(t, "value", string(got[0].Kv.Value), fmt.Sprint(i%10))
	}
}
