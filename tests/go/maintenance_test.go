package client

import (
	"bytes"
	"crypto/sha256"
	"io"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestMaintenance(t *testing.T) {
	c, ctx, p := setup(t)
	put, err := c.Put(ctx, p+"a", "1")
	ok(t, err)
	at := targets(t)[0]
	status, err := c.Status(ctx, at)
	ok(t, err)
	if status.Leader == 0 || status.DbSize == 0 || status.Version == "" {
		t.Fatalf("an empty status: %v", status)
	}
	members, err := c.MemberList(ctx)
	ok(t, err)
	equal(t, "members", len(members.Members), 3)
	alarms, err := c.AlarmList(ctx)
	ok(t, err)
	equal(t, "alarms", len(alarms.Alarms), 0)
	_, err = c.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	ok(t, err)
	hash, err := c.HashKV(ctx, at, put.Header.Revision)
	ok(t, err)
	again, err := c.HashKV(ctx, at, put.Header.Revision)
	ok(t, err)
	equal(t, "hash", again.Hash, hash.Hash)
	_, err = c.HashKV(ctx, at, 1<<40)
	fails(t, err, rpctypes.ErrFutureRev)
	_, err = c.Defragment(ctx, at)
	ok(t, err)
	_, err = c.MoveLeader(ctx, 42)
	if err == nil {
		t.Fatal("the leadership moved to an unknown member")
	}
	_, err = c.MemberRemove(ctx, 42)
	fails(t, err, rpctypes.ErrMemberNotFound)
	_, err = c.MemberPromote(ctx, members.Members[0].ID)
	fails(t, err, rpctypes.ErrMemberNotLearner)
}

func TestSnapshot(t *testing.T) {
	c, ctx, p := setup(t)
	for range 40 {
		_, err := c.Put(ctx, p+"a", strings.Repeat("x", 100_000))
		ok(t, err)
	}
	snapshot, err := c.SnapshotWithVersion(ctx)
	ok(t, err)
	all, err := io.ReadAll(snapshot.Snapshot)
	ok(t, err)
	ok(t, snapshot.Snapshot.Close())
	if len(all) < 4_000_000 {
		t.Fatalf("only %d bytes", len(all))
	}
	// etcd appends a hash of the content.
	content, sum := all[:len(all)-sha256.Size], all[len(all)-sha256.Size:]
	if want := sha256.Sum256(content); !bytes.Equal(sum, want[:]) {
		t.Fatal("the hash of the snapshot is wrong")
	}
}
