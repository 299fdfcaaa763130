package call

import (
	"time"

	"localloop/internal/sdp"
)

// Limits are the times of a call. The zero value of a field means the default.
type Limits struct {
	// Seize is how long a call may look for a target that shows a sign of life
	// (Progress or Answer) before the caller gets 503. Teams gives up after
	// 10 s and would not try the next trunk in time, so stay well below
	// (C-38, C-39). Default 6 s.
	Seize time.Duration
	// TryNext is how long one target may stay without a sign of life while
	// there are others to try. Default 4 s.
	TryNext time.Duration
	// Ring is how long a target may alert. Default 120 s.
	Ring time.Duration
	// Restart is how long a move of a leg to another realm may take.
	// Default 2 s.
	Restart time.Duration
	// Lost is how long a party hears that the other side is lost before the
	// call is released, and how long a leg without a fallback may stay dead.
	// Default 5 s.
	Lost time.Duration
}

func (l Limits) withDefaults() Limits {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&l.Seize, 6*time.Second)
	set(&l.TryNext, 4*time.Second)
	set(&l.Ring, 120*time.Second)
	set(&l.Restart, 2*time.Second)
	set(&l.Lost, 5*time.Second)
	return l
}

// phase is where a call stands.
//
//	          targets            Answer
//	(Setup) ─────────► seeking ─────────► up ───┐ VoiceDead, no way left
//	                    │  ▲               │    ▼
//	      refused, next └──┘               │   lost ─── Lost over ──┐
//	                    │                  │                        │
//	                    └── no target left ┴── Release ─────────────┴──► over
type phase uint8

const (
	seeking phase = iota
	up
	lost // one side hears that the other cannot be reached
	over
)

// timer names the timers of a call; each runs at most once at a time.
type timer uint8

const (
	seizeTimer timer = iota
	tryTimer
	ringTimer
	restartTimer
	lostTimer
	timers // how many there are
)

// machine is the state of a call without its legs, voice and clocks. Its
// methods take what happened and return what is to be done: no side effect, no
// clock, so that each rule is a table test.
type machine struct {
	phase  phase
	limits Limits

	caller side
	callee side

	targets []Target
	next    int // index of the target to try after the current one
	early   bool
	alerted bool
	last    Cause // why the last target was left
	why     string
}

// side is one side of the call.
type side struct {
	leg     string // empty: none
	profile sdp.Profile
	// offerless: the INVITE had no SDP, so that our answer carries an offer.
	offerless bool
	// moving: an Update of ours to another realm is under way.
	moving   bool
	from     string // realm before the move
	cause    string // why it moves
	broken   bool   // the move was forced by a dead path
	answered bool   // the peer answered the Update
}

// action is one thing for the runner to do. Actions are done in order.
type action interface{ action() }

type (
	// doSend sends an event that carries no description of ours.
	doSend struct {
		leg string
		ev  Event
	}
	// doDial asks the bridge for an offer and dials. The runner reports
	// inDialed or inFault.
	doDial struct{ target Target }
	// doProgress sends 18x to the caller, with our answer when media is wanted.
	doProgress struct{ ringing, media bool }
	// doAnswer sends our answer to the leg's offer (or, for an offerless
	// caller, our offer).
	doAnswer struct{ leg string }
	// doAnswered gives the bridge the peer's answer.
	doAnswered struct {
		leg  string
		desc *sdp.Description
	}
	// doReoffered gives the bridge the peer's new offer and sends our answer.
	doReoffered struct {
		leg     string
		offer   *sdp.Description
		profile sdp.Profile
	}
	// doMove asks the bridge for an offer in the realm of the profile and sends
	// it as an Update.
	doMove struct {
		leg     string
		profile sdp.Profile
	}
	doJoin struct{ a, b string }
	doPlay struct {
		leg  string
		tone Tone
	}
	doHold struct {
		leg string
		on  bool
	}
	doDigit struct {
		leg string
		d   Digit
	}
	doDrop  struct{ leg string }
	doStart struct {
		t timer
		d time.Duration
	}
	doStop struct{ t timer }
	// doNote writes into the summary.
	doNote struct{ f func(*Summary) }
	// doTrouble tells the outside that local voice of this leg's trunk is broken.
	doTrouble struct{ leg, why string }
	// doEnd closes the voice and the record.
	doEnd struct {
		cause   Cause
		reason  string
		endedBy string
	}
)

func (doSend) action()      {}
func (doDial) action()      {}
func (doProgress) action()  {}
func (doAnswer) action()    {}
func (doAnswered) action()  {}
func (doReoffered) action() {}
func (doMove) action()      {}
func (doJoin) action()      {}
func (doPlay) action()      {}
func (doHold) action()      {}
func (doDigit) action()     {}
func (doDrop) action()      {}
func (doStart) action()     {}
func (doStop) action()      {}
func (doNote) action()      {}
func (doTrouble) action()   {}
func (doEnd) action()       {}

const self = "edged"

// start begins the search for a target.
func (m *machine) start() []action {
	m.limits = m.limits.withDefaults()
	return append([]action{doStart{seizeTimer, m.limits.Seize}}, m.tryNext(NoCircuit, "no target")...)
}

// tryNext dials the next target, or ends the call with the cause of the last.
func (m *machine) tryNext(cause Cause, why string) []action {
	m.last, m.why = cause, why
	if m.next >= len(m.targets) {
		return m.end(cause, why, self)
	}
	t := m.targets[m.next]
	m.next++
	m.callee = side{profile: t.Profile}
	acts := []action{doStop{ringTimer}, doStop{tryTimer}}
	if m.next < len(m.targets) {
		acts = append(acts, doStart{tryTimer, m.limits.TryNext})
	}
	return append(acts, doDial{t})
}

// dialed reports the leg that doDial made.
func (m *machine) dialed(leg string) []action {
	m.callee.leg = leg
	return nil
}

// fault reports that an action on a leg failed on our side: no offer could be
// made, a description could not be used. An empty leg means that the target
// could not be dialled at all.
func (m *machine) fault(leg string, cause Cause, why string) []action {
	if m.phase == over {
		return nil
	}
	if m.phase == seeking && leg == m.callee.leg {
		return append(m.dropCallee(cause, why), m.tryNext(cause, why)...)
	}
	if s := m.side(leg); s != nil && s.moving {
		return m.moveFailed(leg, why)
	}
	return m.end(cause, why, self)
}

// dropCallee releases the pending leg, if there is one.
func (m *machine) dropCallee(cause Cause, why string) []action {
	acts := []action{doNote{func(s *Summary) { s.attemptEnded(cause, why) }}}
	if leg := m.callee.leg; leg != "" {
		acts = append(acts, doSend{leg, Release{Cause: cause, Reason: why}}, doDrop{leg})
	}
	m.callee = side{}
	m.early = false
	return acts
}

func (s *Summary) attemptEnded(cause Cause, why string) {
	if n := len(s.Attempts); n > 0 {
		s.Attempts[n-1].Cause, s.Attempts[n-1].Reason = cause, why
	}
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

func (m *machine) other(leg string) string {
	if leg == m.caller.leg {
		return m.callee.leg
	}
	return m.caller.leg
}

// leg takes an event of a leg.
func (m *machine) legEvent(leg string, ev Event) []action {
	s := m.side(leg)
	if s == nil || m.phase == over {
		return nil // a leg that was already left
	}
	if r, ok := ev.(Release); ok {
		return m.released(leg, r)
	}
	if d, ok := ev.(Digit); ok {
		if m.phase == up {
			return []action{doDigit{m.other(leg), d}}
		}
		return nil
	}
	if u, ok := ev.(Update); ok {
		return m.update(leg, s, u)
	}
	if m.phase == seeking && s == &m.callee {
		return m.calleeEvent(ev)
	}
	switch ev := ev.(type) {
	case Answer: // to an Update of ours, or the ACK of an offerless call
		acts := noteTeams(ev.Teams)
		if ev.Description != nil {
			acts = append(acts, doAnswered{leg, ev.Description})
		}
		s.answered = true
		return acts
	case Refuse:
		if s.moving {
			return m.moveFailed(leg, "refused: "+ev.Cause.String())
		}
	}
	return nil
}

// calleeEvent takes events of the pending leg of the called side.
func (m *machine) calleeEvent(ev Event) []action {
	switch ev := ev.(type) {
	case Progress:
		acts := []action{doStop{seizeTimer}, doStop{tryTimer}}
		if !m.alerted {
			m.alerted = true
			acts = append(acts, doNote{noteAlert}, doStart{ringTimer, m.ringLimit()})
		}
		switch {
		case ev.Answer != nil:
			acts = append(acts, doAnswered{m.callee.leg, ev.Answer})
			if !m.early {
				// Ringback of ours until the callee really sends voice: a 183 is
				// often silent (C-54, C-55).
				m.early = true
				acts = append(acts, doProgress{ringing: ev.Ringing, media: true}, doPlay{m.caller.leg, Ringback})
			}
		case m.caller.profile.Line != "":
			acts = append(acts, doProgress{ringing: true}, doPlay{m.caller.leg, Ringback})
		default:
			acts = append(acts, doProgress{ringing: ev.Ringing})
		}
		return acts
	case Answer:
		m.phase = up
		acts := noteTeams(ev.Teams)
		acts = append(acts, doStop{seizeTimer}, doStop{tryTimer}, doStop{ringTimer}, doNote{noteAnswer})
		if ev.Description != nil {
			acts = append(acts, doAnswered{m.callee.leg, ev.Description})
		}
		acts = append(acts, doAnswer{m.caller.leg}, doJoin{m.caller.leg, m.callee.leg})
		if p := ev.Profile; p != nil {
			acts = append(acts, m.relocate(m.callee.leg, *p)...)
		}
		return acts
	}
	return nil
}

func noteAlert(s *Summary)  { s.Alert = time.Now() }
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
func (m *machine) released(leg string, r Release) []action {
	why := r.Reason
	if why == "" {
		why = r.Cause.Text
	}
	if m.phase == seeking && leg == m.callee.leg {
		m.callee.leg = "" // it is gone already: nothing to send
		acts := append(m.dropCallee(r.Cause, why), doDrop{leg})
		if r.Cause.TryNext() && m.next < len(m.targets) && !m.alerted {
			return append(acts, m.tryNext(r.Cause, why)...)
		}
		return append(acts, m.end(r.Cause, why, leg)...)
	}
	return m.end(r.Cause, why, leg)
}

// update takes a new offer of a leg in a running or an early call.
func (m *machine) update(leg string, s *side, u Update) []action {
	acts := noteTeams(u.Teams)
	p := s.profile
	if u.Profile != nil {
		p = *u.Profile
		s.profile = p
	}
	acts = append(acts, doReoffered{leg, u.Offer, p})
	if m.phase == up {
		if other := m.other(leg); other != "" {
			if u.Hold {
				acts = append(acts, doPlay{other, Music})
			} else {
				acts = append(acts, doJoin{m.caller.leg, m.callee.leg})
			}
		}
	}
	return acts
}

// relocate moves a leg because its peer is elsewhere than was guessed.
func (m *machine) relocate(leg string, p sdp.Profile) []action {
	s := m.side(leg)
	if s.profile.Realm == p.Realm || p.Realm == "" {
		s.profile = p
		return nil
	}
	s.from, s.cause, s.broken = s.profile.Realm, "peer is not in the building", false
	s.profile, s.moving, s.answered = p, true, false
	return []action{doMove{leg, p}, doStart{restartTimer, m.limits.Restart}}
}

// voice takes an event of the bridge.
func (m *machine) voice(ev BridgeEvent) []action {
	if m.phase == over {
		return nil
	}
	switch ev := ev.(type) {
	case VoiceAlive:
		return m.alive(ev)
	case VoiceDead:
		return m.dead(ev)
	}
	return nil
}

func (m *machine) alive(ev VoiceAlive) []action {
	s := m.side(ev.Leg)
	if s == nil {
		return nil
	}
	if m.phase == seeking {
		if m.early && s == &m.callee {
			return []action{doJoin{m.caller.leg, m.callee.leg}}
		}
		return nil
	}
	if s.moving {
		if ev.Realm != s.profile.Realm {
			return nil // the old path came back while the new one is set up
		}
		s.moving = false
		mv := Move{From: s.from, To: s.profile.Realm, Why: s.cause, OK: true}
		m.phase = up
		return []action{doStop{restartTimer}, doStop{lostTimer}, noteMove(mv), doJoin{m.caller.leg, m.callee.leg}}
	}
	if m.phase == lost {
		m.phase = up
		return []action{doStop{lostTimer}, doJoin{m.caller.leg, m.callee.leg}}
	}
	return nil
}

func noteMove(mv Move) action {
	return doNote{func(s *Summary) {
		mv.After = time.Since(s.Answer)
		s.Moves = append(s.Moves, mv)
	}}
}

// dead takes the report that nothing arrives from a leg: the ladder of
// docs/teams.md, Failover. The restart in the other realm is our inference from the
// published rules (plain retargeting is not honoured, an ICE restart is).
func (m *machine) dead(ev VoiceDead) []action {
	s := m.side(ev.Leg)
	if s == nil || m.phase != up || s.moving {
		return nil
	}
	if s.profile.Fallback == "" || s.profile.Fallback == s.profile.Realm {
		return m.lose(ev.Leg, ev.Why)
	}
	s.from, s.cause, s.broken = s.profile.Realm, ev.Why, true
	s.profile.Realm, s.profile.Fallback = s.profile.Fallback, ""
	s.moving, s.answered = true, false
	return []action{
		doTrouble{ev.Leg, ev.Why},
		doMove{ev.Leg, s.profile},
		doStart{restartTimer, m.limits.Restart},
	}
}

// moveFailed ends the attempt to move a leg.
func (m *machine) moveFailed(leg, why string) []action {
	s := m.side(leg)
	s.moving = false
	acts := []action{doStop{restartTimer}, noteMove(Move{From: s.from, To: s.profile.Realm, Why: s.cause + "; " + why})}
	if !s.broken {
		// The old path was a guess that was wrong: it never worked.
		return append(acts, m.lose(leg, "voice path to the peer could not be set up: "+why)...)
	}
	return append(acts, m.lose(leg, s.cause+"; move to "+s.profile.Realm+" failed: "+why)...)
}

// lose tells the other party that the way to leg is lost and gives it a short
// time to come back.
func (m *machine) lose(leg, why string) []action {
	m.phase = lost
	m.last, m.why = MediaLost, why
	return []action{doPlay{m.other(leg), Unavailable}, doStart{lostTimer, m.limits.Lost}}
}

// expired takes a timer.
func (m *machine) expired(t timer) []action {
	switch {
	case m.phase == over:
		return nil
	case t == seizeTimer && m.phase == seeking:
		return append(m.dropCallee(NoCircuit, "no sign of life"), m.end(NoCircuit, "nothing seized in "+m.limits.Seize.String(), self)...)
	case t == tryTimer && m.phase == seeking:
		why := "no sign of life in " + m.limits.TryNext.String()
		return append(m.dropCallee(NoUserResponding, why), m.tryNext(NoUserResponding, why)...)
	case t == ringTimer && m.phase == seeking:
		why := "not answered in " + m.ringLimit().String()
		return append(m.dropCallee(NoAnswer, why), m.end(NoAnswer, why, self)...)
	case t == restartTimer && m.phase == up:
		for _, leg := range []string{m.caller.leg, m.callee.leg} {
			s := m.side(leg)
			if s == nil || !s.moving {
				continue
			}
			why := "not answered in " + m.limits.Restart.String()
			if s.answered {
				why = "no connectivity check in " + m.limits.Restart.String()
			}
			return m.moveFailed(leg, why)
		}
	case t == lostTimer && m.phase == lost:
		return m.end(m.last, m.why, self)
	}
	return nil
}

// end releases what is left and closes the call.
func (m *machine) end(cause Cause, why, by string) []action {
	m.phase = over
	var acts []action
	for _, leg := range []string{m.caller.leg, m.callee.leg} {
		if leg != "" && leg != by {
			acts = append(acts, doSend{leg, Release{Cause: cause, Reason: why}})
		}
	}
	return append(acts, doEnd{cause: cause, reason: why, endedBy: by})
}
