// Cri calls one method of a Kubernetes container runtime interface and prints the answer as JSON: cri SOCKET METHOD [JSON].
// The request is JSON, too, with the names of the fields as in the interface's definition. ExecSync writes what the command
// wrote and ends with its code.
//
// It is a module of its own so that its libraries stay out of glassbox's.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "cri:", err)
		code = 1
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	if len(args) < 2 {
		return 2, errors.New("usage: cri SOCKET METHOD [JSON]")
	}
	conn, err := grpc.NewClient("unix://"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 1, err
	}
	defer conn.Close()
	var method reflect.Value
	for _, client := range []any{cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)} {
		if m := reflect.ValueOf(client).MethodByName(args[1]); m.IsValid() {
			method = m
		}
	}
	if !method.IsValid() {
		return 2, fmt.Errorf("no method %q", args[1])
	}
	request := reflect.New(method.Type().In(1).Elem())
	if len(args) > 2 {
		if err := json.Unmarshal([]byte(args[2]), request.Interface()); err != nil {
			return 2, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	results := method.Call([]reflect.Value{reflect.ValueOf(ctx), request})
	if err, _ := results[1].Interface().(error); err != nil {
		return 1, err
	}
	if exec, ok := results[0].Interface().(*cri.ExecSyncResponse); ok {
		os.Stdout.Write(exec.Stdout)
		os.Stderr.Write(exec.Stderr)
		return int(exec.ExitCode), nil
	}
	answer, err := json.MarshalIndent(results[0].Interface(), "", "  ")
	if err != nil {
		return 1, err
	}
	fmt.Println(string(answer))
	return 0, nil
}
