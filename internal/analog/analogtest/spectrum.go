package analogtest

import (
	"math"
	"math/cmplx"
	"sort"
)

// spectrumLen is the longest stretch looked at at once: 128 ms, zero-padded to
// twice that. Its Hann window separates 400 from 450 Hz and interpolation of the
// peak places a single tone within 2 Hz.
const spectrumLen = 1024

// peak is one sinusoidal component.
type peak struct {
	hz    float64
	level float64 // dBm0
}

// peaks finds the strongest sinusoids between 200 and 3400 Hz in at most the
// last spectrumLen samples of pcm: at most four, within 10 dB of the strongest,
// ordered by frequency. It finds none where sinusoids do not carry most of the
// power: speech, noise.
func peaks(pcm []int16) []peak {
	if len(pcm) > spectrumLen {
		pcm = pcm[len(pcm)-spectrumLen:]
	}
	if len(pcm) < 320 {
		return nil
	}
	const size = 2 * spectrumLen
	buf := make([]complex128, size)
	var gain float64
	for i, s := range pcm {
		w := 0.5 - 0.5*math.Cos(2*math.Pi*(float64(i)+0.5)/float64(len(pcm)))
		buf[i] = complex(float64(s)*w, 0)
		gain += w
	}
	fft(buf)
	mag := make([]float64, size/2)
	for i := range mag {
		mag[i] = cmplx.Abs(buf[i]) * 2 / gain // peak amplitude of a sine there
	}
	const binHz = float64(sampleRate) / size
	lo, hi := 200*size/sampleRate, 3400*size/sampleRate
	top := 0.0
	for i := lo; i < hi; i++ {
		top = max(top, mag[i])
	}
	if top == 0 {
		return nil
	}
	var found []peak
	power := 0.0
	for i := lo; i < hi; i++ {
		m := mag[i]
		if m < top*0.316 || m < mag[i-1] || m <= mag[i+1] {
			continue
		}
		// Parabola through the logarithms: exact enough for a Hann window.
		a, b, c := math.Log(mag[i-1]+1e-9), math.Log(m), math.Log(mag[i+1]+1e-9)
		d := 0.5 * (a - c) / (a - 2*b + c)
		found = append(found, peak{hz: (float64(i) + d) * binHz, level: dBm0(m * m / 2)})
		power += m * m / 2
	}
	if len(found) > 4 || power < 0.5*meanSquare(pcm) {
		return nil
	}
	sort.Slice(found, func(i, j int) bool { return found[i].hz < found[j].hz })
	return found
}

// fft transforms a in place; its length is a power of two.
func fft(a []complex128) {
	n := len(a)
	for i, j := 1, 0; i < n; i++ {
		bit := n >> 1
		for ; j&bit != 0; bit >>= 1 {
			j ^= bit
		}
		j ^= bit
		if i < j {
			a[i], a[j] = a[j], a[i]
		}
	}
	for size := 2; size <= n; size <<= 1 {
		step := cmplx.Rect(1, -2*math.Pi/float64(size))
		for start := 0; start < n; start += size {
			w := complex(1, 0)
			for k := start; k < start+size/2; k++ {
				u, v := a[k], a[k+size/2]*w
				a[k], a[k+size/2] = u+v, u-v
				w *= step
			}
		}
	}
}
