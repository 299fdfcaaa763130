package analog

import (
	"time"

	"localloop/internal/call"
)

// Times of an FXO line.
const (
	// ringGoneTime: a ring is forgotten when no burst came for 8 s: the longest
	// cadence is 6 s. As DAHDI has it.
	ringGoneTime = 8 * time.Second
	// ringSplash is the longest burst that may be an alert before caller ID
	// (RP-AS, 200-300 ms) rather than a call, A-22.
	ringSplash = 350 * time.Millisecond
	// callerIDTime is how long after the first burst caller ID may still begin
	// and end: the silent interval of the shortest cadences, A-23.
	callerIDTime = 2500 * time.Millisecond
	// dialToneTime is how long the exchange has for dial tone, A-25.
	dialToneTime = 5 * time.Second
	// sendTime limits the sending of digits.
	sendTime = 15 * time.Second
	// noRingbackTime: without ringback, voice, tone or reversal the far end
	// counts as answered: an exchange that says nothing gives no better sign.
	noRingbackTime = 20 * time.Second
	// answerTime is how long after the end of ringback busy tone or congestion may
	// still show that it was not an answer.
	answerTime = 1500 * time.Millisecond
	// cpcTime is the shortest open loop that means release (250-1000 ms); a
	// shorter one is a glitch, A-29.
	cpcTime = 250 * time.Millisecond
	// guardTime is from on-hook to the next seizure: exchanges need as long to
	// see the release.
	guardTime = 1500 * time.Millisecond
)

type fxoState uint8

const (
	fxoDown fxoState = iota
	fxoIdle
	fxoBurst   // first burst: wait for caller ID or the second
	fxoOffered // incoming call reported
	fxoCaught  // incoming call reported, line already off-hook (glare)
	fxoRefused // incoming call was refused: wait until it stops ringing
	fxoSeizing // wait for dial tone
	fxoSending // digits
	fxoWaiting // for the answer
	fxoTalking
	fxoGuard
)

func (s fxoState) String() string {
	return [...]string{"out of service", "idle", "ring", "ringing", "caught", "refused", "seizing",
		"dialling", "waiting", "in call", "guard"}[s]
}

// fxo is the state of an FXO line. next is its only transition, without side
// effects.
//
//	        ring on            caller ID, 2nd ring, 2.5 s           answer
//	idle ────────────▶ burst ─────────────────────────▶ offered ─────────────▶ talking
//	 │ ▲                 │ 8 s without ring               │ refused ▶ refused ▶ idle (ring gone)
//	 │ │ 1.5 s           ▼                                │
//	 │ guard ◀──────── (idle)                             │
//	 │   ▲  release, busy tone, loop open, no dial tone   │
//	 │   └──────┬─────────────┬────────────┬──────────────┴── talking
//	 │ call     │             │            │
//	 └────▶ seizing ──dial tone──▶ sending ──sent──▶ waiting ──answer──▶ talking
//	            │ ring: glare
//	            ▼
//	          caught ──answer──▶ talking
//
// Answer supervision, in order of trust: reversal; the end of ringback,
// when something else is heard or its pause lasts too long; or no tone at all
// for 20 s. Only the reversal is a signal of the exchange, the others are guesses
// from the voice path. Voice and fax tones as signs of answer are not there yet.
type fxo struct {
	state    fxoState
	number   string // to dial
	reversed bool   // the exchange answered by reversal
	ringback bool   // ringback was heard
	open     bool   // the loop is open: the timer is the disconnect's
	splash   bool   // only a short burst so far
}

func (s fxo) next(in input) (fxo, []act) {
	switch in.kind {
	case inDown:
		var acts []act
		if s.hasLeg() {
			acts = append(acts, act{kind: doRelease, cause: in.cause, text: in.text})
			if s.state != fxoOffered {
				acts = append(acts, act{kind: doHook}) // the fault may be the line's alone
			}
		}
		return fxo{state: fxoDown}, append(acts, act{kind: doStream}, act{kind: doTimer})
	case inCall:
		if s.state != fxoIdle {
			cause := call.NoCircuit
			if s.state == fxoDown {
				cause = call.DestinationDown
			}
			return s, []act{{kind: doRefuse, cause: cause}}
		}
		return fxo{state: fxoSeizing, number: in.text}, []act{{kind: doAdopt}, {kind: doStream, on: true}, {kind: doTone, tone: toneSilence},
			{kind: doListen}, {kind: doHook, on: true}, {kind: doTimer, wait: dialToneTime}}
	case inRefused:
		if s.state != fxoDown && s.state != fxoIdle && s.state != fxoGuard {
			return s.hangUp(call.NoCircuit, "card refuses: "+in.text)
		}
		return s, nil
	case inRelease:
		return s.released(in.cause)
	}
	switch s.state {
	case fxoDown:
		if in.kind == inUp {
			// An exchange needs the guard time also after a restart of the card.
			return fxo{state: fxoGuard}, []act{{kind: doTimer, wait: guardTime}}
		}
	case fxoIdle:
		if in.kind == inRingOn {
			return fxo{state: fxoBurst}, []act{{kind: doStream, on: true}, {kind: doTone, tone: toneSilence},
				{kind: doListen}, {kind: doTimer, wait: ringGoneTime}}
		}
	case fxoGuard:
		if in.kind == inTimer {
			return fxo{state: fxoIdle}, nil
		}
	case fxoBurst:
		return s.burst(in)
	case fxoOffered, fxoRefused:
		return s.offered(in)
	case fxoCaught:
		switch in.kind {
		case inAnswer:
			return fxo{state: fxoTalking}, []act{{kind: doTone, tone: toneNone}}
		case inBusy, inCongest, inOpen, inDialTone:
			return s.hangUp(call.OriginatorCancelled, "caller gave up")
		}
	case fxoSeizing:
		return s.seizing(in)
	case fxoSending:
		return s.sending(in)
	case fxoWaiting:
		return s.waiting(in)
	case fxoTalking:
		return s.talking(in)
	}
	return s, nil
}

func (s fxo) hasLeg() bool {
	switch s.state {
	case fxoOffered, fxoCaught, fxoSeizing, fxoSending, fxoWaiting, fxoTalking:
		return true
	}
	return false
}

// hangUp releases line and leg and guards the line.
func (s fxo) hangUp(cause call.Cause, text string) (fxo, []act) {
	acts := []act{{kind: doHook}, {kind: doStream}, {kind: doTimer, wait: guardTime}}
	if s.hasLeg() {
		acts = append(acts, act{kind: doRelease, cause: cause, text: text})
	}
	return fxo{state: fxoGuard}, acts
}

// released is the call's wish to end.
func (s fxo) released(cause call.Cause) (fxo, []act) {
	switch {
	case s.state == fxoOffered:
		// A ringing line cannot be refused; it rings until the caller gives up.
		return fxo{state: fxoRefused}, []act{{kind: doRelease, cause: cause}, {kind: doTimer, wait: ringGoneTime}}
	case s.hasLeg():
		return s.hangUp(cause, "")
	}
	return s, nil
}

// burst is the time between the first sign of ringing and the call's report.
func (s fxo) burst(in input) (fxo, []act) {
	offer := []act{{kind: doTimer, wait: ringGoneTime}, {kind: doSetup}}
	switch in.kind {
	case inRingOff:
		if in.wait < ringSplash {
			return fxo{state: fxoBurst, splash: true}, []act{{kind: doTimer, wait: ringGoneTime}}
		}
		return fxo{state: fxoBurst}, []act{{kind: doTimer, wait: callerIDTime}}
	case inCallerID:
		if !s.splash {
			return fxo{state: fxoOffered}, offer
		}
	case inRingOn:
		return fxo{state: fxoOffered}, offer
	case inTimer:
		if s.splash {
			return fxo{state: fxoIdle}, []act{{kind: doStream}, {kind: doTimer}}
		}
		return fxo{state: fxoOffered}, offer
	}
	return s, nil
}

func (s fxo) offered(in input) (fxo, []act) {
	switch in.kind {
	case inRingOn, inRingOff:
		return s, []act{{kind: doTimer, wait: ringGoneTime}}
	case inTimer:
		acts := []act{{kind: doStream}, {kind: doTimer}}
		if s.hasLeg() {
			acts = append(acts, act{kind: doRelease, cause: call.OriginatorCancelled, text: "caller gave up"})
		}
		return fxo{state: fxoIdle}, acts
	case inAnswer:
		if s.state == fxoOffered {
			return fxo{state: fxoTalking}, []act{{kind: doTimer}, {kind: doHook, on: true}, {kind: doTone, tone: toneNone}}
		}
	}
	return s, nil
}

func (s fxo) seizing(in input) (fxo, []act) {
	switch in.kind {
	case inRingOn:
		// Glare: the exchange was first, and our seizure has answered its call.
		// The incoming call wins, A-30; the line stays off-hook for it.
		return fxo{state: fxoCaught}, []act{
			{kind: doRelease, cause: call.NoCircuit, text: "line taken by an incoming call"},
			{kind: doTimer}, {kind: doSetup}}
	case inDialTone:
		return fxo{state: fxoSending, number: s.number}, []act{{kind: doDial, text: s.number}, {kind: doTimer, wait: sendTime}}
	case inTimer:
		return s.hangUp(call.NoCircuit, "no dial tone")
	case inBusy, inCongest:
		return s.hangUp(call.NoCircuit, "exchange refuses the seizure")
	}
	return s, nil
}

func (s fxo) sending(in input) (fxo, []act) {
	switch in.kind {
	case inSent:
		// Early media without ringing: the caller hears what the exchange says.
		return fxo{state: fxoWaiting}, []act{{kind: doTone, tone: toneNone}, {kind: doListen},
			{kind: doTimer, wait: noRingbackTime}, {kind: doProgress}}
	case inTimer:
		return s.hangUp(call.TemporaryFailure, "digits not sent")
	}
	return s, nil
}

func (s fxo) waiting(in input) (fxo, []act) {
	answered := func(reversed bool) (fxo, []act) {
		return fxo{state: fxoTalking, reversed: reversed}, []act{{kind: doTimer}, {kind: doAnswer}}
	}
	switch in.kind {
	case inReversed:
		return answered(true)
	case inRingback:
		s.ringback = true
		return s, []act{{kind: doTimer}}
	case inRingbackEnd:
		return s, []act{{kind: doTimer, wait: answerTime}}
	case inBusy:
		return s.hangUp(call.UserBusy, "busy tone")
	case inCongest:
		return s.hangUp(call.Congestion42, "congestion or information tone")
	case inTimer:
		if s.open {
			return s.hangUp(call.NormalClearing, "loop open")
		}
		return answered(false)
	}
	return s.loop(in)
}

func (s fxo) talking(in input) (fxo, []act) {
	switch in.kind {
	case inBusy, inCongest, inDialTone:
		return s.hangUp(call.NormalClearing, "release tone from the exchange")
	case inNormal:
		if s.reversed {
			return s.hangUp(call.NormalClearing, "polarity back")
		}
	case inTimer:
		if s.open {
			return s.hangUp(call.NormalClearing, "loop open")
		}
	}
	return s.loop(in)
}

// loop is the supervision of an off-hook line by its current. While waiting the
// timer that was running is lost with an open loop; it begins anew.
func (s fxo) loop(in input) (fxo, []act) {
	switch in.kind {
	case inOpen:
		s.open = true
		return s, []act{{kind: doTimer, wait: cpcTime}}
	case inClosed:
		s.open = false
		if in.wait >= cpcTime {
			return s.hangUp(call.NormalClearing, "loop open")
		}
		if s.state == fxoWaiting && !s.ringback {
			return s, []act{{kind: doTimer, wait: noRingbackTime}}
		}
		return s, []act{{kind: doTimer}}
	}
	return s, nil
}
