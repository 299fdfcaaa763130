package sip

import (
	"strconv"
	"strings"

	sipgo "github.com/emiago/sipgo/sip"
)

const cookie = "z9hG4bK" // RFC 3261 §8.1.1.7

// once are the header fields that a message may hold only once, RFC 4475 §3.3.8.
var once = []string{"from", "to", "call-id", "cseq", "max-forwards", "content-type", "content-length"}

// known are the methods of the IANA registry; others are answered with 501, those
// that we do not take with 405.
var known = map[string]bool{
	"INVITE": true, "ACK": true, "BYE": true, "CANCEL": true, "OPTIONS": true, "REGISTER": true, "PRACK": true,
	"SUBSCRIBE": true, "NOTIFY": true, "PUBLISH": true, "INFO": true, "REFER": true, "MESSAGE": true, "UPDATE": true,
}

// police judges a message before anything acts on it. It fills in the parsed
// parts of m. nil means that the message may pass; a fault of status 0 that it
// is dropped, any other that a request is answered so (RFC 3261 §8.2, RFC 4475).
func police(m *message) *fault {
	if f := m.policeRoute(); f != nil {
		return f
	}
	for _, name := range once {
		if n := len(m.values(name)); n > 1 {
			return m.reject(400, "more than one "+name)
		}
	}
	if f := m.policeIdentity(); f != nil {
		return f
	}
	if !m.request {
		return m.parse()
	}
	if f := m.policeRequest(); f != nil {
		return f
	}
	return m.parse()
}

// reject is a fault that silences responses: they are never answered.
func (m *message) reject(status int, why string, extra ...field) *fault {
	if !m.request || m.method == "ACK" {
		status = 0
	}
	return refuse(status, why, extra...)
}

// policeRoute reads Via: without it nothing can be answered.
func (m *message) policeRoute() *fault {
	for _, s := range m.list("via") {
		v, err := parseVia(s)
		if err != nil {
			m.vias = nil // all or none: see answerable
			return m.reject(400, "malformed Via")
		}
		m.vias = append(m.vias, v)
	}
	switch {
	case len(m.vias) == 0:
		return refuse(0, "no Via")
	case !m.request && len(m.vias) != 1:
		// Somebody else's request (RFC 4475 §3.3.10).
		return refuse(0, "response with more than one Via")
	case m.vias[0].branch() == cookie:
		// All such requests would share one transaction (RFC 4475 §3.2.1).
		return m.reject(400, "branch without a value")
	}
	return nil
}

// policeIdentity reads what dialogs and transactions are matched by.
func (m *message) policeIdentity() *fault {
	m.callID = m.get("call-id")
	if m.callID == "" || strings.ContainsAny(m.callID, " \t") {
		return m.reject(400, "no usable Call-ID")
	}
	seq, method, ok := strings.Cut(m.get("cseq"), " ")
	method = strings.TrimLeft(method, " \t")
	n, err := strconv.ParseUint(seq, 10, 31) // RFC 3261 §8.1.1.5
	if !ok || err != nil || !isToken(method) {
		return m.reject(400, "malformed CSeq")
	}
	m.cseq, m.cmeth = uint32(n), method
	if m.from, err = parseAddress(m.get("from")); err != nil {
		return m.reject(400, "malformed From")
	}
	if m.to, err = parseAddress(m.get("to")); err != nil {
		return m.reject(400, "malformed To")
	}
	// Our keys are joined with NUL, and nobody needs one there.
	for _, s := range []string{m.callID, m.from.tag(), m.to.tag(), m.target, m.vias[0].text()} {
		if strings.IndexByte(s, 0) >= 0 {
			return m.reject(400, "NUL in what identifies a dialog")
		}
	}
	if m.from.tag() == "" {
		return m.reject(400, "From without tag")
	}
	for _, name := range []string{"contact", "record-route", "route"} {
		for _, v := range m.list(name) {
			if v == "*" && name == "contact" {
				continue
			}
			if _, err := parseAddress(v); err != nil {
				return m.reject(400, "malformed "+name)
			}
		}
	}
	return nil
}

func (m *message) policeRequest() *fault {
	if m.method != m.cmeth {
		if !known[m.method] {
			return m.reject(501, "unknown method "+clip(m.method))
		}
		return m.reject(400, "CSeq of another method")
	}
	if v := m.get("max-forwards"); m.has("max-forwards") {
		n, err := strconv.ParseUint(v, 10, 31)
		if err != nil || n > 255 {
			return m.reject(400, "Max-Forwards "+clip(v))
		}
		// We end the request, but an INVITE goes on as one of ours: a loop
		// through us must come to its end (RFC 3261 §8.1.1.6, RFC 5393).
		if n == 0 && m.method == "INVITE" && m.to.tag() == "" {
			return m.reject(483, "Max-Forwards used up")
		}
	}
	if f := m.policeTarget(); f != nil {
		return f
	}
	if !known[m.method] {
		return m.reject(501, "unknown method "+clip(m.method))
	}
	if m.method != "ACK" && m.method != "CANCEL" {
		// No extension of ours is one that a peer may require.
		var unknown []string
		for _, name := range []string{"require", "proxy-require"} {
			for _, tag := range m.list(name) {
				if isToken(tag) {
					unknown = append(unknown, tag)
				}
			}
		}
		if len(unknown) > 0 {
			return m.reject(420, "Require "+clip(strings.Join(unknown, ",")), field{"Unsupported", strings.Join(unknown, ", ")})
		}
	}
	if m.method == "INVITE" {
		if n := len(m.list("contact")); n != 1 || m.get("contact") == "*" {
			return m.reject(400, "INVITE without one Contact")
		}
		return m.policeBody()
	}
	return nil
}

func (m *message) policeTarget() *fault {
	scheme, _, ok := strings.Cut(m.target, ":")
	switch {
	case strings.HasPrefix(m.target, "<"), !ok, !validURI(m.target):
		return m.reject(400, "malformed Request-URI")
	case !strings.EqualFold(scheme, "sip") && !strings.EqualFold(scheme, "tel"):
		// sips: is refused as well (C-33).
		return m.reject(416, "scheme "+clip(scheme))
	}
	u, err := parseURI(m.target)
	switch {
	case err != nil:
		return m.reject(400, "malformed Request-URI")
	case u.query != "":
		// Header fields in a Request-URI must not become ours (RFC 4475 §3.1.2.11).
		return m.reject(400, "header fields in the Request-URI")
	}
	return nil
}

// policeBody judges what an INVITE carries and what it will take in return.
func (m *message) policeBody() *fault {
	if v := m.get("content-encoding"); v != "" && !strings.EqualFold(v, "identity") {
		return m.reject(415, "Content-Encoding "+clip(v), field{"Accept-Encoding", "identity"})
	}
	if len(m.body) > 0 {
		switch mediaType(m.get("content-type")) {
		case "application/sdp", "multipart/mixed", "multipart/alternative", "multipart/related":
		default:
			return m.reject(415, "Content-Type "+clip(m.get("content-type")), field{"Accept", acceptBody})
		}
	}
	if m.has("accept") {
		for _, v := range m.list("accept") {
			switch mediaType(v) {
			case "application/sdp", "application/*", "*/*":
				return nil
			}
		}
		return m.reject(406, "Accept without SDP", field{"Warning", `399 localloop "only application/sdp"`})
	}
	return nil
}

const acceptBody = "application/sdp, multipart/mixed"

func mediaType(v string) string {
	v, _, _ = strings.Cut(v, ";")
	return strings.ToLower(strings.Trim(v, " \t"))
}

// typed are the header fields that sipgo takes apart: those its transactions
// need. All others stay as received, because what we must echo or route by has
// to keep every byte (C-42).
var typed = []string{"via", "call-id", "cseq", "max-forwards", "content-length"}

// parser is safe for concurrent use: it holds no state.
var parser = newParser()

func newParser() *sipgo.Parser {
	all := sipgo.DefaultHeadersParser()
	some := make(map[string]sipgo.HeaderParser, len(typed))
	for _, name := range typed {
		some[name] = all[name]
	}
	return sipgo.NewParser(sipgo.WithHeadersParsers(some))
}

// parse hands the message, in canonical spelling, to sipgo's parser.
func (m *message) parse() *fault {
	var b strings.Builder
	if m.request {
		b.WriteString(m.method + " " + m.target + " SIP/2.0\r\n")
	} else {
		b.WriteString("SIP/2.0 " + strconv.Itoa(m.status) + " " + m.reason + "\r\n")
	}
	for _, v := range m.vias {
		b.WriteString("Via: " + v.text() + "\r\n")
	}
	b.WriteString("CSeq: " + strconv.FormatUint(uint64(m.cseq), 10) + " " + m.cmeth + "\r\n")
	for _, f := range m.fields {
		switch f.name {
		case "via", "cseq", "content-length":
			continue
		}
		b.WriteString(f.name + ": " + f.value + "\r\n")
	}
	b.WriteString("Content-Length: " + strconv.Itoa(len(m.body)) + "\r\n\r\n")
	b.Write(m.body)
	msg, err := parser.ParseSIP([]byte(b.String()))
	if err != nil {
		return m.reject(400, "parse: "+clip(err.Error()))
	}
	switch msg := msg.(type) {
	case *sipgo.Request:
		m.req = msg
	case *sipgo.Response:
		m.res = msg
	}
	if m.request != (m.req != nil) {
		return m.reject(400, "start line is read in two ways")
	}
	return nil
}
