package bypass

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/stun"
)

// exchange is one check and its answer. It is reused: nothing in it outlives
// the call of Handle.
type exchange struct {
	req, res stun.Message

	ufrag        []byte // the fork: right part of USERNAME
	trusted      int    // length of req.Raw up to and with MESSAGE-INTEGRITY
	priority     uint32
	useCandidate bool
	controlled   bool
	unknown      []stun.AttrType // comprehension-required and not understood
}

// Handle takes one STUN datagram of the leg's socket. It returns at once and
// keeps nothing of the datagram. A valid check is answered before Handle
// returns, from whatever source and whether or not the peer's description is
// known (C-109, C-115); anything unauthenticated is dropped in silence (C-111).
// bad reports that it was dropped as malformed or not from the peer; indications
// are not, which are ignored by rule.
func (a *Agent) Handle(datagram []byte, from netip.AddrPort) (bad bool) {
	from = unmap(from)
	defer func() {
		// Foreign bytes enter here: a fault of the parser costs one datagram.
		if r := recover(); r != nil {
			bad = true
			a.count.add(outPanic)
			a.log.Error("STUN datagram: parser fault", "from", from, "panic", r)
		}
	}()
	x := a.exchanges.Get().(*exchange)
	defer a.exchanges.Put(x)

	out := x.read(datagram, a.ufrag, a.key)
	if out != outAnswered {
		a.note(out, from, x)
		a.refuse(x, out, from)
		switch out {
		case outMalformed, outUsername, outIntegrity, outFingerprint:
			return true
		}
		return false
	}
	out = a.accept(x, from, time.Now())
	a.note(out, from, x)
	if out != outAnswered {
		return false
	}
	a.respond(x, from, stun.BindingSuccess, &stun.XORMappedAddress{IP: from.Addr().AsSlice(), Port: int(from.Port())})
	a.notify()
	return false
}

// read bounds, decodes and authenticates a datagram and reads what a lite agent
// needs from it. Everything that it returns comes from before MESSAGE-INTEGRITY.
func (x *exchange) read(datagram []byte, ufrag string, key stun.MessageIntegrity) outcome {
	switch {
	case !IsSTUN(datagram) || len(datagram) > maxDatagram:
		return outMalformed
	case binary.BigEndian.Uint16(datagram)&classMask != 0:
		// Indications keep a NAT open and want nothing; responses answer
		// requests that we never send.
		return outNotRequest
	case !isBindingRequest(datagram):
		return outMalformed
	}
	// The user name is compared before anything is hashed or copied: it costs a
	// forger our ufrag to make us work.
	ours, theirs, ok := usernameOf(datagram)
	if !ok {
		return outMalformed
	}
	if string(ours) != ufrag || !printable(theirs) {
		return outUsername
	}
	x.req.Raw = append(x.req.Raw[:0], datagram...)
	if x.req.Decode() != nil {
		return outMalformed
	}
	x.ufrag, x.trusted, x.priority, x.useCandidate, x.controlled, x.unknown = nil, 0, 0, false, false, x.unknown[:0]
	end, last := headerSize, len(x.req.Attributes)-1
	for i, attr := range x.req.Attributes {
		end += attrHeader + (len(attr.Value)+3)&^3
		if attr.Type == stun.AttrFingerprint {
			if i != last { // RFC 5389 §15.5
				return outMalformed
			}
			if stun.Fingerprint.Check(&x.req) != nil {
				return outFingerprint
			}
		}
		if x.trusted != 0 {
			continue // RFC 5389 §15.4: what follows MESSAGE-INTEGRITY is ignored
		}
		switch attr.Type {
		case stun.AttrUsername:
			if x.ufrag == nil { // the first counts, RFC 5389 §15
				x.ufrag = attr.Value[len(ours)+1:]
			}
		case stun.AttrMessageIntegrity:
			x.trusted = end
		case stun.AttrPriority:
			if len(attr.Value) == 4 {
				x.priority = binary.BigEndian.Uint32(attr.Value)
			}
		case stun.AttrUseCandidate:
			x.useCandidate = true
		case stun.AttrICEControlled:
			x.controlled = true
		case stun.AttrMappedAddress, stun.AttrErrorCode, stun.AttrUnknownAttributes,
			stun.AttrRealm, stun.AttrNonce, stun.AttrXORMappedAddress:
			// Understood (RFC 5389 §18.2), without meaning in a check.
		default:
			if attr.Type.Required() {
				x.unknown = append(x.unknown, attr.Type)
			}
		}
	}
	if x.trusted == 0 || key.Check(&x.req) != nil {
		return outIntegrity
	}
	switch {
	case len(x.unknown) > 0:
		return outUnknownAttribute
	case x.controlled:
		return outRoleConflict
	}
	return outAnswered
}

// refuse answers an authenticated check that cannot be served. To anything that
// is not authenticated we are silent, so that a forged source is not served.
func (a *Agent) refuse(x *exchange, out outcome, to netip.AddrPort) {
	switch out {
	case outUnknownAttribute: // RFC 5389 §7.3.1, C-110
		// Not stun.UnknownAttributes: it writes 32 bits for each type where
		// RFC 5389 §15.9 has 16.
		list := make([]byte, 0, 2*len(x.unknown))
		for _, t := range x.unknown {
			list = binary.BigEndian.AppendUint16(list, t.Value())
		}
		a.respond(x, to, stun.BindingError, stun.CodeUnknownAttribute,
			stun.RawAttribute{Type: stun.AttrUnknownAttributes, Value: list})
	case outRoleConflict:
		// RFC 8445 §7.3.1.1. A lite agent facing a full one stays controlled; pion
		// would change sides when its tie-breaker loses.
		a.respond(x, to, stun.BindingError, stun.CodeRoleConflict)
	}
}

// respond is the only way out of this package: a response to an authenticated
// request, never a request (C-108).
func (a *Agent) respond(x *exchange, to netip.AddrPort, kind stun.MessageType, body ...stun.Setter) {
	setters := append([]stun.Setter{&x.req, kind}, body...)
	if err := x.res.Build(append(setters, a.key, stun.Fingerprint)...); err != nil {
		a.log.Error("STUN response", "to", to, "err", err)
		return
	}
	a.opts.Send(x.res.Raw, to)
}

// authenticated returns a copy of the request that ends with MESSAGE-INTEGRITY,
// so that nothing behind it can reach pion unauthenticated.
func (x *exchange) authenticated() []byte {
	b := append([]byte(nil), x.req.Raw[:x.trusted]...)
	binary.BigEndian.PutUint16(b[2:], uint16(x.trusted-headerSize))
	return b
}

// note counts an outcome and logs the ones that tell of a peer's fault, the
// first time only.
func (a *Agent) note(out outcome, from netip.AddrPort, x *exchange) {
	if a.count.add(out) != 1 {
		return
	}
	switch out {
	case outUnknownAttribute:
		a.log.Warn("ICE check with an attribute that must be understood", "from", from, "type", x.unknown[0].Value())
	case outRoleConflict:
		a.log.Warn("ICE check from a peer that calls itself controlled", "from", from)
	case outIntegrity:
		a.log.Info("ICE check with a wrong password", "from", from)
	case outLimit:
		a.log.Warn("ICE check beyond the limits of one leg", "from", from, "forks", maxForks, "sources", maxSources)
	case outBusy:
		a.log.Warn("ICE check left for the peer to repeat: fork is behind", "from", from)
	}
}

// printable bounds what may become the name of a fork, in logs too.
func printable(b []byte) bool {
	if len(b) > 256 { // RFC 8839 §5.4
		return false
	}
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// addrOf is the transport address of a pion candidate.
func addrOf(c ice.Candidate) netip.AddrPort {
	ip, err := netip.ParseAddr(c.Address())
	if err != nil {
		return netip.AddrPort{}
	}
	return unmap(netip.AddrPortFrom(ip, uint16(c.Port())))
}
