package mediatest

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/srtp/v3"
)

// liteBox is an ICE-lite answerer with one candidate that sends every RTP packet
// back under its own key.
type liteBox struct {
	agent *ice.Agent
	conn  *ice.Conn
	wg    sync.WaitGroup
	desc  Description
}

func startLiteBox(t *testing.T, local netip.Addr, offer Description, version uint64) *liteBox {
	t.Helper()
	agent, err := ice.NewAgentWithOptions(
		ice.WithICELite(true), ice.WithIncludeLoopback(), ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled),
		ice.WithCandidateTypes([]ice.CandidateType{ice.CandidateTypeHost}),
		ice.WithNetworkTypes([]ice.NetworkType{ice.NetworkTypeUDP4}),
		ice.WithLocalCredentials(token(4), token(24)),
	)
	if err != nil {
		t.Fatal(err)
	}
	b := &liteBox{agent: agent}
	t.Cleanup(b.close)
	// One candidate on one address, as the box has: a socket of our own.
	s, err := openSocket(Path{Name: "box", Local: local}, 46, 1)
	if err != nil {
		t.Fatal(err)
	}
	cand, err := ice.NewCandidateHost(&ice.CandidateHostConfig{Network: "udp4", Address: local.String(), Port: int(s.local.Port()), Component: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.AddVirtualCandidate(cand, s.conn); err != nil {
		t.Fatal(err)
	}
	for _, c := range offer.Candidates {
		rc, err := ice.NewCandidateHost(&ice.CandidateHostConfig{Network: "udp4", Address: c.Addr.Addr().String(), Port: int(c.Addr.Port()), Component: 1, Priority: c.Priority})
		if err == nil {
			err = agent.AddRemoteCandidate(rc)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if b.conn, err = agent.StartAccept(offer.Ufrag, offer.Pwd); err != nil {
		t.Fatal(err)
	}
	ufrag, pwd, err := agent.GetLocalUserCredentials()
	if err != nil {
		t.Fatal(err)
	}
	var theirs Crypto
	for _, k := range offer.Crypto {
		if k.MKI == nil {
			theirs = k
		}
	}
	key := newKey()
	b.desc = Description{
		SessionID: 5, Version: version, Profile: "RTP/SAVP", Addr: s.local, RTCP: s.local, RTCPMux: true, Lite: true, Ufrag: ufrag, Pwd: pwd, Direction: "sendrecv",
		Codecs:     []Codec{{PayloadType: 8, Name: "PCMA/8000"}, {PayloadType: 101, Name: "telephone-event/8000"}},
		Crypto:     []Crypto{{Tag: theirs.Tag, Suite: suite80, Key: key}},
		Candidates: []Candidate{{Foundation: "1", Component: 1, Transport: "UDP", Priority: 2130706431, Addr: s.local, Type: "host"}},
	}
	in, err1 := srtp.CreateContext(theirs.Key[:16], theirs.Key[16:], srtp.ProtectionProfileAes128CmHmacSha1_80)
	out, err2 := srtp.CreateContext(key[:16], key[16:], srtp.ProtectionProfileAes128CmHmacSha1_80)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	b.wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, err := b.conn.Read(buf)
			if err != nil {
				return
			}
			if kindOf(buf[:n]) != RTP {
				continue
			}
			plain, err := in.DecryptRTP(nil, buf[:n], nil)
			if err != nil {
				t.Errorf("box: %v", err)
				continue
			}
			if sealed, err := out.EncryptRTP(nil, plain, nil); err == nil {
				_, _ = b.conn.Write(sealed)
			}
		}
	})
	return b
}

func (b *liteBox) close() {
	_ = b.agent.GracefulClose()
	b.wg.Wait()
}

// teamsClient has a LAN socket that reaches the LAN only, and a relay in the
// cloud that does not reach the LAN.
func teamsClient(t *testing.T) *Client {
	lan, wan := netip.MustParsePrefix("127.0.0.16/28"), netip.MustParsePrefix("127.0.0.32/28")
	return start(t, Config{
		Name: "teams", ICE: true, Secure: true, Teams: true, DSCP: 46, Check: 20 * time.Millisecond,
		Extra: []Codec{{PayloadType: 104, Name: "SILK/16000"}, {PayloadType: 9, Name: "G722/8000"}},
		Paths: []Path{
			{Name: "lan", Local: loopback(17), Reaches: []netip.Prefix{lan}},
			{Name: "wan", Local: loopback(33), Relay: true, Reaches: []netip.Prefix{wan}},
		},
	})
}

func TestFullAgentNominatesTowardLiteAndMovesOnRestart(t *testing.T) {
	c := teamsClient(t)
	offer, err := c.Offer()
	if err != nil {
		t.Fatal(err)
	}
	d, err := ParseDescription(offer)
	if err != nil {
		t.Fatal(err)
	}
	box := startLiteBox(t, loopback(18), d, 1)
	if err := c.Accept(box.desc.Text(false)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c.Say(Tone(900, -10))
	if err := c.WaitConnected(liveness(t)); err != nil {
		t.Fatal(err)
	}
	hear(t, c, 900, began)
	if _, remote, path := c.Pair(); path != "lan" || remote != box.desc.Addr {
		t.Errorf("voice goes by %q to %s", path, remote)
	}
	if n := c.Stats().Paths["wan"].Sent[RTP]; n != 0 {
		t.Errorf("%d RTP packets by the WAN while the LAN stands", n)
	}
	if n := c.Stats().Paths["lan"].STUNRequests; n != 0 {
		t.Errorf("a lite agent sent %d checks", n)
	}

	confirm, err := c.Reoffer(Reoffer{Confirm: true})
	if err != nil {
		t.Fatal(err)
	}
	if cd, _ := ParseDescription(confirm); len(cd.RemoteCandidates) != 1 || cd.RemoteCandidates[0] != box.desc.Addr || cd.Ufrag != d.Ufrag {
		t.Errorf("confirming offer:\n%s", confirm)
	}

	// The way breaks; the box offers its other address with new credentials.
	c.Cut("lan")
	reoffer := startLiteBox(t, loopback(34), d, 2)
	text := reoffer.desc
	// The offer needs the client's new credentials on the box side: answer first.
	answer, err := c.Answer(text.Text(false))
	if err != nil {
		t.Fatal(err)
	}
	ad, err := ParseDescription(answer)
	if err != nil {
		t.Fatal(err)
	}
	if ad.Ufrag == d.Ufrag || ad.Pwd == d.Pwd {
		t.Error("answer to an ICE restart kept ufrag or pwd")
	}
	if err := reoffer.agent.SetRemoteCredentials(ad.Ufrag, ad.Pwd); err != nil {
		t.Fatal(err)
	}
	cut := time.Now()
	if err := c.WaitConnected(liveness(t)); err != nil {
		t.Fatalf("%v, ICE %s", err, c.ICEState())
	}
	hear(t, c, 900, cut)
	if _, _, path := c.Pair(); path != "wan" {
		t.Errorf("after the cut voice goes by %q", path)
	}
	if n := c.Stats().Paths["wan"]; n.Sent[RTP] == 0 || n.Received[RTP] == 0 {
		t.Errorf("WAN %+v", n.Sent)
	}
}

func TestMediaStaysOnOldPairUntilNewOneIsNominated(t *testing.T) {
	c := teamsClient(t)
	offer, _ := c.Offer()
	d, _ := ParseDescription(offer)
	box := startLiteBox(t, loopback(18), d, 1)
	if err := c.Accept(box.desc.Text(false)); err != nil {
		t.Fatal(err)
	}
	c.Say(Tone(900, -10))
	hear(t, c, 900, time.Time{})
	// An offer whose candidate nobody answers.
	dead := box.desc
	dead.Version, dead.Ufrag, dead.Pwd = 2, "dead", "deaddeaddeaddeaddeaddead"
	dead.Candidates = []Candidate{{Foundation: "1", Component: 1, Transport: "UDP", Priority: 1, Addr: netip.AddrPortFrom(loopback(20), 9), Type: "host"}}
	if _, err := c.Answer(dead.Text(false)); err != nil {
		t.Fatal(err)
	}
	if local, remote, path := c.Pair(); path != "lan" || remote != box.desc.Addr {
		t.Errorf("voice left the old pair for %s %s", local, remote)
	}
	hear(t, c, 900, time.Now())
}

func TestAnswerWithChangedCredentialsIsNamed(t *testing.T) {
	c := teamsClient(t)
	offer, _ := c.Offer()
	d, _ := ParseDescription(offer)
	box := startLiteBox(t, loopback(18), d, 1)
	if err := c.Accept(box.desc.Text(false)); err != nil {
		t.Fatal(err)
	}
	again := box.desc
	again.Ufrag = "ZZZZ"
	if err := c.Accept(again.Text(false)); err == nil {
		t.Error("ufrag may not change between 183 and 200")
	}
}

// TestTwoLiteAgentsTalkWithoutChecks: both lite, no STUN at all (C-120).
func TestTwoLiteAgentsTalkWithoutChecks(t *testing.T) {
	lite := func(name string, n byte) *Client {
		return start(t, Config{Name: name, ICE: true, Lite: true, Secure: true, Paths: []Path{{Name: "lan", Local: loopback(n)}}})
	}
	a, b := lite("a", 17), lite("b", 18)
	negotiate(t, a, b)
	a.Say(Tone(700, -10))
	hear(t, b, 700, time.Time{})
	if d := b.Local(); !d.Lite || d.Ufrag == "" {
		t.Errorf("answer of a lite agent: %+v", d)
	}
	for _, c := range []*Client{a, b} {
		if n := c.Stats().Paths["lan"]; n.Sent[STUN] != 0 || n.Received[STUN] != 0 {
			t.Errorf("STUN between two lite agents: %v", n)
		}
	}
}

func TestFullOffererAndLiteAnswererConnect(t *testing.T) {
	a := teamsClient(t)
	b := start(t, Config{Name: "box", ICE: true, Lite: true, Secure: true, Paths: []Path{{Name: "lan", Local: loopback(18)}}})
	negotiate(t, a, b)
	a.Say(Tone(700, -10))
	b.Say(Tone(1100, -10))
	hear(t, b, 700, time.Time{})
	hear(t, a, 1100, time.Time{})
	if n := a.Stats().Paths["lan"].STUNRequests; n != 0 {
		t.Errorf("a lite agent sent %d checks", n)
	}
}
