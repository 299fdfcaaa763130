package siptest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"localloop/internal/media/mediatest"
)

// Answering says what a called party does by itself.
type Answering struct {
	Manual bool // nothing: the test calls Ring, Progress, Answer, Refuse
	// Silent sends no 180 before the answer, as a bot.
	Silent  bool
	RingFor time.Duration // before it answers
	// Early sends 183 with SDP after 180.
	Early  bool
	Refuse int     // final status instead of an answer
	Header []Field // added to the final response
}

func (c *Call) answerByItself(ctx context.Context) {
	a := c.answering
	if a.Refuse != 0 {
		_ = c.Refuse(a.Refuse, a.Header...)
		return
	}
	if !a.Silent {
		_ = c.Ring()
	}
	if a.Early {
		_ = c.Progress()
	}
	if a.RingFor > 0 {
		if c.endsWithin(ctx, a.RingFor) {
			return
		}
	}
	if err := c.Answer(a.Header...); err != nil {
		c.u.log.Warn("answer", "err", err)
	}
}

// endsWithin waits that long and reports whether the call (or the double) ended
// meanwhile.
func (c *Call) endsWithin(ctx context.Context, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	_, err := c.WaitEnded(ctx)
	return err == nil || !errors.Is(err, context.DeadlineExceeded)
}

// Branch makes another early dialog: a further device of the called user. The
// first branch is the one that Call's own Ring, Progress and Answer use. With no
// paths the device has the media of the call's configuration.
func (c *Call) Branch(media ...mediatest.Config) *Branch {
	b := &Branch{call: c, tag: hexToken(5)}
	c.mu.Lock()
	if len(c.branches) == 0 {
		b.tag = c.localTag
	}
	c.branches = append(c.branches, b)
	c.mu.Unlock()
	if len(media) > 0 {
		if m, err := mediatest.Start(media[0]); err == nil {
			b.media = m
			c.mu.Lock()
			c.clients = append(c.clients, m)
			c.mu.Unlock()
		}
	}
	return b
}

func (c *Call) first() *Branch {
	c.mu.Lock()
	if len(c.branches) > 0 {
		defer c.mu.Unlock()
		return c.branches[0]
	}
	c.mu.Unlock()
	return c.Branch()
}

// Ring sends 180 without SDP.
func (c *Call) Ring() error { return c.first().Ring() }

// Progress sends 183 with SDP; media begins.
func (c *Call) Progress() error { return c.first().Progress() }

// Answer sends 200 with SDP, and repeats it until ACK arrives.
func (c *Call) Answer(extra ...Field) error { return c.first().Answer(extra...) }

// Media returns the branch's client; nil before Progress or Answer.
func (b *Branch) Media() *mediatest.Client {
	b.call.mu.Lock()
	defer b.call.mu.Unlock()
	return b.media
}

// Ring sends 180 without SDP for this branch.
func (b *Branch) Ring() error { return b.send(180, nil, nil) }

// Progress sends 183 with SDP for this branch.
func (b *Branch) Progress() error {
	text, err := b.negotiate()
	if err != nil {
		return err
	}
	b.call.mu.Lock()
	if b.call.media == nil {
		b.call.media = b.media
	}
	b.call.mu.Unlock()
	return b.send(183, text, nil)
}

// Answer sends 200 with SDP for this branch. Media of the other branches ends:
// whatever was negotiated with them is void. A second branch that answers sends
// its own, late 200 (RFC 3261 §13.2.2.4).
func (b *Branch) Answer(extra ...Field) error {
	text, err := b.negotiate()
	if err != nil {
		return errors.Join(err, b.call.Refuse(488))
	}
	c := b.call
	c.mu.Lock()
	late := c.final != nil
	var others []*mediatest.Client
	if !late {
		c.media, c.localTag = b.media, b.tag
		for _, o := range c.branches {
			if o != b && o.media != nil {
				others = append(others, o.media)
			}
		}
	}
	c.mu.Unlock()
	for _, m := range others {
		m.Close()
	}
	return b.send(200, text, extra)
}

// negotiate answers the INVITE's offer once; 183 and 200 then say the same
// (RFC 3261 §13.2.1, C-114).
func (b *Branch) negotiate() ([]byte, error) {
	c := b.call
	c.mu.Lock()
	media, text, offer := b.media, b.answer, c.invite
	c.mu.Unlock()
	if text != nil {
		return text, nil
	}
	var err error
	if media == nil {
		if media, err = c.openMedia(); err != nil {
			return nil, err
		}
	}
	if hasSDP(offer) {
		text, err = media.AnswerVia(offer.Body, c.u.pathsOf(offer)...)
	} else {
		text, err = media.Offer() // the answer comes in the ACK
	}
	c.mu.Lock()
	b.media, b.answer = media, text
	c.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("answer call: %w", err)
	}
	return text, nil
}

func (b *Branch) send(status int, body []byte, extra []Field) error {
	c := b.call
	c.mu.Lock()
	if c.over != nil {
		c.mu.Unlock()
		return fmt.Errorf("%d: call is over", status)
	}
	l, invite := c.inviteLink, c.invite
	c.mu.Unlock()
	r := respond(invite, status, b.tag)
	r.Add("Contact", c.u.contact(c))
	c.u.headers(c, r)
	r.Fields = append(r.Fields, extra...)
	if body != nil {
		r.Add("Content-Type", "application/sdp")
		r.Body = body
	}
	if status >= 200 {
		c.mu.Lock()
		if c.final == nil {
			c.final = r
			c.localURI = r.Get("To")
			if i := len(c.localURI) - len(";tag="+b.tag); i > 0 {
				c.localURI = c.localURI[:i]
			}
		}
		c.mu.Unlock()
	}
	c.record(l, r, false)
	c.u.reply(l, invite, r)
	if status >= 200 && status < 300 {
		n, _ := invite.CSeq()
		c.repeatUntilAck(l, r, n)
	}
	return nil
}

// Refuse sends a final refusal.
func (c *Call) Refuse(status int, extra ...Field) error {
	b := c.first()
	c.mu.Lock()
	if c.final != nil || c.over != nil {
		c.mu.Unlock()
		return fmt.Errorf("refuse %d: call has a final response", status)
	}
	l, invite := c.inviteLink, c.invite
	r := respond(invite, status, b.tag)
	c.final = r
	c.mu.Unlock()
	c.u.headers(c, r)
	r.Fields = append(r.Fields, extra...)
	c.record(l, r, false)
	c.u.reply(l, invite, r)
	if !l.reliable() {
		n, _ := invite.CSeq()
		c.repeatUntilAck(l, r, n)
	}
	c.finish(r)
	return nil
}

// repeatUntilAck sends a final response again until its ACK arrives, RFC 3261
// §13.3.1.4: for a 2xx on every transport. Without ACK the call ends as Teams
// ends it (408, sub-code 1106).
func (c *Call) repeatUntilAck(l *link, r *Message, seq int) {
	c.mu.Lock()
	done := make(chan struct{})
	c.ackWanted[seq] = done
	c.mu.Unlock()
	c.u.wg.Go(func() {
		timer := time.NewTimer(c.u.t1)
		defer timer.Stop()
		for interval, sum := c.u.t1, time.Duration(0); ; {
			select {
			case <-done:
				return
			case <-c.u.ctx.Done():
				return
			case <-timer.C:
			}
			c.mu.Lock()
			over := c.over != nil && r.Status < 300
			c.mu.Unlock()
			if over {
				return
			}
			if sum += interval; sum >= 64*c.u.t1 {
				c.u.violate("RFC 3261 §13.2.2.4", "no ACK for %d, call %s", r.Status, c.id)
				if r.Status < 300 {
					_ = c.Bye(c.u.ctx)
				}
				return
			}
			_ = l.send(r, c.u.upper)
			interval = min(2*interval, t2)
			timer.Reset(interval)
		}
	})
}

// request takes a request of this call.
func (c *Call) request(l *link, m *Message, refuse func(int)) {
	c.record(l, m, true)
	n, _ := m.CSeq()
	c.mu.Lock()
	over, final := c.over, c.final
	toTag := param(m.Get("To"), "tag")
	fromTag := param(m.Get("From"), "tag")
	foreign := fromTag != c.remoteTag || toTag != "" && toTag != c.localTag
	knownBranch := false
	for _, b := range c.branches {
		knownBranch = knownBranch || b.tag == toTag
	}
	lastSeq := c.remoteSeq
	if m.Method != "ACK" && m.Method != "CANCEL" {
		c.remoteSeq = max(n, lastSeq)
	}
	c.mu.Unlock()
	switch m.Method {
	case "ACK":
		c.acked(m, n)
		return
	case "CANCEL":
		c.cancelledByPeer(l, m, refuse, final)
		return
	}
	if foreign {
		if knownBranch && m.Method == "BYE" { // of a late 200, C-65
			r := respond(m, 200, "")
			c.u.headers(c, r)
			c.u.reply(l, m, r)
			return
		}
		refuse(481)
		return
	}
	if over != nil && m.Method != "BYE" {
		refuse(481)
		return
	}
	if toTag != "" && n <= lastSeq {
		c.u.violate("RFC 3261 §12.2.1.1", "CSeq %d after %d", n, lastSeq)
		refuse(500)
		return
	}
	switch m.Method {
	case "BYE":
		r := respond(m, 200, "")
		c.u.headers(c, r)
		c.u.reply(l, m, r)
		c.finish(m)
	case "INVITE":
		c.reinvited(l, m, refuse)
	case "OPTIONS", "INFO", "NOTIFY":
		r := respond(m, 200, "")
		c.u.headers(c, r)
		c.u.reply(l, m, r)
	default:
		refuse(405)
	}
}

func (c *Call) acked(m *Message, n int) {
	c.mu.Lock()
	if done := c.ackWanted[n]; done != nil {
		close(done)
		delete(c.ackWanted, n)
	}
	c.acks[n] = m
	first := !c.established && c.final != nil && c.final.Status < 300 && c.over == nil && !c.outgoing
	if first {
		c.established = true
	}
	media, invite := c.media, c.invite
	c.mu.Unlock()
	if first {
		if !hasSDP(invite) && media != nil {
			if !hasSDP(m) {
				c.u.violate("RFC 3261 §13.2.1", "ACK without the answer to our offer")
			} else if err := media.Accept(m.Body); err != nil {
				c.u.violate("RFC 3264 §6", "answer in ACK: %v", err)
			}
		}
		if c.u.established != nil {
			c.u.established(c)
		}
	}
	c.u.touch()
}

func (c *Call) cancelledByPeer(l *link, m *Message, refuse func(int), final *Message) {
	c.mu.Lock()
	invite, inviteLink := c.invite, c.inviteLink
	outgoing := c.outgoing
	c.mu.Unlock()
	if outgoing || topBranch(m) != topBranch(invite) {
		refuse(481)
		return
	}
	r := respond(m, 200, c.localTag)
	c.u.headers(c, r)
	c.u.reply(l, m, r)
	if final != nil {
		return // crossed our final response
	}
	b := c.first()
	t := respond(invite, 487, b.tag)
	c.u.headers(c, t)
	c.mu.Lock()
	c.final = t
	c.mu.Unlock()
	c.record(inviteLink, t, false)
	c.u.reply(inviteLink, invite, t)
	if !inviteLink.reliable() {
		n, _ := invite.CSeq()
		c.repeatUntilAck(inviteLink, t, n)
	}
	c.finish(m)
}

func (c *Call) reinvited(l *link, m *Message, refuse func(int)) {
	c.mu.Lock()
	media, pending, refusal, silent, paths := c.media, c.pending, c.refusal, c.silent, c.restartPaths
	established := c.established
	c.mu.Unlock()
	switch {
	case silent:
		return
	case pending:
		refuse(491)
		return
	case refusal != 0:
		refuse(refusal)
		return
	case media == nil || !established:
		refuse(500) // offer while the first is open, RFC 3261 §14.2
		return
	}
	if target := addrSpec(m.Get("Contact")); target != "" {
		c.mu.Lock()
		c.remoteTarget = target
		c.mu.Unlock()
	}
	var text []byte
	var err error
	if hasSDP(m) {
		text, err = media.AnswerVia(m.Body, paths...)
	} else {
		// Teams answers an offerless re-INVITE with inactive and stays so.
		text, err = media.Reoffer(mediatest.Reoffer{Direction: "inactive"})
	}
	if err != nil {
		c.u.violate("RFC 3264 §8", "re-INVITE: %v", err)
		refuse(488)
		return
	}
	r := respond(m, 200, "")
	r.Add("Contact", c.u.contact(c))
	c.u.headers(c, r)
	r.Add("Content-Type", "application/sdp")
	r.Body = text
	c.record(l, r, false)
	c.u.reply(l, m, r)
	n, _ := m.CSeq()
	c.repeatUntilAck(l, r, n)
}
