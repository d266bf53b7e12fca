// Writes and reads a key, watches a prefix and keeps a lease alive through etcd-edge. The client
// library is that of etcd: an application needs no change but the address.
//
//	go run . 127.0.0.1:23790
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func main() {
	endpoints := os.Args[1:]
	if len(endpoints) == 0 {
		endpoints = []string{"127.0.0.1:23790"}
	}
	if err := run(endpoints); err != nil {
		log.Fatal(err)
	}
}

func run(endpoints []string) error {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   endpoints,
		DialTimeout: 5 * time.Second,
		// Pings detect a dead connection while only watches are open. The shortest interval that
		// the proxy accepts is its flag --grpc-keepalive-min-time, 5 seconds by default.
		DialKeepAliveTime:    30 * time.Second,
		DialKeepAliveTimeout: 10 * time.Second,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	if err := readAndWrite(ctx, client); err != nil {
		return fmt.Errorf("read and write: %w", err)
	}
	if err := watch(ctx, client); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	if err := keepAlive(ctx, client); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	return nil
}

// readAndWrite puts a key and reads it in both ways that etcd has.
func readAndWrite(ctx context.Context, client *clientv3.Client) error {
	put, err := client.Put(ctx, "example/greeting", "hello")
	if err != nil {
		return err
	}
	fmt.Println("put example/greeting at revision", put.Header.Revision)

	// The default is a linearizable read: it returns the newest value. The proxy merges equal reads
	// that wait at the same time.
	get, err := client.Get(ctx, "example/greeting")
	if err != nil {
		return err
	}
	fmt.Printf("linearizable get: %s\n", get.Kvs[0].Value)

	// A serializable read can be older. The proxy can serve it from its cache.
	get, err = client.Get(ctx, "example/greeting", clientv3.WithSerializable())
	if err != nil {
		return err
	}
	fmt.Printf("serializable get: %s\n", get.Kvs[0].Value)
	return nil
}

// watch receives the events of a prefix. Equal watches of many clients cost etcd one watcher.
func watch(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// WithCreatedNotify makes the first response confirm that the watch is open.
	responses := client.Watch(ctx, "example/watched/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if created := <-responses; !created.Created {
		return fmt.Errorf("not created: %w", created.Err())
	}
	if _, err := client.Put(ctx, "example/watched/a", "1"); err != nil {
		return err
	}
	if _, err := client.Delete(ctx, "example/watched/a"); err != nil {
		return err
	}
	for events := 0; events < 2; {
		response, open := <-responses
		if !open {
			return ctx.Err()
		}
		if err := response.Err(); err != nil {
			return err
		}
		for _, event := range response.Events {
			fmt.Printf("event: %s %s at revision %d\n", event.Type, event.Kv.Key, event.Kv.ModRevision)
			events++
		}
	}
	return nil
}

// keepAlive renews a lease. The proxy sends the heartbeats of all clients on one stream to etcd.
func keepAlive(ctx context.Context, client *clientv3.Client) error {
	lease, err := client.Grant(ctx, 3)
	if err != nil {
		return err
	}
	if _, err := client.Put(ctx, "example/leased", "1", clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	// The client sends a heartbeat every third of the TTL until the context ends.
	renewing, stop := context.WithCancel(ctx)
	defer stop()
	responses, err := client.KeepAlive(renewing, lease.ID)
	if err != nil {
		return err
	}
	for range 3 {
		response, open := <-responses
		if !open {
			return fmt.Errorf("lease %x is lost", lease.ID)
		}
		fmt.Printf("lease %x renewed, TTL %d s\n", response.ID, response.TTL)
	}
	stop()
	if _, err := client.Revoke(ctx, lease.ID); err != nil {
		return err
	}
	get, err := client.Get(ctx, "example/leased")
	if err != nil {
		return err
	}
	fmt.Println("keys of the lease after its end:", get.Count)
	return nil
}
