package dsp

import (
	"math"
	"slices"
	"time"
)

// pattern is one cadence as segments.
type pattern struct {
	kind       ToneKind
	steps      []patternStep
	continuous bool
	sequence   bool // once, pauses between do not matter: SIT
	need       int  // segments that must match
	longest    int  // windows of the longest burst, per pattern
}

type patternStep struct {
	classes  []int8 // alternatives
	min, max int    // windows
}

func (d *Detector) classes(s Step) []int8 {
	if len(s.Hz) == 0 {
		return []int8{classSilence}
	}
	list := []int8{d.classOf(s.Hz, s.AM)}
	for _, alt := range s.Alternatives {
		list = append(list, d.classOf(alt, s.AM))
	}
	return list
}

func windows(t time.Duration) int {
	return int((t + 5*time.Millisecond) / (10 * time.Millisecond))
}

func (d *Detector) add(kind ToneKind, c Cadence) {
	steps := merged(c.Loop)
	if len(steps) == 0 {
		return
	}
	p := pattern{kind: kind}
	if len(steps) == 1 {
		if len(steps[0].Hz) == 0 {
			return // a tone that only has an intro is no cadence
		}
		p.continuous = true
	}
	var cycle time.Duration
	for _, s := range steps {
		slack := max(s.Duration*15/100, 40*time.Millisecond)
		longer := detectorLonger
		if len(s.Hz) == 0 {
			longer = -detectorLonger
		}
		p.steps = append(p.steps, patternStep{
			classes: d.classes(s),
			min:     max(detectorSettle, windows(s.Duration-slack)+longer),
			max:     windows(s.Duration+slack) + longer,
		})
		if len(s.Hz) > 0 {
			p.longest = max(p.longest, windows(s.Duration+slack))
		}
		cycle += s.Duration
	}
	p.need = max(3, 2*len(steps)-1)
	if cycle >= 3*time.Second {
		p.need = max(3, len(steps)+1)
	}
	p.need = min(p.need, maxSegments-2)
	d.patterns = append(d.patterns, p)
}

// addSIT looks for three rising tones, the country's or those of E.180, 330 ms
// each; North America codes the reason in 274 or 380 ms.
func (d *Detector) addSIT(c Cadence) {
	own := [][]float64{}
	for _, s := range append(slices.Clone(c.Intro), c.Loop...) {
		if len(s.Hz) == 1 && len(own) < 3 && (len(own) == 0 || s.Hz[0] > own[len(own)-1][0]) {
			own = append(own, s.Hz)
		}
	}
	for i, hz := range [][]float64{{950}, {1400}, {1800}} {
		if i == 0 {
			d.patterns = append(d.patterns, pattern{kind: SpecialTone, sequence: true, need: 3})
		}
		spread := 0.0
		if len(own) == 3 {
			hz, spread = []float64{(hz[0] + own[i][0]) / 2}, math.Abs(hz[0]-own[i][0])/2
		}
		step := patternStep{classes: []int8{d.classOf(hz, spread)}, min: 20, max: 45}
		p := &d.patterns[len(d.patterns)-1]
		p.steps = append(p.steps, step)
	}
}

// merged joins neighbours that a detector cannot tell apart.
func merged(loop []Step) []Step {
	var out []Step
	for _, s := range loop {
		if n := len(out); n > 0 && slices.Equal(out[n-1].Hz, s.Hz) {
			out[n-1].Duration += s.Duration
			continue
		}
		out = append(out, s)
	}
	if n := len(out); n > 2 && slices.Equal(out[0].Hz, out[n-1].Hz) {
		out[0].Duration += out[n-1].Duration
		out = out[:n-1]
	}
	// A cadence that is another one twice is that one.
	if h := len(out) / 2; h > 0 && len(out)%2 == 0 && slices.EqualFunc(out[:h], out[h:], func(a, b Step) bool {
		return slices.Equal(a.Hz, b.Hz) && a.Duration == b.Duration
	}) {
		out = out[:h]
	}
	return out
}

// limit is how long a segment of class may last within p.
func (p *pattern) limit(class int8) int {
	n := 0
	for _, s := range p.steps {
		if slices.Contains(s.classes, class) {
			n = max(n, s.max)
		}
	}
	if class == classOther {
		n = max(n, 10) // a click on the line
	}
	return n
}

// fits reports that a whole segment may be part of p.
func (p *pattern) fits(s segment) bool {
	for _, st := range p.steps {
		if slices.Contains(st.classes, s.class) && s.windows >= st.min && s.windows <= st.max {
			return true
		}
	}
	return false
}
