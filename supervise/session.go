package supervise

import (
	"bufio"
	"encoding/json"
	"os"
	"sync"
)

// Event is what a supervisor tells its caller: one JSON object a line.
type Event struct {
	Started bool   `json:"started,omitempty"` // the program runs
	Error   string `json:"error,omitempty"`   // it could not be started
	Exited  bool   `json:"exited,omitempty"`  // the container has ended and is cleaned up
	Code    int    `json:"code,omitempty"`    // exit code of the container, or 125, 126, 127 with Error
}

// Request is what a caller asks of a supervisor: one JSON object a line.
type Request struct {
	Signal int    `json:"signal,omitempty"` // to be sent to the container's first process
	Rows   uint16 `json:"rows,omitempty"`   // new size of the terminal
	Cols   uint16 `json:"cols,omitempty"`
	Detach bool   `json:"detach,omitempty"` // stop passing on input and output
}

// session is the supervisor's end of the socket to its caller.
type session struct {
	mu   sync.Mutex
	file *os.File
}

func (s *session) send(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		json.NewEncoder(s.file).Encode(e) // a caller that is gone doesn't matter
	}
}

// serve reads requests until the caller is gone.
func (s *session) serve(handle func(Request)) {
	r := bufio.NewScanner(s.file)
	for r.Scan() {
		var q Request
		if json.Unmarshal(r.Bytes(), &q) == nil {
			handle(q)
		}
	}
}
