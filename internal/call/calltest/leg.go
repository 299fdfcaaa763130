// Package calltest holds the doubles of package call: a scripted leg, an
// echoing bridge, a fixed router, and the conformance test that every
// implementation of call.Leg must pass.
package calltest

import (
	"context"
	"errors"
	"sync"

	"localloop/internal/call"
)

// Leg is a leg whose events come from a script. What the call sends to it can be
// read from Sent. It reports its Release when it is sent one.
type Leg struct {
	name   string
	events chan call.Event

	// Sent receives what the call sent, in order; it holds 64 events.
	Sent chan call.Event

	mu    sync.Mutex
	ended bool
}

// NewLeg makes a leg; an incoming one has setup as its first event.
func NewLeg(name string, setup *call.Setup) *Leg {
	l := &Leg{name: name, events: make(chan call.Event, 64), Sent: make(chan call.Event, 64)}
	if setup != nil {
		l.events <- *setup
	}
	return l
}

// Name implements call.Leg.
func (l *Leg) Name() string { return l.name }

// Events implements call.Leg.
func (l *Leg) Events() <-chan call.Event { return l.events }

// Send implements call.Leg.
func (l *Leg) Send(ev call.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.Sent <- ev
	if r, ok := ev.(call.Release); ok {
		l.end(r)
	}
}

// Emit makes the leg report an event; a Release ends it.
func (l *Leg) Emit(ev call.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	if r, ok := ev.(call.Release); ok {
		l.end(r)
		return
	}
	l.events <- ev
}

func (l *Leg) end(r call.Release) {
	l.ended = true
	l.events <- r
	close(l.events)
}

// Dialer makes scripted legs. Dialed receives each leg with the Setup and the
// target it was made for.
type Dialer struct {
	Dialed chan Dialed
	// Fail names targets that cannot be dialled at all.
	Fail map[string]error
}

// Dialed is one call of Dial.
type Dialed struct {
	Leg    *Leg
	Target call.Target
	Setup  call.Setup
}

// NewDialer makes a Dialer that remembers up to 64 legs.
func NewDialer() *Dialer { return &Dialer{Dialed: make(chan Dialed, 64)} }

// Dial implements call.Dialer.
func (d *Dialer) Dial(_ context.Context, to call.Target, s call.Setup) (call.Leg, error) {
	if err := d.Fail[to.Name]; err != nil {
		return nil, err
	}
	l := NewLeg(to.Name, nil)
	d.Dialed <- Dialed{l, to, s}
	return l, nil
}

// Router answers every Setup with the same targets, or Cause without any.
type Router struct {
	Targets []call.Target
	Cause   call.Cause
}

// Route implements call.Router.
func (r Router) Route(call.Setup) ([]call.Target, call.Cause) { return r.Targets, r.Cause }

var errNoRoom = errors.New("no room")
