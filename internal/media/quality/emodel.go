// Package quality measures a voice stream: what arrived of it (RFC 3550
// appendix A) and how it sounds (the E-model, ITU-T G.107).
//
// The main type is Reception; Rating and MOS are functions. The package is pure: the
// time of arrival is given. Sending and reading RTCP is left to package media.
package quality

import (
	"math"
	"time"
)

// Impairment of a codec with packet loss concealment, ITU-T G.113 appendix I
// table I.4.
type Impairment struct {
	Ie  float64 // equipment impairment without loss
	Bpl float64 // robustness against loss
}

// G711 is G.711 with concealment (appendix I); G711Bare without, where the far
// end's concealment is not known.
var (
	G711     = Impairment{Ie: 0, Bpl: 25.1}
	G711Bare = Impairment{Ie: 0, Bpl: 4.3}
)

// base is Ro - Is with the default values of G.107 (2015) table 3.
const base = 93.2

// Rating is the transmission rating R of ITU-T G.107 §7.1 with default values
// for all but delay and loss: R = Ro - Is - Id - Ie,eff. oneWay is the delay
// from mouth to ear, loss the share of packets lost or late, 0 to 1. Echo is
// taken as cancelled.
func Rating(codec Impairment, oneWay time.Duration, loss float64) float64 {
	ppl := 100 * min(1, max(0, loss))
	ie := codec.Ie + (95-codec.Ie)*ppl/(ppl+codec.Bpl)
	return base - delayImpairment(oneWay) - ie
}

// delayImpairment is Idd of ITU-T G.107 §7.4: nothing up to 100 ms.
func delayImpairment(oneWay time.Duration) float64 {
	ms := float64(oneWay) / float64(time.Millisecond)
	if ms <= 100 {
		return 0
	}
	x := math.Log2(ms / 100)
	sixth := func(v float64) float64 { return math.Pow(1+math.Pow(v, 6), 1.0/6) }
	return 25 * (sixth(x) - 3*sixth(x/3) + 2)
}

// MOS converts R to a mean opinion score, 1 to 4.5, ITU-T G.107 annex B.
func MOS(r float64) float64 {
	switch {
	case r <= 0:
		return 1
	case r >= 100:
		return 4.5
	}
	return max(1, 1+0.035*r+r*(r-60)*(100-r)*7e-6)
}
