package analog

import (
	"fmt"
	"time"

	"localloop/internal/analog/link"
)

// event takes a report of the card.
func (l *line) event(e link.Event) {
	switch e.ID {
	case link.State:
		l.snapshot(e)
		return
	case link.Fault:
		if e.On {
			l.down(fmt.Sprintf("line fault: %s", faultText(e.Value)))
		} else {
			l.query()
		}
		return
	}
	if l.exchange() {
		l.fromExchange(e)
	} else {
		l.fromPhone(e)
	}
}

func (l *line) snapshot(e link.Event) {
	if e.Value != 0 {
		l.down("line fault: " + faultText(e.Value))
		return
	}
	if l.exchange() {
		l.reversed = e.Reversed
		if l.free() {
			l.resting = e.Reversed
		}
	} else {
		l.offHook = e.On
	}
	l.feed(input{kind: inUp, offHook: e.On})
}

func (l *line) fromPhone(e link.Event) {
	switch e.ID {
	case link.OffHook:
		l.offHook = true
		l.feed(input{kind: inOffHook})
	case link.OnHook:
		l.offHook = false
		l.feed(input{kind: inOnHook})
	case link.Flash:
		l.flashes++
	case link.Pulse:
		if d := pulseDigit(e.Value, l.plan.Code); d != 0 {
			l.feed(input{kind: inDigit, digit: d})
		}
	case link.RingOn:
		l.feed(input{kind: inRingOn})
	case link.RingDone:
		l.feed(input{kind: inRingDone})
	case link.CIDSlot:
		l.slot(time.Duration(e.Millis) * time.Millisecond)
	}
}

func (l *line) fromExchange(e link.Event) {
	wait := time.Duration(e.Millis) * time.Millisecond
	switch e.ID {
	case link.RingOn:
		l.feed(input{kind: inRingOn})
	case link.RingOff:
		l.feed(input{kind: inRingOff, wait: wait})
	case link.Polarity:
		if l.free() {
			l.resting = e.On // swapped at the installation, A-32
		}
		l.reversed = e.On
		if e.On != l.resting {
			l.feed(input{kind: inReversed})
		} else {
			l.feed(input{kind: inNormal})
		}
	case link.LoopOpen:
		l.feed(input{kind: inOpen})
	case link.LoopClosed:
		l.feed(input{kind: inClosed, wait: wait})
	case link.Battery:
		if e.On {
			l.query()
		} else {
			l.down("line fault: " + faultText(link.FaultNoBattery))
		}
	case link.Parallel:
		switch {
		case !e.On:
			l.query()
		case l.fxo.state == fxoIdle || l.fxo.state == fxoGuard: // guard: also after a new session
			l.down("a phone in parallel is off-hook")
		}
	}
}

func faultText(kind uint8) string {
	switch kind {
	case 1:
		return "foreign voltage"
	case 2:
		return "short"
	case 3:
		return "power"
	case 4:
		return "thermal"
	case 5:
		return "hardware"
	case link.FaultNoBattery:
		return "no battery"
	}
	return fmt.Sprintf("kind %d", kind)
}
