package mediatest

import "math"

const sampleRate = 8000

// fullScale is the level of a full-scale sine in dBm0, ITU-T G.711 §A: the
// overload point of A-law.
const fullScale = 3.14

// Voice is what a client says: it fills frames of 8 kHz samples. A Voice is
// used by one client at a time.
type Voice interface{ Fill(dst []int16) }

// Tone returns a sine of hz at level dBm0 that never ends.
func Tone(hz, level float64) Voice {
	return &sine{step: 2 * math.Pi * hz / sampleRate, peak: 32767 * math.Pow(10, (level-fullScale)/20)}
}

type sine struct{ phase, step, peak float64 }

func (s *sine) Fill(dst []int16) {
	for i := range dst {
		dst[i] = int16(s.peak * math.Sin(s.phase))
		s.phase = math.Mod(s.phase+s.step, 2*math.Pi)
	}
}

// Speech returns a voice that repeats 8 kHz samples.
func Speech(pcm []int16) Voice { return &speech{pcm: pcm} }

type speech struct {
	pcm []int16
	at  int
}

func (s *speech) Fill(dst []int16) {
	for i := range dst {
		if len(s.pcm) == 0 {
			dst[i] = 0
			continue
		}
		dst[i] = s.pcm[s.at]
		s.at = (s.at + 1) % len(s.pcm)
	}
}

// ToneShare returns which share of the power of pcm (0 to 1) lies at hz, by
// Goertzel's algorithm, and the level of that part in dBm0. Frames of 20 ms
// tell apart tones 100 Hz from each other.
func ToneShare(pcm []int16, hz float64) (share, level float64) {
	if len(pcm) == 0 {
		return 0, math.Inf(-1)
	}
	coefficient := 2 * math.Cos(2*math.Pi*hz/sampleRate)
	var s1, s2, total float64
	for _, x := range pcm {
		v := float64(x)
		total += v * v
		s1, s2 = v+coefficient*s1-s2, s1
	}
	if total == 0 {
		return 0, math.Inf(-1)
	}
	n := float64(len(pcm))
	atHz := (s1*s1 + s2*s2 - coefficient*s1*s2) * 2 / n // energy of the sine over the frame
	level = 10*math.Log10(atHz/n/(32767*32767/2.)) + fullScale
	return min(atHz/total, 1), level
}

// What counts as hearing a tone: it dominates the frame, also over the echo of
// the listener's own voice, and is no crosstalk.
const (
	toneShare = 0.4
	toneLevel = -45 // dBm0
)

func hasTone(pcm []int16, hz float64) bool {
	share, level := ToneShare(pcm, hz)
	return share >= toneShare && level >= toneLevel
}
