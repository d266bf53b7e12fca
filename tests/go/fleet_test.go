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

// fleet returns the addresses of the registered proxies, and the prefix of their keys.
func fleet(t *testing.T) ([]string, string) {
	t.Helper()
	addresses, prefix := os.Getenv("ETCD_FLEET"), os.Getenv("ETCD_FLEET_PREFIX")
	if addresses == "" || prefix == "" {
		t.Fatal("ETCD_FLEET and ETCD_FLEET_PREFIX are not set")
	}
	return sorted(strings.Split(addresses, ",")), prefix
}

// unregistered returns the addresses of two proxies that are not registered.
func unregistered(t *testing.T) (string, string) {
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

// A gRPC client finds the proxies by the keys under the prefix, and balances its calls over them.
func TestFleetNaming(t *testing.T) {
	all, prefix := fleet(t)
	one, other := unregistered(t)
	c, ctx, _ := setup(t)
	builder, err := resolver.NewBuilder(c)
	ok(t, err)
	conn, err := grpc.NewClient("etcd:///"+prefix,
		grpc.WithResolvers(builder),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
	ok(t, err)
	t.Cleanup(func() { conn.Close() })
	balanced(t, ctx, conn, all)

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
	balanced(t, ctx, conn, append(slices.Clone(all), one))
	ok(t, manager.Update(ctx, []*endpoints.UpdateWithOpts{
		endpoints.NewDeleteUpdateOpts(prefix + "/one"),
		endpoints.NewAddUpdateOpts(prefix+"/other", endpoints.Endpoint{Addr: other}),
	}))
	balanced(t, ctx, conn, append(slices.Clone(all), other))
	// The same key with a new address.
	ok(t, manager.AddEndpoint(ctx, prefix+"/other", endpoints.Endpoint{Addr: one}))
	balanced(t, ctx, conn, append(slices.Clone(all), one))
	ok(t, manager.DeleteEndpoint(ctx, prefix+"/other"))
	balanced(t, ctx, conn, all)

	// A key with a lease that is revoked.
	lease, err := c.Grant(ctx, 60)
	ok(t, err)
	ok(t, manager.AddEndpoint(ctx, prefix+"/one", endpoints.Endpoint{Addr: one}, clientv3.WithLease(lease.ID)))
	balanced(t, ctx, conn, append(slices.Clone(all), one))
	_, err = c.Revoke(ctx, lease.ID)
	ok(t, err)
	balanced(t, ctx, conn, all)
}

// balanced waits until exactly these addresses receive calls, and the same number each.
func balanced(t *testing.T, ctx context.Context, conn *grpc.ClientConn, addresses []string) {
	t.Helper()
	const rounds = 10
	kv := pb.NewKVClient(conn)
	for {
		counts := map[string]int{}
		for range rounds * len(addresses) {
			var server peer.Peer
			_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("any")}, grpc.Peer(&server), grpc.WaitForReady(true))
			ok(t, err)
			counts[server.Addr.String()]++
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

// Sync sets the client's endpoints to the addresses of MemberList.
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
			t.Fatalf("the member list has %v", member)
		}
	}
}

// A client with auto-sync leaves a stopped proxy and uses a new one. It loses no read, no write and no
// event. The caller of this test stops its first endpoint and starts another one when the test prints
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

// until waits for a condition.
func until(t *testing.T, ctx context.Context, condition func() bool) {
	t.Helper()
	for !condition() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the condition is not true in time")
		}
	}
}
