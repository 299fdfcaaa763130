package call

import (
	"context"
	"log/slog"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"localloop/internal/sdp"
)

// legPatience is how long a leg may take to report its own Release after it was
// sent one. A leg promises to do so soon; this bounds a broken promise.
const legPatience = 10 * time.Second

// control runs one call: it feeds a machine with what happens and does what the
// machine says. All of it belongs to one goroutine.
type control struct {
	s        *Switch
	r        *running
	log      *slog.Logger
	full     bool // emergency calls are exempt
	draining bool // emergency calls are exempt
	closed   bool // the drain is over: nobody is exempt

	m      machine
	setup  Setup
	bridge Bridge
	legs   map[string]Leg // that have not ended, by name
	left   sync.WaitGroup // readers of legs that the call is done with

	timers [timers]*time.Timer
	sum    Summary
	ended  bool
}

// run takes the first event, then loops until both sides have ended.
func (c *control) run(ctx context.Context, first Leg) {
	c.log = c.s.o.Log.With("call", c.r.id)
	defer c.recoverBug()
	c.legs[first.Name()] = first
	c.m.caller = side{leg: first.Name()}
	select {
	case ev, ok := <-first.Events():
		if setup, is := ev.(Setup); is {
			c.begin(first, setup)
			c.loop(ctx)
			return
		}
		if _, gone := ev.(Release); gone || !ok { // ended before it began
			delete(c.legs, first.Name())
			return
		}
		c.log.Error("first event of a leg is not a setup", "leg", first.Name(), "event", kind(ev))
		first.Send(Release{Cause: TemporaryFailure, Reason: "first event is not a setup"})
	case <-ctx.Done():
		first.Send(Release{Cause: TemporaryFailure, Reason: context.Cause(ctx).Error()})
	}
	c.awaitLegs()
}

// recoverBug turns a bug of ours in one call into the release of that call.
func (c *control) recoverBug() {
	v := recover()
	if v == nil {
		return
	}
	c.log.Error("bug in a call: it is released, other calls go on", "panic", v, "stack", string(debug.Stack()))
	for _, l := range c.legs {
		l.Send(Release{Cause: TemporaryFailure, Reason: "internal fault"})
	}
	if !c.ended {
		c.finish(doEnd{cause: TemporaryFailure, reason: "internal fault", endedBy: self})
	}
	c.awaitLegs()
}

// begin opens the voice, asks for targets and starts the search.
func (c *control) begin(first Leg, setup Setup) {
	if setup.ID == "" {
		setup.ID = c.r.id
	}
	c.setup = setup
	c.m.caller = side{leg: first.Name(), profile: setup.Profile, offerless: setup.Offer == nil}
	c.sum = Summary{
		ID: setup.ID, Source: setup.Source, Leg: first.Name(), Calling: setup.Calling, Called: setup.Called,
		Emergency: setup.Emergency, Teams: setup.Teams, Start: time.Now(),
		Refs: map[string]string{first.Name(): setup.Ref},
	}
	c.view(func(v *View) {
		*v = View{ID: setup.ID, Source: setup.Source, Calling: setup.Calling.Number, Called: setup.Called,
			State: "seeking", Start: c.sum.Start}
	})

	targets, cause := c.s.o.Router.Route(setup)
	if len(targets) > 0 && targets[0].Emergency {
		c.setup.Emergency, c.sum.Emergency = true, true
		c.view(func(v *View) { v.Emergency = true })
	}
	switch {
	case c.closed, c.draining && !c.sum.Emergency:
		c.refuse(TemporaryFailure.With("%v", errDraining))
		return
	case len(targets) == 0:
		c.refuse(cause)
		return
	case c.full && !c.sum.Emergency:
		c.refuse(Congestion42.With("all calls in use"))
		return
	}
	b, err := c.s.o.Bridges.Open(setup.ID)
	if err != nil {
		c.log.Error("no voice for a call", "err", err)
		c.refuse(NoCircuit.With("no media port free"))
		return
	}
	c.bridge = b
	if setup.Offer != nil {
		if err := b.Offered(first.Name(), setup.Offer, setup.Profile); err != nil {
			c.refuse(IncompatibleMedia.With("%v", err))
			return
		}
	}
	c.log.Info("call", "from", setup.Calling.Number, "to", setup.Called, "source", setup.Source, "targets", len(targets), "emergency", c.sum.Emergency)
	c.m.targets = targets
	c.do(c.m.start())
}

// refuse ends a call that never had a second side.
func (c *control) refuse(cause Cause) {
	c.do(c.m.end(cause, cause.Text, self))
}

// loop waits for what happens until the call is over and its legs have ended.
func (c *control) loop(ctx context.Context) {
	var voice <-chan BridgeEvent
	if c.bridge != nil {
		voice = c.bridge.Events()
	}
	for !c.ended {
		// At most two legs have not ended; a nil channel never delivers.
		a, b := c.legs[c.m.caller.leg], c.legs[c.m.callee.leg]
		select {
		case ev, ok := <-events(a):
			c.from(a, ev, ok)
		case ev, ok := <-events(b):
			c.from(b, ev, ok)
		case ev, ok := <-voice:
			if !ok { // closed without Close: a bug of the bridge; nothing more will be heard of the voice
				voice = nil
				c.log.Error("voice ended before its call")
				continue
			}
			c.heard(ev)
		case <-c.after(seizeTimer):
			c.do(c.m.expired(seizeTimer))
		case <-c.after(tryTimer):
			c.do(c.m.expired(tryTimer))
		case <-c.after(ringTimer):
			c.do(c.m.expired(ringTimer))
		case <-c.after(restartCallerTimer):
			c.do(c.m.expired(restartCallerTimer))
		case <-c.after(restartCalleeTimer):
			c.do(c.m.expired(restartCalleeTimer))
		case <-c.after(checkTimer):
			c.do(c.m.expired(checkTimer))
		case <-c.after(lostTimer):
			c.do(c.m.expired(lostTimer))
		case <-ctx.Done():
			c.do(c.m.end(TemporaryFailure, context.Cause(ctx).Error(), self))
		}
	}
	c.awaitLegs()
}

func events(l Leg) <-chan Event {
	if l == nil {
		return nil
	}
	return l.Events()
}

// from takes one event of a leg.
func (c *control) from(l Leg, ev Event, ok bool) {
	if !ok { // closed without a Release: a bug of the leg; the call must not hang
		ev = Release{Cause: TemporaryFailure, Reason: "leg ended without a release"}
	}
	name := l.Name()
	if r, gone := ev.(Release); gone {
		delete(c.legs, name)
		c.log.Debug("leg released", "leg", name, "cause", r.Cause.String(), "reason", r.Reason) // its owner logs it
	} else {
		c.log.Debug("leg event", "leg", name, "event", kind(ev))
	}
	c.do(c.m.legEvent(name, ev))
}

// heard takes one event of the bridge.
func (c *control) heard(ev BridgeEvent) {
	switch ev := ev.(type) {
	case VoiceDead:
		c.log.Debug("voice of a leg is dead", "leg", ev.Leg, "why", ev.Why) // its owner logs it
	case VoiceAlive:
		c.log.Info("voice of a leg is alive", "leg", ev.Leg, "realm", ev.Realm)
	}
	c.do(c.m.voice(ev))
}

// do carries out actions in order. What follows from one of them takes the
// place of the rest: after a fault that was planned for a state that is gone.
func (c *control) do(acts []action) {
	for _, a := range acts {
		if more := c.one(a); len(more) > 0 {
			c.do(more)
			return // the rest was planned for a state that is gone
		}
	}
	c.view(func(v *View) {
		switch {
		case c.m.phase == up:
			v.State = "up"
		case c.m.phase == lost:
			v.State = "lost"
		case c.m.alerted:
			v.State = "ringing"
		}
		v.Answer = c.sum.Answer
		v.Leg = c.m.callee.leg
		if n := len(c.sum.Attempts); n > 0 {
			v.Target = c.sum.Attempts[n-1].Target.Name
		}
	})
}

// one carries out one action and returns what follows from a fault in it.
func (c *control) one(a action) []action {
	switch a := a.(type) {
	case doSend:
		c.send(a.leg, a.ev)
	case doDial:
		return c.dial(a.target)
	case doProgress:
		p := Progress{Ringing: a.ringing}
		if a.media && !c.m.caller.offerless {
			d, err := c.bridge.AnswerTo(c.m.caller.leg)
			if err != nil {
				return c.m.fault(c.m.caller.leg, IncompatibleMedia, err.Error())
			}
			p.Answer = d
		}
		c.send(c.m.caller.leg, p)
	case doAnswer:
		ask := c.bridge.AnswerTo
		if c.m.caller.offerless {
			ask = func(leg string) (*sdp.Description, error) { return c.bridge.OfferTo(leg, c.m.caller.profile) }
		}
		d, err := ask(a.leg)
		if err != nil {
			return c.m.fault(a.leg, IncompatibleMedia, err.Error())
		}
		c.send(a.leg, Answer{Description: d})
	case doAnswered:
		err := c.bridge.Answered(a.leg, a.desc)
		switch {
		case err == nil:
		case a.early:
			c.log.Info("early media cannot be used", "leg", a.leg, "err", err)
			c.m.undescribed()
		default:
			return c.m.fault(a.leg, IncompatibleMedia, err.Error())
		}
	case doConfirm:
		c.bridge.Confirm(a.leg)
	case doReoffered:
		return c.reoffered(a)
	case doMove:
		d, err := c.bridge.OfferTo(a.leg, a.profile)
		if err != nil {
			return c.m.fault(a.leg, NoCircuit, err.Error())
		}
		c.send(a.leg, Update{Offer: d})
	case doRelocate:
		return c.m.relocate(a.leg, a.profile)
	case doJoin:
		if err := c.bridge.Join(a.a, a.b); err != nil {
			c.log.Error("join legs", "leg", a.a, "other", a.b, "err", err)
			return c.m.unjoined(err.Error())
		}
	case doPlay:
		c.bridge.Play(a.leg, a.tone)
	case doDigit:
		c.bridge.Digit(a.leg, a.d)
	case doDrop:
		c.bridge.Drop(a.leg)
		c.leave(a.leg)
	case doStart:
		c.stop(a.t)
		c.timers[a.t] = time.NewTimer(a.d)
	case doStop:
		c.stop(a.t)
	case doNote:
		a.f(&c.sum)
	case doTrouble:
		if c.s.o.Trouble != nil {
			c.s.o.Trouble(c.trunkOf(a.leg), a.why)
		}
	case doEnd:
		c.finish(a)
	}
	return nil
}

// dial makes an offer for the target and starts its leg.
func (c *control) dial(t Target) []action {
	c.sum.Attempts = append(c.sum.Attempts, Attempt{Target: t, At: time.Now()})
	s := c.setup
	s.Called, s.Profile, s.Teams = t.Number, t.Profile, nil
	// The offer is made before there is a leg, so the call names it.
	name := legName(t, len(c.sum.Attempts), c.r.id)
	d, err := c.bridge.OfferTo(name, t.Profile)
	if err != nil {
		return c.m.fault("", IncompatibleMedia, err.Error())
	}
	s.Offer = d
	l, err := c.s.o.Dialer.Dial(context.Background(), t, s)
	if err != nil {
		c.log.Error("target cannot be dialled", "target", t.Name, "err", err)
		c.bridge.Drop(name)
		return c.m.fault("", DestinationDown, err.Error())
	}
	c.log.Info("target dialled", "target", t.Name, "number", t.Number, "leg", name, "as", l.Name())
	l = named{l, name}
	c.legs[name] = l
	c.sum.Attempts[len(c.sum.Attempts)-1].Leg = l.Name()
	c.m.dialed(name)
	return nil
}

// named gives an outgoing leg the name under which the bridge knows it.
type named struct {
	Leg
	name string
}

func (n named) Name() string { return n.name }

func legName(t Target, n int, call string) string {
	return t.Name + "/" + call + "." + strconv.Itoa(n)
}

// reoffered answers a new offer of a leg in place: voice is anchored here, so
// the other side need not know (RFC 3264 §8).
func (c *control) reoffered(a doReoffered) []action {
	answer := func() (*sdp.Description, error) {
		if a.offer == nil { // the peer wants an offer of ours
			return c.bridge.OfferTo(a.leg, a.profile)
		}
		if err := c.bridge.Offered(a.leg, a.offer, a.profile); err != nil {
			return nil, err
		}
		return c.bridge.AnswerTo(a.leg)
	}
	d, err := answer()
	if err != nil {
		c.send(a.leg, Refuse{Cause: IncompatibleMedia.With("%v", err)})
		return nil
	}
	c.send(a.leg, Answer{Description: d})
	return c.m.agreed(a.leg, a.profile, a.hold, a.offer == nil)
}

func (c *control) send(leg string, ev Event) {
	if l := c.legs[leg]; l != nil {
		l.Send(ev)
	}
}

// trunkOf names the trunk or line of a leg.
func (c *control) trunkOf(leg string) string {
	if leg == c.m.caller.leg {
		return c.setup.Source
	}
	if n := len(c.sum.Attempts); n > 0 {
		return c.sum.Attempts[n-1].Target.Name
	}
	return ""
}

func (c *control) after(t timer) <-chan time.Time {
	if c.timers[t] == nil {
		return nil
	}
	return c.timers[t].C
}

func (c *control) stop(t timer) {
	if c.timers[t] != nil {
		c.timers[t].Stop()
		c.timers[t] = nil
	}
}

// finish closes the voice and gives the summary away.
func (c *control) finish(a doEnd) {
	if c.ended {
		return
	}
	c.ended = true
	for t := range c.timers {
		c.stop(timer(t))
	}
	if c.bridge != nil {
		c.sum.Voice = c.bridge.Close()
	}
	c.sum.End, c.sum.Cause, c.sum.Reason, c.sum.EndedBy = time.Now(), a.cause, a.reason, a.endedBy
	c.log.Info("call ended", "cause", a.cause.String(), "reason", a.reason, "by", a.endedBy, "duration", c.sum.Duration().Round(time.Millisecond))
	c.view(func(v *View) { v.ID = "" })
	if c.s.o.Ended != nil {
		c.s.o.Ended(c.sum)
	}
}

// leave reads a leg that the call is done with until it has ended, so that it
// never blocks.
func (c *control) leave(name string) {
	l := c.legs[name]
	if l == nil {
		return
	}
	delete(c.legs, name)
	c.left.Add(1)
	go func() {
		defer c.left.Done()
		limit := time.NewTimer(legPatience)
		defer limit.Stop()
		for {
			select {
			case _, open := <-l.Events():
				if !open {
					return
				}
			case <-limit.C:
				c.log.Error("leg did not end after its release", "leg", name)
				return
			}
		}
	}()
}

// awaitLegs waits until all legs of the call have ended.
func (c *control) awaitLegs() {
	for name := range c.legs {
		c.leave(name)
	}
	c.left.Wait()
}

func (c *control) view(f func(*View)) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	f(&c.r.view)
}

// kind names an event for the log; events themselves hold keys.
func kind(ev Event) string {
	switch ev.(type) {
	case Setup:
		return "setup"
	case Progress:
		return "progress"
	case Answer:
		return "answer"
	case Update:
		return "update"
	case Refuse:
		return "refuse"
	case Digit:
		return "digit"
	case Transfer:
		return "transfer"
	case Release:
		return "release"
	}
	return "unknown"
}
