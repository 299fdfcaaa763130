package config

import (
	"time"

	"localloop/internal/sdp"
)

// ptime is the packet time of G.711 toward every peer; Teams takes no other.
const ptime = 20 * time.Millisecond

// A plain peer may pause without a word: gateways send neither comfort noise nor
// RTCP in silence, transfers leave gaps. There is nowhere to move such a leg, so
// nothing is won by haste.
const (
	plainDeadAfter  = 15 * time.Second
	plainDeadSilent = time.Minute
)

// Profile is what a peer of the trunk may be offered. internal is true for a
// user in the building: X-MS-UserLocation said so, or nothing is known yet and
// we are the caller (the guess of docs/teams.md, Local Media Optimization;
// C-133). Without bypass, Teams' media is Microsoft's processor, which only
// the external realm reaches.
func (t Teams) Profile(box Box, internal bool) sdp.Profile {
	p := sdp.Profile{
		Realm:        t.ExternalRealm,
		Secure:       true, // C-91
		RTCPMux:      true,
		Codecs:       t.Codecs,
		Ptime:        ptime,
		InactiveHold: true,
		Country:      box.Country,
	}
	if !t.Bypass {
		return p
	}
	p.ICE = sdp.LiteICE
	p.DeadAfter, p.DeadSilent, p.RestartWithin = t.Failover.DeadAfter, t.Failover.DeadSilent, t.Failover.RestartWithin
	if internal && t.InternalRealm != "" && t.InternalRealm != t.ExternalRealm {
		p.Realm, p.Fallback = t.InternalRealm, t.ExternalRealm
	}
	return p
}

// Profile is what the peers of the trunk may be offered.
func (s SIP) Profile(box Box) sdp.Profile {
	return sdp.Profile{
		Realm:   s.Realm,
		Secure:  s.SRTP == SRTPRequired,
		RTCPMux: true, // accepted when the peer offers it, RFC 8035
		Codecs:  s.Codecs,
		Ptime:   ptime,
		Country: box.Country,

		DeadAfter:  plainDeadAfter,
		DeadSilent: plainDeadSilent,
	}
}

// Profile is the description of the line's voice: PCM over its card.
func (l Line) Profile(box Box) sdp.Profile {
	p := sdp.Profile{Line: l.Name, Country: l.Country}
	if p.Country == "" {
		p.Country = box.Country
	}
	return p
}
