package sip

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"localloop/internal/call"
)

// leg is a dialog as a call.Leg. All of its state belongs to one goroutine;
// everything else, the network included, posts functions to it.
//
//	incoming:  proceeding ──Answer──> unacked ──ACK──> confirmed ──┐
//	outgoing:  calling ────200─────────────────────> confirmed ────┤
//	                └── refused, cancelled, lost ──────────────────┴──> over
//
// A leg that is over has reported its Release; it may linger for the rest of its
// transactions (a late 200 is still to be acknowledged and ended).
type leg struct {
	t        *trunk
	name     string
	log      *slog.Logger
	events   chan call.Event
	localTag string
	keys     []string // guarded by trunk.mu

	wake   chan struct{}
	halt   chan struct{} // closed by stop
	parted chan struct{} // closed when the goroutine has ended

	mu       sync.Mutex
	inbox    []func()
	overflow bool
	halting  bool
	ended    bool // nobody reads the inbox any more

	// Owned by the goroutine from here on.
	out    []call.Event
	over   bool // Release is in out, or out already
	closed bool // events is closed
	open   int  // what the leg lingers for

	d        *dialog // nil until the dialog is established
	invite   *serverTx
	early    []byte // description of our last provisional response
	ringing  func() // stops the refresh of provisional responses
	ack      *ackWait
	byeCause *call.Cause // BYE owed after the ACK

	reIn    *serverTx // re-INVITE of the peer that the call has not answered
	reOut   *reinvite // ours
	waiting []call.Update
	given   uint64 // version of the description that describe was given last
	version uint64 // and the one that it wrote
	seeking bool   // a way to the peer is being opened
	unsent  []unsent

	calling *outgoing // outgoing leg: its attempts
}

const (
	maxInbox = 1024
	maxOut   = 256
)

func newLeg(t *trunk) *leg {
	t.mu.Lock()
	t.sequence++
	n := t.sequence
	t.mu.Unlock()
	name := fmt.Sprintf("%s#%d", t.name, n)
	return &leg{
		t: t, name: name, log: t.log.With("leg", name), events: make(chan call.Event), localTag: newTag(),
		wake: make(chan struct{}, 1), halt: make(chan struct{}), parted: make(chan struct{}),
	}
}

// start runs the leg's goroutine with first as its first act; false while the
// trunk is shutting down.
func (g *leg) start(first func()) bool {
	t := g.t
	t.mu.Lock()
	if t.draining {
		t.mu.Unlock()
		return false
	}
	t.all[g] = struct{}{}
	t.wg.Add(1)
	t.mu.Unlock()
	g.post(first)
	go func() {
		defer t.wg.Done()
		defer close(g.parted)
		g.run()
		t.drop(g)
		// What was posted before: requests get their 481.
		g.mu.Lock()
		g.ended = true
		work := g.inbox
		g.inbox = nil
		g.mu.Unlock()
		for _, f := range work {
			g.do(f)
		}
	}()
	return true
}

// Name returns the leg's name, for example "teams#12".
func (g *leg) Name() string { return g.name }

// Events returns what the leg reports. See call.Leg.
func (g *leg) Events() <-chan call.Event { return g.events }

// Send queues an event for the peer. It never waits. A leg whose queue is full,
// which takes a peer or a call gone mad, releases itself.
func (g *leg) Send(e call.Event) { g.post(func() { g.command(e) }) }

// post queues a function for the leg's goroutine. It never blocks. False says
// that f will not run: the leg has ended, or its queue is full.
func (g *leg) post(f func()) bool {
	g.mu.Lock()
	ok := !g.ended && len(g.inbox) < maxInbox
	if ok {
		g.inbox = append(g.inbox, f)
	}
	g.overflow = g.overflow || !ok
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
	return ok
}

func (g *leg) finished() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ended
}

func (g *leg) take() (work []func(), overflow bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	work, overflow = g.inbox, g.overflow
	g.inbox, g.overflow = nil, false
	return work, overflow
}

// stop ends the leg at shutdown. Safe to call twice.
func (g *leg) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.halting {
		g.halting = true
		close(g.halt)
	}
}

func (g *leg) run() {
	for !g.closed || g.open > 0 {
		var out chan<- call.Event
		var head call.Event
		if len(g.out) > 0 {
			out, head = g.events, g.out[0]
		}
		select {
		case out <- head:
			g.delivered(head)
		case <-g.wake:
			work, overflow := g.take()
			for _, f := range work {
				g.do(f)
			}
			if overflow {
				g.hangUp(call.Congestion42.With("queue of %s is full", g.name))
			}
		case <-g.halt:
			g.do(g.shut)
			g.flush()
			g.part()
			return
		}
	}
}

// do runs one piece of work. A panic in it costs this call, not the others; the
// peer is told, unless just that panics too.
func (g *leg) do(f func()) {
	defer g.survive(func() {
		defer g.survive(func() { g.release(call.TemporaryFailure, "internal error") })
		g.hangUp(call.TemporaryFailure.With("internal error"))
	})
	f()
}

func (g *leg) survive(then func()) {
	if r := recover(); r != nil {
		g.t.counters.panics.Add(1)
		g.log.Error("panic in a leg", "panic", r, "stack", string(debug.Stack()))
		then()
	}
}

func (g *leg) delivered(e call.Event) {
	g.out = g.out[1:]
	if _, last := e.(call.Release); last {
		close(g.events)
		g.closed = true
	}
}

// flush hands over what is left at shutdown, to an owner that may be gone.
func (g *leg) flush() {
	for grace := time.After(time.Second); len(g.out) > 0; {
		select {
		case g.events <- g.out[0]:
			g.delivered(g.out[0])
		case <-grace:
			g.out = nil
		}
	}
	if !g.closed {
		close(g.events)
		g.closed = true
	}
}

// shut ends the leg with the box. It does not wait for an ACK: better an early
// BYE than none.
func (g *leg) shut() {
	g.hangUp(call.TemporaryFailure.With("shutting down"))
	if c := g.byeCause; c != nil {
		g.byeCause = nil
		g.stopAck()
		g.bye(g.d, *c)
	}
}

// part gives a goodbye that has no connection yet the time to get one.
func (g *leg) part() {
	for grace := time.After(g.t.e.times.connect); g.seeking; {
		select {
		case <-g.wake:
			work, _ := g.take()
			for _, f := range work {
				g.do(f)
			}
		case <-grace:
			return
		}
	}
}

// emit reports an event to the call.
func (g *leg) emit(e call.Event) {
	if g.over {
		return
	}
	if len(g.out) >= maxOut {
		g.hangUp(call.Congestion42.With("nobody reads the events of %s", g.name))
		return
	}
	g.out = append(g.out, e)
}

// release reports the end. What the peer must hear is sent by the caller.
func (g *leg) release(c call.Cause, reason string) {
	if g.over {
		return
	}
	if reason == "" {
		reason = c.Text
	}
	g.out = append(g.out, call.Release{Cause: c, Reason: reason})
	g.over = true
	g.waiting = nil
	g.stopRinging()
	g.log.Debug("leg released", "cause", c.String(), "reason", reason)
}

// after runs f in the leg's goroutine after d, unless stopped before.
func (g *leg) after(d time.Duration, f func()) (stop func()) {
	stopped := false
	tm := time.AfterFunc(d, func() {
		g.post(func() {
			if !stopped {
				stopped = true
				f()
			}
		})
	})
	return func() {
		stopped = true // read in the goroutine only, as it is written
		tm.Stop()
	}
}

// command is an event of the call for the peer.
func (g *leg) command(e call.Event) {
	if g.over {
		return
	}
	switch e := e.(type) {
	case call.Progress:
		g.progress(e)
	case call.Answer:
		if g.reIn != nil {
			g.answerUpdate(e)
		} else {
			g.answer(e)
		}
	case call.Refuse:
		g.refuseUpdate(e.Cause)
	case call.Update:
		g.update(e)
	case call.Digit:
		g.sendDigit(e)
	case call.Release:
		g.hangUp(e.Cause)
	}
}

// hangUp ends the leg from our side, whatever it is doing.
func (g *leg) hangUp(c call.Cause) {
	if g.over {
		return
	}
	switch {
	case g.invite != nil && g.invite.final.Load() == 0:
		g.refuseInvite(finalStatus(c), c)
	case g.d == nil && g.calling != nil:
		g.cancel(c)
	case g.ack != nil && g.ack.s == g.invite:
		// The callee must not send BYE before the ACK, RFC 3261 §15.
		g.byeCause = &c
	case g.d != nil:
		g.stopAck()
		g.bye(g.d, c)
	}
	g.endUpdates()
	g.release(c, "")
}

func (g *leg) endUpdates() {
	if s := g.reIn; s != nil {
		g.reIn = nil
		s.respond(487, g.localTag, nil, "", nil)
	}
}

// bye ends a dialog.
func (g *leg) bye(d *dialog, c call.Cause) {
	if c.Status == 200 || c.Q850 == 0 {
		c.Q850 = max(c.Q850, 16)
	}
	req, target := d.request(g.t, "BYE", d.next(), []field{reasonField(c, false)}, "", nil)
	g.inDialog(d, func(f flow) {
		f.target = target
		g.request(req, f, func(*message) {}, func(error) {})
	}, nil)
}

// onRequest is a request in the dialog.
func (g *leg) onRequest(s *serverTx) {
	m := s.m
	if g.d == nil || m.from.tag() != g.d.remote {
		s.respond(481, g.localTag, nil, "", nil)
		return
	}
	if !g.d.accept(m) {
		s.respond(500, g.localTag, nil, "", nil)
		return
	}
	g.d.last = flow{link: s.l, to: s.src}
	switch {
	case m.method == "BYE":
		s.respond(200, g.localTag, nil, "", nil)
		g.onBye(m)
	case g.over:
		s.respond(481, g.localTag, nil, "", nil)
	case m.method == "INVITE":
		g.onReinvite(s)
	case m.method == "OPTIONS":
		s.respond(200, g.localTag, nil, "", nil)
	case m.method == "INFO":
		g.onInfo(s)
	default: // NOTIFY: we subscribe to nothing yet
		s.respond(481, g.localTag, nil, "", nil)
	}
}

func (g *leg) onBye(m *message) {
	c := call.NormalClearing
	if q, text := reasonQ850(m); q != 0 {
		c.Q850, c.Text = q, text
	}
	g.byeCause = nil
	g.stopAck()
	if g.invite != nil && g.invite.final.Load() == 0 {
		g.invite.respond(487, g.localTag, nil, "", nil)
	}
	g.endUpdates()
	g.release(c, "")
}

// request sends a request whose transaction the leg lingers for.
func (g *leg) request(f *request, fl flow, on func(*message), end func(error)) *clientTx {
	g.open++
	c, err := g.t.request(f, fl,
		func(m *message) {
			if m != nil {
				g.post(func() { on(m) })
			}
		},
		func(err error) { g.post(func() { g.open--; end(err) }) })
	if err != nil {
		g.log.Debug("request not sent", "method", string(f.Method), "error", err)
		g.post(func() { g.open--; end(err) })
		return nil
	}
	return c
}

// retryAfter reads Retry-After, RFC 3261 §20.33; zero if absent.
func (m *message) retryAfter() time.Duration {
	v := m.get("retry-after")
	n := 0
	for n < len(v) && v[n] >= '0' && v[n] <= '9' {
		n++
	}
	s, err := strconv.ParseUint(v[:n], 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(s) * time.Second
}
