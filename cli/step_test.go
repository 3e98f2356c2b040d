package cli

import (
	"os"
	"testing"
	"time"
)

func TestStepperCloses(t *testing.T) {
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	a := testApp(t)
	before := open()
	for range 8 {
		s, err := newStepper(a, nil, stepFlags{step: true})
		if err != nil {
			t.Fatal(err)
		}
		s.close()
	}
	for range 500 { // its goroutine closes it
		if open() <= before+1 { // the runtime's own for signals may have come
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d descriptors are open, %d were before", open(), before)
}
