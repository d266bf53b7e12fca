package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/namespace"
)

// sides are two stores with the same history. One is reached through a proxy with the prefix as its
// namespace, the other directly, with the client's own wrapper for the prefix. Every request is sent to
// both, and the responses must be the same, including the revision.
//
// Go's wrapper and the proxy are known to differ in these cases, in which the proxy is right:
//   - For a prefix that ends in 0xff the wrapper's end of all keys is too large: `a\xff` ends at `b\x00`,
//     which includes the key `b`. (No flag can carry such a prefix; the proxy's own tests cover it.)
//   - The wrapper turns an empty key in a transaction into the prefix itself: see TestNamespaceEmptyKeys.
//     It does the same for a watch, for which etcd uses the key `\x00`.
//   - If a lease has the key that equals the prefix, the wrapper returns an empty key. The proxy omits the
//     key, because no client in the namespace can read or write it.
type sides struct {
	t      *testing.T
	ctx    context.Context
	prefix string
	// Client through the proxy, client with the wrapper.
	clients [2]*clientv3.Client
	// Clients without proxy and wrapper.
	direct [2]*clientv3.Client
	rand   *rand.Rand
	step   string
}

func bothSides(t *testing.T) *sides {
	t.Helper()
	prefix, direct, other := os.Getenv("ETCD_NAMESPACE"), os.Getenv("ETCD_DIRECT"), os.Getenv("ETCD_OTHER")
	if prefix == "" || direct == "" || other == "" {
		t.Fatal("ETCD_NAMESPACE, ETCD_DIRECT and ETCD_OTHER are not set")
	}
	seed := uint64(time.Now().UnixNano())
	if set := os.Getenv("ETCD_SEED"); set != "" {
		var err error
		seed, err = strconv.ParseUint(set, 10, 64)
		ok(t, err)
	}
	t.Logf("prefix %q, ETCD_SEED=%d", prefix, seed)
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	t.Cleanup(cancel)
	at := func(endpoint string) *clientv3.Client {
		c, err := clientv3.New(clientv3.Config{
			Endpoints:   []string{endpoint},
			DialTimeout: 5 * time.Second,
			DialOptions: compression(),
		})
		ok(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	wrapped := at(other)
	wrapped.KV = namespace.NewKV(wrapped.KV, prefix)
	wrapped.Watcher = namespace.NewWatcher(wrapped.Watcher, prefix)
	wrapped.Lease = namespace.NewLease(wrapped.Lease, prefix)
	return &sides{
		t: t, ctx: ctx, prefix: prefix,
		clients: [2]*clientv3.Client{connect(t, "", ""), wrapped},
		direct:  [2]*clientv3.Client{at(direct), at(other)},
		rand:    rand.New(rand.NewPCG(seed, seed)),
	}
}

// both sends a request to both sides, and compares responses or errors. Of headers only the revision counts.
func (s *sides) both(step string, call func(c *clientv3.Client) (proto.Message, error)) proto.Message {
	s.t.Helper()
	s.step = step
	var responses [2]proto.Message
	var errs [2]error
	for i, c := range s.clients {
		responses[i], errs[i] = call(c)
	}
	s.same(fmt.Sprint(errs[0]), fmt.Sprint(errs[1]))
	if errs[0] != nil {
		return nil
	}
	for _, response := range responses {
		normalize(response)
	}
	if !proto.Equal(responses[0], responses[1]) {
		s.same(prototext.Format(responses[0]), prototext.Format(responses[1]))
	}
	return responses[0]
}

func (s *sides) same(got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Fatalf("%s\nthrough the proxy: %s\nwith the wrapper: %s", s.step, got, want)
	}
}

// normalize clears the fields that differ between two stores.
func normalize(response proto.Message) {
	type headed interface{ GetHeader() *pb.ResponseHeader }
	if response, is := response.(headed); is && response.GetHeader() != nil {
		header := response.GetHeader()
		header.ClusterId, header.MemberId, header.RaftTerm = 0, 0, 0
	}
}

// outside changes both stores in the same way, without proxy and wrapper.
func (s *sides) outside(do func(c *clientv3.Client) error) {
	s.t.Helper()
	for _, c := range s.direct {
		ok(s.t, do(c))
	}
}

// stores compares the full content of both stores. It also checks that each key either is under the prefix
// or was written by outside.
func (s *sides) stores(after string) {
	s.t.Helper()
	s.step = "the stores after " + after
	var all [2]*clientv3.GetResponse
	for i, c := range s.direct {
		var err error
		all[i], err = c.Get(s.ctx, "\x00", clientv3.WithFromKey())
		ok(s.t, err)
		normalize((*pb.RangeResponse)(all[i]))
	}
	got, want := (*pb.RangeResponse)(all[0]), (*pb.RangeResponse)(all[1])
	if !proto.Equal(got, want) {
		s.same(prototext.Format(got), prototext.Format(want))
	}
	for _, kv := range all[0].Kvs {
		mark := strings.HasPrefix(string(kv.Value), "outside")
		inside := strings.HasPrefix(string(kv.Key), s.prefix) && string(kv.Key) != s.prefix
		if mark == inside {
			s.t.Fatalf("the key %q has the value %.20q", kv.Key, kv.Value)
		}
	}
}

// neighbours returns keys next to the prefix.
func (s *sides) neighbours() []string {
	last := s.prefix[len(s.prefix)-1]
	before, after := s.prefix[:len(s.prefix)-1], s.prefix[:len(s.prefix)-1]
	before += string([]byte{last - 1, 0xff, 0xff})
	after += string([]byte{last + 1})
	list := []string{"\x00", "a", "o", "q", "c/1", s.prefix, before, after, after + "\x00", "\xff\xff\xff"}
	if s.prefix != "p" {
		list = append(list, "p0", "p")
	}
	return list
}

func (s *sides) pick(list ...string) string { return list[s.rand.IntN(len(list))] }
func (s *sides) odds(of int) bool           { return s.rand.IntN(of) == 0 }

// key returns a random key of a client. Some resemble keys outside the namespace.
func (s *sides) key() string {
	return s.pick("a", "aa", "ab", "b", "c/1", "c/2", "c", "d", "\x00", "\x00\x00", "\xff", "\xff\xff",
		s.prefix, s.prefix+"a", "o", "q", "\x01")
}

// span returns a random key or range: the key, a description, and the options.
func (s *sides) span() (string, string, []clientv3.OpOption) {
	key := s.key()
	switch s.rand.IntN(6) {
	case 0:
		return key, "prefix", []clientv3.OpOption{clientv3.WithPrefix()}
	case 1:
		return key, "from", []clientv3.OpOption{clientv3.WithFromKey()}
	case 2:
		end := s.key()
		return key, fmt.Sprintf("to %q", end), []clientv3.OpOption{clientv3.WithRange(end)}
	default:
		return key, "", nil
	}
}

// spanOrAll may also return the whole namespace, as in `etcdctl get "" --prefix`.
func (s *sides) spanOrAll() (string, string, []clientv3.OpOption) {
	switch s.rand.IntN(8) {
	case 0:
		return "", "prefix", []clientv3.OpOption{clientv3.WithPrefix()}
	case 1:
		return "", "from", []clientv3.OpOption{clientv3.WithFromKey()}
	default:
		return s.span()
	}
}

func (s *sides) lease() int64 { return int64(1 + s.rand.IntN(7)) }

func (s *sides) get(revision int64, nested bool) (clientv3.Op, string, bool) {
	key, span, opts := s.spanOrAll()
	text := fmt.Sprintf("get %q %s", key, span)
	add := func(name string, opt ...clientv3.OpOption) { text += " " + name; opts = append(opts, opt...) }
	if s.odds(3) {
		add("limit", clientv3.WithLimit(int64(s.rand.IntN(4))))
	}
	if s.odds(3) {
		target, order := clientv3.SortTarget(s.rand.IntN(5)), clientv3.SortOrder(s.rand.IntN(3))
		add(fmt.Sprint("sort ", target, order), clientv3.WithSort(target, order))
	}
	switch s.rand.IntN(6) {
	case 0:
		add("keys", clientv3.WithKeysOnly())
	case 1:
		add("count", clientv3.WithCountOnly())
	}
	if s.odds(5) {
		// Some revisions are in the future.
		rev := s.rand.Int64N(revision + 3)
		add(fmt.Sprint("at ", rev), clientv3.WithRev(rev))
	}
	if s.odds(6) {
		add("mod", clientv3.WithMinModRev(revision/2), clientv3.WithMaxModRev(revision-1))
	}
	if s.odds(6) {
		add("create", clientv3.WithMinCreateRev(revision/3), clientv3.WithMaxCreateRev(revision-1))
	}
	serializable := !nested && s.odds(3)
	if serializable {
		add("serializable", clientv3.WithSerializable())
	}
	return clientv3.OpGet(key, opts...), text, serializable
}

func (s *sides) put() (clientv3.Op, string) {
	key, value := s.key(), fmt.Sprint(s.rand.IntN(10))
	text := fmt.Sprintf("put %q %s", key, value)
	var opts []clientv3.OpOption
	if s.odds(3) {
		lease := s.lease()
		text += fmt.Sprint(" lease ", lease)
		opts = append(opts, clientv3.WithLease(clientv3.LeaseID(lease)))
	} else if s.odds(8) {
		text += " ignore lease"
		opts = append(opts, clientv3.WithIgnoreLease())
	}
	if s.odds(2) {
		text += " prev"
		opts = append(opts, clientv3.WithPrevKV())
	}
	if s.odds(8) {
		text, value = text+" ignore value", ""
		opts = append(opts, clientv3.WithIgnoreValue())
	}
	return clientv3.OpPut(key, value, opts...), text
}

func (s *sides) delete() (clientv3.Op, string) {
	key, span, opts := s.span()
	if s.odds(40) {
		key, span, opts = s.spanOrAll()
	}
	text := fmt.Sprintf("delete %q %s", key, span)
	if s.odds(2) {
		text += " prev"
		opts = append(opts, clientv3.WithPrevKV())
	}
	return clientv3.OpDelete(key, opts...), text
}

func (s *sides) compare(revision int64) (clientv3.Cmp, string) {
	key := s.key()
	result := s.pick("=", "!=", "<", ">")
	rev := s.rand.Int64N(revision + 1)
	var cmp clientv3.Cmp
	target := s.rand.IntN(5)
	switch target {
	case 0:
		cmp = clientv3.Compare(clientv3.Version(key), result, s.rand.Int64N(3))
	case 1:
		cmp = clientv3.Compare(clientv3.CreateRevision(key), result, rev)
	case 2:
		cmp = clientv3.Compare(clientv3.ModRevision(key), result, rev)
	case 3:
		cmp = clientv3.Compare(clientv3.Value(key), result, fmt.Sprint(s.rand.IntN(10)))
	default:
		cmp = clientv3.Compare(clientv3.LeaseValue(key), result, s.rand.Int64N(3))
	}
	text := fmt.Sprintf("%d of %q %s", target, key, result)
	switch s.rand.IntN(4) {
	case 0:
		return cmp.WithPrefix(), text + " prefix"
	case 1:
		end := s.pick("c", "\x00", "z", "a")
		return cmp.WithRange(end), text + fmt.Sprintf(" to %q", end)
	default:
		return cmp, text
	}
}

func (s *sides) txn(revision int64, depth int) (clientv3.Op, string) {
	var cmps []clientv3.Cmp
	text := "txn if ["
	for range s.rand.IntN(3) {
		cmp, about := s.compare(revision)
		cmps, text = append(cmps, cmp), text+about+"; "
	}
	branch := func(name string) (ops []clientv3.Op) {
		text += "] " + name + " ["
		for range s.rand.IntN(4) {
			var op clientv3.Op
			var about string
			switch kind := s.rand.IntN(8); {
			case kind < 3:
				op, about, _ = s.get(revision, true)
			case kind < 5:
				op, about = s.put()
			case kind < 7 || depth == 0:
				op, about = s.delete()
			default:
				op, about = s.txn(revision, depth-1)
			}
			ops, text = append(ops, op), text+about+"; "
		}
		return ops
	}
	then := branch("then")
	return clientv3.OpTxn(cmps, then, branch("else")), text + "]"
}

// do runs one operation on both sides and returns the revision after it.
func (s *sides) do(op clientv3.Op, text string, serializable bool, revision int64) int64 {
	s.t.Helper()
	response := s.both(text, func(c *clientv3.Client) (proto.Message, error) {
		response, err := c.Do(s.ctx, op)
		if err != nil {
			return nil, err
		}
		switch {
		case response.Get() != nil:
			get := (*pb.RangeResponse)(response.Get())
			if serializable {
				// A cached response carries the revision of its read.
				if get.Header.Revision > revision {
					s.t.Fatalf("%s: at revision %d, not %d", text, get.Header.Revision, revision)
				}
				get.Header.Revision = 0
			}
			return get, nil
		case response.Put() != nil:
			return (*pb.PutResponse)(response.Put()), nil
		case response.Del() != nil:
			return (*pb.DeleteRangeResponse)(response.Del()), nil
		default:
			return (*pb.TxnResponse)(response.Txn()), nil
		}
	})
	if response == nil || serializable {
		return revision
	}
	return response.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader().Revision
}

// leases runs a random lease operation on both sides.
func (s *sides) leases() {
	s.t.Helper()
	id := s.lease()
	switch s.rand.IntN(6) {
	case 0, 1:
		s.both(fmt.Sprint("grant ", id), func(c *clientv3.Client) (proto.Message, error) {
			// clientv3 has no parameter for the id, which must be the same on both sides.
			lease := pb.NewLeaseClient(c.ActiveConnection())
			return lease.LeaseGrant(s.ctx, &pb.LeaseGrantRequest{ID: id, TTL: 600})
		})
	case 2:
		// Leases from 5 on may have a key outside, so the proxy refuses to revoke them.
		id = 1 + id%4
		s.both(fmt.Sprint("revoke ", id), func(c *clientv3.Client) (proto.Message, error) {
			response, err := c.Revoke(s.ctx, clientv3.LeaseID(id))
			return (*pb.LeaseRevokeResponse)(response), err
		})
	case 3:
		s.both(fmt.Sprint("keep alive ", id), func(c *clientv3.Client) (proto.Message, error) {
			response, err := c.KeepAliveOnce(s.ctx, clientv3.LeaseID(id))
			if err != nil {
				return nil, err
			}
			// The header is read before the renewal, so its revision varies.
			return &pb.LeaseKeepAliveResponse{ID: int64(response.ID), TTL: response.TTL}, nil
		})
	default:
		s.both(fmt.Sprint("time to live ", id), func(c *clientv3.Client) (proto.Message, error) {
			response, err := c.TimeToLive(s.ctx, clientv3.LeaseID(id), clientv3.WithAttachedKeys())
			if err != nil {
				return nil, err
			}
			keys := slices.DeleteFunc(response.Keys, func(key []byte) bool { return len(key) == 0 })
			slices.SortFunc(keys, slices.Compare)
			comparable := &pb.LeaseTimeToLiveResponse{ID: int64(response.ID), GrantedTTL: response.GrantedTTL, Keys: keys}
			if response.TTL < 0 {
				comparable.TTL = response.TTL
			}
			return comparable, nil
		})
	}
}

// watched is one watch on both sides.
type watched struct {
	text string
	// Events of each side, and the revision up to which they are complete.
	lock   sync.Mutex
	events [2][]string
	until  [2]int64
	ended  [2]string
}

func eventText(event *clientv3.Event) string {
	raw := (*mvccpb.Event)(event)
	return fmt.Sprintf("%s %s prev %s", raw.Type, kvText(raw.Kv), kvText(raw.PrevKv))
}

func kvText(kv *mvccpb.KeyValue) string {
	if kv == nil {
		return "none"
	}
	return fmt.Sprintf("%q=%.12q (%d bytes) create %d mod %d version %d lease %d", kv.Key, kv.Value, len(kv.Value),
		kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease)
}

// watch starts a watch on both sides and waits until it is created.
func (s *sides) watch(key, text string, opts ...clientv3.OpOption) *watched {
	s.t.Helper()
	w := &watched{text: fmt.Sprintf("watch %q %s", key, text)}
	s.step = w.text
	for i, c := range s.clients {
		all := append(slices.Clone(opts), clientv3.WithCreatedNotify())
		channel := c.Watch(s.ctx, key, all...)
		select {
		case created := <-channel:
			if !created.Created {
				w.ended[i] = fmt.Sprint(created.Err(), created.CompactRevision)
				continue
			}
		case <-s.ctx.Done():
			s.t.Fatalf("%s is not created on side %d", w.text, i)
		}
		go func() {
			for response := range channel {
				w.lock.Lock()
				for _, event := range response.Events {
					w.events[i] = append(w.events[i], eventText(event))
				}
				if response.IsProgressNotify() {
					w.until[i] = response.Header.Revision
				}
				if err := response.Err(); err != nil {
					w.ended[i] = fmt.Sprint(err, response.CompactRevision)
				}
				w.lock.Unlock()
			}
			w.lock.Lock()
			defer w.lock.Unlock()
			w.ended[i] += " closed"
		}()
	}
	return w
}

func (s *sides) randomWatch(revision int64) *watched {
	key, text, opts := s.span()
	add := func(name string, opt ...clientv3.OpOption) { text += " " + name; opts = append(opts, opt...) }
	if s.odds(2) {
		add("prev", clientv3.WithPrevKV())
	}
	switch s.rand.IntN(5) {
	case 0:
		add("no puts", clientv3.WithFilterPut())
	case 1:
		add("no deletes", clientv3.WithFilterDelete())
	}
	if s.odds(3) {
		add("fragment", clientv3.WithFragment())
	}
	if s.odds(3) {
		add("progress", clientv3.WithProgressNotify())
	}
	if s.odds(2) {
		rev := 1 + s.rand.Int64N(revision)
		add(fmt.Sprint("from ", rev), clientv3.WithRev(rev))
	}
	return s.watch(key, text, opts...)
}

// complete waits until all watches have received everything up to a revision, and compares the events.
func (s *sides) complete(watches []*watched, revision int64) {
	s.t.Helper()
	for _, w := range watches {
		s.step = w.text
		for behind := true; behind; {
			w.lock.Lock()
			behind = w.ended[0] == "" && w.until[0] < revision || w.ended[1] == "" && w.until[1] < revision
			w.lock.Unlock()
			if s.ctx.Err() != nil {
				s.t.Fatalf("%s: complete up to %v, not %d; %v", w.text, w.until, revision, w.ended)
			}
			if behind {
				for _, c := range s.clients {
					ok(s.t, c.RequestProgress(s.ctx))
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
		w.lock.Lock()
		s.same(w.ended[0], w.ended[1])
		s.same(strings.Join(w.events[0], "\n"), strings.Join(w.events[1], "\n"))
		w.lock.Unlock()
	}
}

// Random operations return the same responses on both sides and change both stores in the same way. Random
// watches receive the same events.
func TestNamespaceMatchesWrapper(t *testing.T) {
	s := bothSides(t)
	s.outside(func(c *clientv3.Client) error {
		lease := pb.NewLeaseClient(c.ActiveConnection())
		for id := int64(1); id <= 6; id++ {
			if _, err := lease.LeaseGrant(s.ctx, &pb.LeaseGrantRequest{ID: id, TTL: 600}); err != nil {
				return err
			}
		}
		return nil
	})
	write := func(n int) int64 {
		key, lease := s.pick(s.neighbours()...), clientv3.LeaseID(5+s.rand.IntN(2))
		var revision int64
		s.outside(func(c *clientv3.Client) error {
			put, err := c.Put(s.ctx, key, fmt.Sprint("outside ", n), clientv3.WithLease(lease))
			revision = put.Header.Revision
			return err
		})
		return revision
	}
	var revision int64
	for n := range 30 {
		revision = write(n)
	}
	var watches []*watched
	events := 0
	for n := range 600 {
		before := revision
		switch kind := s.rand.IntN(20); {
		case kind < 1:
			revision = write(n)
		case kind < 2 && len(watches) < 24:
			watches = append(watches, s.randomWatch(revision))
		case kind < 4:
			s.leases()
		case kind < 9:
			op, text, serializable := s.get(revision, false)
			s.do(op, text, serializable, revision)
		case kind < 13:
			op, text := s.put()
			revision = s.do(op, text, false, revision)
		case kind < 15:
			op, text := s.delete()
			revision = s.do(op, text, false, revision)
		default:
			op, text := s.txn(revision, 2)
			revision = s.do(op, text, false, revision)
		}
		if revision != before && n%10 == 0 {
			s.stores(s.step)
		}
		// A revoke may have created a revision.
		header, err := s.direct[0].Get(s.ctx, "x", clientv3.WithCountOnly())
		ok(t, err)
		revision = header.Header.Revision
	}
	s.stores("all")
	s.complete(watches, revision)
	for _, w := range watches {
		events += len(w.events[0])
	}
	if len(watches) < 5 || events < 50 {
		t.Fatalf("only %d watches and %d events", len(watches), events)
	}
	t.Logf("revision %d, %d watches, %d events", revision, len(watches), events)
}

// A compaction has the same effect on both sides.
func TestNamespaceCompacted(t *testing.T) {
	s := bothSides(t)
	var revision int64
	for range 10 {
		revision = s.do(clientv3.OpPut("a", "1"), "put", false, 0)
	}
	s.outside(func(c *clientv3.Client) error {
		_, err := c.Compact(s.ctx, revision-5)
		return err
	})
	for rev := revision - 6; rev <= revision; rev++ {
		s.do(clientv3.OpGet("a", clientv3.WithRev(rev)), fmt.Sprint("get at ", rev), false, revision)
	}
	available := s.watch("a", "from the first available revision", clientv3.WithRev(revision-5))
	s.complete([]*watched{available}, revision)
	equal(t, "events", len(available.events[0]), 6)
	old := s.watch("a", "from a compacted revision", clientv3.WithRev(revision-6))
	ended := func() bool {
		old.lock.Lock()
		defer old.lock.Unlock()
		return old.ended[0] != "" && old.ended[1] != ""
	}
	until(t, s.ctx, ended)
	s.same(old.ended[0], old.ended[1])
	if !strings.Contains(old.ended[0], rpctypes.ErrCompacted.Error()) {
		t.Fatalf("ended by %s", old.ended[0])
	}
}

// Empty keys, in requests where they are valid and where they are not.
func TestNamespaceEmptyKeys(t *testing.T) {
	s := bothSides(t)
	revision := s.do(clientv3.OpPut("a", "1"), "put", false, 0)
	before := revision
	empty := map[string]func(c *clientv3.Client) error{
		"put":    func(c *clientv3.Client) error { _, err := c.Put(s.ctx, "", "x"); return err },
		"get":    func(c *clientv3.Client) error { _, err := c.Get(s.ctx, ""); return err },
		"delete": func(c *clientv3.Client) error { _, err := c.Delete(s.ctx, ""); return err },
	}
	for name, call := range empty {
		for _, c := range s.clients {
			s.step = name
			fails(t, call(c), rpctypes.ErrEmptyKey)
		}
	}
	// In a transaction Go's wrapper uses the prefix. The proxy returns etcd's error for an empty key.
	for _, op := range []clientv3.Op{clientv3.OpPut("", "x"), clientv3.OpGet(""), clientv3.OpDelete("")} {
		nested := clientv3.OpTxn(nil, []clientv3.Op{op}, nil)
		for _, op := range []clientv3.Op{op, nested} {
			for _, c := range []*clientv3.Client{s.clients[0], s.direct[1]} {
				_, err := c.Txn(s.ctx).Then(op).Commit()
				fails(t, err, rpctypes.ErrEmptyKey)
			}
		}
	}
	// The whole namespace.
	for _, opt := range []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithFromKey()} {
		s.do(clientv3.OpGet("", opt), "get all", false, revision)
		watch := s.watch("", "all", opt)
		revision = s.do(clientv3.OpPut("a", "2", clientv3.WithPrevKV()), "put", false, revision)
		s.complete([]*watched{watch}, revision)
	}
	equal(t, "writes", revision, before+2)
	revision = s.do(clientv3.OpDelete("", clientv3.WithPrefix(), clientv3.WithPrevKV()), "delete all", false, revision)
	s.stores("all of it")
}

// Large responses and events, which the proxy relays in pieces and as fragments.
func TestNamespaceLarge(t *testing.T) {
	s := bothSides(t)
	s.do(clientv3.OpDelete("", clientv3.WithPrefix()), "delete all", false, 0)
	large := strings.Repeat("0123456789abcdef", 600<<10/16)
	var revision int64
	cut := s.watch("big/", "fragment", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithFragment())
	whole := s.watch("big/", "whole", clientv3.WithPrefix(), clientv3.WithPrevKV())
	for _, value := range []string{large, strings.ToUpper(large)} {
		both := clientv3.OpTxn(nil, []clientv3.Op{
			clientv3.OpPut("big/1", value, clientv3.WithPrevKV()), clientv3.OpPut("big/2", value, clientv3.WithPrevKV()),
		}, nil)
		revision = s.do(both, "put both", false, revision)
	}
	for n := range 300 {
		revision = s.do(clientv3.OpPut(fmt.Sprintf("many/%03d", n), large[:1000]), "put many", false, revision)
	}
	for _, opt := range [][]clientv3.OpOption{{}, {clientv3.WithSerializable()}, {clientv3.WithKeysOnly()}} {
		serializable := len(opt) > 0 && clientv3.OpGet("a", opt...).IsSerializable()
		for range 2 {
			for _, prefix := range []string{"many/", "big/", ""} {
				all := append(slices.Clone(opt), clientv3.WithPrefix())
				s.do(clientv3.OpGet(prefix, all...), "get "+prefix, serializable, revision)
			}
		}
	}
	nested := clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet("", clientv3.WithPrefix())}, nil)
	s.do(clientv3.OpTxn(nil, []clientv3.Op{nested}, nil), "get all within a transaction", false, revision)
	s.complete([]*watched{cut, whole}, revision)
	if len(cut.events[0]) != 4 {
		t.Fatalf("%d events", len(cut.events[0]))
	}
	s.stores("large values")
	s.do(clientv3.OpDelete("", clientv3.WithPrefix(), clientv3.WithPrevKV()), "delete all", false, revision)
}

// Locks and elections of the client, which use the calls tested above.
func TestNamespaceConcurrency(t *testing.T) {
	s := bothSides(t)
	const first, second = 0x71, 0x72
	sessions := map[int64][2]*concurrency.Session{}
	for _, id := range []int64{first, second} {
		var pair [2]*concurrency.Session
		for i, c := range s.clients {
			lease := pb.NewLeaseClient(c.ActiveConnection())
			_, err := lease.LeaseGrant(s.ctx, &pb.LeaseGrantRequest{ID: id, TTL: 60})
			ok(t, err)
			pair[i], err = concurrency.NewSession(c, concurrency.WithLease(clientv3.LeaseID(id)))
			ok(t, err)
		}
		sessions[id] = pair
	}
	var keys, revisions [2]string
	for i := range s.clients {
		mine, theirs := sessions[first][i], sessions[second][i]
		lock, waiting := concurrency.NewMutex(mine, "lock"), concurrency.NewMutex(theirs, "lock")
		ok(t, lock.Lock(s.ctx))
		fails(t, waiting.TryLock(s.ctx), concurrency.ErrLocked)
		got := make(chan error, 1)
		go func() { got <- waiting.Lock(s.ctx) }()
		keys[i] = lock.Key()
		held, err := s.clients[i].Txn(s.ctx).If(lock.IsOwner()).Commit()
		ok(t, err)
		equal(t, "is the owner", held.Succeeded, true)
		ok(t, lock.Unlock(s.ctx))
		ok(t, receive(t, s.ctx, got))
		keys[i] += " " + waiting.Key()

		one, two := concurrency.NewElection(mine, "election"), concurrency.NewElection(theirs, "election")
		ok(t, one.Campaign(s.ctx, "one"))
		observing, cancel := context.WithCancel(s.ctx)
		seen := two.Observe(observing)
		equal(t, "leader", string(receive(t, s.ctx, seen).Kvs[0].Value), "one")
		ok(t, one.Proclaim(s.ctx, "one again"))
		equal(t, "leader", string(receive(t, s.ctx, seen).Kvs[0].Value), "one again")
		go func() { got <- two.Campaign(s.ctx, "two") }()
		until(t, s.ctx, func() bool {
			get, err := s.clients[i].Get(s.ctx, "election/", clientv3.WithPrefix())
			return err == nil && len(get.Kvs) == 2
		})
		ok(t, one.Resign(s.ctx))
		ok(t, receive(t, s.ctx, got))
		leader, err := one.Leader(s.ctx)
		ok(t, err)
		keys[i] += fmt.Sprintf(" %s %s=%s", two.Key(), leader.Kvs[0].Key, leader.Kvs[0].Value)
		revisions[i] = fmt.Sprint(leader.Header.Revision)
		cancel()
	}
	s.step = "locks and elections"
	s.same(keys[0], keys[1])
	want := "lock/71 lock/72 election/72 election/72=two"
	if keys[0] != want {
		t.Fatalf("the keys are %s, not %s", keys[0], want)
	}
	for _, id := range []int64{first, second} {
		for i := range s.clients {
			ok(t, sessions[id][i].Close())
		}
	}
	s.both("after the sessions", func(c *clientv3.Client) (proto.Message, error) {
		get, err := c.Get(s.ctx, "", clientv3.WithPrefix())
		if err == nil {
			get.Header = nil
		}
		return (*pb.RangeResponse)(get), err
	})

	// The heartbeats of a session keep its lock longer than the TTL.
	for _, c := range s.clients {
		mine, err := concurrency.NewSession(c, concurrency.WithTTL(2))
		ok(t, err)
		lock := concurrency.NewMutex(mine, "renewed")
		ok(t, lock.Lock(s.ctx))
		responses, err := c.KeepAlive(s.ctx, mine.Lease())
		ok(t, err)
		for range 5 {
			equal(t, "TTL", receive(t, s.ctx, responses).TTL, 2)
		}
		ok(t, lock.Unlock(s.ctx))
		ok(t, mine.Close())
	}
}
