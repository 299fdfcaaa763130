// Package sdp holds session descriptions: what one party of a call says about
// its voice, how that is read from and written to SDP text, and the rules that
// turn an offer into an answer.
//
// The main type is Description. It models one audio stream, because that is
// all a branch voice box negotiates; everything else in the text is tolerated
// and left out. The package is pure: no socket, no clock, no randomness.
//
// Standards: RFC 8866 (SDP), RFC 3264 (offer/answer), RFC 4568 (SDES),
// RFC 8839 and RFC 5245 (ICE attributes, the older one is what Microsoft
// names), RFC 8035 and RFC 5761 (RTP and RTCP on one port), RFC 4733
// (telephone-event), RFC 3551 (static payload types).
//
// Choosing addresses, ports and keys is left to package media, checking
// connectivity to package bypass.
package sdp

import (
	"net/netip"
	"time"
)

// Direction is the direction of voice from the describing party's view,
// RFC 8866 §6.7. The zero value is SendRecv, as in the text.
type Direction uint8

// The four directions of RFC 8866 §6.7.
const (
	SendRecv Direction = iota
	SendOnly
	RecvOnly
	Inactive
)

// Suite names an SRTP crypto suite as RFC 4568 §6.2 spells it.
type Suite string

// AESCM128HMACSHA180 is the one suite that Teams requires, RFC 4568 §6.2.1.
const AESCM128HMACSHA180 Suite = "AES_CM_128_HMAC_SHA1_80"

// Crypto is one a=crypto line, RFC 4568 §9.1.
type Crypto struct {
	Tag   int
	Suite Suite
	// Key is master key and master salt, 30 bytes for AES_CM_128. It is a
	// secret: it must not be logged.
	Key []byte
	// Lifetime is the text after the first '|', for example "2^31"; empty if absent.
	Lifetime string
	// MKI is the master key identifier and MKILength its length in bytes in
	// each packet; a length of zero means that packets carry none.
	MKI       uint64
	MKILength int
}

// Candidate is one a=candidate line, RFC 8839 §5.1.
type Candidate struct {
	Foundation string
	Component  int // 1 RTP, 2 RTCP
	Transport  string
	Priority   uint32
	Addr       netip.AddrPort
	Type       string // host, srflx, prflx, relay
	Related    netip.AddrPort
}

// ICE is the ICE part of a description, RFC 8839.
type ICE struct {
	Ufrag, Pwd string
	Lite       bool
	Candidates []Candidate
	// Remote is a=remote-candidates: the addresses that the controlling side
	// chose, RFC 8839 §5.2. Remote[0] is component 1, Remote[1] component 2; an
	// invalid entry stands for a component that was not named.
	Remote []netip.AddrPort
}

// Codec is one payload type of the m= line with its rtpmap and fmtp.
type Codec struct {
	PayloadType uint8
	Name        string // as in rtpmap: PCMA, PCMU, telephone-event, CN …
	ClockRate   int    // Hz
	Channels    int    // 1 if absent
	Fmtp        string // text after the payload type, empty if absent
}

// Description is what one party says about its voice. A Description that names
// an analog Line has no address; its voice is PCM over a serial line card.
//
// Descriptions are values to be read: who receives one must not change it.
type Description struct {
	Line string // name of an analog line; empty for RTP

	SessionID uint64 // o= sess-id
	Version   uint64 // o= sess-version; grows by one with each change, RFC 3264 §8

	RTP     netip.AddrPort // c= and m=; an unspecified address is the old hold form
	RTCP    netip.AddrPort // zero if a=rtcp is absent; then RTP port + 1 unless muxed
	RTCPMux bool

	Secure    bool   // SAVP rather than AVP
	Transport string // the profile as written, for the answer: RTP/AVP, RTP/SAVP …
	Crypto    []Crypto
	ICE       *ICE // nil without a=ice-ufrag

	Codecs    []Codec       // in the describing party's order of preference
	Ptime     time.Duration // zero if absent
	Direction Direction

	// Others are the m= lines that this box does not use. An answer must hold
	// them too, refused by port 0, at their places (RFC 3264 §6).
	Others []Other
}

// Other is one m= line that is not the voice. It is always written with port 0.
type Other struct {
	Index     int    // its place among the m= lines, from 0
	Kind      string // video, application, a second audio …
	Transport string
	Formats   string // as written, separated by single spaces
}

// ICEMode says what part of ICE a peer is offered.
type ICEMode uint8

// ICE modes of a Profile.
const (
	NoICE   ICEMode = iota
	LiteICE         // we are ICE-lite, RFC 8445 §2.5: one host candidate, no checks of ours
)

// Profile is what the peers of one trunk or line may be offered. It is plain
// configuration plus what signalling learned about the one call (the realms).
type Profile struct {
	// Realm names the media realm whose address we offer, for example "lan".
	Realm string
	// Fallback names the realm to which the leg moves when its voice dies,
	// for example "wan"; empty if there is none.
	Fallback string

	// DeadAfter is how long nothing may arrive from a peer that was sending
	// voice before its path counts as dead, DeadSilent the same while it was
	// silent. Zero means the default of package media.
	DeadAfter, DeadSilent time.Duration
	// RestartWithin is how long a move of the leg to another realm may take;
	// zero means the default of package call.
	RestartWithin time.Duration

	Secure  bool // offer RTP/SAVP with SDES keys, refuse anything else
	ICE     ICEMode
	RTCPMux bool
	Codecs  []string // rtpmap names in order of preference; empty means all we have
	Ptime   time.Duration
	// InactiveHold writes hold as a=inactive only, as Teams needs.
	InactiveHold bool
	// Line is set for an analog line: voice is PCM over its line card.
	Line string
	// Country chooses tones played to this party (ISO 3166-1 alpha-2, lower case).
	Country string
}
