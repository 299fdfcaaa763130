package bypass

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"localloop/internal/sdp"
)

const (
	// idle is when a source or fork that nobody uses may give way to a new one.
	idle = 5 * time.Second
	// feedInterval is how often a check that changes nothing is passed to pion
	// all the same, for its view of consent.
	feedInterval = time.Second
	// silence is when a nominated pair counts as abandoned by a peer that
	// nominates aggressively; consent expires after as long (RFC 7675 §5.1).
	silence = 30 * time.Second
)

// source is a transport address from which a fork has sent a valid check.
type source struct {
	fork     *fork
	addr     netip.AddrPort
	announce uint32 // PRIORITY of its latest check
	last     time.Time
	fed      time.Time // when pion was last given a check of it
	// aggressive holds while every check of this source carried USE-CANDIDATE
	// (RFC 5245 §8.1.1.2).
	aggressive bool
}

// priority is that of the signalled candidate at this address, else the one
// the check announces for a peer-reflexive candidate, RFC 8445 §7.3.1.3.
func (s *source) priority() uint32 {
	if c, ok := s.fork.signalled(s.addr); ok {
		return c.Priority
	}
	return s.announce
}

// checkedSource is one entry of the snapshot that the voice path reads.
type checkedSource struct {
	addr  netip.AddrPort
	ufrag string
}

// Admit reports whether a valid check has come from this source, so that voice
// from it may be taken (C-124). After Bind only the bound fork's sources count
// (C-116). It takes no lock and allocates nothing.
func (a *Agent) Admit(from netip.AddrPort) bool {
	_, ok := a.Fork(from)
	return ok
}

// Fork is Admit that also names the fork, and so the answer whose keys protect
// what comes from this source. It takes no lock and allocates nothing.
func (a *Agent) Fork(from netip.AddrPort) (remoteUfrag string, ok bool) {
	from = unmap(from)
	for _, s := range *a.checked.Load() {
		if s.addr == from {
			return s.ufrag, true
		}
	}
	return "", false
}

// SetRemote gives the peer's description: its offer, its answer, or a further
// answer of another fork, which then is the current one. nil is "not known yet"
// and changes nothing. The agent reads remote, also later; nobody may change it.
//
// After Bind a description of another fork is an error and changes nothing.
//
// If the peer is lite as well no checks will come: its default candidate is
// selected at once (C-120).
func (a *Agent) SetRemote(remote *sdp.ICE) error {
	if remote == nil || remote.Ufrag == "" {
		return nil
	}
	a.mu.Lock()
	switch {
	case a.closed:
		a.mu.Unlock()
		return errClosed
	case a.bound != "" && a.bound != remote.Ufrag:
		a.mu.Unlock()
		return fmt.Errorf("set remote ICE %q: the leg is bound to %q", remote.Ufrag, a.bound)
	}
	f := a.forkOf([]byte(remote.Ufrag))
	if f == nil {
		f = a.openFork(remote.Ufrag, time.Now(), true)
	}
	f.remote = remote
	a.current = remote.Ufrag
	f.signal()
	a.publish()
	a.mu.Unlock()
	a.notify()
	return nil
}

// Bind ends the choice between forks: after the 200 only the fork with this
// ufrag counts, whether it has been heard or not; checks and voice of the others
// are ignored (C-116). An empty ufrag (a peer without ICE) binds nothing.
func (a *Agent) Bind(remoteUfrag string) {
	if remoteUfrag == "" {
		return
	}
	a.mu.Lock()
	if a.closed || a.bound == remoteUfrag {
		a.mu.Unlock()
		return
	}
	a.bound, a.current = remoteUfrag, remoteUfrag
	for _, f := range slices.Clone(a.forks) {
		if f.ufrag != remoteUfrag {
			a.dropFork(f)
		}
	}
	var last int64
	for _, s := range a.sources {
		last = max(last, 1, int64(s.last.Sub(a.born)))
	}
	a.lastCheck.Store(last)
	a.publish()
	a.mu.Unlock()
	a.notify()
}

// accept records an authenticated check and passes it to the fork's pion agent
// if it is news. outAnswered means that the peer is to be told success; it is
// never told so of a nomination that did not reach pion.
func (a *Agent) accept(x *exchange, from netip.AddrPort, now time.Time) outcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return outClosed
	}
	if a.bound != "" && string(x.ufrag) != a.bound {
		return outOtherFork
	}
	f := a.forkOf(x.ufrag)
	if f == nil {
		if f = a.openFork(string(x.ufrag), now, false); f == nil {
			return outLimit
		}
	}
	s, isNew := a.sourceOf(f, from), false
	if s == nil {
		if !a.roomForSource(now) {
			return outLimit
		}
		s, isNew = &source{fork: f, addr: from, aggressive: true}, true
	}
	if isNew || x.useCandidate && f.nominated != from || now.Sub(s.fed) >= feedInterval {
		if !a.feed(f, x, from) {
			return outBusy
		}
		s.fed = now
	}
	s.last, s.announce = now, x.priority
	if !x.useCandidate {
		s.aggressive = false
	}
	f.last = now
	a.lastCheck.Store(max(1, int64(now.Sub(a.born))))
	if isNew {
		a.sources = append(a.sources, s)
		a.publish()
	}
	return outAnswered
}

// wanted decides whether a USE-CANDIDATE moves the fork's pair to addr. The
// newest regular nomination wins (C-112). A peer that nominates aggressively
// names each pair that works and means the best of them (RFC 5245 §8.1.1.2), or
// another when it has left that one.
func (a *Agent) wanted(f *fork, c *conn, addr netip.AddrPort) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, nominated := a.sourceOf(f, addr), a.sourceOf(f, f.nominated)
	switch {
	case s == nil:
		return false
	case s == nominated:
		return !c.selected.Load() // a fresh pion agent has to learn it
	case nominated == nil || !s.aggressive:
		return true
	default:
		return s.priority() >= nominated.priority() || s.last.Sub(nominated.last) >= silence
	}
}

// nominated records what pion selected.
func (a *Agent) nominated(f *fork, addr netip.AddrPort) {
	a.mu.Lock()
	f.nominated = addr
	a.mu.Unlock()
	a.notify()
}

// notify tells of the pair in use if it has changed. Whoever changes state
// calls it after giving up mu; the last call sees the last state.
func (a *Agent) notify() {
	a.notifyMu.Lock()
	defer a.notifyMu.Unlock()
	a.mu.Lock()
	p := a.choose()
	changed := p != a.inUse && !a.closed
	a.inUse = p
	a.mu.Unlock()
	if changed && a.opts.Selected != nil {
		a.opts.Selected(p)
	}
}

// choose ranks the checked sources: those of the fork whose answer is the
// current one, then nominated before not, then the fork already in use (early
// media stays with the first that speaks), then priority (C-113). Equal ones
// stay in the order of their first check. mu is held.
func (a *Agent) choose() Pair {
	var best Pair
	var bestRank uint64
	for _, s := range a.sources {
		p := Pair{
			Local:       a.opts.Local,
			Remote:      s.addr,
			Nominated:   s.addr == s.fork.nominated,
			RemoteUfrag: s.fork.ufrag,
			Priority:    s.priority(),
		}
		rank := uint64(p.Priority) + 1
		if p.RemoteUfrag == a.inUse.RemoteUfrag {
			rank |= 1 << 33
		}
		if p.Nominated {
			rank |= 1 << 34
		}
		if p.RemoteUfrag == a.current {
			rank |= 1 << 35
		}
		if rank > bestRank {
			best, bestRank = p, rank
		}
	}
	if best.Nominated && best.RemoteUfrag == a.current {
		return best
	}
	if c, ok := a.liteDefault(); ok {
		return Pair{Local: a.opts.Local, Remote: unmap(c.Addr), Nominated: true, RemoteUfrag: a.current, Priority: c.Priority}
	}
	return best
}

// liteDefault is the candidate of a current peer that is lite like us. Both
// sides then use their default candidates without checks (RFC 8445 §6.1.1); a
// lite peer has one, or means the best. mu is held.
func (a *Agent) liteDefault() (best sdp.Candidate, ok bool) {
	f := a.forkOf([]byte(a.current))
	if f == nil || f.remote == nil || !f.remote.Lite {
		return best, false
	}
	for _, c := range f.remote.Candidates {
		if usable(c) && (!ok || c.Priority > best.Priority) {
			best, ok = c, true
		}
	}
	return best, ok
}

// publish renews the snapshot that Admit and Fork read. mu is held.
func (a *Agent) publish() {
	list := make([]checkedSource, 0, len(a.sources)+1)
	// The current fork first: if two forks share a source (one relay port), its
	// keys are the likely ones.
	for _, current := range []bool{true, false} {
		for _, s := range a.sources {
			if (s.fork.ufrag == a.current) == current {
				list = append(list, checkedSource{s.addr, s.fork.ufrag})
			}
		}
	}
	if c, ok := a.liteDefault(); ok {
		list = append(list, checkedSource{unmap(c.Addr), a.current})
	}
	a.checked.Store(&list)
}

// forkOf finds the fork of a remote ufrag. mu is held.
func (a *Agent) forkOf(ufrag []byte) *fork {
	for _, f := range a.forks {
		if f.ufrag == string(ufrag) {
			return f
		}
	}
	return nil
}

// sourceOf finds a source of a fork. mu is held.
func (a *Agent) sourceOf(f *fork, addr netip.AddrPort) *source {
	for _, s := range a.sources {
		if s.fork == f && s.addr == addr {
			return s
		}
	}
	return nil
}

// openFork adds a fork, in place of the one idle longest if there are too many.
// A fork with a description always finds a place; one that only knocks does not
// displace another that is alive. mu is held.
func (a *Agent) openFork(ufrag string, now time.Time, signalled bool) *fork {
	if len(a.forks) >= maxForks {
		var victim *fork
		for _, f := range a.forks {
			if f.ufrag != a.current && (victim == nil || f.last.Before(victim.last)) {
				victim = f
			}
		}
		if victim == nil || !signalled && now.Sub(victim.last) < idle {
			return nil
		}
		a.dropFork(victim)
		a.publish()
	}
	f := newFork(a, ufrag, now)
	a.forks = append(a.forks, f)
	return f
}

// dropFork forgets a fork and its sources. mu is held; the caller publishes.
func (a *Agent) dropFork(f *fork) {
	f.stop()
	a.forks = slices.DeleteFunc(a.forks, func(g *fork) bool { return g == f })
	a.sources = slices.DeleteFunc(a.sources, func(s *source) bool { return s.fork == f })
}

// roomForSource makes room for one more source, in place of the one that has been
// idle longest and carries no voice. mu is held.
func (a *Agent) roomForSource(now time.Time) bool {
	if len(a.sources) < maxSources {
		return true
	}
	victim := -1
	for i, s := range a.sources {
		if s.addr == s.fork.nominated || s.addr == a.inUse.Remote || now.Sub(s.last) < idle {
			continue
		}
		if victim < 0 || s.last.Before(a.sources[victim].last) {
			victim = i
		}
	}
	if victim < 0 {
		return false
	}
	a.sources = slices.Delete(a.sources, victim, victim+1)
	return true
}

// usable holds for the candidates that a UDP/IPv4 lite agent with one component
// can meet; TCP, IPv6 and RTCP lines of Teams are ignored.
func usable(c sdp.Candidate) bool {
	return c.Component == 1 && (c.Transport == "UDP" || c.Transport == "udp") && c.Addr.Addr().Unmap().Is4() && c.Addr.Port() != 0
}
