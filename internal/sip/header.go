package sip

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// param is one ;name=value. Names are in lower case, a quoted value is kept with
// its quotes.
type param struct{ name, value string }

type params []param

func (p params) get(name string) (string, bool) {
	for _, q := range p {
		if q.name == name {
			return q.value, true
		}
	}
	return "", false
}

// address is a name-addr or addr-spec with header parameters, RFC 3261 §20.10:
// the value of From, To, Contact, Route.
type address struct {
	raw     string // as received, trimmed
	display string // unquoted
	uri     string // as received, without angle brackets
	params  params // of the header field, not of the URI
}

func (a address) tag() string {
	t, _ := a.params.get("tag")
	return t
}

var errAddress = errors.New("malformed address")

// parseAddress reads one address. It accepts a display name that should have
// been quoted (RFC 4475 §3.1.2.15) and refuses what can be read in two ways.
func parseAddress(s string) (address, error) {
	s = strings.Trim(s, " \t")
	a := address{raw: s}
	rest := s
	if strings.HasPrefix(s, `"`) {
		end := quotedEnd(s)
		if end < 0 {
			return a, errAddress
		}
		a.display = unquote(s[:end])
		rest = strings.TrimLeft(s[end:], " \t")
		if !strings.HasPrefix(rest, "<") {
			return a, errAddress
		}
	}
	if i := strings.IndexByte(rest, '<'); i >= 0 && !strings.ContainsAny(rest[:i], `;>"`) {
		if a.display == "" {
			a.display = strings.Trim(rest[:i], " \t")
		}
		j := strings.IndexByte(rest[i:], '>')
		if j < 0 {
			return a, errAddress
		}
		a.uri, rest = rest[i+1:i+j], rest[i+j+1:]
	} else {
		// Without brackets everything behind ';' belongs to the header field,
		// and '?' or ',' cannot be told from it (RFC 3261 §20).
		j := strings.IndexByte(rest, ';')
		if j < 0 {
			j = len(rest)
		}
		a.uri, rest = strings.TrimRight(rest[:j], " \t"), rest[j:]
		if strings.ContainsAny(a.uri, "?,<>") {
			return a, errAddress
		}
	}
	if !validURI(a.uri) {
		return a, errAddress
	}
	var err error
	a.params, err = parseParams(rest)
	return a, err
}

// validURI reports whether s has a scheme and nothing that ends a URI.
func validURI(s string) bool {
	i := strings.IndexByte(s, ':')
	if i <= 0 || i == len(s)-1 {
		return false
	}
	for j := 0; j < i; j++ {
		c := s[j]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || j > 0 && (c >= '0' && c <= '9' || c == '+' || c == '-' || c == '.')) {
			return false
		}
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '<' || r == '>' || r == '"' })
}

// quotedEnd returns the index behind the closing quote of the quoted-string that
// s begins with, or -1.
func quotedEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

func unquote(s string) string {
	s = strings.TrimSuffix(strings.TrimPrefix(s, `"`), `"`)
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// quote writes a display name as quoted-string, RFC 3261 §25.1. Control
// characters cannot be written and are left out.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r < ' ' || r == 0x7f:
			continue
		case r == '"' || r == '\\':
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	b.WriteByte('"')
	return b.String()
}

// parseParams reads *( SEMI name [ EQUAL value ] ). An empty parameter is an
// error (RFC 4475 §3.1.2.1).
func parseParams(s string) (params, error) {
	var out params
	s = strings.TrimLeft(s, " \t")
	for s != "" {
		if s[0] != ';' {
			return out, errAddress
		}
		s = strings.TrimLeft(s[1:], " \t")
		i := 0
		for i < len(s) && isTokenByte(s[i]) {
			i++
		}
		if i == 0 {
			return out, errAddress
		}
		p := param{name: strings.ToLower(s[:i])}
		s = strings.TrimLeft(s[i:], " \t")
		if strings.HasPrefix(s, "=") {
			s = strings.TrimLeft(s[1:], " \t")
			j := strings.IndexByte(s, ';')
			if strings.HasPrefix(s, `"`) {
				j = quotedEnd(s)
				if j < 0 {
					return out, errAddress
				}
			} else if j < 0 {
				j = len(s)
			}
			p.value = strings.TrimRight(s[:j], " \t")
			s = strings.TrimLeft(s[j:], " \t")
			if strings.ContainsAny(p.value, "<>,") && p.value[0] != '"' {
				return out, errAddress
			}
		}
		out = append(out, p)
	}
	return out, nil
}

// splitList splits at commas outside of quotes and angle brackets.
func splitList(s string) []string {
	var out []string
	start, angle := 0, false
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			if n := quotedEnd(s[i:]); n > 0 {
				i += n - 1
			}
		case '<':
			angle = true
		case '>':
			angle = false
		case ',':
			if !angle {
				out = append(out, strings.Trim(s[start:i], " \t"))
				start = i + 1
			}
		}
	}
	return append(out, strings.Trim(s[start:], " \t"))
}

// uri is a SIP, SIPS or tel URI in its parts, RFC 3261 §19.1.1, RFC 3966 §3.
// Parts are as received; nothing is unescaped.
type uri struct {
	scheme string // lower case
	user   string // for tel the number with its parameters
	host   string // without the brackets of IPv6
	port   int    // 0 if absent
	params params
	query  string // headers, without '?'
}

// parseURI never fails for a URI that validURI accepts, except for ports that
// are none and hosts that are missing.
func parseURI(s string) (uri, error) {
	if !validURI(s) {
		return uri{}, errAddress
	}
	i := strings.IndexByte(s, ':')
	u := uri{scheme: strings.ToLower(s[:i])}
	s = s[i+1:]
	if u.scheme != "sip" && u.scheme != "sips" {
		u.user = s
		return u, nil
	}
	// '@' must be escaped everywhere else, so the last one ends the user part.
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		u.user, s = s[:i], s[i+1:]
	}
	if i := strings.IndexByte(s, '?'); i >= 0 {
		s, u.query = s[:i], s[i+1:]
	}
	host := s
	if i := strings.IndexByte(s, ';'); i >= 0 {
		host = s[:i]
		// The path that Microsoft puts behind a parameter (x-c=…/s/1/…) is part
		// of its value; parameters that are no tokens are left out.
		for _, p := range strings.Split(s[i+1:], ";") {
			name, value, _ := strings.Cut(p, "=")
			u.params = append(u.params, param{strings.ToLower(name), value})
		}
	}
	if strings.HasPrefix(host, "[") {
		j := strings.IndexByte(host, ']')
		if j < 0 {
			return u, errAddress
		}
		u.host, host = host[1:j], host[j+1:]
		if _, err := netip.ParseAddr(u.host); err != nil {
			return u, errAddress
		}
		if host != "" && host[0] != ':' {
			return u, errAddress
		}
		host = strings.TrimPrefix(host, ":")
	} else {
		u.host, host, _ = strings.Cut(host, ":")
	}
	if host != "" {
		n, err := strconv.ParseUint(host, 10, 16)
		if err != nil || n == 0 {
			return u, errAddress
		}
		u.port = int(n)
	}
	if u.host == "" {
		return u, errAddress
	}
	return u, nil
}

// via is one element of Via, RFC 3261 §20.42.
type via struct {
	raw       string
	transport string
	host      string
	port      int
	params    params
}

func parseVia(s string) (via, error) {
	v := via{raw: s}
	// sent-protocol allows white space round its slashes (RFC 4475 §3.1.1.1).
	name, rest, ok := strings.Cut(s, "/")
	version, rest, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || !strings.EqualFold(strings.Trim(name, " \t"), "SIP") || strings.Trim(version, " \t") != "2.0" {
		return v, errAddress
	}
	rest = strings.TrimLeft(rest, " \t")
	i := strings.IndexAny(rest, " \t")
	if i <= 0 || !isToken(rest[:i]) {
		return v, errAddress
	}
	v.transport = strings.ToUpper(rest[:i])
	rest = strings.TrimLeft(rest[i:], " \t")
	host := rest
	if j := strings.IndexByte(rest, ';'); j >= 0 {
		host = rest[:j]
		var err error
		if v.params, err = parseParams(rest[j:]); err != nil {
			return v, err
		}
	}
	host = strings.Trim(host, " \t")
	if strings.HasPrefix(host, "[") {
		j := strings.IndexByte(host, ']')
		if j < 0 {
			return v, errAddress
		}
		v.host, host = host[1:j], strings.Trim(host[j+1:], " \t")
		if host != "" && host[0] != ':' {
			return v, errAddress
		}
		host = strings.TrimPrefix(host, ":")
	} else {
		v.host, host, _ = strings.Cut(host, ":")
		v.host = strings.TrimRight(v.host, " \t")
	}
	if host = strings.Trim(host, " \t"); host != "" {
		n, err := strconv.ParseUint(host, 10, 16)
		if err != nil || n == 0 {
			return v, errAddress
		}
		v.port = int(n)
	}
	if v.host == "" || strings.ContainsAny(v.host, " \t<>\"@/,") {
		return v, errAddress
	}
	return v, nil
}

func (v via) branch() string {
	b, _ := v.params.get("branch")
	return b
}

func (v via) sentBy() string {
	return strings.ToLower(net.JoinHostPort(v.host, strconv.Itoa(v.port)))
}

// text writes the element for sipgo, with canonical white space.
func (v via) text() string {
	var b strings.Builder
	b.WriteString("SIP/2.0/" + v.transport + " ")
	if strings.IndexByte(v.host, ':') >= 0 {
		b.WriteString("[" + v.host + "]")
	} else {
		b.WriteString(v.host)
	}
	if v.port != 0 {
		b.WriteString(":" + strconv.Itoa(v.port))
	}
	for _, p := range v.params {
		b.WriteString(";" + p.name)
		if p.value != "" {
			b.WriteString("=" + p.value)
		}
	}
	return b.String()
}

// received returns the element as it must go back: with the source it came from
// (RFC 3261 §18.2.1) and the port if it asked for it (RFC 3581 §4).
func (v via) received(src netip.AddrPort) string {
	ip := src.Addr().Unmap().String()
	_, rport := v.params.get("rport")
	if v.host == "" || v.host == ip && !rport {
		return v.raw
	}
	out := v
	out.params = nil
	for _, p := range v.params {
		if p.name != "rport" && p.name != "received" {
			out.params = append(out.params, p)
		}
	}
	out.params = append(out.params, param{"received", ip})
	if rport {
		out.params = append(out.params, param{"rport", strconv.Itoa(int(src.Port()))})
	}
	return out.text()
}
