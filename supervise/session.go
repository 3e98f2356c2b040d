package supervise

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"sync"

	"glassbox/plan"
	"glassbox/plan/lazyjson"
)

// Event is what a supervisor tells its caller: one JSON object a line.
type Event struct {
	Started bool   `json:"started,omitempty"` // the program runs
	Error   string `json:"error,omitempty"`   // it could not be started
	Exited  bool   `json:"exited,omitempty"`  // the container has ended and is cleaned up
	Traced  bool   `json:"traced,omitempty"`  // in the background: the program goes on, and the time for which it is traced is over
	Code    int    `json:"code,omitempty"`    // exit code of the container, or 125, 126, 127 with Error
	// Trace is what was noted since the last one, with Started, Error, Exited and Traced, if the job asks for it.
	Trace  *plan.Trace `json:"trace,omitempty"`
	Left   string      `json:"left,omitempty"`   // the caller is no longer served, and why: LeftKeys, LeftOutput
	Before *Stop       `json:"before,omitempty"` // a step is to be made: the supervisor waits for a request with Go or Quit
}

// Why a supervisor no longer serves its caller, while the container goes on.
const (
	LeftKeys   = "keys"   // the detach keys were typed
	LeftOutput = "output" // nobody takes its standard output any more
)

// Stop is a moment before a step, while all before it are done (see fork.Options.Before).
type Stop struct {
	Index int `json:"index"`         // of the step in the plan
	PID   int `json:"pid,omitempty"` // the child's; 0: there is none yet
}

// Request is what a caller asks of a supervisor: one JSON object a line.
type Request struct {
	Signal int    `json:"signal,omitempty"` // to be sent to the container's first process
	Rows   uint16 `json:"rows,omitempty"`   // new size of the terminal
	Cols   uint16 `json:"cols,omitempty"`
	Detach bool   `json:"detach,omitempty"` // stop passing on input and output
	Go     bool   `json:"go,omitempty"`     // make the step
	Quit   bool   `json:"quit,omitempty"`   // end the start
}

// session is the supervisor's end of the socket to its caller.
type session struct {
	mu   sync.Mutex
	file *os.File
	in   *bufio.Scanner
}

// next reads a request; false: the caller is gone. One goroutine reads.
func (s *session) next() (q Request, ok bool) {
	if s.in == nil {
		s.in = bufio.NewScanner(s.file)
	}
	for s.in.Scan() {
		if json.Unmarshal(s.in.Bytes(), &q) == nil {
			return q, true
		}
	}
	return q, false
}

// ask tells the caller which step comes, and waits for the answer.
func (s *session) ask(i, pid int) error {
	s.send(Event{Before: &Stop{i, pid}})
	for {
		switch q, ok := s.next(); {
		case !ok:
			return errors.New("whoever was to allow the next step is gone")
		case q.Quit:
			return errors.New("the start was ended by the one who was asked")
		case q.Go:
			return nil
		}
	}
}

func (s *session) send(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		line, _ := lazyjson.Marshal(e)   // of what is data alone, which can always be written
		s.file.Write(append(line, '\n')) // a caller that is gone doesn't matter
	}
}

// serve reads requests until the caller is gone.
func (s *session) serve(handle func(Request)) {
	for {
		q, ok := s.next()
		if !ok {
			return
		}
		handle(q)
	}
}
