// A client program: each step uses a part of etcd's API through the Go client and prints a line.
//
// The same source is built with three versions of the client: go.mod has the newest, and the
// other .mod files an older one each. The contract is that of all programs in this folder's
// parent, see ../README.md.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc"
)

var (
	caFile   = flag.String("cacert", "", "certificate authority of the server")
	certFile = flag.String("cert", "", "client certificate")
	keyFile  = flag.String("key", "", "key of the client certificate")
	user     = flag.String("user", "", "user")
	password = flag.String("password", "", "password of the user")
)

// authority is the value of :authority instead of the client's own.
var authority = os.Getenv("CLIENT_AUTHORITY")

// program has two connections: most steps need a second writer or a second waiter.
type program struct {
	ctx           context.Context
	client, other *clientv3.Client
	prefix        string
}

func main() {
	endpoint := os.Args[1]
	if err := flag.CommandLine.Parse(os.Args[2:]); err != nil {
		os.Exit(2)
	}
	if err := run(endpoint); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(endpoint string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	config, err := config(endpoint)
	if err != nil {
		return err
	}
	p := &program{ctx: ctx, prefix: fmt.Sprintf("clients/go-%d/", os.Getpid())}
	for _, client := range []**clientv3.Client{&p.client, &p.other} {
		if *client, err = clientv3.New(config); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		defer (*client).Close()
	}
	type step struct {
		name string
		run  func() error
	}
	steps := []step{
		{"put", p.put},
		{"get", p.get},
		{"txn", p.txn},
		{"watch", p.watch},
		{"watch resume", p.watchResume},
		{"watch cancel", p.watchCancel},
		{"lease", p.lease},
		{"lease expiry", p.leaseExpiry},
		{"lock", p.lock},
	}
	if *user != "" {
		auth := func() error { return p.auth(config) }
		steps = append(steps, step{"auth", auth})
	}
	for _, step := range steps {
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Println(step.name, "ok")
	}
	return nil
}

func config(endpoint string) (clientv3.Config, error) {
	config := clientv3.Config{
		Endpoints:   []string{endpoint},
		DialTimeout: 10 * time.Second,
		Username:    *user,
		Password:    *password,
	}
	if *caFile == "" {
		if authority != "" {
			config.DialOptions = []grpc.DialOption{grpc.WithAuthority(authority)}
		}
		return config, nil
	}
	pem, err := os.ReadFile(*caFile)
	if err != nil {
		return config, err
	}
	// grpc-go sends the ServerName, if there is one, as :authority.
	config.TLS = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: authority}
	config.TLS.RootCAs.AppendCertsFromPEM(pem)
	if *certFile != "" {
		pair, err := tls.LoadX509KeyPair(*certFile, *keyFile)
		if err != nil {
			return config, err
		}
		config.TLS.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func (p *program) put() error {
	put, err := p.client.Put(p.ctx, p.prefix+"key", "value")
	if err == nil && put.Header.Revision == 0 {
		err = errors.New("no revision")
	}
	return err
}

func (p *program) get() error {
	for _, option := range []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSerializable()} {
		get, err := p.client.Get(p.ctx, p.prefix+"key", option)
		if err != nil {
			return err
		}
		if len(get.Kvs) != 1 || string(get.Kvs[0].Value) != "value" {
			return fmt.Errorf("received %v", get)
		}
	}
	return nil
}

func (p *program) txn() error {
	key := p.prefix + "key"
	for _, expected := range []bool{true, false} {
		txn, err := p.client.Txn(p.ctx).
			If(clientv3.Compare(clientv3.Value(key), "=", "value")).
			Then(clientv3.OpPut(key, "changed")).
			Else(clientv3.OpGet(key)).
			Commit()
		if err != nil {
			return err
		}
		if txn.Succeeded != expected {
			return fmt.Errorf("succeeded: %v", txn.Succeeded)
		}
		if !expected && !bytes.Equal(txn.Responses[0].GetResponseRange().Kvs[0].Value, []byte("changed")) {
			return fmt.Errorf("received %v", txn)
		}
	}
	return nil
}

// watch receives the events of another client, in order.
func (p *program) watch() error {
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	created := clientv3.WithCreatedNotify()
	events := p.client.Watch(ctx, p.prefix+"watch/", clientv3.WithPrefix(), clientv3.WithPrevKV(), created)
	if first := <-events; !first.Created {
		return fmt.Errorf("not created: %v", first)
	}
	if err := p.writeEvents(); err != nil {
		return err
	}
	return expect(events, "PUT a=1 PUT b=2 DELETE a")
}

func (p *program) writeEvents() error {
	key := p.prefix + "watch/"
	if _, err := p.other.Put(p.ctx, key+"a", "1"); err != nil {
		return err
	}
	if _, err := p.other.Put(p.ctx, key+"b", "2"); err != nil {
		return err
	}
	_, err := p.other.Delete(p.ctx, key+"a")
	return err
}

// watchResume starts at a revision of the past, as a client does after a lost connection.
func (p *program) watchResume() error {
	get, err := p.client.Get(p.ctx, p.prefix+"watch/b")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	from := clientv3.WithRev(get.Kvs[0].ModRevision)
	events := p.client.Watch(ctx, p.prefix+"watch/", clientv3.WithPrefix(), from)
	return expect(events, "PUT b=2 DELETE a")
}

// watchCancel cancels one of two watches on a stream. The other one goes on.
func (p *program) watchCancel() error {
	key := p.prefix + "cancel"
	ctx, cancel := context.WithCancel(p.ctx)
	cancelled := p.client.Watch(ctx, key, clientv3.WithCreatedNotify())
	stays := p.client.Watch(p.ctx, key, clientv3.WithCreatedNotify())
	<-cancelled
	<-stays
	cancel()
	for range cancelled {
	}
	if _, err := p.other.Put(p.ctx, key, "1"); err != nil {
		return err
	}
	return expect(stays, "PUT cancel=1")
}

func (p *program) lease() error {
	grant, err := p.client.Grant(p.ctx, 5)
	if err != nil {
		return err
	}
	key := p.prefix + "leased"
	if _, err := p.client.Put(p.ctx, key, "1", clientv3.WithLease(grant.ID)); err != nil {
		return err
	}
	// The client sends the first heartbeat at once and the next after a third of the TTL.
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	responses, err := p.client.KeepAlive(ctx, grant.ID)
	if err != nil {
		return err
	}
	for range 2 {
		if response := <-responses; response == nil || response.TTL != 5 {
			return fmt.Errorf("heartbeat: %v", response)
		}
	}
	left, err := p.client.TimeToLive(p.ctx, grant.ID, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	if left.GrantedTTL != 5 || len(left.Keys) != 1 {
		return fmt.Errorf("time to live: %v", left)
	}
	if _, err := p.client.Revoke(p.ctx, grant.ID); err != nil {
		return err
	}
	return p.expectCount(key, 0)
}

// leaseExpiry sends no heartbeat, so etcd deletes the key.
func (p *program) leaseExpiry() error {
	grant, err := p.client.Grant(p.ctx, 1)
	if err != nil {
		return err
	}
	key := p.prefix + "expires"
	events := p.client.Watch(p.ctx, key)
	if _, err := p.client.Put(p.ctx, key, "1", clientv3.WithLease(grant.ID)); err != nil {
		return err
	}
	if err := expect(events, "PUT expires=1 DELETE expires"); err != nil {
		return err
	}
	return p.expectCount(key, 0)
}

// lock is handed over from one client to another one that waits.
func (p *program) lock() error {
	var mutexes [2]*concurrency.Mutex
	for i, client := range []*clientv3.Client{p.client, p.other} {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
		if err != nil {
			return err
		}
		defer session.Close()
		mutexes[i] = concurrency.NewMutex(session, p.prefix+"lock")
	}
	if err := mutexes[0].Lock(p.ctx); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- mutexes[1].Lock(p.ctx) }()
	select {
	case err := <-done:
		return fmt.Errorf("both clients have the lock: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if err := mutexes[0].Unlock(p.ctx); err != nil {
		return err
	}
	if err := <-done; err != nil {
		return err
	}
	return mutexes[1].Unlock(p.ctx)
}

// auth is refused for another user's key and for a wrong password.
func (p *program) auth(config clientv3.Config) error {
	_, err := p.client.Get(p.ctx, "forbidden")
	if !errors.Is(err, rpctypes.ErrPermissionDenied) {
		return fmt.Errorf("another user's key: %v", err)
	}
	config.Password = "wrong"
	client, err := clientv3.New(config)
	if err == nil {
		client.Close()
		return errors.New("a wrong password is accepted")
	}
	if !errors.Is(err, rpctypes.ErrAuthFailed) {
		return fmt.Errorf("a wrong password: %w", err)
	}
	return nil
}

func (p *program) expectCount(key string, count int64) error {
	get, err := p.client.Get(p.ctx, key)
	if err == nil && get.Count != count {
		err = fmt.Errorf("%s: %d keys", key, get.Count)
	}
	return err
}

// expect receives events until their number is right, and compares them.
func expect(events clientv3.WatchChan, expected string) error {
	var received []string
	missing := strings.Count(expected, "PUT") + strings.Count(expected, "DELETE")
	for missing > 0 {
		select {
		case response, open := <-events:
			if !open || response.Err() != nil {
				return fmt.Errorf("the watch ended: %v", response.Err())
			}
			for _, event := range response.Events {
				key := string(event.Kv.Key)
				text := fmt.Sprint(event.Type, " ", key[strings.LastIndex(key, "/")+1:])
				if event.Type == clientv3.EventTypePut {
					text += "=" + string(event.Kv.Value)
				}
				received = append(received, text)
				missing--
			}
		case <-time.After(20 * time.Second):
			return fmt.Errorf("no event after %q", received)
		}
	}
	if got := strings.Join(received, " "); got != expected {
		return fmt.Errorf("received %q instead of %q", got, expected)
	}
	return nil
}
