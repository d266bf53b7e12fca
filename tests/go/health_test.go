package client

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // client-side health checks
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// healthChecked sends a health Watch to each address, and uses the addresses that are serving.
const healthChecked = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"healthCheckConfig": {"serviceName": "etcdserverpb.KV"}
}`

func TestHealth(t *testing.T) {
	_, ctx, p := setup(t)
	conn, err := grpc.NewClient(targets(t)[0], append(
		compression(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(healthChecked),
	)...)
	ok(t, err)
	t.Cleanup(func() { conn.Close() })
	// The call waits until the health Watch reports SERVING.
	_, err = pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte(p + "a")})
	ok(t, err)
	health := healthpb.NewHealthClient(conn)
	for _, name := range []string{"", "etcdserverpb.KV", "etcd-edge"} {
		response, err := health.Check(ctx, &healthpb.HealthCheckRequest{Service: name})
		ok(t, err)
		equal(t, name, response.Status, healthpb.HealthCheckResponse_SERVING)
	}
	_, err = health.Check(ctx, &healthpb.HealthCheckRequest{Service: "no.such"})
	equal(t, "code", status.Code(err), codes.NotFound)
	all, err := health.List(ctx, &healthpb.HealthListRequest{})
	ok(t, err)
	equal(t, "names", len(all.Statuses), 10)
	for name, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"":        healthpb.HealthCheckResponse_SERVING,
		"no.such": healthpb.HealthCheckResponse_SERVICE_UNKNOWN,
	} {
		watch, err := health.Watch(ctx, &healthpb.HealthCheckRequest{Service: name})
		ok(t, err)
		response, err := watch.Recv()
		ok(t, err)
		equal(t, name, response.Status, want)
	}
}
