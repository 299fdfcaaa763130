package media

import (
	"net/netip"

	"localloop/internal/dsp"
	"localloop/internal/sdp"
)

// payload is what a payload type means on one leg.
type payload uint8

const (
	unknown payload = iota
	pcma
	pcmu
	event // telephone-event/8000
	noise // CN/8000
)

func (p payload) law() dsp.Law {
	if p == pcmu {
		return dsp.MuLaw
	}
	return dsp.ALaw
}

// absent marks a payload type that was not agreed.
const absent = 0xFF

// terms are what was agreed with a peer for one path. They are made by the
// negotiating half and never change afterwards.
type terms struct {
	// kinds tells what arrives, by our own description; the rest tells what
	// the peer wants, by its own. Both may number payloads differently (RFC 3264 §5.1).
	kinds   [128]payload
	voice   payload
	voicePT uint8
	eventPT uint8
	noisePT uint8

	remote     netip.AddrPort // default destination of RTP
	remoteRTCP netip.AddrPort
	mux        bool
	checks     bool // the peer checks connectivity: addresses are the agent's business
	sends      bool // the peer may send
	receives   bool // the peer wants to receive

	suite            sdp.Suite // empty without SRTP
	sendKey, recvKey []byte
	ufrag            string // the peer's, with checks
	final            bool   // no other fork can follow
	ice              *sdp.ICE
}

func kindOf(c sdp.Codec) payload {
	switch {
	case c.ClockRate != 8000 || c.Channels > 1:
		return unknown
	case c.Is("PCMA"):
		return pcma
	case c.Is("PCMU"):
		return pcmu
	case c.IsEvent():
		return event
	case c.IsCN():
		return noise
	}
	return unknown
}

// newTerms combines our description with the peer's. It reports false when
// they have no voice codec in common that this box speaks.
func newTerms(local, remote *sdp.Description) (*terms, bool) {
	t := &terms{voicePT: absent, eventPT: absent, noisePT: absent,
		remote: remote.RTP, mux: local.RTCPMux && remote.RTCPMux, checks: local.ICE != nil && remote.Checks(),
		sends:    remote.Direction.Sends() && local.Direction.Receives() && !remote.RTP.Addr().IsUnspecified(),
		receives: remote.Direction.Receives() && local.Direction.Sends() && !remote.RTP.Addr().IsUnspecified(),
	}
	ours := map[payload]bool{}
	for _, c := range local.Codecs {
		if k := kindOf(c); k != unknown && c.PayloadType < 128 {
			t.kinds[c.PayloadType] = k
			ours[k] = true
		}
	}
	for _, c := range remote.Codecs {
		k := kindOf(c)
		if !ours[k] || c.PayloadType > 127 {
			continue
		}
		switch {
		case k == event && t.eventPT == absent:
			t.eventPT = c.PayloadType
		case k == noise && t.noisePT == absent:
			t.noisePT = c.PayloadType
		case (k == pcma || k == pcmu) && t.voicePT == absent:
			t.voice, t.voicePT = k, c.PayloadType
		}
	}
	// Comfort noise has a static number; peers send it unannounced (RFC 3551 §6).
	if t.kinds[13] == unknown {
		t.kinds[13] = noise
	}
	t.remoteRTCP = remote.RTCP
	switch {
	case t.mux:
		t.remoteRTCP = remote.RTP
	case !remote.RTCP.IsValid() && remote.RTP.IsValid():
		t.remoteRTCP = netip.AddrPortFrom(remote.RTP.Addr(), remote.RTP.Port()+1)
	}
	if t.checks {
		t.ice, t.ufrag = remote.ICE, remote.ICE.Ufrag
	}
	return t, t.voicePT != absent
}
