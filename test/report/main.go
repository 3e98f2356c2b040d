// Report runs `go test -json` (or anything that prints the same) and shows what a person wants of it: a line for each
// package, failed tests with all their output, the ten that took longest, and a sum. Use: report COMMAND…
//
// The sum is added as a line "PASSED FAILED SKIPPED" to the file that the variable TEST_COUNTS names.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// machineFailed is the exit code of a command that runs another when itself has failed: nothing is counted then.
const machineFailed = 125

type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: report COMMAND…")
		os.Exit(2)
	}
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	var (
		passed, failed, skipped int
		output                  = map[string]*strings.Builder{}
		failures                = map[string]int{} // by package
		skips                   []string
		slow                    []event
	)
	of := func(key string) *strings.Builder {
		if output[key] == nil {
			output[key] = new(strings.Builder)
		}
		return output[key]
	}
	reader := bufio.NewReaderSize(out, 1<<20)
	for {
		line, err := reader.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
				fmt.Print(line)
				continue
			}
			key := e.Package + " " + e.Test
			if e.Test != "" && e.Elapsed >= 1 {
				slow = append(slow, e)
			}
			switch {
			case e.Action == "output":
				of(key).WriteString(e.Output)
			case e.Action == "build-output":
				of("build " + e.ImportPath).WriteString(e.Output)
			case e.Action == "build-fail":
				fmt.Print(of("build " + e.ImportPath))
			case e.Test == "" && e.Action == "pass":
				fmt.Printf("ok      %s\t%.1fs\n", e.Package, e.Elapsed)
			case e.Test == "" && e.Action == "fail":
				if failures[e.Package] == 0 {
					failed++ // it did not build, or died outside of any test
				}
				fmt.Printf("%sFAILED  %s\t%.1fs\n", of(key), e.Package, e.Elapsed)
			case e.Action == "pass":
				passed++
				delete(output, key)
			case e.Action == "skip" && e.Test != "":
				skipped++
				skips = append(skips, key+strings.TrimRight(reason(of(key).String()), "\n"))
			case e.Action == "fail":
				failed++
				failures[e.Package]++
				fmt.Printf("\n--- %s %s\n%s\n", e.Package, e.Test, of(key))
				delete(output, key)
			}
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() == machineFailed {
		fmt.Println("report: the machine failed, not the tests:", err)
		os.Exit(machineFailed)
	}
	for _, skip := range skips {
		fmt.Println("skipped", skip)
	}
	slices.SortStableFunc(slow, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	for _, e := range slow[:min(10, len(slow))] {
		fmt.Printf("slow    %s %s\t%.1fs\n", e.Package, e.Test, e.Elapsed)
	}
	fmt.Printf("sum: %d passed; %d failed; %d skipped\n", passed, failed, skipped)
	if name := os.Getenv("TEST_COUNTS"); name != "" {
		file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			fmt.Fprintln(file, passed, failed, skipped)
			file.Close()
		}
	}
	if err != nil || failed > 0 || passed == 0 {
		if err != nil {
			fmt.Println("report:", strings.Join(os.Args[1:], " "), err)
		}
		os.Exit(1)
	}
}

// reason is the line of a skipped test's output that its author wrote.
func reason(output string) string {
	for _, line := range strings.Split(output, "\n") {
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			return ": " + text
		}
	}
	return ""
}
