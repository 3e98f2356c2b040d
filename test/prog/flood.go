package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

// mirror sends back what comes, until the client has ended his half: mirror PORT.
func mirror(args []string) error {
	return serve(args[0], func(conn net.Conn) { io.Copy(conn, conn) })
}

// flood sends zeros to a mirror, ends its half, and counts what comes back: flood HOST:PORT BYTES.
func flood(args []string) error {
	want, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	conn, err := net.DialTimeout("tcp", args[0], 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	zeros, err := os.Open("/dev/zero")
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(conn, zeros, want)
		conn.(*net.TCPConn).CloseWrite()
		sent <- err
	}()
	back, err := io.Copy(io.Discard, conn)
	fmt.Printf("%d bytes back\n", back)
	if err != nil {
		return err
	}
	return <-sent
}
