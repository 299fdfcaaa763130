package sip

import (
	"errors"
	"strconv"
	"strings"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"localloop/internal/call"
	"localloop/internal/sdp"
)

// reinvite is an offer of ours in a running call.
type reinvite struct {
	offer *sdp.Description
	cseq  uint32
	acked func() // sends the ACK again; nil before the 2xx
	rest  func() // stops the wait before it is repeated; nil while it is not waiting
	done  bool
}

// open reports whether the peer has the offer before it: while we wait to
// repeat one that it refused with 491, it has not.
func (r *reinvite) open() bool { return r != nil && !r.done && r.rest == nil }

// onReinvite is an offer of the peer in a running call. Session refreshes
// (RFC 4028) come this way too and are obeyed like any other (C-48).
func (g *leg) onReinvite(s *serverTx) {
	switch {
	case g.reOut.open():
		s.respond(491, g.localTag, nil, "", nil) // glare, C-75
		return
	case g.reIn != nil, g.invite != nil && g.invite.final.Load() == 0:
		// RFC 3261 §14.2.
		s.respond(500, g.localTag, []field{{"Retry-After", strconv.Itoa(int(jitter(10*time.Second) / time.Second))}}, "", nil)
		return
	case g.ack != nil && g.ack.offered:
		s.respond(491, g.localTag, nil, "", nil)
		return
	}
	// The peer has our 200: its ACK is on another connection, or lost.
	if g.byeCause == nil {
		g.stopAck()
	}
	offer, err := s.m.description()
	if err != nil {
		s.respond(488, g.localTag, []field{reasonField(call.IncompatibleMedia, false)}, "", nil)
		return
	}
	s.respond(100, "", nil, "", nil)
	g.d.refresh(s.m)
	g.reIn = s
	u := call.Update{Offer: offer, Hold: heldBy(offer)}
	if g.t.teams {
		if u.Teams = s.m.teamsHeaders(); u.Teams != nil && u.Teams.UserLocation != "" {
			p := g.t.realm(u.Teams, g.log)
			u.Profile = &p
		}
	}
	g.emit(u)
	// A call engine that forgets must not leave the peer without an answer.
	g.after(64*g.t.e.times.t1, func() {
		if g.reIn == s {
			g.refuseUpdate(call.TemporaryFailure)
		}
	})
}

func (g *leg) answerUpdate(e call.Answer) {
	s := g.reIn
	if e.Description == nil {
		g.refuseUpdate(call.IncompatibleMedia)
		return
	}
	g.reIn = nil
	body := g.describe(e.Description)
	s.respond(200, g.localTag, nil, "application/sdp", body)
	g.await(s, body, len(s.m.body) == 0)
}

func (g *leg) refuseUpdate(c call.Cause) {
	s := g.reIn
	if s == nil {
		return
	}
	g.reIn = nil
	status := finalStatus(c)
	if status == 480 || status == 487 {
		status = 488 // the call stays
	}
	s.respond(status, g.localTag, []field{reasonField(c, false)}, "", nil)
	g.nextUpdate()
}

// update sends an offer of ours, or keeps it until it may be sent.
func (g *leg) update(u call.Update) {
	switch {
	case u.Offer == nil:
		// Microsoft answers an INVITE without an offer with inactive (C-70).
		g.emit(call.Refuse{Cause: call.IncompatibleMedia.With("a re-INVITE needs an offer")})
	case g.invite != nil && g.invite.final.Load() == 0, g.invite == nil && g.d == nil:
		g.emit(call.Refuse{Cause: call.TemporaryFailure.With("not answered yet")})
	case len(g.waiting) >= maxWaiting:
		g.emit(call.Refuse{Cause: call.Congestion42.With("too many offers at once")})
	default:
		g.waiting = append(g.waiting, u)
		g.nextUpdate()
	}
}

const maxWaiting = 8

// nextUpdate sends the next offer that waits, once neither side has one open
// (RFC 3264 §4).
func (g *leg) nextUpdate() {
	if g.over || len(g.waiting) == 0 || g.reIn != nil || g.ack != nil || g.reOut != nil && !g.reOut.done {
		return
	}
	u := g.waiting[0]
	g.waiting = g.waiting[1:]
	g.reOut = &reinvite{offer: u.Offer}
	g.reinvite(g.reOut)
}

// describe writes a description of a running call. Its version is above what went
// before (RFC 3264 §8) even if it was made earlier: an offer that is repeated after
// the peer's own was answered.
func (g *leg) describe(d *sdp.Description) []byte {
	if d.Version != g.given || g.version == 0 {
		g.version = max(g.version+1, d.Version)
	}
	g.given = d.Version
	out := *d
	out.Version = g.version
	return out.Marshal()
}

func (g *leg) reinvite(r *reinvite) {
	r.cseq = g.d.next()
	req, target := g.d.request(g.t, "INVITE", r.cseq, nil, "application/sdp", g.describe(r.offer))
	g.inDialog(g.d, func(f flow) {
		f.target = target
		answered, late := false, false
		tx := g.request(req, f, func(m *message) {
			if m.status >= 200 {
				answered = true
				g.onUpdated(r, m)
			}
		}, func(err error) {
			switch {
			case answered:
			case late:
				g.updateLost(r, sipgo.ErrTransactionTimeout)
			default:
				g.updateLost(r, err)
			}
		})
		if tx == nil {
			return
		}
		// A 100 has stopped Timer B, and neither the call nor the transaction
		// may wait for ever. Nobody has to lift a phone for this answer.
		g.after(64*g.t.e.times.t1, func() {
			if !answered {
				late = true
				tx.Terminate()
			}
		})
	}, func(err error) { g.updateLost(r, err) })
}

// onUpdated is the final response to our re-INVITE, RFC 3261 §14.1.
func (g *leg) onUpdated(r *reinvite, m *message) {
	if m.status < 300 {
		if r.acked == nil {
			g.d.refresh(m)
			r.acked = g.acknowledge(g.d, r.cseq)
		}
		r.acked()
	}
	if r.done || g.over {
		return
	}
	switch {
	case m.status < 300:
		r.done = true
		desc, err := m.description()
		if err != nil || desc == nil {
			g.emit(call.Refuse{Cause: call.IncompatibleMedia.With("answer without a usable description")})
			break
		}
		e := call.Answer{Description: desc}
		if g.t.teams {
			e.Teams = m.teamsHeaders()
		}
		g.emit(e)
	case m.status == 491:
		// Meanwhile the peer's own offer may come: that is what the two waits
		// of RFC 3261 §14.1 are for.
		r.rest = g.after(g.glare(), func() { g.repeat(r) })
		return
	case m.status == 481 || m.status == 408:
		// The peer knows nothing of the dialog any more (C-78).
		r.done = true
		c := causeOf(m.status, m)
		g.bye(g.d, c)
		g.endUpdates()
		g.release(c, "")
		return
	default:
		r.done = true
		g.emit(call.Refuse{Cause: causeOf(m.status, m)})
	}
	g.nextUpdate()
}

// repeat sends an offer again that was refused with 491. Where the peer's is
// open by now, ours follows it.
func (g *leg) repeat(r *reinvite) {
	switch {
	case g.over || r.done || r.rest == nil:
	case g.reIn != nil || g.ack != nil:
		r.rest()
		r.rest = g.after(g.glare(), func() { g.repeat(r) })
	default:
		r.rest()
		r.rest = nil
		g.reinvite(r)
	}
}

// glare is how long to wait after a 491, RFC 3261 §14.1: the side that chose the
// Call-ID yields longer.
func (g *leg) glare() time.Duration {
	const step = 10 * time.Millisecond
	d := jitter(2 * time.Second)
	if g.calling != nil {
		d = 2100*time.Millisecond + jitter(1900*time.Millisecond)
	}
	return d.Truncate(step) * g.t.e.times.t1 / (500 * time.Millisecond)
}

func (g *leg) updateLost(r *reinvite, err error) {
	if r.done || g.over {
		return
	}
	r.done = true
	if errors.Is(err, sipgo.ErrTransactionTimeout) {
		c := call.RecoveryOnTimer.With("no answer to our re-INVITE")
		g.bye(g.d, c)
		g.endUpdates()
		g.release(c, "")
		return
	}
	g.emit(call.Refuse{Cause: call.TemporaryFailure.With("re-INVITE not sent: connection lost")})
	g.nextUpdate()
}

// onInfo is a digit in signalling, application/dtmf-relay.
func (g *leg) onInfo(s *serverTx) {
	d, ok := dtmfRelay(s.m.get("content-type"), string(s.m.body))
	if !ok {
		s.respond(415, g.localTag, []field{{"Accept", "application/dtmf-relay"}}, "", nil)
		return
	}
	s.respond(200, g.localTag, nil, "", nil)
	g.emit(d)
}

func dtmfRelay(contentType, body string) (call.Digit, bool) {
	kind := mediaType(contentType)
	if kind != "application/dtmf-relay" && kind != "application/dtmf" {
		return call.Digit{}, false
	}
	d := call.Digit{Duration: 160 * time.Millisecond}
	if kind == "application/dtmf" {
		body = "Signal=" + body
	}
	for line := range strings.Lines(body) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "signal":
			if len(value) == 1 && strings.IndexByte("0123456789*#ABCDabcd", value[0]) >= 0 {
				d.Digit = strings.ToUpper(value)[0]
			}
		case "duration":
			if n, err := strconv.ParseUint(value, 10, 16); err == nil && n > 0 && n <= 5000 {
				d.Duration = time.Duration(n) * time.Millisecond
			}
		}
	}
	return d, d.Digit != 0
}

// sendDigit carries a digit in signalling. Microsoft takes none this way.
func (g *leg) sendDigit(d call.Digit) {
	if g.t.teams || g.d == nil || strings.IndexByte("0123456789*#ABCD", d.Digit) < 0 {
		return
	}
	body := "Signal=" + string(rune(d.Digit)) + "\r\nDuration=" + strconv.Itoa(int(d.Duration/time.Millisecond)) + "\r\n"
	req, target := g.d.request(g.t, "INFO", g.d.next(), nil, "application/dtmf-relay", []byte(body))
	g.inDialog(g.d, func(f flow) {
		f.target = target
		g.request(req, f, func(*message) {}, func(error) {})
	}, nil)
}
