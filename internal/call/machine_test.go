package call

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"localloop/internal/sdp"
)

// model runs a machine as control does, without legs, voice or time: it keeps
// which timers run and lets actions fail at random.
type model struct {
	t       *testing.T
	m       machine
	dice    *rand.Rand
	running [timers]bool
	ends    int
	dials   int
	sum     Summary
	trace   []string
	live    map[string]bool // legs that have not been released
}

func (x *model) note(format string, args ...any) {
	x.trace = append(x.trace, fmt.Sprintf(format, args...))
}

func (x *model) failf(format string, args ...any) {
	x.t.Helper()
	for _, l := range x.trace {
		x.t.Log(l)
	}
	x.t.Fatalf(format, args...)
}

func (x *model) fails() bool { return x.dice.IntN(12) == 0 }

func (x *model) do(acts []action) {
	for _, a := range acts {
		x.note("    %T %+v", a, a)
		if more := x.one(a); len(more) > 0 {
			x.do(more)
			return
		}
	}
}

func (x *model) one(a action) []action {
	switch a := a.(type) {
	case doSend:
		if !x.live[a.leg] {
			x.failf("%T to leg %q, which is gone", a.ev, a.leg)
		}
		if _, ok := a.ev.(Release); ok {
			delete(x.live, a.leg)
		}
	case doDial:
		x.sum.Attempts = append(x.sum.Attempts, Attempt{Target: a.target})
		if x.fails() {
			return x.m.fault("", DestinationDown, "cannot be dialled")
		}
		x.dials++
		leg := fmt.Sprintf("callee.%d", x.dials)
		x.live[leg] = true
		x.m.dialed(leg)
	case doAnswered:
		switch {
		case !x.fails():
		case a.early:
			x.m.undescribed()
		default:
			return x.m.fault(a.leg, IncompatibleMedia, "bad answer")
		}
	case doAnswer, doProgress:
		if x.fails() {
			return x.m.fault(x.m.caller.leg, IncompatibleMedia, "no answer can be made")
		}
	case doReoffered:
		if !x.fails() {
			return x.m.agreed(a.leg, a.profile, a.hold, a.offer == nil)
		}
	case doMove:
		if x.fails() {
			return x.m.fault(a.leg, NoCircuit, "no port")
		}
	case doRelocate:
		return x.m.relocate(a.leg, a.profile)
	case doJoin:
		if a.a == "" || a.b == "" || a.a == a.b {
			x.failf("join %q %q", a.a, a.b)
		}
		if x.fails() {
			return x.m.unjoined("cannot be joined")
		}
	case doPlay:
		if a.leg == "" {
			x.failf("play to nobody")
		}
	case doStart:
		x.running[a.t] = true
	case doStop:
		x.running[a.t] = false
	case doNote:
		a.f(&x.sum)
	case doEnd:
		x.ends++
		x.running = [timers]bool{}
	}
	return nil
}

// check looks at what must hold between any two events.
func (x *model) check() {
	x.t.Helper()
	m := &x.m
	if m.phase == over {
		if x.ends != 1 {
			x.failf("ended %d times", x.ends)
		}
		if len(x.live) > 0 {
			x.failf("over, but not released: %v", x.live)
		}
		return
	}
	if x.ends > 0 {
		x.failf("ended, but not over")
	}
	if m.phase == seeking && !x.running[seizeTimer] && !x.running[tryTimer] && !x.running[ringTimer] {
		x.failf("seeking, and no timer bounds it")
	}
	if (m.phase == lost) != (m.caller.lost || m.callee.lost) {
		x.failf("phase %d, caller lost %v, callee lost %v", m.phase, m.caller.lost, m.callee.lost)
	}
	if m.phase == lost && !x.running[lostTimer] {
		x.failf("lost, and no timer bounds it")
	}
	for _, s := range []*side{&m.caller, &m.callee} {
		if s.moving && !x.running[m.restartTimer(s)] {
			x.failf("%s moves, and no timer bounds it", s.leg)
		}
		if m.phase == up && s.dead != "" && !s.held && !s.moving && !x.running[checkTimer] && !m.emergency() {
			x.failf("%s is dead, and nothing is done about it", s.leg)
		}
	}
}

func (x *model) profile() sdp.Profile {
	return []sdp.Profile{{Realm: "lan", Fallback: "wan"}, {Realm: "wan"}, {Realm: "lan"}, {Line: "line-1"}}[x.dice.IntN(4)]
}

// event makes something happen.
func (x *model) event() {
	m := &x.m
	var legs []string
	for _, leg := range []string{m.caller.leg, m.callee.leg} {
		if x.live[leg] {
			legs = append(legs, leg)
		}
	}
	var on []timer
	for t, is := range x.running {
		if is {
			on = append(on, timer(t))
		}
	}
	if n := x.dice.IntN(24); n == 0 && len(on) > 0 {
		t := on[x.dice.IntN(len(on))]
		x.running[t] = false
		x.note("timer %d", t)
		x.do(m.expired(t))
		return
	}
	leg := legs[x.dice.IntN(len(legs))]
	var p *sdp.Profile
	if x.dice.IntN(3) == 0 {
		q := x.profile()
		q.Line = ""
		p = &q
	}
	var d *sdp.Description
	if x.dice.IntN(4) > 0 {
		d = &sdp.Description{}
	}
	realm := []string{"lan", "wan"}[x.dice.IntN(2)]
	causes := []Cause{NormalClearing, UserBusy, NoCircuit, IncompatibleMedia}
	var ev Event
	switch x.dice.IntN(14) {
	case 0, 1:
		ev = Progress{Ringing: x.dice.IntN(2) == 0, Answer: d}
	case 2, 3:
		ev = Answer{Description: d, Profile: p}
	case 4, 5:
		ev = Update{Offer: d, Profile: p, Hold: x.dice.IntN(2) == 0}
	case 6:
		ev = Refuse{Cause: IncompatibleMedia}
	case 7:
		ev = Digit{Digit: '5'}
	case 8:
		if x.dice.IntN(4) == 0 {
			delete(x.live, leg)
			ev = Release{Cause: causes[x.dice.IntN(len(causes))]}
		} else {
			ev = Transfer{Target: "+49"}
		}
	case 9, 10, 11:
		x.note("%s dead", leg)
		x.do(m.voice(VoiceDead{Leg: leg, Why: "no packets"}))
		return
	default:
		x.note("%s alive in %s", leg, realm)
		x.do(m.voice(VoiceAlive{Leg: leg, Realm: realm}))
		return
	}
	x.note("%s: %T %+v", leg, ev, ev)
	x.do(m.legEvent(leg, ev))
}

// Whatever happens in whatever order, no state is without a way out, nothing is
// sent to a leg that is gone, and a call ends once with all its legs released.
func TestNoOrderOfEventsHangsACall(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range uint64(6000) {
		x := &model{t: t, dice: rand.New(rand.NewPCG(seed, round)), live: map[string]bool{"caller": true}}
		x.m.caller = side{leg: "caller", profile: x.profile(), offerless: x.dice.IntN(5) == 0}
		emergency := x.dice.IntN(4) == 0
		for n := range x.dice.IntN(4) {
			x.m.targets = append(x.m.targets, Target{Name: fmt.Sprint(n), Profile: x.profile(), Emergency: emergency})
		}
		x.note("round %d, emergency %v, %d targets", round, emergency, len(x.m.targets))
		x.do(x.m.start())
		x.check()
		for range 60 {
			if x.m.phase == over {
				if acts := append(x.m.expired(ringTimer), x.m.legEvent("caller", Progress{})...); len(acts) > 0 {
					x.failf("after the end: %v", acts)
				}
				break
			}
			x.event()
			x.check()
		}
	}
}
