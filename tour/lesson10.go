package tour

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/wire"
)

// The addresses of the lesson. Those of the "host" and of the "world" are from blocks for documentation (RFC 5737).
const (
	worldAddress = "198.51.100.2"
	hostAddress  = "198.51.100.1"
	boxAddress   = "172.30.0.2"
	boxGateway   = "172.30.0.1"
	greetPort    = ":7777"
)

// standIn makes the two network namespaces of the lesson: one for the thread that gives it, which stands for the host, and one for
// the world outside; and a cable between them. In both somebody answers who tells callers by which address they came. Neither has a
// name: they are gone with the lesson's thread.
func standIn(s *Stage) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("a network namespace that stands for the host: %w", err)
	}
	type opened struct {
		fd       int
		listener net.Listener
		err      error
	}
	made, wired, done, jobs := make(chan opened), make(chan struct{}), make(chan struct{}), make(chan func())
	s.world = func(f func()) {
		ended := make(chan struct{})
		jobs <- func() { defer close(ended); f() }
		<-ended
	}
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is in the world
		var o opened
		if o.err = unix.Unshare(unix.CLONE_NEWNET); o.err == nil {
			o.fd, o.err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		made <- o
		select {
		case <-wired:
			o.listener, o.err = net.Listen("tcp4", worldAddress+greetPort)
			made <- o
		case <-done:
		}
		for {
			select {
			case job := <-jobs:
				job()
			case <-done:
				return
			}
		}
	}()
	world := <-made
	s.stop = append(s.stop, func() { close(done) })
	if world.err != nil {
		return fmt.Errorf("a network namespace that stands for the world: %w", world.err)
	}
	defer unix.Close(world.fd)
	w := wire.Open(func() (int, error) { return world.fd, nil })
	defer w.Close()
	for _, op := range []plan.Op{
		&plan.LinkBridge{Name: "uplink", Address: hostAddress + "/24"},
		&plan.LinkVeth{Name: "toworld", Peer: "eth0", Bridge: "uplink"},
		&plan.LinkAddress{Link: "lo"},
		&plan.LinkAddress{Link: "eth0", Address: worldAddress + "/24"},
	} {
		if err := w.Do(op); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	here, err := net.Listen("tcp4", ":7777")
	if err != nil {
		return err
	}
	s.stop = append(s.stop, func() { here.Close() })
	close(wired)
	world = <-made
	if world.err != nil {
		return world.err
	}
	s.stop = append(s.stop, func() { world.listener.Close() })
	go greet(here, "the host")
	go greet(world.listener, "the world")
	s.vars["HOST"], s.vars["WORLD"], s.vars["BOX"], s.vars["GATEWAY"] = hostAddress, worldAddress, boxAddress, boxGateway
	return nil
}

// greet tells every caller who answers, and by which address the caller came.
func greet(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		fmt.Fprintf(c, "%s answers: you are %s\n", name, from)
		c.Close()
	}
}

// boxBridge is the lesson's bridge, as glassbox would make it.
func boxBridge() network.Network {
	return network.Network{
		Name: "box", Driver: network.Bridge, Link: "box0", Opened: []string{"uplink"},
		Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("172.30.0.0/24"), Gateway: netip.MustParseAddr(boxGateway)}},
	}
}

// published is the port of the host by which the world reaches the box.
func published() []container.Port {
	return []container.Port{{Proto: "tcp", HostPort: 8080, ContainerPort: 80}}
}

func networks() Lesson {
	// The steps are those of every container of glassbox (network.Steps). match chooses some of them.
	wired := func(s *Stage, ports []container.Port, match func(plan.Op) bool) *plan.Plan {
		e := network.Endpoint{Interface: network.InterfaceName(0), IP: netip.MustParseAddr(boxAddress), Link: "tobox", Ports: ports}
		var after []plan.Step
		steps, _ := network.Steps(boxBridge(), e, func(string) string { return "" }) // the driver is known
		for _, st := range steps {
			if match(st.Op) {
				after = append(after, st)
			}
		}
		if len(after) > 0 {
			after = append(after, plan.Step{Lane: plan.Host, Phase: plan.Network, Op: &plan.Release{Name: "network"}, Origin: always})
		}
		body := folded(s.newRoot())
		if len(after) > 0 {
			body = append(body, plumbing(&plan.Await{Name: "network"}))
		}
		return s.plan(recipe{
			namespaces: []string{"mount", "pid", "net"},
			why:        "The child's network namespace is new and empty; mounts and process IDs are its own as in the lessons before.", after: after,
			body: body,
		})
	}
	const (
		show     = "glassbox tour --inside net"
		ask      = "glassbox tour --inside ask "
		showHost = "{GLASSBOX} tour --inside net"
	)
	return Lesson{
		Name: "network", Title: "A network by hand: a cable, a switch, a translator", Minutes: 8,
		Shows: "From a network namespace with nothing in it to an answer from the world, step by step.",
		Intro: `A new network namespace is a machine without a network card. This lesson gives it one: a cable (veth), a switch (bridge), an address, a route, and a firewall rule that translates addresses on the way out (NAT).

So that nothing of your machine changes, the part of the host is played by a network namespace of its own, and so is that of the world outside. The host's address towards the world is 198.51.100.1, the world is 198.51.100.2. In both places somebody listens and tells every caller by which address he came.`,
		Needs: func(s *Stage) string {
			if need := needRoot("an ordinary user may not wire the host's side of a network")(s); need != "" {
				return need
			}
			if err := standIn(s); err != nil {
				return "a kernel with network namespaces, bridge and veth: " + err.Error()
			}
			return ""
		},
		Scenes: []Scene{
			{
				Title: "Nothing",
				Text:  `A box with a network namespace, and no more.`,
				Plan:  func(s *Stage) (*plan.Plan, error) { return wired(s, nil, func(plan.Op) bool { return false }), nil },
				Question: &Question{
					Ask: "The box calls the world. What is the answer?",
					Choices: []string{
						"none; it waits until it gives up", "an error at once: network is unreachable",
						"the world's: namespaces share the way out",
					}, Answer: 1,
				},
				Looks: []Look{
					{
						Say: "Devices with their addresses, and the default route, as ip address and ip route would show them:", Inside: show,
						Outside: showHost, Want: all(inHas("lo"), inLacks("eth0"), outHas("uplink", "{HOST}")),
					},
					{
						Inside: ask + "{WORLD}:7777", Outside: "{GLASSBOX} tour --inside ask {WORLD}:7777",
						Want: all(inHas("unreachable"), outHas("you are {HOST}")),
					},
				},
				Because: `Where there is no route, the kernel doesn't even try.`,
			},
			{
				Title: "A cable and a switch",
				Text: `A veth device is a cable with two plugs: what goes in at one end comes out at the other. One end is put into the box, ` +
					`the other into a bridge, which is a switch inside the kernel, on which the host has an address, too.`,
				Plan: func(s *Stage) (*plan.Plan, error) {
					return wired(s, nil, func(op plan.Op) bool {
						return kind[*plan.LinkBridge](op) || kind[*plan.LinkVeth](op) || kind[*plan.LinkAddress](op)
					}), nil
				},
				Question: &Question{
					Ask:     "Whom can the box reach now?",
					Choices: []string{"nobody", "the host, by its address on the bridge, but not the world", "both"}, Answer: 1,
				},
				Looks: []Look{
					{Inside: show, Outside: showHost, Want: all(inHas("eth0", "{BOX}"), outHas("box0", "tobox", "{GATEWAY}"))},
					{Inside: ask + "{GATEWAY}:7777", Want: inHas("the host answers: you are {BOX}")},
					{Inside: ask + "{WORLD}:7777", Want: inHas("unreachable")},
				},
				Because: `172.30.0.1 is in the box's own subnet, on the same switch. For any other address it would have to know who passes ` +
					`packets on.`,
				Break: &Break{
					Text:    `Without the cable: the plan can't give an address to a device that isn't there.`,
					Change:  without(kind[*plan.LinkVeth]),
					Fails:   "eth0",
					Because: `The error names the step. Nothing of the plan is left.`,
				},
			},
			{
				Title: "Out into the world",
				Text: `The rest of what every container gets: a default route, by which everything that isn't in the subnet goes to the ` +
					`host; forwarding, by which the host passes it on; and a table of firewall rules, one of which is called masquerade.`,
				Plan: func(s *Stage) (*plan.Plan, error) { return wired(s, nil, func(plan.Op) bool { return true }), nil },
				Question: &Question{
					Ask:     "The world answers. By which address did the caller come?",
					Choices: []string{"172.30.0.2, the box's", "198.51.100.1, the host's", "172.30.0.1, the bridge's"}, Answer: 1,
				},
				Looks: []Look{
					{Inside: show, Want: inHas("default via {GATEWAY}")},
					{Inside: ask + "{WORLD}:7777", Want: inHas("the world answers: you are {HOST}")},
					{Say: "The host itself still sees the box as it is:", Inside: ask + "{GATEWAY}:7777", Want: inHas("you are {BOX}")},
				},
				Because: `The world has no route to 172.30.0.0/24, a private network like a thousand others. So the host puts its own address ` +
					`on packets that leave, remembers the connection, and puts the box's address back on the answers (nft(8), "masquerade").`,
				Break: &Break{
					Text: `The same plan without the one rule that translates what leaves.`,
					Change: changed(func(o *plan.NftBridge) {
						o.Rules = slices.DeleteFunc(slices.Clone(o.Rules), func(r string) bool {
							// Without the rule that names their version, the rules are made anew.
							return strings.Contains(r, "oifname !=") && strings.HasSuffix(r, "masquerade") || strings.Contains(r, " accept comment ")
						})
					}),
					Looks: []Look{
						{Inside: ask + "{GATEWAY}:7777", Want: inHas("you are {BOX}")},
						{Inside: ask + "{WORLD}:7777", Want: all(inHas("no answer"), inLacks("answers"))},
					},
					Because: `The packet did arrive. But it came from 172.30.0.2, and the world doesn't know where that is: the answer has no way back.`,
				},
			},
			{
				Title: "In from the world",
				Text: `The other direction. In the box a server listens on port 80. One more step publishes it: port 8080 of the host is to ` +
					`lead there. What is called the world below is a command that runs in the world's network namespace.`,
				Plan: func(s *Stage) (*plan.Plan, error) {
					p := wired(s, published(), func(plan.Op) bool { return true })
					for i := range p.Steps { // the scene before has told of the others
						if st := &p.Steps[i]; st.Phase == plan.Network && !kind[*plan.NftPublish](st.Op) {
							st.Origin = always
						}
					}
					return p, nil
				},
				Question: &Question{
					Ask:     "Which process of the host takes the connection and hands it on?",
					Choices: []string{"glassbox", "one that was started for this port", "none"}, Answer: 2,
				},
				Looks: []Look{
					{Inside: "glassbox tour --inside serve 80 &\nuntil glassbox tour --inside ask 127.0.0.1:80 >/dev/null; do :; done; echo it " +
						"listens", Want: inIs("it listens")},
					{Outside: "{GLASSBOX} tour --inside ask {HOST}:8080", World: true, Want: outIs("the box answers: you are {WORLD}")},
				},
				Because: `The kernel does it: a rule looks the port up in a map and replaces the destination of the connection's packets. The ` +
					`server sees the caller's own address.`,
				Break: &Break{
					Text:   `Without that step.`,
					Change: without(kind[*plan.NftPublish]),
					Looks: []Look{
						{Inside: "glassbox tour --inside serve 80 &\nuntil glassbox tour --inside ask 127.0.0.1:80 >/dev/null; do :; done; echo it " +
							"listens", Want: inIs("it listens")},
						{Outside: "{GLASSBOX} tour --inside ask {HOST}:8080", World: true, Want: outHas("refused")},
					},
					Because: `The server runs as before, and nobody outside knows the way: on port 8080 of the host nobody listens.`,
				},
			},
		},
		Remember: `A container's network is a cable into a switch of the host, an address, a route, a rule that translates what leaves, ` +
			`and an entry in a map for each published port.`,
		Read: "veth(4), network_namespaces(7), ip-link(8), nft(8); docs/networking.md follows a packet through all of it.",
	}
}
