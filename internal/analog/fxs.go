package analog

import (
	"time"

	"localloop/internal/call"
)

// Times of an FXS line. First and next digit as DAHDI has them; reorder and
// howler ITU-T E.180 §9, A-7.
const (
	firstDigitTime = 16 * time.Second
	nextDigitTime  = 8 * time.Second
	// longerTime waits for another digit when the number is complete but might go on.
	longerTime = 3 * time.Second
	// ringConfirmTime is how long the card may take from RING to its first burst;
	// an alert and caller ID before the first ring are within it.
	ringConfirmTime = 5 * time.Second
	// quietTime is the silence after the far end has hung up: people put the
	// phone down by themselves.
	quietTime   = 5 * time.Second
	reorderTime = 20 * time.Second
	howlerTime  = 40 * time.Second
	maxDigits   = 32
)

type fxsState uint8

const (
	fxsDown fxsState = iota
	fxsIdle
	fxsAlerting
	fxsRinging
	fxsDialTone
	fxsDigits
	fxsWaiting
	fxsTalking
	fxsQuiet
	fxsReorder
	fxsHowler
	fxsParked
)

func (s fxsState) String() string {
	return [...]string{"out of service", "idle", "alerting", "ringing", "dial tone", "collecting digits",
		"waiting", "in call", "released", "reorder", "howler", "parked"}[s]
}

// fxs is the state of an FXS line. next is its only transition; it has no side
// effects: what is to be done is returned.
//
//	             call                 ring on                off-hook
//	   idle ───────────▶ alerting ─────────────▶ ringing ───────────────┐
//	   ▲ │ off-hook          │ off-hook                                 ▼
//	   │ ▼                   └──────────────────────────────────────▶ talking
//	   │ dialTone ──digit──▶ digits ──complete──▶ waiting ──answer───▶  │
//	   │   │ 16 s              │ no match, 8 s      │ far end releases  │ far end releases
//	   │   ▼                   ▼                    ▼                   ▼
//	   │  reorder ◀──────────────────────────────── quiet (hung up) or tone (busy, congestion)
//	   │   │ 20 s ▶ howler ─ 40 s ▶ parked
//	   └───┴─────────── on-hook from every state
//
//	any ── link or line fault ──▶ down ── back ──▶ idle, or parked if off-hook
//
// Ringing leaves to idle also when the far end gives up or the card refuses.
type fxs struct {
	state  fxsState
	digits string
}

// rules are what of the configuration the transitions depend on.
type rules struct {
	hotline string
	// match judges digits dialled so far: 0 nothing, 1 part, 2 complete,
	// 3 complete and perhaps longer.
	match func(digits string) int
}

func (s fxs) next(in input, r rules) (fxs, []act) {
	switch in.kind {
	case inDown:
		var acts []act
		if s.hasLeg() {
			acts = append(acts, act{kind: doRelease, cause: in.cause, text: in.text})
		}
		return fxs{state: fxsDown}, append(acts, act{kind: doStream}, act{kind: doTimer})
	case inCall:
		if s.state != fxsIdle {
			return s, []act{{kind: doRefuse, cause: s.refusal()}}
		}
		return fxs{state: fxsAlerting}, []act{{kind: doAdopt}, {kind: doRing}, {kind: doTimer, wait: ringConfirmTime}}
	case inOnHook:
		return s.onHook()
	}
	switch s.state {
	case fxsDown:
		if in.kind == inUp {
			if in.offHook {
				return fxs{state: fxsParked}, nil
			}
			return fxs{state: fxsIdle}, nil
		}
	case fxsIdle:
		if in.kind == inOffHook {
			if r.hotline != "" {
				return fxs{state: fxsWaiting, digits: r.hotline}, []act{{kind: doStream, on: true},
					{kind: doTone, tone: toneNone}, {kind: doSetup, text: r.hotline}}
			}
			return fxs{state: fxsDialTone}, []act{{kind: doStream, on: true},
				{kind: doCollect}, {kind: doTimer, wait: firstDigitTime}}
		}
	case fxsAlerting, fxsRinging:
		return s.alerted(in)
	case fxsDialTone, fxsDigits:
		return s.dialled(in, r)
	case fxsWaiting:
		switch in.kind {
		case inAnswer:
			return fxs{state: fxsTalking}, nil
		case inRelease:
			return s.released(in.cause)
		}
	case fxsTalking:
		if in.kind == inRelease {
			return s.released(in.cause)
		}
	case fxsQuiet:
		if in.kind == inTimer {
			return fxs{state: fxsReorder}, []act{{kind: doTone, tone: toneCongestion}, {kind: doTimer, wait: reorderTime}}
		}
	case fxsReorder:
		if in.kind == inTimer {
			return fxs{state: fxsHowler}, []act{{kind: doTone, tone: toneHowler}, {kind: doTimer, wait: howlerTime}}
		}
	case fxsHowler:
		if in.kind == inTimer {
			return fxs{state: fxsParked}, []act{{kind: doStream}, {kind: doTimer}}
		}
	case fxsParked:
	}
	return s, nil
}

// hasLeg reports whether the state has a call.
func (s fxs) hasLeg() bool {
	switch s.state {
	case fxsAlerting, fxsRinging, fxsWaiting, fxsTalking:
		return true
	}
	return false
}

func (s fxs) refusal() call.Cause {
	if s.state == fxsDown {
		return call.DestinationDown
	}
	return call.UserBusy
}

func (s fxs) onHook() (fxs, []act) {
	switch s.state {
	case fxsDown, fxsIdle, fxsAlerting, fxsRinging:
		return s, nil // already on-hook: a repeat, or bounce while it rings
	}
	acts := []act{{kind: doStream}, {kind: doTimer}}
	if s.hasLeg() {
		acts = append(acts, act{kind: doRelease, cause: call.NormalClearing, text: "phone on-hook"})
	}
	return fxs{state: fxsIdle}, acts
}

// alerted is a phone that is to ring, or rings.
func (s fxs) alerted(in input) (fxs, []act) {
	stop := []act{{kind: doRingStop}, {kind: doTimer}}
	switch in.kind {
	case inRingOn:
		if s.state == fxsAlerting {
			return fxs{state: fxsRinging}, []act{{kind: doTimer}, {kind: doProgress, on: true}}
		}
	case inOffHook:
		// The card has tripped the ring; RING_STOP makes sure that a RING that
		// was still on its way does not ring an answered phone.
		return fxs{state: fxsTalking}, append(stop, act{kind: doStream, on: true},
			act{kind: doTone, tone: toneNone}, act{kind: doAnswer})
	case inRelease:
		return fxs{state: fxsIdle}, append(stop, act{kind: doStream}, act{kind: doRelease, cause: in.cause})
	case inRefused:
		return fxs{state: fxsIdle}, append(stop, act{kind: doStream}, act{kind: doRelease, cause: in.cause, text: "card refuses to ring: " + in.text})
	case inTimer:
		return fxs{state: fxsIdle}, append(stop, act{kind: doStream}, act{kind: doRelease, cause: call.DestinationDown, text: "card does not ring"})
	case inRingDone:
		return fxs{state: fxsIdle}, append(stop, act{kind: doStream}, act{kind: doRelease, cause: call.NoAnswer, text: "ringing ended"})
	}
	return s, nil
}

// dialled is a phone that hears dial tone or has begun to dial.
func (s fxs) dialled(in input, r rules) (fxs, []act) {
	var match int
	switch in.kind {
	case inDigit:
		end := in.digit == '#' && s.digits != ""
		if !end {
			s.digits += string(in.digit)
		}
		match = r.match(s.digits)
		switch {
		case end && match != 0, match == 2, len(s.digits) >= maxDigits && match == 3:
			return s.complete()
		case match == 3:
			return fxs{fxsDigits, s.digits}, []act{{kind: doQuiet}, {kind: doTimer, wait: longerTime}}
		case match == 1 && len(s.digits) < maxDigits:
			return fxs{fxsDigits, s.digits}, []act{{kind: doQuiet}, {kind: doTimer, wait: nextDigitTime}}
		}
	case inTimer:
		if s.digits != "" && r.match(s.digits) == 3 {
			return s.complete()
		}
	default:
		return s, nil
	}
	return fxs{state: fxsReorder}, []act{{kind: doTone, tone: toneCongestion}, {kind: doTimer, wait: reorderTime}}
}

func (s fxs) complete() (fxs, []act) {
	return fxs{fxsWaiting, s.digits}, []act{{kind: doTimer}, {kind: doTone, tone: toneNone}, {kind: doSetup, text: s.digits}}
}

// released is a phone off-hook whose call the far end has ended.
func (s fxs) released(cause call.Cause) (fxs, []act) {
	acts := []act{{kind: doRelease, cause: cause}}
	switch cause.Q850 {
	case call.NormalClearing.Q850:
		return fxs{state: fxsQuiet}, append(acts, act{kind: doTone, tone: toneSilence}, act{kind: doTimer, wait: quietTime})
	case call.UserBusy.Q850:
		return fxs{state: fxsReorder}, append(acts, act{kind: doTone, tone: toneBusy}, act{kind: doTimer, wait: reorderTime})
	}
	return fxs{state: fxsReorder}, append(acts, act{kind: doTone, tone: toneCongestion}, act{kind: doTimer, wait: reorderTime})
}
