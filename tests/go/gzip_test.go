package client

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/stats"
)

// compressedMessages counts the received messages that were compressed, and the others.
type compressedMessages struct {
	compressed, plain atomic.Int64
	encoding          atomic.Value
}

func (c *compressedMessages) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return ctx
}

func (c *compressedMessages) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return ctx
}

func (c *compressedMessages) HandleConn(context.Context, stats.ConnStats) {}

func (c *compressedMessages) HandleRPC(_ context.Context, event stats.RPCStats) {
	switch event := event.(type) {
	case *stats.InHeader:
		c.encoding.Store(event.Compression)
	case *stats.InPayload:
		// gzip changes the length of every message.
		if event.CompressedLength != event.Length {
			c.compressed.Add(1)
		} else {
			c.plain.Add(1)
		}
	}
}

// TestGzip checks that each response to a compressed call is compressed, as etcd compresses it.
func TestGzip(t *testing.T) {
	if os.Getenv("ETCD_GZIP") == "" {
		t.Skip("ETCD_GZIP is not set")
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	counts := new(compressedMessages)
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   targets(t),
		DialTimeout: 5 * time.Second,
		DialOptions: append(compression(), grpc.WithStatsHandler(counts)),
	})
	ok(t, err)
	t.Cleanup(func() { client.Close() })
	check := func(what string, err error) {
		t.Helper()
		ok(t, err)
		equal(t, what+", plain", counts.plain.Load(), 0)
		equal(t, what+", encoding", counts.encoding.Load().(string), gzip.Name)
		if counts.compressed.Swap(0) == 0 {
			t.Fatalf("%s: no compressed message", what)
		}
	}
	p := t.Name() + "/"
	_, err = client.Put(ctx, p+"a", "value")
	check("put", err)
	for range 2 {
		_, err = client.Get(ctx, p+"a")
		check("get", err)
		_, err = client.Get(ctx, p+"a", clientv3.WithSerializable())
		check("serializable get", err)
	}
	_, err = client.Txn(ctx).Then(clientv3.OpGet(p + "a")).Commit()
	check("txn", err)
	_, err = client.MemberList(ctx)
	check("member list", err)
	events := client.Watch(clientv3.WithRequireLeader(ctx), p, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	receive(t, ctx, events)
	check("watch", nil)
	_, err = client.Put(ctx, p+"b", "value")
	ok(t, err)
	receive(t, ctx, events)
	check("put and event", nil)
	lease, err := client.Grant(ctx, 60)
	check("grant", err)
	_, err = client.KeepAliveOnce(ctx, lease.ID)
	check("heartbeat", err)
}
