package client

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/grpclog"
)

// collected is what gRPC logs, for whoever looks.
type collected struct {
	mutex sync.Mutex
	said  bytes.Buffer
}

func (c *collected) Write(text []byte) (int, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.said.Write(text)
}

func (c *collected) has(text string) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return strings.Contains(c.said.String(), text)
}

// TestPings holds a client open that pings as ETCD_PINGS says, and tells whether it was sent away.
// gRPC itself pings no more often than every ten seconds, so that this takes most of a minute.
func TestPings(t *testing.T) {
	how := os.Getenv("ETCD_PINGS")
	said := &collected{}
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(said, said, said))
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            targets(t),
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		PermitWithoutStream:  how == "idle",
	})
	ok(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 55*time.Second)
	defer cancel()
	if _, err := client.Get(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if how == "watch" {
		watch := client.Watch(ctx, "a")
		go func() {
			for range watch {
			}
		}()
	}
	const away = "too_many_pings"
	for ctx.Err() == nil && !said.has(away) {
		time.Sleep(100 * time.Millisecond)
	}
	if said.has(away) {
		t.Log("sent away")
	} else {
		t.Log("stayed")
	}
	// Either way it goes on.
	if _, err := client.Get(context.Background(), "a"); err != nil {
		t.Fatal(err)
	}
}
