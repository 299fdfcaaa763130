package analogtest

import "time"

// Span is a stretch of time in which something was audible. To is the last
// instant at which it was; Open says that it still is.
type Span struct {
	From, To time.Time
	Open     bool
}

// Lasts is the length of the span.
func (s Span) Lasts() time.Duration { return s.To.Sub(s.From) }

// Gap is a silence between two spans of one tone.
type Gap struct{ From, To time.Time }

// Lasts is the length of the gap.
func (g Gap) Lasts() time.Duration { return g.To.Sub(g.From) }

// AudioLog says when one tone was audible at one place, to 10 ms. It is a copy.
type AudioLog struct {
	Hz    float64
	Spans []Span
	// Dropped counts the oldest spans that were forgotten.
	Dropped int
}

// First returns when the tone was audible first; ok is false if it never was.
func (l AudioLog) First() (t time.Time, ok bool) {
	if len(l.Spans) == 0 {
		return t, false
	}
	return l.Spans[0].From, true
}

// Last returns when the tone was audible last.
func (l AudioLog) Last() (t time.Time, ok bool) {
	if len(l.Spans) == 0 {
		return t, false
	}
	return l.Spans[len(l.Spans)-1].To, true
}

// FirstAfter returns the first instant at or after t at which the tone was audible.
func (l AudioLog) FirstAfter(t time.Time) (time.Time, bool) {
	for _, s := range l.Spans {
		if s.To.Before(t) {
			continue
		}
		if s.From.Before(t) {
			return t, true
		}
		return s.From, true
	}
	return time.Time{}, false
}

// Gaps returns the silences of at least shortest between the first and the last
// instant at which the tone was audible.
func (l AudioLog) Gaps(shortest time.Duration) []Gap {
	var gaps []Gap
	for i := 1; i < len(l.Spans); i++ {
		if g := (Gap{l.Spans[i-1].To, l.Spans[i].From}); g.Lasts() >= shortest {
			gaps = append(gaps, g)
		}
	}
	return gaps
}

// GapAfter returns the first gap of at least shortest that was not over at t: the
// silence that something done at t caused.
func (l AudioLog) GapAfter(t time.Time, shortest time.Duration) (Gap, bool) {
	for _, g := range l.Gaps(shortest) {
		if g.To.After(t) {
			return g, true
		}
	}
	return Gap{}, false
}

// Audible is the sum of all spans.
func (l AudioLog) Audible() time.Duration {
	var sum time.Duration
	for _, s := range l.Spans {
		sum += s.Lasts()
	}
	return sum
}

const maxSpans = 4096

// watch follows one frequency in windows of 20 ms.
type watch struct {
	log  AudioLog
	last []int16 // up to 10 ms before the present block
}

// A tone counts as audible from -45 dBm0 when it carries a quarter of the power:
// it must stand out, so that clicks and speech do not count.
const (
	audibleLevel = -45.0
	audibleShare = 0.25
)

func audible(window []int16, hz float64) bool {
	p := goertzel(window, hz)
	return dBm0(p) >= audibleLevel && p >= audibleShare*meanSquare(window)
}

// feed judges the block that ended at now.
func (w *watch) feed(now time.Time, block []int16) {
	window := append(w.last, block...)
	on := audible(window, w.log.Hz)
	w.last = append(w.last[:0], block...)
	n := len(w.log.Spans)
	open := n > 0 && w.log.Spans[n-1].Open
	switch {
	case on && open:
		w.log.Spans[n-1].To = now
	case on:
		if n == maxSpans {
			w.log.Spans = append(w.log.Spans[:0], w.log.Spans[1:]...)
			w.log.Dropped++
		}
		from := now.Add(-time.Duration(len(block)) * time.Second / sampleRate)
		w.log.Spans = append(w.log.Spans, Span{From: from, To: now, Open: true})
	default:
		w.close()
	}
}

func (w *watch) close() {
	if n := len(w.log.Spans); n > 0 {
		w.log.Spans[n-1].Open = false
	}
}

// deaf says that the place hears nothing any more.
func (w *watch) deaf() {
	w.close()
	w.last = w.last[:0]
}
