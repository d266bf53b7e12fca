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
	// proofClients is how many there are beside the writer.
	proofClients = 40
	// proofTTL is that of their leases, in seconds: a client renews it each third of that.
	proofTTL = 12
	// proofTry is how long the writer waits for one try.
	proofTry = 3 * time.Second
	// proofRead is more than any read may need. A read has no retry here but clientv3's own, which sends
	// it again, a hundred times, when it was told UNAVAILABLE.
	proofRead = 30 * time.Second
)

// span is how long something took at the longest: what ended since it was asked last, and what is under way.
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

// next is an end and a beginning.
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

// user is one of the clients and what it saw since the last mark.
type user struct {
	client *clientv3.Client
	lease  clientv3.LeaseID
	key    string
	// The revision that made the key, which is another if the lease was lost and had again.
	made int64

	mu      sync.Mutex
	counted time.Time // The last heartbeat that was.
	seen    int       // Events in all.
	reads   int
	events  int
	beats   int
	read    span
	silent  span
	beat    span
}

// story is what happened to all of them.
type story struct {
	users  []*user
	prefix string

	mu      sync.Mutex
	written int // Writes that were told to have been done, which is also the next one's number.
	again   int // Tries that failed.
	write   span
	failed  []string
}

// fail notes what must not happen. The test goes on, to tell all of it at its end.
func (s *story) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failed) < 20 {
		s.failed = append(s.failed, fmt.Sprintf(format, args...))
	}
}

func (s *story) done() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

// report is since the last mark, but for what says otherwise.
type report struct {
	Reads       int            `json:"reads"`
	LeastReads  int            `json:"least_reads"`
	Events      int            `json:"events"`
	LeastEvents int            `json:"least_events"`
	LeastBeats  int            `json:"least_beats"`
	SlowestRead int64          `json:"slowest_read_ms"`
	NoEvent     int64          `json:"no_event_ms"`
	NoBeat      int64          `json:"no_beat_ms"`
	NoWrite     int64          `json:"no_write_ms"`
	Written     int            `json:"written"`   // Since the begin.
	TriesAgain  int            `json:"again"`     // Since the begin.
	Endpoints   map[string]int `json:"endpoints"` // How many clients have these.
	Failed      []string       `json:"failed"`    // Since the begin.
}

func (s *story) report(mark bool) report {
	r := report{LeastReads: 1 << 30, LeastEvents: 1 << 30, LeastBeats: 1 << 30, Endpoints: map[string]int{}, Failed: []string{}}
	milliseconds := func(most *int64, span *span) { *most = max(*most, span.most().Milliseconds()) }
	for _, u := range s.users {
		u.mu.Lock()
		r.Reads += u.reads
		r.LeastReads = min(r.LeastReads, u.reads)
		r.Events += u.events
		r.LeastEvents = min(r.LeastEvents, u.events)
		r.LeastBeats = min(r.LeastBeats, u.beats)
		milliseconds(&r.SlowestRead, &u.read)
		milliseconds(&r.NoEvent, &u.silent)
		milliseconds(&r.NoBeat, &u.beat)
		if mark {
			u.reads, u.events, u.beats = 0, 0, 0
			u.read.longest, u.silent.longest, u.beat.longest = 0, 0, 0
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

// Forty clients and a writer that are given one proxy and find the others by syncing. Each reads, watches all
// that is written from the begin on, and keeps a lease alive, while who runs this breaks things, and asks by
// HTTP: /report tells how it went since the last /mark, /end lets it come to its end. No read may fail; each
// client is told each write once, and in order; each lease is there at the end, with what it holds.
func TestFleetProof(t *testing.T) {
	first := targets(t)
	truth := direct(t)
	ctx, cancel := context.WithTimeout(context.Background(), 8*limit)
	t.Cleanup(cancel)
	s := &story{prefix: t.Name() + "/"}
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
	begin, err := truth.Get(ctx, s.prefix)
	ok(t, err)

	var running sync.WaitGroup
	// What runs till the end, and the writer, which ends before.
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
		running.Go(func() { s.beats(run, n, u) })
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
	fmt.Println("asked at", listener.Addr())
	select {
	case <-ended:
	case <-ctx.Done():
		t.Fatal("nobody says that it is to end")
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
	// Judged by etcd itself, while they still keep them.
	for n, u := range s.users {
		lease, err := truth.TimeToLive(ctx, u.lease, clientv3.WithAttachedKeys())
		ok(t, err)
		if lease.TTL <= 0 || lease.GrantedTTL != proofTTL || len(lease.Keys) != 1 || string(lease.Keys[0]) != u.key {
			s.fail("client %d: etcd has its lease as %+v", n, lease)
		}
		s.owns(ctx, n, u, truth)
	}
	written, err := truth.Get(ctx, s.prefix+"events/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	ok(t, err)
	if written.Count != int64(all) {
		s.fail("etcd has %d writes of %d", written.Count, all)
	}
	stop()
	running.Wait()
	for _, failure := range s.failed {
		t.Error(failure)
	}
	fmt.Printf("%d clients, %d writes told to each, %d leases kept\n", len(s.users), all, len(s.users))
}

// writes one key after the other, each only if it is not there, so that a write whose end nobody knows can be
// made again.
func (s *story) writes(until, ctx context.Context, c *clientv3.Client) {
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

func (s *story) event(n int) string { return fmt.Sprintf("%sevents/%08d", s.prefix, n) }

// watches all writes: each once, in order.
func (s *story) watches(ctx context.Context, n int, u *user, from int64) {
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
				s.fail("client %d: told %s at revision %d after %d, not write %d", n, key, event.Kv.ModRevision, revision, u.seen)
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

// beats keeps the lease alive.
func (s *story) beats(ctx context.Context, n int, u *user) {
	beats, err := u.client.KeepAlive(ctx, u.lease)
	if err != nil {
		s.fail("client %d: no heartbeats: %v", n, err)
		return
	}
	for beat := range beats {
		if beat.ID != u.lease || beat.TTL != proofTTL {
			s.fail("client %d: lease %x is answered %x with %d s", n, u.lease, beat.ID, beat.TTL)
		}
		u.mu.Lock()
		// One that was not answered at once is sent again and again, and answered as often.
		if time.Since(u.counted) > time.Second {
			u.counted = time.Now()
			u.beats++
		}
		u.beat.next()
		u.mu.Unlock()
	}
	if ctx.Err() == nil {
		s.fail("client %d: its lease is lost", n)
	}
}

// reads in three ways: what all read, which is never behind a write that was told to be done, what is its own,
// and the same from whichever member.
func (s *story) reads(ctx context.Context, n int, u *user) {
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
				s.owns(limited, n, u, u.client)
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

// owns sees that what a client's lease holds is what it has put there.
func (s *story) owns(ctx context.Context, n int, u *user, by *clientv3.Client) {
	got, err := by.Get(ctx, u.key)
	switch {
	case context.Cause(ctx) == context.Canceled:
	case err != nil:
		s.fail("client %d: a read of its own key fails: %v", n, err)
	case len(got.Kvs) != 1 || got.Kvs[0].Lease != int64(u.lease) || got.Kvs[0].CreateRevision != u.made:
		s.fail("client %d: its key is %v, made at %d with lease %x", n, got.Kvs, u.made, u.lease)
	}
}
