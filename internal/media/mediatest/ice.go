package mediatest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
)

// generation is one ICE session of a client: its credentials, the other side's,
// and the agent that checks. The sockets are the client's and outlive it, so
// that media goes on over the old generation until the new one has nominated.
type generation struct {
	ufrag, pwd  string
	paths       []*socket
	agent       *ice.Agent
	conns       []*checkConn
	mu          sync.Mutex
	remotePwd   string // for the private attributes
	remoteUfrag string
	started     bool
	lite        bool
}

// checkConn is what an agent sees of a socket: STUN only.
type checkConn struct {
	socket *socket
	gen    *generation
	in     chan datagram
	done   chan struct{}
	once   sync.Once
}

type datagram struct {
	data []byte
	from netip.AddrPort
}

var _ net.PacketConn = (*checkConn)(nil)

func (c *checkConn) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case d := <-c.in:
		return copy(p, d.data), net.UDPAddrFromAddrPort(d.from), nil
	case <-c.done:
		return 0, nil, net.ErrClosed
	}
}

func (c *checkConn) WriteTo(p []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("check to %v: not a UDP address", to)
	}
	ap := udp.AddrPort()
	data := p
	if kindOf(p) == STUN && p[0] == 0 && p[1] == 1 {
		c.gen.mu.Lock()
		data = withPrivate(p, c.gen.remotePwd)
		c.gen.mu.Unlock()
	}
	c.socket.write(data, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
	return len(p), nil
}

func (c *checkConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}
func (c *checkConn) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(c.socket.local) }
func (c *checkConn) SetDeadline(time.Time) error      { return nil } // agents set one only to close
func (c *checkConn) SetReadDeadline(time.Time) error  { return nil }
func (c *checkConn) SetWriteDeadline(time.Time) error { return nil }

// deliver hands a STUN message to the agent; a full queue loses it, as a socket would.
func (c *checkConn) deliver(data []byte, from netip.AddrPort) {
	select {
	case c.in <- datagram{data, from}:
	default:
	}
}

type iceTimes struct{ check, consent, dead, relayWait time.Duration }

// newGeneration makes an agent with a candidate for each socket. It checks
// nothing before start.
func newGeneration(paths []*socket, lite bool, t iceTimes, logs logging.LoggerFactory, onPair func(local, remote netip.AddrPort), onState func(string)) (*generation, error) {
	g := &generation{ufrag: token(4), pwd: token(24), paths: paths, lite: lite}
	types := []ice.CandidateType{ice.CandidateTypeHost, ice.CandidateTypeRelay}
	if lite {
		types = types[:1]
	}
	agent, err := ice.NewAgentWithOptions(
		ice.WithICELite(lite),
		ice.WithCandidateTypes(types),
		ice.WithLocalCredentials(g.ufrag, g.pwd),
		ice.WithNetworkTypes([]ice.NetworkType{ice.NetworkTypeUDP4, ice.NetworkTypeUDP6}),
		ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled),
		ice.WithLoggerFactory(logs),
		ice.WithCheckInterval(t.check),
		ice.WithKeepaliveInterval(t.consent),
		ice.WithDisconnectedTimeout(t.dead),
		ice.WithFailedTimeout(t.dead),
		// A relayed pair waits a little for a direct one, not the two seconds
		// that suit the open Internet.
		ice.WithRelayAcceptanceMinWait(t.relayWait),
		ice.WithSrflxAcceptanceMinWait(t.relayWait),
		ice.WithPrflxAcceptanceMinWait(t.relayWait),
		ice.WithMaxBindingRequests(50),
	)
	if err != nil {
		return nil, fmt.Errorf("ice agent: %w", err)
	}
	g.agent = agent
	err = errors.Join(
		agent.OnSelectedCandidatePairChange(func(l, r ice.Candidate) {
			onPair(candidateAddr(l), candidateAddr(r))
		}),
		agent.OnConnectionStateChange(func(s ice.ConnectionState) { onState(s.String()) }),
	)
	for i, s := range paths {
		if err != nil {
			break
		}
		conn := &checkConn{socket: s, gen: g, in: make(chan datagram, 64), done: make(chan struct{})}
		var c ice.Candidate
		c, err = localCandidate(s, i)
		if err == nil {
			err = agent.AddVirtualCandidate(c, conn)
		}
		g.conns = append(g.conns, conn)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ice candidates: %w", err), agent.GracefulClose())
	}
	return g, nil
}

func localCandidate(s *socket, index int) (ice.Candidate, error) {
	network := ice.NetworkTypeUDP4.String()
	if s.Local.Is6() {
		network = ice.NetworkTypeUDP6.String()
	}
	text := describeCandidate(s, index)
	if s.Relay {
		return ice.NewCandidateRelay(&ice.CandidateRelayConfig{
			Network: network, Address: s.local.Addr().String(), Port: int(s.local.Port()), Component: 1,
			Priority: text.Priority, Foundation: text.Foundation, RelAddr: text.Related.Addr().String(), RelPort: int(text.Related.Port()),
			RelayProtocol: "udp",
		})
	}
	return ice.NewCandidateHost(&ice.CandidateHostConfig{
		Network: network, Address: s.local.Addr().String(), Port: int(s.local.Port()), Component: 1,
		Priority: text.Priority, Foundation: text.Foundation,
	})
}

// describeCandidate writes priorities as Microsoft's diagrams have them
// (component 1 ends in 255·256+255, not RFC 8445's 256 - component).
func describeCandidate(s *socket, index int) Candidate {
	c := Candidate{
		Foundation: string(rune('1' + index)), Component: 1, Transport: "UDP", Addr: s.local,
		Type: "host", Priority: 2130706431 - uint32(index)<<8,
	}
	if s.Relay {
		c.Type, c.Priority = "relay", 184547839-uint32(index)<<8
		c.Related = netip.AddrPortFrom(netip.IPv4Unspecified(), 9)
	}
	return c
}

func candidateAddr(c ice.Candidate) netip.AddrPort {
	a, err := netip.ParseAddr(c.Address())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(c.Port()))
}

// start begins checking toward d. A description that repeats the credentials
// adds its candidates only.
func (g *generation) start(d Description) error {
	g.mu.Lock()
	started := g.started
	g.started = true
	g.remoteUfrag, g.remotePwd = d.Ufrag, d.Pwd
	g.mu.Unlock()
	if !started && d.Lite {
		if err := g.agent.SetRemoteICELite(true); err != nil {
			return fmt.Errorf("ice: %w", err)
		}
	}
	for _, c := range d.Candidates {
		if c.Component != 1 {
			continue // RTCP is muxed
		}
		network := ice.NetworkTypeUDP4.String()
		if c.Addr.Addr().Is6() {
			network = ice.NetworkTypeUDP6.String()
		}
		remote, err := ice.NewCandidateHost(&ice.CandidateHostConfig{
			Network: network, Address: c.Addr.Addr().String(), Port: int(c.Addr.Port()), Component: 1,
			Priority: c.Priority, Foundation: c.Foundation,
		})
		if err == nil {
			err = g.agent.AddRemoteCandidate(remote)
		}
		if err != nil {
			return fmt.Errorf("remote candidate %s: %w", c.Addr, err)
		}
	}
	if started {
		return nil
	}
	begin := g.agent.StartDial
	if g.lite {
		begin = g.agent.StartAccept
	}
	if _, err := begin(d.Ufrag, d.Pwd); err != nil {
		return fmt.Errorf("ice: %w", err)
	}
	return nil
}

func (g *generation) close() { _ = g.agent.GracefulClose() }
