package media

import (
	"sync/atomic"
	"time"

	"localloop/internal/media/wire"
)

// worker is the voice of all calls of one loop.
type worker struct {
	loop   wire.Loop
	voices []*voice
	lines  []*leg
	due    time.Time
	calls  atomic.Int64
	pulse  pulse
	frame  [frameLen]int16
}

// Rung implements wire.Work: line cards have delivered frames.
func (w *worker) Rung(now time.Time) {
	for _, l := range w.lines {
		for l.line.frames.get(w.frame[:]) {
			l.v.frame(now, l, w.frame[:])
		}
	}
}

// Due implements wire.Work.
func (w *worker) Due() time.Time { return w.due }

// Tick implements wire.Work.
func (w *worker) Tick(now time.Time) time.Time {
	w.due = time.Time{}
	for _, v := range w.voices {
		due := v.due
		if due.IsZero() || !now.Before(due) {
			due = v.tick(now)
		}
		w.sooner(due)
	}
	return w.due
}

func (w *worker) sooner(t time.Time) {
	if w.due.IsZero() || t.Before(w.due) {
		w.due = t
	}
}

func (w *worker) add(v *voice) { w.voices = append(w.voices, v) }

func (w *worker) remove(v *voice) {
	for i, x := range w.voices {
		if x == v {
			w.voices = append(w.voices[:i], w.voices[i+1:]...)
			return
		}
	}
}

func (w *worker) addLine(l *leg) { w.lines = append(w.lines, l) }

func (w *worker) removeLine(l *leg) {
	for i, x := range w.lines {
		if x == l {
			w.lines = append(w.lines[:i], w.lines[i+1:]...)
			return
		}
	}
}
