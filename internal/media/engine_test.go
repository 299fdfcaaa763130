package media

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"localloop/internal/config"
	"localloop/internal/sdp"
)

func TestPortsAreEvenPairsAndRunOut(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Realms = []config.Realm{{Name: "lan", Address: netip.MustParseAddr("10.0.0.1"), Ports: config.PortRange{Low: 20001, High: 20006}}}
	})
	seen := map[uint16]bool{}
	for i, leg := range []string{"a", "b"} {
		d, err := r.b.OfferTo(leg, plainProfile)
		if err != nil {
			t.Fatal(err)
		}
		if p := d.RTP.Port(); p%2 != 0 || p < 20002 || p > 20004 || seen[p] || d.RTCP.Port() != p+1 {
			t.Errorf("leg %d: port %d, RTCP %v", i, p, d.RTCP)
		} else {
			seen[p] = true
		}
	}
	if _, err := r.b.OfferTo("c", plainProfile); err == nil {
		t.Error("a third leg found a port")
	}
	if _, err := r.e.Open("call-2"); !errors.Is(err, ErrFull) {
		t.Errorf("open with all ports in use: %v", err)
	}
	r.b.Drop("a")
	r.pump()
	if _, err := r.b.OfferTo("c", plainProfile); err != nil {
		t.Errorf("after a leg was dropped: %v", err)
	}
}

func TestApplyLeavesCallsAlone(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	realms := []config.Realm{
		{Name: "lan", Address: netip.MustParseAddr("10.9.0.1"), Ports: config.PortRange{Low: 40000, High: 40099}},
		{Name: "wan", Address: netip.MustParseAddr("192.0.2.1"), Advertise: netip.MustParseAddr("198.51.100.1"), Ports: config.PortRange{Low: 30000, High: 30099}, Cloud: true},
	}
	for range 2 {
		if err := r.e.Apply(realms); err != nil {
			t.Fatal(err)
		}
	}
	r.run(time.Second, both(a, b))
	if len(a.packets) != 50 || len(b.packets) != 50 {
		t.Errorf("%d and %d packets in the running call", len(a.packets), len(b.packets))
	}
	d, err := r.b.OfferTo("new", plainProfile)
	if err != nil || d.RTP.Addr() != netip.MustParseAddr("10.9.0.1") {
		t.Errorf("a new leg gets %v, %v", d, err)
	}
	if err := r.e.Apply([]config.Realm{{Name: "x", Address: netip.MustParseAddr("10.9.0.1"), Ports: config.PortRange{Low: 5, High: 5}}}); err == nil {
		t.Error("a realm without a pair of ports was taken")
	}
	if _, err := r.b.OfferTo("again", plainProfile); err != nil {
		t.Errorf("a refused configuration replaced the good one: %v", err)
	}
}

func TestEndedEngineStillClosesItsCalls(t *testing.T) {
	e, err := New(Options{Realms: []config.Realm{{Name: "lan", Address: netip.MustParseAddr("127.0.0.1"), Ports: config.PortRange{Low: 42400, High: 42409}}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	b, err := e.Open("x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.OfferTo("a", plainProfile); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := b.OfferTo("b", plainProfile); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if s := e.Stats(); s.Legs != 0 || s.Calls != 0 || s.Realms[0].PortsFree != 5 {
		t.Errorf("%+v", s)
	}
	if _, err := e.Open("y"); err == nil {
		t.Error("an ended engine opens calls")
	}
}

// BenchmarkRelayOverSockets is the whole way of one packet over loopback: two
// system calls of the test, the loop's wake-up, its two calls, the relay.
func BenchmarkRelayOverSockets(b *testing.B) {
	e := startEngine(b, nil)
	br, err := e.Open("bench")
	if err != nil {
		b.Fatal(err)
	}
	defer br.Close()
	var socks [2]*net.UDPConn
	var to [2]netip.AddrPort
	for i, leg := range []string{"a", "b"} {
		if socks[i], err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			b.Fatal(err)
		}
		defer socks[i].Close()
		d, err := br.OfferTo(leg, plainProfile)
		if err != nil {
			b.Fatal(err)
		}
		to[i] = d.RTP
		if err := br.Answered(leg, &sdp.Description{RTP: socks[i].LocalAddr().(*net.UDPAddr).AddrPort(), Codecs: []sdp.Codec{codecA}}); err != nil {
			b.Fatal(err)
		}
	}
	if err := br.Join("a", "b"); err != nil {
		b.Fatal(err)
	}
	p, buf := make([]byte, 172), make([]byte, 1500)
	p[0], p[1] = 0x80, 8
	if err := socks[1].SetReadDeadline(time.Now().Add(liveness)); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	const window = 16
	for i := 0; b.Loop(); i++ {
		for k := range window {
			binary.BigEndian.PutUint16(p[2:], uint16(i*window+k))
			if _, err := socks[0].WriteToUDPAddrPort(p, to[0]); err != nil {
				b.Fatal(err)
			}
		}
		for range window {
			if _, err := socks[1].Read(buf); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*window), "ns/packet")
}
