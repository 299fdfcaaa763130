package dsp

import "math"

// FSKReceiver finds caller ID messages on a line: Bell 202 and V.23 alike, whose
// frequencies are close enough for one pair of filters. It belongs to one
// goroutine.
//
//	seek --24 mark bits--> armed --start bit--> octet --stop bit--> between
//	  ^                                           ^                   |
//	  |                                           +---- start bit ----+
//	  +---- carrier lost, stop bit wrong, too long a wait, message whole
//
// A message is what follows a run of mark bits: seizure is not needed, since a
// waiting call has none.
type FSKReceiver struct {
	ring  [fskTaps]float64
	next  int
	block float64 // DC and hum removed: last output
	last  float64 // last input
	power float64 // smoothed

	state   fskState
	before  float64 // last discriminator value
	wait    float64 // samples until the next bit is read, or idle time
	marks   int     // samples of mark in a row
	bits    int     // bits of the octet read
	octet   byte
	message [maxCIDMessage]byte
	length  int
}

type fskState uint8

const (
	fskSeek fskState = iota
	fskArmed
	fskOctet
	fskBetween
)

const (
	fskTaps        = 7 // one bit is 6.67 samples
	fskBit         = 8000.0 / fskBaud
	maxCIDMessage  = 255 + 3
	fskFloor       = 6.3e-5 // -42 dBm0; EN 300 659-1 asks receivers for -36 dBV
	fskMarksNeeded = 24     // bits; the shortest mark period sent is 55
	// fskMostIdle is how many mark bits may stand between octets: 10 are
	// allowed (GR-30), phones are patient.
	fskMostIdle = 25
)

// fskKernel are the taps of the mark and space filters, in phase and in
// quadrature. The magnitude does not depend on the phase of the signal.
type fskKernels struct{ markI, markQ, spaceI, spaceQ [fskTaps]float64 }

var fskKernel = buildFSKKernel()

func buildFSKKernel() (k fskKernels) {
	for i := range fskTaps {
		// In the middle between Bell 202 and V.23.
		k.markQ[i], k.markI[i] = math.Sincos(2 * math.Pi * 1250 * float64(i) / SampleRate)
		k.spaceQ[i], k.spaceI[i] = math.Sincos(2 * math.Pi * 2150 * float64(i) / SampleRate)
	}
	return k
}

// NewFSKReceiver makes a receiver.
func NewFSKReceiver() *FSKReceiver { return &FSKReceiver{} }

// Reset forgets what was heard.
func (r *FSKReceiver) Reset() { *r = FSKReceiver{} }

// Carrier reports that a message seems to be on the line: mark bits were heard.
func (r *FSKReceiver) Carrier() bool { return r.state != fskSeek }

// Feed takes any number of samples and calls report for each message that came
// whole, from type to checksum; ParseCallerID judges it. The message is valid
// during the call only. Feed does not allocate.
func (r *FSKReceiver) Feed(pcm []int16, report func(message []byte)) {
	for _, s := range pcm {
		x := float64(s)
		r.block = x - r.last + 0.9*r.block // zero at 0 Hz, hum of 50 Hz 8 dB down
		r.last = x
		r.ring[r.next] = r.block
		if r.next++; r.next == fskTaps {
			r.next = 0
		}
		r.power += (r.block*r.block - r.power) / 64
		d := r.discriminate()
		r.step(d, report)
		r.before = d
	}
}

// discriminate is positive for mark and negative for space, of magnitude 1 at
// most.
func (r *FSKReceiver) discriminate() float64 {
	k := &fskKernel
	var mi, mq, si, sq float64
	at := r.next
	for i := range fskTaps {
		v := r.ring[at]
		if at++; at == fskTaps {
			at = 0
		}
		mi += v * k.markI[i]
		mq += v * k.markQ[i]
		si += v * k.spaceI[i]
		sq += v * k.spaceQ[i]
	}
	m, s := mi*mi+mq*mq, si*si+sq*sq
	if m+s == 0 {
		return 0
	}
	return (m - s) / (m + s)
}

func (r *FSKReceiver) step(d float64, report func([]byte)) {
	const floor = zeroDBm0 * zeroDBm0 / 2
	if r.power < floor*fskFloor {
		r.state, r.marks = fskSeek, 0
		return
	}
	switch r.state {
	case fskSeek:
		if d < 0 {
			r.marks = 0
			return
		}
		if r.marks++; float64(r.marks) > fskMarksNeeded*fskBit {
			r.state, r.length = fskArmed, 0
		}
	case fskArmed:
		if d < 0 {
			r.start(d)
		}
	case fskOctet:
		if r.wait--; r.wait > 0 {
			return
		}
		r.wait += fskBit
		r.bit(d > 0, report)
	case fskBetween:
		if d < 0 && r.before >= 0 {
			r.start(d)
			return
		}
		if r.wait--; r.wait < 0 {
			r.state, r.marks = fskSeek, 0
		}
	}
}

// start is the edge from mark to space, between the last sample and this one.
func (r *FSKReceiver) start(d float64) {
	late := 0.0
	if r.before > 0 {
		late = d / (d - r.before) // part of a sample since the edge
	}
	r.state, r.bits, r.octet = fskOctet, 0, 0
	r.wait = fskBit/2 - late // the middle of the start bit
}

func (r *FSKReceiver) bit(mark bool, report func([]byte)) {
	switch n := r.bits; {
	case n == 0:
		if mark { // a spike, no start bit
			r.state, r.wait = fskBetween, fskMostIdle*fskBit
			if r.length == 0 {
				r.state = fskArmed
			}
			return
		}
	case n <= 8:
		if mark {
			r.octet |= 1 << (n - 1)
		}
	default:
		r.state, r.wait = fskBetween, fskMostIdle*fskBit
		if !mark {
			// Still in the seizure, or lost.
			r.state, r.marks = fskSeek, 0
			return
		}
		r.message[r.length] = r.octet
		r.length++
		if r.length >= 2 && r.length == int(r.message[1])+3 {
			report(r.message[:r.length])
			r.state, r.marks, r.length = fskSeek, 0, 0
		}
		return
	}
	r.bits++
}
