package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// watcher is a random watch and the events it received.
type watcher struct {
	key, end  string // end in the encoding of clientv3
	start     int64
	noPut     bool
	noDelete  bool
	prevKV    bool
	mu        sync.Mutex
	created   int64
	received  []*clientv3.Event
	closed    string
	cancelled bool
}

// direct returns a client of the cluster itself, or of the proxy if ETCD_DIRECT is not set.
func direct(t *testing.T) *clientv3.Client {
	t.Helper()
	list := os.Getenv("ETCD_DIRECT")
	if list == "" {
		return connect(t, "", "")
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   strings.Split(list, ","),
		DialTimeout: 5 * time.Second,
		DialOptions: compression(),
	})
	ok(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// wants reports whether the watcher must receive the event.
func (w *watcher) wants(e *clientv3.Event) bool {
	if e.Type == clientv3.EventTypePut && w.noPut || e.Type == clientv3.EventTypeDelete && w.noDelete {
		return false
	}
	key := string(e.Kv.Key)
	if w.end == "" {
		return key == w.key
	}
	return key >= w.key && (w.end == "\x00" || key < w.end)
}

func randomWatcher(random *rand.Rand, p string, from, now int64) *watcher {
	w := &watcher{
		noPut:    random.IntN(8) == 0,
		noDelete: random.IntN(8) == 0,
		prevKV:   random.IntN(3) == 0,
	}
	switch random.IntN(4) {
	case 0:
		w.key = fmt.Sprint(p, random.IntN(8))
	case 1:
		w.key, w.end = p, clientv3.GetPrefixRangeEnd(p)
	case 2:
		w.key, w.end = fmt.Sprint(p, random.IntN(4)), fmt.Sprint(p, 4+random.IntN(4))
	case 3:
		w.key, w.end = fmt.Sprint(p, random.IntN(8)), "\x00"
	}
	switch random.IntN(5) {
	case 0, 1:
		w.start = from + random.Int64N(now-from+1)
	case 2:
		w.start = now + random.Int64N(40)
	}
	return w
}

// run watches until the context ends.
func (w *watcher) run(ctx context.Context, c *clientv3.Client) {
	opts := []clientv3.OpOption{clientv3.WithCreatedNotify(), clientv3.WithRev(w.start)}
	if w.end != "" {
		opts = append(opts, clientv3.WithRange(w.end))
	}
	if w.noPut {
		opts = append(opts, clientv3.WithFilterPut())
	}
	if w.noDelete {
		opts = append(opts, clientv3.WithFilterDelete())
	}
	if w.prevKV {
		opts = append(opts, clientv3.WithPrevKV())
	}
	for response := range c.Watch(ctx, w.key, opts...) {
		w.mu.Lock()
		if response.Created && w.created == 0 {
			w.created = response.Header.Revision
		}
		if err := response.Err(); err != nil {
			w.closed = err.Error()
		}
		w.received = append(w.received, response.Events...)
		w.mu.Unlock()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() == nil && w.closed == "" {
		w.closed = "the channel was closed"
	}
}

// expected returns the events of the history that the watcher must receive, once it is created.
func (w *watcher) expected(history []*clientv3.Event) []*clientv3.Event {
	begins := w.start
	if begins == 0 {
		begins = w.created + 1
	}
	var all []*clientv3.Event
	for _, e := range history {
		if e.Kv.ModRevision >= begins && w.wants(e) {
			all = append(all, e)
		}
	}
	return all
}

// check returns the first violation, or "". If more is true, missing events may still arrive.
func (w *watcher) check(history []*clientv3.Event) (wrong string, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed != "" {
		return w.closed, false
	}
	if w.created == 0 {
		return "was not created", true
	}
	received := w.received
	// Without a start revision etcd may also send events at or below the created revision.
	for w.start == 0 && len(received) > 0 && received[0].Kv.ModRevision <= w.created {
		received = received[1:]
	}
	expected := w.expected(history)
	for i, e := range received {
		if i >= len(expected) {
			return fmt.Sprintf("received %v after the last", e), false
		}
		want := expected[i]
		same := e.Type == want.Type && e.Kv.String() == want.Kv.String()
		if w.prevKV && want.PrevKv != nil {
			same = same && e.PrevKv.String() == want.PrevKv.String()
		}
		if !same {
			return fmt.Sprintf("event %d: expected %v, got %v", i, want, e), false
		}
	}
	if len(received) < len(expected) {
		return fmt.Sprintf("nothing after %d events, expected %v", len(received), expected[len(received)]), true
	}
	return "", false
}

// readHistory reads all events of the keys from p on, from one revision to another.
func readHistory(t *testing.T, c *clientv3.Client, p string, from, through int64) []*clientv3.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var all []*clientv3.Event
	watch := c.Watch(ctx, p, clientv3.WithFromKey(), clientv3.WithRev(from), clientv3.WithPrevKV())
	for {
		response := receive(t, ctx, watch)
		ok(t, response.Err())
		for _, e := range response.Events {
			if e.Kv.ModRevision <= through {
				all = append(all, e)
			}
			if e.Kv.ModRevision >= through {
				return all
			}
		}
	}
}

// write changes random keys until the context ends. Errors are ignored, because endpoints may fail.
func write(ctx context.Context, c *clientv3.Client, p string, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	for n := 0; ctx.Err() == nil; n++ {
		call, cancel := context.WithTimeout(ctx, 3*time.Second)
		key := func() string { return fmt.Sprint(p, random.IntN(8)) }
		value := fmt.Sprint(seed, "-", n)
		switch random.IntN(6) {
		case 0:
			c.Delete(call, key())
		case 1:
			c.Delete(call, p, clientv3.WithPrefix())
		case 2:
			c.Txn(call).Then(clientv3.OpPut(p+"1", value), clientv3.OpPut(p+"2", value),
				clientv3.OpDelete(p+"3")).Commit()
		default:
			c.Put(call, key(), value)
		}
		cancel()
		time.Sleep(2 * time.Millisecond)
	}
}

// oracle runs random watchers of several clients for a while and checks them against the history.
func oracle(t *testing.T, length time.Duration) {
	etcd := direct(t)
	ctx, p := context.Background(), t.Name()+"/"
	first, err := etcd.Put(ctx, p+"first", "1")
	ok(t, err)
	from := first.Header.Revision
	writing, stop := context.WithTimeout(ctx, length)
	defer stop()
	var writers, watching sync.WaitGroup
	for n := range 2 {
		c := etcd
		if n == 1 {
			c = connect(t, "", "")
		}
		writers.Go(func() { write(writing, c, p, uint64(n)) })
	}
	watches, end := context.WithCancel(ctx)
	defer end()
	random := rand.New(rand.NewPCG(7, 7))
	var clients []*clientv3.Client
	for range 3 {
		clients = append(clients, connect(t, "", ""))
	}
	var all []*watcher
	for writing.Err() == nil && len(all) < 90 {
		now := from
		call, cancel := context.WithTimeout(writing, 3*time.Second)
		if get, err := etcd.Get(call, p+"first"); err == nil {
			now = get.Header.Revision
		}
		cancel()
		w := randomWatcher(random, p, from, now)
		c, of := clients[random.IntN(len(clients))], watches
		// Some use a stream with different metadata, some are cancelled early.
		if random.IntN(3) == 0 {
			of = clientv3.WithRequireLeader(of)
		}
		if random.IntN(10) == 0 {
			leaves, leave := context.WithTimeout(of, time.Duration(random.IntN(300))*time.Millisecond)
			t.Cleanup(leave)
			w.cancelled, of = true, leaves
		}
		all = append(all, w)
		watching.Go(func() { w.run(of, c) })
		time.Sleep(length / 100)
	}
	writers.Wait()
	t.Logf("%d watchers", len(all))

	// These writes exceed every start revision of a watcher, so the history is complete after them.
	var last int64
	for range 50 {
		put, err := etcd.Put(ctx, p+"last", "1")
		ok(t, err)
		last = put.Header.Revision
	}
	history := readHistory(t, etcd, p, from, last)
	t.Logf("%d events from %d to %d", len(history), from, last)
	until := time.Now().Add(limit)
	for i, w := range all {
		if w.cancelled {
			continue
		}
		wrong, more := w.check(history)
		for more && time.Now().Before(until) {
			time.Sleep(10 * time.Millisecond)
			wrong, more = w.check(history)
		}
		if wrong != "" {
			t.Errorf("watcher %d [%q, %q) from %d, created at %d, prevKV %v, noPut %v, noDelete %v: %s",
				i, w.key, w.end, w.start, w.created, w.prevKV, w.noPut, w.noDelete, wrong)
		}
	}
	end()
	watching.Wait()
}

func TestWatchOracle(t *testing.T) {
	oracle(t, 2*time.Second)
}

// The caller of this test makes members fail meanwhile, and sets the duration.
func TestFailover(t *testing.T) {
	seconds, err := strconv.Atoi(os.Getenv("ETCD_FAILOVER_SECONDS"))
	ok(t, err)
	oracle(t, time.Duration(seconds)*time.Second)
}
