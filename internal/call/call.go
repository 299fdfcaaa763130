// Package call is the call engine: a call has two sides, a side has legs, and
// legs speak the same small set of events whether they are SIP dialogs or
// analog lines.
//
// The main types are Leg (one side's signalling), Switch (accepts legs and owns
// all live calls) and Bridge (the seam to the voice). The package never opens a
// session description, never touches a socket and never reads the clock other
// than through package time, so that it is tested in virtual time.
//
// Causes follow ITU-T Q.850 with the SIP mapping of RFC 3398; offers and
// answers RFC 3264; forks and early media RFC 3261 and RFC 3960.
//
// Choosing targets is left to package route, protocol to packages sip and
// analog, voice to package media.
package call

import (
	"context"
	"time"

	"localloop/internal/sdp"
)

// Event is what legs and calls say to each other. The set is closed and the same
// both ways: what one leg reports is what the call may send to the other.
type Event interface{ event() }

// Setup opens a call. It is the first event of an incoming leg and is what a
// Dialer is given for an outgoing one.
type Setup struct {
	Calling Party
	Called  string // dialled digits, or E.164 with '+'
	// Source names the trunk or line the call comes from.
	Source string
	// Offer is the caller's description. It is nil for an INVITE without SDP;
	// the Bridge then makes the offer.
	Offer *sdp.Description
	// Profile is what the leg that carries this Setup may be offered.
	Profile   sdp.Profile
	Emergency bool
	// ID correlates legs, log lines and records of one call. Legs set their own
	// protocol identifier (for SIP the Call-ID) in Ref.
	ID  string
	Ref string
	// Teams is what Microsoft's headers said, nil for other peers.
	Teams *TeamsHeaders
	// MaxForwards is how many hops the call had left when it came (RFC 3261
	// §8.1.1.6); 0 where the peer does not count. A leg that carries it on
	// takes one off, so that a call which comes round through others ends.
	MaxForwards int
}

// Party is a calling or called party as shown to the other side.
type Party struct {
	Number  string // E.164 with '+', or as delivered; empty if withheld
	Name    string
	Private bool
}

// TeamsHeaders keeps Microsoft's call headers for routing and the record.
type TeamsHeaders struct {
	UserLocation   string // internal, external or as received
	MediaPath      []string
	UserSite       string
	ConversationID string
	Region         string
}

// Progress reports that the called party is being alerted, or early media.
// SIP 180 and 183, an analog phone that rings.
type Progress struct {
	Ringing bool             // a bell rings: 180
	Answer  *sdp.Description // early media: 183 with SDP; nil if none
}

// Answer reports that the call was answered, and answers the offer. It also
// answers an Update.
type Answer struct {
	Description *sdp.Description // nil when the answer was given in a Progress and has not changed
	// Profile replaces the leg's profile when not nil: where the peer is became
	// known only now (X-MS headers in a 200). The call then moves the leg to
	// the new realm.
	Profile *sdp.Profile
	Teams   *TeamsHeaders // headers of the 200, nil for other peers
}

// Update is a new offer in a running call: re-INVITE. It is answered by an
// Answer or a Refuse; the call stays in either case.
type Update struct {
	Offer *sdp.Description // nil asks the receiver for an offer of its own
	// Profile replaces the leg's profile when not nil (other realm after new
	// X-MS headers).
	Profile *sdp.Profile
	// Hold says that the peer neither sends nor hears voice until the next
	// Update (a=inactive): the other party hears music of ours. A peer that
	// holds with music of its own is not on Hold in this sense.
	Hold  bool
	Teams *TeamsHeaders
}

// Refuse answers an Update that cannot be accepted; the call stays.
type Refuse struct{ Cause Cause }

// Digit is one DTMF digit carried by signalling (SIP INFO). Digits in the voice
// path stay in package media.
type Digit struct {
	Digit    byte // 0-9 * # A-D
	Duration time.Duration
}

// Transfer asks to move the other side to Target. No leg reports it yet: REFER is
// not advertised.
type Transfer struct {
	Target     string
	ReferredBy string
}

// Release ends a leg. Each leg reports it exactly once, last.
type Release struct {
	Cause Cause
	// Reason is for people: where the fault was seen and what it was.
	Reason string
}

func (Setup) event()    {}
func (Progress) event() {}
func (Answer) event()   {}
func (Update) event()   {}
func (Refuse) event()   {}
func (Digit) event()    {}
func (Transfer) event() {}
func (Release) event()  {}

// Leg is one side's signalling.
//
// Send never waits for the peer: it queues the event and returns. Sending to a
// leg that has ended does nothing. Events is closed by the leg after its one
// Release; until then the owner must keep reading it. A leg that is sent a
// Release reports its own Release soon, without waiting for the peer. An
// incoming leg's first event is its Setup.
type Leg interface {
	// Name is short and unique in the process, for logs: "teams#12", "line-2".
	Name() string
	Send(Event)
	Events() <-chan Event
}

// TargetKind says which Dialer a Target is for.
type TargetKind uint8

// Kinds of Target.
const (
	ToTrunk TargetKind = iota
	ToLine
)

// Target is one place where a call may be delivered.
type Target struct {
	Kind   TargetKind
	Name   string // trunk, line or line group
	Number string // called number as this target wants it
	// Profile is what the target may be offered.
	Profile sdp.Profile
	// Emergency marks a call that is exempt from limits; all targets of one
	// call agree.
	Emergency bool
	// RingTimeout limits how long the target may alert; zero means the
	// Switch's default.
	RingTimeout time.Duration
}

// Router turns a Setup into targets in the order in which they are to be tried,
// or into the Cause to refuse with when there is none.
type Router interface {
	Route(Setup) ([]Target, Cause)
}

// Dialer starts an outgoing leg. Dial returns at once; everything that happens,
// refusal included, arrives as events. The Setup given carries the offer made
// for the target's profile. An error is a fault of ours (no such trunk), not a
// failed call.
type Dialer interface {
	Dial(ctx context.Context, to Target, s Setup) (Leg, error)
}

// Bridge is the voice of one call: the only seam between calls and voice. Legs
// are known to it by name. All methods return at once; they are called by the
// goroutine that owns the call.
//
// A leg is negotiated in one of two orders. Where the peer offers: Offered,
// then AnswerTo. Where we offer: OfferTo, then Answered. Later offers in either
// direction repeat the pair (RFC 3264 §8).
type Bridge interface {
	// Offered gives the bridge the offer of leg. An error means that nothing in
	// it can be used: the leg is refused with 488.
	Offered(leg string, offer *sdp.Description, p sdp.Profile) error
	// AnswerTo makes our answer to the last offer of leg. It may be asked for
	// more than once (18x, then 200) and is then the same.
	AnswerTo(leg string) (*sdp.Description, error)
	// OfferTo makes our offer for leg. Called again with another realm in the
	// profile it moves the leg there: new socket address, new ICE credentials
	// (ICE restart, RFC 8445 §2.4); the old path stays until the new one is
	// nominated.
	OfferTo(leg string, p sdp.Profile) (*sdp.Description, error)
	// Answered gives the bridge the answer of leg to our last offer. Another
	// fork's answer replaces the earlier one entirely.
	Answered(leg string, answer *sdp.Description) error
	// Confirm says that the answer given last is final: other forks are ignored
	// from now on (C-116).
	Confirm(leg string)
	// Join connects the voice of two legs, and stops what is played to them.
	Join(a, b string) error
	// Play plays a tone to leg until the next Play, Join or Drop; NoTone stops.
	Play(leg string, t Tone)
	// Digit sends a digit to leg as its profile carries digits.
	Digit(leg string, d Digit)
	// Hold stops (true) or resumes voice toward and from leg, when a party of ours
	// holds. Holding by the peer is in its offer; the call does not ask for ours yet.
	Hold(leg string, on bool)
	// Drop forgets a leg that was refused or released.
	Drop(leg string)
	// Events reports digits and the life of the voice. It is closed by Close.
	Events() <-chan BridgeEvent
	// Close frees everything and returns what was measured.
	Close() Report
}

// Bridges opens bridges.
type Bridges interface {
	// Open returns an error when the box has no room for another call.
	Open(callID string) (Bridge, error)
}

// Tone names a call progress tone; the country comes from the leg's profile.
type Tone uint8

// Tones that a call plays, ITU-T E.180.
const (
	NoTone Tone = iota
	Ringback
	Busy
	Congestion
	Music       // to a party that is held
	Unavailable // special information tone, then congestion: the way to the other side is lost
)

// BridgeEvent is what a Bridge reports about one leg.
type BridgeEvent interface{ bridgeEvent() }

// VoiceDead reports that nothing arrives from a leg any more: no STUN, no RTP,
// no RTCP, or the kernel said that the way is gone.
type VoiceDead struct {
	Leg string
	Why string // for people and the record: "no packets for 1.2s", "link lan0 down"
}

// VoiceAlive reports the first voice from a leg, and voice again after VoiceDead
// or after the leg moved to another realm. After a move with ICE a checked pair
// is enough: the peer may be muted.
type VoiceAlive struct {
	Leg   string
	Realm string
}

// DigitHeard reports a digit that was found in the voice of a leg. The bridge
// has already carried it to the other side.
type DigitHeard struct {
	Leg   string
	Digit Digit
}

func (VoiceDead) bridgeEvent()  {}
func (VoiceAlive) bridgeEvent() {}
func (DigitHeard) bridgeEvent() {}

// Report is what a Bridge measured over its life, a row per leg.
type Report struct {
	Legs []LegReport
}

// LegReport is the voice of one leg. Counters are of RTP packets on the wire;
// for an analog line they count PCM frames.
type LegReport struct {
	Leg       string
	Realm     string // of the path in use at the end
	MediaPath string // "lan", "cloud" or "line"
	Local     string // address and port
	Remote    string
	Pair      string // nominated candidate pair, empty without ICE
	Codec     string
	Sent      uint64
	Received  uint64
	Lost      uint64
	Late      uint64 // discarded by the jitter buffer
	Rejected  uint64 // failed authentication, replayed, or from a source that was not checked
	Jitter    time.Duration
	RoundTrip time.Duration // zero if unknown
	MOS       float64       // ITU-T G.107 estimate, 0 if unknown
	// Gap is the longest silence caused by a broken path: from the last packet
	// on the old path to the first on the new one; zero if there was none.
	Gap   time.Duration
	Moves []Move // changes of path
}

// Move is one change of a leg's path.
type Move struct {
	From, To string // realms
	Why      string
	After    time.Duration // since the call was answered
	Gap      time.Duration // without voice from the peer
	OK       bool
}
