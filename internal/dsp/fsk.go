package dsp

import "time"

// Modem is a pair of frequencies in Hz, both at 1200 bit/s.
type Modem struct{ Mark, Space float64 }

// The modems of caller ID.
var (
	Bell202 = Modem{Mark: 1200, Space: 2200} // Telcordia GR-30
	V23     = Modem{Mark: 1300, Space: 2100} // ITU-T V.23 mode 2, ETSI EN 300 659-1 §5
)

const fskBaud = 1200

// Framing is what surrounds a message, in bits of 1/1200 s.
type Framing struct {
	Seizure int // alternating bits, 0 first
	Mark    int // mark bits before the message
	Stop    int // stop bits of each octet, at least 1
	Tail    int // mark bits after the checksum
}

// CIDFraming gives modem and framing of an FSK scheme; offHook is for a call
// that waits, when the line carries voice. It is false for schemes without FSK.
func CIDFraming(scheme CIDScheme, offHook bool) (Modem, Framing, bool) {
	// 250 ms of seizure and 150 ms of mark: GR-30, EN 300 659-1 §5.2.
	f := Framing{Seizure: 300, Mark: 180, Stop: 1, Tail: 10}
	m := V23
	switch scheme {
	case Bellcore, BellcoreSingle:
		m = Bell202
	case ETSI:
	case BT:
		// SIN 227 wants 96–315 bits and 55–90 bits; both sides of 250 ms.
		f.Seizure, f.Mark = 300, 72
	default:
		return Modem{}, Framing{}, false
	}
	if offHook {
		f.Seizure, f.Mark = 0, 80
	}
	return m, f, true
}

// Levels in dBm0 at which caller ID is sent to a phone on a line of no loss.
const (
	FSKLevel  = -13.5 // GR-30, EN 300 659-1 §5.1
	DTASLevel = -14   // both tones together; ETSI ES 200 778 wants them within 6 dB
)

// AlertTone is the dual-tone alerting signal of ETSI (DT-AS, 88–110 ms) or,
// with offHook, the CPE alerting signal of a waiting call (CAS, 80–85 ms),
// 2130 and 2750 Hz, played once.
func AlertTone(offHook bool) Cadence {
	d := 100 * time.Millisecond
	if offHook {
		d = 83 * time.Millisecond
	}
	return Cadence{Intro: []Step{{Hz: []float64{2130, 2750}, Duration: d}}}
}

// FSK sends one message at a time. Phase is continuous and bit edges fall
// between samples where they must, so that no bit is longer than another. It
// belongs to one goroutine.
type FSK struct {
	mark, space phase
	amplitude   float32
	framing     Framing
	message     []byte

	bit    int // next bit, counted from the start of the framing; -1: idle
	level  bool
	within int // position in the bit in units of 1/(8000·1200) s
	phase  phase
	ramp   int
}

// NewFSK makes a modulator of the given level in dBm0.
func NewFSK(m Modem, levelDBm0 float64) *FSK {
	return &FSK{mark: perSample(m.Mark), space: perSample(m.Space), amplitude: float32(peak(levelDBm0)), bit: -1}
}

// Send begins a message; one under way is abandoned. The message is kept, not
// copied, until Fill has returned false.
func (f *FSK) Send(framing Framing, message []byte) {
	framing.Stop = max(1, framing.Stop)
	f.framing, f.message = framing, message
	f.bit, f.within, f.phase, f.ramp = 0, 0, 0, 0
	f.level = f.bitAt(0)
}

// Duration is how long a message lasts.
func (f Framing) Duration(message []byte) time.Duration {
	return time.Duration(f.bits(len(message))) * time.Second / fskBaud
}

func (f Framing) bits(octets int) int {
	return f.Seizure + f.Mark + octets*(9+max(1, f.Stop)) + f.Tail
}

// Fill writes the next len(dst) samples and reports whether any part of dst
// belongs to a message. When nothing is left it writes silence and returns
// false. It does not allocate.
func (f *FSK) Fill(dst []int16) bool {
	if f.bit < 0 {
		clear(dst)
		return false
	}
	for i := range dst {
		dst[i] = f.next()
	}
	return true
}

func (f *FSK) next() int16 {
	if f.bit < 0 {
		return 0
	}
	v := f.amplitude * f.phase.sin()
	if f.ramp < edgeLen {
		v *= edge[f.ramp]
		f.ramp++
	}
	// The sample advances the bit by 1200 of 8000 units; the bit edge may lie
	// inside, then each side counts for its part.
	inc := f.increment()
	if f.within += fskBaud; f.within >= SampleRate {
		f.within -= SampleRate
		f.bit++
		if f.bit == f.framing.bits(len(f.message)) {
			f.bit = -1
			return clip16(float64(v))
		}
		before := inc
		f.level = f.bitAt(f.bit)
		after := f.increment()
		part := float64(f.within) / fskBaud
		inc = phase(float64(before)*(1-part) + float64(after)*part)
	}
	f.phase += inc
	return clip16(float64(v))
}

func (f *FSK) increment() phase {
	if f.level {
		return f.mark
	}
	return f.space
}

// bitAt is bit i of the whole: seizure, mark, octets from the lowest bit with
// start and stop bits, tail.
func (f *FSK) bitAt(i int) bool {
	if i < f.framing.Seizure {
		return i%2 == 1
	}
	if i -= f.framing.Seizure; i < f.framing.Mark {
		return true
	}
	i -= f.framing.Mark
	word := 9 + f.framing.Stop
	octet, pos := i/word, i%word
	switch {
	case octet >= len(f.message) || pos > 8:
		return true
	case pos == 0:
		return false
	}
	return f.message[octet]>>(pos-1)&1 == 1
}
