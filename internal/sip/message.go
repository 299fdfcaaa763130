package sip

import (
	"bytes"
	"strconv"
	"strings"

	sipgo "github.com/emiago/sipgo/sip"
)

// Limits on what is read from outside. RFC 3261 sets none; Microsoft sends
// messages of a few kilobytes (C-21), RFC 4475 §3.1.1.7 lines of 3.5 KB.
const (
	maxHead   = 32 << 10 // start line and header fields
	maxBody   = 64 << 10
	maxFields = 128
	maxLine   = 8 << 10 // one unfolded header field
	maxStart  = 4 << 10
)

// field is one header field. Name is in lower case with compact forms expanded,
// value is unfolded and trimmed but otherwise as received.
type field struct{ name, value string }

// message is a SIP message as received, before and after sipgo has parsed it.
type message struct {
	request bool
	method  string // requests
	target  string // Request-URI as received
	status  int    // responses
	reason  string
	fields  []field
	body    []byte

	vias   []via
	cseq   uint32
	cmeth  string // method of CSeq
	callID string
	from   address
	to     address

	// One of these is set once the police has let the message pass.
	req *sipgo.Request
	res *sipgo.Response
}

// fault is why a message is not processed. Status 0 means silence.
type fault struct {
	status int
	why    string
	extra  []field
	// close says that the end of the message is unknown: a stream that carried
	// it cannot be read any further.
	close bool
}

func refuse(status int, why string, extra ...field) *fault {
	return &fault{status: status, why: why, extra: extra}
}

func lost(status int, why string) *fault { return &fault{status: status, why: why, close: true} }

// compact forms, RFC 3261 §7.3.3 and the IANA registry.
var compact = map[string]string{
	"a": "accept-contact", "b": "referred-by", "c": "content-type", "d": "request-disposition",
	"e": "content-encoding", "f": "from", "i": "call-id", "j": "reject-contact", "k": "supported",
	"l": "content-length", "m": "contact", "n": "identity-info", "o": "event", "r": "refer-to",
	"s": "subject", "t": "to", "u": "allow-events", "v": "via", "x": "session-expires", "y": "identity",
}

// isToken reports whether s is a token of RFC 3261 §25.1.
func isToken(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return true
}

func isTokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-.!%*_+`'~", c) >= 0
}

// lex reads start line and header fields. head ends with the empty line. A
// message comes back even with a fault, so far as it was understood: a response
// needs its Via, From and To.
func lex(head []byte) (*message, *fault) {
	m := &message{}
	head = bytes.TrimSuffix(head, []byte("\r\n\r\n"))
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	f := m.lexStart(string(line))
	if g := m.lexFields(string(rest)); f == nil {
		f = g
	}
	return m, f
}

// lexStart reads a Request-Line or Status-Line, RFC 3261 §7.1 and §7.2. The
// elements are separated by exactly one space (RFC 4475 §3.1.2.9, §3.1.2.10).
func (m *message) lexStart(line string) *fault {
	if len(line) > maxStart {
		return lost(0, "start line too long")
	}
	if len(line) >= 4 && strings.EqualFold(line[:4], "SIP/") {
		return m.lexStatus(line)
	}
	m.request = true
	word, rest, _ := strings.Cut(line, " ")
	if !isToken(word) {
		return lost(0, "not SIP")
	}
	m.method = word
	i := strings.LastIndexByte(rest, ' ')
	if i < 0 {
		return lost(0, "not SIP")
	}
	m.target = rest[:i]
	version := rest[i+1:]
	switch {
	case version == "" || m.target == "" || strings.ContainsAny(m.target, " \t"):
		return refuse(400, "spaces in the request line")
	case len(version) < 4 || !strings.EqualFold(version[:4], "SIP/"):
		return lost(0, "not SIP")
	case !strings.EqualFold(version, "SIP/2.0"):
		return refuse(505, "version "+clip(version))
	}
	return nil
}

func (m *message) lexStatus(line string) *fault {
	version, rest, _ := strings.Cut(line, " ")
	code, reason, _ := strings.Cut(rest, " ")
	if !strings.EqualFold(version, "SIP/2.0") {
		return refuse(0, "response of version "+clip(version))
	}
	status, ok := number3(code)
	if !ok {
		return refuse(0, "status code "+clip(code))
	}
	m.status, m.reason = status, reason
	return nil
}

func number3(s string) (int, bool) {
	if len(s) != 3 || s[0] < '1' || s[0] > '6' {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

func (m *message) lexFields(text string) *fault {
	var f *fault
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\r\n")
		if strings.ContainsAny(line, "\r\n") { // other octets may stand in quoted pairs, RFC 4475 §3.1.1.2
			return refuse(400, "control character in a header field")
		}
		if line == "" {
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			if len(m.fields) == 0 {
				return refuse(400, "continuation without a header field")
			}
			last := &m.fields[len(m.fields)-1]
			last.value = strings.TrimSpace(last.value + " " + strings.Trim(line, " \t"))
			if len(last.value) > maxLine {
				return refuse(400, "header field too long")
			}
			continue
		}
		if len(m.fields) == maxFields {
			return refuse(400, "too many header fields")
		}
		name, value, ok := strings.Cut(line, ":")
		name = strings.ToLower(strings.TrimRight(name, " \t"))
		if !ok || !isToken(name) {
			// The rest is still wanted: the sender hears what is wrong only if
			// its Via is found.
			f = refuse(400, "header field without a name")
			continue
		}
		if len(line) > maxLine {
			return refuse(400, "header field too long")
		}
		if full, ok := compact[name]; ok {
			name = full
		}
		m.fields = append(m.fields, field{name, strings.Trim(value, " \t")})
	}
	return f
}

// values returns all values of a header field, in order; lists are not split.
func (m *message) values(name string) []string {
	var v []string
	for _, f := range m.fields {
		if f.name == name {
			v = append(v, f.value)
		}
	}
	return v
}

// get returns the first value of a header field, empty if absent.
func (m *message) get(name string) string {
	for _, f := range m.fields {
		if f.name == name {
			return f.value
		}
	}
	return ""
}

func (m *message) has(name string) bool {
	for _, f := range m.fields {
		if f.name == name {
			return true
		}
	}
	return false
}

// list returns the elements of a comma separated header field over all its lines.
func (m *message) list(name string) []string {
	var out []string
	for _, v := range m.values(name) {
		out = append(out, splitList(v)...)
	}
	return out
}

// length returns the Content-Length, or -1 if there is none.
func (m *message) length() (int, *fault) {
	values := m.values("content-length")
	switch len(values) {
	case 0:
		return -1, nil
	case 1:
	default:
		// The last one wins in some stacks, the first in others: the sender
		// could hide a message in a body (RFC 4475 §3.3.9).
		return 0, lost(400, "two Content-Length")
	}
	n := 0
	for i := 0; i < len(values[0]); i++ {
		c := values[0][i]
		if c < '0' || c > '9' || n > maxBody {
			return 0, lost(400, "Content-Length "+clip(values[0]))
		}
		n = n*10 + int(c-'0')
	}
	if values[0] == "" {
		return 0, lost(400, "empty Content-Length")
	}
	if n > maxBody {
		return 0, lost(413, "body too long")
	}
	return n, nil
}

var (
	crlf     = []byte("\r\n")
	crlfcrlf = []byte("\r\n\r\n")
)

// clip shortens foreign text for logs.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}
