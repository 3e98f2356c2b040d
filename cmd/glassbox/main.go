// Command glassbox is a container engine you can see through. Everything is in package cli.
package main

import (
	"os"

	"glassbox/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
