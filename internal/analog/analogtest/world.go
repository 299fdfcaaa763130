package analogtest

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Event is something that happened at a card, for people who watch.
type Event struct {
	Time    time.Time
	Channel int // -1: the card
	What    string
}

// world is what a card and all that hangs on it share: one lock, one clock, and
// the means to wait until something is so.
type world struct {
	mu      sync.Mutex
	changed chan struct{}
	ms      uint64    // the card's clock, milliseconds since its start
	now     time.Time // instant of the present tick
	events  []Event   // not yet observed
	observe func(Event)
}

func newWorld(observe func(Event)) *world {
	return &world{changed: make(chan struct{}), observe: observe}
}

// await returns when ok, which is called with the lock held, is true. It looks
// again after each tick and each frame.
func (w *world) await(ctx context.Context, what string, ok func() bool) error {
	for {
		w.mu.Lock()
		if ok() {
			w.mu.Unlock()
			return nil
		}
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		}
	}
}

// wake lets everyone who waits look again. The lock is held.
func (w *world) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// tell notes an event. The lock is held.
func (w *world) tell(channel int, format string, args ...any) {
	if w.observe == nil || len(w.events) > 1000 {
		return
	}
	at := w.now
	if at.IsZero() {
		at = time.Now()
	}
	w.events = append(w.events, Event{at, channel, fmt.Sprintf(format, args...)})
}

// take returns what is to be observed; observe is then called without the lock.
func (w *world) take() []Event {
	e := w.events
	w.events = nil
	return e
}

func (w *world) deliver(events []Event) {
	for _, e := range events {
		w.observe(e)
	}
}
