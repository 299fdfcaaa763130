package siptest

import (
	"errors"

	"localloop/internal/media/mediatest"
)

// place sends an INVITE and lets the responses drive the call. request is
// complete but for the body.
func (u *ua) place(c *Call, l *link, request *Message) error {
	media, err := c.openMedia()
	if err != nil {
		return err
	}
	offer, err := media.Reoffer(mediatest.Reoffer{Paths: u.pathsOf(nil)})
	if err != nil {
		return err
	}
	request.Add("Content-Type", "application/sdp")
	request.Body = offer
	c.mu.Lock()
	c.media, c.outgoing, c.invite, c.inviteLink = media, true, request, l
	c.mu.Unlock()
	u.mu.Lock()
	u.register(c)
	u.mu.Unlock()
	c.record(l, request, false)
	t, err := u.transact(l, request, c.inviteResponse)
	if err != nil {
		c.finish(respond(request, 503, ""))
		return err
	}
	c.mu.Lock()
	c.inviteTx = t
	c.mu.Unlock()
	return nil
}

func (c *Call) inviteResponse(l *link, m *Message) {
	c.record(l, m, true)
	c.mu.Lock()
	tag := param(m.Get("To"), "tag")
	if m.Status > 100 && m.Status < 300 {
		if c.final != nil && c.remoteTag != tag && m.Status >= 200 {
			c.mu.Unlock()
			c.u.violate("RFC 3261 §13.2.2.4", "second 2xx with another To-tag")
			return
		}
		c.remoteTag, c.remoteURI = tag, m.Get("To")
		if target := addrSpec(m.Get("Contact")); target != "" {
			c.remoteTarget = target
		}
		c.routes = nil
		for _, r := range m.All("Record-Route") {
			c.routes = append([]string{r}, c.routes...) // reversed for the caller, RFC 3261 §12.1.2
		}
	}
	repeated := c.final != nil
	if m.Status >= 200 {
		c.final = m
	}
	invite, media, cancelled := c.invite, c.media, c.cancelled
	c.mu.Unlock()
	if m.Status >= 200 {
		c.acknowledge(l, invite, m)
	}
	if repeated {
		return
	}
	if hasSDP(m) && m.Status < 300 {
		if err := media.Accept(m.Body); err != nil {
			rule := "RFC 3264 §6"
			if errors.Is(err, mediatest.ErrChanged) {
				rule = "C-114"
			}
			c.u.violate(rule, "answer in %d: %v", m.Status, err)
		}
	}
	switch {
	case m.Status >= 300:
		c.finish(m)
	case m.Status >= 200:
		c.mu.Lock()
		c.established = true
		c.mu.Unlock()
		if !hasSDP(m) && media.Remote().Profile == "" {
			c.u.violate("RFC 3261 §13.2.1", "2xx without an answer to our offer")
		}
		c.u.touch()
		if cancelled { // the answer crossed the CANCEL: RFC 3261 §15
			c.u.wg.Go(func() { _ = c.Bye(c.u.ctx) })
			return
		}
		if c.u.established != nil {
			c.u.established(c)
		}
	}
}
