package analog

import (
	"log/slog"
	"time"

	"localloop/internal/analog/link"
	"localloop/internal/call"
	"localloop/internal/config"
	"localloop/internal/dsp"
	"localloop/internal/sdp"
)

// Levels of tones toward a line, dBm0.
const (
	toneLevel   = -13.0
	howlerLevel = 0.0
)

// Times of DTMF sent to an exchange: above what Q.24 asks, A-26.
const (
	digitOn  = 80 * time.Millisecond
	digitOff = 80 * time.Millisecond
)

// line is one line of a card. It carries out what its state machine asks for.
// All of it belongs to the card's goroutine, but voice.
type line struct {
	card  *card
	conf  config.Line
	plan  *dsp.Plan
	voice *Voice
	log   *slog.Logger

	fxs fxs
	fxo fxo

	leg      *leg // the call on the line
	incoming *leg // a call that is being given to the machine
	deadline time.Time

	collect  *collector
	rings    uint64 // RING commands so far, to tell stale answers
	pcmCID   *dsp.FSK
	stream   *stream
	caller   call.Party // FXO: caller ID heard
	resting  bool       // FXO: polarity at rest
	reversed bool
	offHook  bool

	calls   uint64
	flashes uint64
	fault   string
	faultAt time.Time
}

func newLine(c *card, conf config.Line, v *Voice) *line {
	return &line{card: c, conf: conf, plan: plan(conf, c.bank.o.Box), voice: v,
		log: c.log.With("line", conf.Name)}
}

func (l *line) exchange() bool { return l.conf.Kind == "fxo" }

func (l *line) channel() uint8 { return uint8(l.conf.Channel) }

func (l *line) state() string {
	if l.exchange() {
		return l.fxo.state.String()
	}
	return l.fxs.state.String()
}

// serves reports that the line is in service.
func (l *line) serves() bool {
	if l.exchange() {
		return l.fxo.state != fxoDown
	}
	return l.fxs.state != fxsDown
}

// free reports that nothing goes on: the line may be changed or removed.
func (l *line) free() bool {
	if l.exchange() {
		return l.fxo.state == fxoIdle || l.fxo.state == fxoDown
	}
	return l.fxs.state == fxsIdle || l.fxs.state == fxsDown
}

// feed runs the state machine.
func (l *line) feed(in input) {
	before := l.state()
	var acts []act
	if l.exchange() {
		l.fxo, acts = l.fxo.next(in)
	} else {
		l.fxs, acts = l.fxs.next(in, rules{hotline: l.conf.Hotline, match: l.match})
	}
	for _, a := range acts {
		l.do(a)
	}
	if now := l.state(); now != before {
		l.log.Debug("line state", "from", before, "to", now)
		if l.free() {
			l.card.freed()
		}
	}
}

func (l *line) match(digits string) int {
	if p := l.card.bank.o.Plan; p != nil {
		return p.Complete(l.conf.Name, digits)
	}
	return 3
}

func (l *line) do(a act) {
	switch a.kind {
	case doTimer:
		l.deadline = time.Time{}
		if a.wait > 0 {
			l.deadline = time.Now().Add(a.wait)
		}
	case doStream:
		l.setStream(a.on)
	case doTone:
		l.sound(a.tone)
	case doCollect:
		l.startCollecting()
	case doQuiet:
		if l.collect != nil {
			l.collect.quiet.Store(true)
		}
	case doRing:
		l.ring()
	case doRingStop:
		l.rings++
		l.pcmCID = nil
		l.command(link.RingStop(), nil)
	case doHook:
		action := link.HookOn
		if a.on {
			action = link.HookOff
		}
		l.command(link.Hook(action, 0), l.refused)
		l.offHook = a.on
	case doListen:
		l.listen()
	case doDial:
		l.dial(a.text)
	case doSetup:
		l.setup(a.text)
	case doAdopt:
		l.leg, l.incoming.line = l.incoming, l
		l.calls++
	case doRefuse:
		l.incoming.release(a.cause, "line "+l.conf.Name+" "+l.state())
	case doProgress:
		p := call.Progress{Ringing: a.on}
		if !a.on {
			p.Answer = &sdp.Description{Line: l.conf.Name}
		}
		l.leg.emit(p)
	case doAnswer:
		l.leg.emit(call.Answer{Description: &sdp.Description{Line: l.conf.Name}})
	case doRelease:
		l.leg.release(a.cause, a.text)
		l.leg = nil
	}
}

// command sends a command; refused, if not nil, is told of a refusal.
func (l *line) command(b link.Body, refused func(link.Status)) {
	c := l.card
	err := c.session.Command(time.Now(), l.channel(), b, func(s link.Status) {
		if s == link.StatusOK || s == link.StatusLinkDown {
			return // a dead link tells all its lines by itself
		}
		l.log.Warn("line card refuses", "card", c.name, "command", b[0], "status", s.String())
		if refused != nil {
			c.post(func() { refused(s) }) // never from within the state machine
		}
	})
	if err != nil {
		l.log.Error("line card command", "card", c.name, "command", b[0], "error", err)
		if refused != nil {
			c.post(func() { refused(link.StatusHardware) })
		}
	}
}

func (l *line) refused(s link.Status) {
	cause := call.DestinationDown
	if s == link.StatusWrongState {
		cause = call.UserBusy // the phone was lifted meanwhile
	}
	l.feed(input{kind: inRefused, cause: cause, text: s.String()})
}

func (l *line) setStream(on bool) {
	c := l.card
	mask := uint32(1) << l.channel()
	if !on {
		l.voice.set(nil)
		l.voice.listen(nil)
		l.collect = nil
		if l.stream == nil {
			return
		}
		l.stream = nil
		c.streams[l.channel()].Store(nil)
		if err := c.session.StopStream(time.Now(), mask, nil); err != nil {
			l.log.Error("stop stream", "error", err)
		}
		return
	}
	if l.stream != nil || c.conn == nil {
		return
	}
	c.epoch += 0x1000
	s := &stream{seq: link.NewStream(c.epoch), law: c.law(), voice: l.voice, send: c.conn.SendVoice, channel: l.channel()}
	l.stream = s
	c.streams[l.channel()].Store(s)
	law := link.ALaw
	if s.law == dsp.MuLaw {
		law = link.MuLaw
	}
	err := c.session.StartStream(time.Now(), law, mask, c.epoch, func(st link.Status) {
		if st != link.StatusOK && st != link.StatusLinkDown {
			c.post(func() {
				if l.stream == s {
					l.down("line card refuses the stream: " + st.String())
				}
			})
		}
	})
	if err != nil {
		l.log.Error("start stream", "error", err)
	}
}

func (l *line) sound(k toneKind) {
	l.collect = nil
	switch k {
	case toneNone:
		l.voice.set(nil)
	case toneSilence:
		l.voice.set(sounder{})
	case toneBusy:
		l.voice.set(sounder{dsp.NewTone(l.plan.Busy, toneLevel)})
	case toneCongestion:
		l.voice.set(sounder{dsp.NewTone(l.plan.Congestion, toneLevel)})
	case toneHowler:
		l.voice.set(sounder{dsp.NewTone(howler(), howlerLevel)})
	}
}

// howler is what tells people that the phone is off-hook: four tones at once,
// as exchanges of several countries send it.
func howler() dsp.Cadence {
	return dsp.Cadence{Loop: []dsp.Step{
		{Hz: []float64{1400, 2060, 2450, 2600}, Duration: 100 * time.Millisecond},
		{Duration: 100 * time.Millisecond}}}
}

func (l *line) startCollecting() {
	var k *collector
	k = newCollector(dsp.NewTone(l.plan.Dial, toneLevel), func(d byte) { // in the reader's goroutine
		l.card.post(func() {
			if l.collect == k {
				l.feed(input{kind: inDigit, digit: d})
			}
		})
	})
	l.collect = k
	l.voice.set(k)
}

func (l *line) dial(digits string) {
	stream := l.stream
	d := &dialler{sender: dsp.NewDTMFSender(l.plan.DTMFHigh, l.plan.DTMFLow)}
	d.sent = func() { // in the reader's goroutine
		l.card.post(func() {
			if l.stream == stream {
				l.feed(input{kind: inSent})
			}
		})
	}
	if err := d.sender.Queue(digits, digitOn, digitOff); err != nil {
		l.card.post(func() {
			l.feed(input{kind: inRefused, cause: call.UnallocatedNumber, text: err.Error()})
		})
		return
	}
	l.voice.set(d)
}

// setup reports a call from the line.
func (l *line) setup(called string) {
	g := l.card.bank.leg(l.conf.Name, l.card.post)
	g.line, l.leg = l, g
	l.calls++
	s := call.Setup{
		Calling: call.Party{Number: l.conf.Number, Name: l.conf.Display},
		Called:  called,
		Source:  l.conf.Name,
		Offer:   &sdp.Description{Line: l.conf.Name},
		Profile: l.conf.Profile(l.card.bank.o.Box),
		Ref:     g.name,
	}
	if l.exchange() {
		s.Calling, s.Called = l.caller, l.conf.Number
		l.caller = call.Party{}
	}
	g.emit(s)
	l.card.bank.o.Accept(g)
}

// offer gives the line a call from the box.
func (l *line) offer(g *leg, number string) {
	l.incoming = g
	l.feed(input{kind: inCall, text: number})
	l.incoming = nil
}

// fromCall takes what the call sends to its leg.
func (l *line) fromCall(g *leg, e call.Event) {
	if g != l.leg {
		return
	}
	switch e := e.(type) {
	case call.Answer:
		l.feed(input{kind: inAnswer})
	case call.Release:
		l.feed(input{kind: inRelease, cause: e.Cause, text: e.Reason})
	case call.Update:
		// A line has one kind of voice and the bridge holds it: nothing to negotiate.
		g.emit(call.Answer{Description: &sdp.Description{Line: l.conf.Name}})
	}
}

// down takes the line out of service.
func (l *line) down(text string) {
	l.fault, l.faultAt = text, time.Now()
	l.feed(input{kind: inDown, cause: call.DestinationDown.With("%s", text), text: text})
}

// query asks for the present state, which brings the line back.
func (l *line) query() { l.command(link.Query(), nil) }
