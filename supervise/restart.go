package supervise

import (
	"os"
	"path/filepath"
	"time"

	"glassbox/state"
)

// Restart is what a supervisor does when its container has ended by itself.
type Restart struct {
	Clean     bool `json:"clean,omitempty"`     // start it again also when it ended well, with exit code 0
	Unhealthy bool `json:"unhealthy,omitempty"` // one whose health check says unhealthy is stopped, which is a failure, too
	Max       int  `json:"max,omitempty"`       // how often, at most, unless Clean; 0: without end
}

// Docker's back-off: a container that dies at once for ever must not keep a processor busy.
const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = time.Minute
	steady       = 10 * time.Second // who has run for so long begins anew
)

// An End is what is known of a run that is over.
type End struct {
	Code      int
	Ran       time.Duration
	Unhealthy bool // it was stopped because of its health check
	Stopped   bool // somebody has stopped it by hand
}

// Next decides what comes after a run: whether there is another one, and after what time. count says how many were started because of the
// policy before, and last how long the last one of them was waited for (0: there was none).
func (r *Restart) Next(e End, count int, last time.Duration) (wait time.Duration, again bool) {
	failed := e.Code != 0 || e.Unhealthy
	switch {
	case r == nil || e.Stopped:
		return 0, false
	case !r.Clean && (!failed || r.Max > 0 && count >= r.Max):
		return 0, false
	case e.Ran >= steady || last == 0:
		return firstBackoff, true
	}
	return min(2*last, maxBackoff), true
}

// StoppedFile, in the container's directory, says that it was stopped, and by whom: its supervisor doesn't start it again, and if it was by
// hand neither does the host's next start where the policy is unless-stopped. The next start takes it away. It is written before the
// container gets a signal.
const StoppedFile = "stopped"

// Who has stopped a container whose policy would have started it again, or that would have been removed.
const (
	ByHand = "hand"
	ByHost = "host" // it went down, and starts it when it is up again
	// Who restarts a container that is removed when it ends (--rm) is about to start it again.
	ByRestart = "restart"
)

// MarkStopped writes who stops a container.
func MarkStopped(dir, who string) error {
	return state.WriteFile(filepath.Join(dir, StoppedFile), []byte(who), 0o600)
}

// StoppedBy is who has stopped a container; empty: nobody.
func StoppedBy(dir string) string {
	data, err := state.ReadFile(filepath.Join(dir, StoppedFile))
	switch {
	case os.IsNotExist(err):
		return ""
	case string(data) == ByHost || string(data) == ByRestart:
		return string(data)
	}
	return ByHand
}

// MarkStarted takes that back.
func MarkStarted(dir string) error {
	if err := os.Remove(filepath.Join(dir, StoppedFile)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// removes says that this end of the container is its last one, after which it is removed: not where somebody restarts it.
func (j *Job) removes() bool { return j.Remove && StoppedBy(j.Dir) != ByRestart }

// WasStopped reports whether somebody has stopped a container.
func WasStopped(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, StoppedFile))
	return err == nil
}
