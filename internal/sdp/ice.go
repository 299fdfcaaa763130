package sdp

import (
	"net/netip"
	"strconv"
	"strings"
)

// maxCredential is the longest ice-ufrag or ice-pwd, RFC 8839 §5.4.
const maxCredential = 256

// credential returns an ice-ufrag or ice-pwd value, or "" if it is not one. The
// least lengths of RFC 8839 are not enforced on peers.
func credential(s string) string {
	if len(s) > maxCredential || strings.ContainsAny(s, " \t") {
		return ""
	}
	return s
}

// parseCandidate reads an a=candidate value, RFC 8839 §5.1. It reports false
// for what this box cannot send to: TCP (Microsoft's TCP-ACT and TCP-PASS among
// them, C-96), names instead of addresses, and malformed lines.
func parseCandidate(value string) (Candidate, bool) {
	f := strings.Fields(value)
	if len(f) < 8 || !strings.EqualFold(f[2], "UDP") || !strings.EqualFold(f[6], "typ") {
		return Candidate{}, false
	}
	component, err1 := strconv.ParseUint(f[1], 10, 8)
	priority, err2 := strconv.ParseUint(f[3], 10, 32)
	addr, err3 := parseAddr(f[4])
	port, err4 := strconv.ParseUint(f[5], 10, 16)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || component == 0 || port == 0 || len(f[0]) > 32 {
		return Candidate{}, false
	}
	c := Candidate{
		Foundation: f[0], Component: int(component), Transport: f[2], Priority: uint32(priority),
		Addr: netip.AddrPortFrom(addr, uint16(port)), Type: strings.ToLower(f[7]),
	}
	var raddr netip.Addr
	var rport uint64
	for i := 8; i+1 < len(f); i += 2 {
		switch strings.ToLower(f[i]) {
		case "raddr":
			raddr, _ = parseAddr(f[i+1]) // may be a name; it is for diagnosis only
		case "rport":
			rport, _ = strconv.ParseUint(f[i+1], 10, 16)
		}
	}
	if raddr.IsValid() && rport <= 65535 {
		c.Related = netip.AddrPortFrom(raddr, uint16(rport))
	}
	return c, true
}

// parseRemote reads an a=remote-candidates value: component, address and port,
// repeated. Components other than RTP and RTCP are left out.
func parseRemote(value string) []netip.AddrPort {
	var both [2]netip.AddrPort
	n := 0
	f := strings.Fields(value)
	for ; len(f) >= 3; f = f[3:] {
		addr, err1 := parseAddr(f[1])
		port, err2 := strconv.ParseUint(f[2], 10, 16)
		if err1 != nil || err2 != nil || f[0] != "1" && f[0] != "2" {
			continue
		}
		i := int(f[0][0] - '1')
		both[i] = netip.AddrPortFrom(addr, uint16(port))
		n = max(n, i+1)
	}
	if n == 0 {
		return nil
	}
	return append([]netip.AddrPort(nil), both[:n]...)
}

// Restarted reports whether the peer restarts ICE: fragment and password have
// both changed (C-117, RFC 8839 §4.4.1.1.1). At which level of the text the
// values stand does not matter (C-118).
func Restarted(before, after *ICE) bool {
	return before != nil && after != nil && before.Ufrag != after.Ufrag && before.Pwd != after.Pwd
}

// Checks reports whether the party that wrote d will send connectivity checks
// to an ICE-lite peer. It will not when it is lite itself (C-120) or names no
// candidate (C-121); then voice goes to the default address of c= and m=.
func (d *Description) Checks() bool {
	return d.ICE != nil && !d.ICE.Lite && len(d.ICE.Candidates) > 0
}
