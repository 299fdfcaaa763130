package analog

import (
	"localloop/internal/call"
)

// legRoom is how many events may wait for the call. The last place is kept for
// the Release.
const legRoom = 32

// leg is one call on a line. All fields but events belong to the card's
// goroutine.
type leg struct {
	name   string
	post   func(func()) bool
	line   *line // nil before it is adopted and after it ended
	setup  call.Setup
	events chan call.Event
	ended  bool
}

var _ call.Leg = (*leg)(nil)

func newLeg(name string, post func(func()) bool) *leg {
	return &leg{name: name, post: post, events: make(chan call.Event, legRoom)}
}

func (g *leg) Name() string              { return g.name }
func (g *leg) Events() <-chan call.Event { return g.events }

func (g *leg) Send(e call.Event) {
	g.post(func() {
		switch {
		case g.ended:
		case g.line != nil:
			g.line.fromCall(g, e)
		default:
			if r, ok := e.(call.Release); ok { // before the line has taken it
				g.release(r.Cause, r.Reason)
			}
		}
	})
}

// emit reports an event to the call. A call that does not read loses it.
func (g *leg) emit(e call.Event) {
	if !g.ended && len(g.events) < legRoom-1 {
		g.events <- e
	}
}

// release ends the leg.
func (g *leg) release(c call.Cause, reason string) {
	if g.ended {
		return
	}
	g.ended, g.line = true, nil
	g.events <- call.Release{Cause: c, Reason: reason}
	close(g.events)
}
