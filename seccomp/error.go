package seccomp

import (
	"errors"
	"fmt"
)

// An Error says which field of a profile is wrong.
type Error struct {
	Pointer string // JSON pointer, as /syscalls/3/action; "" is the whole profile
	Text    string
}

func (e *Error) Error() string {
	if e.Pointer == "" {
		return e.Text
	}
	return e.Pointer + ": " + e.Text
}

// At returns err for a profile that is itself a field, at pointer, of something larger.
func At(pointer string, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return &Error{pointer + e.Pointer, e.Text}
	}
	return fmt.Errorf("%s: %w", pointer, err)
}

func wrong(pointer, format string, args ...any) error {
	return &Error{pointer, fmt.Sprintf(format, args...)}
}

// ruleError returns err for the rule at index i, whose first call is name.
func ruleError(i int, name string, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		text := e.Text
		if name != "" {
			text += " (the rule for " + name + ")"
		}
		return &Error{fmt.Sprintf("/syscalls/%d%s", i, e.Pointer), text}
	}
	return fmt.Errorf("/syscalls/%d: %w", i, err)
}

// defaultError returns an error of verdict for the default action.
func defaultError(err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return &Error{map[string]string{"/action": "/defaultAction", "/errnoRet": "/defaultErrnoRet"}[e.Pointer], e.Text}
	}
	return err
}
