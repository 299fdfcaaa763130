package call

import (
	"time"

	"localloop/internal/sdp"
)

// action is one thing for the runner to do. Actions are done in order.
type action interface{ action() }

type (
	// doSend sends an event that carries no description of ours.
	doSend struct {
		leg string
		ev  Event
	}
	// doDial asks the bridge for an offer and dials. The runner reports dialed or
	// fault.
	doDial struct{ target Target }
	// doProgress sends 18x to the caller, with our answer when media is wanted.
	doProgress struct{ ringing, media bool }
	// doAnswer sends our answer to the leg's offer (or, for an offerless
	// caller, our offer).
	doAnswer struct{ leg string }
	// doAnswered gives the bridge the peer's answer. An early one that cannot be
	// used costs the early media only: the runner reports undescribed.
	doAnswered struct {
		leg   string
		desc  *sdp.Description
		early bool
	}
	// doConfirm tells the bridge that the peer's answer is final.
	doConfirm struct{ leg string }
	// doReoffered gives the bridge the peer's new offer and sends our answer, or
	// refuses it. The runner reports agreed if it was accepted.
	doReoffered struct {
		leg     string
		offer   *sdp.Description
		profile sdp.Profile
		hold    bool
	}
	// doMove asks the bridge for an offer in the realm of the profile and sends
	// it as an Update.
	doMove struct {
		leg     string
		profile sdp.Profile
	}
	// doRelocate asks the machine to move the leg, once what stands before it in
	// the list has gone well.
	doRelocate struct {
		leg     string
		profile sdp.Profile
	}
	doJoin struct{ a, b string }
	doPlay struct {
		leg  string
		tone Tone
	}
	doDigit struct {
		leg string
		d   Digit
	}
	doDrop  struct{ leg string }
	doStart struct {
		t timer
		d time.Duration
	}
	doStop struct{ t timer }
	// doNote writes into the summary.
	doNote struct{ f func(*Summary) }
	// doTrouble tells the outside that local voice of this leg's trunk is broken.
	doTrouble struct{ leg, why string }
	// doEnd closes the voice and the record.
	doEnd struct {
		cause   Cause
		reason  string
		endedBy string
	}
)

func (doSend) action()      {}
func (doDial) action()      {}
func (doProgress) action()  {}
func (doAnswer) action()    {}
func (doAnswered) action()  {}
func (doConfirm) action()   {}
func (doReoffered) action() {}
func (doMove) action()      {}
func (doRelocate) action()  {}
func (doJoin) action()      {}
func (doPlay) action()      {}
func (doDigit) action()     {}
func (doDrop) action()      {}
func (doStart) action()     {}
func (doStop) action()      {}
func (doNote) action()      {}
func (doTrouble) action()   {}
func (doEnd) action()       {}
