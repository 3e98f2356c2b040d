package plan

// Trace is what a start of a container did with its time, and what its program did first. Moments are nanoseconds of the host's
// monotonic clock, which all its processes share.
type Trace struct {
	Spans []Span `json:"spans,omitempty"` // what glassbox did beside the plan
	Zero  int64  `json:"zero,omitempty"`  // the moment of the plan's first step
	Times *Times `json:"times,omitempty"` // of its steps
	Exec  int64  `json:"exec,omitempty"`  // the kernel had made the child the program; 0: that wasn't seen
	Calls []Call `json:"calls,omitempty"` // system calls of the program and its children, by their beginning
	Lost  int    `json:"lost,omitempty"`  // calls that were too many to be kept
	Note  string `json:"note,omitempty"`  // why there are no calls
}

// A Span is something that one of glassbox's processes did.
type Span struct {
	Who   string `json:"who"` // command, supervisor
	What  string `json:"what"`
	Begin int64  `json:"begin"`
	End   int64  `json:"end"`
	Waits bool   `json:"waits,omitempty"` // for another process
}

// A Call is a system call.
type Call struct {
	PID    int    `json:"pid"` // on the host; a thread's, if it was a thread
	NR     uint64 `json:"nr"`
	Begin  int64  `json:"begin"`
	End    int64  `json:"end,omitempty"`  // 0: it had not returned when tracing ended
	Last   bool   `json:"last,omitempty"` // the process ended in it, at End
	Result int64  `json:"result,omitempty"`
	Failed bool   `json:"failed,omitempty"` // Result is -errno
	Path   string `json:"path,omitempty"`   // the path among its arguments
}
