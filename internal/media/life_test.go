package media

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"localloop/internal/sdp"
)

// netip2 is the RTCP address of an RTP address.
func netip2(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+1) }

func TestVoiceDeathAndReturn(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	r.run(2*time.Second, both(a, b))
	if alive := countEvents[VoiceAlive](r); len(alive) != 2 || alive[0].Realm != "lan" {
		t.Fatalf("first voice: %+v", alive)
	}
	cut := r.now
	r.run(1100*time.Millisecond, func(i int) {
		if i%2 == 0 {
			b.talk()
		}
	})
	if d := countEvents[VoiceDead](r); len(d) != 0 {
		t.Fatalf("dead after 1.1 s: %+v", d)
	}
	r.run(300*time.Millisecond, func(i int) {
		if i%2 == 0 {
			b.talk()
		}
	})
	d := countEvents[VoiceDead](r)
	if len(d) != 1 || d[0].Leg != "a" || !strings.HasPrefix(d[0].Why, "no packets for 1.") {
		t.Fatalf("%v after the cut: %+v", r.now.Sub(cut), d)
	}
	r.run(5*time.Second, func(i int) {
		if i%2 == 0 {
			b.talk()
		}
	})
	if d := countEvents[VoiceDead](r); len(d) != 1 {
		t.Fatalf("reported again: %+v", d)
	}
	r.got = nil
	r.run(200*time.Millisecond, both(a, b))
	if alive := countEvents[VoiceAlive](r); len(alive) != 1 || alive[0].Leg != "a" {
		t.Errorf("voice again: %+v", alive)
	}
	if x := r.close()["a"]; x.Gap < 6300*time.Millisecond || x.Gap > 6500*time.Millisecond {
		t.Errorf("gap %v", x.Gap)
	}
}

// Each trunk has its own thresholds: a patient one is not given up with the others.
func TestEachLegHasThePatienceOfItsTrunk(t *testing.T) {
	r := newRig(t)
	patient := plainProfile
	patient.DeadAfter = 4 * time.Second
	a, b := r.peer("10.0.0.50:4000", 440), r.peer("10.0.0.60:5000", 1000)
	if err := r.b.Offered("a", a.describe(codecA), patient); err != nil {
		t.Fatal(err)
	}
	r.called("b", b, plainProfile, b.describe(codecA))
	d, err := r.b.AnswerTo("a")
	if err != nil {
		t.Fatal(err)
	}
	a.to, a.pt, b.pt = r.ours(d), codecA.PayloadType, codecA.PayloadType
	r.join("a", "b")
	r.run(2*time.Second, both(a, b))
	silent := func(int) {}
	r.run(3500*time.Millisecond, silent)
	if d := countEvents[VoiceDead](r); len(d) != 1 || d[0].Leg != "b" {
		t.Fatalf("after 3.5 s without a packet: %+v, want b alone", d)
	}
	r.run(time.Second, silent)
	if d := countEvents[VoiceDead](r); len(d) != 2 || d[1].Leg != "a" {
		t.Fatalf("after 4.5 s without a packet: %+v, want a too", d)
	}
}

func TestSilenceIsNotDeath(t *testing.T) {
	type act func(r *rig, a *memPeer, i int)
	rtcpEvery5 := func(_ *rig, a *memPeer, i int) {
		if i%500 == 50 {
			a.rtcpReport()
		}
	}
	for _, c := range []struct {
		name string
		cn   bool
		then act
		for_ time.Duration
		dead bool
	}{
		{"comfort noise, then RTCP only", true, rtcpEvery5, time.Minute, false},
		{"no comfort noise, RTCP at once", false, rtcpEvery5, time.Minute, false},
		{"comfort noise, no RTCP ever: nothing can be said", true, func(*rig, *memPeer, int) {}, time.Minute, false},
		{"silent with RTCP that stops", true, func(_ *rig, a *memPeer, i int) {
			if i == 100 {
				a.rtcpReport()
			}
		}, 14 * time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			a, b := two(t, r, []sdp.Codec{codecA, codecCN}, []sdp.Codec{codecA, codecCN})
			r.run(time.Second, both(a, b))
			if c.cn {
				a.raw(a.rtp(13, false, []byte{60}))
			}
			r.run(c.for_, func(i int) {
				if i%2 == 0 {
					b.talk()
				}
				c.then(r, a, i)
			})
			if got := len(countEvents[VoiceDead](r)) > 0; got != c.dead {
				t.Errorf("dead: %v, want %v", got, c.dead)
			}
		})
	}
}

func TestHeldPeerIsNotMissed(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	r.run(time.Second, both(a, b))
	held := a.describe(codecA)
	held.Direction = sdp.Inactive
	r.caller("a", a, plainProfile, held)
	r.run(time.Minute, func(i int) {
		if i%2 == 0 {
			b.talk()
		}
	})
	if d := countEvents[VoiceDead](r); len(d) != 0 {
		t.Errorf("%+v", d)
	}
}

// TestPeerHeldByTheOldFormIsNotMissed: c=0.0.0.0, RFC 3264 §8.4.
func TestPeerHeldByTheOldFormIsNotMissed(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	r.run(time.Second, both(a, b))
	held := a.describe(codecA)
	held.RTP = netip.AddrPortFrom(netip.IPv4Unspecified(), 4000)
	held.RTCP = netip.AddrPort{}
	r.caller("a", a, plainProfile, held)
	n := len(a.packets)
	r.run(time.Minute, func(i int) {
		if i%2 == 0 {
			b.talk()
		}
	})
	if d := countEvents[VoiceDead](r); len(d) != 0 || len(a.packets) != n {
		t.Errorf("%+v, %d packets", d, len(a.packets)-n)
	}
	r.caller("a", a, plainProfile, a.describe(codecA))
	r.run(time.Second, both(a, b))
	if len(a.packets) < n+49 {
		t.Errorf("%d packets after the hold", len(a.packets)-n)
	}
}

// TestLongPacketsAreVoiceToo: a peer with 60 ms packets dies as quickly.
func TestLongPacketsAreVoiceToo(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	listen := func(i int) {
		if i%2 == 0 {
			b.talk()
		}
	}
	r.run(3*time.Second, func(i int) {
		if i%6 == 0 {
			a.raw(a.rtp(8, false, make([]byte, 480)))
			a.ts += 480
		}
		listen(i)
	})
	r.run(1400*time.Millisecond, listen)
	if d := countEvents[VoiceDead](r); len(d) != 1 || d[0].Leg != "a" {
		t.Errorf("%+v", d)
	}
}

func TestKernelEventKillsAtOnceUnlessPacketsStillCome(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	r.run(time.Second, both(a, b))
	r.e.PathBroken("lan", netip.Addr{}, "link lan0 down")
	r.run(time.Second, both(a, b))
	if d := countEvents[VoiceDead](r); len(d) != 0 {
		t.Fatalf("packets came and the leg was given up: %+v", d)
	}
	r.e.PathBroken("wan", netip.Addr{}, "link wan0 down")
	r.e.PathBroken("lan", netip.MustParseAddr("10.0.0.77"), "neighbour failed")
	r.run(250*time.Millisecond, nil)
	if d := countEvents[VoiceDead](r); len(d) != 0 {
		t.Fatalf("a way that we do not use: %+v", d)
	}
	r.e.PathBroken("lan", b.addr.Addr(), "neighbour 10.0.0.60 failed")
	r.run(300*time.Millisecond, func(i int) {
		if i%2 == 0 {
			a.talk()
		}
	})
	d := countEvents[VoiceDead](r)
	if len(d) != 1 || d[0].Leg != "b" || d[0].Why != "neighbour 10.0.0.60 failed" {
		t.Errorf("%+v", d)
	}
}

// TestPlainLegMovesToAnotherRealm: RFC 3264 §8.3.1 without ICE.
func TestPlainLegMovesToAnotherRealm(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	r.run(time.Second, both(a, b))
	old := b.to
	wan := plainProfile
	wan.Realm = "wan"
	d, err := r.b.OfferTo("b", wan)
	if err != nil {
		t.Fatal(err)
	}
	if d.RTP.Addr() != netip.MustParseAddr("198.51.100.1") {
		t.Errorf("offered %v, want the advertised address", d.RTP)
	}
	r.run(300*time.Millisecond, both(a, b)) // the old path goes on meanwhile
	if s := r.loop.socks[old]; s == nil {
		t.Fatal("the old port was closed before the answer")
	}
	b.addr = netip.MustParseAddrPort("203.0.113.7:6000")
	if err := r.b.Answered("b", b.describe(codecA)); err != nil {
		t.Fatal(err)
	}
	b.packets = nil
	r.run(100*time.Millisecond, func(i int) {
		if i%2 == 0 {
			a.talk()
		}
	})
	b.to = r.ours(d)
	r.run(time.Second, both(a, b))
	if len(b.packets) < 54 || b.packets[5].from != b.to {
		t.Errorf("%d packets, from %v", len(b.packets), b.packets[0].from)
	}
	unbroken(t, "a", a.packets)
	if r.loop.socks[old] != nil {
		t.Error("the old port is still open")
	}
	x := r.close()["b"]
	if x.Realm != "wan" || x.MediaPath != "cloud" || len(x.Moves) != 1 || !x.Moves[0].OK || x.Moves[0].From != "lan" || x.Moves[0].To != "wan" || x.Gap < 100*time.Millisecond || x.Gap > 150*time.Millisecond {
		t.Errorf("report %+v", x)
	}
	if alive := countEvents[VoiceAlive](r); len(alive) != 3 || alive[2] != (VoiceAlive{"b", "wan"}) {
		t.Errorf("events %+v", alive)
	}
}

func TestRefusedMoveLeavesEverythingAsItWas(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	r.run(time.Second, both(a, b))
	wan := plainProfile
	wan.Realm = "wan"
	if _, err := r.b.OfferTo("b", wan); err != nil {
		t.Fatal(err)
	}
	again, err := r.b.OfferTo("b", plainProfile) // the other realm was refused
	if err != nil || again.RTP != b.to {
		t.Fatalf("%v %v", again, err)
	}
	b.packets = nil
	r.run(time.Second, both(a, b))
	if len(b.packets) != 50 {
		t.Errorf("%d packets", len(b.packets))
	}
	for _, s := range r.e.Stats().Realms {
		if s.Realm == "wan" && s.PortsFree != 50 {
			t.Errorf("port of the refused move is kept: %+v", s)
		}
	}
	if x := r.close()["b"]; len(x.Moves) != 1 || x.Moves[0].OK || x.Realm != "lan" {
		t.Errorf("%+v", x)
	}
}

func TestShortPauseAfterAKernelEventIsForgiven(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	r.run(time.Second, both(a, b))
	r.e.PathBroken("lan", netip.Addr{}, "link lan0 down")
	r.run(160*time.Millisecond, nil)
	r.run(time.Second, both(a, b))
	if d := countEvents[VoiceDead](r); len(d) != 0 {
		t.Errorf("%+v", d)
	}
}

func TestManyMovesLeaveNoPortBehind(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	for i := range 6 {
		prof := plainProfile
		if i%2 == 0 {
			prof.Realm = "wan"
		}
		d, err := r.b.OfferTo("b", prof)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.b.Answered("b", b.describe(codecA)); err != nil {
			t.Fatal(err)
		}
		b.to = r.ours(d)
		r.run(50*time.Millisecond, func(int) { a.talk() })
	}
	r.close()
	for _, s := range r.e.Stats().Realms {
		if s.PortsFree != 50 {
			t.Errorf("%+v", s)
		}
	}
	if n := len(r.loop.socks); n != 0 {
		t.Errorf("%d sockets are open", n)
	}
}
