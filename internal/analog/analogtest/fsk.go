package analogtest

import "math"

// modem is one of the two ways to send caller ID: 1200 bit/s, asynchronous.
type modem struct{ mark, space float64 }

var (
	bell202 = modem{mark: 1200, space: 2200}
	v23     = modem{mark: 1300, space: 2100} // ITU-T V.23 mode 2
)

const fskBaud = 1200

// fskAudio modulates octets with continuous phase: seizure bits of alternating 0
// and 1, mark bits, then each octet with start and stop bit.
func (m modem) fskAudio(octets []byte, seizure, mark int, level float64) []int16 {
	var bits []bool
	for i := range seizure {
		bits = append(bits, i%2 == 1)
	}
	for range mark {
		bits = append(bits, true)
	}
	for _, b := range octets {
		bits = append(bits, false)
		for i := range 8 {
			bits = append(bits, b>>i&1 == 1)
		}
		bits = append(bits, true)
	}
	bits = append(bits, true, true)
	n := len(bits) * sampleRate / fskBaud
	pcm := make([]int16, n)
	phase, peak := 0.0, amplitude(level)
	for i := range pcm {
		hz := m.space
		if bits[i*fskBaud/sampleRate] {
			hz = m.mark
		}
		pcm[i] = clip(peak * math.Sin(2*math.Pi*phase))
		phase += hz / sampleRate
		phase -= math.Floor(phase)
	}
	return pcm
}

// fskReceiver demodulates one modem's signal without knowing its phase: the
// powers of mark and space over one bit length are compared at every sample.
// Octets are framed as a UART does it, messages by type, length and checksum.
type fskReceiver struct {
	m     modem
	at    uint64
	taps  [7]float64 // one bit is 6.67 samples
	now   bool       // what the line says: mark
	carry int        // samples without signal

	bit   float64 // samples until the middle of the next bit, while busy
	busy  bool
	shift int
	octet byte

	msg  []byte
	want int // octets of the message, 0 none under way
}

func newFSKReceiver(m modem) *fskReceiver { return &fskReceiver{m: m, now: true} }

// feed gives message each message whose checksum is right, and damaged each that
// began well and whose checksum is wrong.
func (r *fskReceiver) feed(pcm []int16, message, damaged func([]byte)) {
	for _, s := range pcm {
		copy(r.taps[:], r.taps[1:])
		r.taps[6] = float64(s)
		mark, space := r.correlate(r.m.mark), r.correlate(r.m.space)
		r.at++
		if mark+space < 7*7*20*20 { // about -50 dBm0: no signal
			if r.carry++; r.carry > 80 {
				r.busy, r.want, r.msg, r.now = false, 0, r.msg[:0], true
			}
		} else {
			r.carry = 0
		}
		was := r.now
		r.now = mark >= space
		if !r.busy {
			if was && !r.now {
				// A start bit: its middle is half a bit away, the first data bit one more.
				r.busy, r.shift, r.octet, r.bit = true, -1, 0, float64(sampleRate)/fskBaud/2
			}
			continue
		}
		if r.bit--; r.bit > 0 {
			continue
		}
		r.bit += float64(sampleRate) / fskBaud
		switch {
		case r.shift == -1 && r.now: // a glitch, no start bit
			r.busy = false
		case r.shift < 0:
			r.shift = 0
		case r.shift < 8:
			if r.now {
				r.octet |= 1 << r.shift
			}
			r.shift++
		default:
			r.busy = false
			if r.now {
				r.take(r.octet, message, damaged)
			} else {
				r.want, r.msg = 0, r.msg[:0]
			}
		}
	}
}

// correlate is the power of hz over the last bit length.
func (r *fskReceiver) correlate(hz float64) float64 {
	var re, im float64
	for i, v := range r.taps {
		s, c := math.Sincos(2 * math.Pi * hz * float64(i) / sampleRate)
		re += v * c
		im += v * s
	}
	return re*re + im*im
}

func (r *fskReceiver) take(b byte, message, damaged func([]byte)) {
	switch {
	case len(r.msg) == 0:
		// Channel seizure reads as 0x55; anything that is no message type is skipped.
		if b == cidMDMF || b == cidWaiting || b == cidSDMF || b == 0x06 {
			r.msg = append(r.msg, b)
		}
		return
	case len(r.msg) == 1:
		r.want = int(b) + 3
	}
	r.msg = append(r.msg, b)
	if len(r.msg) < r.want {
		return
	}
	var sum byte
	for _, b := range r.msg {
		sum += b
	}
	if sum == 0 {
		message(append([]byte(nil), r.msg...))
	} else {
		damaged(append([]byte(nil), r.msg...))
	}
	r.msg, r.want = r.msg[:0], 0
}
