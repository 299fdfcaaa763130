package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/cmplx"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
)

// realRate is the sampling rate of all speech here, Hz.
const realRate = 8000

// speak makes speech: 8 kHz, telephone band, peaks at -6 dB, so that G.711 neither
// clips nor falls into its coarse lowest segment.
func speak(t *testing.T, text, voice string) []int16 {
	t.Helper()
	wav := filepath.Join(t.TempDir(), "speech.wav")
	realRun(t, "espeak-ng", "-v", voice, "-w", wav, text)
	raw := realRun(t, "sox", "-D", wav, "-t", "raw", "-r", "8000", "-c", "1", "-e", "signed", "-b", "16", "-L", "-", "sinc", "300-3400", "gain", "-n", "-6")
	pcm := realSamples(raw)
	if len(pcm) < 2*realRate {
		t.Fatalf("espeak-ng made only %d samples", len(pcm))
	}
	return pcm
}

func realSamples(raw []byte) []int16 {
	pcm := make([]int16, len(raw)/2)
	for i := range pcm {
		pcm[i] = int16(binary.LittleEndian.Uint16(raw[2*i:]))
	}
	return pcm
}

func realOctets(pcm []int16) []byte {
	raw := make([]byte, 2*len(pcm))
	for i, s := range pcm {
		binary.LittleEndian.PutUint16(raw[2*i:], uint16(s))
	}
	return raw
}

// likeness says how much of a reference is found in a recording.
type likeness struct {
	lag      int     // of the whole reference, samples into the recording
	segments int     // of 200 ms that hold speech
	found    int     // of them, those whose correlation reaches matchAt
	median   float64 // correlation of the segments
	slip     int     // greatest distance of a found segment from lag, samples
}

func (l likeness) String() string {
	return fmt.Sprintf("%d of %d segments found, median correlation %.4f, at %.3f s, slip %.1f ms",
		l.found, l.segments, l.median, float64(l.lag)/realRate, 1000*float64(l.slip)/realRate)
}

const (
	// matchAt is the normalised correlation at which 200 ms are the same sound.
	// G.711 alone leaves a signal to noise ratio of 35 dB and more at these levels
	// (ITU-T G.712): 1/sqrt(1+10^-3.5) = 0.9998, and a second transcoding hardly
	// less. 20 ms lost or put in by a jitter buffer cost a segment of 200 ms about a
	// tenth of its energy: 0.95. Other words of the same voice stay far below;
	// TestLikenessTellsSpeechApart measures a median of 0.15 and holds it under 0.5.
	matchAt = 0.9
	// matchShare of all segments must be found: a machine under load may starve one
	// end for a moment, which the jitter buffers then mend.
	matchShare = 0.8
	// segmentLen is 200 ms, and segments may lie slipMax (100 ms) off the lag of the
	// whole: jitter buffers at both ends adapt, more so on a machine under load.
	segmentLen = realRate / 5
	slipMax    = 800
)

// matches says whether the recording holds the reference.
func (l likeness) matches() bool {
	return l.segments >= 8 && float64(l.found) >= matchShare*float64(l.segments) && l.median >= 0.98
}

// compare looks for reference in recording by normalised cross-correlation: the
// whole reference gives the lag, then each segment is found on its own near it.
func compare(reference, recording []int16) likeness {
	l := likeness{lag: bestLag(reference, recording)}
	level := energy(reference) / float64(max(1, len(reference)))
	var all []float64
	for at := 0; at+segmentLen <= len(reference); at += segmentLen {
		part := reference[at : at+segmentLen]
		if energy(part)/segmentLen < level/10 {
			continue // a pause between words
		}
		best, where := 0.0, 0
		for slip := -slipMax; slip <= slipMax; slip++ {
			from := l.lag + at + slip
			if from < 0 || from+segmentLen > len(recording) {
				continue
			}
			if c := correlation(part, recording[from:from+segmentLen]); c > best {
				best, where = c, slip
			}
		}
		l.segments++
		all = append(all, best)
		if best >= matchAt {
			l.found++
			l.slip = max(l.slip, where, -where)
		}
	}
	l.median = median(all)
	return l
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func energy(pcm []int16) (e float64) {
	for _, s := range pcm {
		e += float64(s) * float64(s)
	}
	return e
}

// correlation is Σab / sqrt(Σa² Σb²).
func correlation(a, b []int16) float64 {
	var ab int64
	for i := range a {
		ab += int64(a[i]) * int64(b[i])
	}
	if e := energy(a) * energy(b); e > 0 {
		return float64(ab) / math.Sqrt(e)
	}
	return 0
}

// bestLag is where the reference lies best in the recording, not normalised: the
// peak of the inverse transform of conj(R)·X.
func bestLag(reference, recording []int16) int {
	n := 1
	for n < len(reference)+len(recording) {
		n *= 2
	}
	r, x := make([]complex128, n), make([]complex128, n)
	for i, s := range reference {
		r[i] = complex(float64(s), 0)
	}
	for i, s := range recording {
		x[i] = complex(float64(s), 0)
	}
	fourier(r)
	fourier(x)
	for i := range x { // the inverse is the transform of the conjugate
		x[i] = cmplx.Conj(cmplx.Conj(r[i]) * x[i])
	}
	fourier(x)
	lag := 0
	for i := range recording {
		if real(x[i]) > real(x[lag]) {
			lag = i
		}
	}
	return lag
}

// fourier is Cooley and Tukey's transform, in place; len(v) is a power of two.
func fourier(v []complex128) {
	n := len(v)
	for i, j := 1, 0; i < n; i++ {
		bit := n >> 1
		for ; j&bit != 0; bit >>= 1 {
			j ^= bit
		}
		j ^= bit
		if i < j {
			v[i], v[j] = v[j], v[i]
		}
	}
	for size := 2; size <= n; size *= 2 {
		half := size / 2
		turn := make([]complex128, half)
		for k := range turn {
			turn[k] = cmplx.Rect(1, -2*math.Pi*float64(k)/float64(size))
		}
		for from := 0; from < n; from += size {
			a, b := v[from:from+half], v[from+half:from+size]
			for k, w := range turn {
				odd := b[k] * w
				a[k], b[k] = a[k]+odd, a[k]-odd
			}
		}
	}
}

// TestLikenessTellsSpeechApart: the measure finds speech that is delayed, softer,
// noisy and slipped by a jitter buffer, and does not find other words of the same
// voice, noise, or silence.
func TestLikenessTellsSpeechApart(t *testing.T) {
	realTool(t, "espeak-ng", "sox")
	said := speak(t, "the quick brown fox jumps over the lazy dog while the branch office is on the telephone", "en")
	other := speak(t, "please hold the line, somebody else will take your call in less than one minute", "en")
	rng := rand.New(rand.NewPCG(1, 2))
	noisy := func(pcm []int16, volume, noise float64) []int16 {
		out := make([]int16, 0, len(pcm)+4*realRate)
		out = append(out, make([]int16, 12345)...)
		for i, s := range pcm {
			if i == len(pcm)/2 { // a jitter buffer repeats 10 ms
				out = append(out, out[len(out)-80:]...)
			}
			out = append(out, int16(volume*float64(s)+noise*rng.NormFloat64()))
		}
		return append(out, make([]int16, 5000)...)
	}
	for name, c := range map[string]struct {
		recording []int16
		want      bool
	}{
		"the same, half as loud": {noisy(said, 0.5, 20), true},
		"other words":            {noisy(other, 1, 20), false},
		"noise":                  {noisy(make([]int16, len(said)), 0, 1000), false},
		"silence":                {make([]int16, len(said)), false},
		"nothing":                {nil, false},
		"the first half":         {noisy(said[:len(said)/2], 1, 20), false},
	} {
		l := compare(said, c.recording)
		if l.matches() != c.want {
			t.Errorf("%s: %v", name, l)
		}
		if name == "other words" && l.median > 0.5 {
			t.Errorf("other words correlate with %.2f: the threshold %.2f is too near", l.median, matchAt)
		}
		t.Logf("%s: %v", name, l)
	}
}
