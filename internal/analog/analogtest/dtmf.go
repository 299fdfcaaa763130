package analogtest

import (
	"fmt"
	"strings"
	"time"
)

// The sixteen signals of ITU-T Q.23.
const dtmfKeys = "123A456B789C*0#D"

func dtmfRow(i int) float64 { return [4]float64{697, 770, 852, 941}[i] }
func dtmfCol(i int) float64 { return [4]float64{1209, 1336, 1477, 1633}[i] }

// Keying says how digits are sent.
type Keying struct {
	On, Off   time.Duration // DTMF: length of tone and pause; 100 ms each if zero
	HighDBm0  float64       // level of the high group; -9 if zero
	LowDBm0   float64       // level of the low group; -11 if zero
	OffsetPct float64       // both frequencies are off by so many percent
	// Pulse dials by interrupting the loop at PPS pulses a second (10 if zero)
	// with Break percent of each period open (60 if zero). On and Off are not
	// used; digits are 800 ms apart.
	Pulse bool
	PPS   float64
	Break float64
}

func (k Keying) filled() Keying {
	def := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	if k.On == 0 {
		k.On = 100 * time.Millisecond
	}
	if k.Off == 0 {
		k.Off = 100 * time.Millisecond
	}
	def(&k.HighDBm0, -9)
	def(&k.LowDBm0, -11)
	def(&k.PPS, 10)
	def(&k.Break, 60)
	return k
}

// DTMF returns the audio of digits with a pause after each. Unknown letters are
// an error.
func DTMF(digits string, k Keying) ([]int16, error) {
	k = k.filled()
	var pcm []int16
	for _, d := range digits {
		i := strings.IndexRune(dtmfKeys, d)
		if i < 0 {
			return nil, fmt.Errorf("dtmf digit %q: not one of %s", d, dtmfKeys)
		}
		off := 1 + k.OffsetPct/100
		low, high := newSine(dtmfRow(i/4)*off, k.LowDBm0), newSine(dtmfCol(i%4)*off, k.HighDBm0)
		for range samples(k.On) {
			pcm = append(pcm, clip(low.next()+high.next()))
		}
		pcm = append(pcm, make([]int16, samples(k.Off))...)
	}
	return pcm, nil
}

func samples(d time.Duration) int { return int(d * sampleRate / time.Second) }

// dtmfReceiver finds digits in audio: windows of 16 ms every 8 ms. A digit
// begins with two windows that agree and ends with three that do not.
type dtmfReceiver struct {
	window [128]int16
	fresh  int
	last   byte // digit of the previous window, 0 none
	hits   int
	misses int
	now    byte // digit reported and not yet ended
}

// feed calls digit once for each digit, when it has begun.
func (r *dtmfReceiver) feed(pcm []int16, digit func(byte)) {
	for _, s := range pcm {
		copy(r.window[:], r.window[1:])
		r.window[127] = s
		if r.fresh++; r.fresh < 64 {
			continue
		}
		r.fresh = 0
		d := dtmfIn(r.window[:])
		if d != 0 && d == r.last {
			r.hits++
		} else {
			r.hits = 1
		}
		r.last = d
		switch {
		case d == r.now:
			r.misses = 0
		case d != 0 && r.hits >= 2:
			r.now, r.misses = d, 0
			digit(d)
		default:
			if r.misses++; r.misses >= 3 {
				r.now = 0
			}
		}
	}
}

// dtmfIn judges one window by the limits of ITU-T Q.24 as far as its length
// allows: one row and one column, twist within -6..+10 dB, 8 dB above their
// neighbours, at least -38 dBm0, and most of the power.
func dtmfIn(pcm []int16) byte {
	best := func(f func(int) float64) (at int, p, second float64) {
		for i := range 4 {
			switch q := goertzel(pcm, f(i)); {
			case q > p:
				at, p, second = i, q, p
			case q > second:
				second = q
			}
		}
		return at, p, second
	}
	row, low, low2 := best(dtmfRow)
	col, high, high2 := best(dtmfCol)
	switch {
	case dBm0(low) < -38 || dBm0(high) < -38,
		low < 6.3*low2 || high < 6.3*high2,
		low > 10*high || high > 4*low,
		low+high < 0.6*meanSquare(pcm):
		return 0
	}
	return dtmfKeys[4*row+col]
}
