// Package dsp is the signal processing of analog lines on frames of PCM: G.711,
// call progress tones of each country, DTMF both ways, caller ID both ways,
// recognition of progress tones, level.
//
// PCM is []int16 at SampleRate. Levels are dBm0: a sine of 0 dBm0 is 3.14 dB
// below the clipping point (ITU-T G.711 Table 1a note, A-law). Everything is
// pure: no clock but the count of samples, no socket, no goroutine. Generators
// and receivers belong to one goroutine each; the functions that take a frame
// do not allocate.
//
// Sources: ITU-T G.711, E.180 Supplement 2 (tones; table in countries_table.go
// generated from gen/call-progress-tones.json), Q.23 and Q.24 (DTMF), Telcordia
// GR-30 and GR-31, ETSI EN 300 659-1 and -3, BT SIN 227 and 242 (caller ID).
//
// When to ring, seize or send caller ID is left to package analog; RFC 4733
// events, jitter and packets to package media. Echo control comes later.
package dsp

import (
	"math"
	"time"
)

//go:generate go run ./gen gen/call-progress-tones.json countries_table.go

// SampleRate is the rate of all PCM here, in Hz.
const SampleRate = 8000

// zeroDBm0 is the peak of a sine of 0 dBm0 on the scale of int16.
const zeroDBm0 = 22827 // 32768 / 10^(3.14/20)

// samples converts a duration to a whole number of samples.
func samples(d time.Duration) int {
	return int((d*SampleRate + time.Second/2) / time.Second)
}

// peak is the amplitude of a sine of the given level.
func peak(dBm0 float64) float64 { return zeroDBm0 * math.Pow(10, dBm0/20) }

func clip16(v float64) int16 {
	switch {
	case v >= math.MaxInt16:
		return math.MaxInt16
	case v <= math.MinInt16:
		return math.MinInt16
	}
	return int16(math.RoundToEven(v))
}
