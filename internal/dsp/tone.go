package dsp

import "math"

// amDepth is the modulation depth where sources give only the rate.
const amDepth = 0.9

// Tone plays a cadence. Phase runs on from frame to frame and from step to
// step, and every burst begins and ends with a short ramp, so that keying does
// not click. A Tone belongs to one goroutine.
type Tone struct {
	steps  []toneStep
	loop   int  // index of the first step of the loop
	at     int  // step
	played int  // samples of the step
	rising bool // the step began with a change
	osc    [maxTones]phase
	am     phase
	ending int // samples left of the ramp after Stop; -1: not ending
}

type toneStep struct {
	n         int // samples; 0: until stopped
	inc       [maxTones]phase
	tones     int
	amInc     phase
	amplitude float32 // of each frequency
	fall      bool    // ramp at the end
}

// sameSound reports that no ramp is due between two steps.
func (s *toneStep) sameSound(o *toneStep) bool {
	return s.inc == o.inc && s.amInc == o.amInc && s.amplitude == o.amplitude
}

// NewTone makes a generator of c. levelDBm0 is the power of the tone while it
// sounds, all its frequencies together, as Level measures it. The cadence is
// read, not kept.
func NewTone(c Cadence, levelDBm0 float64) *Tone {
	t := &Tone{loop: len(c.Intro), rising: true, ending: -1}
	all := make([]Step, 0, len(c.Intro)+len(c.Loop)+1)
	all = append(append(all, c.Intro...), c.Loop...)
	if len(c.Loop) == 0 {
		all = append(all, Step{}) // silence until stopped
	}
	t.steps = make([]toneStep, len(all))
	for i, s := range all {
		ts := &t.steps[i]
		if ts.n = samples(s.Duration); ts.n == 0 && s.Duration > 0 {
			ts.n = 1
		}
		for _, hz := range s.Hz[:min(len(s.Hz), maxTones)] {
			ts.inc[ts.tones] = perSample(hz)
			ts.tones++
		}
		if ts.tones == 0 {
			continue
		}
		power := float64(ts.tones)
		if s.AM > 0 {
			ts.amInc = perSample(s.AM)
			power *= 1 + amDepth*amDepth/2
		}
		ts.amplitude = float32(peak(levelDBm0+s.Level) / math.Sqrt(power))
	}
	for i := range t.steps {
		t.steps[i].fall = t.steps[i].n > 0 && !t.steps[i].sameSound(&t.steps[t.after(i)])
	}
	return t
}

// after is the step that follows step i.
func (t *Tone) after(i int) int {
	if i+1 < len(t.steps) {
		return i + 1
	}
	return t.loop
}

// Fill writes the next len(dst) samples. It does not allocate.
func (t *Tone) Fill(dst []int16) {
	for i := range dst {
		dst[i] = t.next()
	}
}

// Stop ends the tone with a ramp within the next 3 ms; afterwards Fill writes
// silence and Done reports true.
func (t *Tone) Stop() {
	if t.ending < 0 {
		t.ending = edgeLen
	}
}

// Done reports that Stop was called and the ramp has been played.
func (t *Tone) Done() bool { return t.ending == 0 }

func (t *Tone) next() int16 {
	if t.ending == 0 {
		return 0
	}
	s := &t.steps[t.at]
	if s.n > 0 && t.played >= s.n {
		t.at, t.played = t.after(t.at), 0
		t.rising = !s.sameSound(&t.steps[t.at])
		s = &t.steps[t.at]
	}
	var v float32
	if s.tones > 0 {
		for k := range s.tones {
			v += t.osc[k].sin()
			t.osc[k] += s.inc[k]
		}
		v *= s.amplitude
		if s.amInc != 0 {
			v *= 1 + amDepth*t.am.sin()
			t.am += s.amInc
		}
		if t.rising && t.played < edgeLen {
			v *= edge[t.played]
		}
		if left := s.n - 1 - t.played; s.fall && left < edgeLen {
			v *= edge[left]
		}
	}
	if s.n > 0 || t.played < edgeLen {
		t.played++
	}
	if t.ending > 0 {
		t.ending--
		v *= edge[t.ending]
	}
	return clip16(float64(v))
}
