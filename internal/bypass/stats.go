package bypass

import (
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/pion/ice/v2"
)

// outcome is what became of a datagram.
type outcome int

const (
	outAnswered outcome = iota
	// Dropped before authentication, in silence.
	outMalformed
	outNotRequest
	outUsername
	outIntegrity
	outFingerprint
	outPanic
	// Authenticated, and refused with an error response.
	outUnknownAttribute
	outRoleConflict
	// Authenticated, and ignored.
	outOtherFork
	outLimit
	outBusy
	outClosed
	// Written by pion, and ended at its virtual socket.
	outSuppressedRequest
	outSuppressedAnswer

	outcomes
)

type counters [outcomes]atomic.Uint64

func (c *counters) add(o outcome) uint64 { return c[o].Add(1) }

// Stats counts what became of the datagrams of one Agent.
type Stats struct {
	Answered uint64 // success responses sent

	// Dropped without an answer because they were not authenticated.
	Malformed   uint64 // no whole Binding request
	NotRequest  uint64 // indication or response
	Username    uint64 // not for us
	Integrity   uint64 // wrong or no password
	Fingerprint uint64
	Panics      uint64 // parser faults caught; each is a bug

	// Authenticated and refused.
	UnknownAttribute uint64 // 420
	RoleConflict     uint64 // 487

	// Authenticated and left without an answer.
	OtherFork uint64 // after Bind
	Limit     uint64 // too many forks or sources
	Busy      uint64 // the fork's agent was behind
	Closed    uint64

	// RequestsSuppressed are Binding requests that pion wanted to send. None is
	// ever sent: responses are all that leaves this package (C-108).
	RequestsSuppressed uint64
	// AnswersSuppressed are pion's own responses to checks already answered.
	AnswersSuppressed uint64

	InUse Pair
	Forks []ForkStats
}

// ForkStats is the state of one fork.
type ForkStats struct {
	RemoteUfrag string
	Described   bool // its description is known
	Sources     int  // addresses that have sent a valid check
	Nominated   netip.AddrPort
	// State is pion's: "checking", "connected", or "disconnected" when consent
	// (RFC 7675) has run out on the nominated pair; empty before the first check.
	State string
	// RemoteType is the type of the nominated remote candidate as its description
	// has it (host, srflx, relay), or prflx if it is not there; empty before.
	RemoteType string
}

// Stats returns a copy of the counts and states.
func (a *Agent) Stats() Stats {
	n := func(o outcome) uint64 { return a.count[o].Load() }
	s := Stats{
		Answered:           n(outAnswered),
		Malformed:          n(outMalformed),
		NotRequest:         n(outNotRequest),
		Username:           n(outUsername),
		Integrity:          n(outIntegrity),
		Fingerprint:        n(outFingerprint),
		Panics:             n(outPanic),
		UnknownAttribute:   n(outUnknownAttribute),
		RoleConflict:       n(outRoleConflict),
		OtherFork:          n(outOtherFork),
		Limit:              n(outLimit),
		Busy:               n(outBusy),
		Closed:             n(outClosed),
		RequestsSuppressed: n(outSuppressedRequest),
		AnswersSuppressed:  n(outSuppressedAnswer),
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.InUse = a.inUse
	for _, f := range a.forks {
		fs := ForkStats{RemoteUfrag: f.ufrag, Described: f.remote != nil, Nominated: f.nominated}
		for _, src := range a.sources {
			if src.fork == f {
				fs.Sources++
			}
		}
		if f.conn != nil {
			if st := ice.ConnectionState(f.conn.state.Load()); st != 0 {
				fs.State = strings.ToLower(st.String())
			}
		}
		if c, ok := f.signalled(f.nominated); ok {
			fs.RemoteType = c.Type
		} else if f.nominated.IsValid() {
			fs.RemoteType = ice.CandidateTypePeerReflexive.String()
		}
		s.Forks = append(s.Forks, fs)
	}
	return s
}
