package cli

import (
	"os"
	"sync"

	"golang.org/x/term"

	"glassbox/explain"
)

func (a *app) isTerminal() bool { return term.IsTerminal(int(a.in.Fd())) }

// rawMode hands the keyboard to the container. The function returned may be called any number of times.
func rawMode(f *os.File) (restore func(), err error) {
	old, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { term.Restore(int(f.Fd()), old) }), nil
}

// textOptions says how a plan is printed on a stream.
func (a *app) textOptions(f *os.File, verbose bool) explain.TextOptions {
	o := explain.TextOptions{Verbose: verbose}
	if cols, _, err := term.GetSize(int(f.Fd())); err == nil {
		o.Width = cols
		o.Color = a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
	}
	return o
}
