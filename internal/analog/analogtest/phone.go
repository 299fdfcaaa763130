package analogtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// PhoneOptions says what telephone hangs on a channel.
type PhoneOptions struct {
	Name    string // for people
	Country string // tones the user knows; "us" if empty or unknown
	Keying  Keying
	// Bounce is how long the hook bounces; 8 ms if zero, none if negative.
	Bounce time.Duration
	Seed   uint64 // of the bounce
	Script Script
	// TypeII phones answer an alerting signal in a call with DTMF D and listen.
	TypeII bool
	// OffHook phones begin lifted.
	OffHook bool
	// Watch are frequencies to be followed from the start.
	Watch []float64
}

// Script is what the person at a phone does on his own. The zero Script does nothing.
type Script struct {
	// AnswerRing lifts at that burst of the bell, Delay after it began; 0 never.
	AnswerRing int
	Delay      time.Duration
	// SpeakHz is what he says after lifting, at SpeakDBm0 (-16 if zero).
	SpeakHz   float64
	SpeakDBm0 float64
	// HangUpAfter ends a call so long after lifting; 0 never.
	HangUpAfter time.Duration
	// HangUpOnBusy replaces the receiver so long after busy or congestion tone
	// was recognised; 0 never.
	HangUpOnBusy time.Duration
}

// Ring is one burst of the bell.
type Ring struct {
	At  time.Time
	On  time.Duration
	Off time.Duration // silence after it; 0 while it lasts
	Hz  int
	ms  uint64
}

// Shown is one caller ID on the display.
type Shown struct {
	CallerID
	Octets []byte
	At     time.Time
	// Rings is how many bursts came before.
	Rings int
	// Modem is "Bell 202", "V.23" or "DTMF".
	Modem string
	// AfterRing is the silence between the end of the burst before (0 if none) and
	// the first sign of the signal.
	AfterRing time.Duration
}

// Phone is a telephone on an FXS channel: a bell, a hook, a dial, an ear, a
// mouth and a caller-ID display. Get it from Card.Phone.
//
// What a person does is carried out by the card's clock: Lift, Dial and the
// others return at once, in the order in which they are called.
type Phone struct {
	w    *world
	ch   int
	opt  PhoneOptions
	hook contact

	ear    *ear
	lifted time.Time
	mouth  []int16
	tone   *sine
	wasOff bool // loop closed in the last tick
	inUse  bool // the receiver is off, flashes and pulses apart

	rings    []Ring
	ringing  bool
	quiet    uint64 // ms since the bell stopped
	ringCall int    // bursts of the present call
	battery  bool
	reversed bool

	fsk      [2]*fskReceiver
	power    [2]float64 // of the present signal at the frequencies of each
	clip     dtmfReceiver
	clipped  string
	carrier  uint64 // ms at which the present signal on the on-hook line began, 0 none
	quietSig int
	shown    []Shown
	damaged  int
	cas      int // samples of alerting signal heard
	muted    int // samples for which a type-II phone listens only

	lamp     bool
	metered  int
	busyFrom time.Time
}

func newPhone(w *world, ch int, o PhoneOptions) *Phone {
	plan, ok := PlanOf(o.Country)
	if !ok {
		plan, _ = PlanOf("us")
	}
	switch {
	case o.Bounce == 0:
		o.Bounce = 8 * time.Millisecond
	case o.Bounce < 0:
		o.Bounce = 0
	}
	if o.Name == "" {
		o.Name = fmt.Sprintf("phone %d", ch)
	}
	o.Keying = o.Keying.filled()
	if o.Script.SpeakDBm0 == 0 {
		o.Script.SpeakDBm0 = -16
	}
	p := &Phone{w: w, ch: ch, opt: o, ear: newEar(plan), battery: true,
		hook: contact{bounce: o.Bounce, closed: o.OffHook, rng: rand.New(rand.NewPCG(o.Seed, uint64(ch)))}}
	p.fsk = [2]*fskReceiver{newFSKReceiver(bell202), newFSKReceiver(v23)}
	for _, hz := range o.Watch {
		p.ear.watch(hz)
	}
	return p
}

// Name is the phone's name for people.
func (p *Phone) Name() string { return p.opt.Name }

func (p *Phone) locked(f func()) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	f()
}

// Lift takes the receiver off. Lifting a lifted receiver does nothing.
func (p *Phone) Lift() { p.locked(p.lift) }

func (p *Phone) lift() {
	if off, _ := p.hook.settled(p.w.ms); !off {
		p.hook.move(p.w.ms+1, true)
	}
}

// HangUp puts the receiver back and forgets what was still to be dialled or said.
func (p *Phone) HangUp() { p.locked(p.hangUp) }

func (p *Phone) hangUp() {
	p.mouth, p.tone = nil, nil
	p.hook.plan = nil
	if p.hook.closed {
		p.hook.move(p.w.ms+1, false)
	}
}

// Flash presses the hook for so long.
func (p *Phone) Flash(long time.Duration) {
	p.locked(func() { p.hook.open(p.w.ms+1, long) })
}

// OpenLoop interrupts the loop exactly so long, without bounce.
func (p *Phone) OpenLoop(long time.Duration) {
	p.locked(func() {
		_, at := p.hook.settled(p.w.ms + 1)
		p.hook.clean(at, false)
		p.hook.clean(at+uint64(long/time.Millisecond), true)
	})
}

// Wet closes the loop of an on-hook phone for so long, as a caller-ID phone in
// the United Kingdom does after the alerting signal (BT SIN 242).
func (p *Phone) Wet(long time.Duration) {
	p.locked(func() {
		p.hook.clean(p.w.ms+1, true)
		p.hook.clean(p.w.ms+1+uint64(long/time.Millisecond), false)
	})
}

// Dial sends digits as the phone's Keying says, or in another way if one is given.
func (p *Phone) Dial(digits string, k ...Keying) error {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	how := p.opt.Keying
	if len(k) > 0 {
		how = k[0].filled()
	}
	if how.Pulse {
		if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
			return fmt.Errorf("pulse digit %q: not 0-9", digits[i])
		}
		for _, d := range digits {
			n := int(d - '0')
			if n == 0 {
				n = 10
			}
			p.hook.pulses(p.w.ms+1, n, how)
		}
		return nil
	}
	pcm, err := DTMF(digits, how)
	p.mouth = append(p.mouth, pcm...)
	return err
}

// Say plays samples (8 kHz) into the line after what is being said already.
func (p *Phone) Say(pcm []int16) {
	p.locked(func() { p.mouth = append(p.mouth, pcm...) })
}

// Speak says a steady tone until it is called again; 0 Hz is silence.
func (p *Phone) Speak(hz, level float64) { p.locked(func() { p.speak(hz, level) }) }

func (p *Phone) speak(hz, level float64) {
	p.tone = nil
	if hz > 0 {
		s := newSine(hz, level)
		p.tone = &s
	}
}

// SetScript replaces what the person does on his own.
func (p *Phone) SetScript(s Script) {
	p.locked(func() {
		if s.SpeakDBm0 == 0 {
			s.SpeakDBm0 = -16
		}
		p.opt.Script = s
	})
}

// loop is called by the card once a millisecond.
func (p *Phone) loop(f feed) (closed bool) {
	p.bell(f)
	p.battery, p.reversed = f.battery || f.ring, f.reversed
	closed = p.hook.step(p.w.ms)
	s := &p.opt.Script
	if n := len(p.rings); !closed && s.AnswerRing > 0 && p.ringCall >= s.AnswerRing && n > 0 {
		// The burst at which he lifts may be past already when Delay is long.
		at := p.rings[n-1-(p.ringCall-s.AnswerRing)].ms + uint64(s.Delay/time.Millisecond)
		if p.w.ms >= at {
			p.ringCall = 0
			p.lift()
		}
	}
	return closed
}

func (p *Phone) bell(f feed) {
	n := len(p.rings)
	if f.ring != p.ringing {
		p.ringing = f.ring
		if f.ring {
			if n > 0 {
				p.rings[n-1].Off = time.Duration(p.quiet) * time.Millisecond
			}
			if n == 1000 {
				p.rings = append(p.rings[:0], p.rings[1:]...)
			}
			p.rings = append(p.rings, Ring{At: p.w.now, Hz: f.ringHz, ms: p.w.ms})
			p.ringCall++
			p.w.tell(p.ch, "%s rings (%d)", p.opt.Name, p.ringCall)
		}
		p.quiet = 0
	}
	switch {
	case p.ringing:
		p.rings[len(p.rings)-1].On += time.Millisecond
	default:
		if p.quiet++; p.quiet == 7000 {
			p.ringCall = 0
		}
	}
}

// audio is called by the card once a tick, after the milliseconds of the tick.
func (p *Phone) audio(toPhone, fromPhone []int16) {
	clear(fromPhone)
	off := p.hook.closed
	if off != p.wasOff {
		p.wasOff = off
		p.moved(off)
	}
	if !off {
		p.display(toPhone)
		return
	}
	p.ear.hear(p.w.now, toPhone)
	p.alerted(toPhone)
	if p.muted > 0 {
		p.muted -= len(fromPhone)
	}
	for i := range fromPhone {
		switch {
		case len(p.mouth) > 0:
			fromPhone[i] = p.mouth[0]
			p.mouth = p.mouth[1:]
		case p.tone != nil && p.muted <= 0:
			fromPhone[i] = clip(p.tone.next())
		}
	}
	p.act()
}

func (p *Phone) moved(off bool) {
	if _, at := p.hook.settled(p.w.ms); at > p.w.ms+50 {
		return // a pulse or flash: the person has not moved the receiver
	}
	if off == p.inUse {
		return // the end of a flash
	}
	p.inUse = off
	if off {
		p.lifted, p.busyFrom = p.w.now, time.Time{}
		p.ringCall = 0
		p.w.tell(p.ch, "%s lifted", p.opt.Name)
		if p.opt.Script.SpeakHz > 0 && p.tone == nil {
			p.speak(p.opt.Script.SpeakHz, p.opt.Script.SpeakDBm0)
		}
		return
	}
	p.ear.deaf()
	p.w.tell(p.ch, "%s hung up", p.opt.Name)
}

// act lets the script end the call.
func (p *Phone) act() {
	s := p.opt.Script
	if s.HangUpAfter > 0 && p.w.now.Sub(p.lifted) >= s.HangUpAfter {
		p.hangUp()
	}
	if p.ear.now != BusyTone && p.ear.now != CongestionTone {
		p.busyFrom = time.Time{}
		return
	}
	if p.busyFrom.IsZero() {
		p.busyFrom = p.w.now
	}
	if s.HangUpOnBusy > 0 && p.w.now.Sub(p.busyFrom) >= s.HangUpOnBusy {
		p.hangUp()
	}
}

// display is the caller-ID receiver of an on-hook phone.
func (p *Phone) display(pcm []int16) {
	if Level(pcm) > -45 && !p.ringing {
		if p.carrier == 0 {
			p.carrier = p.w.ms
		}
		p.quietSig = 0
		for i, r := range p.fsk {
			p.power[i] += goertzel(pcm, r.m.mark) + goertzel(pcm, r.m.space)
		}
	} else if p.quietSig += len(pcm); p.quietSig > 3200 {
		p.carrier, p.power = 0, [2]float64{}
		if p.clipped != "" {
			p.show([]byte(p.clipped), "DTMF")
			p.clipped = ""
		}
	}
	p.demodulate(pcm)
	p.clip.feed(pcm, func(d byte) {
		if len(p.clipped) < 64 {
			p.clipped += string(d)
		}
	})
}

func (p *Phone) demodulate(pcm []int16) {
	for _, r := range p.fsk {
		// Each reads the other's signal too: its power says which it is.
		r.feed(pcm, func(msg []byte) {
			name := "Bell 202"
			if p.power[1] > p.power[0] {
				name = "V.23"
			}
			p.show(msg, name)
		}, func([]byte) { p.damaged++ })
	}
}

func (p *Phone) show(octets []byte, modem string) {
	s := Shown{Octets: octets, At: p.w.now, Rings: p.ringCall, Modem: modem}
	if modem == "DTMF" {
		// Danish and other forms: A<number>#, D<number>C, <number>#.
		s.Number = strings.Trim(p.clipped, "ABCD#")
	} else {
		id, err := ParseCallerID(octets)
		if err != nil {
			p.damaged++
			return
		}
		s.CallerID = id
		if id.MWI != nil {
			p.lamp = *id.MWI
		}
		p.clipped = ""
	}
	// Both modems may read one signal: it is shown once.
	if n := len(p.shown); n > 0 && p.w.now.Sub(p.shown[n-1].At) < 100*time.Millisecond && string(p.shown[n-1].Octets) == string(octets) {
		return
	}
	if n := len(p.rings); n > 0 && p.carrier > 0 {
		end := p.rings[n-1].ms + uint64(p.rings[n-1].On/time.Millisecond)
		s.AfterRing = time.Duration(p.carrier-min(end, p.carrier)) * time.Millisecond
	}
	if len(p.shown) == 256 {
		p.shown = append(p.shown[:0], p.shown[1:]...)
	}
	p.shown = append(p.shown, s)
	p.w.tell(p.ch, "%s shows caller %q %q", p.opt.Name, s.Number, s.Name)
}

// alerted watches for the alerting signal of type II in a call: 2130 + 2750 Hz
// for at least 50 ms. The phone answers it with DTMF D and is quiet for the data.
func (p *Phone) alerted(pcm []int16) {
	if !p.opt.TypeII {
		return
	}
	p.demodulate(pcm)
	if a, b := goertzel(pcm, 2130), goertzel(pcm, 2750); dBm0(a) > -32 && dBm0(b) > -32 && a+b > 0.7*meanSquare(pcm) {
		p.cas += len(pcm)
		return
	}
	if p.cas >= 400 {
		ack, _ := DTMF("D", Keying{On: 60 * time.Millisecond, Off: time.Millisecond})
		p.mouth = append(ack, p.mouth...)
		p.muted = sampleRate
	}
	p.cas = 0
}

// The waits below return when the thing is so, at once if it is so already, or
// with an error when ctx ends.

func (p *Phone) await(ctx context.Context, what string, ok func() bool) error {
	err := p.w.await(ctx, p.opt.Name+" "+what, ok)
	if err != nil {
		s := p.Snapshot()
		err = fmt.Errorf("%w (%s)", err, s)
	}
	return err
}

// WaitRing returns when the bell rings.
func (p *Phone) WaitRing(ctx context.Context) error {
	return p.await(ctx, "to ring", func() bool { return p.ringing })
}

// WaitRings returns when the bell has begun n bursts of one call.
func (p *Phone) WaitRings(ctx context.Context, n int) error {
	return p.await(ctx, fmt.Sprintf("to ring %d times", n), func() bool { return p.ringCall >= n })
}

// WaitQuiet returns when the bell has been silent for so long.
func (p *Phone) WaitQuiet(ctx context.Context, long time.Duration) error {
	return p.await(ctx, "to be quiet", func() bool { return !p.ringing && p.quiet >= uint64(long/time.Millisecond) })
}

// WaitOffHook returns when the receiver is off.
func (p *Phone) WaitOffHook(ctx context.Context) error {
	return p.await(ctx, "off-hook", func() bool { return p.wasOff && len(p.hook.plan) == 0 })
}

// WaitOnHook returns when the receiver is on.
func (p *Phone) WaitOnHook(ctx context.Context) error {
	return p.await(ctx, "on-hook", func() bool { return !p.wasOff && len(p.hook.plan) == 0 })
}

// WaitProgress returns when the user recognises a tone.
func (p *Phone) WaitProgress(ctx context.Context, want Progress) error {
	return p.await(ctx, "to hear "+want.String(), func() bool { return p.wasOff && p.ear.now == want })
}

// WaitDialTone returns when the user hears the dial tone of his country.
func (p *Phone) WaitDialTone(ctx context.Context) error { return p.WaitProgress(ctx, DialTone) }

// WaitTone returns when hz has been audible for 40 ms. The tone is watched from then on.
func (p *Phone) WaitTone(ctx context.Context, hz float64) error {
	return p.await(ctx, fmt.Sprintf("to hear %.0f Hz", hz), func() bool {
		p.ear.watch(hz)
		return p.wasOff && p.ear.audible(hz)
	})
}

// WaitNoTone returns when hz has not been audible for 100 ms.
func (p *Phone) WaitNoTone(ctx context.Context, hz float64) error {
	return p.await(ctx, fmt.Sprintf("not to hear %.0f Hz", hz), func() bool {
		return heardNothingSince(p.ear.watch(hz).log, p.w.now.Add(-100*time.Millisecond)) && !p.ear.audible(hz)
	})
}

func heardNothingSince(l AudioLog, t time.Time) bool {
	last, ok := l.Last()
	return !ok || last.Before(t)
}

// WaitCallerID returns the first caller ID that is shown after the n-th.
func (p *Phone) WaitCallerID(ctx context.Context, n int) (Shown, error) {
	var s Shown
	err := p.await(ctx, "to show a caller", func() bool {
		if len(p.shown) <= n {
			return false
		}
		s = p.shown[n]
		return true
	})
	return s, err
}

// WaitSaid returns when everything that was to be dialled or said has been.
func (p *Phone) WaitSaid(ctx context.Context) error {
	return p.await(ctx, "to end speaking", func() bool { return len(p.mouth) == 0 && len(p.hook.plan) == 0 })
}

// Watch follows a frequency from now on: see Log.
func (p *Phone) Watch(hz float64) { p.locked(func() { p.ear.watch(hz) }) }

// Log says when hz was audible at the phone since it is watched.
func (p *Phone) Log(hz float64) (l AudioLog) {
	p.locked(func() { l = p.ear.log(hz) })
	return l
}

// Heard tells whether hz stands out in what the phone heard in the last 40 ms.
func (p *Phone) Heard(hz float64) (yes bool) {
	p.locked(func() { yes = p.wasOff && p.ear.audible(hz) })
	return yes
}

// Recording returns what was heard while off-hook, at most the last two minutes.
func (p *Phone) Recording() (pcm []int16) {
	p.locked(func() { pcm = p.ear.recording() })
	return pcm
}

// Rings returns the bursts of the bell, at most the last 1000.
func (p *Phone) Rings() (r []Ring) {
	p.locked(func() {
		r = append(r, p.rings...)
		if n := len(r); n > 0 && !p.ringing {
			r[n-1].Off = time.Duration(p.quiet) * time.Millisecond
		}
	})
	return r
}

// CallerIDs returns what the display has shown, and how many messages arrived damaged.
func (p *Phone) CallerIDs() (shown []Shown, damaged int) {
	p.locked(func() { shown, damaged = append(shown, p.shown...), p.damaged })
	return shown, damaged
}

// PhoneSnapshot is a phone at one instant.
type PhoneSnapshot struct {
	Name     string
	OffHook  bool
	Ringing  bool
	Rings    int // bursts of the present call
	Hears    Hearing
	Speaks   float64 // Hz, 0 none
	Caller   *CallerID
	Lamp     bool // message waiting
	Metered  int  // metering pulses
	Battery  bool
	Reversed bool
}

func (s PhoneSnapshot) String() string {
	state := "on-hook"
	switch {
	case s.OffHook:
		state = "off-hook, hears " + s.Hears.String()
	case s.Ringing:
		state = fmt.Sprintf("rings (%d)", s.Rings)
	}
	return s.Name + ": " + state
}

// Snapshot returns the present state.
func (p *Phone) Snapshot() (s PhoneSnapshot) {
	p.locked(func() {
		s = PhoneSnapshot{Name: p.opt.Name, OffHook: p.wasOff, Ringing: p.ringing, Rings: p.ringCall,
			Hears: p.ear.hearing(), Lamp: p.lamp, Metered: p.metered, Battery: p.battery, Reversed: p.reversed}
		if p.tone != nil && p.wasOff {
			s.Speaks = p.tone.hz
		}
		if n := len(p.shown); n > 0 {
			id := p.shown[n-1].CallerID
			s.Caller = &id
		}
	})
	return s
}
