package client

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
)

// fleet gives the addresses of registered proxies, and the prefix they are registered under.
func fleet(t *testing.T) ([]string, string) {
	t.Helper()
	addresses, prefix := os.Getenv("ETCD_FLEET"), os.Getenv("ETCD_FLEET_PREFIX")
	if addresses == "" || prefix == "" {
		t.Fatal("ETCD_FLEET and ETCD_FLEET_PREFIX are not set")
	}
	return sorted(strings.Split(addresses, ",")), prefix
}

// beside gives the addresses of two proxies that are not registered.
func beside(t *testing.T) (string, string) {
	t.Helper()
	one, other, found := strings.Cut(os.Getenv("ETCD_UNREGISTERED"), ",")
	if !found {
		t.Fatal("ETCD_UNREGISTERED is not set")
	}
	return one, other
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

// A gRPC client finds the proxies under the prefix, through one of them, and spreads its calls evenly.
func TestFleetNaming(t *testing.T) {
	all, prefix := fleet(t)
	one, other := beside(t)
	c, ctx, _ := setup(t)
	builder, err := resolver.NewBuilder(c)
	ok(t, err)
	conn, err := grpc.NewClient("etcd:///"+prefix,
		grpc.WithResolvers(builder),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
	ok(t, err)
	t.Cleanup(func() { conn.Close() })
	spreads(t, ctx, conn, all)

	manager, err := endpoints.NewManager(c, prefix)
	ok(t, err)
	list, err := manager.List(ctx)
	ok(t, err)
	var listed []string
	for key, endpoint := range list {
		equal(t, "key", key, prefix+"/"+endpoint.Addr)
		listed = append(listed, endpoint.Addr)
	}
	equal(t, "list", fmt.Sprint(sorted(listed)), fmt.Sprint(all))

	ok(t, manager.AddEndpoint(ctx, prefix+"/one", endpoints.Endpoint{Addr: one}))
	spreads(t, ctx, conn, append(slices.Clone(all), one))
	ok(t, manager.Update(ctx, []*endpoints.UpdateWithOpts{
		endpoints.NewDeleteUpdateOpts(prefix + "/one"),
		endpoints.NewAddUpdateOpts(prefix+"/other", endpoints.Endpoint{Addr: other}),
	}))
	spreads(t, ctx, conn, append(slices.Clone(all), other))
	// The same key with another address.
	ok(t, manager.AddEndpoint(ctx, prefix+"/other", endpoints.Endpoint{Addr: one}))
	spreads(t, ctx, conn, append(slices.Clone(all), one))
	ok(t, manager.DeleteEndpoint(ctx, prefix+"/other"))
	spreads(t, ctx, conn, all)

	// Under a lease that ends.
	lease, err := c.Grant(ctx, 60)
	ok(t, err)
	ok(t, manager.AddEndpoint(ctx, prefix+"/one", endpoints.Endpoint{Addr: one}, clientv3.WithLease(lease.ID)))
	spreads(t, ctx, conn, append(slices.Clone(all), one))
	_, err = c.Revoke(ctx, lease.ID)
	ok(t, err)
	spreads(t, ctx, conn, all)
}

// spreads waits until calls go round these addresses and no others, as often to each.
func spreads(t *testing.T, ctx context.Context, conn *grpc.ClientConn, addresses []string) {
	t.Helper()
	const rounds = 10
	kv := pb.NewKVClient(conn)
	for {
		counts := map[string]int{}
		for range rounds * len(addresses) {
			var who peer.Peer
			_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("any")}, grpc.Peer(&who), grpc.WaitForReady(true))
			ok(t, err)
			counts[who.Addr.String()]++
		}
		even := len(counts) == len(addresses)
		for _, address := range addresses {
			even = even && counts[address] == rounds
		}
		if even {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("calls go to %v, not evenly to %v", counts, addresses)
		}
	}
}

// Sync takes over what MemberList tells, and the client goes on with that.
func TestFleetSync(t *testing.T) {
	all, _ := fleet(t)
	c, ctx, p := setup(t)
	ok(t, c.Sync(ctx))
	equal(t, "endpoints", fmt.Sprint(sorted(c.Endpoints())), fmt.Sprint(all))
	for n := range 20 {
		_, err := c.Put(ctx, p+"a", fmt.Sprint(n))
		ok(t, err)
	}
	got, err := c.Get(ctx, p+"a")
	ok(t, err)
	equal(t, "value", string(got.Kvs[0].Value), "19")
	members, err := c.MemberList(ctx)
	ok(t, err)
	for _, member := range members.Members {
		if member.ID != 0 || member.Name == "" || len(member.ClientURLs) != 1 || member.IsLearner {
			t.Fatalf("a member is told of as %v", member)
		}
	}
}

// A client that syncs by itself leaves a proxy that goes and takes one that comes, and loses nothing: no
// read, no write, no event. Who runs this stops its first endpoint and starts another when it says
// "synced".
func TestFleetAutoSync(t *testing.T) {
	all, _ := fleet(t)
	first := targets(t)[0]
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	t.Cleanup(cancel)
	c, err := clientv3.New(clientv3.Config{
		Endpoints:        []string{first},
		DialTimeout:      5 * time.Second,
		AutoSyncInterval: 100 * time.Millisecond,
	})
	ok(t, err)
	t.Cleanup(func() { c.Close() })
	until(t, ctx, func() bool { return slices.Equal(sorted(c.Endpoints()), all) })

	p := t.Name() + "/"
	watched := c.Watch(ctx, p, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	receive(t, ctx, watched)
	written := 0
	work := func() {
		_, err := c.Put(ctx, p+"a", fmt.Sprint(written))
		ok(t, err)
		written++
		got, err := c.Get(ctx, p+"a")
		ok(t, err)
		equal(t, "value", string(got.Kvs[0].Value), fmt.Sprint(written-1))
	}
	work()
	fmt.Println("synced")
	moved := func() bool {
		now := c.Endpoints()
		return len(now) == len(all) && !slices.Contains(now, first)
	}
	until(t, ctx, func() bool { work(); return moved() })
	for range 50 {
		work()
	}
	for next := 0; next < written; {
		response := receive(t, ctx, watched)
		ok(t, response.Err())
		for _, event := range response.Events {
			equal(t, "event", string(event.Kv.Value), fmt.Sprint(next))
			next++
		}
	}
	fmt.Printf("%d writes, reads and events\n", written)
}

// until waits for something to be so.
func until(t *testing.T, ctx context.Context, so func() bool) {
	t.Helper()
	for !so() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("it does not come to it")
		}
	}
}
