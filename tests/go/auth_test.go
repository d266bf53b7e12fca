package client

import (
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestAuth(t *testing.T) {
	c, ctx, p := setup(t)
	status, err := c.AuthStatus(ctx)
	ok(t, err)
	equal(t, "enabled", status.Enabled, false)
	_, err = c.UserAdd(ctx, "root", "root-secret")
	ok(t, err)
	_, err = c.UserGrantRole(ctx, "root", "root")
	ok(t, err)
	_, err = c.RoleAdd(ctx, "reader")
	ok(t, err)
	_, err = c.RoleGrantPermission(ctx, "reader", p, clientv3.GetPrefixRangeEnd(p),
		clientv3.PermissionType(clientv3.PermRead))
	ok(t, err)
	_, err = c.UserAdd(ctx, "ann", "ann-secret")
	ok(t, err)
	_, err = c.UserGrantRole(ctx, "ann", "reader")
	ok(t, err)
	_, err = c.Put(ctx, p+"a", "1")
	ok(t, err)
	_, err = c.AuthEnable(ctx)
	ok(t, err)
	root := connect(t, "root", "root-secret")
	// Auth must be disabled however the test ends, because other tests use the same cluster.
	defer func() {
		_, err := root.AuthDisable(ctx)
		ok(t, err)
	}()

	users, err := root.UserList(ctx)
	ok(t, err)
	equal(t, "users", len(users.Users), 2)
	role, err := root.RoleGet(ctx, "reader")
	ok(t, err)
	equal(t, "permissions", len(role.Perm), 1)

	ann := connect(t, "ann", "ann-secret")
	get, err := ann.Get(ctx, p+"a")
	ok(t, err)
	equal(t, "value", string(get.Kvs[0].Value), "1")
	_, err = ann.Put(ctx, p+"a", "2")
	fails(t, err, rpctypes.ErrPermissionDenied)
	_, err = ann.Get(ctx, "elsewhere")
	fails(t, err, rpctypes.ErrPermissionDenied)
	_, err = ann.UserList(ctx)
	fails(t, err, rpctypes.ErrPermissionDenied)
	watched := ann.Watch(ctx, p+"a", clientv3.WithCreatedNotify())
	receive(t, ctx, watched)
	_, err = root.Put(ctx, p+"a", "3")
	ok(t, err)
	events(t, ctx, watched, 1)
	refused := receive(t, ctx, ann.Watch(ctx, "elsewhere"))
	equal(t, "canceled", refused.Canceled, true)
	equal(t, "reason", refused.Err().Error(),
		"rpc error: code = PermissionDenied desc = etcdserver: permission denied")

	_, err = c.Get(ctx, p+"a")
	fails(t, err, rpctypes.ErrUserEmpty)
	_, err = clientv3.New(clientv3.Config{
		Endpoints: targets(t), Username: "ann", Password: "wrong", Context: ctx,
	})
	fails(t, err, rpctypes.ErrAuthFailed)

	// The client replaces an invalid token by itself.
	_, err = root.UserChangePassword(ctx, "ann", "new-secret")
	ok(t, err)
	_, err = root.UserRevokeRole(ctx, "ann", "reader")
	ok(t, err)
	_, err = connect(t, "ann", "new-secret").Get(ctx, p+"a")
	fails(t, err, rpctypes.ErrPermissionDenied)
	_, err = root.UserDelete(ctx, "ann")
	ok(t, err)
	_, err = root.RoleRevokePermission(ctx, "reader", p, clientv3.GetPrefixRangeEnd(p))
	ok(t, err)
	_, err = root.RoleDelete(ctx, "reader")
	ok(t, err)
}
