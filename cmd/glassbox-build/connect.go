package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/buildkit/client"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/test/bufconn"
)

// link is a client of a builder: of one in this process, or of one that serves at a socket.
type link struct {
	*client.Client
	close func() error
}

func (l *link) Close() error {
	l.Client.Close()
	return l.close()
}

// connect opens the builder in this process, or finds the one that serves. While another process builds it waits: BuildKit's files are for
// one process at a time. waiting is told, once, and its error ends that. A watch sees what is built in this process.
func connect(ctx context.Context, p place, waiting func() error, w *watch) (*link, error) {
	told := false
	if err := os.MkdirAll(p.dir(), 0o700); err != nil {
		return nil, err
	}
	// flock(2) can wait by itself, but not for a socket that appears meanwhile, nor until a context ends.
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		lock, err := p.lock()
		if err == nil {
			return embed(ctx, p, lock, w)
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		if !w.own() {
			if l, err := dial(ctx, p.Socket()); err == nil {
				return l, nil
			}
		}
		if waiting != nil && !told {
			if err := waiting(); err != nil {
				return nil, err
			}
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// lock takes the lock of the builder's root. The kernel gives it back when this process ends in whatever way.
func (p place) lock() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(p.dir(), "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", p.dir(), err)
	}
	return f, nil
}

func dial(ctx context.Context, socket string) (*link, error) {
	// gRPC connects when something is asked, and then waits and tries anew: whether anybody listens has to be known before.
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	conn.Close()
	c, err := client.New(ctx, "unix://"+socket)
	if err != nil {
		return nil, err
	}
	return &link{c, func() error { return nil }}, nil
}

// embed opens the builder in this process.
func embed(ctx context.Context, p place, lock *os.File, w *watch) (*link, error) {
	// The controller outlives the context of a build that is interrupted, to write down what is done.
	b, err := open(context.WithoutCancel(ctx), p, w, false)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return inMemory(ctx, b, b.guard(w.judge()), func() error {
		err := b.Close()
		lock.Close()
		return err
	})
}

// inMemory is a client of a builder that is open in this process, with a guard before it or nil; end is what is to be done at its end.
func inMemory(ctx context.Context, b *builder, g *guard, end func() error) (*link, error) {
	listener := bufconn.Listen(1 << 20)
	server := b.server(nil, g)
	b.controller.Register(server)
	go server.Serve(listener)
	stop := func() error {
		server.Stop()
		listener.Close()
		if end == nil {
			return nil
		}
		return end()
	}
	// An address for the sake of its form: the dialer doesn't look at it.
	c, err := client.New(ctx, "unix:///in-memory", client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return listener.DialContext(ctx)
	}))
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return &link{c, stop}, nil
}
