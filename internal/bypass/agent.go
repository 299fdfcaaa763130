// Package bypass is the ICE side of media bypass toward Microsoft Teams: it
// answers the connectivity checks of a full agent as a lite agent does, knows
// from which sources voice may come, and says which address voice goes to.
//
// The main type is Agent, one for each leg and ICE generation. It owns no
// socket: package media hands it the STUN datagrams of the leg's socket
// (Handle), gives it a way to send (Options.Send) and asks for each voice
// packet whether its source has been checked (Admit, Fork).
//
// Inside, a small responder over pion/stun stands at the door: it bounds,
// authenticates and answers each check at once, whether or not the peer's
// description is known yet. Behind it one pion/ice/v2 agent for each fork (each
// remote ufrag) holds candidates and pairs, decides nominations and watches
// consent. Nothing that pion writes reaches the wire; docs/decisions/ice.md says
// why the line runs there.
//
// Standards: RFC 8445 and RFC 5245 (lite implementation), RFC 5389 (STUN),
// RFC 7675 (consent, answering side), RFC 7983 (telling STUN from RTP).
//
// Left to others: descriptions without candidates (package media uses c= and
// m=), when a silent path is dead, and SRTP keys.
package bypass

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/stun"

	"localloop/internal/sdp"
)

// Limits of one Agent. Only peers that know our password can reach them.
const (
	maxForks   = 8  // remote ufrags held at once
	maxSources = 32 // sources held at once, over all forks
	// maxDatagram is more than any check needs (about 130 bytes, with long
	// ufrags under 700) and less than what a tunnelled path carries.
	maxDatagram = 1280

	// closeLimit bounds Close when a callback does not return.
	closeLimit = 2 * time.Second
)

// Options configure an Agent. Candidate and Send are required.
type Options struct {
	// Candidate is the one host candidate: address and port of the media
	// socket as the peer sees it. IPv4 only (C-107).
	Candidate netip.AddrPort
	// Local is the real local address of the socket; it differs from Candidate
	// behind a 1:1 NAT. It is what Pair.Local reports. Defaults to Candidate.
	Local netip.AddrPort
	// Send puts one STUN response on the wire. It is called from any goroutine,
	// must not block and must not keep the datagram.
	Send func(datagram []byte, to netip.AddrPort)
	// Selected is told the pair in use whenever it changes: the best checked
	// pair first, then the nominated one. A zero Pair says that none is left
	// (Bind to a fork that has not been heard yet). Calls come from any goroutine
	// but never overlap, and the last one is true. It must not block, and must not
	// call Handle, SetRemote, Bind or Close. May be nil.
	Selected func(Pair)
	// Rand is the source of credentials; nil means crypto/rand.
	Rand io.Reader
	// Log receives what an operator may want to know; nil discards.
	Log *slog.Logger
}

// Pair is a candidate pair in use.
type Pair struct {
	Local, Remote netip.AddrPort
	// Nominated says that the choice is the peer's (USE-CANDIDATE), or given
	// by rule between two lite agents, rather than ours for the time being.
	Nominated bool
	// RemoteUfrag names the fork, and so the answer whose keys apply.
	RemoteUfrag string
	// Priority is that of the remote candidate: as signalled if it is in the
	// peer's description, else as its check says (RFC 8445 §7.3.1.3).
	Priority uint32
}

// Agent is our side of ICE on one leg for one generation of credentials. An ICE
// restart is a new Agent; the old one serves until the new one has a pair, and
// LocalUfrag tells whose datagram is whose when both share a socket.
//
// All methods are safe for concurrent use.
type Agent struct {
	opts      Options
	log       *slog.Logger
	ufrag     string
	pwd       string
	key       stun.MessageIntegrity
	candidate sdp.Candidate

	born      time.Time
	lastCheck atomic.Int64 // nanoseconds after born; 0 is never
	checked   atomic.Pointer[[]checkedSource]
	count     counters
	exchanges sync.Pool // *exchange

	// notifyMu keeps calls of Selected in order. It is taken before mu.
	notifyMu sync.Mutex

	mu      sync.Mutex
	closed  bool
	forks   []*fork
	sources []*source
	current string // remote ufrag of the latest SetRemote
	bound   string // remote ufrag of the 200; empty before
	inUse   Pair

	running   sync.WaitGroup // one for each fork with a pion agent
	closeOnce sync.Once
	closeErr  error
}

// New makes an Agent with credentials of its own. It starts no goroutine; the
// first authenticated check does.
func New(o Options) (*Agent, error) {
	o.Candidate = unmap(o.Candidate)
	o.Local = unmap(o.Local)
	switch {
	case o.Send == nil:
		return nil, errors.New("new ICE agent: no way to send")
	case !o.Candidate.Addr().Is4() || o.Candidate.Addr().IsUnspecified() || o.Candidate.Port() == 0:
		return nil, fmt.Errorf("new ICE agent: candidate %v is not an IPv4 address with a port (C-107)", o.Candidate)
	}
	if !o.Local.IsValid() {
		o.Local = o.Candidate
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	// 48 and 144 bits; RFC 8445 §5.3 asks for 24 and 128.
	ufrag, err := iceChars(o.Rand, 8)
	if err != nil {
		return nil, fmt.Errorf("new ICE agent: ufrag: %w", err)
	}
	pwd, err := iceChars(o.Rand, 24)
	if err != nil {
		return nil, fmt.Errorf("new ICE agent: pwd: %w", err)
	}
	host, err := ice.NewCandidateHost(&ice.CandidateHostConfig{
		Network:    "udp",
		Address:    o.Candidate.Addr().String(),
		Port:       int(o.Candidate.Port()),
		Component:  ice.ComponentRTP,
		Foundation: "1",
	})
	if err != nil {
		return nil, fmt.Errorf("new ICE agent: candidate %v: %w", o.Candidate, err)
	}
	a := &Agent{
		opts:  o,
		log:   o.Log,
		ufrag: ufrag,
		pwd:   pwd,
		key:   stun.NewShortTermIntegrity(pwd),
		candidate: sdp.Candidate{
			Foundation: host.Foundation(),
			Component:  int(host.Component()),
			Transport:  "UDP", // upper case, as Teams spells it
			Priority:   host.Priority(),
			Addr:       o.Candidate,
			Type:       host.Type().String(),
		},
		born: time.Now(),
	}
	a.exchanges.New = func() any { return new(exchange) }
	a.checked.Store(&[]checkedSource{})
	return a, nil
}

// ICE returns what our description says: lite, ufrag, pwd and exactly one host
// candidate (C-107). It is the same for the Agent's whole life, so a 183 and its
// 200 agree (C-114). The caller owns the value; it holds a secret.
func (a *Agent) ICE() *sdp.ICE {
	return &sdp.ICE{Ufrag: a.ufrag, Pwd: a.pwd, Lite: true, Candidates: []sdp.Candidate{a.candidate}}
}

// Ufrag is the local user name fragment, the left part of the USERNAME of each
// check that is meant for this Agent.
func (a *Agent) Ufrag() string { return a.ufrag }

// LastCheck is when the last check was answered, with monotonic clock reading;
// zero if there was none. After Bind only the bound fork's checks count.
func (a *Agent) LastCheck() time.Time {
	if n := a.lastCheck.Load(); n != 0 {
		return a.born.Add(time.Duration(n))
	}
	return time.Time{}
}

// Close ends the Agent: no callback starts after it has returned, datagrams are
// dropped, no source is admitted. It waits for the goroutines of the Agent, but
// not longer than two seconds, and says so if that was not enough. Further calls
// return the same.
func (a *Agent) Close() error {
	a.closeOnce.Do(func() {
		a.mu.Lock()
		a.closed = true
		for _, f := range a.forks {
			f.stop()
		}
		a.forks, a.sources = nil, nil
		a.publish()
		a.mu.Unlock()

		ended := make(chan struct{})
		go func() {
			defer close(ended)
			// A Selected under way on the side of Handle counts as ours. The forks
			// are waited for without the lock: they may be on their way to notify.
			a.notifyMu.Lock()
			a.notifyMu.Unlock() //lint:ignore SA2001 the empty section is a barrier
			a.running.Wait()
		}()
		limit := time.NewTimer(closeLimit)
		defer limit.Stop()
		select {
		case <-ended:
		case <-limit.C:
			a.closeErr = fmt.Errorf("close ICE agent %s: a callback or fork is still busy after %v", a.ufrag, closeLimit)
		}
	})
	return a.closeErr
}

// Restarts reports whether an offer or answer of the peer begins a new ICE
// generation compared with its previous one (RFC 5245 §9.2.1.1). The same
// values moved between session and media level are no restart (C-118).
func Restarts(previous, next *sdp.ICE) bool {
	return previous != nil && next != nil && (previous.Ufrag != next.Ufrag || previous.Pwd != next.Pwd)
}

// iceChars returns n characters of the ice-char set (RFC 8839 §5.4), 6 bits each.
func iceChars(r io.Reader, n int) (string, error) {
	const set = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", err
	}
	for i := range b {
		b[i] = set[b[i]&63]
	}
	return string(b), nil
}

// unmap turns an IPv4 address that a dual-stack socket reports in its IPv6 form
// back, so that one source has one spelling.
func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
