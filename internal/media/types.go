package media

import "time"

// Line is the voice of one analog line. Package analog satisfies it.
//
// Attach directs the frames that come from the line (80 samples, 8 kHz, valid
// during the call) to sink, replacing the sink before. Write queues 80 samples
// for the line: one for each frame received, for the card is the clock. Detach
// ends both. None of them may wait for the line.
type Line interface {
	Attach(sink func(frame []int16))
	Write(frame []int16)
	Detach()
}

// Tone names a call progress tone; the country comes from the leg's profile.
type Tone uint8

// Tones that a Bridge plays, ITU-T E.180.
const (
	NoTone Tone = iota
	Ringback
	Busy
	Congestion
	Music       // to a party that is held
	Unavailable // special information tone, then congestion
)

// Digit is one DTMF digit.
type Digit struct {
	Digit    byte // 0-9 * # A-D
	Duration time.Duration
}

// Event is what a Bridge reports about one leg: VoiceDead, VoiceAlive or
// DigitHeard.
type Event interface{ event() }

// VoiceDead reports that nothing arrives from a leg any more: no STUN, no RTP,
// no RTCP, or the kernel said that the way is gone.
type VoiceDead struct {
	Leg string
	Why string // for people: "no packets for 1.2s", "link lan0 down"
}

// VoiceAlive reports the first voice from a leg, and voice again after
// VoiceDead. After a move with ICE a checked pair is enough.
type VoiceAlive struct {
	Leg   string
	Realm string
}

// DigitHeard reports a digit found in the voice of a leg, when it has ended.
// It has already been carried to the other side.
type DigitHeard struct {
	Leg   string
	Digit Digit
}

func (VoiceDead) event()  {}
func (VoiceAlive) event() {}
func (DigitHeard) event() {}

// Report is what a Bridge measured over its life, a row per leg.
type Report struct{ Legs []LegReport }

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
	MOS       float64       // ITU-T G.107 estimate of what came from the leg, 0 if unknown
	// Gap is the longest silence caused by a broken path: from the last packet
	// on the old path to the first on the new one.
	Gap   time.Duration
	Moves []Move
}

// Move is one change of a leg's path.
type Move struct {
	From, To string // realms
	Why      string
	After    time.Duration // since the legs were joined
	Gap      time.Duration // without voice from the peer
	OK       bool          // voice came on the new path
}
