package analogtest

import (
	"encoding/binary"
)

// Line feed modes of LINEFEED.
const (
	feedForward = iota
	feedReverse
	feedOpen
	feedTipOpen
	feedForwardOHT
	feedReverseOHT
)

// timing is TIMING of §8.3, in ms.
type timing struct {
	debounce, pulseMin, pulseMax, pulseGap, flashMin, flashMax uint64
}

var defaultTiming = timing{5, 15, 100, 200, 200, 1000}

// fxsPort is a subscriber line: feed, ringing, ring trip, hook supervision and
// caller ID. One call of step is one millisecond.
type fxsPort struct {
	*channel
	phone *Phone

	feed     int
	before   int    // mode after a timed one
	revertAt uint64 // 0 never
	timing   timing
	failsafe byte

	// Hook: the debounced loop, and what was reported.
	offHook  bool
	loop     bool   // debounced
	raw      bool   // last sample
	rawSince uint64 // ms at which the loop took this position
	loopAt   uint64 // ms of the last debounced change
	reported bool   // the open loop under way has been reported as ONHOOK
	masked   bool   // the open loop under way began too soon after ringing
	ringEnd  uint64
	pulses   int
	meterIn  int // pulses still to be metered
	meterOn  int
	meterOff int
	meterAt  uint64
	metered  uint16

	ring   *ringing
	stored *callerIDMessage
	sender *cidSender
	slotTo uint64 // PCM reaches the on-hook phone until then
}

func newFXSPort(b *channel, o PhoneOptions) *fxsPort {
	p := &fxsPort{channel: b, phone: newPhone(b.w, b.i, o), timing: defaultTiming}
	p.offHook, p.loop, p.raw = o.OffHook, o.OffHook, o.OffHook
	return p
}

func (p *fxsPort) kind() Kind { return FXS }

func (p *fxsPort) capabilities() uint32 {
	caps := uint32(1<<0 | 1<<1 | 1<<2 | 1<<6 | 1<<7 | 1<<9)
	if !p.c.opt.NoFSK {
		caps |= 1 << 3
	}
	if !p.c.opt.NoOHT {
		caps |= 1 << 8
	}
	if p.c.opt.DTMFReceiver {
		caps |= 1 << 5
	}
	return caps
}

func (p *fxsPort) rest() {
	p.restChannel()
	p.stopRinging()
	p.stored, p.sender, p.slotTo = nil, nil, 0
	p.phone.lamp = false
	p.feed, p.revertAt, p.meterIn = feedForward, 0, 0
	p.timing, p.failsafe, p.pulses = defaultTiming, 0, 0
}

func (p *fxsPort) linkDown() {
	p.stopRinging()
	p.abortCallerID()
	p.stored, p.tone, p.slotTo, p.meterIn = nil, nil, 0, 0
	switch p.failsafe {
	case 0:
		// Reorder of the card's own, so that a lifted phone is not left in silence.
		p.tone = newPlayer(mustCadence("480+620/250,-/250"), 0, -18)
	case 1:
		p.feed, p.revertAt = feedOpen, 0
	}
}

func (p *fxsPort) failSafe() {}

func (p *fxsPort) state() (hook, ring, rev, fault byte) {
	return bit(p.offHook), bit(p.ring != nil), bit(p.feed == feedReverse || p.feed == feedReverseOHT), p.fault
}

func (p *fxsPort) open() bool { return p.feed == feedOpen || p.feed == feedTipOpen }

func (p *fxsPort) step() {
	ms := p.w.ms
	if p.revertAt != 0 && ms >= p.revertAt {
		p.feed, p.revertAt = p.before, 0
	}
	burst := p.stepRing()
	p.stepMeter()
	closed := p.phone.loop(feed{battery: !p.open(), reversed: p.feed == feedReverse || p.feed == feedReverseOHT,
		ring: burst, ringHz: p.ringHz()})
	p.stepHook(closed)
}

func (p *fxsPort) ringHz() int {
	if p.ring == nil {
		return 0
	}
	return p.ring.hz
}

// stepHook debounces the loop and reads lifts, pulses, flashes and hang-ups from it.
func (p *fxsPort) stepHook(closed bool) {
	ms, t := p.w.ms, p.timing
	if p.open() {
		// No feed, no current, no knowledge: the times begin anew after it.
		p.raw, p.rawSince, p.loopAt, p.pulses = p.loop, ms, ms, 0
		p.masked = false
		return
	}
	if closed != p.raw {
		p.raw, p.rawSince = closed, ms
	}
	if p.raw != p.loop && ms-p.rawSince >= t.debounce {
		was, at := p.loopAt, p.rawSince
		p.loop, p.loopAt = p.raw, at
		if p.loop {
			p.closed(at, at-was)
		} else {
			p.reported = false
			p.masked = p.ringEnd != 0 && at-p.ringEnd < 80
		}
	}
	long := ms - p.loopAt
	switch {
	case !p.offHook && p.loop && long >= 20:
		p.lifted()
	case p.offHook && !p.loop && !p.reported:
		limit := t.flashMax
		if limit == 0 {
			limit = 200
		}
		if p.masked {
			limit += 80
		}
		if long > limit {
			p.reported, p.offHook, p.pulses = true, false, 0
			if p.sender != nil && p.sender.offHook {
				p.abortCallerID()
				p.event(evCIDDone, 1)
			}
			p.eventAt(p.loopAt, evOnHook)
		}
	case p.offHook && p.loop && p.pulses > 0 && long >= t.pulseGap:
		p.event(evPulse, byte(min(p.pulses, 255)))
		p.pulses = 0
	}
}

// closed judges an open loop of so many milliseconds that has just ended.
func (p *fxsPort) closed(at, open uint64) {
	if !p.offHook || p.reported || p.masked && open < 80 {
		return
	}
	t := p.timing
	switch {
	case open < t.pulseMin:
	case open <= t.pulseMax:
		p.pulses++
	case t.flashMax != 0 && open >= t.flashMin && open <= t.flashMax:
		p.pulses = 0
		p.eventAt(at, evFlash, byte(open), byte(open>>8))
	}
}

func (p *fxsPort) lifted() {
	p.offHook = true
	var trip byte
	if p.ring != nil {
		trip = 1
		p.stopRinging()
	}
	if p.sender != nil && !p.sender.offHook {
		p.abortCallerID()
		p.event(evCIDDone, 1)
	}
	p.slotTo, p.pulses = 0, 0
	p.eventAt(p.loopAt, evOffHook, trip)
}

func (p *fxsPort) stopRinging() {
	if p.ring != nil && p.ring.burst {
		p.ringEnd = p.w.ms
	}
	p.ring = nil
}

func (p *fxsPort) command(id byte, args []byte) byte {
	if s, ok := p.common(id, args); ok {
		return s
	}
	le := binary.LittleEndian
	switch id {
	case cmdRing:
		return p.startRinging(args)
	case cmdRingStop:
		p.stopRinging()
		p.stored, p.slotTo = nil, 0
		if p.sender != nil && !p.sender.offHook {
			p.abortCallerID()
		}
	case cmdLinefeed:
		if len(args) < 3 || args[0] > feedReverseOHT {
			return stBadArgument
		}
		if p.c.opt.NoOHT && args[0] >= feedForwardOHT {
			return stUnsupported
		}
		mode, ms := int(args[0]), le.Uint16(args[1:])
		if p.ring != nil && (mode == feedOpen || mode == feedTipOpen) {
			return stWrongState
		}
		p.abortReversal()
		if p.revertAt == 0 {
			p.before = p.feed
		}
		p.feed, p.revertAt = mode, 0
		if ms > 0 {
			p.revertAt = p.w.ms + uint64(ms)
		}
	case cmdCallerID:
		return p.callerID(args)
	case cmdVMWI:
		if len(args) < 2 || args[0] > 1 || args[1] > 1 {
			return stBadArgument
		}
		p.phone.lamp = args[0] == 1
	case cmdMeter:
		if len(args) < 7 || args[2] > 1 {
			return stBadArgument
		}
		p.metered = le.Uint16(args)
		p.meterIn, p.meterOn, p.meterOff = int(p.metered), int(le.Uint16(args[3:])), int(le.Uint16(args[5:]))
		p.meterAt = p.w.ms
	case cmdTiming:
		if len(args) < 9 {
			return stBadArgument
		}
		t := timing{uint64(args[0]), uint64(args[1]), uint64(args[2]), uint64(le.Uint16(args[3:])),
			uint64(le.Uint16(args[5:])), uint64(le.Uint16(args[7:]))}
		if t.pulseMin >= t.pulseMax || t.flashMax > 2000 ||
			t.flashMax != 0 && (t.pulseMax > t.flashMin || t.flashMin > t.flashMax) {
			return stBadArgument
		}
		p.timing = t
	case cmdFailsafe:
		if len(args) < 1 || args[0] > 2 {
			return stBadArgument
		}
		if args[0] == 2 {
			return stUnsupported // no lifeline relay
		}
		p.failsafe = args[0]
	default:
		return stUnsupported
	}
	return stOK
}

// stepMeter lets the phone count one pulse at the end of each.
func (p *fxsPort) stepMeter() {
	if p.meterIn == 0 || p.w.ms < p.meterAt+uint64(p.meterOn+p.meterOff) {
		return
	}
	p.meterAt = p.w.ms
	p.phone.metered++
	if p.meterIn--; p.meterIn == 0 {
		p.event(evMeterDone, byte(p.metered), byte(p.metered>>8))
	}
}

// audio joins the wires and the phone. An on-hook phone hears the stream only in
// on-hook transmission or in a caller-ID slot; a ringing one hears nothing else.
func (p *fxsPort) audio(toLine, fromLine []int16) {
	through := p.offHook
	if !p.offHook {
		oht := p.feed == feedForwardOHT || p.feed == feedReverseOHT
		through = oht && p.ring == nil || p.w.ms < p.slotTo
	}
	if !through || p.open() {
		clear(toLine)
	}
	if p.sender != nil && !p.open() {
		p.sender.fill(p, toLine)
	}
	p.phone.audio(toLine, fromLine)
	if p.open() || !p.offHook && !p.phone.wasOff {
		clear(fromLine)
	}
	if p.sender != nil {
		p.sender.listen(fromLine)
	}
}
