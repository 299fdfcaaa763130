package sip

import (
	"crypto/rand"
	"encoding/base32"
	"math/big"
	"net/netip"
	"strconv"
	"strings"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// self is host and port as they stand in URIs.
func (t *trunk) self() (hostport string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.host
	if strings.IndexByte(h, ':') >= 0 {
		h = "[" + h + "]"
	}
	return h + ":" + strconv.Itoa(t.port)
}

// contact is our Contact, always with the FQDN on a Teams trunk (C-26, C-41,
// C-67). The user part is left out rather than empty (C-27).
func (t *trunk) contact(user string) string {
	if user != "" {
		user = escapeUser(user) + "@"
	}
	return "<sip:" + user + t.self() + ";transport=" + strings.ToLower(t.transport) + ">"
}

// methods is Allow. REFER joins it with the step that handles it: a peer that
// sees it would transfer by it.
func (t *trunk) methods() string {
	const base = "INVITE, ACK, CANCEL, BYE, OPTIONS, NOTIFY"
	if t.teams {
		return base
	}
	return base + ", INFO"
}

// product is how we present ourselves. Never as somebody else.
func (t *trunk) product() string { return "Localloop-edged/" + t.e.version }

func (t *trunk) identify(request bool) []field {
	name := "Server"
	if request {
		name = "User-Agent"
	}
	f := []field{{name, t.product()}}
	if t.teams {
		f = append(f, field{"X-MS-SBC", "Localloop/edged/" + t.e.version})
	}
	return f
}

// response builds a response to m. tag completes To where the request had none.
func (t *trunk) response(m *message, src netip.AddrPort, status int, tag string, extra []field, contentType string, body []byte) *sipgo.Response {
	r := sipgo.NewResponse(status, phrase(status))
	add := func(name, value string) {
		if value != "" {
			r.AppendHeader(sipgo.NewHeader(name, value))
		}
	}
	for i, v := range m.vias {
		if i == 0 {
			add("Via", v.received(src))
		} else {
			add("Via", v.raw)
		}
	}
	if m.method == "INVITE" && status > 100 && status < 300 {
		for _, v := range m.values("record-route") {
			add("Record-Route", v)
		}
	}
	add("From", m.get("from"))
	to := m.get("to")
	if status > 100 && to != "" && m.to.tag() == "" && tag != "" {
		to += ";tag=" + tag
	}
	add("To", to)
	add("Call-ID", m.get("call-id"))
	if seq, method, ok := strings.Cut(m.get("cseq"), " "); ok {
		n, _ := strconv.ParseUint(seq, 10, 32)
		r.AppendHeader(&sipgo.CSeqHeader{SeqNo: uint32(n), MethodName: sipgo.RequestMethod(strings.TrimSpace(method))})
	}
	if status > 100 {
		if m.method == "INVITE" && status < 300 || m.method == "OPTIONS" && status == 200 {
			add("Contact", t.contact(""))
		}
		if status < 300 && (m.method == "INVITE" || m.method == "OPTIONS") || status == 405 || status == 501 {
			add("Allow", t.methods())
		}
		if m.method == "OPTIONS" && status == 200 {
			add("Accept", acceptBody)
		}
		for _, f := range t.identify(false) {
			add(f.name, f.value)
		}
	}
	for _, f := range extra {
		add(f.name, f.value)
	}
	if len(body) > 0 {
		add("Content-Type", contentType)
	}
	r.SetBody(body)
	return r
}

// newRequest builds a request of ours. The fields come in the order given,
// between Via and the body.
func (t *trunk) newRequest(method, target string, cseq uint32, fields []field, contentType string, body []byte) *sipgo.Request {
	var u sipgo.Uri
	_ = sipgo.ParseUri(target, &u) // the text is taken from the flow
	req := sipgo.NewRequest(sipgo.RequestMethod(method), u)
	t.mu.Lock()
	via := &sipgo.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: t.transport, Host: t.host, Port: t.port}
	t.mu.Unlock()
	via.Params = sipgo.NewParams()
	via.Params.Add("branch", cookie+token(12))
	if t.transport == "UDP" {
		via.Params.Add("rport", "")
	}
	req.AppendHeader(via)
	maxForwards := sipgo.MaxForwardsHeader(defaultForwards)
	req.AppendHeader(&maxForwards)
	for _, f := range fields {
		if f.name == "Call-ID" {
			id := sipgo.CallIDHeader(f.value)
			req.AppendHeader(&id)
			req.AppendHeader(&sipgo.CSeqHeader{SeqNo: cseq, MethodName: sipgo.RequestMethod(method)})
			continue
		}
		req.AppendHeader(sipgo.NewHeader(f.name, f.value))
	}
	for _, f := range t.identify(true) {
		req.AppendHeader(sipgo.NewHeader(f.name, f.value))
	}
	if len(body) > 0 {
		req.AppendHeader(sipgo.NewHeader("Content-Type", contentType))
	}
	req.SetBody(body)
	req.SetTransport(t.transport)
	return req
}

// token returns n random characters that are safe everywhere in SIP.
func token(n int) string {
	b := make([]byte, (n*5+7)/8)
	_, _ = rand.Read(b) // never fails, crypto/rand
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))[:n]
}

func newTag() string { return token(10) }

// jitter is a random duration below d.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	n, err := rand.Int(rand.Reader, big.NewInt(int64(d)))
	if err != nil {
		return 0
	}
	return time.Duration(n.Int64())
}
