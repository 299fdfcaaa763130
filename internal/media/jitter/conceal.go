package jitter

import "math"

const (
	history    = 400 // samples of what was heard last, 50 ms
	minPitch   = 40  // 200 Hz and its multiples; shorter periods are found as multiples
	maxPitch   = 160 // 50 Hz
	fullUntil  = Rate / 100
	fadeUntil  = 6 * Rate / 100 // as ITU-T G.711 Appendix I: gone after 60 ms
	joinLength = 32             // samples over which concealment passes into voice
)

// concealer replaces what is missing by repeating the last pitch period, fading
// out within 60 ms (the method of ITU-T G.711 Appendix I, simplified).
type concealer struct {
	heard   [history]int16
	pitch   int
	period  [maxPitch]int16
	phase   int
	covered int // samples concealed since the last voice; 0: none
}

// played remembers what went to the line.
func (c *concealer) played(pcm []int16) {
	n := len(pcm)
	if n >= history {
		copy(c.heard[:], pcm[n-history:])
		return
	}
	copy(c.heard[:], c.heard[n:])
	copy(c.heard[history-n:], pcm)
}

func (c *concealer) fill(dst []int16, bg *Noise) {
	if c.covered == 0 {
		c.pitch = bestLag(c.heard[:], minPitch, maxPitch)
		copy(c.period[:c.pitch], c.heard[history-c.pitch:])
		c.phase = 0
	}
	bg.Fill(dst)
	for i := range dst {
		g := c.gain()
		dst[i] = clip(g*float32(c.period[c.phase]) + (1-g)*float32(dst[i]))
		c.step()
	}
}

func (c *concealer) gain() float32 {
	if c.covered < fullUntil {
		return 1
	}
	return max(0, 1-float32(c.covered-fullUntil)/(fadeUntil-fullUntil))
}

func (c *concealer) step() {
	c.covered++
	if c.phase++; c.phase == c.pitch {
		c.phase = 0
	}
}

// join lets the first voice after a concealed gap grow out of the concealment.
func (c *concealer) join(pcm []int16) {
	if c.covered == 0 {
		return
	}
	n := min(joinLength, len(pcm))
	for i := range n {
		w := float32(i+1) / float32(n+1)
		pcm[i] = clip(w*float32(pcm[i]) + (1-w)*c.gain()*float32(c.period[c.phase]))
		c.step()
	}
	c.covered = 0
}

// bestLag finds the lag at which the end of x is most like what was before it.
func bestLag(x []int16, from, to int) int {
	const window = 80
	tail := x[len(x)-window:]
	best, lag := float32(-1), to
	for l := from; l <= to && l+window <= len(x); l++ {
		if s := likeness(tail, x[len(x)-window-l:]); s > best {
			best, lag = s, l
		}
	}
	return lag
}

// likeness is the normalised correlation of a with as much of b, -1 to 1.
func likeness(a, b []int16) float32 {
	var ab, aa, bb float32
	for i, v := range a {
		x, y := float32(v), float32(b[i])
		ab += x * y
		aa += x * x
		bb += y * y
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return ab / float32(math.Sqrt(float64(aa)*float64(bb)))
}

// Noise makes comfort noise at the level that the sender announced, or at the
// level of the background heard before. The zero value is ready. It belongs to
// one goroutine.
type Noise struct {
	state uint32
	low   float32
	rms   float32
}

const (
	defaultNoise = 32768 * 0.00056 // -65 dBov
	leastNoise   = 32768 * 0.00018 // -75 dBov
	mostNoise    = 32768 * 0.0056  // -45 dBov: more would be a disturbance
)

// Announced takes a noise level of RFC 3389 §3.1 in -dBov.
func (n *Noise) Announced(level byte) {
	n.rms = limitNoise(32768 * float32(math.Pow(10, -float64(level&0x7F)/20)))
}

func limitNoise(rms float32) float32 { return max(leastNoise, min(mostNoise, rms)) }

// heard follows the background: down at once, up slowly, so that speech hardly
// counts.
func (n *Noise) heard(pcm []int16) {
	if len(pcm) < 40 {
		return
	}
	var sum float32
	for _, v := range pcm {
		sum += float32(v) * float32(v)
	}
	if n.rms == 0 {
		n.rms = defaultNoise
	}
	rms := limitNoise(float32(math.Sqrt(float64(sum / float32(len(pcm))))))
	if rms < n.rms {
		n.rms += (rms - n.rms) / 4
	} else {
		n.rms *= 1.004 // doubles in 1.7 s of frames
	}
	n.rms = limitNoise(n.rms)
}

// Fill writes the next samples.
func (n *Noise) Fill(dst []int16) {
	if n.rms == 0 {
		n.rms = defaultNoise
	}
	for i := range dst {
		n.state = n.state*1664525 + 1013904223
		white := float32(int32(n.state)) / (1 << 31) // uniform, rms 0.577
		n.low += 0.5 * (white - n.low)               // softer than white noise
		dst[i] = clip(n.low * n.rms * 3)             // rms of the filtered noise is 1/3
	}
}

func clip(v float32) int16 {
	return int16(max(-32768, min(32767, v)))
}
