package client

import (
	"bytes"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestKV(t *testing.T) {
	c, ctx, p := setup(t)
	first, err := c.Put(ctx, p+"a", "1")
	ok(t, err)
	second, err := c.Put(ctx, p+"a", "2", clientv3.WithPrevKV())
	ok(t, err)
	equal(t, "previous value", string(second.PrevKv.Value), "1")
	equal(t, "revision", second.Header.Revision, first.Header.Revision+1)
	for i := range 5 {
		_, err = c.Put(ctx, fmt.Sprint(p, "list/", i), fmt.Sprint(9-i))
		ok(t, err)
	}

	get, err := c.Get(ctx, p+"a")
	ok(t, err)
	equal(t, "value", string(get.Kvs[0].Value), "2")
	equal(t, "version", get.Kvs[0].Version, 2)
	get, err = c.Get(ctx, p+"a", clientv3.WithRev(first.Header.Revision))
	ok(t, err)
	equal(t, "old value", string(get.Kvs[0].Value), "1")
	get, err = c.Get(ctx, p+"a", clientv3.WithSerializable())
	ok(t, err)
	equal(t, "count", get.Count, 1)
	get, err = c.Get(ctx, p+"list/", clientv3.WithPrefix(), clientv3.WithLimit(2),
		clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend))
	ok(t, err)
	equal(t, "count", get.Count, 5)
	equal(t, "more", get.More, true)
	equal(t, "least value", string(get.Kvs[0].Value), "5")
	get, err = c.Get(ctx, p+"list/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	ok(t, err)
	equal(t, "keys", len(get.Kvs), 5)
	equal(t, "value", len(get.Kvs[0].Value), 0)
	get, err = c.Get(ctx, p+"list/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	ok(t, err)
	equal(t, "keys", len(get.Kvs), 0)
	equal(t, "count", get.Count, 5)

	del, err := c.Delete(ctx, p+"list/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	ok(t, err)
	equal(t, "deleted", del.Deleted, 5)
	equal(t, "previous", len(del.PrevKvs), 5)
	get, err = c.Get(ctx, p+"list/", clientv3.WithPrefix())
	ok(t, err)
	equal(t, "count", get.Count, 0)

	_, err = c.Put(ctx, "", "x")
	fails(t, err, rpctypes.ErrEmptyKey)
	_, err = c.Get(ctx, p, clientv3.WithRev(1<<40))
	fails(t, err, rpctypes.ErrFutureRev)
	_, err = c.Put(ctx, p+"no", "x", clientv3.WithLease(12345))
	fails(t, err, rpctypes.ErrLeaseNotFound)
}

func TestCompact(t *testing.T) {
	c, ctx, p := setup(t)
	old, err := c.Put(ctx, p+"a", "1")
	ok(t, err)
	now, err := c.Put(ctx, p+"a", "2")
	ok(t, err)
	_, err = c.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
	ok(t, err)
	_, err = c.Get(ctx, p+"a", clientv3.WithRev(old.Header.Revision))
	fails(t, err, rpctypes.ErrCompacted)
	_, err = c.Compact(ctx, now.Header.Revision)
	fails(t, err, rpctypes.ErrCompacted)
}

func TestLargeValue(t *testing.T) {
	c, ctx, p := setup(t)
	value := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	_, err := c.Put(ctx, p+"large", string(value))
	ok(t, err)
	get, err := c.Get(ctx, p+"large")
	ok(t, err)
	if !bytes.Equal(get.Kvs[0].Value, value) {
		t.Fatal("the value changed")
	}
	_, err = c.Put(ctx, p+"large", string(value)+string(value))
	if err == nil {
		t.Fatal("2 MiB were accepted")
	}
	_, err = c.Delete(ctx, p+"large")
	ok(t, err)
}

func TestTxn(t *testing.T) {
	c, ctx, p := setup(t)
	a, b, n := p+"a", p+"b", p+"n"
	txn, err := c.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(a), "=", 0)).
		Then(clientv3.OpPut(a, "1"), clientv3.OpGet(a)).
		Else(clientv3.OpGet(a)).
		Commit()
	ok(t, err)
	equal(t, "succeeded", txn.Succeeded, true)
	equal(t, "read in the txn", string(txn.Responses[1].GetResponseRange().Kvs[0].Value), "1")

	nested := clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.Value(a), "=", "0")},
		[]clientv3.Op{clientv3.OpPut(n, "then")},
		[]clientv3.Op{clientv3.OpPut(n, "else"), clientv3.OpDelete(b)})
	txn, err = c.Txn(ctx).
		If(clientv3.Compare(clientv3.Version(a), ">", 0),
			clientv3.Compare(clientv3.ModRevision(a), "<", 1<<40),
			clientv3.Compare(clientv3.Value(a), "!=", "2"),
			clientv3.Compare(clientv3.LeaseValue(a), "=", 0),
			clientv3.Compare(clientv3.CreateRevision(p), ">", 0).WithPrefix()).
		Then(nested).
		Else(clientv3.OpPut(n, "outer else")).
		Commit()
	ok(t, err)
	equal(t, "succeeded", txn.Succeeded, true)
	equal(t, "inner succeeded", txn.Responses[0].GetResponseTxn().Succeeded, false)
	get, err := c.Get(ctx, n)
	ok(t, err)
	equal(t, "written by", string(get.Kvs[0].Value), "else")

	_, err = c.Txn(ctx).Then(clientv3.OpPut(a, "1"), clientv3.OpPut(a, "2")).Commit()
	fails(t, err, rpctypes.ErrDuplicateKey)
	many := make([]clientv3.Op, 129)
	for i := range many {
		many[i] = clientv3.OpGet(a)
	}
	_, err = c.Txn(ctx).Then(many...).Commit()
	fails(t, err, rpctypes.ErrTooManyOps)
}
