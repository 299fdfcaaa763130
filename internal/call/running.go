package call

import (
	"time"

	"localloop/internal/sdp"
)

// update takes a new offer of a leg. One that comes while ours is out is
// refused: ours waits behind it in the leg and would be of a state that is gone
// (RFC 3261 §14.2). The peer repeats its own. Before the answer the offer of the
// INVITE is still open.
func (m *machine) update(s *side, u Update) []action {
	acts := noteTeams(u.Teams)
	if s.asked || m.phase == seeking {
		return append(acts, doSend{s.leg, Refuse{Cause: RequestPending}})
	}
	p := s.profile
	if u.Profile != nil {
		p = s.lead(*u.Profile)
	}
	return append(acts, doReoffered{leg: s.leg, offer: u.Offer, profile: p, hold: u.Hold})
}

// lead is the profile to use for a peer whose whereabouts are heard anew: a
// realm where its voice has died is not tried again in this call.
func (s *side) lead(p sdp.Profile) sdp.Profile {
	if p.Realm != s.shunned || p.Realm == "" {
		return p
	}
	p.Realm, p.Fallback = s.profile.Realm, s.profile.Fallback
	return p
}

// agreed reports that an offer of the peer was accepted. With asked our answer
// was an offer.
func (m *machine) agreed(leg string, p sdp.Profile, hold, asked bool) []action {
	s := m.side(leg)
	if s == nil || m.phase == over {
		return nil
	}
	changed := s.held != hold
	s.profile, s.held, s.asked = p, hold, asked
	if !changed {
		return nil
	}
	acts := m.sound()
	if !hold && s.dead != "" { // it had fallen silent by agreement; now it is missed
		acts = append(acts, doStart{checkTimer, m.limits.Restart})
	}
	return acts
}

// updated takes the answer to an offer of ours: to an Update, or in the ACK of
// an offerless call.
func (m *machine) updated(s *side, ev Answer) []action {
	acts := noteTeams(ev.Teams)
	if !s.asked {
		return acts // answers nothing of ours
	}
	s.asked, s.answered = false, true
	if ev.Description != nil {
		acts = append(acts, doAnswered{leg: s.leg, desc: ev.Description})
	}
	if ev.Profile != nil && !s.moving {
		acts = append(acts, doRelocate{s.leg, *ev.Profile})
	}
	return acts
}

// sound gives each side what it is to hear.
func (m *machine) sound() []action {
	a, b := &m.caller, &m.callee
	var acts []action
	switch {
	case a.lost || b.lost:
		if b.lost && !a.lost {
			acts = append(acts, doPlay{a.leg, Unavailable})
		}
		if a.lost && !b.lost {
			acts = append(acts, doPlay{b.leg, Unavailable})
		}
	case a.held && b.held:
	case a.held:
		acts = append(acts, doPlay{b.leg, Music})
	case b.held:
		acts = append(acts, doPlay{a.leg, Music})
	default:
		acts = append(acts, doJoin{a.leg, b.leg})
	}
	return acts
}

// relocate moves a leg because its peer is elsewhere than was guessed.
func (m *machine) relocate(leg string, p sdp.Profile) []action {
	s := m.side(leg)
	if s == nil || s.moving || m.phase == over {
		return nil
	}
	p = s.lead(p)
	if s.profile.Realm == p.Realm || p.Realm == "" {
		s.profile = p
		return nil
	}
	return m.move(s, p, "peer is not in the building")
}

// move asks a leg to go to the realm of a profile.
func (m *machine) move(s *side, p sdp.Profile, why string) []action {
	s.before, s.cause = s.profile, why
	s.profile, s.moving, s.asked, s.answered = p, true, true, false
	return []action{doMove{s.leg, p}, doStart{m.restartTimer(s), m.restartLimit(s)}}
}

func (m *machine) restartTimer(s *side) timer {
	if s == &m.caller {
		return restartCallerTimer
	}
	return restartCalleeTimer
}

func (m *machine) restartLimit(s *side) time.Duration {
	if d := s.profile.RestartWithin; d > 0 {
		return d
	}
	return m.limits.Restart
}

// voice takes an event of the bridge.
func (m *machine) voice(ev BridgeEvent) []action {
	if m.phase == over {
		return nil
	}
	switch ev := ev.(type) {
	case VoiceAlive:
		if s := m.side(ev.Leg); s != nil {
			return m.alive(s, ev.Realm)
		}
	case VoiceDead:
		if s := m.side(ev.Leg); s != nil {
			return m.dead(s, ev.Why)
		}
	}
	return nil
}

func (m *machine) alive(s *side, realm string) []action {
	s.dead, s.at = "", realm
	if m.phase == seeking {
		if m.try.early && !m.try.cut && s == &m.callee {
			m.try.cut = true
			return []action{doJoin{m.caller.leg, m.callee.leg}}
		}
		return nil
	}
	var acts []action
	switch {
	case s.moving && realm != s.profile.Realm:
		return nil // the old path came back while the new one is set up
	case s.moving:
		s.moving = false
		mv := Move{From: s.before.Realm, To: s.profile.Realm, Why: s.cause, OK: true}
		acts = append(acts, doStop{m.restartTimer(s)}, noteMove(mv))
	case !s.lost:
		return nil
	}
	s.lost = false
	if m.phase == lost && !m.other(s).lost {
		m.phase = up
		acts = append(acts, doStop{lostTimer})
	}
	return append(acts, m.sound()...)
}

func noteMove(mv Move) action {
	return doNote{func(s *Summary) {
		mv.After = time.Since(s.Answer)
		s.Moves = append(s.Moves, mv)
	}}
}

// dead takes the report that nothing arrives from a leg. The bridge says so
// once, so it is kept where nothing is done about it yet: before the answer, on
// hold, where silence is agreed upon, and during a move, which has a timer.
func (m *machine) dead(s *side, why string) []action {
	if s.dead = why; why == "" {
		s.dead = "no voice"
	}
	if m.phase == seeking {
		return nil
	}
	return m.missed(s)
}

// missed looks after a leg from which nothing arrives though it should: the
// ladder of docs/decisions/failover.md. The restart in the other realm is our inference from
// the published rules (plain retargeting is not honoured, an ICE restart is).
func (m *machine) missed(s *side) []action {
	if m.phase == over || s.dead == "" || s.held || s.moving || s.lost {
		return nil
	}
	home := s.at
	if home == "" {
		home = s.profile.Realm
	}
	to := s.profile.Fallback
	if to == "" { // signalling has led the peer elsewhere, its voice did not follow
		to = s.profile.Realm
	}
	if to == "" || to == home {
		return m.lose(s, s.dead)
	}
	p := s.profile
	p.Realm, p.Fallback = to, ""
	s.shunned = home
	return append([]action{doTrouble{s.leg, s.dead}}, m.move(s, p, s.dead)...)
}

func (m *machine) moveExpired(s *side) []action {
	if !s.moving {
		return nil
	}
	why := "not answered in " + m.restartLimit(s).String()
	if s.answered {
		why = "no connectivity check in " + m.restartLimit(s).String()
	}
	return m.moveFailed(s, why)
}

// moveFailed ends the attempt to move a leg.
func (m *machine) moveFailed(s *side, why string) []action {
	s.moving = false
	to := s.profile.Realm
	acts := []action{doStop{m.restartTimer(s)}, noteMove(Move{From: s.before.Realm, To: to, Why: s.cause + "; " + why})}
	if s.dead == "" && s.at == s.before.Realm {
		// The old path works, or works again.
		s.profile, s.shunned = s.before, ""
		return acts
	}
	return append(acts, m.lose(s, s.cause+"; move to "+to+" failed: "+why)...)
}

// lose tells the other party that the way to a leg is lost and gives it a short
// time to come back. An emergency call is left to the people on it: one of them
// may still be heard, and nobody else may end it.
func (m *machine) lose(s *side, why string) []action {
	if m.emergency() {
		return nil
	}
	s.lost = true
	var acts []action
	if m.phase != lost {
		m.phase = lost
		m.last, m.why = MediaLost, why
		acts = append(acts, doStart{lostTimer, m.limits.Lost})
	}
	return append(acts, m.sound()...)
}
