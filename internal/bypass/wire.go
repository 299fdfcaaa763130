package bypass

import (
	"bytes"
	"encoding/binary"
)

// Layout of a STUN message, RFC 5389 §6 and §15.
const (
	headerSize  = 20
	attrHeader  = 4
	magicCookie = 0x2112A442

	typeBindingRequest = 0x0001
	// classMask selects the two class bits of the message type; zero is a request.
	classMask = 0x0110

	attrUsername  = 0x0006
	attrIntegrity = 0x0008

	// maxUsername is RFC 5389 §15.3: fewer than 513 bytes.
	maxUsername = 512
)

// IsSTUN reports whether a datagram of a media socket is STUN rather than RTP,
// RTCP or DTLS: first byte 0 to 3 (RFC 7983 §7) and the magic cookie. It does not
// say that the message is well formed.
func IsSTUN(b []byte) bool {
	return len(b) >= headerSize && b[0] < 4 && binary.BigEndian.Uint32(b[4:]) == magicCookie
}

// LocalUfrag returns the left part of the USERNAME of a Binding request, which
// names the Agent that it is meant for. The datagram is not authenticated: the
// result is good for choosing an Agent and nothing else. It is a part of the
// datagram; nothing is allocated.
func LocalUfrag(datagram []byte) (ufrag []byte, ok bool) {
	ours, _, ok := usernameOf(datagram)
	if !ok {
		return nil, false
	}
	return ours, true
}

// usernameOf finds the two halves of the USERNAME in a Binding request of sound
// size.
func usernameOf(b []byte) (ours, theirs []byte, ok bool) {
	if !isBindingRequest(b) {
		return nil, nil, false
	}
	for b = b[headerSize:]; len(b) >= attrHeader; {
		kind, size := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if attrHeader+size > len(b) || kind == attrIntegrity {
			return nil, nil, false
		}
		if kind == attrUsername {
			if size > maxUsername {
				return nil, nil, false
			}
			ours, theirs, ok = bytes.Cut(b[attrHeader:attrHeader+size], []byte{':'})
			return ours, theirs, ok && len(ours) > 0 && len(theirs) > 0
		}
		b = b[min(attrHeader+(size+3)&^3, len(b)):]
	}
	return nil, nil, false
}

// isBindingRequest holds if the datagram is one whole Binding request: the
// length in the header is that of the datagram, neither more nor less.
func isBindingRequest(b []byte) bool {
	return IsSTUN(b) && len(b) <= maxDatagram &&
		binary.BigEndian.Uint16(b) == typeBindingRequest &&
		len(b)%4 == 0 && int(binary.BigEndian.Uint16(b[2:])) == len(b)-headerSize
}
