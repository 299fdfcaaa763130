package sip

import (
	sipgo "github.com/emiago/sipgo/sip"
)

// dialog is the state of RFC 3261 §12, ours because sipgo's has neither target
// refresh nor forks. It belongs to the goroutine of its leg.
type dialog struct {
	callID        string
	local, remote string   // tags
	localURI      string   // From of our requests, without tag
	remoteURI     string   // To of our requests, without tag
	target        string   // remote target, byte for byte as in Contact (C-42)
	routes        []string // route set, elements as received
	cseq          uint32   // last of ours
	rcseq         uint32   // last of the peer's
	rseen         bool     // rcseq holds a number

	peer *peer // to which the INVITE went; nil if it came from the peer
	last flow  // where the peer was heard
}

// uasDialog is the dialog that an INVITE of the peer opens, RFC 3261 §12.1.1.
func uasDialog(m *message, tag string) *dialog {
	return &dialog{
		callID: m.callID, local: tag, remote: m.from.tag(),
		localURI: m.to.bare(), remoteURI: m.from.bare(),
		target: m.contactURI(), routes: m.list("record-route"),
		rcseq: m.cseq, rseen: true,
	}
}

// uacDialog is the dialog that a response to our INVITE opens, RFC 3261 §12.1.2.
func uacDialog(m *message, a *attempt) *dialog {
	d := &dialog{
		callID: a.callID, local: a.tag, remote: m.to.tag(),
		localURI: a.from, remoteURI: m.to.bare(),
		target: m.contactURI(), cseq: a.cseq, peer: a.peer, last: flow{link: a.flow.link, to: a.flow.to},
	}
	if d.target == "" {
		d.target = a.target
	}
	rr := m.list("record-route")
	for i := len(rr) - 1; i >= 0; i-- {
		d.routes = append(d.routes, rr[i])
	}
	return d
}

// bare is the address without header parameters, in brackets.
func (a address) bare() string {
	if a.display == "" {
		return "<" + a.uri + ">"
	}
	return quote(a.display) + " <" + a.uri + ">"
}

func (m *message) contactURI() string {
	list := m.list("contact")
	if len(list) == 0 || list[0] == "" {
		return ""
	}
	a, err := parseAddress(list[0])
	if err != nil {
		return ""
	}
	return a.uri
}

// destination is the URI of the next hop, and whether that hop is a strict
// router of RFC 2543.
func (d *dialog) destination() (target string, strict bool) {
	if len(d.routes) == 0 {
		return d.target, false
	}
	a, err := parseAddress(d.routes[0])
	if err != nil {
		return d.target, false
	}
	u, err := parseURI(a.uri)
	if err != nil {
		return d.target, false
	}
	_, loose := u.params.get("lr")
	return a.uri, !loose
}

// request builds a request in the dialog, RFC 3261 §12.2.1.1. target is the
// Request-URI to be written.
func (d *dialog) request(t *trunk, method string, cseq uint32, extra []field, contentType string, body []byte) (req *sipgo.Request, target string) {
	target = d.target
	routes := d.routes
	if hop, strict := d.destination(); strict {
		target = hop
		routes = append(append([]string{}, d.routes[1:]...), "<"+d.target+">")
	}
	fields := make([]field, 0, 8+len(routes)+len(extra))
	fields = append(fields,
		field{"From", d.localURI + ";tag=" + d.local},
		field{"To", d.remoteURI + tagParam(d.remote)},
		field{"Call-ID", d.callID})
	for _, r := range routes {
		fields = append(fields, field{"Route", r})
	}
	if method == "INVITE" {
		fields = append(fields, field{"Contact", t.contact("")}, field{"Allow", t.methods()})
	}
	return t.newRequest(method, target, cseq, append(fields, extra...), contentType, body), target
}

func tagParam(tag string) string {
	if tag == "" {
		return "" // a peer of RFC 2543
	}
	return ";tag=" + tag
}

// refresh takes the peer's new Contact, RFC 3261 §12.2.
func (d *dialog) refresh(m *message) {
	if c := m.contactURI(); c != "" {
		d.target = c
	}
}

// accept judges the CSeq of a request in the dialog, RFC 3261 §12.2.2.
func (d *dialog) accept(m *message) bool {
	if d.rseen && m.cseq <= d.rcseq {
		return false
	}
	d.rcseq, d.rseen = m.cseq, true
	return true
}

func (d *dialog) next() uint32 {
	d.cseq++
	return d.cseq
}
