package analogtest

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Progress is what a caller takes a tone for.
type Progress uint8

// What an ear may recognise. Steady is any other lasting tone, Sound is what has
// no pitch: speech or noise.
const (
	Silence Progress = iota
	Sound
	Steady
	DialTone
	RingbackTone
	BusyTone
	CongestionTone
)

func (p Progress) String() string {
	return [...]string{"silence", "sound", "steady tone", "dial tone", "ringback", "busy", "congestion"}[p]
}

// Hearing is what a place hears now.
type Hearing struct {
	Progress Progress
	Hz       []float64 // components of the tone that is on now or was last
	DBm0     float64   // level of the last 10 ms
}

func (h Hearing) String() string {
	if h.Progress == Silence || h.Progress == Sound {
		return h.Progress.String()
	}
	var hz []string
	for _, f := range h.Hz {
		hz = append(hz, fmt.Sprintf("%.0f", f))
	}
	return h.Progress.String() + " " + strings.Join(hz, "+") + " Hz"
}

// maxRecording bounds what an ear keeps: two minutes.
const maxRecording = 120 * sampleRate

// ear listens at one place: it records, follows the frequencies that are
// watched, and recognises progress tones by frequency and cadence. It works in
// its own time, which is that of the samples.
type ear struct {
	plan    Plan
	rec     []int16 // ring
	recAt   int
	total   uint64 // samples heard
	watches []*watch

	window []int16 // last spectrumLen samples
	level  float64
	// The burst or silence under way, in samples, and the bursts before it.
	on      bool
	run     int
	sinceFT int
	hz      []float64
	last    []float64 // of the burst before a silence
	bursts  []heardBurst
	now     Progress
}

type heardBurst struct {
	hz []float64 // nil: silence
	ms int
}

func newEar(p Plan) *ear { return &ear{plan: p, level: silentLevel} }

// deaf forgets the present; the recording and the logs stay.
func (e *ear) deaf() {
	for _, w := range e.watches {
		w.deaf()
	}
	*e = ear{plan: e.plan, rec: e.rec, recAt: e.recAt, total: e.total, watches: e.watches,
		window: e.window[:0], level: silentLevel}
}

func (e *ear) watch(hz float64) *watch {
	for _, w := range e.watches {
		if w.log.Hz == hz {
			return w
		}
	}
	w := &watch{log: AudioLog{Hz: hz}}
	e.watches = append(e.watches, w)
	return w
}

func (e *ear) log(hz float64) AudioLog {
	l := e.watch(hz).log
	l.Spans = append([]Span(nil), l.Spans...)
	return l
}

func (e *ear) recording() []int16 {
	return append(append([]int16(nil), e.rec[e.recAt:]...), e.rec[:e.recAt]...)
}

// audible tells whether hz stands out in the last 40 ms.
func (e *ear) audible(hz float64) bool {
	n := len(e.window)
	return n >= 320 && audible(e.window[n-320:], hz)
}

func (e *ear) hearing() Hearing {
	h := Hearing{Progress: e.now, Hz: e.hz, DBm0: e.level}
	if len(h.Hz) == 0 && e.now > Steady {
		h.Hz = e.last
	}
	h.Hz = append([]float64(nil), h.Hz...)
	return h
}

// hear takes the audio of one tick, which ended at now.
func (e *ear) hear(now time.Time, pcm []int16) {
	for _, s := range pcm {
		if len(e.rec) < maxRecording {
			e.rec = append(e.rec, s)
		} else {
			e.rec[e.recAt] = s
			e.recAt = (e.recAt + 1) % maxRecording
		}
	}
	e.total += uint64(len(pcm))
	if over := len(e.window) + len(pcm) - spectrumLen; over > 0 {
		e.window = append(e.window[:0], e.window[over:]...)
	}
	e.window = append(e.window, pcm...)
	for i := 0; i < len(pcm); i += 80 {
		block := pcm[i:min(i+80, len(pcm))]
		at := now.Add(-time.Duration(len(pcm)-i-len(block)) * time.Second / sampleRate)
		for _, w := range e.watches {
			w.feed(at, block)
		}
	}
	e.segment(pcm)
}

// segment cuts what is heard into bursts. A burst ends with silence or with
// other frequencies.
func (e *ear) segment(pcm []int16) {
	e.level = Level(pcm)
	on := e.level > -46
	if on != e.on {
		e.end()
		e.on, e.run, e.sinceFT = on, 0, 0
	}
	e.run += len(pcm)
	if on {
		if e.sinceFT += len(pcm); e.run >= 480 && e.sinceFT >= 320 {
			e.sinceFT = 0
			hz := frequencies(e.window[max(0, len(e.window)-e.run):])
			if e.hz != nil && !sameTones(e.hz, hz) && e.run > spectrumLen {
				// Another sound without silence between.
				e.end()
				e.run = 480
			}
			if e.hz == nil || e.run <= 2*spectrumLen {
				e.hz = hz
			}
		}
	}
	e.judge()
}

// end closes the burst or silence under way.
func (e *ear) end() {
	b := heardBurst{ms: e.run * 1000 / sampleRate}
	if e.on {
		if b.hz = e.hz; b.hz == nil && e.run >= 320 {
			b.hz = frequencies(e.window[max(0, len(e.window)-e.run):])
		}
		if b.hz == nil {
			b.hz = []float64{}
		}
		e.last = b.hz
	}
	e.hz = nil
	if e.run > 0 {
		e.bursts = append(e.bursts, b)
	}
	if len(e.bursts) > 8 {
		e.bursts = append(e.bursts[:0], e.bursts[1:]...)
	}
}

func frequencies(pcm []int16) []float64 {
	var hz []float64
	for _, p := range peaks(pcm) {
		hz = append(hz, p.hz)
	}
	return hz
}

// sameTones allows ±15 Hz or ±2 %, whichever is more.
func sameTones(a, b []float64) bool {
	if len(a) != len(b) || len(a) == 0 {
		return false
	}
	for i := range a {
		if math.Abs(a[i]-b[i]) > max(15, 0.02*b[i]) {
			return false
		}
	}
	return true
}

// judge decides what is heard now.
func (e *ear) judge() {
	ms := e.run * 1000 / sampleRate
	if e.on && ms >= 300 && len(e.hz) > 0 && !e.cadenced(ms) {
		e.now = Steady
		if d := e.plan.Dial; len(d) == 1 && sameTones(e.hz, d[0].Hz) {
			e.now = DialTone
		}
		return
	}
	for _, c := range []struct {
		p Progress
		c Cadence
	}{{RingbackTone, e.plan.Ringback}, {BusyTone, e.plan.Busy}, {CongestionTone, e.plan.Congestion}} {
		if e.matches(c.c, ms) {
			e.now = c.p
			return
		}
	}
	switch {
	case e.on && (e.now == Silence || ms >= 700 || e.now == DialTone && ms < 60):
		e.now = Sound
	case !e.on && (ms >= 700 && e.now <= DialTone || ms >= 7000):
		// Shorter pauses are inside a cadence or between words.
		e.now = Silence
	case !e.on && e.now == DialTone && ms >= 40:
		e.now = Silence
	case !e.on && e.now > DialTone && ms >= 1500 && !e.matchesAny(ms):
		e.now = Silence
	}
}

// cadenced tells whether the burst under way may still be part of a cadence
// whose frequencies it has.
func (e *ear) cadenced(ms int) bool {
	for _, c := range []Cadence{e.plan.Ringback, e.plan.Busy, e.plan.Congestion} {
		for _, b := range c {
			// A dial tone of the same frequency is told apart by its length only.
			if len(b.Hz) > 0 && sameTones(e.hz, b.Hz) && e.now > DialTone && ms <= tolerant(int(b.For.Milliseconds())) {
				return true
			}
		}
	}
	return false
}

func (e *ear) matchesAny(ms int) bool {
	return e.matches(e.plan.Ringback, ms) || e.matches(e.plan.Busy, ms) || e.matches(e.plan.Congestion, ms)
}

// tolerant is the longest that a burst of ms may be: 15 % or 40 ms more.
func tolerant(ms int) int { return ms + max(40, ms*15/100) }

func within(got, want int) bool { return got <= tolerant(want) && want <= tolerant(got) }

// matches tells whether what was heard last, with the element under way so far,
// is a piece of c that is long enough to tell: one whole burst of half a second
// or more, or two shorter ones with the pause between them.
func (e *ear) matches(c Cadence, ms int) bool {
	if len(c) < 2 {
		return false
	}
	for start := range c {
		at := start
		// The element under way is c[at]; the ones before it go backwards.
		if !e.element(c[at], e.on, e.hz, ms, false) {
			continue
		}
		whole, longest := 0, 0
		for i := len(e.bursts) - 1; i >= 0 && whole < 2; i-- {
			at = (at + len(c) - 1) % len(c)
			b := e.bursts[i]
			if !e.element(c[at], b.hz != nil, b.hz, b.ms, true) {
				break
			}
			if b.hz != nil {
				whole++
				longest = max(longest, b.ms)
			}
		}
		if whole >= 2 || longest >= 600 && e.unique(longest) {
			return true
		}
	}
	return false
}

// unique: a single burst tells a tone only if no other tone of the plan has a
// burst like it.
func (e *ear) unique(ms int) bool {
	n := 0
	for _, o := range []Cadence{e.plan.Ringback, e.plan.Busy, e.plan.Congestion} {
		for _, b := range o {
			if len(b.Hz) > 0 && sameTones(e.last, b.Hz) && within(ms, int(b.For.Milliseconds())) {
				n++
				break
			}
		}
	}
	return n == 1
}

// element compares one stretch with one burst; a stretch that is not over only
// must not be too long. Its frequencies may not be known yet.
func (e *ear) element(b Burst, on bool, hz []float64, ms int, over bool) bool {
	if on != (len(b.Hz) > 0) {
		return false
	}
	want := int(b.For.Milliseconds())
	if over && !within(ms, want) || !over && ms > tolerant(want) {
		return false
	}
	return !on || !over && hz == nil || sameTones(hz, b.Hz)
}
