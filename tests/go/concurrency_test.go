package client

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func session(t *testing.T, c *clientv3.Client) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(c, concurrency.WithTTL(10))
	ok(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestLock(t *testing.T) {
	c, ctx, p := setup(t)
	mine := concurrency.NewMutex(session(t, c), p+"lock")
	theirs := concurrency.NewMutex(session(t, connect(t, "", "")), p+"lock")
	ok(t, mine.Lock(ctx))
	fails(t, theirs.TryLock(ctx), concurrency.ErrLocked)
	got := make(chan error, 1)
	go func() { got <- theirs.Lock(ctx) }()
	ok(t, mine.Unlock(ctx))
	ok(t, receive(t, ctx, got))
	ok(t, theirs.Unlock(ctx))

	// A lock is released when its session ends.
	lost := session(t, c)
	ok(t, concurrency.NewMutex(lost, p+"lock").Lock(ctx))
	ok(t, lost.Close())
	ok(t, mine.Lock(ctx))
	ok(t, mine.Unlock(ctx))
}

func TestElection(t *testing.T) {
	c, ctx, p := setup(t)
	mine := concurrency.NewElection(session(t, c), p+"election")
	theirs := concurrency.NewElection(session(t, connect(t, "", "")), p+"election")
	observing, cancel := context.WithCancel(ctx)
	defer cancel()
	ok(t, mine.Campaign(ctx, "mine"))
	seen := theirs.Observe(observing)
	equal(t, "leader", string(receive(t, ctx, seen).Kvs[0].Value), "mine")
	ok(t, mine.Proclaim(ctx, "mine again"))
	equal(t, "leader", string(receive(t, ctx, seen).Kvs[0].Value), "mine again")
	won := make(chan error, 1)
	go func() { won <- theirs.Campaign(ctx, "theirs") }()
	ok(t, mine.Resign(ctx))
	ok(t, receive(t, ctx, won))
	leader, err := mine.Leader(ctx)
	ok(t, err)
	equal(t, "leader", string(leader.Kvs[0].Value), "theirs")
	ok(t, theirs.Resign(ctx))
}

func TestSTM(t *testing.T) {
	c, ctx, p := setup(t)
	const accounts, transfers = 4, 10
	for i := range accounts {
		_, err := c.Put(ctx, fmt.Sprint(p, i), "100")
		ok(t, err)
	}
	var wait sync.WaitGroup
	for worker := range 4 {
		wait.Go(func() {
			for i := range transfers {
				from, to := fmt.Sprint(p, (worker+i)%accounts), fmt.Sprint(p, (worker+i+1)%accounts)
				_, err := concurrency.NewSTM(c, func(stm concurrency.STM) error {
					a, _ := strconv.Atoi(stm.Get(from))
					b, _ := strconv.Atoi(stm.Get(to))
					stm.Put(from, strconv.Itoa(a-1))
					stm.Put(to, strconv.Itoa(b+1))
					return nil
				}, concurrency.WithAbortContext(ctx))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	get, err := c.Get(ctx, p, clientv3.WithPrefix())
	ok(t, err)
	sum := 0
	for _, kv := range get.Kvs {
		balance, err := strconv.Atoi(string(kv.Value))
		ok(t, err)
		sum += balance
	}
	equal(t, "sum", sum, accounts*100)
}
