// Command glassbox-api serves the Docker Engine API. `glassbox serve` starts it. Everything is in package api.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"glassbox/api"
	"glassbox/build"
	"glassbox/engine"
	"glassbox/policy"
)

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// run serves as the arguments say: those of `glassbox serve`, whose help is there, too.
func run(args []string) error {
	var root, state, runtime, policyFile, policyLog string
	var insecure []string
	var o api.ListenOptions
	var debug, quiet bool
	fs := pflag.NewFlagSet("glassbox-api", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&root, "root", "/var/lib/glassbox", "")
	fs.StringVar(&state, "state", "/run/glassbox", "")
	fs.StringVar(&runtime, "runtime", "", "")
	fs.BoolVar(&debug, "debug", false, "")
	fs.BoolVar(&quiet, "quiet", false, "") // where it listens is known to whoever started it
	fs.StringArrayVarP(&o.Hosts, "host", "H", nil, "")
	fs.StringVar(&o.Group, "group", "", "")
	fs.StringVar(&o.CA, "tlscacert", "", "")
	fs.StringVar(&o.Cert, "tlscert", "", "")
	fs.StringVar(&o.Key, "tlskey", "", "")
	fs.DurationVar(&o.Idle, "idle", -1, "")
	fs.StringVar(&policyFile, "policy", "", "")
	fs.StringVar(&policyLog, "policy-log", "", "")
	fs.StringArrayVar(&insecure, "insecure-registry", nil, "")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			fmt.Println("glassbox-api serves the Docker Engine API: see glassbox serve --help")
		}
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: see glassbox serve --help", fs.Arg(0))
	}
	if policyFile != "" && len(o.Hosts) == 0 {
		return errors.New("--policy: give the socket that it is for: -H unix://PATH")
	}
	if len(o.Hosts) == 0 {
		o.Hosts = []string{"unix://" + strings.TrimSuffix(state, "/") + ".sock"}
	}
	if o.Idle < 0 {
		o.Idle = 0
		if len(o.Hosts) == 1 && o.Hosts[0] == "fd://" {
			o.Idle = time.Minute // systemd starts it again when somebody comes
		}
	}
	if runtime == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		runtime = filepath.Join(filepath.Dir(self), "glassbox-runtime")
	}
	c := api.Config{Insecure: insecure}
	if policyFile != "" {
		text, err := os.ReadFile(policyFile)
		if err != nil {
			return err
		}
		if c.Policy, err = policy.Parse(text); err != nil {
			return fmt.Errorf("%s: %w", policyFile, err)
		}
		c.Decisions = os.Stderr
		if policyLog != "" {
			f, err := os.OpenFile(policyLog, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
			if err != nil {
				return err
			}
			defer f.Close()
			c.Decisions = f
		}
	}
	var err error
	if c.Engine, err = engine.Open(engine.Config{Root: root, State: state, Runtime: runtime, Remember: true}); err != nil {
		return err
	}
	level := slog.LevelWarn
	if debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if !quiet {
		o.Ready = func(addresses []string) {
			for _, a := range addresses {
				fmt.Fprintln(os.Stderr, "listening on "+a)
			}
		}
	}
	c.Log = log
	if b := builder(root, state, runtime); b != nil {
		c.Builder = b
		defer b.End()
	}
	return api.New(c).Serve(ctx, o)
}

// builderIdle is for how long a builder stays that nobody uses: to be started again costs it half a second.
const builderIdle = "15s"

// builder starts `glassbox builder serve` when somebody builds. Nil: this installation has no builder.
func builder(root, state, runtime string) *api.Builder {
	glassbox := filepath.Join(filepath.Dir(runtime), "glassbox")
	for _, program := range []string{glassbox, filepath.Join(filepath.Dir(runtime), "glassbox-build")} {
		if _, err := os.Stat(program); err != nil {
			return nil
		}
	}
	place := build.Place{Root: root, State: state}
	return &api.Builder{
		Socket: place.FaceSocket(), Cache: place.Dir(),
		Command: []string{
			glassbox, "--root", root, "--state", state, "--runtime", runtime, "builder", "serve", "--idle", builderIdle,
		},
	}
}
