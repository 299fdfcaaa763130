package media

import (
	"log/slog"
	"net/netip"
	"time"

	"localloop/internal/bypass"
	"localloop/internal/config"
	"localloop/internal/media/jitter"
	"localloop/internal/media/wire"
)

// voice is the half of a Bridge that lives on a media loop. All its methods run
// on that loop's thread; the time is given, so that tests run it in virtual
// time.
type voice struct {
	id       string
	legs     []*leg
	events   func(Event)
	end      func(*bypass.Agent) // closes an agent without waiting
	wake     func(time.Time)     // asks for a tick at the latest then
	drops    *drops
	failover config.Failover
	limits   jitter.Limits
	log      *slog.Logger

	// epoch is when the Engine began. Times are taken from it, because the wall
	// clock may step and the monotonic one does not.
	epoch  time.Time
	now    time.Time   // of the call under way, for callbacks of the agent
	joined time.Time   // first Join
	gone   []LegReport // of legs that were dropped after voice had passed
	due    time.Time

	plain  [wire.MaxDatagram]byte
	sealed [wire.MaxDatagram]byte
	pcm    [jitter.MaxPacket]int16
}

const (
	frameLen = 80 // samples of a line's frame, 10 ms
	ptime    = 20 * time.Millisecond
	// upkeep is the grid on which life, reports and silence are looked at. A
	// grid common to all calls makes one wake-up of many.
	upkeep = 100 * time.Millisecond
	// maxGone bounds what a call that is transferred for ever keeps.
	maxGone = 32
)

// packet takes one datagram of a port, RFC 7983 and RFC 5761. It may change b,
// and nothing of it is kept.
func (v *voice) packet(now time.Time, p *port, onRTCP bool, b []byte, from netip.AddrPort) {
	v.now = now
	l := p.leg
	if l == nil || len(b) == 0 {
		v.drops.unknown.Add(1)
		return
	}
	p.realm.received(len(b))
	switch {
	case b[0] < 4 && bypass.IsSTUN(b):
		l.check(now, p, b, from)
	case b[0]>>6 != 2 || len(b) < 8:
		l.reject(&v.drops.unknown)
	case b[1] >= 192 && b[1] <= 223: // RFC 5761 §4
		l.control(now, p, onRTCP, b, from)
	case onRTCP:
		l.reject(&v.drops.unknown)
	default:
		l.media(now, p, b, from)
	}
}

// tick does what time brings and returns when it wants to be called again.
func (v *voice) tick(now time.Time) time.Time {
	v.now = now
	v.due = now.Add(upkeep - now.Sub(v.epoch)%upkeep)
	for _, l := range v.legs {
		if l.line == nil {
			v.sooner(l.paced(now))
		}
		l.judge(now)
		l.report(now)
	}
	return v.due
}

// sooner asks for an earlier tick; the zero time asks for nothing.
func (v *voice) sooner(t time.Time) {
	if t.IsZero() || !v.due.IsZero() && !t.Before(v.due) {
		return
	}
	v.due = t
	v.wake(t)
}

// join connects two legs and stops what is played to them.
func (v *voice) join(now time.Time, a, b *leg) {
	v.now = now
	if v.joined.IsZero() {
		v.joined = now
	}
	for _, l := range []*leg{a, b} {
		if l.peer != nil {
			l.peer.peer = nil
			l.peer = nil
		}
		l.play(now, nil)
		l.attach()
		l.life.watch(now)
	}
	a.peer, b.peer = b, a
	for _, l := range []*leg{a, b} {
		l.sourceChanged()
	}
	v.sooner(now)
}

// drop forgets a leg and frees what it holds.
func (v *voice) drop(l *leg) {
	if l.peer != nil {
		l.peer.sourceChanged()
		l.peer.peer = nil
		l.peer = nil
	}
	for i, x := range v.legs {
		if x == l {
			v.legs = append(v.legs[:i], v.legs[i+1:]...)
			break
		}
	}
	if r := l.measure(); r.Sent+r.Received > 0 && len(v.gone) < maxGone {
		v.gone = append(v.gone, r)
	}
	l.close()
}

// measure makes the report, legs that were dropped first.
func (v *voice) measure() Report {
	r := Report{Legs: v.gone}
	for _, l := range v.legs {
		r.Legs = append(r.Legs, l.measure())
	}
	return r
}
