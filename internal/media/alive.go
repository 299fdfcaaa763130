package media

import (
	"fmt"
	"sync/atomic"
	"time"
)

// stuckAfter is how long a media thread may leave a question unanswered before
// it counts as stuck. Voice would have been broken long before.
const stuckAfter = 5 * time.Second

// pulse is the question whether a media thread still runs.
type pulse struct{ asked atomic.Int64 } // Unix nanoseconds; 0: answered

// Alive asks each media thread for a sign of life and reports one that did not
// answer an earlier question in time. It does not wait: the answer is seen by
// the next call. For supervisors that ask every few seconds.
func (e *Engine) Alive() error {
	now := e.o.Clock()
	for i, w := range e.workers {
		if asked := w.pulse.asked.Load(); asked != 0 {
			if waited := now.Sub(time.Unix(0, asked)); waited > stuckAfter {
				return fmt.Errorf("media thread %d has not answered for %s", i, waited.Round(time.Second))
			}
			continue
		}
		w.pulse.asked.Store(now.UnixNano())
		if err := w.loop.Post(func(time.Time) { w.pulse.asked.Store(0) }); err != nil {
			return fmt.Errorf("media thread %d: %w", i, err)
		}
	}
	return nil
}
