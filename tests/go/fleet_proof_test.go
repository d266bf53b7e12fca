package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// proofClients is the number of clients, without the writer.
	proofClients = 40
	// proofTTL is the TTL of their leases in seconds. A client renews its lease every third of it.
	proofTTL = 12
	// proofTry is the timeout of one attempt of the writer.
	proofTry = 3 * time.Second
	// proofRead is a generous timeout of a read. The only retry of a read is clientv3's own, which repeats
	// it up to a hundred times after UNAVAILABLE.
	proofRead = 30 * time.Second
)

// span is the longest duration of an action since the last reset, including the action in progress.
type span struct {
	began   time.Time
	open    bool
	longest time.Duration
}

func (s *span) begin() { s.began, s.open = time.Now(), true }

func (s *span) end() {
	s.longest = max(s.longest, time.Since(s.began))
	s.open = false
}

// next ends one action and begins the next.
func (s *span) next() {
	if s.open {
		s.end()
	}
	s.begin()
}

func (s *span) most() time.Duration {
	if s.open {
		return max(s.longest, time.Since(s.began))
	}
	return s.longest
}

// user is one of the clients, with its counts since the last mark.
type user struct {
	client *clientv3.Client
	lease  clientv3.LeaseID
	key    string
	// The create revision of the key. It changes if the lease expires and the key is written again.
	made int64

	mu      sync.Mutex
	counted time.Time // Time of the last renewal that was counted.
	seen    int       // Total number of events.
	reads   int
	events  int
	renewed int
	read    span
	silent  span
	renewal span
}

// scenario is the shared state of all clients.
type scenario struct {
	users  []*user
	prefix string

	mu      sync.Mutex
	written int // Number of acknowledged writes, which is the number of the next write.
	again   int // Number of failed attempts.
	write   span
	failed  []string
}

// fail records a violation. The test continues, and reports all violations at its end.
func (s *scenario) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failed) < 20 {
		s.failed = append(s.failed, fmt.Sprintf(format, args...))
	}
}

func (s *scenario) done() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

// report has counts since the last mark, except where noted.
type report struct {
	Reads         int            `json:"reads"`
	LeastReads    int            `json:"least_reads"`
	Events        int            `json:"events"`
	LeastEvents   int            `json:"least_events"`
	LeastRenewals int            `json:"least_renewals"`
	SlowestRead   int64          `json:"slowest_read_ms"`
	NoEvent       int64          `json:"no_event_ms"`
	NoRenewal     int64          `json:"no_renewal_ms"`
	NoWrite       int64          `json:"no_write_ms"`
	Written       int            `json:"written"`   // Since the start.
	TriesAgain    int            `json:"again"`     // Since the start.
	Endpoints     map[string]int `json:"endpoints"` // Number of clients for each list of endpoints.
	Failed        []string       `json:"failed"`    // Since the start.
}

func (s *scenario) report(mark bool) report {
	r := report{LeastReads: 1 << 30, LeastEvents: 1 << 30, LeastRenewals: 1 << 30, Endpoints: map[string]int{}, Failed: []string{}}
	milliseconds := func(most *int64, span *span) { *most = max(*most, span.most().Milliseconds()) }
	for _, u := range s.users {
		u.mu.Lock()
		r.Reads += u.reads
		r.LeastReads = min(r.LeastReads, u.reads)
		r.Events += u.events
		r.LeastEvents = min(r.LeastEvents, u.events)
		r.LeastRenewals = min(r.LeastRenewals, u.renewed)
		milliseconds(&r.SlowestRead, &u.read)
		milliseconds(&r.NoEvent, &u.silent)
		milliseconds(&r.NoRenewal, &u.renewal)
		if mark {
			u.reads, u.events, u.renewed = 0, 0, 0
			u.read.longest, u.silent.longest, u.renewal.longest = 0, 0, 0
		}
		u.mu.Unlock()
		r.Endpoints[strings.Join(sorted(u.client.Endpoints()), ",")]++
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	milliseconds(&r.NoWrite, &s.write)
	if mark {
		s.write.longest = 0
	}
	r.Written, r.TriesAgain = s.written, s.again
	r.Failed = append(r.Failed, s.failed...)
	return r
}

// Forty clients and a writer are configured with one proxy and find the others by Sync. Each client reads,
// watches all writes from the start on, and renews a lease. Meanwhile the caller of this test causes
// failures and sends HTTP requests: /report returns the counts since the last /mark, /end ends the test. No
// read may fail. Each client receives each write exactly once and in order. Each lease is alive at the end,
// with its key.
func TestFleetProof(t *testing.T) {
	first := targets(t)
	etcd := direct(t)
	ctx, cancel := context.WithTimeout(context.Background(), 8*limit)
	t.Cleanup(cancel)
	s := &scenario{prefix: t.Name() + "/"}
	join := func() *clientv3.Client {
		c, err := clientv3.New(clientv3.Config{
			Endpoints:        first,
			DialTimeout:      5 * time.Second,
			AutoSyncInterval: 500 * time.Millisecond,
		})
		ok(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	begin, err := etcd.Get(ctx, s.prefix)
	ok(t, err)

	var running sync.WaitGroup
	// The clients run until the end; the writer ends earlier.
	run, stop := context.WithCancel(ctx)
	t.Cleanup(stop)
	write, last := context.WithCancel(ctx)
	t.Cleanup(last)
	writer := join()
	var writing sync.WaitGroup
	writing.Go(func() { s.writes(write, ctx, writer) })
	for n := range proofClients {
		u := &user{client: join(), key: fmt.Sprintf("%sowned/%d", s.prefix, n)}
		ok(t, u.client.Sync(ctx))
		lease, err := u.client.Grant(ctx, proofTTL)
		ok(t, err)
		u.lease = lease.ID
		put, err := u.client.Put(ctx, u.key, fmt.Sprint(n), clientv3.WithLease(u.lease))
		ok(t, err)
		u.made = put.Header.Revision
		s.users = append(s.users, u)
	}
	for n, u := range s.users {
		running.Go(func() { s.watches(run, n, u, begin.Header.Revision+1) })
		running.Go(func() { s.renewals(run, n, u) })
		running.Go(func() { s.reads(run, n, u) })
	}

	ended := make(chan struct{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	pages := http.NewServeMux()
	pages.HandleFunc("/report", func(to http.ResponseWriter, _ *http.Request) { json.NewEncoder(to).Encode(s.report(false)) })
	pages.HandleFunc("/mark", func(to http.ResponseWriter, _ *http.Request) { json.NewEncoder(to).Encode(s.report(true)) })
	end := sync.OnceFunc(func() { close(ended) })
	pages.HandleFunc("/end", func(http.ResponseWriter, *http.Request) { end() })
	server := &http.Server{Handler: pages}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	fmt.Println("listening at", listener.Addr())
	select {
	case <-ended:
	case <-ctx.Done():
		t.Fatal("no /end request in time")
	}

	last()
	writing.Wait()
	all := s.done()
	until(t, ctx, func() bool {
		return !slices.ContainsFunc(s.users, func(u *user) bool {
			u.mu.Lock()
			defer u.mu.Unlock()
			return u.seen < all
		}) || len(s.report(false).Failed) > 0
	})
	// Checked at etcd itself, while the clients still renew their leases.
	for n, u := range s.users {
		lease, err := etcd.TimeToLive(ctx, u.lease, clientv3.WithAttachedKeys())
		ok(t, err)
		if lease.TTL <= 0 || lease.GrantedTTL != proofTTL || len(lease.Keys) != 1 || string(lease.Keys[0]) != u.key {
			s.fail("client %d: etcd has its lease as %+v", n, lease)
		}
		s.checkKey(ctx, n, u, etcd)
	}
	written, err := etcd.Get(ctx, s.prefix+"events/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	ok(t, err)
	if written.Count != int64(all) {
		s.fail("etcd has %d writes of %d", written.Count, all)
	}
	stop()
	running.Wait()
	for _, failure := range s.failed {
		t.Error(failure)
	}
	fmt.Printf("%d clients, %d writes received by each, %d leases alive\n", len(s.users), all, len(s.users))
}

// writes puts one key after the other, each only if it does not exist, so that a write with an unknown
// outcome can be repeated.
func (s *scenario) writes(until, ctx context.Context, c *clientv3.Client) {
	for n := 0; until.Err() == nil; n++ {
		key, value := s.event(n), strconv.Itoa(n)
		s.mu.Lock()
		s.write.next()
		s.mu.Unlock()
		for {
			try, cancel := context.WithTimeout(ctx, proofTry)
			_, err := c.Txn(try).
				If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
				Then(clientv3.OpPut(key, value), clientv3.OpPut(s.prefix+"head", value)).
				Commit()
			cancel()
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				s.fail("write %d: %v", n, err)
				return
			}
			s.mu.Lock()
			s.again++
			s.mu.Unlock()
			time.Sleep(20 * time.Millisecond)
		}
		s.mu.Lock()
		s.written = n + 1
		s.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
	}
	s.mu.Lock()
	s.write.end()
	s.mu.Unlock()
}

func (s *scenario) event(n int) string { return fmt.Sprintf("%sevents/%08d", s.prefix, n) }

// watches receives all writes: each once, in order.
func (s *scenario) watches(ctx context.Context, n int, u *user, from int64) {
	u.mu.Lock()
	u.silent.begin()
	u.mu.Unlock()
	revision := from - 1
	for response := range u.client.Watch(ctx, s.prefix+"events/", clientv3.WithPrefix(), clientv3.WithRev(from)) {
		if err := response.Err(); err != nil && ctx.Err() == nil {
			s.fail("client %d: its watch: %v", n, err)
		}
		u.mu.Lock()
		for _, event := range response.Events {
			key := string(event.Kv.Key)
			if key != s.event(u.seen) || !event.IsCreate() || event.Kv.ModRevision <= revision {
				s.fail("client %d: received %s at revision %d after %d, not write %d", n, key, event.Kv.ModRevision, revision, u.seen)
			}
			revision = event.Kv.ModRevision
			u.seen++
			u.events++
			u.silent.next()
		}
		u.mu.Unlock()
	}
	if ctx.Err() == nil {
		s.fail("client %d: its watch ended", n)
	}
}

// renewals renews the lease.
func (s *scenario) renewals(ctx context.Context, n int, u *user) {
	responses, err := u.client.KeepAlive(ctx, u.lease)
	if err != nil {
		s.fail("client %d: no heartbeats: %v", n, err)
		return
	}
	for response := range responses {
		if response.ID != u.lease || response.TTL != proofTTL {
			s.fail("client %d: the response to lease %x is %x with %d s", n, u.lease, response.ID, response.TTL)
		}
		u.mu.Lock()
		// The client repeats a heartbeat without a prompt response, and receives as many responses.
		if time.Since(u.counted) > time.Second {
			u.counted = time.Now()
			u.renewed++
		}
		u.renewal.next()
		u.mu.Unlock()
	}
	if ctx.Err() == nil {
		s.fail("client %d: its lease has expired", n)
	}
}

// reads makes three kinds of reads: a common key, which is never older than an acknowledged write; the
// client's own key; and the own key serializably, from any member.
func (s *scenario) reads(ctx context.Context, n int, u *user) {
	read := func(how func(context.Context)) {
		u.mu.Lock()
		u.read.begin()
		u.mu.Unlock()
		limited, cancel := context.WithTimeout(ctx, proofRead)
		how(limited)
		cancel()
		u.mu.Lock()
		u.read.end()
		u.reads++
		u.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
	}
	for ctx.Err() == nil {
		read(func(limited context.Context) {
			written := s.done()
			got, err := u.client.Get(limited, s.prefix+"head")
			switch {
			case ctx.Err() != nil:
			case err != nil:
				s.fail("client %d: a read fails: %v", n, err)
			case written > 0:
				if len(got.Kvs) == 0 {
					s.fail("client %d: reads nothing after write %d", n, written-1)
				} else if value, _ := strconv.Atoi(string(got.Kvs[0].Value)); value < written-1 {
					s.fail("client %d: reads write %d after %d was done", n, value, written-1)
				}
			}
		})
		read(func(limited context.Context) {
			if ctx.Err() == nil {
				s.checkKey(limited, n, u, u.client)
			}
		})
		read(func(limited context.Context) {
			_, err := u.client.Get(limited, u.key, clientv3.WithSerializable())
			if err != nil && ctx.Err() == nil {
				s.fail("client %d: a serializable read fails: %v", n, err)
			}
		})
	}
}

// checkKey checks that a client's key still exists as created, with its lease.
func (s *scenario) checkKey(ctx context.Context, n int, u *user, by *clientv3.Client) {
	got, err := by.Get(ctx, u.key)
	switch {
	case context.Cause(ctx) == context.Canceled:
	case err != nil:
		s.fail("client %d: a read of its own key fails: %v", n, err)
	case len(got.Kvs) != 1 || got.Kvs[0].Lease != int64(u.lease) || got.Kvs[0].CreateRevision != u.made:
		s.fail("client %d: its key is %v, made at %d with lease %x", n, got.Kvs, u.made, u.lease)
	}
}
