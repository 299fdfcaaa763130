package dsp

import (
	"slices"
)

// ToneKind names a call progress tone, ITU-T E.180.
type ToneKind uint8

// Tones that a Detector knows.
const (
	DialTone ToneKind = iota
	RingbackTone
	BusyTone
	CongestionTone
	SpecialTone // special information tone
	toneKinds
)

// String is the tone's name for logs.
func (k ToneKind) String() string {
	names := [...]string{"dial tone", "ringback", "busy", "congestion", "special information tone"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown tone"
}

// ToneEvent is a tone recognised, or its end.
type ToneEvent struct {
	Kind   ToneKind
	On     bool
	Sample uint64 // where it was noticed, counted from the first sample fed
}

// Detector recognises the progress tones that an exchange of one country sends
// to a line. It belongs to one goroutine.
//
// Every 10 ms a window of 50 ms is classed: silence, one of the frequency sets
// of the country, or something else. Equal classes make segments, and the last
// segments are compared with the cadences, beginning anywhere in them:
// at least two bursts and the pause between, two cycles where these are fast
// (±15 % or ±40 ms each). A tone that only lasts is dial tone after 300 ms, or
// after the longest burst of the same frequencies that it could be.
//
// Where two tones of a country begin alike, the shorter cadence waits until the
// longer is ruled out; where they are the same, busy goes before congestion.
type Detector struct {
	sets     []toneSet
	bins     []detectorBin
	patterns []pattern
	only     [toneKinds]bool

	ring  [detectorWindow]float32
	next  int
	count uint64
	hop   int
	level float64 // energy of windows that held a tone, decaying

	segments [maxSegments]segment // newest last
	length   int                  // of segments, the newest is still growing
	rival    int8                 // class that may replace the newest
	rivals   int                  // windows since the newest was last seen
	settled  int                  // windows of rival in a row

	on      bool
	current ToneKind
}

const (
	detectorWindow = 400 // 50 ms: bins of 20 Hz
	detectorHop    = 80
	detectorBinHz  = SampleRate / detectorWindow
	maxSegments    = 20
	// detectorFloor is the energy of a window below which it is silence,
	// -43 dBm0: exchanges send -10 to -25 dBm0, a line may lose 10 dB.
	detectorFloor = zeroDBm0 * zeroDBm0 / 2 * 3 * detectorWindow / 8 * 5e-5
	// detectorPurity is the share of energy a set must have: 10 dB above the
	// rest of the band.
	detectorPurity = 0.9
	// detectorApart is how much weaker one frequency of a set may be: 6 dB, and
	// 1 for the window.
	detectorApart = 0.2
	// detectorLonger is how many windows more a burst has than it is long.
	detectorLonger = 1
	// detectorSettle is how many equal windows end a segment.
	detectorSettle = 3

	classSilence int8 = -1
	classOther   int8 = -2
)

type segment struct {
	class   int8
	windows int
}

// NewDetector makes a detector of the tones of p, all of them.
func NewDetector(p *Plan) *Detector {
	d := &Detector{hop: detectorHop}
	d.Only()
	d.add(DialTone, p.Dial)
	d.add(BusyTone, p.Busy)
	d.add(CongestionTone, p.Congestion)
	d.add(RingbackTone, p.Ringback)
	d.addSIT(p.SIT)
	d.unify()
	d.plan()
	return d
}

// Only restricts recognition to some tones; none means all. A line that waits
// for dial tone asks for that alone and then has it after 300 ms, since nothing
// else could begin like it.
func (d *Detector) Only(kinds ...ToneKind) {
	for k := range d.only {
		d.only[k] = len(kinds) == 0 || slices.Contains(kinds, ToneKind(k))
	}
}

// Reset forgets what was heard.
func (d *Detector) Reset() {
	d.length, d.rivals, d.settled, d.on, d.level, d.count, d.hop = 0, 0, 0, false, 0, 0, detectorHop
	d.ring = [detectorWindow]float32{}
}

// Current is the tone that is on the line.
func (d *Detector) Current() (ToneKind, bool) { return d.current, d.on }

// Feed takes any number of samples and calls report for each tone that begins
// or ends. It does not allocate.
func (d *Detector) Feed(pcm []int16, report func(ToneEvent)) {
	for _, s := range pcm {
		d.ring[d.next] = float32(s)
		if d.next++; d.next == detectorWindow {
			d.next = 0
		}
		d.count++
		if d.hop--; d.hop == 0 {
			d.hop = detectorHop
			d.step(d.classify(), report)
		}
	}
}

// step adds a window to the segments and looks for tones.
func (d *Detector) step(class int8, report func(ToneEvent)) {
	if d.length == 0 {
		d.segments[0], d.length = segment{class, 0}, 1
	}
	newest := &d.segments[d.length-1]
	if class == newest.class {
		// Windows that did not settle belong to what went on around them.
		newest.windows += 1 + d.rivals
		d.rivals, d.settled = 0, 0
		d.growing(report)
		return
	}
	if d.settled > 0 && class != d.rival {
		d.settled = 0
	}
	d.rival = class
	d.rivals++
	d.settled++
	if d.settled < detectorSettle {
		// An edge gives a few windows of neither kind; what lasts decides. What
		// never settles is something else.
		if d.rivals < 2*detectorSettle {
			return
		}
		d.rival = classOther
	}
	d.completed(report)
	if d.length == maxSegments {
		copy(d.segments[:], d.segments[1:])
		d.length--
	}
	d.segments[d.length] = segment{d.rival, d.rivals}
	d.length++
	d.rivals, d.settled = 0, 0
}

// growing looks at the segment under way: continuous tones, and the end of a
// tone whose time is over.
func (d *Detector) growing(report func(ToneEvent)) {
	s := d.segments[d.length-1]
	if d.on {
		p := d.pattern(d.current)
		if p != nil && !p.continuous && s.windows > p.limit(s.class) {
			d.end(report)
		}
		return
	}
	for i := range d.patterns {
		p := &d.patterns[i]
		if p.continuous && d.only[p.kind] && slices.Contains(p.steps[0].classes, s.class) && s.windows >= d.patience(p, s.class) {
			d.begin(p.kind, report)
			return
		}
	}
}

// patience is how long a continuous tone must last before it is believed.
func (d *Detector) patience(p *pattern, class int8) int {
	n := 30
	for i := range d.patterns {
		o := &d.patterns[i]
		if o.continuous || o.sequence || !d.only[o.kind] {
			continue
		}
		for _, s := range o.steps {
			if slices.Contains(s.classes, class) {
				n = max(n, s.max+1)
			}
		}
	}
	return n
}

// completed looks at the segments when the newest has ended.
func (d *Detector) completed(report func(ToneEvent)) {
	s := d.segments[d.length-1]
	if d.on {
		p := d.pattern(d.current)
		if p == nil || p.continuous || !p.fits(s) {
			d.end(report)
		} else {
			return
		}
	}
	if s.class < 0 {
		return
	}
	for i := range d.patterns {
		p := &d.patterns[i]
		if p.continuous || !d.only[p.kind] {
			continue
		}
		if p.sequence {
			if d.sequence(p) {
				d.begin(p.kind, report)
				d.end(report) // it is over when it is known
				return
			}
			continue
		}
		if d.matches(p, p.need) && !d.ambiguous(p) {
			d.begin(p.kind, report)
			return
		}
	}
}

// ambiguous reports that what was heard may be the beginning of a longer
// cadence.
func (d *Detector) ambiguous(p *pattern) bool {
	for i := range d.patterns {
		o := &d.patterns[i]
		if o == p || o.continuous || o.sequence || !d.only[o.kind] || len(o.steps) <= len(p.steps) {
			continue
		}
		// All of the run of p that is known must speak against o.
		n := p.need
		for n < len(o.steps)+1 && n+2 <= d.length && d.matches(p, n+2) {
			n += 2
		}
		if d.matches(o, n) {
			return true
		}
	}
	return false
}

// matches reports that the last n segments are p, begun anywhere in it.
func (d *Detector) matches(p *pattern, n int) bool {
	if n > d.length {
		return false
	}
	last := d.segments[d.length-n : d.length]
	for start := range p.steps {
		ok := true
		for i, s := range last {
			st := &p.steps[(start+i)%len(p.steps)]
			if !slices.Contains(st.classes, s.class) || s.windows < st.min || s.windows > st.max {
				ok = false
				break
			}
		}
		if ok {
			return true
		}
	}
	return false
}

// sequence reports that the last tones, short pauses apart, are those of p.
func (d *Detector) sequence(p *pattern) bool {
	i := d.length - 1
	for k := len(p.steps) - 1; k >= 0; k-- {
		if i >= 0 && k < len(p.steps)-1 && d.segments[i].class < 0 && d.segments[i].windows <= 10 {
			i--
		}
		if i < 0 || !slices.Contains(p.steps[k].classes, d.segments[i].class) || d.segments[i].windows < p.steps[k].min || d.segments[i].windows > p.steps[k].max {
			return false
		}
		i--
	}
	return true
}

func (d *Detector) pattern(kind ToneKind) *pattern {
	for i := range d.patterns {
		if d.patterns[i].kind == kind {
			return &d.patterns[i]
		}
	}
	return nil
}

func (d *Detector) begin(k ToneKind, report func(ToneEvent)) {
	d.current, d.on = k, true
	report(ToneEvent{Kind: k, On: true, Sample: d.count})
}

func (d *Detector) end(report func(ToneEvent)) {
	d.on = false
	report(ToneEvent{Kind: d.current, Sample: d.count})
	// What was heard of this tone is no evidence for the next.
	d.segments[0] = d.segments[d.length-1]
	d.length = 1
}
