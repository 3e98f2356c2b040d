package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// lookups asks a name server by UDP, each question once, and counts what is wrong or doesn't come: lookups SERVER:PORT COUNT NAME=ADDRESS…
// An empty address stands for a name that must not exist; * for one that may come and go, whose answer is any.
func lookups(args []string) error {
	if len(args) < 3 {
		return errors.New("want SERVER:PORT COUNT NAME=ADDRESS…")
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	conn, err := net.Dial("udp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	wrong, lost := 0, 0
	begin := time.Now()
	for i := range count {
		name, want, _ := strings.Cut(args[2+i%(len(args)-2)], "=")
		got, err := lookup(conn, uint16(i), name)
		switch {
		case err != nil:
			lost++
			fmt.Fprintln(os.Stderr, name, err)
		case want != "*" && got != want:
			wrong++
			fmt.Fprintf(os.Stderr, "%s: %q, want %q\n", name, got, want)
		}
	}
	fmt.Printf("asked %d wrong %d lost %d seconds %.2f\n", count, wrong, lost, time.Since(begin).Seconds())
	return nil
}

// lookup is one question; the answer is the address, or "" for a name that doesn't exist.
func lookup(conn net.Conn, id uint16, name string) (string, error) {
	n, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return "", err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		return "", err
	}
	if _, err := conn.Write(b); err != nil {
		return "", err
	}
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 1500)
	for {
		got, err := conn.Read(buf)
		if err != nil {
			return "", err
		}
		var a dnsmessage.Message
		if err := a.Unpack(buf[:got]); err != nil {
			return "", err
		}
		if a.ID != id {
			continue // of a question that was given up
		}
		if a.RCode != dnsmessage.RCodeSuccess && a.RCode != dnsmessage.RCodeNameError {
			return "", fmt.Errorf("answer %s", a.RCode)
		}
		for _, r := range a.Answers {
			if r, ok := r.Body.(*dnsmessage.AResource); ok {
				return netip.AddrFrom4(r.A).String(), nil
			}
		}
		return "", nil
	}
}
