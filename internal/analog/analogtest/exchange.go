package analogtest

import (
	"context"
	"fmt"
	"time"
)

// Clearing says how an exchange tells the box that the other party has gone.
type Clearing uint8

// Ways to clear, after ITU-T Q.35 and national practice.
const (
	ByBusyTone Clearing = iota
	ByOpenLoop          // kewlstart: no battery for OpenLoop, then dial tone
	ByReversal          // polarity goes back to normal, then busy tone
	BySilence
)

// ExchangeOptions says what exchange a channel is connected to.
type ExchangeOptions struct {
	Name    string
	Country string // tones and ringing; "us" if empty or unknown
	RingHz  int    // 25
	// DialToneDelay is from seizure to dial tone; 200 ms if zero, no dial tone if negative.
	DialToneDelay time.Duration
	// EndOfNumber is the pause after which a number is complete; 2 s. A '#' ends it too.
	EndOfNumber time.Duration
	// NumberLength completes a number at so many digits; 0: by pause only.
	NumberLength int
	// Route says what becomes of a dialled number; nil: it is answered after 1 s
	// and speaks 1004 Hz. It is called with the card's lock held: it must not
	// call back.
	Route func(number string) Destination
	// Reversal: polarity is reversed while the far end has answered.
	Reversal bool
	Clearing Clearing
	OpenLoop time.Duration // 600 ms
	// CallerIDModem is "v23" or "bell202" (default).
	CallerIDModem string
	// NormallyReversed lines were connected the other way round at installation.
	NormallyReversed bool
	Watch            []float64
}

// Destination is what a dialled number leads to.
type Destination struct {
	Busy       bool
	Congestion bool
	// Ringing is how long ringback is heard before the answer; negative: for ever.
	Ringing time.Duration
	// SpeakHz is what the far end says, at SpeakDBm0 (-16 if zero).
	SpeakHz   float64
	SpeakDBm0 float64
	// ClearAfter is how long the far end talks; 0: until the box hangs up.
	ClearAfter time.Duration
}

// ExchangeState is what an exchange does with its line.
type ExchangeState uint8

// States of a line at its exchange.
//
//	            Ring                  box answers
//	ExIdle ------------> ExRinging --------------> ExTalking --Clear--> ExCleared
//	  |  seized                                        ^                   |
//	  '---> ExDialling ---number---> ExAlerting -------'                   |
//	            ^                        | busy --> ExBusy                 |
//	            '----------- on-hook: all go back to ExIdle <--------------'
const (
	ExIdle ExchangeState = iota
	ExRinging
	ExDialling
	ExAlerting
	ExBusy
	ExTalking
	ExCleared
)

func (s ExchangeState) String() string {
	return [...]string{"idle", "ringing", "dialling", "alerting", "busy", "talking", "cleared"}[s]
}

// Exchange is a local exchange with a subscriber line to an FXO channel of the
// card, and with the party at the other end. Get it from Card.Exchange.
type Exchange struct {
	w    *world
	ch   int
	opt  ExchangeOptions
	plan Plan

	state    ExchangeState
	seized   bool
	stateMS  uint64
	answered time.Time
	dest     Destination
	digits   string
	lastMS   uint64 // of the last digit
	received dtmfReceiver
	pulses   pulseReader
	flashes  []time.Duration
	numbers  []string

	battery  bool
	parallel bool
	reversed bool
	openTo   uint64 // battery is away until then
	splashTo uint64

	// Ringing toward the box.
	ringAt    uint64
	ringCount int
	caller    *CallerID
	cid       []int16
	ringBurst bool

	ear   *ear
	tone  *player
	voice *sine
	mouth []int16
}

func newExchange(w *world, ch int, o ExchangeOptions) *Exchange {
	plan, ok := PlanOf(o.Country)
	if !ok {
		plan, _ = PlanOf("us")
	}
	if o.Name == "" {
		o.Name = fmt.Sprintf("exchange %d", ch)
	}
	if o.RingHz == 0 {
		o.RingHz = 25
	}
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.DialToneDelay, 200*time.Millisecond)
	def(&o.EndOfNumber, 2*time.Second)
	def(&o.OpenLoop, 600*time.Millisecond)
	if o.Route == nil {
		o.Route = func(string) Destination { return Destination{Ringing: time.Second, SpeakHz: 1004} }
	}
	e := &Exchange{w: w, ch: ch, opt: o, plan: plan, ear: newEar(plan), battery: true}
	for _, hz := range o.Watch {
		e.ear.watch(hz)
	}
	return e
}

// Name is the exchange's name for people.
func (e *Exchange) Name() string { return e.opt.Name }

func (e *Exchange) locked(f func()) {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	f()
}

func (e *Exchange) become(s ExchangeState) {
	if e.state == s {
		return
	}
	e.state, e.stateMS = s, e.w.ms
	e.tone = nil
	e.w.tell(e.ch, "%s: %s", e.opt.Name, s)
}

// Ring rings the box until it answers or StopRing is called. id, if not nil, is
// sent as FSK 600 ms after the first burst. It is an error if the line is in use.
func (e *Exchange) Ring(id *CallerID, d Destination) error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if e.state != ExIdle {
		return fmt.Errorf("ring %s: line is %s", e.opt.Name, e.state)
	}
	e.become(ExRinging)
	e.dest, e.ringAt, e.ringCount, e.cid, e.caller = d, e.w.ms+1, 0, nil, id
	return nil
}

// StopRing ends ringing: the caller has given up.
func (e *Exchange) StopRing() {
	e.locked(func() {
		if e.state == ExRinging {
			e.become(ExIdle)
		}
	})
}

// Splash puts one burst of ringing voltage of that length on an idle line, which
// is no call (ring pulse alerting signal, ETSI EN 300 659-1).
func (e *Exchange) Splash(long time.Duration) {
	e.locked(func() { e.splashTo = e.w.ms + uint64(long/time.Millisecond) })
}

// Answer lets the far end of a call that the box has dialled answer now.
func (e *Exchange) Answer() {
	e.locked(func() {
		if e.state == ExAlerting {
			e.talk()
		}
	})
}

// Clear lets the far end hang up, or a busy number refuse, in the exchange's way.
func (e *Exchange) Clear() { e.locked(func() { e.clear(e.opt.Clearing) }) }

// ClearBy is Clear in another way.
func (e *Exchange) ClearBy(how Clearing) { e.locked(func() { e.clear(how) }) }

func (e *Exchange) clear(how Clearing) {
	if !e.seized {
		return
	}
	e.become(ExCleared)
	e.voice, e.mouth, e.reversed = nil, nil, false
	switch how {
	case ByOpenLoop:
		e.openTo = e.w.ms + uint64(e.opt.OpenLoop/time.Millisecond)
	case ByBusyTone, ByReversal:
		e.play(e.plan.Busy)
	}
}

// OpenLoop takes the battery away for so long.
func (e *Exchange) OpenLoop(long time.Duration) {
	e.locked(func() { e.openTo = e.w.ms + uint64(long/time.Millisecond) })
}

// Battery takes the battery away (false) or gives it back.
func (e *Exchange) Battery(on bool) { e.locked(func() { e.battery = on }) }

// Parallel lifts (true) or replaces another phone on the same wires.
func (e *Exchange) Parallel(off bool) { e.locked(func() { e.parallel = off }) }

// Reverse sets the polarity of the line.
func (e *Exchange) Reverse(on bool) { e.locked(func() { e.reversed = on }) }

// Speak lets the far end say a steady tone; 0 Hz is silence.
func (e *Exchange) Speak(hz, level float64) { e.locked(func() { e.speak(hz, level) }) }

// Say plays samples (8 kHz) into the line.
func (e *Exchange) Say(pcm []int16) { e.locked(func() { e.mouth = append(e.mouth, pcm...) }) }

// Play plays a progress tone into the line until the state changes.
func (e *Exchange) Play(c Cadence) { e.locked(func() { e.play(c) }) }

func (e *Exchange) play(c Cadence) { e.tone = newPlayer(c, 0, -13) }

func (e *Exchange) speak(hz, level float64) {
	e.voice = nil
	if hz > 0 {
		if level == 0 {
			level = -16
		}
		s := newSine(hz, level)
		e.voice = &s
	}
}

func (e *Exchange) talk() {
	e.become(ExTalking)
	e.answered = e.w.now
	e.reversed = e.opt.Reversal
	e.speak(e.dest.SpeakHz, e.dest.SpeakDBm0)
}

// loop is called by the card once a millisecond with the state of its hook.
func (e *Exchange) loop(closed bool) feed {
	ms := e.w.ms
	e.supervise(closed)
	f := feed{battery: e.battery && ms >= e.openTo, reversed: e.reversed != e.opt.NormallyReversed, ringHz: e.opt.RingHz}
	e.ringBurst = e.ringNow() || ms < e.splashTo
	if f.battery && e.ringBurst {
		f.ring = true
	}
	return f
}

// supervise reads the box's hook: seizure, digits, answer, release.
func (e *Exchange) supervise(closed bool) {
	ms := e.w.ms
	digit, flash := e.pulses.step(ms, closed)
	if !e.seized { // what ended now was no interruption but rest
		digit, flash, e.pulses.count = 0, 0, 0
	}
	in := ms - e.stateMS
	if !closed && e.seized && ms-e.pulses.since > 1200 || !closed && e.state == ExCleared && ms-e.pulses.since > 300 {
		// On-hook. Pulses and flashes are shorter.
		e.seized = false
		e.reversed, e.voice, e.mouth = false, nil, nil
		e.ear.deaf()
		e.become(ExIdle)
	}
	if closed && !e.seized {
		e.seized = true
		if e.state == ExRinging {
			e.talk()
		} else {
			e.become(ExDialling)
			e.digits, e.lastMS = "", ms
		}
	}
	if flash > 0 && e.seized {
		e.flashes = append(e.flashes, flash)
		e.w.tell(e.ch, "%s: flash of %v", e.opt.Name, flash)
	}
	switch e.state {
	case ExDialling:
		if e.digits == "" && e.tone == nil && e.opt.DialToneDelay >= 0 && in == uint64(e.opt.DialToneDelay/time.Millisecond) {
			e.play(e.plan.Dial)
		}
		if digit != 0 {
			e.digit(digit)
		}
		if e.digits != "" && ms-e.lastMS >= uint64(e.opt.EndOfNumber/time.Millisecond) {
			e.complete()
		}
	case ExAlerting:
		if e.dest.Ringing >= 0 && in >= uint64(e.dest.Ringing/time.Millisecond) {
			e.talk()
		}
	case ExTalking:
		if e.dest.ClearAfter > 0 && in >= uint64(e.dest.ClearAfter/time.Millisecond) {
			e.clear(e.opt.Clearing)
		}
	case ExCleared:
		if e.tone == nil && e.openTo > 0 && ms == e.openTo+500 {
			e.play(e.plan.Dial)
		}
	}
}

func (e *Exchange) digit(d byte) {
	if e.state != ExDialling {
		return
	}
	e.tone = nil
	e.lastMS = e.w.ms
	if d == '#' {
		e.complete()
		return
	}
	if len(e.digits) < 64 {
		e.digits += string(d)
	}
	if e.opt.NumberLength > 0 && len(e.digits) >= e.opt.NumberLength {
		e.complete()
	}
}

func (e *Exchange) complete() {
	e.numbers = append(e.numbers, e.digits)
	e.dest = e.opt.Route(e.digits)
	e.w.tell(e.ch, "%s: number %s", e.opt.Name, e.digits)
	switch {
	case e.dest.Busy:
		e.become(ExBusy)
		e.play(e.plan.Busy)
	case e.dest.Congestion:
		e.become(ExBusy)
		e.play(e.plan.Congestion)
	default:
		e.become(ExAlerting)
		e.play(e.plan.Ringback)
	}
}

// ringNow runs the ringing cadence with the caller ID in its first long silence.
func (e *Exchange) ringNow() bool {
	if e.state != ExRinging || e.w.ms < e.ringAt {
		return false
	}
	at := e.w.ms - e.ringAt
	var total uint64
	for _, d := range e.plan.Ring {
		total += uint64(d / time.Millisecond)
	}
	cycle := at / total
	at %= total
	on := true
	for i, d := range e.plan.Ring {
		long := uint64(d / time.Millisecond)
		if at < long {
			if on && at == 0 {
				e.ringCount++
			}
			if !on && cycle == 0 && i == len(e.plan.Ring)-1 && at == 600 && e.caller != nil {
				m := bell202
				if e.opt.CallerIDModem == "v23" {
					m = v23
				}
				e.cid = m.fskAudio(e.caller.MDMF(e.w.now), 300, 180, -13.5)
			}
			return on
		}
		at -= long
		on = !on
	}
	return false
}

// audio is called by the card once a tick.
func (e *Exchange) audio(toExchange, fromExchange []int16) {
	clear(fromExchange)
	if !e.seized {
		n := copy(fromExchange, e.cid)
		e.cid = e.cid[n:]
		return
	}
	e.cid = nil
	e.ear.hear(e.w.now, toExchange)
	e.received.feed(toExchange, e.digit)
	if e.tone != nil {
		e.tone.fill(fromExchange)
	}
	for i := range fromExchange {
		switch {
		case len(e.mouth) > 0:
			fromExchange[i] = e.mouth[0]
			e.mouth = e.mouth[1:]
		case e.voice != nil:
			fromExchange[i] = mix(fromExchange[i], e.voice.next())
		}
	}
}

func (e *Exchange) await(ctx context.Context, what string, ok func() bool) error {
	err := e.w.await(ctx, e.opt.Name+" "+what, ok)
	if err != nil {
		err = fmt.Errorf("%w (%s)", err, e.Snapshot())
	}
	return err
}

// WaitState returns when the line is in that state.
func (e *Exchange) WaitState(ctx context.Context, s ExchangeState) error {
	return e.await(ctx, "to be "+s.String(), func() bool { return e.state == s })
}

// WaitNumber returns the n-th number (from 0) that was dialled.
func (e *Exchange) WaitNumber(ctx context.Context, n int) (number string, err error) {
	err = e.await(ctx, "to get a number", func() bool {
		if len(e.numbers) <= n {
			return false
		}
		number = e.numbers[n]
		return true
	})
	return number, err
}

// WaitTone returns when the far end hears hz; it is watched from then on.
func (e *Exchange) WaitTone(ctx context.Context, hz float64) error {
	return e.await(ctx, fmt.Sprintf("to hear %.0f Hz", hz), func() bool {
		e.ear.watch(hz)
		return e.seized && e.ear.audible(hz)
	})
}

// WaitNoTone returns when hz has not been audible for 100 ms.
func (e *Exchange) WaitNoTone(ctx context.Context, hz float64) error {
	return e.await(ctx, fmt.Sprintf("not to hear %.0f Hz", hz), func() bool {
		return heardNothingSince(e.ear.watch(hz).log, e.w.now.Add(-100*time.Millisecond)) && !e.ear.audible(hz)
	})
}

// WaitFlash returns the n-th flash (from 0) of the box.
func (e *Exchange) WaitFlash(ctx context.Context, n int) (long time.Duration, err error) {
	err = e.await(ctx, "to see a flash", func() bool {
		if len(e.flashes) <= n {
			return false
		}
		long = e.flashes[n]
		return true
	})
	return long, err
}

// Watch follows a frequency from now on: see Log.
func (e *Exchange) Watch(hz float64) { e.locked(func() { e.ear.watch(hz) }) }

// Log says when hz was audible at the far end since it is watched.
func (e *Exchange) Log(hz float64) (l AudioLog) {
	e.locked(func() { l = e.ear.log(hz) })
	return l
}

// Recording returns what the far end heard, at most the last two minutes.
func (e *Exchange) Recording() (pcm []int16) {
	e.locked(func() { pcm = e.ear.recording() })
	return pcm
}

// ExchangeSnapshot is a line at its exchange at one instant.
type ExchangeSnapshot struct {
	Name     string
	State    ExchangeState
	Seized   bool
	Rings    int
	Digits   string
	Numbers  []string
	Answered time.Time
	Hears    Hearing
	Battery  bool
	Reversed bool
}

func (s ExchangeSnapshot) String() string {
	return fmt.Sprintf("%s: %s, digits %q, hears %s", s.Name, s.State, s.Digits, s.Hears)
}

// Snapshot returns the present state.
func (e *Exchange) Snapshot() (s ExchangeSnapshot) {
	e.locked(func() {
		s = ExchangeSnapshot{Name: e.opt.Name, State: e.state, Seized: e.seized, Rings: e.ringCount, Digits: e.digits,
			Numbers: append([]string(nil), e.numbers...), Answered: e.answered, Hears: e.ear.hearing(), Battery: e.battery, Reversed: e.reversed}
	})
	return s
}
