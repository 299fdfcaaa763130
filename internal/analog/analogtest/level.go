package analogtest

import "math"

const sampleRate = 8000

// zeroPeak is the peak amplitude of a sine of 0 dBm0: 3.14 dB below overload.
var zeroPeak = overload * math.Pow(10, -3.14/20)

// zeroPower is the mean square of that sine.
var zeroPower = zeroPeak * zeroPeak / 2

// silentLevel is reported for digital silence.
const silentLevel = -99.0

func amplitude(dBm0 float64) float64 { return zeroPeak * math.Pow(10, dBm0/20) }

// dBm0 turns a mean square of samples into a level.
func dBm0(power float64) float64 {
	if power <= 0 {
		return silentLevel
	}
	return max(10*math.Log10(power/zeroPower), silentLevel)
}

// Level is the power of pcm in dBm0; -99 for silence.
func Level(pcm []int16) float64 { return dBm0(meanSquare(pcm)) }

func meanSquare(pcm []int16) float64 {
	if len(pcm) == 0 {
		return 0
	}
	var sum float64
	for _, s := range pcm {
		sum += float64(s) * float64(s)
	}
	return sum / float64(len(pcm))
}

// goertzel returns the power (mean square) of a sine of hz in pcm, computed over
// the whole slice with a rectangular window.
func goertzel(pcm []int16, hz float64) float64 {
	if len(pcm) == 0 {
		return 0
	}
	w := 2 * math.Pi * hz / sampleRate
	k := 2 * math.Cos(w)
	var s1, s2 float64
	for _, x := range pcm {
		s1, s2 = float64(x)+k*s1-s2, s1
	}
	p := s1*s1 + s2*s2 - k*s1*s2
	n := float64(len(pcm))
	return 2 * p / (n * n)
}

func clip(v float64) int16 {
	return int16(max(-32768, min(32767, math.Round(v))))
}

// mix adds v to a sample and clips.
func mix(s int16, v float64) int16 { return clip(float64(s) + v) }

// sine is a phase-continuous oscillator.
type sine struct {
	hz    float64
	peak  float64
	phase float64 // turns
}

func newSine(hz, level float64) sine { return sine{hz: hz, peak: amplitude(level)} }

func (o *sine) next() float64 {
	v := o.peak * math.Sin(2*math.Pi*o.phase)
	o.phase += o.hz / sampleRate
	o.phase -= math.Floor(o.phase)
	return v
}
