package call

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"sync"
	"time"
)

// Options are the parts a Switch is joined to.
type Options struct {
	Router  Router
	Dialer  Dialer
	Bridges Bridges
	Limits  Limits
	// MaxCalls is how many calls there may be at once; 0 means no limit.
	// Emergency calls are exempt.
	MaxCalls int
	// Ended receives the summary of each call, from the call's goroutine; it
	// must not block. May be nil.
	Ended func(Summary)
	// Trouble is told that the local voice path to the peers of a trunk is
	// broken, so that new calls can be sent another way for a while. May be nil.
	Trouble func(trunk, why string)
	Log     *slog.Logger
}

// Switch accepts incoming legs and owns all live calls. Its methods are safe for
// concurrent use.
type Switch struct {
	o Options

	mu       sync.Mutex // guards what follows; never held during a call's work
	calls    map[string]*running
	serial   uint64
	draining bool
	closed   bool          // the drain is over
	idle     chan struct{} // made by Drain, closed when the last call has ended
}

// New makes a Switch. Router, Dialer and Bridges must be set.
func New(o Options) *Switch {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Switch{o: o, calls: map[string]*running{}}
}

// running is a live call as others may see it.
type running struct {
	id     string
	cancel context.CancelCauseFunc

	mu   sync.Mutex
	view View
}

// View is a live call at one moment, for status pages.
type View struct {
	ID        string
	Source    string
	Target    string // trunk or line being tried or reached
	Leg       string // of the called side; empty between targets
	Calling   string
	Called    string
	Emergency bool
	State     string // seeking, ringing, up, lost
	Start     time.Time
	Answer    time.Time
}

// Accept takes an incoming leg, whose first event must be a Setup. It returns at
// once; the call runs until both legs have ended.
func (s *Switch) Accept(l Leg) {
	s.mu.Lock()
	s.serial++
	r := &running{id: fmt.Sprintf("c%d", s.serial)}
	ctx, cancel := context.WithCancelCause(context.Background())
	r.cancel = cancel
	c := &control{s: s, r: r, legs: map[string]Leg{}, draining: s.draining, closed: s.closed,
		full: s.o.MaxCalls > 0 && len(s.calls) >= s.o.MaxCalls}
	s.calls[r.id] = r
	s.mu.Unlock()
	go func() {
		defer s.forget(r)
		defer cancel(nil)
		c.run(ctx, l)
	}()
}

func (s *Switch) forget(r *running) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, r.id)
	s.rest()
}

// rest ends a drain whose last call is over. s.mu is held.
func (s *Switch) rest() {
	if s.idle == nil || len(s.calls) > 0 {
		return
	}
	s.closed = true
	select {
	case <-s.idle:
	default:
		close(s.idle)
	}
}

// Calls returns the live calls, oldest first.
func (s *Switch) Calls() []View {
	s.mu.Lock()
	rs := make([]*running, 0, len(s.calls))
	for _, r := range s.calls {
		rs = append(rs, r)
	}
	s.mu.Unlock()
	views := make([]View, 0, len(rs))
	for _, r := range rs {
		r.mu.Lock()
		if r.view.ID != "" {
			views = append(views, r.view)
		}
		r.mu.Unlock()
	}
	sort.Slice(views, func(i, j int) bool { return views[i].Start.Before(views[j].Start) })
	return views
}

// Drain refuses new calls from now on, waits until the live ones have ended or
// ctx is done, then releases what is left and waits for it. An emergency call
// that comes while others are waited for is taken and waited for like them.
func (s *Switch) Drain(ctx context.Context) {
	s.mu.Lock()
	s.draining = true
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	s.rest()
	s.mu.Unlock()
	select {
	case <-s.idle:
		return
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.closed = true
	for _, r := range s.calls {
		r.cancel(errDraining)
	}
	s.mu.Unlock()
	<-s.idle
}

var errDraining = errors.New("the box is shutting down")
