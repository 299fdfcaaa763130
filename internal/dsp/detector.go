package dsp

import (
	"math"
	"slices"
	"time"
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

// toneSet is frequencies that sound together, as clusters that the window
// cannot divide.
type toneSet struct{ clusters []cluster }

type cluster struct {
	low, high   float64 // Hz, of the nominal tones
	tolerance   float64 // Hz that the centre of gravity may be outside
	first, last int     // bins, as indices of Detector.bins
	core        [2]int  // narrower, for the balance of neighbours
}

type detectorBin struct {
	k      int
	coeff  float32
	energy float64
}

type segment struct {
	class   int8
	windows int
}

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

var detectorWindowTable = buildDetectorWindow()

func buildDetectorWindow() (t [detectorWindow]float32) {
	for i := range t {
		t[i] = float32(0.5 - 0.5*math.Cos(2*math.Pi*(float64(i)+0.5)/detectorWindow))
	}
	return t
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

// classOf finds or makes the class of a step that sounds. Steps that a window of
// 50 ms cannot tell apart are of one class, and left to the cadence: 400 Hz and
// 400 Hz modulated, or 425 Hz and 400+425+450 Hz.
func (d *Detector) classOf(hz []float64, am float64) int8 {
	var clusters []cluster
	for _, f := range slices.Sorted(slices.Values(hz)) {
		if n := len(clusters); n > 0 && f-am-clusters[n-1].high < 38 {
			clusters[n-1].high = f + am
			continue
		}
		clusters = append(clusters, cluster{low: f - am, high: f + am})
	}
	for i := range d.sets {
		if slices.Equal(d.sets[i].clusters, clusters) {
			return int8(i)
		}
	}
	d.sets = append(d.sets, toneSet{clusters})
	return int8(len(d.sets) - 1)
}

// same reports that two sets are one for a window. A set of two tones has a
// balance to go by, so only the nearly equal are; a wide cluster hides what lies
// inside it, and two near tones look like one in their middle.
func same(a, b []cluster) bool {
	if len(a) == 1 && len(b) > 1 {
		low, high := b[0].low, b[len(b)-1].high
		return low > a[0].low-5 && high < a[0].high+5 ||
			high-low < 60 && math.Abs(low+high-a[0].low-a[0].high) < 30
	}
	margin := 30.0
	if len(a) > 1 {
		margin = 10
	}
	return slices.EqualFunc(a, b, func(c, o cluster) bool { return c.low < o.high+margin && o.low < c.high+margin })
}

// unify gives sets that are the same one class, and what follows from it.
func (d *Detector) unify() {
	for i := 0; i < len(d.sets); i++ {
		for j := 0; j < len(d.sets); j++ {
			if i == j || !same(d.sets[i].clusters, d.sets[j].clusters) {
				continue
			}
			have, gone := d.sets[i].clusters, d.sets[j].clusters
			if len(have) == 1 {
				have[0].low, have[0].high = min(have[0].low, gone[0].low), max(have[0].high, gone[len(gone)-1].high)
			} else {
				for k := range have {
					have[k].low, have[k].high = min(have[k].low, gone[k].low), max(have[k].high, gone[k].high)
				}
			}
			d.sets = slices.Delete(d.sets, j, j+1)
			keep := i
			if j < i {
				keep--
			}
			for _, p := range d.patterns {
				for _, st := range p.steps {
					for k, c := range st.classes {
						switch {
						case int(c) == j:
							st.classes[k] = int8(keep)
						case int(c) > j:
							st.classes[k] = c - 1
						}
					}
				}
			}
			i, j = -1, len(d.sets) // from the start: the set has grown
		}
	}
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

// plan chooses the bins that the sets need.
func (d *Detector) plan() {
	bin := func(hz float64) int { return int(math.Round(hz / detectorBinHz)) }
	var want []int
	for _, s := range d.sets {
		for j := range s.clusters {
			c := &s.clusters[j]
			c.tolerance = max(15, c.high*0.02) + 3
			if c.low >= 900 {
				c.tolerance = 50 // SIT: North America shifts its tones
			}
			c.first, c.last = bin(c.low-c.tolerance-30), bin(c.high+c.tolerance+30)
			c.core = [2]int{bin(c.low - 12), bin(c.high + 12)}
			for k := c.first; k <= c.last; k++ {
				want = append(want, k)
			}
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	for _, k := range want {
		d.bins = append(d.bins, detectorBin{k: k, coeff: float32(2 * math.Cos(2*math.Pi*float64(k)/detectorWindow))})
	}
	index := func(k int) int { i, _ := slices.BinarySearch(want, k); return i }
	for _, s := range d.sets {
		for j := range s.clusters {
			c := &s.clusters[j]
			c.first, c.last = index(c.first), index(c.last)
			c.core = [2]int{index(c.core[0]), index(c.core[1])}
		}
	}
}

// classify judges the last window.
func (d *Detector) classify() int8 {
	var x [detectorWindow]float32
	n := copy(x[:], d.ring[d.next:])
	copy(x[n:], d.ring[:d.next])
	var energy float64
	for i, w := range detectorWindowTable {
		x[i] *= w
		energy += float64(x[i]) * float64(x[i])
	}
	// Two near frequencies beat, and Australia's congestion has bursts 10 dB
	// weaker, so the limit is 12 dB down; that makes bursts about 20 ms longer
	// than they are, see detectorLonger.
	d.level *= 0.998
	if energy < detectorFloor || energy < d.level/16 {
		return classSilence
	}
	for i := range d.bins {
		b := &d.bins[i]
		var s1, s2 float32
		for _, v := range x {
			s1, s2 = v+b.coeff*s1-s2, s1
		}
		p, q := float64(s1), float64(s2)
		b.energy = (p*p + q*q - float64(b.coeff)*p*q) * 2 / detectorWindow
	}
	best, purest := classOther, detectorPurity
	fewest := maxTones + 1
	for i := range d.sets {
		// Of two sets that explain the window, the one with fewer frequencies:
		// a set whose second frequency is absent fails by its balance.
		share, ok := d.share(&d.sets[i], energy)
		if n := len(d.sets[i].clusters); ok && (share > purest+0.03 || share > detectorPurity && n > fewest || best == classOther && share > purest) {
			best, purest, fewest = int8(i), share, n
		}
	}
	if best >= 0 {
		d.level = max(d.level, energy)
	}
	return best
}

// share is the part of the energy that a set has, and whether the set is there.
func (d *Detector) share(s *toneSet, energy float64) (float64, bool) {
	var sum, cores, weakest, strongest float64
	covered := -1
	for i := range s.clusters {
		c := &s.clusters[i]
		var whole, core, moment float64
		for b := c.first; b <= c.last; b++ {
			e := d.bins[b].energy
			whole += e
			moment += e * float64(d.bins[b].k) * detectorBinHz
			if b > covered {
				sum += e
			}
		}
		for b := c.core[0]; b <= c.core[1]; b++ {
			core += d.bins[b].energy
		}
		cores += core
		covered = c.last
		if whole == 0 {
			return 0, false
		}
		// Where another cluster is near, its skirt pulls the centre over.
		alone := (i == 0 || s.clusters[i-1].last < c.first) && (i+1 == len(s.clusters) || s.clusters[i+1].first > c.last)
		if centre := moment / whole; alone && (centre < c.low-c.tolerance || centre > c.high+c.tolerance) {
			return 0, false
		}
		if i == 0 {
			weakest, strongest = core, core
		}
		weakest, strongest = min(weakest, core), max(strongest, core)
	}
	share := sum / energy
	// The energy must be at the tones, not between them.
	return share, share > detectorPurity && cores > 0.5*energy && weakest > detectorApart*strongest
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
