package supervise

import (
	"testing"
	"time"
)

// TestNext plays ends against policies: what Docker's restart manager would do, and our on-unhealthy.
func TestNext(t *testing.T) {
	always, failure := &Restart{Clean: true}, &Restart{}
	ms := time.Millisecond
	for _, tt := range []struct {
		name   string
		policy *Restart
		end    End
		count  int
		last   time.Duration
		want   time.Duration // 0: no
	}{
		{"no policy", nil, End{Code: 1}, 0, 0, 0},
		{"always, well", always, End{}, 0, 0, 100 * ms},
		{"always, failed", always, End{Code: 1}, 5, 100 * ms, 200 * ms},
		{"always, for ever", always, End{Code: 1}, 1e6, 50 * time.Second, time.Minute},
		{"always, at most a minute", always, End{Code: 1}, 9, time.Minute, time.Minute},
		{"always, has run for a while", always, End{Code: 1, Ran: 10 * time.Second}, 9, time.Minute, 100 * ms},
		{"always, not long enough", always, End{Code: 1, Ran: 9999 * ms}, 9, 400 * ms, 800 * ms},
		{"always, by hand", always, End{Code: 143, Stopped: true}, 0, 0, 0},
		{"on-failure, well", failure, End{}, 0, 0, 0},
		{"on-failure, failed", failure, End{Code: 3}, 0, 0, 100 * ms},
		{"on-failure, killed", failure, End{Code: 137}, 77, 100 * ms, 200 * ms},
		{"on-failure:2, the second time", &Restart{Max: 2}, End{Code: 3}, 1, 100 * ms, 200 * ms},
		{"on-failure:2, the third time", &Restart{Max: 2}, End{Code: 3}, 2, 200 * ms, 0},
		{"on-failure:2, has run for a while", &Restart{Max: 2}, End{Code: 3, Ran: time.Hour}, 2, 200 * ms, 0},
		{"on-unhealthy, ended well when it was stopped", &Restart{Unhealthy: true}, End{Unhealthy: true}, 0, 0, 100 * ms},
		{"on-unhealthy, ended well by itself", &Restart{Unhealthy: true}, End{}, 0, 0, 0},
		{"on-unhealthy, failed", &Restart{Unhealthy: true}, End{Code: 1}, 0, 0, 100 * ms},
		{"on-unhealthy:1, again", &Restart{Unhealthy: true, Max: 1}, End{Unhealthy: true}, 1, 100 * ms, 0},
		{"on-unhealthy, by hand", &Restart{Unhealthy: true}, End{Unhealthy: true, Stopped: true}, 0, 0, 0},
	} {
		wait, again := tt.policy.Next(tt.end, tt.count, tt.last)
		if wait != tt.want || again != (tt.want > 0) {
			t.Errorf("%s: %v, %v, want %v", tt.name, wait, again, tt.want)
		}
	}
}

// TestBackoff lets a container die at once for ever: the tenth run waits for most of a minute.
func TestBackoff(t *testing.T) {
	r, last, sum := &Restart{Clean: true}, time.Duration(0), time.Duration(0)
	for i := range 20 {
		last, _ = r.Next(End{Code: 1}, i, last)
		sum += last
	}
	// 0.1 + 0.2 + … + 51.2 s, and ten minutes.
	if want := 102300*time.Millisecond + 10*time.Minute; sum != want {
		t.Errorf("20 ends in a row wait for %v in all, want %v", sum, want)
	}
}
