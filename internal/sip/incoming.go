package sip

import (
	"strconv"
	"time"

	"localloop/internal/call"
	"localloop/internal/sdp"
)

// incoming starts the leg of an INVITE that was answered with 100.
func (g *leg) incoming(s *serverTx) {
	g.invite = s
	g.t.enter(g, legKey(s.m.callID, g.localTag), mergeKey(s.m))
	if !g.start(func() { g.setup(s) }) {
		g.t.drop(g)
		s.respond(503, g.localTag, nil, "", nil)
	}
}

// setup reads the INVITE and hands the leg to the call engine.
func (g *leg) setup(s *serverTx) {
	m := s.m
	g.d = uasDialog(m, g.localTag)
	g.d.last = flow{link: s.l, to: s.src}
	offer, err := m.description()
	if err != nil {
		g.log.Info("offer refused", "error", err)
		g.turnAway(call.IncompatibleMedia.With("offer: %s", clip(err.Error())))
		return
	}
	called := m.called()
	if called == "" {
		g.turnAway(call.UnallocatedNumber.With("no number in the Request-URI"))
		return
	}
	setup := call.Setup{
		Calling: m.callingParty(), Called: called, Source: g.t.name, Offer: offer,
		Ref: m.callID, Profile: g.t.live.Load().profile(false), MaxForwards: m.maxForwards(),
	}
	if g.t.teams {
		setup.Teams = m.teamsHeaders()
		setup.Profile = g.t.realm(setup.Teams, g.log)
	}
	g.log.Info("incoming call", "called", setup.Called, "ref", setup.Ref)
	g.emit(setup)
	g.t.e.opt.Accept(g)
	if g.t.teams {
		// Microsoft counts to ten for a first answer and then takes another
		// trunk (C-38). A 183 alone says only that we are at it.
		g.ringing = g.after(g.t.e.times.alert, func() { g.provisional(183) })
	}
}

// turnAway refuses an INVITE that the call engine never hears of.
func (g *leg) turnAway(c call.Cause) {
	g.refuseInvite(finalStatus(c), c)
	g.over, g.closed = true, true
	close(g.events)
}

func (g *leg) refuseInvite(status int, c call.Cause) {
	g.stopRinging()
	g.invite.respond(status, g.localTag, []field{reasonField(c, false)}, "", nil)
}

// realm chooses the profile by where Microsoft says its user is (Microsoft:
// Configure Local Media Optimization, the central SBC). Whatever is not plainly internal is external: an
// external user never reaches the internal address, and an internal one still
// reaches the external.
func (t *trunk) realm(h *call.TeamsHeaders, log logger) sdp.Profile {
	switch {
	case h != nil && h.UserLocation == "internal":
		return t.live.Load().profile(true)
	case h != nil && h.UserLocation == "external":
	case h == nil || h.UserLocation == "":
		if t.live.Load().bypass {
			log.Error("no X-MS-UserLocation on a bypass trunk: is BypassMode set in the tenant?")
		}
	default:
		log.Error("unknown X-MS-UserLocation, taken for external", "value", h.UserLocation)
	}
	return t.live.Load().profile(false)
}

type logger interface{ Error(msg string, args ...any) }

// progress sends 180 or 183.
func (g *leg) progress(e call.Progress) {
	if g.invite == nil || g.invite.final.Load() != 0 {
		return
	}
	status := 183
	if e.Ringing {
		status = 180
	} else if e.Answer == nil {
		return
	}
	// To an INVITE without an offer an unreliable response can bring none
	// (RFC 3261 §13.2.1): it waits for the 200.
	if e.Answer != nil && len(g.invite.m.body) > 0 {
		g.early = e.Answer.Marshal()
	}
	g.stopRinging()
	g.provisional(status)
}

// provisional sends a response now and again each minute, or proxies on the way
// give the call up (RFC 3261 §13.3.1.1).
func (g *leg) provisional(status int) {
	g.invite.respond(status, g.localTag, nil, "application/sdp", g.early)
	g.ringing = g.after(g.t.e.times.ring, func() { g.provisional(status) })
}

func (g *leg) stopRinging() {
	if g.ringing != nil {
		g.ringing()
		g.ringing = nil
	}
}

// answer sends the 200. Its description, when there was one in a provisional
// response, is the same (C-114).
func (g *leg) answer(e call.Answer) {
	if g.invite == nil || g.invite.final.Load() != 0 {
		return
	}
	body := g.early
	if e.Description != nil {
		body = e.Description.Marshal()
	}
	if body == nil {
		c := call.TemporaryFailure.With("answered without a description")
		g.refuseInvite(500, c)
		g.release(c, "")
		return
	}
	if !g.invite.l.alive() {
		// The 200 cannot be sent: Microsoft takes no response on another
		// connection, and waiting for its ACK would be half a minute of silence.
		c := call.NetworkOutOfOrder.With("the caller's connection is lost")
		g.refuseInvite(finalStatus(c), c)
		g.release(c, "")
		return
	}
	g.stopRinging()
	offered := len(g.invite.m.body) == 0
	g.invite.respond(200, g.localTag, nil, "application/sdp", body)
	g.await(g.invite, body, offered)
}

// onCancel is a CANCEL, already answered, for an INVITE of the peer.
func (g *leg) onCancel(s *serverTx, m *message) {
	if s.final.Load() != 0 {
		return // too late, RFC 3261 §9.2
	}
	s.respond(487, g.localTag, nil, "", nil)
	if s == g.reIn {
		g.reIn = nil // the call's answer to it will find nothing to answer
		g.nextUpdate()
		return
	}
	c := call.OriginatorCancelled
	if answeredElsewhere(m) {
		c = call.AnsweredElsewhere
	} else if q, text := reasonQ850(m); q != 0 {
		c.Q850, c.Text = q, text
	}
	g.release(c, "")
}

// maxForwards reads Max-Forwards; 70 if there is none, the value that RFC 3261
// §16.6 gives such a request.
func (m *message) maxForwards() int {
	if n, err := strconv.Atoi(m.get("max-forwards")); err == nil {
		return n
	}
	return defaultForwards
}

const defaultForwards = 70

// heldBy reports whether a description leaves the other party without any
// voice: inactive, or the old form with an unspecified address (C-69). A peer
// that sends only has music of its own, which ours must not cover (C-71).
func heldBy(d *sdp.Description) bool {
	return d != nil && d.Held() && (!d.Direction.Sends() || d.RTP.Addr().IsUnspecified())
}

// times are the timers of a trunk. Tests shorten them.
type times struct {
	t1, t2  time.Duration // RFC 3261 §17.1.1.1
	connect time.Duration // TCP and TLS to a peer
	first   time.Duration // first provisional response to an INVITE, then the next peer
	ask     time.Duration // answer to OPTIONS
	renew   time.Duration // age of a connection of ours
	ring    time.Duration // between provisional responses
	alert   time.Duration // first provisional response to Microsoft
}
