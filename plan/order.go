package plan

import "fmt"

// Order is an order in which the steps can be made one at a time: that of the plan, but for steps that wait for the other lane, which
// come after what they wait for. It holds indices of p.Steps.
func (p *Plan) Order() ([]int, error) {
	var f flow
	order := make([]int, 0, len(p.Steps))
	host, child := p.after(Host, -1), p.after(Child, -1)
	for len(order) < len(p.Steps) {
		first, second := min(host, child), max(host, child)
		i := first
		if !f.ready(p.Steps[i]) {
			if i = second; i == len(p.Steps) || !f.ready(p.Steps[i]) {
				return nil, fmt.Errorf("plan: step %d waits for what never comes", first+1)
			}
		}
		f.make(p.Steps[i])
		order = append(order, i)
		if i == host {
			host = p.after(Host, i)
		} else {
			child = p.after(Child, i)
		}
	}
	return order, nil
}

// after is the index of the first step of a lane after i, or the number of steps.
func (p *Plan) after(l Lane, i int) int {
	for i++; i < len(p.Steps) && p.Steps[i].Lane != l; i++ {
	}
	return i
}

// flow is what is on the way between the lanes: each receives what the other sent over one socket, in the order in which it was sent.
type flow struct {
	toHost, toChild int  // messages
	child           bool // there is a child that can go on
	second          bool // there is one that waits to be adopted
}

func (f *flow) ready(s Step) bool {
	if s.Lane == Child && !f.child {
		return false
	}
	switch s.Op.(type) {
	case *Adopt:
		return f.second
	case *Await:
		return f.toChild > 0
	case *Expect:
		return f.toHost > 0
	case *RecvFD:
		return s.Lane == Host && f.toHost > 0 || s.Lane == Child && f.toChild > 0
	}
	return true
}

func (f *flow) make(s Step) {
	switch o := s.Op.(type) {
	case *Release:
		f.toChild++
	case *OpenTree:
		if s.Lane == Host && o.Child {
			f.toChild++
		}
	case *Await:
		f.toChild--
	case *Notify, *SendFD:
		f.toHost++
	case *Expect:
		f.toHost--
	case *RecvFD:
		if s.Lane == Host {
			f.toHost--
		} else {
			f.toChild--
		}
	case *Clone:
		f.child, f.second = s.Lane == Host, s.Lane == Child
	case *Adopt:
		f.child, f.second = true, false
	}
}
