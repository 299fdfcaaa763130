package media

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"localloop/internal/config"
	"localloop/internal/dsp"
	"localloop/internal/sdp"

	"github.com/pion/ice/v4"
	"github.com/pion/rtcp"
	"github.com/pion/srtp/v3"
)

// These tests run the whole engine on loopback, with peers of other
// implementations: pion/ice/v4 and pion/srtp/v3.

const liveness = 30 * time.Second

func startEngine(t testing.TB, lines map[string]Line) *Engine {
	t.Helper()
	e, err := New(Options{
		Realms: []config.Realm{
			{Name: "lan", Address: netip.MustParseAddr("127.0.0.1"), Ports: config.PortRange{Low: 42000, High: 42199}},
			{Name: "wan", Address: netip.MustParseAddr("127.0.0.2"), Ports: config.PortRange{Low: 42200, High: 42399}, Cloud: true},
		},
		Lines: func(name string) (Line, bool) { l, ok := lines[name]; return l, ok },
		Log:   slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if s := e.Stats(); s.Calls != 0 || s.Legs != 0 {
			t.Errorf("left behind: %+v", s)
		}
		for _, l := range e.Stats().Loops {
			if l.Panics != 0 {
				t.Errorf("%d panics in the voice path", l.Panics)
			}
		}
	})
	return e
}

// card is a line card: it clocks frames and keeps what it hears.
type card struct {
	mu    sync.Mutex
	sink  func([]int16)
	heard []int16
	stop  chan struct{}
	ended chan struct{}
}

func newCard(t testing.TB, hz float64) *card {
	c := &card{stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		s := &speaker{hz: hz}
		for {
			select {
			case <-c.stop:
				return
			case <-tick.C:
			}
			c.mu.Lock()
			sink := c.sink
			c.mu.Unlock()
			if sink != nil {
				sink(s.frame())
			}
		}
	}()
	t.Cleanup(func() { close(c.stop); <-c.ended })
	return c
}

func (c *card) Attach(sink func([]int16)) { c.mu.Lock(); c.sink = sink; c.mu.Unlock() }
func (c *card) Detach()                   { c.mu.Lock(); c.sink = nil; c.mu.Unlock() }
func (c *card) Write(f []int16) {
	c.mu.Lock()
	c.heard = append(c.heard, f...)
	c.mu.Unlock()
}

// last is what was heard most recently.
func (c *card) last(n int) []int16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.heard) < n {
		return nil
	}
	return append([]int16(nil), c.heard[len(c.heard)-n:]...)
}

// client is a Teams client: full ICE, SDES, G.711 A-law, a tone of its own.
type client struct {
	t     *testing.T
	agent *ice.Agent
	sdp   *sdp.ICE
	key   []byte
	conn  *ice.Conn

	mu      sync.Mutex
	tx, rx  *srtp.Context
	heard   []int16
	reports int
	failed  int
	stop    chan struct{}
	wg      sync.WaitGroup
	hz      float64
}

func newClient(t *testing.T, hz float64) *client {
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
	c := &client{t: t, agent: agent, key: make([]byte, 30), stop: make(chan struct{}), hz: hz}
	rekey(c.key)
	t.Cleanup(func() {
		close(c.stop)
		_ = agent.GracefulClose()
		c.wg.Wait()
	})
	c.gather()
	return c
}

func rekey(k []byte) { _, _ = rand.Read(k) }

func (c *client) gather() {
	c.t.Helper()
	done := make(chan struct{})
	c.sdp = &sdp.ICE{}
	var mu sync.Mutex
	if err := c.agent.OnCandidate(func(cand ice.Candidate) {
		if cand == nil {
			close(done)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		c.sdp.Candidates = append(c.sdp.Candidates, sdp.Candidate{
			Foundation: cand.Foundation(), Component: 1, Transport: "UDP", Priority: cand.Priority(), Type: "host",
			Addr: netip.AddrPortFrom(netip.MustParseAddr(cand.Address()), uint16(cand.Port())),
		})
	}); err != nil {
		c.t.Fatal(err)
	}
	if err := c.agent.GatherCandidates(); err != nil {
		c.t.Fatal(err)
	}
	<-done
	c.sdp.Ufrag, c.sdp.Pwd, _ = c.agent.GetLocalUserCredentials()
	if len(c.sdp.Candidates) == 0 {
		c.t.Skip("the full agent finds no candidate on loopback")
	}
}

func (c *client) describe(tag int) *sdp.Description {
	at := c.sdp.Candidates[0].Addr
	return &sdp.Description{SessionID: 1, Version: 1, RTP: at, RTCP: at, RTCPMux: true, Secure: true, Transport: "RTP/SAVP",
		Crypto: []sdp.Crypto{{Tag: tag, Suite: sdp.AESCM128HMACSHA180, Key: bytes.Clone(c.key), Lifetime: "2^31"}},
		ICE:    c.sdp, Codecs: []sdp.Codec{codecA, events(101), codecCN}, Ptime: ptime}
}

// keys takes over the key of the box and starts sending with a new context.
func (c *client) keys(ours *sdp.Description) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	k := ours.Crypto[0].Key
	if c.rx, err = srtp.CreateContext(k[:16], k[16:], srtp.ProtectionProfileAes128CmHmacSha1_80); err != nil {
		c.t.Fatal(err)
	}
	if c.tx, err = srtp.CreateContext(c.key[:16], c.key[16:], srtp.ProtectionProfileAes128CmHmacSha1_80); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) add(ours *sdp.ICE) {
	c.t.Helper()
	k := ours.Candidates[0]
	cand, err := ice.NewCandidateHost(&ice.CandidateHostConfig{Network: "udp", Component: 1, Address: k.Addr.Addr().String(), Port: int(k.Addr.Port()), Priority: k.Priority})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.agent.AddRemoteCandidate(cand); err != nil {
		c.t.Fatal(err)
	}
}

// connect runs ICE and then talks and listens until the test ends.
func (c *client) connect(ours *sdp.Description) {
	c.t.Helper()
	c.keys(ours)
	c.add(ours.ICE)
	ctx, cancel := context.WithTimeout(context.Background(), liveness)
	defer cancel()
	var err error
	if c.conn, err = c.agent.Dial(ctx, ours.ICE.Ufrag, ours.ICE.Pwd); err != nil {
		c.t.Fatalf("the full agent did not connect: %v", err)
	}
	c.wg.Go(c.talk)
	c.wg.Go(c.listen)
}

func (c *client) talk() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var seq uint16 = 65500
	var ts uint32
	phase := 0.0
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}
		p := make([]byte, 172)
		p[0], p[1] = 0x80, 8
		binary.BigEndian.PutUint16(p[2:], seq)
		binary.BigEndian.PutUint32(p[4:], ts)
		binary.BigEndian.PutUint32(p[8:], 0xC0FFEE)
		pcm := make([]int16, 160)
		for i := range pcm {
			pcm[i] = int16(9000 * math.Sin(phase))
			phase += 2 * math.Pi * c.hz / 8000
		}
		dsp.ALaw.Encode(p[12:], pcm)
		seq++
		ts += 160
		c.mu.Lock()
		out, err := c.tx.EncryptRTP(nil, p, nil)
		c.mu.Unlock()
		if err == nil {
			_, _ = c.conn.Write(out)
		}
	}
}

func (c *client) listen() {
	buf := make([]byte, 1500)
	for {
		n, err := c.conn.Read(buf)
		if err != nil {
			return
		}
		c.mu.Lock()
		if buf[1] >= 192 && buf[1] <= 223 {
			if p, err := c.rx.DecryptRTCP(nil, buf[:n], nil); err == nil {
				if list, err := rtcp.Unmarshal(p); err == nil && len(list) > 0 {
					c.reports++
				}
			} else {
				c.failed++
			}
		} else if p, err := c.rx.DecryptRTP(nil, buf[:n], nil); err == nil {
			pcm := make([]int16, len(p)-12)
			dsp.ALaw.Decode(pcm, p[12:])
			c.heard = append(c.heard, pcm...)
		} else {
			c.failed++
		}
		c.mu.Unlock()
	}
}

func (c *client) last(n int) []int16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.heard) < n {
		return nil
	}
	return append([]int16(nil), c.heard[len(c.heard)-n:]...)
}

func (c *client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = nil
}

// eventually waits for a condition that time brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	limit := time.After(liveness)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit:
			t.Fatalf("in %v not seen: %s", liveness, what)
		case <-tick.C:
		}
	}
}

var teamsProfile = sdp.Profile{Realm: "lan", Fallback: "wan", Secure: true, ICE: sdp.LiteICE, RTCPMux: true, Codecs: []string{"PCMA", "PCMU"}, Ptime: ptime, InactiveHold: true, Country: "de"}

// drain keeps the events of a bridge.
type drain struct {
	mu   sync.Mutex
	list []Event
	done chan struct{}
}

func watch(b *Bridge) *drain {
	d := &drain{done: make(chan struct{})}
	go func() {
		defer close(d.done)
		for e := range b.Events() {
			d.mu.Lock()
			d.list = append(d.list, e)
			d.mu.Unlock()
		}
	}()
	return d
}

// TestTeamsClientAndPhone is the main job: SRTP with ICE-lite on one side, an
// analog line on the other; then the leg moves to the other realm and back the
// peer restarts with a new key (C-117, C-119).
func TestTeamsClientAndPhone(t *testing.T) {
	line := newCard(t, 900)
	e := startEngine(t, map[string]Line{"line-1": line})
	b, err := e.Open("call-1")
	if err != nil {
		t.Fatal(err)
	}
	events := watch(b)
	c := newClient(t, 440)
	if err := b.Offered("teams", c.describe(3), teamsProfile); err != nil {
		t.Fatal(err)
	}
	if _, err := b.OfferTo("line", lineProfile); err != nil {
		t.Fatal(err)
	}
	ours, err := b.AnswerTo("teams")
	if err != nil {
		t.Fatal(err)
	}
	if len(ours.Crypto) != 1 || ours.Crypto[0].Tag != 3 || !ours.ICE.Lite || len(ours.ICE.Candidates) != 1 || !ours.RTCPMux {
		t.Fatalf("answer %+v", ours)
	}
	if err := b.Join("teams", "line"); err != nil {
		t.Fatal(err)
	}
	c.connect(ours)
	hear := func(what string) {
		t.Helper()
		eventually(t, what+": the line hears the client", func() bool { return share(line.last(1600), 440) > 0.9 })
		eventually(t, what+": the client hears the line", func() bool { return share(c.last(1600), 900) > 0.9 })
	}
	hear("first")

	// We move the leg: ICE restart in the other realm (C-117, C-119).
	wan := teamsProfile
	wan.Realm = "wan"
	offer, err := b.OfferTo("teams", wan)
	if err != nil {
		t.Fatal(err)
	}
	if !sdp.Restarted(ours.ICE, offer.ICE) || offer.RTP.Addr() != netip.MustParseAddr("127.0.0.2") || !bytes.Equal(offer.Crypto[0].Key, ours.Crypto[0].Key) {
		t.Errorf("offer for the move: %v", offer.RTP)
	}
	restart := func(theirs *sdp.Description) {
		t.Helper()
		c.add(theirs.ICE)
		if err := c.agent.SetRemoteCredentials(theirs.ICE.Ufrag, theirs.ICE.Pwd); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.agent.Restart("", ""); err != nil {
		t.Fatal(err)
	}
	c.gather()
	if err := b.Answered("teams", c.describe(1)); err != nil {
		t.Fatal(err)
	}
	restart(offer)
	eventually(t, "voice alive in wan", func() bool {
		events.mu.Lock()
		defer events.mu.Unlock()
		for _, ev := range events.list {
			if ev == (VoiceAlive{"teams", "wan"}) {
				return true
			}
		}
		return false
	})
	c.forget()
	hear("after the move")

	// The client restarts with a new key: the answer has a new key and new
	// credentials at the same address.
	if err := c.agent.Restart("", ""); err != nil {
		t.Fatal(err)
	}
	c.gather()
	rekey(c.key)
	if err := b.Offered("teams", c.describe(1), wan); err != nil {
		t.Fatal(err)
	}
	second, err := b.AnswerTo("teams")
	if err != nil {
		t.Fatal(err)
	}
	if !sdp.Restarted(offer.ICE, second.ICE) || second.RTP != offer.RTP || bytes.Equal(second.Crypto[0].Key, offer.Crypto[0].Key) {
		t.Errorf("answer to the restart: address %v after %v", second.RTP, offer.RTP)
	}
	restart(second)
	c.keys(second)
	c.forget()
	hear("after the peer's restart")
	eventually(t, "encrypted reports", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.reports > 0 })

	rep := map[string]LegReport{}
	for _, l := range b.Close().Legs {
		rep[l.Leg] = l
	}
	<-events.done
	x := rep["teams"]
	if x.Realm != "wan" || x.MediaPath != "cloud" || x.Pair == "" || x.Codec != "PCMA" || len(x.Moves) != 2 || !x.Moves[0].OK || x.Moves[0].From != "lan" || x.Received < 50 {
		t.Errorf("report %+v", x)
	}
}

// TestSecureAndPlainPeersOverSockets relays SRTP to RTP and counts.
func TestSecureAndPlainPeersOverSockets(t *testing.T) {
	e := startEngine(t, nil)
	b, err := e.Open("call-2")
	if err != nil {
		t.Fatal(err)
	}
	events := watch(b)
	c := newClient(t, 440)
	if err := b.Offered("teams", c.describe(0), teamsProfile); err != nil {
		t.Fatal(err)
	}
	offer, err := b.OfferTo("trunk", plainProfile)
	if err != nil {
		t.Fatal(err)
	}
	sock, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr := sock.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := b.Answered("trunk", &sdp.Description{RTP: addr, Transport: "RTP/AVP", Codecs: []sdp.Codec{codecU, events101()}}); err != nil {
		t.Fatal(err)
	}
	ours, err := b.AnswerTo("teams")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Join("teams", "trunk"); err != nil {
		t.Fatal(err)
	}
	c.connect(ours)
	// The trunk echoes the voice that it hears: the client must hear its own tone.
	var mu sync.Mutex
	var heard []int16
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, err := sock.Read(buf)
			if err != nil {
				return
			}
			if buf[1]&0x7F == 0 {
				pcm := make([]int16, n-12)
				dsp.MuLaw.Decode(pcm, buf[12:n])
				mu.Lock()
				heard = append(heard, pcm...)
				mu.Unlock()
				_, _ = sock.WriteToUDPAddrPort(buf[:n], offer.RTP)
			}
		}
	})
	eventually(t, "the trunk hears the client", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(heard) > 1600 && share(heard[len(heard)-1600:], 440) > 0.9
	})
	eventually(t, "the client hears the echo", func() bool { return share(c.last(1600), 440) > 0.9 })
	rep := b.Close()
	sock.Close()
	wg.Wait()
	<-events.done
	for _, l := range rep.Legs {
		if l.Received < 10 || l.Sent < 10 {
			t.Errorf("report %+v", l)
		}
	}
	if s := e.Stats(); s.Drops["authentication"] != 0 || s.Realms[0].PacketsIn == 0 && s.Realms[1].PacketsIn == 0 {
		t.Errorf("stats %+v", s)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != 0 {
		t.Errorf("%d of our packets do not decrypt", c.failed)
	}
}

func events101() sdp.Codec { return events(101) }
