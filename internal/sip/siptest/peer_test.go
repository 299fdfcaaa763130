package siptest

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"localloop/internal/media/mediatest"
)

func startPeer(t *testing.T, name, transport string, secure bool, a Answering) *Peer {
	t.Helper()
	cfg := PeerConfig{
		Name: name, Transport: transport, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Answering: a, T1: 50 * time.Millisecond,
		Media: mediatest.Config{Name: name, Secure: secure, Paths: []mediatest.Path{{Name: "lan", Local: netip.MustParseAddr("127.0.0.1")}}},
	}
	if transport == "tls" {
		cfg.Certificate, cfg.RemoteName = certificate(t, "box"), boxName
		cfg.Roots = authority.Pool()
	}
	p, err := StartPeer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestPeersCallEachOtherOverEachTransport(t *testing.T) {
	for _, transport := range []string{"udp", "tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			ctx := liveness(t)
			a := startPeer(t, "a", transport, transport == "tls", Answering{})
			b := startPeer(t, "b", transport, transport == "tls", Answering{Early: true})
			a.SetRemote(b.Address())
			call, err := a.Place(ctx, "100", "200")
			if err != nil {
				t.Fatal(err)
			}
			if err := call.WaitEstablished(ctx); err != nil {
				t.Fatal(err)
			}
			callee, err := b.Incoming(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := callee.WaitEstablished(ctx); err != nil {
				t.Fatal(err)
			}
			call.Media().Say(mediatest.Tone(600, -10))
			callee.Media().Say(mediatest.Tone(900, -10))
			if _, err := callee.Media().WaitTone(ctx, 600, time.Time{}); err != nil {
				t.Error(err)
			}
			if _, err := call.Media().WaitTone(ctx, 900, time.Time{}); err != nil {
				t.Error(err)
			}
			// Hold and resume by re-INVITE, from the called side.
			for _, direction := range []string{"inactive", "sendrecv"} {
				r, err := callee.Reinvite(ctx, mediatest.Reoffer{Direction: direction})
				if err != nil || r.Status != 200 {
					t.Fatalf("re-INVITE %s: %v %v", direction, r, err)
				}
				if got := call.Media().Local().Direction; got != direction {
					t.Errorf("answered %s with %s", direction, got)
				}
			}
			if err := callee.Bye(ctx); err != nil {
				t.Error(err)
			}
			if over, err := call.WaitEnded(ctx); err != nil || over.Method != "BYE" {
				t.Errorf("%v %v", over, err)
			}
			noViolations(t, a)
			noViolations(t, b)
		})
	}
}

func TestRefusalsReachTheCaller(t *testing.T) {
	for _, status := range []int{404, 486, 503, 603} {
		ctx := liveness(t)
		a, b := startPeer(t, "a", "udp", false, Answering{}), startPeer(t, "b", "udp", false, Answering{Refuse: status})
		a.SetRemote(b.Address())
		call, err := a.Place(ctx, "100", "200")
		if err != nil {
			t.Fatal(err)
		}
		if over, err := call.WaitEnded(ctx); err != nil || over.Status != status {
			t.Errorf("%v %v, want %d", over, err, status)
		}
	}
}

// TestLostDatagramsAreRepeated lets a scripted UDP party ignore the first INVITE
// and the first BYE.
func TestLostDatagramsAreRepeated(t *testing.T) {
	ctx := liveness(t)
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	a := startPeer(t, "a", "udp", false, Answering{})
	a.SetRemote(addrPortOf(conn.LocalAddr()))
	media, err := mediatest.Start(mediatest.Config{Name: "script", Paths: []mediatest.Path{{Name: "lan", Local: netip.MustParseAddr("127.0.0.1")}}})
	if err != nil {
		t.Fatal(err)
	}
	defer media.Close()
	call, err := a.Place(ctx, "100", "200")
	if err != nil {
		t.Fatal(err)
	}
	next := func(method string) (*Message, netip.AddrPort) {
		buf := make([]byte, 64<<10)
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				t.Fatalf("no %s: %v", method, err)
			}
			if m, err := Parse(buf[:n]); err == nil && m.Method == method {
				return m, from
			}
		}
	}
	first, _ := next("INVITE")
	again, from := next("INVITE")
	if topBranch(first) != topBranch(again) {
		t.Error("repeated INVITE with another branch")
	}
	answer, err := media.Answer(again.Body)
	if err != nil {
		t.Fatal(err)
	}
	ok := respond(again, 200, "remote")
	ok.Add("Contact", "<sip:200@"+conn.LocalAddr().String()+">")
	ok.Add("Content-Type", "application/sdp")
	ok.Body = answer
	// The 200 twice: each is acknowledged.
	for range 2 {
		if _, err := conn.WriteToUDPAddrPort(ok.Bytes(false), from); err != nil {
			t.Fatal(err)
		}
		ack, _ := next("ACK")
		if topBranch(ack) == topBranch(again) {
			t.Error("ACK for 2xx in the INVITE's transaction")
		}
	}
	done := make(chan error, 1)
	go func() { done <- call.Bye(ctx) }()
	next("BYE")
	bye, from := next("BYE")
	if _, err := conn.WriteToUDPAddrPort(respond(bye, 200, "").Bytes(false), from); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
