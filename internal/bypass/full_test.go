package bypass

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"

	"localloop/internal/sdp"
)

// leg is one media socket with its agents, as package media has it: STUN by
// ufrag to an Agent, voice back to the pair in use if its source is admitted.
type leg struct {
	t    *testing.T
	sock *net.UDPConn
	addr netip.AddrPort

	mu       sync.Mutex
	agents   map[string]*Agent
	pairs    map[string]Pair
	voice    *Agent // whose pair carries voice
	requests int    // STUN requests that left us
	dropped  int    // voice from sources that are not admitted
	ended    chan struct{}
}

func newLeg(t *testing.T) *leg {
	t.Helper()
	sock, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	l := &leg{t: t, sock: sock, addr: sock.LocalAddr().(*net.UDPAddr).AddrPort(),
		agents: map[string]*Agent{}, pairs: map[string]Pair{}, ended: make(chan struct{})}
	go l.read()
	t.Cleanup(func() {
		_ = sock.Close()
		<-l.ended
		for _, a := range l.agents {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
			if s := a.Stats(); s.Panics != 0 || s.Malformed != 0 || s.Integrity != 0 {
				t.Errorf("a real peer's datagrams were refused: %+v", s)
			}
		}
		if l.requests != 0 {
			t.Errorf("%d STUN requests left (C-108)", l.requests)
		}
	})
	return l
}

func (l *leg) generation() *Agent {
	l.t.Helper()
	var a *Agent
	a, err := New(Options{Candidate: l.addr, Send: func(b []byte, to netip.AddrPort) {
		if b[0]&1 == 0 && b[1]&0x10 == 0 {
			l.mu.Lock()
			l.requests++
			l.mu.Unlock()
		}
		_, _ = l.sock.WriteToUDPAddrPort(b, to)
	}, Selected: func(p Pair) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.pairs[a.Ufrag()] = p
		if p.Nominated {
			l.voice = a // the old generation serves until then, C-117
		}
	}})
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	l.agents[a.Ufrag()] = a
	l.mu.Unlock()
	return a
}

func (l *leg) pair(a *Agent) Pair {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pairs[a.Ufrag()]
}

func (l *leg) read() {
	defer close(l.ended)
	b := make([]byte, 1500)
	for {
		n, from, err := l.sock.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if IsSTUN(b[:n]) {
			ufrag, _ := LocalUfrag(b[:n])
			l.mu.Lock()
			a := l.agents[string(ufrag)]
			l.mu.Unlock()
			if a != nil {
				a.Handle(b[:n], from)
			}
			continue
		}
		l.mu.Lock()
		a := l.voice
		l.mu.Unlock()
		if a == nil || !a.Admit(from) {
			l.mu.Lock()
			l.dropped++
			l.mu.Unlock()
			continue
		}
		_, _ = l.sock.WriteToUDPAddrPort(b[:n], l.pair(a).Remote)
	}
}

// client is a full, controlling agent of another implementation.
type client struct {
	*ice.Agent
	t   *testing.T
	sdp *sdp.ICE
}

func newClient(t *testing.T) *client {
	t.Helper()
	agent, err := ice.NewAgentWithOptions(
		ice.WithNetworkTypes([]ice.NetworkType{ice.NetworkTypeUDP4}),
		ice.WithCandidateTypes([]ice.CandidateType{ice.CandidateTypeHost}),
		ice.WithIncludeLoopback(),
		ice.WithInterfaceFilter(func(name string) bool { return name == "lo" }),
		ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled),
	)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{Agent: agent, t: t, sdp: &sdp.ICE{}}
	t.Cleanup(func() { _ = agent.GracefulClose() })
	c.gather()
	return c
}

func (c *client) gather() {
	c.t.Helper()
	done := make(chan struct{})
	if err := c.OnCandidate(func(cand ice.Candidate) {
		if cand == nil {
			close(done)
			return
		}
		c.sdp.Candidates = append(c.sdp.Candidates, sdp.Candidate{
			Foundation: cand.Foundation(), Component: 1, Transport: "UDP", Priority: cand.Priority(), Type: "host",
			Addr: netip.AddrPortFrom(netip.MustParseAddr(cand.Address()), uint16(cand.Port())),
		})
	}); err != nil {
		c.t.Fatal(err)
	}
	if err := c.GatherCandidates(); err != nil {
		c.t.Fatal(err)
	}
	<-done
	c.sdp.Ufrag, c.sdp.Pwd, _ = c.GetLocalUserCredentials()
	if len(c.sdp.Candidates) == 0 {
		c.t.Skip("the full agent finds no candidate on loopback")
	}
}

// add gives the client our description.
func (c *client) add(ours *sdp.ICE) {
	c.t.Helper()
	cand, err := ice.NewCandidateHost(&ice.CandidateHostConfig{
		Network: "udp", Component: 1, Address: ours.Candidates[0].Addr.Addr().String(),
		Port: int(ours.Candidates[0].Addr.Port()), Priority: ours.Candidates[0].Priority,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.AddRemoteCandidate(cand); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) dial(ours *sdp.ICE) *ice.Conn {
	c.t.Helper()
	c.add(ours)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := c.Dial(ctx, ours.Ufrag, ours.Pwd)
	if err != nil {
		c.t.Fatalf("the full agent did not connect: %v", err)
	}
	return conn
}

// echo proves that voice goes both ways between the client and the leg.
func echo(t *testing.T, conn *ice.Conn, word string) {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		b := make([]byte, 1500)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			if s := string(b[1:n]); s == word {
				got <- s
				return
			}
		}
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for {
		_, _ = conn.Write(append([]byte{0x80}, word...))
		select {
		case <-got:
			return
		case <-tick.C:
		case <-limit:
			t.Fatalf("%q did not come back", word)
		}
	}
}

// TestFullAgentsOfThreeForks has three clients of pion/ice/v4 on one leg, all
// before any answer is known; then the 200 of one (C-109, C-115, C-116).
func TestFullAgentsOfThreeForks(t *testing.T) {
	l := newLeg(t)
	a := l.generation()
	clients := []*client{newClient(t), newClient(t), newClient(t)}
	conns := make([]*ice.Conn, len(clients))
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() { conns[i] = c.dial(a.ICE()) })
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	if err := a.SetRemote(clients[0].sdp); err != nil {
		t.Fatal(err)
	}
	echo(t, conns[0], "early")
	last := clients[2]
	if err := a.SetRemote(last.sdp); err != nil {
		t.Fatal(err)
	}
	a.Bind(last.sdp.Ufrag)
	echo(t, conns[2], "answered")
	p := l.pair(a)
	if !p.Nominated || p.RemoteUfrag != last.sdp.Ufrag {
		t.Errorf("pair in use %+v", p)
	}
	for i, c := range clients[:2] {
		for _, cand := range c.sdp.Candidates {
			if a.Admit(cand.Addr) {
				t.Errorf("client %d is admitted after the 200 of another", i)
			}
		}
	}
	if s := a.Stats(); s.Forks[0].State != "connected" || s.Forks[0].RemoteType != "host" {
		t.Errorf("stats %+v", s)
	}
}

// TestC117FullAgentRestarts restarts ICE in a running session: the old pair
// carries voice until the new generation is nominated.
func TestC117FullAgentRestarts(t *testing.T) {
	l := newLeg(t)
	first := l.generation()
	c := newClient(t)
	conn := c.dial(first.ICE())
	echo(t, conn, "before")

	if err := c.Restart("", ""); err != nil {
		t.Fatal(err)
	}
	previous := *c.sdp
	c.sdp = &sdp.ICE{}
	c.gather()
	if !Restarts(&previous, c.sdp) {
		t.Error("the restart is not recognised")
	}
	second := l.generation()
	ours := second.ICE()
	if err := second.SetRemote(c.sdp); err != nil {
		t.Fatal(err)
	}
	c.add(ours)
	if err := c.SetRemoteCredentials(ours.Ufrag, ours.Pwd); err != nil {
		t.Fatal(err)
	}
	echo(t, conn, "after")
	limit := time.After(20 * time.Second)
	for !l.pair(second).Nominated {
		select {
		case <-limit:
			t.Fatalf("no nomination after the restart: %+v", second.Stats())
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	echo(t, conn, "alone")
}
