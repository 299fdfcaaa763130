package call

import (
	"time"

	"localloop/internal/sdp"
)

// phase is where a call stands.
//
//	          targets            Answer
//	(Setup) ─────────► seeking ─────────► up ◄──── VoiceAlive ────┐
//	                    │  ▲               │                      │
//	      refused, next └──┘               └─ VoiceDead, no way ─► lost ─ Lost over ─┐
//	                    │                  │      left            │                  │
//	                    └── no target left ┴────── Release ───────┴──────────────────┴─► over
type phase uint8

const (
	seeking phase = iota
	up
	lost // a side cannot be reached; the other one hears so
	over
)

// timer names the timers of a call; each runs at most once at a time.
type timer uint8

const (
	seizeTimer timer = iota
	tryTimer
	ringTimer
	restartCallerTimer
	restartCalleeTimer
	checkTimer
	lostTimer
	timers // how many there are
)

// machine is the state of a call without its legs, voice and clocks. Its
// methods take what happened and return what is to be done: no side effect, no
// clock, so that each rule is a table test. This file holds set-up and release,
// running.go what happens while the call is up.
type machine struct {
	phase  phase
	limits Limits

	caller side
	callee side

	targets []Target
	next    int   // index of the target to try after the current one
	alerted bool  // some target has alerted
	last    Cause // why the last target was left, or the voice was lost
	why     string
	try     try
}

// try is what is known of the target being tried.
type try struct {
	alerted   bool
	described bool // the bridge has a description of it
	early     bool // the caller was told of early media
	tone      bool // the caller hears ringback of ours
	cut       bool // the caller hears the target
}

// side is one side of the call.
type side struct {
	leg     string // empty: none
	profile sdp.Profile
	// offerless: the INVITE had no SDP, so that our answer carries an offer.
	offerless bool
	asked     bool   // an offer of ours is out
	held      bool   // the peer neither sends nor hears, by its own wish
	dead      string // why nothing arrives from it; empty while its voice lives
	at        string // realm where its voice was heard last
	shunned   string // realm where its voice died: it is not led there again
	lost      bool   // no way to it is left

	// moving: an Update of ours to another realm is under way.
	moving   bool
	before   sdp.Profile // before the move
	cause    string      // why it moves
	answered bool        // the peer answered the Update
}

const self = Box

// emergency reports whether the call is exempt from limits.
func (m *machine) emergency() bool { return len(m.targets) > 0 && m.targets[0].Emergency }

// start begins the search for a target. An emergency call is not given up
// while there is somebody to try.
func (m *machine) start() []action {
	m.limits = m.limits.withDefaults()
	var acts []action
	if !m.emergency() {
		acts = append(acts, doStart{seizeTimer, m.limits.Seize})
	}
	return append(acts, m.tryNext(NoCircuit, "no target")...)
}

// tryNext dials the next target, or ends the call with the cause of the last.
func (m *machine) tryNext(cause Cause, why string) []action {
	m.last, m.why = cause, why
	if m.next >= len(m.targets) {
		return m.end(cause, why, self)
	}
	t := m.targets[m.next]
	m.next++
	m.callee, m.try = side{profile: t.Profile}, try{}
	acts := []action{doStop{ringTimer}, doStop{tryTimer}}
	if m.next < len(m.targets) {
		acts = append(acts, doStart{tryTimer, m.limits.TryNext})
	}
	if m.emergency() { // no seize timer bounds it
		acts = append(acts, doStart{ringTimer, m.ringLimit()})
	}
	return append(acts, doDial{t})
}

// another reports whether the call goes on to its next target after a cause.
// An emergency call does after every one: whoever answers first will do.
func (m *machine) another(c Cause) bool {
	return m.next < len(m.targets) && (m.emergency() || c.TryNext() && !m.alerted)
}

// leave gives up the current target, whose leg may have ended by itself.
func (m *machine) leave(cause Cause, why, by string) []action {
	acts := m.dropCallee(cause, why)
	if m.another(cause) {
		return append(acts, m.tryNext(cause, why)...)
	}
	return append(acts, m.end(cause, why, by)...)
}

// dialed reports the leg that doDial made.
func (m *machine) dialed(leg string) { m.callee.leg = leg }

// undescribed reports that an early description cannot be used: the answer may
// bring a better one, of this fork or another (C-56).
func (m *machine) undescribed() { m.try.described = false }

// fault reports that an action on a leg failed on our side: no offer could be
// made, a description could not be used. An empty leg means that the target
// could not be dialled at all.
func (m *machine) fault(leg string, cause Cause, why string) []action {
	if m.phase == over {
		return nil
	}
	if m.phase == seeking && leg == m.callee.leg {
		return m.leave(cause, why, self)
	}
	if s := m.side(leg); s != nil && s.moving {
		return m.moveFailed(s, why)
	}
	return m.end(cause, why, self)
}

// unjoined reports that two legs could not be joined. Early media is not worth
// a call.
func (m *machine) unjoined(why string) []action {
	if m.phase == seeking || m.phase == over {
		return nil
	}
	return m.end(IncompatibleMedia, why, self)
}

// dropCallee releases the pending leg, if there is one.
func (m *machine) dropCallee(cause Cause, why string) []action {
	acts := []action{noteLeft(cause, why)}
	if leg := m.callee.leg; leg != "" {
		acts = append(acts, doSend{leg, Release{Cause: cause, Reason: why}}, doDrop{leg})
	}
	m.callee, m.try = side{}, try{}
	return acts
}

func noteLeft(cause Cause, why string) action {
	return doNote{func(s *Summary) {
		if n := len(s.Attempts); n > 0 {
			s.Attempts[n-1].Cause, s.Attempts[n-1].Reason = cause, why
		}
	}}
}

func (m *machine) side(leg string) *side {
	switch {
	case leg == "":
		return nil
	case leg == m.caller.leg:
		return &m.caller
	case leg == m.callee.leg:
		return &m.callee
	}
	return nil
}

func (m *machine) other(s *side) *side {
	if s == &m.caller {
		return &m.callee
	}
	return &m.caller
}

// legEvent takes an event of a leg.
func (m *machine) legEvent(leg string, ev Event) []action {
	s := m.side(leg)
	if s == nil || m.phase == over {
		return nil // a leg that was already left
	}
	switch ev := ev.(type) {
	case Release:
		return m.released(s, ev)
	case Digit:
		if other := m.other(s); other.leg != "" && (m.phase == up || m.try.cut) {
			return []action{doDigit{other.leg, ev}}
		}
		return nil
	case Update:
		return m.update(s, ev)
	}
	if m.phase == seeking && s == &m.callee {
		switch ev := ev.(type) {
		case Progress:
			return m.progress(ev)
		case Answer:
			return m.answer(ev)
		}
		return nil
	}
	switch ev := ev.(type) {
	case Answer:
		return m.updated(s, ev)
	case Refuse:
		s.asked = false
		if s.moving {
			return m.moveFailed(s, "refused: "+ev.Cause.String())
		}
	}
	return nil
}

// progress takes a sign of life of the target being tried.
func (m *machine) progress(ev Progress) []action {
	acts := []action{doStop{seizeTimer}, doStop{tryTimer}}
	if !m.try.alerted {
		m.try.alerted = true
		acts = append(acts, doNote{func(s *Summary) { s.alert(time.Now()) }}, doStart{ringTimer, m.ringLimit()})
	}
	m.alerted = true
	if ev.Answer != nil {
		m.try.described = true
		acts = append(acts, doAnswered{leg: m.callee.leg, desc: ev.Answer, early: true})
	}
	switch onLine := m.caller.profile.Line != ""; {
	case ev.Answer != nil && m.caller.offerless:
		// An unreliable response cannot bring an offer of ours (RFC 3261
		// §13.2.1): early media waits for the answer, the caller rings.
		return append(acts, doProgress{ringing: true})
	case ev.Answer != nil && !m.try.early:
		m.try.early = true
		acts = append(acts, doProgress{ringing: ev.Ringing, media: true})
		if m.callee.profile.Line != "" {
			// What an exchange says is on the line from now on.
			m.try.cut = true
			return append(acts, doJoin{m.caller.leg, m.callee.leg})
		}
		// Ringback of ours until the callee really sends voice: a 183 is
		// often silent (C-54, C-55).
		if m.try.tone {
			return acts
		}
		m.try.tone = true
		return append(acts, doPlay{m.caller.leg, Ringback})
	case !onLine:
		return append(acts, doProgress{ringing: ev.Ringing})
	case m.try.tone || m.try.cut: // once is enough, and never over early media (C-53)
		return acts
	}
	m.try.tone = true
	return append(acts, doProgress{ringing: true}, doPlay{m.caller.leg, Ringback})
}

// answer takes the answer of the target being tried.
func (m *machine) answer(ev Answer) []action {
	if ev.Description == nil && !m.try.described {
		return m.leave(IncompatibleMedia, "answered without a description that can be used", self)
	}
	m.phase = up
	acts := noteTeams(ev.Teams)
	acts = append(acts, doStop{seizeTimer}, doStop{tryTimer}, doStop{ringTimer}, doNote{noteAnswer})
	if ev.Description != nil {
		acts = append(acts, doAnswered{leg: m.callee.leg, desc: ev.Description})
	}
	acts = append(acts, doConfirm{m.callee.leg})
	m.caller.asked = m.caller.offerless // the ACK brings the answer
	acts = append(acts, doAnswer{m.caller.leg}, doJoin{m.caller.leg, m.callee.leg})
	if m.caller.dead != "" || m.callee.dead != "" { // died as early media
		acts = append(acts, doStart{checkTimer, m.limits.Restart})
	}
	if ev.Profile != nil {
		acts = append(acts, doRelocate{m.callee.leg, *ev.Profile})
	}
	return acts
}

func noteAnswer(s *Summary) { s.Answer = time.Now() }

func noteTeams(h *TeamsHeaders) []action {
	if h == nil {
		return nil
	}
	return []action{doNote{func(s *Summary) { s.Teams = h }}}
}

func (m *machine) ringLimit() time.Duration {
	if t := m.targets[m.next-1].RingTimeout; t > 0 {
		return t
	}
	return m.limits.Ring
}

// released takes the end of a leg.
func (m *machine) released(s *side, r Release) []action {
	why := r.Reason
	if why == "" {
		why = r.Cause.Text
	}
	leg := s.leg
	if m.phase == seeking && s == &m.callee {
		s.leg = "" // it is gone already: nothing to send
		return append([]action{doDrop{leg}}, m.leave(r.Cause, why, leg)...)
	}
	return m.end(r.Cause, why, leg)
}

// expired takes a timer.
func (m *machine) expired(t timer) []action {
	if m.phase == over {
		return nil
	}
	switch t {
	case seizeTimer:
		if m.phase == seeking {
			return append(m.dropCallee(NoCircuit, "no sign of life"), m.end(NoCircuit, "nothing seized in "+m.limits.Seize.String(), self)...)
		}
	case tryTimer:
		if m.phase == seeking {
			why := "no sign of life in " + m.limits.TryNext.String()
			return append(m.dropCallee(NoUserResponding, why), m.tryNext(NoUserResponding, why)...)
		}
	case ringTimer:
		if m.phase == seeking {
			return m.leave(NoAnswer, "not answered in "+m.ringLimit().String(), self)
		}
	case restartCallerTimer:
		return m.moveExpired(&m.caller)
	case restartCalleeTimer:
		return m.moveExpired(&m.callee)
	case checkTimer:
		if acts := m.missed(&m.caller); len(acts) > 0 {
			// One list a side: a fault in it must not cost the other side.
			return append([]action{doStart{checkTimer, 0}}, acts...)
		}
		return m.missed(&m.callee)
	case lostTimer:
		if m.phase == lost {
			return m.end(m.last, m.why, self)
		}
	}
	return nil
}

// end releases what is left and closes the call.
func (m *machine) end(cause Cause, why, by string) []action {
	var acts []action
	if m.phase == seeking && m.callee.leg != "" {
		acts = append(acts, noteLeft(cause, why))
	}
	m.phase = over
	for _, leg := range []string{m.caller.leg, m.callee.leg} {
		if leg != "" && leg != by {
			acts = append(acts, doSend{leg, Release{Cause: cause, Reason: why}})
		}
	}
	return append(acts, doEnd{cause: cause, reason: why, endedBy: by})
}
