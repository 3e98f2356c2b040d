package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Rows of networks: names, throughput, connections, and what it costs to join. Podman isn't measured: a start of its takes too long.
//
// The machine's network namespace "outside" stands for the rest of the world. What asks and answers runs in the containers' network
// namespaces, and not as their programs: each engine is measured by the same processes.

const (
	hostIP  = "198.51.100.1" // as the machine's namespace "outside" knows it
	seconds = 3              // of each flow
)

// networks measures them all. dnsmasq, if it is there, answers as many names as the containers' resolvers do.
func (b *bencher) networks(engines []engine, runs, joins int) (string, error) {
	engines = slices.DeleteFunc(slices.Clone(engines), func(e engine) bool { return !strings.Contains(idleEngines, e.name) })
	asks, err := b.program("asks", asksSource)
	if err != nil {
		return "", err
	}
	connects, err := b.program("connects", connectsSource)
	if err != nil {
		return "", err
	}
	var t table
	verb := func(args ...string) func(engine) []string { return func(e engine) []string { return e.verb(args...) } }
	create, rm := verb("network", "create", "passing"), verb("network", "rm", "passing")
	if err := b.turn(engines, &t, "`network create`, ms", runs, create, nil, rm); err != nil {
		return "", err
	}
	if err := b.turn(engines, &t, "`network rm`, ms", runs, rm, create); err != nil {
		return "", err
	}
	if err := b.flows(engines, asks, connects, &t); err != nil {
		return "", err
	}
	if err := b.turn(engines, &t, "`run --rm --network NET IMAGE true` with names, ms", runs,
		verb("run", "--rm", "--network", "bench", image, "true"), nil); err != nil {
		return "", err
	}
	for _, e := range engines {
		if err := b.joins(e, joins, &t); err != nil {
			return "", err
		}
	}
	if err := b.dnsmasq(asks, &t); err != nil {
		return "", err
	}
	return tabulate(append(engines, engine{name: "dnsmasq"}), t), nil
}

// inside is a command in a container's network namespace.
func inside(pid int, argv ...string) []string {
	return append([]string{"nsenter", "-n", "-t", strconv.Itoa(pid)}, argv...)
}

// couple is two containers of an engine on one network.
type couple struct {
	e        engine
	pids     map[string]int // of near and far
	address  string         // of near
	port     string         // of the host, at which near's iperf3 is published
	connects string         // the same of the server of connections
}

// flows measures what goes between two containers of an engine's network, and into them from outside: the engines in turn, so that all of
// them have the same machine.
func (b *bencher) flows(engines []engine, asks, connects string, t *table) error {
	fmt.Fprintln(os.Stderr, "bench: packets")
	var couples []couple
	for i, e := range engines {
		c, err := b.couple(e, i, connects, t)
		if err != nil {
			return err
		}
		couples = append(couples, c)
	}
	time.Sleep(time.Second)
	for range 5 {
		for _, c := range couples {
			if err := b.carries(c, asks, connects, t); err != nil {
				return err
			}
		}
	}
	for _, c := range couples {
		if _, err := b.must(c.e.verb("rm", "-f", "near", "far")...); err != nil {
			return err
		}
	}
	return nil
}

// couple starts two containers, with servers in the first one's namespace.
func (b *bencher) couple(e engine, i int, connects string, t *table) (couple, error) {
	c := couple{e: e, pids: map[string]int{}, port: strconv.Itoa(5201 + i), connects: strconv.Itoa(5301 + i)}
	if _, err := b.must(e.verb("network", "create", "bench")...); err != nil {
		return c, err
	}
	before := b.resident()
	for name, flags := range map[string][]string{"near": {"-p", c.port + ":5201", "-p", c.connects + ":5301"}, "far": nil} {
		args := append([]string{"run", "-d", "--name", name, "--network", "bench"}, flags...)
		if _, err := b.must(e.verb(append(args, image, "sleep", "3600")...)...); err != nil {
			return c, err
		}
		res, err := b.must(e.verb("inspect", "-f", "{{.State.Pid}} {{.NetworkSettings.Networks.bench.IPAddress}}", name)...)
		if err != nil {
			return c, err
		}
		f := strings.Fields(res.Stdout)
		if c.pids[name], err = strconv.Atoi(f[0]); err != nil {
			return c, err
		}
		if name == "near" {
			c.address = f[1]
		}
	}
	time.Sleep(time.Second)
	pss, n := 0, 0
	for pid, comm := range b.resident() {
		if _, was := before[pid]; !was && strings.HasPrefix(e.resides, comm) {
			pss += b.pss(pid)
			n++
		}
	}
	t.add("resident supervisor of a container with names, PSS, MB", e.name, float64(pss)/1000/float64(max(n, 1)))
	for _, argv := range [][]string{{"iperf3", "-s"}, {connects, "serve", "5301"}} {
		if _, err := b.m.Go(inside(c.pids["near"], argv...), b.env, "/", nil); err != nil {
			return c, err
		}
	}
	return c, nil
}

// carries measures one couple once.
func (b *bencher) carries(c couple, asks, connects string, t *table) error {
	outside := []string{"ip", "netns", "exec", "outside"}
	rate, err := b.iperf(inside(c.pids["far"], "iperf3", "-c", c.address)...)
	if err != nil {
		return err
	}
	t.add("container to container, Gbit/s (more is better)", c.e.name, rate)
	if rate, err = b.iperf(append(outside, "iperf3", "-c", hostIP, "-p", c.port)...); err != nil {
		return err
	}
	t.add("from outside through a published port, Gbit/s (more is better)", c.e.name, rate)
	res, err := b.must(append(outside, connects, hostIP+":"+c.connects, strconv.Itoa(seconds))...)
	if err != nil {
		return err
	}
	t.add("connections a second through a published port (more is better)", c.e.name, number(res.Stdout))
	if res, err = b.must(inside(c.pids["far"], asks, "127.0.0.11:53", "near", "8", "0", strconv.Itoa(seconds))...); err != nil {
		return err
	}
	t.add("names answered a second (more is better)", c.e.name, number(res.Stdout))
	return b.neighbour(c.e, c.pids, asks, t)
}

// neighbour measures one container's answers, one question at a time, without another one that asks 5,000 a second, and with it.
func (b *bencher) neighbour(e engine, pids map[string]int, asks string, t *table) error {
	one := func() (float64, error) {
		res, err := b.must(inside(pids["far"], asks, "127.0.0.11:53", "near", "1", "500", strconv.Itoa(seconds))...)
		return number(res.Stderr), err
	}
	alone, err := one()
	if err != nil {
		return err
	}
	job, err := b.m.Go(inside(pids["near"], asks, "127.0.0.11:53", "far", "4", "5000", strconv.Itoa(seconds+2)), b.env, "/", nil)
	if err != nil {
		return err
	}
	beside, err := one()
	if err != nil {
		return err
	}
	if _, err := job.Finish(time.Minute); err != nil {
		return err
	}
	t.add("an answer takes longer beside a neighbour's 5,000 questions a second, %", e.name, (beside/alone-1)*100)
	return nil
}

// iperf is a flow's rate, as it arrives.
func (b *bencher) iperf(argv ...string) (float64, error) {
	res, err := b.must(append(argv, "-J", "-t", strconv.Itoa(seconds))...)
	if err != nil {
		return 0, err
	}
	var out struct {
		End struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(res.Stdout), &out); err != nil {
		return 0, err
	}
	return out.End.Received.Bits / 1e9, nil
}

func number(text string) float64 {
	n, _ := strconv.ParseFloat(strings.TrimSpace(text), 64)
	return n
}

// joins starts many containers on one network: the last must not cost more than the first.
func (b *bencher) joins(e engine, n int, t *table) error {
	fmt.Fprintln(os.Stderr, "bench:", n, "containers of", e.name, "on one network")
	took := make([]float64, 0, n)
	var ids []string
	for range n {
		res, err := b.must(e.verb("run", "-d", "--network", "bench", image, "sleep", "86400")...)
		if err != nil {
			return err
		}
		took = append(took, milliseconds(res))
		ids = append(ids, strings.TrimSpace(res.Stdout))
	}
	part := max(n/10, 1)
	t.add(fmt.Sprintf("`run -d` of the first tenth of %d on one network, ms each", n), e.name, median(took[:part]))
	t.add(fmt.Sprintf("`run -d` of the last tenth of %d on one network, ms each", n), e.name, median(took[n-part:]))
	_, err := b.within(20*time.Minute, e.verb(append([]string{"rm", "-f"}, ids...)...)...)
	if err != nil {
		return err
	}
	// Docker lets go of the last endpoints after rm has answered, and sometimes never: its network goes with the machine, then.
	for range 60 {
		if _, err = b.must(e.verb("network", "rm", "bench")...); err == nil {
			return nil
		}
		time.Sleep(time.Second)
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	return nil
}

// dnsmasq answers the same question from a file.
func (b *bencher) dnsmasq(asks string, t *table) error {
	hosts := filepath.Join(b.work, "hosts")
	if err := os.WriteFile(hosts, []byte("10.0.0.1 near\n"), 0o644); err != nil {
		return err
	}
	if err := b.serve("dnsmasq", "-k", "-p", "5353", "-h", "-R", "-H", hosts, "-a", "127.0.0.1", "-z", "-u", "root"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: no dnsmasq:", err)
		return nil
	}
	for range 3 {
		res, err := b.must(asks, "127.0.0.1:5353", "near", "8", "0", strconv.Itoa(seconds))
		if err != nil {
			return err
		}
		t.add("names answered a second (more is better)", "dnsmasq", number(res.Stdout))
	}
	return nil
}

// asksSource asks a name server for a name's address by UDP: asks SERVER NAME AT-ONCE RATE SECONDS. It prints answers a second, and on
// stderr the median of microseconds that an answer took. RATE is questions a second of all together; 0: as many as can be.
const asksSource = `package main

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

func main() {
	atOnce, _ := strconv.Atoi(os.Args[3])
	rate, _ := strconv.Atoi(os.Args[4])
	seconds, _ := strconv.Atoi(os.Args[5])
	name := os.Args[2]
	query := []byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, byte(len(name))}
	query = append(append(query, name...), 0, 0, 1, 0, 1)
	begin := time.Now()
	end := begin.Add(time.Duration(seconds) * time.Second)
	var mu sync.Mutex
	var all []time.Duration
	var wait sync.WaitGroup
	for i := range atOnce {
		wait.Add(1)
		go func() {
			defer wait.Done()
			c, err := net.Dial("udp", os.Args[1])
			if err != nil {
				panic(err)
			}
			q, b := slices.Clone(query), make([]byte, 512)
			var took []time.Duration
			for n := 0; time.Now().Before(end); n++ {
				if rate > 0 {
					time.Sleep(time.Until(begin.Add(time.Duration(n*atOnce+i) * time.Second / time.Duration(rate))))
				}
				q[0], q[1] = byte(n>>8), byte(n)
				asked := time.Now()
				c.SetDeadline(asked.Add(5 * time.Second))
				if _, err := c.Write(q); err != nil {
					panic(err)
				}
				for {
					size, err := c.Read(b)
					if err != nil {
						panic(err)
					}
					if size > 12 && b[0] == q[0] && b[1] == q[1] {
						if b[3]&15 != 0 || b[7] == 0 {
							panic("no answer to the question")
						}
						break
					}
				}
				took = append(took, time.Since(asked))
			}
			mu.Lock()
			all = append(all, took...)
			mu.Unlock()
		}()
	}
	wait.Wait()
	slices.Sort(all)
	fmt.Println(float64(len(all)) / time.Since(begin).Seconds())
	fmt.Fprintln(os.Stderr, float64(all[len(all)/2].Nanoseconds())/1000)
}
`

// connectsSource connects to a server, again and again, each time for one byte: connects ADDRESS SECONDS, or connects serve PORT.
const connectsSource = `package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	if os.Args[1] == "serve" {
		l, err := net.Listen("tcp", ":"+os.Args[2])
		if err != nil {
			panic(err)
		}
		for {
			c, err := l.Accept()
			if err != nil {
				panic(err)
			}
			c.Write([]byte{1})
			c.(*net.TCPConn).SetLinger(0)
			b := make([]byte, 1)
			go func() { c.Read(b); c.Close() }()
		}
	}
	seconds, _ := strconv.Atoi(os.Args[2])
	begin := time.Now()
	end := begin.Add(time.Duration(seconds) * time.Second)
	var n atomic.Int64
	var wait sync.WaitGroup
	for range 8 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			b := make([]byte, 1)
			for time.Now().Before(end) {
				c, err := net.Dial("tcp", os.Args[1])
				if err != nil {
					panic(err)
				}
				if _, err := c.Read(b); err != nil {
					panic(err)
				}
				c.(*net.TCPConn).SetLinger(0) // no port is kept for a minute
				c.Close()
				n.Add(1)
			}
		}()
	}
	wait.Wait()
	fmt.Println(float64(n.Load()) / time.Since(begin).Seconds())
}
`
