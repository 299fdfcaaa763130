package siptest

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"localloop/internal/media/mediatest"
)

// check holds a message of the box against the rules of the Direct Routing
// interface. It records; what the proxy answers is decided elsewhere.
func (t *Teams) check(l *link, m *Message, c *Call) {
	id := m.Method
	if !m.IsRequest() {
		_, method := m.CSeq()
		id = fmt.Sprintf("%d to %s", m.Status, method)
	}
	bad := func(rule, format string, args ...any) {
		t.violate(rule, "%s (call %s): %s", id, m.Get("Call-ID"), fmt.Sprintf(format, args...))
	}
	if m.Version != "SIP/2.0" {
		bad("C-22", "start line says %q", m.Version)
	}
	for _, v := range m.All("Via") {
		if !strings.HasPrefix(v, "SIP/2.0/TLS ") {
			bad("C-22", "Via %q", v)
		}
	}
	if m.Has("Replaces") || strings.Contains(m.URI, "Replaces") {
		bad("C-66", "Replaces toward Teams")
	}
	if m.Lists("Require", "100rel") || m.Lists("Supported", "100rel") {
		bad("C-68", "100rel")
	}
	if m.IsRequest() {
		t.checkRequest(l, m, c, bad)
	} else {
		t.checkResponse(l, m, bad)
	}
	if hasSDP(m) {
		t.checkSDP(m, c, bad)
	}
}

func (t *Teams) checkRequest(l *link, m *Message, c *Call, bad func(string, string, ...any)) {
	if l.opened {
		bad("C-13", "request on a connection that Teams opened")
	}
	switch m.Method {
	case "PRACK", "UPDATE":
		bad("C-49", "%s toward Teams", m.Method)
	case "REFER", "SUBSCRIBE", "INFO", "MESSAGE":
		bad("RFC 3261 §20.5", "%s is not in Teams' Allow", m.Method)
	}
	if strings.HasPrefix(strings.ToLower(m.URI), "sips:") {
		bad("C-33", "sips URI %s", m.URI)
	}
	if !m.Has("Max-Forwards") {
		bad("RFC 3261 §8.1.1", "no Max-Forwards")
	}
	if topBranch(m) == "" || !strings.HasPrefix(topBranch(m), "z9hG4bK") {
		bad("RFC 3261 §8.1.1.7", "branch %q", topBranch(m))
	}
	if m.Method == "ACK" || m.Method == "CANCEL" {
		return
	}
	if !m.Has("X-MS-SBC") {
		bad("C-150", "no X-MS-SBC")
	}
	dialog := param(m.Get("To"), "tag") != ""
	if m.Method == "INVITE" || m.Method == "OPTIONS" {
		checkContact(l, m, bad)
		t.checkAllow(m, bad)
	}
	if m.Method == "INVITE" && !hasSDP(m) {
		rule := "C-50"
		if dialog {
			rule = "C-70"
		}
		bad(rule, "INVITE without SDP")
	}
	if m.Method == "INVITE" && !dialog {
		checkNumbers(m, bad)
	}
	if dialog && c != nil {
		c.mu.Lock()
		want := c.ours
		c.mu.Unlock()
		if want != "" && m.URI != want {
			bad("C-42", "Request-URI %q is not our Contact %q", m.URI, want)
		}
	}
}

func (t *Teams) checkResponse(l *link, m *Message, bad func(string, string, ...any)) {
	if !l.opened {
		bad("C-14", "response on a connection that the box opened")
	}
	_, method := m.CSeq()
	if m.Status == 100 {
		return
	}
	if !m.Has("X-MS-SBC") {
		bad("C-150", "no X-MS-SBC")
	}
	if method == "INVITE" && m.Status < 300 {
		checkContact(l, m, bad)
		t.checkAllow(m, bad)
	}
	if method == "OPTIONS" && m.Status == 200 {
		checkContact(l, m, bad)
		t.checkAllow(m, bad)
	}
}

// checkContact: C-26, C-27, C-41, C-67.
func checkContact(l *link, m *Message, bad func(string, string, ...any)) {
	contacts := m.All("Contact")
	if len(contacts) != 1 {
		bad("C-67", "%d Contact values", len(contacts))
		if len(contacts) == 0 {
			return
		}
	}
	u, err := parseURI(addrSpec(contacts[0]))
	if err != nil {
		bad("C-26", "Contact %q: %v", contacts[0], err)
		return
	}
	if u.scheme != "sip" {
		bad("C-33", "Contact scheme %s", u.scheme)
	}
	if _, err := netip.ParseAddr(u.host); err == nil {
		bad("C-26", "Contact holds the address %s", u.host)
	} else if !covers(l.names, u.host) {
		bad("C-26", "Contact %s is not in the certificate %v", u.host, l.names)
	}
	if !strings.EqualFold(u.params["transport"], "tls") {
		bad("C-26", "Contact without transport=tls: %s", contacts[0])
	}
	if u.hasUser && u.user == "" {
		bad("C-27", "Contact with an empty user: %s", contacts[0])
	}
	for _, rr := range m.All("Record-Route") {
		if u, err := parseURI(addrSpec(rr)); err == nil {
			if _, err := netip.ParseAddr(u.host); err == nil && m.IsRequest() {
				bad("C-26", "Record-Route holds the address %s", u.host)
			}
		}
	}
}

// covers compares as RFC 2818 §3.1 does: a wildcard stands for one label.
func covers(names []string, host string) bool {
	c := x509.Certificate{DNSNames: names}
	return c.VerifyHostname(host) == nil
}

func (t *Teams) checkAllow(m *Message, bad func(string, string, ...any)) {
	if t.cfg.NoTransfer {
		return
	}
	if !m.Lists("Allow", "REFER") || !m.Lists("Allow", "NOTIFY") {
		bad("C-32", "Allow %q lacks REFER or NOTIFY", m.Get("Allow"))
	}
}

func checkNumbers(m *Message, bad func(string, string, ...any)) {
	u, err := parseURI(m.URI)
	if err != nil || !strings.HasPrefix(u.user, "+") || u.params["user"] != "phone" {
		bad("C-51", "Request-URI %s", m.URI)
	}
	if err == nil && !slices.Contains(ProxyNames[:], u.host) {
		bad("C-51", "Request-URI host %s", u.host)
	}
	f, err := parseURI(addrSpec(m.Get("From")))
	if err != nil || !strings.HasPrefix(f.user, "+") && !strings.EqualFold(f.user, "anonymous") {
		bad("C-51", "From %s", m.Get("From"))
	}
}

// checkSDP: C-91, C-101, C-104, C-107, C-69, and what may change in a re-INVITE.
func (t *Teams) checkSDP(m *Message, c *Call, bad func(string, string, ...any)) {
	d, err := mediatest.ParseDescription(m.Body)
	if err != nil {
		bad("RFC 8866", "%v", err)
		return
	}
	if !strings.HasSuffix(d.Profile, "RTP/SAVP") {
		bad("C-91", "profile %s", d.Profile)
	}
	if !slices.ContainsFunc(d.Crypto, func(k mediatest.Crypto) bool { return k.Suite == "AES_CM_128_HMAC_SHA1_80" && len(k.Key) == 30 }) {
		bad("C-91", "no AES_CM_128_HMAC_SHA1_80 key")
	}
	if d.Direction == "sendonly" || d.Direction == "recvonly" || d.Addr.Addr().IsUnspecified() {
		bad("C-69", "hold as %s at %s", d.Direction, d.Addr)
	}
	seen := map[uint8]bool{}
	for _, k := range d.Codecs {
		if seen[k.PayloadType] {
			bad("C-101", "payload type %d twice", k.PayloadType)
		}
		seen[k.PayloadType] = true
	}
	bypass := d.Ufrag != ""
	if bypass {
		t.checkICE(d, bad)
	} else if c != nil && c.user != nil && c.user.Media.ICE {
		bad("C-107", "no ICE on a bypass trunk")
	}
	if c == nil {
		return
	}
	// The last description of the box in this call is in its events.
	last := lastDescription(c)
	if last == nil || last.SessionID != d.SessionID {
		return
	}
	same := func(a, b mediatest.Description) bool {
		a.Version, b.Version = 0, 0
		return string(a.Text(false)) == string(b.Text(false))
	}
	if changed := !same(*last, d); changed && d.Version == last.Version {
		bad("C-104", "description changed, o= version %d did not", d.Version)
	} else if !changed && d.Version != last.Version {
		bad("C-104", "o= version went from %d to %d, description did not change", last.Version, d.Version)
	}
	if (d.Ufrag == last.Ufrag) != (d.Pwd == last.Pwd) {
		bad("C-117", "only one of ufrag and pwd changed")
	}
	if bypass && d.Ufrag == last.Ufrag && d.Addr != last.Addr {
		bad("C-138", "media moved from %s to %s without new ICE credentials", last.Addr, d.Addr)
	}
	if !bypass && d.Addr != last.Addr {
		bad("C-72", "media moved from %s to %s: Teams does not follow", last.Addr, d.Addr)
	}
}

func (t *Teams) checkICE(d mediatest.Description, bad func(string, string, ...any)) {
	if !d.Lite {
		bad("C-107", "no a=ice-lite")
	}
	if len(d.Ufrag) < 4 || len(d.Pwd) < 22 {
		bad("C-107", "ufrag of %d and pwd of %d characters", len(d.Ufrag), len(d.Pwd))
	}
	addrs := map[netip.Addr]bool{}
	for _, k := range d.Candidates {
		addrs[k.Addr.Addr()] = true
		if k.Type != "host" || !k.Addr.Addr().Is4() || k.Transport != "UDP" {
			bad("C-107", "candidate %s %s typ %s", k.Transport, k.Addr, k.Type)
		}
		if k.Component == 1 && k.Addr != d.Addr {
			bad("C-107", "candidate %s is not the default address %s", k.Addr, d.Addr)
		}
	}
	if len(addrs) != 1 {
		bad("C-107", "%d candidate addresses", len(addrs))
	}
}

func lastDescription(c *Call) *mediatest.Description {
	events := c.Events()
	for i := len(events) - 1; i >= 0; i-- {
		if e := events[i]; e.In && hasSDP(e.Message) {
			if d, err := mediatest.ParseDescription(e.Message.Body); err == nil {
				return &d
			}
		}
	}
	return nil
}
