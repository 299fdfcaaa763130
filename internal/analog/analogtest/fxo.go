package analogtest

import (
	"encoding/binary"
	"time"
)

// fxoPort is the subscriber's end of a line to an exchange: a hook, and the
// detectors of ringing, polarity and current. One call of step is one millisecond.
type fxoPort struct {
	*channel
	ex *Exchange

	hook    contact // closed: off-hook
	flashTo uint64  // end of a flash or wink, 0 none
	action  byte
	dialTo  uint64 // end of pulse dialling, 0 none

	ringFor, quiet uint64 // ms of ringing, and without
	ringing        bool   // reported
	last           feed
	reversed       bool // reported
	polarityFor    uint64
	dead           uint64 // ms without battery
	open           bool   // LOOP_OPEN reported
	openAt         uint64
	lost           bool // BATTERY 0 reported
	parallel       bool // reported
}

func newFXOPort(b *channel, o ExchangeOptions) *fxoPort {
	return &fxoPort{channel: b, ex: newExchange(b.w, b.i, o)}
}

func (p *fxoPort) kind() Kind { return FXO }

func (p *fxoPort) capabilities() uint32 {
	caps := uint32(1<<2 | 1<<9 | 1<<13 | 1<<14)
	if p.c.opt.DTMFReceiver {
		caps |= 1 << 5
	}
	return caps
}

func (p *fxoPort) rest() {
	p.restChannel()
	p.release()
}

// release goes on-hook at once.
func (p *fxoPort) release() {
	p.hook.closed, p.hook.plan = false, nil
	p.flashTo, p.dialTo = 0, 0
	p.open = false
}

func (p *fxoPort) linkDown() { p.tone = nil }
func (p *fxoPort) failSafe() { p.release() }

func (p *fxoPort) state() (hook, ring, rev, fault byte) {
	fault = p.fault
	if fault == 0 && p.lost { // as BATTERY 0 says, so that BATTERY 1 will end it
		fault = 16
	}
	off, _ := p.hook.settled(p.w.ms)
	return bit(off), bit(p.ringing), bit(p.reversed), fault
}

func (p *fxoPort) step() {
	ms := p.w.ms
	closed := p.hook.step(ms)
	if p.flashTo != 0 && ms >= p.flashTo {
		p.flashTo = 0
		p.event(evHookDone, p.action)
	}
	if p.dialTo != 0 && ms >= p.dialTo {
		p.dialTo = 0
		p.event(evDialDone)
	}
	f := p.ex.loop(closed)
	p.detectRing(f)
	p.detectBattery(f, closed)
	if p.ex.parallel != p.parallel {
		p.parallel = p.ex.parallel
		p.event(evParallel, bit(p.parallel))
	}
	p.last = f
}

// detectRing wants 100 ms of ringing voltage, and 100 ms without at its end.
func (p *fxoPort) detectRing(f feed) {
	if f.ring {
		p.ringFor, p.quiet = p.ringFor+p.quiet+1, 0
		if p.ringFor >= 100 && !p.ringing {
			p.ringing = true
			p.eventAt(p.w.ms-p.ringFor+1, evRingOn, byte(f.ringHz))
		}
		return
	}
	if p.ringFor == 0 {
		return
	}
	if p.quiet++; p.quiet < 100 {
		return
	}
	if p.ringing {
		long := min(p.ringFor, 65535)
		p.eventAt(p.w.ms-p.quiet, evRingOff, byte(long), byte(long>>8))
	}
	p.ringing, p.ringFor, p.quiet = false, 0, 0
}

func (p *fxoPort) detectBattery(f feed, closed bool) {
	ms := p.w.ms
	settledOff, _ := p.hook.settled(ms)
	busy := p.flashTo != 0 || p.dialTo != 0 // our own interruptions are none of the exchange's
	if f.battery {
		switch {
		case p.open:
			p.open = false
			long := min(ms-p.openAt, 65535)
			p.event(evLoopClosed, byte(long), byte(long>>8))
		case p.lost:
			p.event(evBattery, 1)
		}
		p.lost, p.dead = false, 0
	} else if !f.ring {
		p.dead++
		switch {
		case settledOff && closed && !busy && !p.open && p.dead >= 64:
			p.open, p.openAt = true, ms-p.dead+1
			p.eventAt(p.openAt, evLoopOpen)
		case !settledOff && !p.lost && p.dead >= 1000:
			p.lost = true
			p.eventAt(ms-p.dead+1, evBattery, 0)
		}
	}
	if !f.battery || f.ring || f.reversed == p.reversed {
		p.polarityFor = 0
		return
	}
	if p.polarityFor++; p.polarityFor >= 20 {
		p.reversed, p.polarityFor = f.reversed, 0
		p.eventAt(ms-19, evPolarity, bit(p.reversed))
	}
}

func (p *fxoPort) command(id byte, args []byte) byte {
	if s, ok := p.common(id, args); ok {
		return s
	}
	le := binary.LittleEndian
	ms := p.w.ms
	off, _ := p.hook.settled(ms)
	switch id {
	case cmdHook:
		if len(args) < 3 || args[0] > 3 {
			return stBadArgument
		}
		long := uint64(le.Uint16(args[1:]))
		switch args[0] {
		case 0:
			p.release()
		case 1:
			if !off {
				p.hook.move(ms+1, true)
			}
		default:
			if p.flashTo != 0 || p.dialTo != 0 || off != (args[0] == 2) {
				return stWrongState // a flash opens a closed loop, a wink closes an open one
			}
			if long == 0 || long > 5000 {
				return stBadArgument
			}
			p.hook.clean(ms+1, !off)
			p.hook.clean(ms+1+long, off)
			p.action, p.flashTo = args[0], ms+1+long
		}
	case cmdDial:
		if len(args) < 5 || len(args) > 4+32 || args[0] == 0 || args[1] == 0 {
			return stBadArgument
		}
		for _, d := range args[4:] {
			if d < '0' || d > '9' {
				return stBadArgument
			}
		}
		if !off || p.dialTo != 0 || p.flashTo != 0 {
			return stWrongState
		}
		at := ms + 1
		for i, d := range args[4:] {
			if i > 0 {
				at += uint64(le.Uint16(args[2:]))
			}
			n := int(d - '0')
			if n == 0 {
				n = 10
			}
			for range n {
				p.hook.clean(at, false)
				p.hook.clean(at+uint64(args[0]), true)
				at += uint64(args[0]) + uint64(args[1])
			}
		}
		p.dialTo = at
	default:
		return stUnsupported
	}
	return stOK
}

// audio joins the wires and the exchange. On-hook the card listens too: that is
// where the exchange sends the caller ID.
func (p *fxoPort) audio(toLine, fromLine []int16) {
	if !p.hook.closed {
		clear(toLine)
	}
	p.ex.audio(toLine, fromLine)
	if p.last.ring || !p.last.battery {
		clear(fromLine)
	}
}

// pulseReader finds dial pulses and flashes in a loop, for the exchange.
type pulseReader struct {
	closed bool
	since  uint64
	count  int
}

// step takes one millisecond and returns a digit when the pause after it is over,
// or the length of a flash (150-1200 ms) when it ends.
func (r *pulseReader) step(ms uint64, closed bool) (digit byte, flash time.Duration) {
	if closed != r.closed {
		long := ms - r.since
		switch {
		case !closed:
		case long >= 15 && long < 150:
			r.count++
		case long >= 150 && long < 1200:
			flash = time.Duration(long) * time.Millisecond
			r.count = 0
		}
		r.closed, r.since = closed, ms
		return 0, flash
	}
	if closed && r.count > 0 && ms-r.since >= 200 {
		digit = '0' + byte(r.count%10)
		r.count = 0
	}
	return digit, 0
}
