package sdp

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Bounds on what is read. Microsoft's largest offers are near 4 KiB with about
// twenty candidates; what exceeds a bound below MaxText and maxLines is left
// out of the Description rather than refused.
const (
	MaxText       = 16 << 10 // bytes of text
	maxLines      = 1024
	maxStreams    = 16 // m= lines: each must be answered, so more is an error
	maxCandidates = 64
	maxCryptos    = 16
	maxCodecs     = 64
	maxPtime      = 200 * time.Millisecond
)

// ParseError says which line of a description cannot be used and why. Line
// numbers begin with 1; line 0 stands for the text as a whole.
type ParseError struct {
	Line int
	Text string
}

func (e *ParseError) Error() string {
	if e.Line == 0 {
		return "session description: " + e.Text
	}
	return fmt.Sprintf("session description line %d: %s", e.Line, e.Text)
}

// line is one type=value line of the text.
type line struct {
	number int
	kind   byte
	value  string
}

func (l line) fault(format string, args ...any) error {
	return &ParseError{Line: l.number, Text: fmt.Sprintf(format, args...)}
}

// Parse reads SDP text. It takes the first audio stream over RTP that is not
// refused, notes the other m= lines in Others and skips what it does not know:
// unknown lines and attributes, candidates that are not UDP to a literal
// address, crypto lines that cannot be used. The error is a *ParseError. The
// result shares no memory with text.
func Parse(text []byte) (*Description, error) {
	if len(text) > MaxText {
		return nil, &ParseError{Text: fmt.Sprintf("%d bytes, more than %d", len(text), MaxText)}
	}
	lines, err := split(text)
	if err != nil {
		return nil, err
	}
	session, streams := sections(lines)
	if len(streams) > maxStreams {
		return nil, streams[maxStreams][0].fault("more than %d m= lines", maxStreams)
	}
	d := &Description{}
	voice := -1
	refused := false // the stream chosen so far has port 0
	all := make([]stream, len(streams))
	for i, s := range streams {
		if all[i], err = parseStream(s[0]); err != nil {
			return nil, err
		}
		if all[i].isVoice() && (voice < 0 || refused && all[i].port != 0) {
			voice, refused = i, all[i].port == 0
		}
	}
	if voice < 0 {
		return nil, &ParseError{Text: "no m=audio line over RTP"}
	}
	for i, s := range all {
		if i != voice {
			d.Others = append(d.Others, Other{Index: i, Kind: s.kind, Transport: s.transport, Formats: strings.Join(s.formats, " ")})
		}
	}
	if err := d.read(session, streams[voice], all[voice]); err != nil {
		return nil, err
	}
	return d, nil
}

// split cuts the text into lines that end in LF or CRLF. Empty lines are
// skipped: they stand at the end of many peers' bodies.
func split(text []byte) ([]line, error) {
	var lines []line
	for n := 1; len(text) > 0; n++ {
		raw, rest, _ := bytes.Cut(text, []byte{'\n'})
		text = rest
		raw = bytes.TrimSuffix(raw, []byte{'\r'})
		l := line{number: n}
		switch {
		case n > maxLines:
			return nil, l.fault("more than %d lines", maxLines)
		case len(bytes.TrimSpace(raw)) == 0:
			continue
		case bytes.IndexByte(raw, '\r') >= 0 || bytes.IndexByte(raw, 0) >= 0:
			return nil, l.fault("control character inside the line")
		case len(raw) < 2 || raw[1] != '=':
			return nil, l.fault("not of the form type=value")
		}
		l.kind, l.value = raw[0], strings.TrimSpace(string(raw[2:]))
		lines = append(lines, l)
	}
	return lines, nil
}

// sections separates the session's lines from those of each m= line.
func sections(lines []line) (session []line, streams [][]line) {
	start := -1
	for i, l := range lines {
		if l.kind != 'm' {
			continue
		}
		if start < 0 {
			session = lines[:i]
		} else {
			streams = append(streams, lines[start:i])
		}
		start = i
	}
	if start < 0 {
		return lines, nil
	}
	return session, append(streams, lines[start:])
}

// stream is an m= line, RFC 8866 §5.14.
type stream struct {
	line      line
	kind      string
	port      uint16
	transport string
	formats   []string
}

func parseStream(l line) (stream, error) {
	f := strings.Fields(l.value)
	if len(f) < 4 {
		return stream{}, l.fault("m= line needs media, port, transport and a format: %q", clip(l.value))
	}
	port, _, _ := strings.Cut(f[1], "/") // a number of ports is for hierarchical encodings
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return stream{}, l.fault("port %q is not a number below 65536", clip(f[1]))
	}
	return stream{line: l, kind: strings.ToLower(f[0]), port: uint16(n), transport: f[2], formats: f[3:]}, nil
}

// isVoice reports whether the stream is audio over a profile that this box can
// read. DTLS profiles count, because Microsoft's samples carry SDES under them.
func (s stream) isVoice() bool {
	if s.kind != "audio" {
		return false
	}
	switch strings.ToUpper(s.transport) {
	case "RTP/AVP", "RTP/AVPF", "RTP/SAVP", "RTP/SAVPF", "UDP/TLS/RTP/SAVP", "UDP/TLS/RTP/SAVPF":
		return true
	}
	return false
}

// attributes are what session and stream level share: the stream's value
// counts, else the session's (RFC 8866 §5.13, RFC 8839 §5.4).
type attributes struct {
	addr       netip.Addr
	direction  *Direction
	ufrag, pwd string
	crypto     []Crypto
}

func (d *Description) read(session, media []line, m stream) error {
	var own, outer attributes
	ice := ICE{}
	codecs := newCodecTable(m.formats)
	if len(codecs.list) == 0 {
		return m.line.fault("no payload type among the formats: %q", clip(strings.Join(m.formats, " ")))
	}
	var rtcp string
	var rtcpLine line
	for _, l := range session {
		switch l.kind {
		case 'v':
			if l.value != "0" {
				return l.fault("version %q, not 0", clip(l.value))
			}
		case 'o':
			d.origin(l.value)
		case 'a':
			name, value := attribute(l.value)
			if name == "ice-lite" {
				ice.Lite = true
			}
			outer.attribute(name, value)
		case 'c':
			if err := outer.connection(l); err != nil {
				return err
			}
		}
	}
	for _, l := range media[1:] {
		if l.kind == 'c' {
			if err := own.connection(l); err != nil {
				return err
			}
		}
		if l.kind != 'a' {
			continue
		}
		name, value := attribute(l.value)
		switch name {
		case "rtpmap":
			codecs.rtpmap(value)
		case "fmtp":
			codecs.fmtp(value)
		case "ptime":
			if ms, err := strconv.ParseUint(value, 10, 16); err == nil && time.Duration(ms)*time.Millisecond <= maxPtime {
				d.Ptime = time.Duration(ms) * time.Millisecond
			}
		case "rtcp":
			rtcp, rtcpLine = value, l
		case "rtcp-mux":
			d.RTCPMux = true
		case "ice-lite":
			ice.Lite = true // belongs to the session level, but some write it here
		case "candidate":
			if c, ok := parseCandidate(value); ok && len(ice.Candidates) < maxCandidates {
				ice.Candidates = append(ice.Candidates, c)
			}
		case "remote-candidates":
			ice.Remote = parseRemote(value)
		default:
			own.attribute(name, value)
		}
	}
	own.inherit(outer)

	addr := own.addr
	if !addr.IsValid() {
		if m.port != 0 {
			return m.line.fault("no c= line for the stream")
		}
		addr = netip.IPv4Unspecified()
	}
	d.RTP = netip.AddrPortFrom(addr, m.port)
	if rtcp != "" {
		var err error
		if d.RTCP, err = parseRTCP(rtcp, addr); err != nil {
			return rtcpLine.fault("%s", err)
		}
	}
	d.Transport = m.transport
	d.Secure = strings.Contains(strings.ToUpper(m.transport), "SAVP")
	d.Crypto = own.crypto
	d.Codecs = codecs.list
	if own.direction != nil {
		d.Direction = *own.direction
	}
	if own.ufrag != "" && own.pwd != "" {
		ice.Ufrag, ice.Pwd = own.ufrag, own.pwd
		d.ICE = &ice
	}
	return nil
}

// origin reads o=. Identifiers that are no 64-bit numbers are left zero:
// nothing depends on a peer's o= line.
func (d *Description) origin(value string) {
	f := strings.Fields(value)
	if len(f) < 3 {
		return
	}
	d.SessionID, _ = strconv.ParseUint(f[1], 10, 64)
	d.Version, _ = strconv.ParseUint(f[2], 10, 64)
}

func (a *attributes) connection(l line) error {
	if a.addr.IsValid() {
		return nil // a second c= is for layered multicast
	}
	f := strings.Fields(l.value)
	if len(f) < 3 || !strings.EqualFold(f[0], "IN") {
		return l.fault("c= line is not IN IP4 or IN IP6 with an address: %q", clip(l.value))
	}
	addr, err := parseAddr(f[2])
	if err != nil {
		return l.fault("c= address %q is not a literal unicast address", clip(f[2]))
	}
	a.addr = addr
	return nil
}

func (a *attributes) attribute(name, value string) {
	switch name {
	case "sendrecv", "sendonly", "recvonly", "inactive":
		dir := SendRecv
		for i, n := range directionNames {
			if n == name {
				dir = Direction(i)
			}
		}
		a.direction = &dir
	case "ice-ufrag":
		a.ufrag = credential(value)
	case "ice-pwd":
		a.pwd = credential(value)
	case "crypto":
		if c, ok := parseCrypto(value); ok && len(a.crypto) < maxCryptos {
			a.crypto = append(a.crypto, c)
		}
	}
}

// inherit fills what the stream does not say from the session.
func (a *attributes) inherit(outer attributes) {
	if !a.addr.IsValid() {
		a.addr = outer.addr
	}
	if a.direction == nil {
		a.direction = outer.direction
	}
	// Fragment and password belong together; a stream that has one of its own
	// inherits the other, RFC 8839 §5.4.
	if a.ufrag == "" {
		a.ufrag = outer.ufrag
	}
	if a.pwd == "" {
		a.pwd = outer.pwd
	}
	if len(a.crypto) == 0 {
		a.crypto = outer.crypto
	}
}

// attribute splits "name:value". Names are compared in lower case: peers exist
// that write them otherwise.
func attribute(text string) (name, value string) {
	name, value, _ = strings.Cut(text, ":")
	return strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
}

// parseAddr reads a literal unicast address; 0.0.0.0 is the old form of hold.
func parseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, err
	}
	if addr = addr.Unmap(); addr.Zone() != "" || addr.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("%s: zone or multicast", text)
	}
	return addr, nil
}

// parseRTCP reads "port" or "port IN IP4 address", RFC 3605 §2.1.
func parseRTCP(value string, addr netip.Addr) (netip.AddrPort, error) {
	f := strings.Fields(value)
	port, err := strconv.ParseUint(f[0], 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("a=rtcp port %q is not a number below 65536", clip(f[0]))
	}
	if len(f) >= 4 {
		if addr, err = parseAddr(f[3]); err != nil {
			return netip.AddrPort{}, fmt.Errorf("a=rtcp address %q is not a literal unicast address", clip(f[3]))
		}
	}
	return netip.AddrPortFrom(addr, uint16(port)), nil
}

// clip shortens foreign text for an error message.
func clip(s string) string {
	const most = 40
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
