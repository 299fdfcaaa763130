package sip

import (
	"strings"

	"localloop/internal/call"
)

// userNumber is the number in the user part of a URI: parameters and visual
// separators left out, escapes resolved once (RFC 3261 §19.1.2, RFC 3966 §5.1.1).
// What is no number, a name for example, comes back unescaped.
func (u uri) userNumber() string {
	user, _, _ := strings.Cut(u.user, ";")
	if u.scheme != "tel" {
		user, _, _ = strings.Cut(user, ":") // a password, long deprecated
	}
	user = unescape(user)
	digits := strings.Map(func(r rune) rune {
		if strings.ContainsRune("-.() ", r) {
			return -1
		}
		return r
	}, user)
	if isNumber(digits) {
		return digits
	}
	return user
}

// isNumber reports whether s is what can be dialled: E.164 with or without '+',
// service codes with '*' and '#' (C-36, C-37).
func isNumber(s string) bool {
	s = strings.TrimPrefix(s, "+")
	if s == "" || len(s) > 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if strings.IndexByte("0123456789*#ABCDabcd", s[i]) < 0 {
			return false
		}
	}
	return true
}

// isE164 reports whether s is '+' and 3 to 15 digits, ITU-T E.164 §6.
func isE164(s string) bool {
	if len(s) < 4 || len(s) > 16 || s[0] != '+' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi >= 0 && lo >= 0 {
				b.WriteByte(byte(hi<<4 | lo))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// escapeUser writes s as user part, RFC 3261 §25.1: '#' and everything else that
// is not allowed there is escaped.
func escapeUser(s string) string {
	const plain = "-_.!~*'()&=+$,/"
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

// callingParty reads who calls. From says what the caller's side wants shown; a
// P-Asserted-Identity names the caller only where From hides it (RFC 3325 §9.1,
// C-43): Microsoft's holds the billed user, whatever number the tenant chose.
// Peers are trusted by trunk, so their assertion may be believed.
func (m *message) callingParty() call.Party {
	p := call.Party{Name: m.from.display}
	u, err := parseURI(m.from.uri)
	if err == nil {
		p.Number = u.userNumber()
	}
	anonymous := err != nil || strings.EqualFold(p.Number, "anonymous") || strings.EqualFold(u.host, "anonymous.invalid") || p.Number == ""
	for _, v := range m.values("privacy") {
		for _, token := range strings.FieldsFunc(v, func(r rune) bool { return r == ';' || r == ',' || r == ' ' }) {
			switch strings.ToLower(token) {
			case "id", "user", "header":
				p.Private = true
			}
		}
	}
	if !anonymous {
		// ForwardPai puts Privacy: id beside a From that is to be shown
		// (C-43): it protects the assertion, and From is public anyway.
		if m.has("p-asserted-identity") && isNumber(p.Number) {
			p.Private = false
		}
		return p
	}
	p = call.Party{Private: true}
	for _, v := range m.list("p-asserted-identity") {
		a, err := parseAddress(v)
		if err != nil {
			continue
		}
		u, err := parseURI(a.uri)
		if err != nil {
			continue
		}
		if n := u.userNumber(); isNumber(n) {
			p.Number, p.Name = n, a.display
			break
		}
	}
	return p
}

// called reads the called number from the Request-URI (C-35: the host is ours by
// the trunk it came in on).
func (m *message) called() string {
	u, err := parseURI(m.target)
	if err != nil {
		return ""
	}
	return u.userNumber()
}

// teamsHeaders reads Microsoft's headers of Local Media Optimization; nil if
// there is none of them. Names and the location are compared without case
// (Microsoft: Configure Local Media Optimization).
func (m *message) teamsHeaders() *call.TeamsHeaders {
	h := call.TeamsHeaders{
		UserLocation:   strings.ToLower(clip(m.get("x-ms-userlocation"))),
		UserSite:       clip(m.get("x-ms-usersite")),
		ConversationID: clip(m.get("ms-conversation-id")),
		Region:         region(m),
	}
	for _, v := range m.list("x-ms-mediapath") {
		if v != "" && len(h.MediaPath) < maxParts {
			h.MediaPath = append(h.MediaPath, strings.ToLower(clip(v)))
		}
	}
	if h.UserLocation == "" && h.UserSite == "" && h.ConversationID == "" && h.Region == "" && h.MediaPath == nil {
		return nil
	}
	return &h
}

// region finds the region token of Microsoft's self-description,
// "Microsoft.PSTNHub.SIPProxy v.2026.9.1.3 i.EUWE.4": EUWE.
func region(m *message) string {
	for _, name := range []string{"server", "user-agent"} {
		for _, word := range strings.Fields(m.get(name)) {
			if rest, ok := strings.CutPrefix(word, "i."); ok {
				r, _, _ := strings.Cut(rest, ".")
				return clip(r)
			}
		}
	}
	return ""
}
