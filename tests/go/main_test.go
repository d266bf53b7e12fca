// Package client runs the real Go client of etcd against the endpoints in ETCD_ENDPOINTS. A program
// written for etcd must work the same through the proxy.
package client

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
)

// limit is the maximum duration of one test.
const limit = 30 * time.Second

func targets(t *testing.T) []string {
	t.Helper()
	list := os.Getenv("ETCD_ENDPOINTS")
	if list == "" {
		t.Fatal("ETCD_ENDPOINTS is not set")
	}
	return strings.Split(list, ",")
}

// compression makes every call compress its messages if ETCD_GZIP is set.
func compression() []grpc.DialOption {
	if os.Getenv("ETCD_GZIP") == "" {
		return nil
	}
	return []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name))}
}

func connect(t *testing.T, user, password string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   targets(t),
		DialTimeout: 5 * time.Second,
		DialOptions: compression(),
		Username:    user,
		Password:    password,
	})
	ok(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// setup returns a client, a context that ends with the test, and a prefix that no other test uses.
func setup(t *testing.T) (*clientv3.Client, context.Context, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return connect(t, "", ""), ctx, t.Name() + "/"
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fails(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s is %v, want %v", what, got, want)
	}
}

// receive waits for one value; a closed channel is a failure.
func receive[T any](t *testing.T, ctx context.Context, from <-chan T) T {
	t.Helper()
	select {
	case value, open := <-from:
		if !open {
			t.Fatal("the channel is closed")
		}
		return value
	case <-ctx.Done():
		t.Fatal("no value in time")
	}
	panic("unreachable")
}

// ends waits until the channel is closed, and discards its values.
func ends[T any](t *testing.T, ctx context.Context, from <-chan T) {
	t.Helper()
	for {
		select {
		case _, open := <-from:
			if !open {
				return
			}
		case <-ctx.Done():
			t.Fatal("the channel stays open")
		}
	}
}
