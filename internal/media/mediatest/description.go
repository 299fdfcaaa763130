package mediatest

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxDescription bounds the text that is parsed.
const maxDescription = 64 << 10

// Description is what a session description says about its first audio stream:
// only what a client needs.
type Description struct {
	SessionID, Version uint64
	Profile            string // RTP/AVP, RTP/SAVP …
	Addr               netip.AddrPort
	RTCP               netip.AddrPort
	RTCPMux            bool
	Codecs             []Codec
	Crypto             []Crypto
	Ufrag, Pwd         string
	Lite               bool
	Candidates         []Candidate
	RemoteCandidates   []netip.AddrPort
	Direction          string // sendrecv if absent
	Ptime              int    // ms, zero if absent
}

// Codec is a payload type with its rtpmap.
type Codec struct {
	PayloadType uint8
	Name        string // "PCMA/8000"
	Fmtp        string
}

// Crypto is an a=crypto line. Key holds master key and salt.
type Crypto struct {
	Tag   int
	Suite string
	Key   []byte
	MKI   []byte // nil if the line names none
}

// Candidate is an a=candidate line.
type Candidate struct {
	Foundation string
	Component  int
	Transport  string
	Priority   uint32
	Addr       netip.AddrPort
	Type       string
	Related    netip.AddrPort
}

func staticName(pt uint8) string {
	switch pt {
	case 0:
		return "PCMU/8000"
	case 8:
		return "PCMA/8000"
	case 9:
		return "G722/8000"
	case 13:
		return "CN/8000"
	case 18:
		return "G729/8000"
	}
	return ""
}

// ParseDescription reads a session description. Lines that it does not know are
// left out; an error means that there is no usable audio stream.
func ParseDescription(text []byte) (Description, error) {
	d := Description{Direction: "sendrecv"}
	if len(text) > maxDescription {
		return d, fmt.Errorf("session description of %d bytes", len(text))
	}
	if !strings.HasPrefix(string(text), "v=0") {
		return d, fmt.Errorf("session description does not begin with v=0")
	}
	var connection netip.Addr
	var port uint16
	var rtcpPort uint16
	section := 0 // 0 session, 1 audio, 2 anything else
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		kind, value, ok := strings.Cut(line, "=")
		if !ok || section == 2 && kind != "m" {
			continue
		}
		switch kind {
		case "o":
			if f := strings.Fields(value); len(f) == 6 {
				d.SessionID, _ = strconv.ParseUint(f[1], 10, 64)
				d.Version, _ = strconv.ParseUint(f[2], 10, 64)
			}
		case "c":
			f := strings.Fields(value)
			if len(f) != 3 {
				return d, fmt.Errorf("c=%s", value)
			}
			addr, err := netip.ParseAddr(f[2])
			if err != nil {
				return d, fmt.Errorf("c=%s: %w", value, err)
			}
			connection = addr.Unmap()
		case "m":
			f := strings.Fields(value)
			if section == 1 || len(f) < 4 || f[0] != "audio" {
				section = 2
				continue
			}
			section = 1
			p, err := strconv.ParseUint(f[1], 10, 16)
			if err != nil {
				return d, fmt.Errorf("m=%s: %w", value, err)
			}
			port, d.Profile = uint16(p), f[2]
			for _, word := range f[3:] {
				pt, err := strconv.ParseUint(word, 10, 7)
				if err != nil {
					return d, fmt.Errorf("m=%s: %w", value, err)
				}
				d.Codecs = append(d.Codecs, Codec{PayloadType: uint8(pt), Name: staticName(uint8(pt))})
			}
		case "a":
			if err := d.attribute(value, &rtcpPort); err != nil {
				return d, err
			}
		}
	}
	if d.Profile == "" {
		return d, fmt.Errorf("session description without audio")
	}
	if !connection.IsValid() {
		return d, fmt.Errorf("session description without address")
	}
	d.Addr = netip.AddrPortFrom(connection, port)
	switch {
	case d.RTCPMux:
		d.RTCP = d.Addr
	case rtcpPort != 0:
		d.RTCP = netip.AddrPortFrom(connection, rtcpPort)
	default:
		d.RTCP = netip.AddrPortFrom(connection, port+1)
	}
	return d, nil
}

func (d *Description) attribute(text string, rtcpPort *uint16) error {
	name, value, _ := strings.Cut(text, ":")
	switch name {
	case "sendrecv", "sendonly", "recvonly", "inactive":
		d.Direction = name
	case "rtcp-mux":
		d.RTCPMux = true
	case "rtcp":
		word, _, _ := strings.Cut(value, " ")
		p, err := strconv.ParseUint(word, 10, 16)
		if err != nil {
			return fmt.Errorf("a=%s: %w", text, err)
		}
		*rtcpPort = uint16(p)
	case "ptime":
		d.Ptime, _ = strconv.Atoi(value)
	case "ice-lite":
		d.Lite = true
	case "ice-ufrag":
		d.Ufrag = value
	case "ice-pwd":
		d.Pwd = value
	case "rtpmap", "fmtp":
		word, rest, _ := strings.Cut(value, " ")
		for i := range d.Codecs {
			if strconv.Itoa(int(d.Codecs[i].PayloadType)) != word {
				continue
			}
			if name == "rtpmap" {
				d.Codecs[i].Name = strings.TrimSuffix(rest, "/1")
			} else {
				d.Codecs[i].Fmtp = rest
			}
		}
	case "crypto":
		c, err := parseCrypto(value)
		if err != nil {
			return err
		}
		d.Crypto = append(d.Crypto, c)
	case "candidate":
		if c, ok := parseCandidate(value); ok {
			d.Candidates = append(d.Candidates, c)
		}
	case "remote-candidates":
		f := strings.Fields(value)
		for i := 0; i+2 < len(f); i += 3 {
			addr, err := netip.ParseAddr(f[i+1])
			port, perr := strconv.ParseUint(f[i+2], 10, 16)
			if err != nil || perr != nil {
				return fmt.Errorf("a=%s", text)
			}
			d.RemoteCandidates = append(d.RemoteCandidates, netip.AddrPortFrom(addr, uint16(port)))
		}
	}
	return nil
}

// parseCrypto never puts the key into its error.
func parseCrypto(value string) (Crypto, error) {
	f := strings.Fields(value)
	if len(f) < 3 {
		return Crypto{}, fmt.Errorf("a=crypto with %d words", len(f))
	}
	tag, err := strconv.Atoi(f[0])
	if err != nil {
		return Crypto{}, fmt.Errorf("a=crypto tag %q", f[0])
	}
	c := Crypto{Tag: tag, Suite: f[1]}
	key, ok := strings.CutPrefix(f[2], "inline:")
	if !ok {
		return c, fmt.Errorf("a=crypto:%d without inline key", tag)
	}
	parts := strings.Split(key, "|")
	if c.Key, err = base64.StdEncoding.DecodeString(parts[0]); err != nil {
		return c, fmt.Errorf("a=crypto:%d key is not base64", tag)
	}
	for _, p := range parts[1:] {
		id, length, isMKI := strings.Cut(p, ":")
		if !isMKI {
			continue
		}
		n, err := strconv.Atoi(length)
		v, verr := strconv.ParseUint(id, 10, 64)
		if err != nil || verr != nil || n < 1 || n > 128 {
			return c, fmt.Errorf("a=crypto:%d MKI %q", tag, p)
		}
		c.MKI = make([]byte, n)
		for i := n - 1; i >= 0 && v > 0; i-- {
			c.MKI[i], v = byte(v), v>>8
		}
	}
	return c, nil
}

// parseCandidate reports false for what a client has no use for: TCP, IPv6 names.
func parseCandidate(value string) (Candidate, bool) {
	f := strings.Fields(value)
	if len(f) < 8 || f[6] != "typ" || !strings.EqualFold(f[2], "udp") {
		return Candidate{}, false
	}
	component, err1 := strconv.Atoi(f[1])
	priority, err2 := strconv.ParseUint(f[3], 10, 32)
	addr, err3 := netip.ParseAddr(f[4])
	port, err4 := strconv.ParseUint(f[5], 10, 16)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil {
		return Candidate{}, false
	}
	c := Candidate{
		Foundation: f[0], Component: component, Transport: f[2], Priority: uint32(priority),
		Addr: netip.AddrPortFrom(addr, uint16(port)), Type: f[7],
	}
	var raddr netip.Addr
	var rport uint64
	for i := 8; i+1 < len(f); i += 2 {
		switch f[i] {
		case "raddr":
			raddr, _ = netip.ParseAddr(f[i+1])
		case "rport":
			rport, _ = strconv.ParseUint(f[i+1], 10, 16)
		}
	}
	if raddr.IsValid() {
		c.Related = netip.AddrPortFrom(raddr, uint16(rport))
	}
	return c, true
}

// Text writes the description. In the Teams style it carries the private lines
// and the second component that Microsoft writes, which a reader must ignore.
func (d Description) Text(teams bool) []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	family := "IP4"
	if d.Addr.Addr().Is6() {
		family = "IP6"
	}
	user := d.Addr.Addr()
	line("v=0")
	line("o=- %d %d IN %s %s", d.SessionID, d.Version, family, user)
	line("s=session")
	line("c=IN %s %s", family, d.Addr.Addr())
	if teams {
		line("b=CT:10000000")
	}
	line("t=0 0")
	if d.Lite {
		line("a=ice-lite")
	}
	m := fmt.Sprintf("m=audio %d %s", d.Addr.Port(), d.Profile)
	for _, c := range d.Codecs {
		m += fmt.Sprintf(" %d", c.PayloadType)
	}
	line("%s", m)
	if teams {
		line("c=IN %s %s", family, d.Addr.Addr())
		line("a=x-ssrc-range:1000-4000000000")
		line("a=rtcp-fb:* x-message app send:dsh recv:dsh")
		line("a=rtcp-rsize")
		line("a=label:main-audio")
		line("a=x-source:main-audio")
		line("a=cryptoscale:1 client AES_CM_128_HMAC_SHA1_80")
	}
	if d.RTCP.IsValid() {
		line("a=rtcp:%d", d.RTCP.Port())
	}
	if d.RTCPMux {
		line("a=rtcp-mux")
	}
	if d.Ufrag != "" {
		line("a=ice-ufrag:%s", d.Ufrag)
		line("a=ice-pwd:%s", d.Pwd)
	}
	for _, c := range d.Candidates {
		text := fmt.Sprintf("a=candidate:%s %d %s %d %s %d typ %s", c.Foundation, c.Component, c.Transport, c.Priority, c.Addr.Addr(), c.Addr.Port(), c.Type)
		if c.Related.IsValid() {
			text += fmt.Sprintf(" raddr %s rport %d", c.Related.Addr(), c.Related.Port())
		}
		line("%s", text)
	}
	if teams && d.Ufrag != "" {
		line("a=candidate:9 1 TCP-ACT 1684798975 %s %d typ srflx raddr %s rport %d", d.Addr.Addr(), d.Addr.Port(), d.Addr.Addr(), d.Addr.Port())
		line("a=x-candidate-ipv6:8 1 UDP 2130705919 2001:db8::31 %d typ host", d.Addr.Port())
	}
	if len(d.RemoteCandidates) > 0 {
		text := "a=remote-candidates:"
		for i, r := range d.RemoteCandidates {
			if i > 0 {
				text += " "
			}
			text += fmt.Sprintf("%d %s %d", i+1, r.Addr(), r.Port())
		}
		line("%s", text)
	}
	for _, c := range d.Crypto {
		text := fmt.Sprintf("a=crypto:%d %s inline:%s|2^31", c.Tag, c.Suite, base64.StdEncoding.EncodeToString(c.Key))
		if c.MKI != nil {
			var v uint64
			for _, o := range c.MKI {
				v = v<<8 | uint64(o)
			}
			text += fmt.Sprintf("|%d:%d", v, len(c.MKI))
		}
		line("%s", text)
	}
	line("a=%s", d.Direction)
	for _, c := range d.Codecs {
		line("a=rtpmap:%d %s", c.PayloadType, c.Name)
		if c.Fmtp != "" {
			line("a=fmtp:%d %s", c.PayloadType, c.Fmtp)
		}
	}
	if d.Ptime > 0 {
		line("a=ptime:%d", d.Ptime)
	}
	return []byte(b.String())
}
