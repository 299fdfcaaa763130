// Package cdr keeps call detail records: one Record a call, the last ones in
// memory, all of them as JSON lines in a file of bounded size.
//
// The main types are Record and Store. A full disk or a slow file never delays
// a call: records wait in a bounded queue and what does not fit is counted.
//
// Counters follow ITU-T E.425 (answer seizure ratio, network effectiveness
// ratio). Making records is left to package call and cmd/edged, showing them to
// package web, thresholds and alarms to a later part.
package cdr

import (
	"time"

	"localloop/internal/call"
)

// Record is one call from its Setup to its end. It is a value: who receives
// one must not change what it refers to.
type Record struct {
	ID string
	// Times are zero if the call did not get that far. Alert is the first sign
	// that the called party is alerted, toward the caller.
	Setup, Alert, Answer, End time.Time

	Source    string // trunk or line that the call came from
	Leg       string // name of the caller's leg
	Ref       string // its protocol identifier, for SIP the Call-ID
	Calling   call.Party
	Called    string // as received
	Emergency bool
	Attempts  []Attempt // targets tried, in order

	Cause      call.Cause
	Reason     string // for people
	ReleasedBy string // leg that ended the call, or "box"

	Teams *call.TeamsHeaders // nil unless a leg was a Teams trunk
	Voice []call.LegReport
}

// Attempt is one target that was tried.
type Attempt struct {
	Kind    call.TargetKind
	Name    string // trunk or line
	Number  string
	Leg     string
	Ref     string
	At      time.Time
	Alerted bool
	// Cause is why it failed; zero for the target that answered.
	Cause  call.Cause
	Reason string
}

// Answered reports whether two parties spoke.
func (r *Record) Answered() bool { return !r.Answer.IsZero() }

// PostDialDelay is the time from Setup to the first alerting, or to the answer
// of a party that was not alerted; zero if neither happened.
func (r *Record) PostDialDelay() time.Duration {
	switch {
	case !r.Alert.IsZero():
		return max(0, r.Alert.Sub(r.Setup))
	case r.Answered():
		return max(0, r.Answer.Sub(r.Setup))
	}
	return 0
}

// Duration is the time from answer to end; zero for a call that was not
// answered.
func (r *Record) Duration() time.Duration {
	if !r.Answered() || r.End.IsZero() {
		return 0
	}
	return max(0, r.End.Sub(r.Answer))
}

// MediaPath is "cloud" if the voice of any leg left the building, else "lan",
// or "line" when no leg was RTP; empty without voice.
func (r *Record) MediaPath() string {
	path, rank := "", 0
	for _, l := range r.Voice {
		for i, p := range []string{"line", "lan", "cloud"} {
			if l.MediaPath == p && i+1 > rank {
				path, rank = p, i+1
			}
		}
	}
	return path
}

// Outcome is what became of a call, in the terms of ITU-T E.425.
type Outcome uint8

// Outcomes.
const (
	Answered  Outcome = iota
	Busy              // user busy
	NoAnswer          // alerted, not answered; the caller giving up while it rang included
	Rejected          // by the called user
	Abandoned         // given up by the caller before any alerting
	BadNumber         // unallocated or incomplete
	Failed            // the network's fault or this box's
	outcomes
)

var outcomeNames = [outcomes]string{"answered", "busy", "noAnswer", "rejected", "abandoned", "badNumber", "failed"}

func (o Outcome) String() string {
	if o < outcomes {
		return outcomeNames[o]
	}
	return "failed"
}

// Outcome classifies the call by its times and its cause (ITU-T Q.850).
func (r *Record) Outcome() Outcome {
	alerted := !r.Alert.IsZero()
	switch {
	case r.Answered():
		return Answered
	case r.Cause.Q850 == 17:
		return Busy
	case r.Cause.Q850 == 16 && alerted, r.Cause.Q850 == 19, r.Cause.Q850 == 18 && alerted:
		return NoAnswer
	case r.Cause.Q850 == 16:
		return Abandoned
	case r.Cause.Q850 == 21 && r.Cause.Status != 403: // 403 is a refusal by us or by the network
		return Rejected
	case r.Cause.Q850 == 1, r.Cause.Q850 == 28:
		return BadNumber
	}
	return Failed
}

// Counters are totals since the start of the process.
type Counters struct {
	Calls [outcomes]uint64 // by Outcome

	Written     uint64 // records in the file
	Dropped     uint64 // records that the queue had no room for; they are in memory only
	WriteErrors uint64
	Rotations   uint64
	Skipped     uint64 // lines of the file that could not be read at start
}

// Attempts is the number of calls.
func (c Counters) Attempts() (n uint64) {
	for _, v := range c.Calls {
		n += v
	}
	return n
}

// ASR is the answer seizure ratio, from 0 to 1; ok is false without calls.
func (c Counters) ASR() (ratio float64, ok bool) {
	n := c.Attempts()
	if n == 0 {
		return 0, false
	}
	return float64(c.Calls[Answered]) / float64(n), true
}

// NER is the network effectiveness ratio, from 0 to 1: calls that reached their
// party, whatever the party did. Calls that the caller gave up before alerting
// and wrong numbers say nothing about the network and do not count.
func (c Counters) NER() (ratio float64, ok bool) {
	reached := c.Calls[Answered] + c.Calls[Busy] + c.Calls[NoAnswer] + c.Calls[Rejected]
	n := reached + c.Calls[Failed]
	if n == 0 {
		return 0, false
	}
	return float64(reached) / float64(n), true
}
