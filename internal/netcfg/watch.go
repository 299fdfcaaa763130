// Package netcfg watches what the kernel has: links, addresses and neighbours.
// It turns what changes into events, so that a way that breaks is known before
// its silence is noticed.
//
// The main type is Watch. It reads the kernel's state, follows its
// notifications, and starts over with a new reading whenever notifications were
// lost (ENOBUFS, a closed socket): the events are then what has changed in
// between. The rules are pure (state.go); the kernel is reached through the
// Kernel interface and needs no privilege.
//
// Sources: rtnetlink(7); RFC 4861 §7.3 and RFC 1122 §2.3.2.1 for neighbours.
//
// Left to others: what to do about it. Choosing a realm is package media's,
// choosing a trunk package route's. Writing to the kernel comes later.
package netcfg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"
)

// Kind says what happened.
type Kind uint8

// Kinds of Event.
const (
	_ Kind = iota
	// LinkDown: the interface cannot carry packets: set down, no carrier, or gone.
	LinkDown
	// LinkUp: the interface can carry packets.
	LinkUp
	// NeighbourFailed: Addr on Interface does not answer address resolution.
	NeighbourFailed
	// NeighbourReachable: Addr on Interface answers again.
	NeighbourReachable
	// AddressGone: Interface has lost its address Addr.
	AddressGone
	// AddressNew: Interface has got the address Addr and may use it.
	AddressNew
)

var kindNames = [...]string{"", "link-down", "link-up", "neighbour-failed", "neighbour-reachable", "address-gone", "address-new"}

// String is the kind's name for logs and metrics.
func (k Kind) String() string {
	if int(k) < len(kindNames) && k != 0 {
		return kindNames[k]
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Event is one change.
type Event struct {
	Kind      Kind
	Interface string
	Addr      netip.Addr // of the neighbour or address; zero for links
}

// Link is one interface as status shows it.
type Link struct {
	Index     int
	Name      string
	Up        bool
	Addresses []netip.Prefix
}

// NeighbourState is the kernel's verdict on a neighbour, as far as it matters.
type NeighbourState uint8

// Neighbour states. Unconfirmed ones (incomplete, stale, delay, probe) leave
// the last verdict standing.
const (
	NeighbourUnconfirmed NeighbourState = iota
	NeighbourGood                       // reachable, permanent, noarp
	NeighbourBad                        // failed
	NeighbourForgotten                  // entry deleted
)

// Neighbour is an entry of the kernel's neighbour table.
type Neighbour struct {
	Index int // of the link
	Addr  netip.Addr
	State NeighbourState
}

// Address is an address of a link that may be used (not tentative).
type Address struct {
	Index  int
	Prefix netip.Prefix
}

// State is one reading of the kernel's tables.
type State struct {
	Links      []Link // without Addresses
	Addresses  []Address
	Neighbours []Neighbour
}

// Change is one notification: exactly one of the pointers is set.
type Change struct {
	Link      *Link
	Address   *Address
	Neighbour *Neighbour
	// Gone says that the link or address is deleted.
	Gone bool
}

// Kernel is what a Watch needs of the kernel.
type Kernel interface {
	// Read returns the present state.
	Read() (State, error)
	// Subscribe returns the changes from now on. The channel is closed when ctx
	// is done, or when changes were or may have been lost; lost then tells why.
	// Whoever subscribes must read until the channel is closed.
	Subscribe(ctx context.Context) (changes <-chan Change, lost func() error, err error)
}

// Options configure a Watch.
type Options struct {
	Kernel Kernel
	// Interfaces are the names to watch; those that do not exist are waited for.
	// Empty means all but loopback.
	Interfaces []string
	Log        *slog.Logger
}

// Watch follows the kernel. Run does the work; the other methods are safe for
// concurrent use at any time.
type Watch struct {
	opts   Options
	log    *slog.Logger
	events chan Event
	links  atomic.Pointer[[]Link]
	resync atomic.Uint64
}

// Waiting times between attempts to subscribe.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// New makes a Watch. It starts nothing.
func New(o Options) *Watch {
	w := &Watch{opts: o, log: o.Log, events: make(chan Event)}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	w.links.Store(&[]Link{})
	return w
}

// Events delivers what changes after Run has read the first state. It has one
// reader; it is closed when Run returns. A reader that is late gets less, never
// something old: of the events about one link, address or neighbour that wait,
// only the newest is kept, so what waits is bounded by what the kernel has.
func (w *Watch) Events() <-chan Event { return w.events }

// Links returns the interfaces watched that exist, as last heard.
func (w *Watch) Links() []Link { return *w.links.Load() }

// Resyncs counts how often notifications were lost and the state read anew.
func (w *Watch) Resyncs() uint64 { return w.resync.Load() }

// Run watches until ctx is done and returns nil then. It is called once. A
// kernel that cannot be reached is tried again for as long.
func (w *Watch) Run(ctx context.Context) error {
	defer close(w.events)
	t := newTables(w.opts.Interfaces)
	var q queue
	wait := firstRetry
	for {
		err := w.follow(ctx, t, &q, func() { wait = firstRetry })
		if ctx.Err() != nil {
			return nil
		}
		w.resync.Add(1)
		w.log.Warn("kernel notifications lost, reading state anew", "err", err, "in", wait)
		if !w.deliver(ctx, &q, wait) {
			return nil
		}
		wait = min(2*wait, lastRetry)
	}
}

// follow subscribes, reads the state and applies changes until the
// subscription ends.
func (w *Watch) follow(ctx context.Context, t *tables, q *queue, healthy func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes, lost, err := w.opts.Kernel.Subscribe(ctx)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	defer func() {
		cancel()
		for range changes { // the subscription ends when it has been read out
		}
	}()
	// Subscribe first: what changes while we read comes again as a change.
	state, err := w.opts.Kernel.Read()
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	healthy()
	q.push(t.replace(state))
	w.publish(t)
	for {
		out, next := w.offer(q)
		select {
		case out <- next:
			q.pop()
		case c, ok := <-changes:
			if !ok {
				return errors.Join(errors.New("subscription ended"), lost())
			}
			q.push(t.apply(c))
			if c.Neighbour == nil {
				w.publish(t)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// deliver hands out what waits while we wait ourselves; false when ctx is done.
func (w *Watch) deliver(ctx context.Context, q *queue, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		out, next := w.offer(q)
		select {
		case out <- next:
			q.pop()
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// offer returns the channel to send next on, or nil if nothing waits.
func (w *Watch) offer(q *queue) (chan<- Event, Event) {
	if e, ok := q.front(); ok {
		return w.events, e
	}
	return nil, Event{}
}

func (w *Watch) publish(t *tables) {
	links := t.snapshot()
	w.links.Store(&links)
}
