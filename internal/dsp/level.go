package dsp

import "math"

// Quietest is what Level gives for digital silence, in dBm0.
const Quietest = -96.0

// Level is the power of pcm in dBm0: a sine that just does not clip is +3.14.
func Level(pcm []int16) float64 {
	if len(pcm) == 0 {
		return Quietest
	}
	var sum int64
	for _, s := range pcm {
		sum += int64(s) * int64(s)
	}
	if sum == 0 {
		return Quietest
	}
	const zero = float64(zeroDBm0) * zeroDBm0 / 2
	return max(Quietest, 10*math.Log10(float64(sum)/float64(len(pcm))/zero))
}

// Meter follows the level of a line: the power of frames, averaged with a time
// constant. The zero value is ready and averages over 125 ms, as a sound level
// meter set to fast. A Meter belongs to one goroutine.
type Meter struct {
	power float64 // mean square
}

// Feed adds a frame.
func (m *Meter) Feed(pcm []int16) {
	if len(pcm) == 0 {
		return
	}
	var sum int64
	for _, s := range pcm {
		sum += int64(s) * int64(s)
	}
	const constant = 0.125 * SampleRate
	k := math.Exp(-float64(len(pcm)) / constant)
	m.power = m.power*k + float64(sum)/float64(len(pcm))*(1-k)
}

// Level is the averaged level in dBm0, not below Quietest.
func (m *Meter) Level() float64 {
	const zero = float64(zeroDBm0) * zeroDBm0 / 2
	if m.power <= 0 {
		return Quietest
	}
	return max(Quietest, 10*math.Log10(m.power/zero))
}
