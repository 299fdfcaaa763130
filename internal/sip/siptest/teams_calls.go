package siptest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"localloop/internal/media/mediatest"
)

// Place sends an INVITE of a user to a number over a trunk. The call goes on by
// itself; the returned Call is watched with its waits.
func (t *Teams) Place(ctx context.Context, user, fqdn, number string, extra ...Field) (*Call, error) {
	trunk, u := t.trunk(fqdn), t.User(user)
	if trunk == nil || u == nil {
		return nil, fmt.Errorf("place call: no trunk %s or no user %s", fqdn, user)
	}
	t.tmu.Lock()
	active := t.active[strings.ToLower(fqdn)]
	t.tmu.Unlock()
	if !active {
		return nil, fmt.Errorf("place call: %w: %s", ErrInactive, fqdn)
	}
	l, err := t.open(ctx, trunk, false, netip.Addr{})
	if err != nil {
		return nil, err
	}
	c := t.newCall(hexToken(10), u.Media)
	c.user, c.trunk, c.outgoing = u, trunk, true
	c.localURI = fmt.Sprintf("%q <sip:%s@%s:5061;user=phone>", u.Name, u.Number, ProxyNames[0])
	c.remoteURI = fmt.Sprintf("<sip:%s@%s:%d;user=phone>", number, trunk.FQDN, trunk.Address.Port())
	c.remoteTarget = fmt.Sprintf("sip:%s@%s:%d;user=phone;transport=tls", number, trunk.FQDN, trunk.Address.Port())
	m := c.newRequest("INVITE", l)
	for _, f := range extra {
		m.replace(f)
	}
	return c, t.place(c, l, m)
}

// contactOf is the form that was observed at Microsoft: port 443, which nobody
// may connect to, and parameters with a '/' that must come back unchanged (C-42).
func (t *Teams) contactOf(c *Call) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ours == "" {
		g := hexToken(16)
		c.ours = fmt.Sprintf("sip:api-du-a-euwe.pstnhub.microsoft.com:443;x-i=%s-%s-%s-%s-%s;x-c=%s/s/1/%s",
			g[:8], g[8:12], g[12:16], g[16:20], g[20:], hexToken(16), hexToken(16))
	}
	return "<" + c.ours + ">"
}

func (t *Teams) via(l *link) string {
	return "SIP/2.0/TLS " + netip.AddrPortFrom(l.local.Addr(), 5061).String()
}

// dialogLink routes a request of a dialog: our own connection to the trunk.
func (t *Teams) dialogLink(c *Call) (*link, error) {
	c.mu.Lock()
	trunk, fresh, source := c.trunk, c.roam, c.roamFrom
	c.mu.Unlock()
	if trunk == nil {
		return nil, errors.New("call without a trunk")
	}
	return t.open(t.ctx, trunk, fresh, source)
}

func (t *Teams) addHeaders(c *Call, m *Message) {
	_, method := m.CSeq()
	if m.IsRequest() {
		m.Add("User-Agent", product)
	} else {
		m.Add("Server", product)
	}
	m.Add("Allow", teamsAllow)
	if c == nil || method != "INVITE" {
		return
	}
	c.mu.Lock()
	u, trunk, id, established := c.user, c.trunk, c.id, c.established
	c.mu.Unlock()
	if m.IsRequest() {
		m.Add("MS-Conversation-ID", id)
	}
	// In INVITE and re-INVITE, and in the 200 of a call to a user (docs/teams.md,
	// Local Media Optimization).
	if u == nil || trunk == nil || !trunk.LMO || !m.IsRequest() && (m.Status != 200 || established) {
		return
	}
	path := u.Path
	if path == nil {
		path = []string{trunk.FQDN}
	}
	m.Add("X-MS-UserLocation", u.Location)
	m.Add("X-MS-MediaPath", strings.Join(path, ", "))
	if u.Site != "" && u.Location == "internal" {
		m.Add("X-MS-UserSite", u.Site)
	}
}

func (t *Teams) behaviourOf(l *link) Behaviour {
	t.tmu.Lock()
	defer t.tmu.Unlock()
	return t.behaviour[l.name]
}

// trunkOf finds the pairing by Record-Route, then Contact, as Microsoft does.
func (t *Teams) trunkOf(m *Message) *Trunk {
	for _, header := range []string{"Record-Route", "Contact"} {
		if !m.Has(header) {
			continue
		}
		u, err := parseURI(addrSpec(m.Get(header)))
		if err != nil {
			return nil
		}
		return t.trunk(u.host)
	}
	return nil
}

func (t *Teams) outsideDialog(l *link, m *Message) bool {
	if m.Method != "OPTIONS" {
		return false
	}
	b := t.behaviourOf(l)
	trunk := t.trunkOf(m)
	status := b.Status
	if status == 0 {
		status = 200
		if trunk == nil {
			status = 403
		}
	}
	r := respond(m, status, hexToken(4))
	t.addHeaders(nil, r)
	if b.Status != 0 {
		r.Fields = append(r.Fields, b.Header...)
	}
	t.reply(l, m, r)
	if trunk == nil || status != 200 {
		return true
	}
	fqdn := strings.ToLower(trunk.FQDN)
	t.tmu.Lock()
	if t.pinged[fqdn] == nil {
		t.pinged[fqdn] = map[string]time.Time{}
	}
	last := t.pinged[fqdn][l.name]
	t.pinged[fqdn][l.name] = time.Now()
	start := !t.pinging[fqdn]
	t.pinging[fqdn] = true
	t.tmu.Unlock()
	if d := time.Since(last); !last.IsZero() && t.cfg.MinOptions > 0 && d < t.cfg.MinOptions {
		t.violate("C-28", "OPTIONS to %s after %v", l.name, d.Round(time.Millisecond))
	}
	t.touch()
	if start {
		t.wg.Go(func() { t.ping(trunk) })
	}
	return true
}

func (t *Teams) optionsTo(trunk *Trunk, l *link) *Message {
	m := &Message{Method: "OPTIONS", URI: fmt.Sprintf("sip:%s:%d;transport=tls", trunk.FQDN, trunk.Address.Port()), Version: "SIP/2.0"}
	m.Add("Via", t.via(l)+";branch=z9hG4bK"+hexToken(8))
	m.Add("From", "<sip:"+ProxyNames[0]+":5061>;tag="+hexToken(4))
	m.Add("To", "<sip:"+trunk.FQDN+">")
	m.Add("Call-ID", hexToken(10))
	m.Add("CSeq", "1 OPTIONS")
	m.Add("Max-Forwards", "70")
	m.Add("Contact", "<sip:"+ProxyNames[0]+":5061;transport=tls>")
	t.addHeaders(nil, m)
	return m
}

// ping sends our own OPTIONS to the FQDN of the trunk's Contact, on our own
// connection, for as long as the double lives.
func (t *Teams) ping(trunk *Trunk) {
	for {
		ok := t.pingOnce(trunk)
		t.tmu.Lock()
		t.active[strings.ToLower(trunk.FQDN)] = ok
		t.tmu.Unlock()
		t.touch()
		every := t.cfg.OptionsEvery
		if !ok {
			every = min(every, time.Second) // a box that is still starting
		}
		timer := time.NewTimer(every)
		select {
		case <-timer.C:
		case <-t.ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (t *Teams) pingOnce(trunk *Trunk) bool {
	ctx, cancel := context.WithTimeout(t.ctx, 10*time.Second)
	defer cancel()
	l, err := t.open(ctx, trunk, false, netip.Addr{})
	if err != nil {
		t.log.Info("ping", "trunk", trunk.FQDN, "err", err)
		return false
	}
	r, err := t.ask(ctx, l, t.optionsTo(trunk, l))
	if err != nil {
		t.log.Info("ping", "trunk", trunk.FQDN, "err", err)
		return false
	}
	return r.Status == 200
}

func (t *Teams) acceptCall(l *link, m *Message) (*answering, bool) {
	b := t.behaviourOf(l)
	refuse := func(status int, extra []Field) (*answering, bool) {
		r := respond(m, status, hexToken(4))
		t.addHeaders(nil, r)
		r.Fields = append(r.Fields, extra...)
		t.reply(l, m, r)
		return nil, false
	}
	if b.Status != 0 {
		return refuse(b.Status, b.Header)
	}
	trunk := t.trunkOf(m)
	if trunk == nil {
		return refuse(403, nil)
	}
	if !hasSDP(m) {
		return refuse(488, nil) // delayed offer is not supported
	}
	uri, err := parseURI(m.URI)
	if err != nil {
		return refuse(400, nil)
	}
	number, _, _ := strings.Cut(uri.user, ";")
	u := t.User(number)
	if u == nil {
		return refuse(404, []Field{{"Reason", `Q.850;cause=1;text="` + hexToken(8) + `;UserNotFound"`}})
	}
	if u.Media.ICE && !strings.Contains(string(m.Body), "a=ice-ufrag:") {
		t.violate("C-107", "INVITE (call %s): no ICE on a bypass trunk", m.Get("Call-ID"))
	}
	return &answering{Answering: u.Answering, media: u.Media, user: u, trunk: trunk}, true
}

// confirm sends the re-INVITE that a controlling agent sends when its checks are
// complete, RFC 8839 §4.4.1.2.2 (RFC 5245 §9.1.2.2).
func (t *Teams) confirm(c *Call) {
	if !t.cfg.Confirm || !c.mediaConfig.ICE {
		return
	}
	t.wg.Go(func() {
		media := c.Media()
		if err := media.WaitConnected(t.ctx); err != nil {
			return
		}
		if media.Local().Ufrag == "" || !c.Established() {
			return
		}
		resp, err := c.Reinvite(t.ctx, mediatest.Reoffer{Confirm: true})
		switch {
		case errors.Is(err, mediatest.ErrChanged):
			t.violate("C-74", "answer to the confirming re-INVITE: %v", err)
		case err == nil && resp.Status >= 300 && c.Established():
			t.violate("C-74", "confirming re-INVITE: %s", describe(resp))
		}
	})
}
