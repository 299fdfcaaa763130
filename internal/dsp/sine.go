package dsp

import "math"

// sineBits sets the length of the sine table. With linear interpolation the
// error is 2^-21 of the amplitude, far below the 16th bit.
const sineBits = 11

var sineTable = buildSine()

func buildSine() (t [1<<sineBits + 1]float32) {
	for i := range t {
		t[i] = float32(math.Sin(2 * math.Pi * float64(i) / (1 << sineBits)))
	}
	return t
}

// phase is an angle: the full circle is 2^32, so it wraps by itself and never
// loses precision, however long a tone lasts.
type phase uint32

func (p phase) sin() float32 {
	const shift = 32 - sineBits
	i := p >> shift
	frac := float32(p&(1<<shift-1)) * (1.0 / (1 << shift))
	return sineTable[i] + frac*(sineTable[i+1]-sineTable[i])
}

// perSample is the advance of a tone of hz in one sample.
func perSample(hz float64) phase {
	return phase(int64(math.Round(hz / SampleRate * (1 << 32))))
}

// edge is the raised-cosine rise of a burst: 3 ms keep the click of keying out
// of neighbouring bands.
const edgeLen = 24

var edge = buildEdge()

func buildEdge() (t [edgeLen]float32) {
	for i := range t {
		t[i] = float32(0.5 - 0.5*math.Cos(math.Pi*(float64(i)+0.5)/edgeLen))
	}
	return t
}
