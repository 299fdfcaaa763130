package analogtest

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Place does what a caller does: lifts, waits for the dial tone, dials, and
// returns when the last digit is out. It leaves the phone lifted, also with an error.
func (p *Phone) Place(ctx context.Context, number string) error {
	p.Lift()
	if err := p.WaitDialTone(ctx); err != nil {
		return err
	}
	if err := p.Dial(number); err != nil {
		return err
	}
	return p.WaitSaid(ctx)
}

// Take does what a called person does: waits for n bursts of the bell, lifts and
// says hz at -16 dBm0.
func (p *Phone) Take(ctx context.Context, n int, hz float64) error {
	if err := p.WaitRings(ctx, n); err != nil {
		return err
	}
	p.Lift()
	p.Speak(hz, -16)
	return p.WaitOffHook(ctx)
}

// End hangs up and returns when the receiver rests.
func (p *Phone) End(ctx context.Context) error {
	p.HangUp()
	return p.WaitOnHook(ctx)
}

// Voice is what one place heard of one tone between two instants.
type Voice struct {
	Hz      float64
	Heard   bool
	First   time.Time // first audible
	Last    time.Time
	Audible time.Duration // sum
	Longest Gap           // the longest silence of 20 ms or more; zero if none
	Gaps    int           // silences of 20 ms or more
}

// Voice sums up the log between two instants; a zero instant is no limit.
func (l AudioLog) Voice(from, to time.Time) Voice {
	v := Voice{Hz: l.Hz}
	var before time.Time
	for _, s := range l.Spans {
		if !to.IsZero() && s.To.After(to) {
			s.To = to
		}
		if s.From.Before(from) {
			s.From = from
		}
		if !s.From.Before(s.To) {
			continue
		}
		if !v.Heard {
			v.Heard, v.First = true, s.From
		} else if g := (Gap{before, s.From}); g.Lasts() >= 20*time.Millisecond {
			v.Gaps++
			if g.Lasts() > v.Longest.Lasts() {
				v.Longest = g
			}
		}
		v.Audible += s.Lasts()
		v.Last, before = s.To, s.To
	}
	return v
}

// View prints the card and its lines as they are now, a line each, for people.
func (c *Card) View() string {
	s := c.Snapshot()
	var b strings.Builder
	state := "link down"
	switch {
	case !s.Plugged:
		state = "unplugged"
	case s.LinkUp:
		state = fmt.Sprintf("session %08x", s.Session)
	}
	n := s.Counters
	fmt.Fprintf(&b, "card %s: %s, %d bit/s, PCM in %d out %d, concealed %d, underruns %d, damaged %d\n",
		s.Path, state, s.Baud, n.PCMIn, n.PCMOut, n.Concealed, n.Underruns, n.DroppedIn)
	for i := range c.ports {
		if p := c.Phone(i); p != nil {
			ps := p.Snapshot()
			fmt.Fprintf(&b, "  %d FXS %s", i, ps)
			if ps.Caller != nil {
				fmt.Fprintf(&b, ", caller %s %s", ps.Caller.Number, ps.Caller.Name)
			}
			b.WriteByte('\n')
		}
		if e := c.Exchange(i); e != nil {
			fmt.Fprintf(&b, "  %d FXO %s\n", i, e.Snapshot())
		}
	}
	return b.String()
}
