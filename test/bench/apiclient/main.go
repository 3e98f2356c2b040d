// Apiclient speaks Docker's API as a program does, over one connection that is kept, and measures: it is no part of either engine.
//
//	apiclient SOCKET list N                  the list of running containers, N times; prints the median in milliseconds
//	apiclient SOCKET start N IMAGE           creates and starts N containers of /bin/true, one after the other; prints the median of both
//	apiclient SOCKET follow N CONTAINER END  follows a container's log and the events, N connections each; see follow
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// version is the newest that the oldest of the servers that are compared speaks.
const version = "http://docker/v1.41"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "apiclient:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("want SOCKET VERB N …")
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	c := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", args[0])
		},
	}}
	switch verb := args[1]; {
	case verb == "list":
		return list(c, n)
	case verb == "start" && len(args) == 4:
		return start(c, n, args[3])
	case verb == "follow" && len(args) == 5:
		return follow(c, n, args[3], args[4])
	}
	return fmt.Errorf("unknown: %s", strings.Join(args[1:], " "))
}

// ask sends a request and reads its answer to the end.
func ask(c *http.Client, method, path, body string, want int) ([]byte, error) {
	r, err := http.NewRequestWithContext(context.Background(), method, version+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != want {
		err = fmt.Errorf("%s %s: status %d: %s", method, path, resp.StatusCode, text)
	}
	return text, err
}

// median prints the middle one of durations in milliseconds.
func median(all []time.Duration) error {
	slices.Sort(all)
	_, err := fmt.Println(float64(all[len(all)/2].Microseconds()) / 1000)
	return err
}

func list(c *http.Client, n int) error {
	var took []time.Duration
	for i := range n + 2 {
		begin := time.Now()
		text, err := ask(c, "GET", "/containers/json", "", 200)
		if err != nil {
			return err
		}
		if i >= 2 {
			took = append(took, time.Since(begin))
		}
		var all []struct{ State string }
		if err := json.Unmarshal(text, &all); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, len(all), "containers")
	}
	return median(took)
}

func start(c *http.Client, n int, image string) error {
	var took []time.Duration
	for i := range n + 2 {
		begin := time.Now()
		id, err := create(c, image)
		if err == nil {
			_, err = ask(c, "POST", "/containers/"+id+"/start", "", 204)
		}
		if err != nil {
			return err
		}
		if i >= 2 {
			took = append(took, time.Since(begin))
		}
		if _, err := ask(c, "DELETE", "/containers/"+id+"?force=1", "", 204); err != nil {
			return err
		}
	}
	return median(took)
}

func create(c *http.Client, image string) (id string, err error) {
	text, err := ask(c, "POST", "/containers/create", `{"Image":"`+image+`","Cmd":["sleep","1000"]}`, 201)
	var created struct{ ID string }
	if err == nil {
		err = json.Unmarshal(text, &created)
	}
	return created.ID, err
}

// follow holds n followers of a container's log and n of the events at once. When each of the former has had three lines that were written
// after all were there, and each of the latter the event of a container that is made for it, it prints "held", and goes on until the file
// end is there.
func follow(c *http.Client, n int, container, end string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var connected, served sync.WaitGroup
	failed := make(chan error, 2*n)
	ready := make(chan struct{})
	one := func(path, word string, times int) {
		begun := sync.OnceFunc(connected.Done)
		done := sync.OnceFunc(served.Done)
		err := read(ctx, c, path, begun, func(line string) {
			select {
			case <-ready:
			default:
				return // from before all were there
			}
			if strings.Contains(line, word) {
				if times--; times == 0 {
					done()
				}
			}
		})
		failed <- fmt.Errorf("%s has ended: %w", path, err)
	}
	for range n {
		connected.Add(2)
		served.Add(2)
		go one("/containers/"+container+"/logs?stdout=1&follow=1&tail=0", "tick", 3)
		go one("/events", `"Action":"create"`, 1)
	}
	if err := within(&connected, failed); err != nil {
		return fmt.Errorf("not all are connected: %w", err)
	}
	close(ready)
	var image struct{ Image string }
	text, err := ask(c, "GET", "/containers/"+container+"/json", "", 200)
	if err == nil {
		err = json.Unmarshal(text, &image)
	}
	if err != nil {
		return err
	}
	id, err := create(c, image.Image)
	if err == nil {
		_, err = ask(c, "DELETE", "/containers/"+id, "", 204)
	}
	if err != nil {
		return err
	}
	if err := within(&served, failed); err != nil {
		return fmt.Errorf("not all have got what they follow: %w", err)
	}
	fmt.Println("held")
	for {
		if _, err := os.Stat(end); err == nil {
			return nil
		}
		select {
		case err := <-failed:
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// within waits for all, or the first error, or three minutes.
func within(all *sync.WaitGroup, failed <-chan error) error {
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case err := <-failed:
		return err
	case <-time.After(3 * time.Minute):
		return errors.New("three minutes are over")
	}
}

// read reads a stream line by line. Its connection is its own.
func read(ctx context.Context, c *http.Client, path string, begun func(), line func(string)) error {
	r, err := http.NewRequestWithContext(ctx, "GET", version+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("status %d: %s", resp.StatusCode, text)
	}
	begun()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		line(lines.Text())
	}
	return errors.Join(lines.Err(), io.EOF)
}
