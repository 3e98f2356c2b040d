package fork

import (
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// take removes a descriptor that the child sent from those that go to the caller of Start.
func (x *execution) take(name string) (int, error) {
	fd, ok := x.received[name]
	if !ok {
		return -1, fmt.Errorf("no descriptor %q came from the child", name)
	}
	delete(x.received, name)
	return fd, nil
}

// sendListener hands a filter's listener to an agent, with the state of the process.
func (x *execution) sendListener(o *plan.SendListener) error {
	fd, err := x.take(o.From)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if x.opts.State == nil {
		return errors.New("nobody knows the state of the container, which the agent must get")
	}
	state, err := x.opts.State(x.pid)
	if err != nil {
		return err
	}
	// The names are those of the specification.
	message, err := json.Marshal(struct {
		Version  string          `json:"ociVersion"`
		FDs      []string        `json:"fds"`
		PID      int             `json:"pid"`
		Metadata string          `json:"metadata,omitempty"`
		State    json.RawMessage `json:"state"`
	}{o.Version, []string{"seccompFd"}, x.pid, o.Metadata, state})
	if err != nil {
		return err
	}
	return SendFD(o.Path, message, fd)
}
