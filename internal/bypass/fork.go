package bypass

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/stun"

	"localloop/internal/sdp"
)

var errClosed = errors.New("ICE agent is closed")

const (
	// backlog is how many datagrams may wait for a fork's pion agent. Only news
	// is fed, so that many are two rounds of checks from all sources.
	backlog = 2 * maxSources
	// maxFed is how many sources one pion agent is given. It forgets none, and a
	// phone that roams may bring a new one every minute of a day-long call; the
	// fork then gets a fresh agent.
	maxFed = 256
	// maxSignalled is how many candidates of a description pion is given.
	maxSignalled = 24

	// consentExpiry is when pion calls a pair disconnected, RFC 7675 §5.1.
	consentExpiry = 30 * time.Second
	// never is as good as: pion's failed state throws the candidates away, but
	// when a path is dead is for package media to say, which sees voice (C-122).
	never = 10 * 365 * 24 * time.Hour

	// noPassword stands for the remote password. A lite agent signs no request,
	// so it needs none, and pion would write it to its debug log.
	noPassword = "unused-by-a-lite-agent"
)

// fork is one remote ufrag: the description of the peer that owns it, if known,
// and from its first valid check on a pion agent.
//
//	known by description --first check--> pion agent runs --stop--> gone
//	first check ------------------------> (description may follow)
type fork struct {
	agent *Agent
	ufrag string

	// Guarded by Agent.mu.
	remote    *sdp.ICE
	last      time.Time // of the latest check, or of opening
	nominated netip.AddrPort
	fed       map[netip.AddrPort]struct{} // sources that pion knows
	conn      *conn                       // nil until the first check
}

func newFork(a *Agent, ufrag string, now time.Time) *fork {
	return &fork{agent: a, ufrag: ufrag, last: now}
}

// signalled finds the candidate of the fork's description at addr. mu is held.
func (f *fork) signalled(addr netip.AddrPort) (sdp.Candidate, bool) {
	if f.remote != nil {
		for _, c := range f.remote.Candidates {
			if usable(c) && unmap(c.Addr) == addr {
				return c, true
			}
		}
	}
	return sdp.Candidate{}, false
}

// feed queues a check for the fork's pion agent, starting it if need be. It
// reports false if the agent is so far behind that the peer had better repeat.
// mu is held.
func (a *Agent) feed(f *fork, x *exchange, from netip.AddrPort) bool {
	if _, known := f.fed[from]; f.conn != nil && !known && len(f.fed) >= maxFed {
		f.conn.end()
		f.conn = nil
	}
	if f.conn == nil {
		f.fed = make(map[netip.AddrPort]struct{})
		f.conn = newConn(a)
		f.conn.candidates(f.remote)
		a.running.Add(1)
		go a.runFork(f, f.conn)
	}
	select {
	case f.conn.in <- packet{x.authenticated(), net.UDPAddrFromAddrPort(from)}:
		f.fed[from] = struct{}{}
		return true
	default:
		return false
	}
}

// signal passes the description on to a running pion agent. mu is held.
func (f *fork) signal() {
	if f.conn != nil {
		f.conn.candidates(f.remote)
	}
}

// stop ends the fork's pion agent without waiting for it. mu is held.
func (f *fork) stop() {
	if f.conn != nil {
		f.conn.end()
		f.conn = nil
	}
}

// runFork runs one pion agent from start to end.
func (a *Agent) runFork(f *fork, c *conn) {
	defer a.running.Done()
	agent, err := a.startPion(f, c)
	if err != nil {
		// Nothing in the configuration depends on the peer, so this is ours. The
		// checks that change nothing go on being answered.
		a.log.Error("ICE fork", "remote_ufrag", f.ufrag, "err", err)
		<-c.ended
		return
	}
	for {
		select {
		case remote := <-c.remote:
			addRemote(agent, remote)
		case <-c.ended:
			if err := agent.GracefulClose(); err != nil {
				a.log.Warn("ICE fork: close", "remote_ufrag", f.ufrag, "err", err)
			}
			return
		}
	}
}

// startPion makes and starts the fork's pion agent behind its fences: no
// socket, no name resolution, no STUN or TURN server, nothing sent.
func (a *Agent) startPion(f *fork, c *conn) (*ice.Agent, error) {
	agent, err := ice.NewAgent(a.pionConfig(f, c))
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		agent.OnCandidate(func(ice.Candidate) {}), // pion gathers only for somebody
		agent.OnConnectionStateChange(func(s ice.ConnectionState) { c.state.Store(int32(s)) }),
		agent.OnSelectedCandidatePairChange(func(_, remote ice.Candidate) {
			c.selected.Store(true)
			a.nominated(f, addrOf(remote))
		}),
		agent.GatherCandidates(),
	)
	if err == nil {
		// Accept starts the agent and then waits for a pair. We do not wait: a
		// fork that never nominates is the usual case.
		started, cancel := context.WithCancel(context.Background())
		cancel()
		_, err = agent.Accept(started, f.ufrag, noPassword)
		if errors.Is(err, ice.ErrCanceledByCaller) {
			err = nil
		}
	}
	if err != nil {
		return nil, errors.Join(err, agent.GracefulClose())
	}
	return agent, nil
}

// pionConfig is the fence around pion/ice/v2 (docs/decisions/ice.md).
func (a *Agent) pionConfig(f *fork, c *conn) *ice.AgentConfig {
	disconnected, failed := consentExpiry, never
	return &ice.AgentConfig{
		Lite:           true,
		CandidateTypes: []ice.CandidateType{ice.CandidateTypeHost},
		NetworkTypes:   []ice.NetworkType{ice.NetworkTypeUDP4},
		LocalUfrag:     a.ufrag,
		LocalPwd:       a.pwd,
		UDPMux:         c,
		Net:            noNet{},
		// The zero value would open a multicast socket. A given name spares a UUID.
		MulticastDNSMode:     ice.MulticastDNSModeDisabled,
		MulticastDNSHostName: "unused.local",
		DisableActiveTCP:     true,
		DisconnectedTimeout:  &disconnected,
		FailedTimeout:        &failed,
		LoggerFactory:        pionLog{a.log.With("remote_ufrag", f.ufrag)},
		// pion v2 accepts a nomination only after a check of its own has been
		// answered, which a lite agent never sends.
		BindingRequestHandler: func(m *stun.Message, _, remote ice.Candidate, _ *ice.CandidatePair) bool {
			return m.Contains(stun.AttrUseCandidate) && a.wanted(f, c, addrOf(remote))
		},
	}
}

// addRemote gives pion the candidates of a description, so that checks from them
// find their pair instead of a peer-reflexive one.
func addRemote(agent *ice.Agent, remote *sdp.ICE) {
	n := 0
	for _, c := range remote.Candidates {
		if !usable(c) || n == maxSignalled {
			continue
		}
		n++
		addr := unmap(c.Addr)
		line := c.Foundation + " 1 udp " + strconv.FormatUint(uint64(c.Priority), 10) + " " +
			addr.Addr().String() + " " + strconv.Itoa(int(addr.Port())) + " typ " + c.Type
		if p, err := ice.UnmarshalCandidate(line); err == nil {
			_ = agent.AddRemoteCandidate(p) // fails only when the agent is closed
		}
	}
}

// packet is an authenticated check on its way to pion.
type packet struct {
	b    []byte
	from *net.UDPAddr
}

// conn is what a pion agent takes for its socket and for the UDP mux that holds
// it. What comes in has passed the responder; what pion writes ends here and is
// counted: its requests because a lite agent sends none (C-108), its responses
// because the peer already has ours.
type conn struct {
	count  *counters
	local  *net.UDPAddr
	in     chan packet
	remote chan *sdp.ICE // latest description, capacity 1
	ended  chan struct{}
	once   sync.Once
	closed chan struct{} // by pion
	shut   sync.Once

	state    atomic.Int32 // ice.ConnectionState
	selected atomic.Bool  // pion has a selected pair
}

func newConn(a *Agent) *conn {
	return &conn{
		count:  &a.count,
		local:  net.UDPAddrFromAddrPort(a.opts.Candidate),
		in:     make(chan packet, backlog),
		remote: make(chan *sdp.ICE, 1),
		ended:  make(chan struct{}),
		closed: make(chan struct{}),
	}
}

// end asks runFork to close the pion agent.
func (c *conn) end() { c.once.Do(func() { close(c.ended) }) }

// candidates leaves a description for runFork, in place of an unread one. Only
// one goroutine at a time calls it (Agent.mu).
func (c *conn) candidates(remote *sdp.ICE) {
	if remote == nil {
		return
	}
	select {
	case <-c.remote:
	default:
	}
	c.remote <- remote
}

func (c *conn) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case d := <-c.in:
		return copy(p, d.b), d.from, nil
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

func (c *conn) WriteTo(p []byte, _ net.Addr) (int, error) {
	if len(p) > 1 && p[0]&(classMask>>8) == 0 && p[1]&(classMask&0xff) == 0 {
		c.count.add(outSuppressedRequest)
	} else {
		c.count.add(outSuppressedAnswer)
	}
	return len(p), nil
}

func (c *conn) Close() error {
	c.shut.Do(func() { close(c.closed) })
	return nil
}

func (c *conn) LocalAddr() net.Addr              { return c.local }
func (c *conn) SetDeadline(time.Time) error      { return nil } // Close follows and wakes the reader
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// ice.UDPMux, for one agent.

func (c *conn) GetConn(string, net.Addr) (net.PacketConn, error) { return c, nil }
func (c *conn) RemoveConnByUfrag(string)                         {} // called at birth too; the candidate closes
func (c *conn) GetListenAddresses() []net.Addr                   { return []net.Addr{c.local} }
