package siptest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// Bounds of what is read from the wire.
const (
	maxHead = 64 << 10
	maxBody = 256 << 10
)

// Field is one header field.
type Field struct{ Name, Value string }

// Message is a SIP request or response.
type Message struct {
	Method, URI string // request
	Status      int    // response
	Reason      string
	Version     string // as read; written as SIP/2.0
	Fields      []Field
	Body        []byte
}

var compact = map[string]string{
	"v": "Via", "f": "From", "t": "To", "i": "Call-ID", "m": "Contact", "l": "Content-Length", "c": "Content-Type",
	"e": "Content-Encoding", "k": "Supported", "s": "Subject", "r": "Refer-To", "b": "Referred-By", "x": "Session-Expires", "o": "Event",
}

// IsRequest tells requests from responses.
func (m *Message) IsRequest() bool { return m.Method != "" }

// Get returns the first value of a header, compared without case.
func (m *Message) Get(name string) string {
	for _, f := range m.Fields {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// Has reports whether the header is there at all.
func (m *Message) Has(name string) bool {
	for _, f := range m.Fields {
		if strings.EqualFold(f.Name, name) {
			return true
		}
	}
	return false
}

// All returns every value of a header, comma lists taken apart.
func (m *Message) All(name string) []string {
	var values []string
	for _, f := range m.Fields {
		if strings.EqualFold(f.Name, name) {
			values = append(values, splitList(f.Value)...)
		}
	}
	return values
}

// Add appends a header.
func (m *Message) Add(name, value string) { m.Fields = append(m.Fields, Field{name, value}) }

// replace sets a header that may be there already.
func (m *Message) replace(f Field) {
	for i := range m.Fields {
		if strings.EqualFold(m.Fields[i].Name, f.Name) {
			m.Fields[i].Value = f.Value
			return
		}
	}
	m.Add(f.Name, f.Value)
}

// Lists reports whether a token list header (Allow, Supported, Require) holds token.
func (m *Message) Lists(name, token string) bool {
	for _, v := range m.All(name) {
		if strings.EqualFold(v, token) {
			return true
		}
	}
	return false
}

// CSeq returns number and method of the CSeq header.
func (m *Message) CSeq() (int, string) {
	number, method, _ := strings.Cut(strings.TrimSpace(m.Get("CSeq")), " ")
	n, _ := strconv.Atoi(number)
	return n, strings.TrimSpace(method)
}

// splitList cuts at commas that are outside quotes and angle brackets.
func splitList(s string) []string {
	var list []string
	depth, quoted, begin := 0, false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			depth++
		case c == '>':
			depth--
		case c == ',' && depth <= 0:
			list = append(list, strings.TrimSpace(s[begin:i]))
			begin = i + 1
		}
	}
	if rest := strings.TrimSpace(s[begin:]); rest != "" || len(list) > 0 {
		list = append(list, rest)
	}
	return list
}

// param returns a parameter after the address of a From, To, Contact or Via value.
func param(value, name string) string {
	if i := strings.LastIndexByte(value, '>'); i >= 0 {
		value = value[i+1:]
	}
	for _, p := range strings.Split(value, ";")[1:] {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(strings.TrimSpace(k), name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// addrSpec returns the URI of a name-addr or addr-spec.
func addrSpec(value string) string {
	if strings.HasPrefix(value, `"`) { // a quoted name may hold anything
		for i := 1; i < len(value); i++ {
			if value[i] == '\\' {
				i++
			} else if value[i] == '"' {
				value = value[i+1:]
				break
			}
		}
	}
	if i := strings.IndexByte(value, '<'); i >= 0 {
		if j := strings.IndexByte(value[i:], '>'); j >= 0 {
			return value[i+1 : i+j]
		}
		return ""
	}
	uri, _, _ := strings.Cut(value, ";")
	return strings.TrimSpace(uri)
}

// sipURI is a URI taken apart as far as checks need it.
type sipURI struct {
	scheme, user, host string
	hasUser            bool
	port               int
	params             map[string]string
}

func parseURI(s string) (sipURI, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		return sipURI{}, fmt.Errorf("URI %q without scheme", s)
	}
	u := sipURI{scheme: strings.ToLower(scheme), params: map[string]string{}}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		u.hasUser, u.user, rest = true, rest[:i], rest[i+1:]
	}
	rest, _, _ = strings.Cut(rest, "?")
	parts := strings.Split(rest, ";")
	hostport := parts[0]
	for _, p := range parts[1:] {
		k, v, _ := strings.Cut(p, "=")
		u.params[strings.ToLower(k)] = v
	}
	u.host = hostport
	if h, p, err := net.SplitHostPort(hostport); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return u, fmt.Errorf("URI %q: port: %w", s, err)
		}
		u.host, u.port = h, int(n)
	}
	u.host = strings.Trim(u.host, "[]")
	if u.host == "" {
		return u, fmt.Errorf("URI %q without host", s)
	}
	return u, nil
}

// Parse reads one whole message, as a datagram carries it.
func Parse(b []byte) (*Message, error) {
	r := bufio.NewReaderSize(bytes.NewReader(b), 4096)
	m, err := readHead(r)
	if err != nil {
		return nil, err
	}
	rest, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err != nil {
		return nil, err
	}
	n := len(rest)
	if m.Has("Content-Length") {
		if n, err = m.contentLength(); err != nil {
			return nil, err
		}
		if n > len(rest) {
			return nil, fmt.Errorf("Content-Length %d with a body of %d bytes", n, len(rest))
		}
	}
	m.Body = rest[:n]
	return m, nil
}

// Read reads the next message of a stream; CRLF before it is skipped (RFC 5626
// keep-alives). io.EOF is returned only between messages.
func Read(r *bufio.Reader) (*Message, error) {
	for {
		c, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		if c != '\r' && c != '\n' {
			_ = r.UnreadByte()
			break
		}
	}
	m, err := readHead(r)
	if err != nil {
		return nil, err
	}
	if !m.Has("Content-Length") {
		return nil, errors.New("message on a stream without Content-Length")
	}
	n, err := m.contentLength()
	if err != nil {
		return nil, err
	}
	m.Body = make([]byte, n)
	if _, err := io.ReadFull(r, m.Body); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	return m, nil
}

func (m *Message) contentLength() (int, error) {
	n, err := strconv.Atoi(strings.TrimSpace(m.Get("Content-Length")))
	if err != nil || n < 0 || n > maxBody {
		return 0, fmt.Errorf("Content-Length %q", m.Get("Content-Length"))
	}
	return n, nil
}

func readHead(r *bufio.Reader) (*Message, error) {
	left := maxHead
	line := func() (string, error) {
		var b []byte
		for {
			part, err := r.ReadSlice('\n')
			if left -= len(part); left < 0 {
				return "", fmt.Errorf("head of more than %d bytes", maxHead)
			}
			b = append(b, part...)
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if err != nil {
				return "", fmt.Errorf("head: %w", err)
			}
			return strings.TrimRight(string(b), "\r\n"), nil
		}
	}
	start, err := line()
	if err != nil {
		return nil, err
	}
	m := &Message{}
	words := strings.SplitN(start, " ", 3)
	if len(words) < 3 && !(len(words) == 2 && strings.HasPrefix(words[0], "SIP/")) {
		return nil, fmt.Errorf("start line %q", start)
	}
	if strings.HasPrefix(words[0], "SIP/") {
		m.Version = words[0]
		if m.Status, err = strconv.Atoi(words[1]); err != nil || m.Status < 100 || m.Status > 699 {
			return nil, fmt.Errorf("start line %q", start)
		}
		if len(words) == 3 {
			m.Reason = words[2]
		}
	} else {
		m.Method, m.URI, m.Version = words[0], words[1], words[2]
		if m.Method == "" || m.URI == "" {
			return nil, fmt.Errorf("start line %q", start)
		}
	}
	for {
		text, err := line()
		if err != nil {
			return nil, err
		}
		if text == "" {
			return m, nil
		}
		if text[0] == ' ' || text[0] == '\t' { // folded, RFC 3261 §7.3.1
			if len(m.Fields) == 0 {
				return nil, fmt.Errorf("folded line before any header")
			}
			last := &m.Fields[len(m.Fields)-1]
			last.Value = strings.TrimSpace(last.Value + " " + strings.TrimSpace(text))
			continue
		}
		name, value, ok := strings.Cut(text, ":")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			return nil, fmt.Errorf("header line %q", text)
		}
		if long := compact[strings.ToLower(name)]; long != "" {
			name = long
		}
		m.Fields = append(m.Fields, Field{name, strings.TrimSpace(value)})
	}
}

// Bytes writes the message; upper writes header names in capitals, as Teams does.
func (m *Message) Bytes(upper bool) []byte {
	var b bytes.Buffer
	if m.IsRequest() {
		fmt.Fprintf(&b, "%s %s SIP/2.0\r\n", m.Method, m.URI)
	} else {
		fmt.Fprintf(&b, "SIP/2.0 %d %s\r\n", m.Status, m.Reason)
	}
	for _, f := range m.Fields {
		if strings.EqualFold(f.Name, "Content-Length") {
			continue
		}
		name := f.Name
		if upper {
			name = strings.ToUpper(name)
		}
		fmt.Fprintf(&b, "%s: %s\r\n", name, f.Value)
	}
	name := "Content-Length"
	if upper {
		name = strings.ToUpper(name)
	}
	fmt.Fprintf(&b, "%s: %d\r\n\r\n", name, len(m.Body))
	b.Write(m.Body)
	return b.Bytes()
}

var reasons = map[int]string{
	100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK", 202: "Accepted", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
	405: "Method Not Allowed", 408: "Request Timeout", 480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 484: "Address Incomplete",
	486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here", 491: "Request Pending", 500: "Server Internal Error", 501: "Not Implemented",
	503: "Service Unavailable", 504: "Server Time-out", 603: "Decline",
}

// respond makes a response with what RFC 3261 §8.2.6 copies from the request.
func respond(req *Message, status int, tag string) *Message {
	m := &Message{Status: status, Reason: reasons[status], Version: "SIP/2.0"}
	if m.Reason == "" {
		m.Reason = "Response"
	}
	for _, f := range req.Fields {
		if strings.EqualFold(f.Name, "Via") || strings.EqualFold(f.Name, "Record-Route") && status > 100 && status < 300 {
			m.Add(f.Name, f.Value)
		}
	}
	to := req.Get("To")
	if tag != "" && status > 100 && param(to, "tag") == "" {
		to += ";tag=" + tag
	}
	m.Add("From", req.Get("From"))
	m.Add("To", to)
	m.Add("Call-ID", req.Get("Call-ID"))
	m.Add("CSeq", req.Get("CSeq"))
	return m
}
