package media

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"localloop/internal/sdp"
)

// errMKI refuses offers whose every key line wants a master key identifier in
// the packets: Teams always has one without (C-93).
var errMKI = errors.New("every crypto line has an MKI")

// Offered gives the bridge the offer of a leg. An error means that nothing in it
// can be used: the leg is refused with 488. The offer must not be changed
// afterwards.
func (b *Bridge) Offered(leg string, offer *sdp.Description, prof sdp.Profile) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	if offer == nil {
		return fmt.Errorf("leg %s: %w", leg, ErrNoOffer)
	}
	p := b.parties[leg]
	if offer.Line != "" {
		if p == nil {
			var err error
			if p, err = b.lineParty(leg, offer.Line, prof); err != nil {
				return err
			}
		}
		p.offer, p.answer = offer, nil
		return nil
	}
	answer, peer, err := sdp.Accept(offer, accepting(prof, offer, unknown))
	if err != nil {
		return fmt.Errorf("offer of leg %s: %w", leg, err)
	}
	if peer.MKILength > 0 {
		return fmt.Errorf("offer of leg %s: %w", leg, errMKI)
	}
	if p == nil {
		if p, err = b.newParty(leg, prof); err != nil {
			return err
		}
		if p.cur, err = b.newStand(p, prof.Realm, nil, answer.ICE != nil); err != nil {
			return err
		}
		b.enlist(p)
		b.serve(p, p.cur, false)
	} else if b.confirm(p); p.isLine != "" {
		return fmt.Errorf("line %s takes no RTP", p.isLine)
	} else if err := b.reoffered(p, offer, prof, answer.ICE != nil); err != nil {
		return err
	}
	p.profile, p.offer, p.answer, p.offering = prof, offer, nil, false
	b.run(func(time.Time) { p.leg.life.patience(prof, b.voice.failover) })
	return nil
}

// reoffered prepares the place for a later offer of the peer. An ICE restart
// needs new credentials (C-117), on the same address if the realm stays. Without
// a restart the address cannot change: Teams ignores it (docs/teams.md, Calls).
func (b *Bridge) reoffered(p *party, offer *sdp.Description, prof sdp.Profile, ice bool) error {
	b.abandon(p)
	elsewhere := prof.Realm != p.cur.port.realm.name
	restart := p.remote != nil && sdp.Restarted(p.remote.ICE, offer.ICE)
	fresh := ice && p.cur.agent == nil
	if !restart && !fresh && (ice || !elsewhere) {
		return nil
	}
	on := p.cur
	if elsewhere {
		on = nil
	}
	next, err := b.newStand(p, prof.Realm, on, ice)
	if err != nil {
		return err
	}
	// Our key stays unless the peer takes a new one with the restart.
	if p.remote == nil || len(p.remote.Crypto) == 0 || sameKeys(p.remote.Crypto, offer.Crypto) {
		next.suite, next.key = p.cur.suite, p.cur.key
	}
	p.next = next
	b.serve(p, next, true)
	return nil
}

func sameKeys(a, b []sdp.Crypto) bool {
	for _, x := range a {
		if slices.ContainsFunc(b, func(y sdp.Crypto) bool { return bytes.Equal(x.Key, y.Key) }) {
			return true
		}
	}
	return false
}

// abandon gives up a move that was offered and came to nothing.
func (b *Bridge) abandon(p *party) {
	if p.next == nil {
		return
	}
	gone := p.next
	p.next = nil
	b.run(func(time.Time) {
		if p.leg.next == gone.path {
			p.leg.abandon("refused", nil)
		}
	})
}

// AnswerTo makes our answer to the last offer of a leg. Asked again it returns
// the same, until the next offer.
func (b *Bridge) AnswerTo(leg string) (*sdp.Description, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.party(leg)
	if err != nil {
		return nil, err
	}
	switch {
	case p.offer == nil:
		return nil, fmt.Errorf("leg %s: %w", leg, ErrNoOffer)
	case p.answer != nil:
		return p.answer, nil
	case p.isLine != "":
		p.answer = &sdp.Description{Line: p.isLine}
		p.local, p.remote = p.answer, p.offer
		return p.answer, nil
	}
	d, peer, err := sdp.Accept(p.offer, accepting(p.profile, p.offer, b.wanted(p)))
	if err != nil {
		return nil, fmt.Errorf("answer to leg %s: %w", leg, err)
	}
	s := p.cur
	if p.next != nil {
		s = p.next
	}
	if d.ICE != nil && s.agent == nil {
		d.ICE = nil
	}
	if d.Secure {
		if err := b.keyFor(s, peer.Suite); err != nil {
			return nil, err
		}
		d.Crypto[0].Key = s.key
	}
	d.Direction = sdp.AnswerDirection(p.offer.Direction, p.wants(), p.profile.InactiveHold)
	b.complete(p, s, d)
	t, ok := newTerms(d, p.offer)
	if !ok {
		return nil, fmt.Errorf("answer to leg %s: %w", leg, sdp.ErrCodec)
	}
	if d.Secure {
		t.suite, t.sendKey, t.recvKey = peer.Suite, s.key, peer.Key
	}
	t.final = true
	p.answer, p.local, p.remote, p.settled = d, d, p.offer, true
	b.settle(p, s, t, false)
	return d, nil
}

// keyFor makes our key for a place. Another suite needs another key: the same
// one would repeat its key stream.
func (b *Bridge) keyFor(s *stand, suite sdp.Suite) error {
	if s.key != nil && s.suite == suite {
		return nil
	}
	key, err := b.newKey()
	if err != nil {
		return err
	}
	s.suite, s.key = suite, key
	return nil
}

// complete fills in what the rules of answers leave to us: identity, addresses,
// credentials.
func (b *Bridge) complete(p *party, s *stand, d *sdp.Description) {
	d.RTP = s.port.address()
	d.RTCP = d.RTP
	if !d.RTCPMux || p.offering {
		// An offer names the port for peers that decline to share one.
		d.RTCP = netip.AddrPortFrom(d.RTP.Addr(), d.RTP.Port()+1)
	}
	if d.ICE != nil && s.agent != nil {
		d.ICE = s.agent.ICE()
	}
	if d.Ptime == 0 {
		d.Ptime = ptime
	}
	d.SessionID, d.Version = p.session, 1
	d.Follow(p.local)
}

// settle puts terms into force on the loop.
func (b *Bridge) settle(p *party, s *stand, t *terms, fork bool) {
	if s == p.next {
		p.cur, p.next = p.next, nil
	}
	b.run(func(now time.Time) { p.leg.agree(now, s.path, t, fork) })
}

// OfferTo makes our offer for a leg. Called with another realm than the leg is
// in, it moves the leg: a new address, new credentials, and the old path stays
// until the new one is nominated.
func (b *Bridge) OfferTo(leg string, prof sdp.Profile) (*sdp.Description, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	p := b.parties[leg]
	if prof.Line != "" {
		if p == nil {
			var err error
			if p, err = b.lineParty(leg, prof.Line, prof); err != nil {
				return nil, err
			}
		}
		p.local = &sdp.Description{Line: p.isLine}
		return p.local, nil
	}
	d := &sdp.Description{
		Secure: prof.Secure, Transport: "RTP/AVP", RTCPMux: prof.RTCPMux, Ptime: prof.Ptime,
		Codecs: sdp.OfferCodecs(names(prof.Codecs, b.wanted(p))),
	}
	if d.Codecs == nil {
		return nil, fmt.Errorf("offer to leg %s: %w", leg, sdp.ErrCodec)
	}
	if err := b.place(&p, leg, prof); err != nil {
		return nil, fmt.Errorf("offer to leg %s: %w", leg, err)
	}
	s := p.cur
	if p.next != nil {
		s = p.next
	}
	if prof.Secure {
		d.Transport = "RTP/SAVP"
		suite := s.suite
		if suite == "" {
			suite = sdp.AESCM128HMACSHA180
		}
		if err := b.keyFor(s, suite); err != nil {
			return nil, err
		}
		d.Crypto = []sdp.Crypto{{Tag: 1, Suite: suite, Key: s.key, Lifetime: "2^31"}}
	}
	if s.agent != nil && prof.ICE == sdp.LiteICE {
		d.ICE = s.agent.ICE()
	}
	if p.local != nil {
		keepNumbers(d.Codecs, p.local)
	}
	p.offering, p.offer, p.answer, p.answers = true, nil, nil, 0
	d.Direction = sdp.OfferDirection(p.wants(), prof.InactiveHold)
	b.complete(p, s, d)
	p.profile, p.local = prof, d
	b.run(func(time.Time) { p.leg.life.patience(prof, b.voice.failover) })
	return d, nil
}

// place finds or opens the place that an offer of ours speaks of.
func (b *Bridge) place(at **party, leg string, prof sdp.Profile) error {
	p := *at
	ice := prof.ICE == sdp.LiteICE
	if p == nil {
		p, err := b.newParty(leg, prof)
		if err != nil {
			return err
		}
		if p.cur, err = b.newStand(p, prof.Realm, nil, ice); err != nil {
			return err
		}
		b.enlist(p)
		b.serve(p, p.cur, false)
		*at = p
		return nil
	}
	if p.isLine != "" {
		return fmt.Errorf("line %s takes no RTP", p.isLine)
	}
	if p.next != nil && p.next.port.realm.name == prof.Realm {
		return nil // the same offer again
	}
	b.confirm(p)
	b.abandon(p)
	if p.cur.port.realm.name == prof.Realm {
		return nil
	}
	next, err := b.newStand(p, prof.Realm, nil, ice)
	if err != nil {
		return err
	}
	next.suite, next.key = p.cur.suite, p.cur.key
	p.next = next
	b.serve(p, next, true)
	return nil
}

// keepNumbers gives the dynamic payloads of a later offer the numbers that they
// have had in this session, RFC 3264 §8.3.2.
func keepNumbers(codecs []sdp.Codec, before *sdp.Description) {
	for i, c := range codecs {
		if !c.IsEvent() {
			continue
		}
		if old, ok := before.Event(c.ClockRate); ok {
			codecs[i].PayloadType = old.PayloadType
		}
	}
}

// Answered gives the bridge a leg's answer to our last offer. The answer of
// another fork replaces the one before entirely.
func (b *Bridge) Answered(leg string, answer *sdp.Description) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.party(leg)
	if err != nil {
		return err
	}
	if p.isLine != "" {
		p.remote = answer
		return nil
	}
	switch {
	case !p.offering || p.local == nil:
		return fmt.Errorf("answer of leg %s: we have made no offer", leg)
	case answer == nil || answer.RTP.Port() == 0:
		return fmt.Errorf("answer of leg %s: %w", leg, ErrRejected)
	case answer.Secure != p.local.Secure:
		return fmt.Errorf("answer of leg %s: %w", leg, sdp.ErrNotSecure)
	}
	s := p.cur
	if p.next != nil {
		s = p.next
	}
	t, ok := newTerms(p.local, answer)
	if !ok {
		return fmt.Errorf("answer of leg %s: %w", leg, sdp.ErrCodec)
	}
	if answer.Secure {
		c, ok := sdp.AnsweredCrypto(p.local.Crypto, answer.Crypto)
		if !ok || c.MKILength > 0 {
			return fmt.Errorf("answer of leg %s: %w", leg, sdp.ErrCrypto)
		}
		t.suite, t.sendKey, t.recvKey = c.Suite, s.key, c.Key
	}
	fork := p.answers > 0
	t.final = p.settled
	p.answers++
	p.remote = answer
	b.settle(p, s, t, fork)
	return nil
}

// wants is the direction that we wish: hold is sendonly, which the profile may
// turn into inactive. Music toward a peer that knows only inactive needs
// sendrecv (C-69, C-70).
func (p *party) wants() sdp.Direction {
	switch {
	case !p.held || p.profile.InactiveHold && p.tone != NoTone:
		return sdp.SendRecv
	}
	return sdp.SendOnly
}

// wanted is the voice codec with which a leg would need no transcoding: what its
// other side has agreed to or offers first.
func (b *Bridge) wanted(p *party) payload {
	of := func(q *party) payload {
		if q == nil || q == p || q.isLine != "" {
			return unknown
		}
		d := q.remote
		if q.offer != nil && q.answer == nil {
			d = q.offer
		} else if q.offer != nil {
			d = q.answer
		}
		if d == nil {
			return unknown
		}
		for _, c := range d.Codecs {
			if k := kindOf(c); k == pcma || k == pcmu {
				return k
			}
		}
		return unknown
	}
	if p != nil && p.joined != nil {
		return of(p.joined)
	}
	// Before they are joined a call has one leg that asks and one that is
	// asked; the name order makes the choice the same each time.
	best, at := unknown, ""
	for name, q := range b.parties {
		if k := of(q); k != unknown && (at == "" || name < at) {
			best, at = k, name
		}
	}
	return best
}

// accepting is the profile for answering an offer: the codecs of this step, the
// one that needs no transcoding first. A profile without preference follows the
// peer's.
func accepting(p sdp.Profile, offer *sdp.Description, want payload) sdp.Profile {
	list := p.Codecs
	if len(list) == 0 {
		for _, c := range offer.Codecs {
			if k := kindOf(c); k == pcma || k == pcmu {
				list = append(list, c.Name)
			}
		}
	}
	if p.Codecs = names(list, want); p.Codecs == nil {
		p.Codecs = []string{"none"} // an empty list would accept anything
	}
	return p
}

// names are the codecs of a list that this box speaks, the wanted one first.
func names(list []string, want payload) []string {
	if len(list) == 0 {
		list = []string{"PCMA", "PCMU"}
	}
	var out []string
	for _, n := range list {
		n, _, _ = strings.Cut(strings.ToUpper(n), "/")
		if (n == "PCMA" || n == "PCMU") && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	if want != unknown {
		first := want.law().String()
		if i := slices.Index(out, first); i > 0 {
			out = slices.Insert(slices.Delete(out, i, i+1), 0, first)
		}
	}
	return out
}
