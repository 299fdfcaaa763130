package sip

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"

	sipgo "github.com/emiago/sipgo/sip"

	"localloop/internal/call"
)

type request = sipgo.Request

// outgoing is the part of a leg that calls: attempts at one peer after another.
type outgoing struct {
	number string
	hops   int // Max-Forwards
	party  call.Party
	offer  []byte
	try    []*peer
	tried  []*attempt
	cause  call.Cause // why the last attempt failed
}

// attempt is one INVITE to one peer. Its Call-ID and tag are its own: an attempt
// that is given up may still be answered, and must then not be taken for its
// successor.
type attempt struct {
	g      *leg
	peer   *peer
	flow   flow
	callID string
	tag    string
	cseq   uint32
	target string
	from   string // name-addr without tag
	to     string
	via    string // branch

	tx         *clientTx
	stopFirst  func()
	rang       bool // a provisional response came
	finished   bool // final response, or the transaction ended
	given      bool // nobody wants it any more
	cancelled  bool // CANCEL is out
	cancelFor  *call.Cause
	progressed map[[sha256.Size]byte]bool // what each fork has reported
	described  bool                       // a description came before the answer
	acks       map[string]func()          // by the peer's tag: sends the ACK again
}

// dial starts an outgoing leg.
func (t *trunk) newCall(to call.Target, s call.Setup) (*leg, error) {
	if s.Offer == nil {
		return nil, errors.New("no offer")
	}
	g := newLeg(t)
	g.calling = &outgoing{number: to.Number, hops: defaultForwards, party: s.Calling, offer: s.Offer.Marshal(), try: t.order(),
		cause: call.NetworkOutOfOrder.With("no peer of %s was reached", t.name)}
	if n := s.MaxForwards; n != 0 {
		g.calling.hops = min(n-1, defaultForwards)
	}
	if !g.start(g.begin) {
		return nil, errClosed
	}
	return g, nil
}

func (g *leg) begin() {
	o := g.calling
	if o.hops <= 0 {
		g.release(call.Cause{Q850: q850[483], Status: 483, Text: "no hops left: the call goes in circles"}, "")
		return
	}
	// Microsoft finds users by E.164 alone (C-51).
	if o.number == "" || g.t.teams && !isE164(o.number) {
		g.release(call.AddressIncomplete.With("%q is no number for this trunk", clip(o.number)), "")
		return
	}
	g.next()
}

// next tries the next peer: sip, sip2, sip3 (C-31).
func (g *leg) next() {
	o := g.calling
	if g.over {
		return
	}
	if len(o.try) == 0 {
		g.release(o.cause, "")
		return
	}
	p := o.try[0]
	o.try = o.try[1:]
	// Connecting may take seconds in which the call can be given up.
	g.open++
	g.t.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), g.t.e.times.connect)
		defer cancel()
		f, err := p.flow(ctx)
		g.post(func() {
			g.open--
			switch {
			case g.over:
			case err != nil:
				g.log.Warn("peer not reached", "peer", p.host, "error", err)
				o.cause = call.NetworkOutOfOrder.With("%s not reached: %s", p.host, clip(err.Error()))
				g.next()
			default:
				g.call(p, f)
			}
		})
	})
}

// call sends the INVITE.
func (g *leg) call(p *peer, f flow) {
	t, o := g.t, g.calling
	a := &attempt{g: g, peer: p, flow: f, callID: t.newCallID(), tag: newTag(), cseq: 1,
		progressed: make(map[[sha256.Size]byte]bool), acks: make(map[string]func())}
	o.tried = append(o.tried, a)
	host := p.uriHost()
	a.target = "sip:" + escapeUser(o.number) + "@" + host
	if t.teams || isE164(o.number) {
		a.target += ";user=phone"
	}
	a.to = "<" + a.target + ">"
	domain := t.domain
	if domain == "" {
		domain = host
	}
	from, user, extra := t.present(o.party, domain)
	a.from = from
	fields := []field{
		{"From", a.from + ";tag=" + a.tag},
		{"To", a.to},
		{"Call-ID", a.callID},
		{"Contact", t.contact(user)},
		{"Allow", t.methods()},
		{"Accept", acceptBody},
	}
	req := t.newRequest("INVITE", a.target, a.cseq, append(fields, extra...), "application/sdp", o.offer)
	*req.MaxForwards() = sipgo.MaxForwardsHeader(o.hops)
	a.via = branchOf(req)
	a.flow.target = a.target
	t.enter(g, legKey(a.callID, a.tag))
	g.log.Info("outgoing call", "called", o.number, "peer", p.host, "ref", a.callID)
	a.tx = g.request(req, a.flow, a.onResponse, a.onEnd)
	if len(o.try) > 0 {
		a.stopFirst = g.after(t.e.times.first, func() {
			if a.rang || a.finished || g.over {
				return
			}
			g.log.Warn("peer does not answer", "peer", p.host)
			o.cause = call.RecoveryOnTimer.With("%s does not answer", p.host)
			a.given = true
			g.next()
		})
	}
}

// present is how the caller is shown: From, the user part of Contact, and the
// fields of RFC 3323 and RFC 3325. A number that is withheld is asserted to
// Microsoft alone, never to a carrier (C-43).
func (t *trunk) present(p call.Party, domain string) (from, user string, extra []field) {
	number := p.Number
	if t.teams && !isE164(number) {
		number = "" // From has '+' or is anonymous (C-51)
	}
	if !isNumber(number) && (t.teams || number != "" && !isToken(number)) {
		number = ""
	}
	if p.Private || number == "" {
		extra = []field{{"Privacy", "id"}}
		if t.teams && number != "" {
			extra = append(extra, field{"P-Asserted-Identity", "<sip:" + escapeUser(number) + "@" + domain + ";user=phone>"})
		}
		return `"Anonymous" <sip:anonymous@anonymous.invalid>`, "", extra
	}
	from = "<sip:" + escapeUser(number) + "@" + domain
	if isE164(number) {
		from += ";user=phone"
	}
	from += ">"
	if name := strings.TrimSpace(p.Name); name != "" {
		from = quote(name) + " " + from
	}
	return from, number, nil
}

// onResponse is any response to the INVITE, repeated 2xx and other forks
// included.
func (a *attempt) onResponse(m *message) {
	g := a.g
	switch {
	case m.status < 200:
		a.onProvisional(m)
	case m.status < 300:
		a.onSuccess(m)
	default:
		a.finished = true
		a.stopWaiting()
		if g.over || a.given || g.d != nil {
			return
		}
		c := causeOf(m.status, m)
		if m.status == 503 {
			// This data centre cannot; another may (C-58). Nothing else is
			// tried again (C-59, C-61).
			a.peer.shun(a.flow.link, m.retryAfter())
			g.calling.cause = c
			g.next()
			return
		}
		g.release(c, strings.TrimSpace(m.reason+" "+clip(m.get("reason"))))
	}
}

func (a *attempt) stopWaiting() {
	if a.stopFirst != nil {
		a.stopFirst()
		a.stopFirst = nil
	}
}

func (a *attempt) onProvisional(m *message) {
	g := a.g
	a.rang = true
	a.stopWaiting()
	if a.given || g.over {
		// Nobody wants it any more; only now may a CANCEL follow (RFC 3261 §9.1).
		c := call.OriginatorCancelled
		if a.cancelFor != nil {
			c = *a.cancelFor
		}
		a.cancel(c)
		return
	}
	if m.status == 100 || g.d != nil {
		return
	}
	desc, err := m.description()
	if err != nil {
		g.log.Info("early description not understood", "error", err)
		desc = nil
	}
	ringing := m.status == 180
	// Each fork reports once that it rings and each description once (C-53); a
	// description of a later fork replaces the earlier one (C-56).
	if desc == nil && !ringing {
		return // 181, 182, bare 183: no news
	}
	key := sha256.Sum256(append([]byte(m.to.tag()+"\x00"), m.body...))
	if a.progressed[key] || len(a.progressed) >= maxForks {
		return
	}
	a.progressed[key] = true
	a.described = a.described || desc != nil
	g.emit(call.Progress{Ringing: ringing, Answer: desc})
}

const maxForks = 64

// onSuccess is a 2xx: the answer, its repetition, or another fork's.
func (a *attempt) onSuccess(m *message) {
	g := a.g
	a.finished = true
	a.stopWaiting()
	if again, ok := a.acks[m.to.tag()]; ok {
		again() // C-63
		return
	}
	if len(a.acks) >= maxForks {
		return
	}
	d := uacDialog(m, a)
	a.acks[d.remote] = g.acknowledge(d, a.cseq)
	a.acks[d.remote]()
	if g.over || a.given || g.d != nil {
		// Answered after all (C-65).
		g.bye(d, call.NormalClearing)
		return
	}
	g.d = d
	g.giveUpOthers(a)
	desc, err := m.description()
	if err != nil || desc == nil && !a.described {
		c := call.IncompatibleMedia.With("answer without a usable description")
		g.bye(d, c)
		g.release(c, "")
		return
	}
	e := call.Answer{Description: desc}
	if g.t.teams {
		// Only now it is known where the user is (C-133): the offer
		// guessed. A 200 that does not say is taken for external, with an alarm (C-137).
		if e.Teams = m.teamsHeaders(); e.Teams != nil && e.Teams.UserLocation != "" || g.t.live.Load().bypass {
			p := g.t.realm(e.Teams, g.log)
			e.Profile = &p
		}
	}
	g.emit(e)
	g.nextUpdate()
}

// acknowledge builds the ACK for a 2xx, RFC 3261 §13.2.2.4: a request of its own
// that is sent again for each repetition.
func (g *leg) acknowledge(d *dialog, cseq uint32) func() {
	req, target := d.request(g.t, "ACK", cseq, nil, "", nil)
	return func() {
		g.inDialog(d, func(f flow) {
			f.target = target
			if err := f.WriteMsg(req); err != nil {
				g.log.Warn("ACK not sent", "error", err)
			}
		}, nil)
	}
}

func (g *leg) giveUpOthers(winner *attempt) {
	for _, a := range g.calling.tried {
		if a != winner {
			a.given = true
		}
	}
	g.calling.try = nil
}

// onEnd is the end of the INVITE's transaction.
func (a *attempt) onEnd(err error) {
	g := a.g
	a.stopWaiting()
	if a.finished {
		return
	}
	a.finished = true
	if g.over || a.given || g.d != nil {
		return
	}
	text := "connection lost"
	if errors.Is(err, sipgo.ErrTransactionTimeout) {
		text = "no answer"
	}
	g.calling.cause = call.TemporaryFailure.With("%s: %s", a.peer.host, text)
	if a.rang {
		// It may be ringing there: calling again could ring twice.
		g.release(g.calling.cause, "")
		return
	}
	g.next()
}

// cancel ends all attempts.
func (g *leg) cancel(c call.Cause) {
	for _, a := range g.calling.tried {
		if a.finished || a.cancelled {
			continue
		}
		a.cancelFor = &c
		if a.rang {
			a.cancel(c)
		}
	}
}

// cancel sends a CANCEL, RFC 3261 §9.1: same branch, same Request-URI, same way.
func (a *attempt) cancel(c call.Cause) {
	if a.cancelled || a.finished {
		return
	}
	a.cancelled = true
	g := a.g
	req := g.t.newRequest("CANCEL", a.target, a.cseq, []field{
		{"From", a.from + ";tag=" + a.tag},
		{"To", a.to},
		{"Call-ID", a.callID},
		reasonField(c, true),
	}, "", nil)
	req.Via().Params.Add("branch", a.via)
	g.request(req, a.flow, func(*message) {}, func(error) {})
	// A peer that never says 487 is not waited for, RFC 3261 §9.1.
	g.after(64*g.t.e.times.t1, func() {
		if !a.finished && a.tx != nil {
			a.tx.Terminate()
		}
	})
}
