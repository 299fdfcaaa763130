package analog

import (
	"time"

	"localloop/internal/call"
)

// inputKind is what happens to a line; act kinds what is to be done. Both are
// shared by FXS and FXO.
type inputKind uint8

const (
	inUp          inputKind = iota // the card reports the present state: offHook
	inDown                         // card or line out of service: cause, text
	inTimer                        // the line's one timer
	inCall                         // a call for the line
	inAnswer                       // from the call
	inRelease                      // from the call: cause
	inOffHook                      // FXS
	inOnHook                       // FXS
	inDigit                        // FXS: digit, by DTMF or pulses
	inRingOn                       // FXS: the phone rings; FXO: a burst began
	inRingOff                      // FXO: a burst ended: wait is its length
	inRingDone                     // FXS
	inRefused                      // the card refused or did not answer a command: text
	inCallerID                     // FXO: caller ID was received
	inDialTone                     // FXO: the exchange gives dial tone
	inBusy                         // FXO: busy tone
	inCongest                      // FXO: congestion or special information tone
	inRingback                     // FXO: ringback heard
	inRingbackEnd                  // FXO: ringback is over
	inSent                         // FXO: all digits are sent
	inReversed                     // FXO: polarity differs from that at rest
	inNormal                       // FXO: polarity as at rest
	inOpen                         // FXO: the loop has opened
	inClosed                       // FXO: the loop is closed again: wait is how long it was open
)

type input struct {
	kind    inputKind
	digit   byte
	offHook bool
	cause   call.Cause
	text    string
	wait    time.Duration
}

type actKind uint8

const (
	doTimer    actKind = iota // set the line's timer to wait, or stop it when 0
	doStream                  // PCM on or off
	doTone                    // tone from now on; toneNone leaves the line to the call
	doCollect                 // dial tone and digit receiver
	doQuiet                   // end dial tone, go on receiving
	doRing                    // ring with caller ID
	doRingStop                //
	doHook                    // FXO: off-hook (on) or on-hook
	doListen                  // FXO: detectors on
	doDial                    // FXO: send text as digits
	doSetup                   // a new leg: text is the called number
	doAdopt                   // the call's leg is the line's now
	doRefuse                  // release the call's leg with cause; the line is not touched
	doProgress                // on: ringing
	doAnswer
	doRelease // end the leg: cause, text
)

type act struct {
	kind  actKind
	on    bool
	wait  time.Duration
	tone  toneKind
	cause call.Cause
	text  string
}

// toneKind is what the box itself sounds on a line.
type toneKind uint8

const (
	toneNone    toneKind = iota // nothing of ours: the line is the call's
	toneSilence                 // silence of ours: the line is not the call's
	toneBusy
	toneCongestion
	toneHowler
)
