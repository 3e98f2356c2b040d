package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/moby/buildkit/util/grpcerrors"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"glassbox/build"
)

// serve keeps the builder open at its socket until it is told to end, or nobody has used it for a while. Who has the socket can build,
// which with --allow is as good as root: it is root's alone.
func serve(ctx context.Context, p place, q *build.Serve) (err error) {
	if err := os.MkdirAll(p.dir(), 0o700); err != nil {
		return err
	}
	lock, err := p.lock()
	if errors.Is(err, unix.EWOULDBLOCK) {
		fmt.Fprintln(os.Stderr, "another builder has the files open")
		return exitCode(build.Busy)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	b, err := open(context.WithoutCancel(ctx), p, nil, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := os.MkdirAll(p.State, 0o700); err != nil {
		return err
	}
	listener, err := listen(p.Socket())
	if err != nil {
		return err
	}
	api, err := listen(p.FaceSocket())
	if err != nil {
		listener.Close()
		return err
	}
	use := &inUse{last: time.Now()}
	f := &face{b: b, use: use, jobs: map[job][]*context.CancelFunc{}, end: make(chan struct{}, 1)}
	defer serveFace(f, api)()
	server := b.server(use, nil)
	b.controller.Register(server)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	fmt.Fprintln(os.Stderr, "listening on", p.Socket())
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			// Not gracefully: a build may take hours, and whoever sends SIGTERM doesn't wait.
			server.Stop()
			return nil
		case <-f.end:
			// With somebody's call under way it stays, and ends when that has been idle for its time.
			if use.idle() > 0 {
				server.GracefulStop()
				return nil
			}
		case <-tick.C:
			if q.Idle > 0 && use.idle() >= q.Idle {
				server.GracefulStop()
				return nil
			}
		}
	}
}

// listen takes the place of a socket that a killed builder left; the caller has the lock. The directory of state is root's alone, so that
// nobody comes through before the socket's mode is set.
func listen(name string) (net.Listener, error) {
	os.Remove(name)
	l, err := net.Listen("unix", name)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(name, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// inUse counts the calls that are being answered.
type inUse struct {
	mu    sync.Mutex
	calls int
	last  time.Time
}

func (u *inUse) begin() (end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calls++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.calls--
		u.last = time.Now()
	}
}

// idle is how long there has been no call.
func (u *inUse) idle() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.calls > 0 {
		return 0
	}
	return time.Since(u.last)
}

// server is a server for the controller. use, if not nil, is told of each call; a guard judges each.
func (b *builder) server(use *inUse, g *guard) *grpc.Server {
	begin := func() func() { return func() {} }
	if use != nil {
		begin = use.begin
	}
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		defer begin()()
		return grpcerrors.UnaryServerInterceptor(ctx, req, info, h)
	}
	stream := func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		defer begin()()
		return grpcerrors.StreamServerInterceptor(srv, s, info, h)
	}
	options := []grpc.ServerOption{
		grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(stream),
		// gRPC's own is 4 MB, and the definition of a large build is more: containerd's 16 MB are buildkitd's, too.
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize), grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize),
	}
	if g != nil {
		options = append(options, g.interceptors()...)
	}
	return grpc.NewServer(options...)
}
