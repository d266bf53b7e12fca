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

// logBuffer collects the log of gRPC.
type logBuffer struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (b *logBuffer) Write(text []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.Write(text)
}

func (b *logBuffer) has(text string) bool {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return strings.Contains(b.text.String(), text)
}

// TestPings keeps a client open that pings as set by ETCD_PINGS, and logs whether the server closed the
// connection. gRPC pings at most every ten seconds, so the test takes most of a minute.
func TestPings(t *testing.T) {
	how := os.Getenv("ETCD_PINGS")
	log := &logBuffer{}
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(log, log, log))
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
	const tooManyPings = "too_many_pings"
	for ctx.Err() == nil && !log.has(tooManyPings) {
		time.Sleep(100 * time.Millisecond)
	}
	if log.has(tooManyPings) {
		t.Log("connection was closed")
	} else {
		t.Log("connection stayed open")
	}
	// The client works in both cases.
	if _, err := client.Get(context.Background(), "a"); err != nil {
		t.Fatal(err)
	}
}
