package media

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"localloop/internal/dsp"
	"localloop/internal/sdp"
)

// two sets up a call between two RTP peers.
func two(t testing.TB, r *rig, aCodecs, bCodecs []sdp.Codec) (a, b *memPeer) {
	t.Helper()
	a, b = r.peer("10.0.0.50:4000", 440), r.peer("10.0.0.60:5000", 1000)
	if err := r.b.Offered("a", a.describe(aCodecs...), plainProfile); err != nil {
		t.Fatal(err)
	}
	r.called("b", b, plainProfile, b.describe(bCodecs...))
	d, err := r.b.AnswerTo("a")
	if err != nil {
		t.Fatal(err)
	}
	a.to = r.ours(d)
	a.pt, b.pt = d.Codecs[0].PayloadType, bCodecs[0].PayloadType
	if d.Codecs[0].Is("PCMU") {
		a.law = dsp.MuLaw
	}
	if bCodecs[0].Is("PCMU") {
		b.law = dsp.MuLaw
	}
	r.join("a", "b")
	return a, b
}

func both(a, b *memPeer) func(int) {
	return func(i int) {
		if i%2 == 0 {
			a.talk()
			b.talk()
		}
	}
}

// unbroken checks that a stream is one party's: one SSRC, consecutive numbers,
// time that never goes back.
func unbroken(t *testing.T, who string, list []received) {
	t.Helper()
	for i := 1; i < len(list); i++ {
		p, q := list[i-1], list[i]
		if q.ssrc != p.ssrc || q.seq != p.seq+1 || int32(q.ts-p.ts) < 0 {
			t.Fatalf("%s: packet %d: %d/%d after %d/%d, SSRC %x after %x", who, i, q.seq, q.ts, p.seq, p.ts, q.ssrc, p.ssrc)
		}
	}
}

func TestVoicePassesBothWaysWithoutTranscodingWherePossible(t *testing.T) {
	for _, c := range []struct {
		name         string
		a, b         []sdp.Codec
		answer, want string
	}{
		{"same law", []sdp.Codec{codecA, codecU}, []sdp.Codec{codecA}, "PCMA", "PCMA"},
		{"the called party's choice is taken over", []sdp.Codec{codecA, codecU}, []sdp.Codec{codecU}, "PCMU", "PCMU"},
		{"two laws", []sdp.Codec{codecU}, []sdp.Codec{codecA}, "PCMU", "PCMA"},
		{"another payload number", []sdp.Codec{codecA}, []sdp.Codec{{PayloadType: 98, Name: "pcma", ClockRate: 8000, Channels: 1}}, "PCMA", "PCMA"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			a, b := two(t, r, c.a, c.b)
			if got := a.pt == 0; got != (c.answer == "PCMU") {
				t.Errorf("answered with payload %d, want %s", a.pt, c.answer)
			}
			if b.pt == 98 {
				b.pt = 8 // what arrives is numbered as we offered
			}
			r.run(2*time.Second, both(a, b))
			if n := len(b.packets); n < 98 {
				t.Fatalf("%d packets of 100", n)
			}
			if s := share(b.heard(c.b[0].PayloadType, b.law), 440); s < 0.98 {
				t.Errorf("caller's tone has share %.3f at the called", s)
			}
			if s := share(a.heard(a.pt, a.law), 1000); s < 0.98 {
				t.Errorf("called's tone has share %.3f at the caller", s)
			}
			unbroken(t, "a", a.packets)
			unbroken(t, "b", b.packets)
			if !b.packets[0].marker || b.packets[1].marker {
				t.Error("the marker belongs to the first packet")
			}
			rep := r.close()
			if x := rep["a"]; x.Received != 100 || x.Sent != 100 || x.Lost != 0 || x.MOS < 4.3 || x.Codec != c.answer || x.MediaPath != "lan" || x.Realm != "lan" {
				t.Errorf("report %+v", x)
			}
		})
	}
}

func TestLossAndOrderAreLeftToTheFarEnd(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	payload := bytes.Repeat([]byte{0xD5}, 160)
	var sent [][]byte
	for range 20 {
		sent = append(sent, a.rtp(8, false, payload))
		a.ts += 160
	}
	for _, i := range []int{0, 1, 2, 4, 3, 5, 5, 7, 8, 8, 9} { // 6 lost, 5 and 8 twice
		a.raw(sent[i])
	}
	r.pump()
	first := b.packets[0]
	var got []int
	for _, p := range b.packets {
		n := int(p.seq - first.seq)
		if p.ts-first.ts != uint32(160*n) {
			t.Errorf("packet %d has timestamp %d", n, p.ts-first.ts)
		}
		got = append(got, n)
	}
	want := []int{0, 1, 2, 4, 3, 5, 7, 8, 9}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	if x := r.close()["a"]; x.Lost != 1 || x.Received != 9 {
		t.Errorf("lost %d, received %d", x.Lost, x.Received)
	}
}

func TestC103NewSourceGoesOnInOurStream(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	r.run(time.Second, both(a, b))
	a.ssrc, a.seq, a.ts = 99, 7, 123456
	r.run(time.Second, both(a, b))
	unbroken(t, "b", b.packets)
	marks := 0
	for _, p := range b.packets {
		if p.marker {
			marks++
		}
	}
	if marks != 2 {
		t.Errorf("%d markers, want one for each source", marks)
	}
	if n := len(b.packets); n < 98 || n > 99 { // one packet proves the new source
		t.Errorf("%d packets", n)
	}
	last, before := b.packets[len(b.packets)-1], b.packets[len(b.packets)-49]
	if d := last.ts - before.ts; d != 48*160 {
		t.Errorf("timestamps advanced by %d over 48 packets", d)
	}
}

func TestStrayAndForeignPacketsAreRefused(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	r.run(200*time.Millisecond, both(a, b))
	n := len(b.packets)
	payload := bytes.Repeat([]byte{1}, 160)
	from := func(addr string) { a.rawFrom(netip.MustParseAddrPort(addr), a.rtp(8, false, payload)) }
	from("10.0.0.99:4000")           // another host
	from("10.0.0.50:4002")           // another port, after the described one was heard
	a.raw(a.rtp(77, false, payload)) // payload not agreed
	s := a.ssrc
	a.ssrc = 5
	a.raw(a.rtp(8, false, payload)) // one packet of another source
	a.ssrc = s
	r.pump()
	if len(b.packets) != n {
		t.Errorf("%d foreign packets went through", len(b.packets)-n)
	}
	st := r.e.Stats()
	if st.Drops["source"] != 2 || st.Drops["payload"] != 1 {
		t.Errorf("drops %v", st.Drops)
	}
	if x := r.close()["a"]; x.Rejected != 2 {
		t.Errorf("rejected %d", x.Rejected)
	}
}

func TestSymmetricRTPIsFollowedOnceWithinTheDescribedHost(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	translated := netip.MustParseAddrPort("10.0.0.50:49999")
	real := a.addr
	a.addr = translated
	r.run(400*time.Millisecond, func(i int) {
		if i%2 == 0 {
			a.talk()
			b.talk()
		}
	})
	if len(b.packets) < 19 || len(a.packets) < 19 {
		t.Fatalf("%d and %d packets through a port translator", len(b.packets), len(a.packets))
	}
	n := len(b.packets)
	a.rawFrom(real, a.rtp(8, false, make([]byte, 160)))
	r.pump()
	if len(b.packets) != n {
		t.Error("latched twice")
	}
}

func TestDTMFEventsAreRelayedWithTheirNumbers(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA, events(101)}, []sdp.Codec{codecA, events(96)})
	r.run(200*time.Millisecond, both(a, b))
	before := len(b.packets)
	ev := func(d uint16, end byte, marker bool) {
		p := []byte{5, end | 10, 0, 0}
		binary.BigEndian.PutUint16(p[2:], d)
		a.raw(a.rtp(101, marker, p))
		r.pump()
	}
	for i := uint16(1); i <= 5; i++ {
		ev(160*i, 0, i == 1)
		r.run(20*time.Millisecond, nil)
	}
	for range 3 {
		ev(960, 0x80, false)
	}
	a.ts += 960
	r.run(200*time.Millisecond, both(a, b))
	unbroken(t, "b", b.packets)
	list := b.packets[before:]
	for i, p := range list[:8] {
		if p.pt != 96 || p.ts != list[0].ts || p.marker != (i == 0) || p.payload[0] != 5 || (p.payload[1]&0x80 != 0) != (i >= 5) {
			t.Errorf("event packet %d: %+v", i, p)
		}
	}
	if list[8].pt != 8 || list[8].ts-list[0].ts != 960 {
		t.Errorf("voice goes on at +%d", list[8].ts-list[0].ts)
	}
	heard := countEvents[DigitHeard](r)
	if len(heard) != 1 || heard[0].Leg != "a" || heard[0].Digit != (Digit{'5', 120 * time.Millisecond}) {
		t.Errorf("reported %+v", heard)
	}
}

func TestDTMFEventsBecomeTonesForAPeerWithoutEvents(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA, events(101)}, []sdp.Codec{codecA})
	r.run(200*time.Millisecond, both(a, b))
	before := len(b.packets)
	for i := range 6 {
		p := []byte{9, 10, 0, 0}
		binary.BigEndian.PutUint16(p[2:], uint16(160*(i+1)))
		if i == 5 {
			p[1] |= 0x80
		}
		a.raw(a.rtp(101, i == 0, p))
		r.run(20*time.Millisecond, nil)
	}
	a.ts += 960
	r.run(400*time.Millisecond, both(a, b))
	unbroken(t, "b", b.packets)
	var digits []byte
	rx := dsp.NewDTMFReceiver()
	b.packets = b.packets[before:]
	rx.Feed(b.heard(8, dsp.ALaw), func(e dsp.DTMFEvent) {
		if e.On {
			digits = append(digits, e.Digit)
		}
	})
	if string(digits) != "9" {
		t.Errorf("the far end hears %q", digits)
	}
}

func TestC97DigitsAreSentWithThreeEndPackets(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA, events(101)}, []sdp.Codec{codecA, events(97)})
	r.run(200*time.Millisecond, both(a, b))
	n := len(b.packets)
	r.b.Digit("b", Digit{Digit: '#', Duration: 100 * time.Millisecond})
	r.b.Digit("b", Digit{Digit: '3'})
	r.run(800*time.Millisecond, both(a, b))
	unbroken(t, "b", b.packets)
	type digit struct {
		code       byte
		ends, n    int
		markers    int
		lastLength uint16
	}
	var digits []digit
	var ts uint32
	for _, p := range b.packets[n:] {
		if p.pt != 97 {
			continue
		}
		if len(digits) == 0 || p.ts != ts {
			digits = append(digits, digit{code: p.payload[0]})
			ts = p.ts
		}
		d := &digits[len(digits)-1]
		d.n++
		if p.marker {
			d.markers++
		}
		if p.payload[1]&0x80 != 0 {
			d.ends++
		}
		if l := binary.BigEndian.Uint16(p.payload[2:]); l < d.lastLength {
			t.Errorf("duration goes back from %d to %d", d.lastLength, l)
		} else {
			d.lastLength = l
		}
	}
	if len(digits) != 2 || digits[0].code != 11 || digits[1].code != 3 {
		t.Fatalf("digits %+v", digits)
	}
	for _, d := range digits {
		if d.ends != 3 || d.markers != 1 || d.lastLength != 800 {
			t.Errorf("%+v: want 3 ends, 1 marker, 800 samples", d)
		}
	}
}

func TestVeryLongDigitIsSegmented(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA, events(101)}, []sdp.Codec{codecA, events(101)})
	_ = a
	r.b.Digit("b", Digit{Digit: '1', Duration: 9 * time.Second})
	r.run(10*time.Second, nil)
	var seen []uint32
	for _, p := range b.packets {
		if p.pt == 101 && (len(seen) == 0 || seen[len(seen)-1] != p.ts) {
			seen = append(seen, p.ts)
		}
	}
	if len(seen) != 2 || seen[1]-seen[0] != segment {
		t.Errorf("segments at %v", seen)
	}
	unbroken(t, "b", b.packets)
}

func TestTonesAndMusicReachAPeerAndEndWithJoin(t *testing.T) {
	r := newRig(t)
	a := r.peer("10.0.0.50:4000", 440)
	r.caller("a", a, plainProfile, a.describe(codecA))
	r.b.Play("a", Busy)
	r.run(2*time.Second, nil)
	if n := len(a.packets); n < 99 || n > 102 {
		t.Errorf("%d packets in 2 s", n)
	}
	unbroken(t, "a", a.packets)
	if s := share(a.heard(8, dsp.ALaw), 425); s < 0.45 { // it sounds half of the time
		t.Errorf("busy tone has share %.2f of what is heard", s)
	}
	r.b.Play("a", NoTone)
	r.run(100*time.Millisecond, nil)
	n := len(a.packets)
	r.run(time.Second, nil)
	if len(a.packets) != n {
		t.Error("the tone goes on")
	}
	for _, tone := range []Tone{Ringback, Congestion, Music, Unavailable} {
		a.packets = nil
		r.b.Play("a", tone)
		r.run(3*time.Second, nil)
		if l := dsp.Level(a.heard(8, dsp.ALaw)); l < -40 || l > -10 {
			t.Errorf("tone %d has level %.0f dBm0", tone, l)
		}
	}
	b := r.peer("10.0.0.60:5000", 1000)
	r.called("b", b, plainProfile, b.describe(codecA))
	r.join("a", "b")
	a.packets = nil
	r.run(time.Second, both(a, b))
	if s := share(a.heard(8, dsp.ALaw), 1000); s < 0.98 {
		t.Errorf("after the join the peer's voice has share %.2f", s)
	}
}

func TestC99PeerWithoutComfortNoiseHearsNoPause(t *testing.T) {
	for name, cn := range map[string]bool{"CN packets": true, "nothing": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			a, b := two(t, r, []sdp.Codec{codecA, codecCN}, []sdp.Codec{codecA})
			r.run(time.Second, both(a, b))
			if cn {
				a.raw(a.rtp(13, false, []byte{55}))
			}
			r.run(5*time.Second, func(i int) {
				if i%2 == 0 {
					b.talk()
				}
			})
			a.ts += 40000
			r.run(time.Second, both(a, b))
			unbroken(t, "b", b.packets)
			var longest time.Duration
			for i := 1; i < len(b.packets); i++ {
				longest = max(longest, b.packets[i].at.Sub(b.packets[i-1].at))
			}
			if longest > 220*time.Millisecond {
				t.Errorf("nothing for %v", longest)
			}
			if n := len(b.packets); n < 335 || n > 352 {
				t.Errorf("%d packets in 7 s", n)
			}
			pcm := b.heard(8, dsp.ALaw)
			if s := share(pcm[len(pcm)-7200:], 440); s < 0.9 {
				t.Errorf("voice did not come back: %.2f", s)
			}
		})
	}
}

// TestHoldStopsVoiceAndIsOffered: to Teams as inactive, C-69.
func TestHoldStopsVoiceAndIsOffered(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	r.run(200*time.Millisecond, both(a, b))
	r.b.Hold("b", true)
	r.pump()
	na, nb := len(a.packets), len(b.packets)
	r.run(500*time.Millisecond, both(a, b))
	if len(a.packets) != na || len(b.packets) != nb {
		t.Error("voice passes while a leg is held")
	}
	d, err := r.b.OfferTo("b", plainProfile)
	if err != nil || d.Direction != sdp.SendOnly {
		t.Errorf("offer while held: %v, %v", d, err)
	}
	teams := plainProfile
	teams.InactiveHold = true
	if d, err = r.b.OfferTo("b", teams); err != nil || d.Direction != sdp.Inactive {
		t.Errorf("offer to Teams while held: %v, %v", d, err)
	}
	r.b.Play("b", Music)
	if d, err = r.b.OfferTo("b", teams); err != nil || d.Direction != sdp.SendRecv {
		t.Errorf("offer to Teams with music: %v, %v", d, err)
	}
	r.b.Play("b", NoTone)
	r.b.Hold("b", false)
	r.run(200*time.Millisecond, both(a, b))
	if len(b.packets) == nb {
		t.Error("no voice after the hold")
	}
	unbroken(t, "b", b.packets)

	// The peer holds us.
	hold := a.describe(codecA)
	hold.Direction, hold.Version = sdp.SendOnly, 2
	ans := r.caller("a", a, plainProfile, hold)
	if ans.Direction != sdp.RecvOnly {
		t.Errorf("answer to sendonly: %v", ans.Direction)
	}
	n := len(a.packets)
	r.run(200*time.Millisecond, both(a, b))
	if len(a.packets) != n {
		t.Error("we send to a peer that does not want to receive")
	}
}

func TestC104VersionGrowsExactlyWithChanges(t *testing.T) {
	r := newRig(t)
	a := r.peer("10.0.0.50:4000", 440)
	first := r.caller("a", a, plainProfile, a.describe(codecA, events(110)))
	again := r.caller("a", a, plainProfile, a.describe(codecA, events(110)))
	held := a.describe(codecA, events(110))
	held.Direction = sdp.Inactive
	third := r.caller("a", a, plainProfile, held)
	if first.SessionID == 0 || again.SessionID != first.SessionID || again.Version != first.Version || third.Version != first.Version+1 {
		t.Errorf("versions %d %d %d", first.Version, again.Version, third.Version)
	}
	if same, err := r.b.AnswerTo("a"); err != nil || same != third {
		t.Errorf("asked twice: %v %v", same, err)
	}
	offer, err := r.b.OfferTo("a", plainProfile)
	if err != nil {
		t.Fatal(err)
	}
	if ev, ok := offer.Event(8000); !ok || ev.PayloadType != 110 || offer.RTP != first.RTP {
		t.Errorf("the event payload moved to %d, the address to %v", ev.PayloadType, offer.RTP)
	}
}

func TestBadNegotiationIsRefusedAndFreesEverything(t *testing.T) {
	r := newRig(t)
	a := r.peer("10.0.0.50:4000", 440)
	g722 := sdp.Codec{PayloadType: 9, Name: "G722", ClockRate: 8000, Channels: 1}
	secure := plainProfile
	secure.Secure = true
	nowhere := plainProfile
	nowhere.Realm = "moon"
	for name, c := range map[string]struct {
		d *sdp.Description
		p sdp.Profile
	}{
		"no codec":   {a.describe(g722), plainProfile},
		"no key":     {a.describe(codecA), secure},
		"nil":        {nil, plainProfile},
		"realm":      {a.describe(codecA), nowhere},
		"no line":    {&sdp.Description{Line: "line-9"}, sdp.Profile{}},
		"port zero":  {&sdp.Description{RTP: netip.MustParseAddrPort("10.0.0.50:0"), Codecs: []sdp.Codec{codecA}}, plainProfile},
		"only codec": {a.describe(codecA), sdp.Profile{Realm: "lan", Codecs: []string{"G722"}}},
	} {
		if err := r.b.Offered("a", c.d, c.p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := r.b.AnswerTo("a"); err == nil {
		t.Error("answer without an offer")
	}
	if err := r.b.Join("a", "b"); err == nil {
		t.Error("join of nobody")
	}
	if st := r.e.Stats(); st.Legs != 0 || st.Realms[0].PortsFree != 50 {
		t.Errorf("left behind: %+v", st)
	}
	r.called("b", a, plainProfile, a.describe(codecA))
	rejected := a.describe(codecA)
	rejected.RTP = netip.AddrPortFrom(rejected.RTP.Addr(), 0)
	if err := r.b.Answered("b", rejected); err == nil {
		t.Error("a rejected stream is no answer")
	}
	r.b.Drop("b")
	r.pump()
	if st := r.e.Stats(); st.Legs != 0 || st.Realms[0].PortsFree != 50 {
		t.Errorf("left behind after the drop: %+v", st)
	}
	r.close()
	if err := r.b.Offered("x", a.describe(codecA), plainProfile); err == nil {
		t.Error("a closed bridge takes offers")
	}
}

func TestMalformedPacketsDoNotHurtTheCall(t *testing.T) {
	const seed = 99
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA, events(101), codecCN}, []sdp.Codec{codecA, events(101), codecCN})
	good := a.rtp(8, false, bytes.Repeat([]byte{0x55}, 160))
	a.ts += 160
	report := []byte{0x81, 200, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for i := range 10000 {
		var p []byte
		switch i % 4 {
		case 0:
			p = make([]byte, rng.IntN(200))
			for j := range p {
				p[j] = byte(rng.Uint32())
			}
		case 1:
			p = bytes.Clone(good)
			for range 1 + rng.IntN(4) {
				p[rng.IntN(12)] = byte(rng.Uint32())
			}
		case 2:
			p = bytes.Clone(report)
			p[rng.IntN(len(p))] = byte(rng.Uint32())
			p = p[:rng.IntN(len(p)+1)]
		default:
			p = bytes.Clone(good[:rng.IntN(len(good))])
		}
		a.raw(p)
		if i%50 == 0 {
			r.run(10*time.Millisecond, nil)
		}
	}
	b.packets, a.packets = nil, nil
	a.seq += 1000
	r.run(2*time.Second, both(a, b))
	if n := len(b.packets); n < 90 {
		t.Errorf("%d packets of 100 after the flood", n)
	}
	if s := share(b.heard(8, dsp.ALaw), 440); s < 0.9 {
		t.Errorf("voice has share %.2f after the flood", s)
	}
}

func TestC102ReportsGoOutAtLeastEveryFiveSeconds(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA}, []sdp.Codec{codecA})
	times := []time.Time{r.now}
	r.run(30*time.Second, func(i int) {
		n := len(b.rtcp)
		both(a, b)(i)
		r.pump()
		if len(b.rtcp) > n {
			times = append(times, r.now)
		}
	})
	for i := 1; i < len(times); i++ {
		if d := times[i].Sub(times[i-1]); d > 5*time.Second {
			t.Errorf("%v between reports", d)
		}
	}
	if len(times) < 6 {
		t.Fatalf("%d reports in 30 s", len(times)-1)
	}
	sr := b.rtcp[len(b.rtcp)-1]
	if sr[1] != 200 || binary.BigEndian.Uint32(sr[4:]) != b.packets[0].ssrc {
		t.Errorf("not a sender report of our stream: %x", sr)
	}
	// The peer answers with a report block; the round trip was 80 ms.
	mid := binary.BigEndian.Uint32(sr[10:])
	r.run(90*time.Millisecond, nil)
	rr := make([]byte, 32)
	rr[0], rr[1], rr[3] = 0x81, 201, 7
	binary.BigEndian.PutUint32(rr[4:], b.ssrc)
	binary.BigEndian.PutUint32(rr[8:], b.packets[0].ssrc)
	binary.BigEndian.PutUint32(rr[24:], mid)
	sent := times[len(times)-1]
	binary.BigEndian.PutUint32(rr[28:], uint32((r.now.Sub(sent)-80*time.Millisecond)*65536/time.Second))
	s := r.loop.socks[netip.AddrPortFrom(b.to.Addr(), b.to.Port()+1)]
	r.loop.datagram(r.now, s, rr, b.rtcpAddr())
	x := r.close()["b"]
	if x.RoundTrip < 60*time.Millisecond || x.RoundTrip > 100*time.Millisecond {
		t.Errorf("round trip %v, want about 80 ms", x.RoundTrip)
	}
}

func TestRelayingAllocatesNothing(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecU}, []sdp.Codec{codecA})
	_ = b
	p := a.rtp(0, false, make([]byte, 160))
	s := r.loop.socks[a.to]
	r.loop.datagram(r.now, s, p, a.addr)
	r.peers = nil // sockets then keep nothing
	now := r.now
	seq := binary.BigEndian.Uint16(p[2:])
	if n := testing.AllocsPerRun(1000, func() {
		seq++
		now = now.Add(ptime)
		binary.BigEndian.PutUint16(p[2:], seq)
		binary.BigEndian.PutUint32(p[4:], uint32(seq)*160)
		s.to.Datagram(now, s, p, a.addr)
	}); n != 0 {
		t.Errorf("%v allocations per packet", n)
	}
	if got := r.close()["b"].Sent; got < 1000 {
		t.Errorf("only %d packets were relayed", got)
	}
}

func FuzzPacket(f *testing.F) {
	f.Add([]byte{0x80, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0xD5}, false)
	f.Add([]byte{0xB0, 101, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 5, 0x8A, 0, 160}, false)
	f.Add([]byte{0x80, 200, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, true)
	f.Add([]byte{0x81, 203, 0, 1, 0, 0, 0, 1}, true)
	r := newRig(f)
	a, b := two(f, r, []sdp.Codec{codecA, events(101), codecCN}, []sdp.Codec{codecU})
	_ = b
	f.Fuzz(func(t *testing.T, p []byte, control bool) {
		if len(p) > 2000 {
			return
		}
		to := a.to
		if control {
			to = netip.AddrPortFrom(to.Addr(), to.Port()+1)
		}
		r.now = r.now.Add(time.Millisecond)
		r.loop.datagram(r.now, r.loop.socks[to], p, a.addr)
		r.pump()
		r.got, b.packets = nil, nil
	})
}

func BenchmarkRelay(b *testing.B) {
	r := newRig(b)
	a, _ := two(b, r, []sdp.Codec{codecU}, []sdp.Codec{codecA})
	p := a.rtp(0, false, make([]byte, 160))
	s := r.loop.socks[a.to]
	r.peers = nil
	now := r.now
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now = now.Add(ptime)
		binary.BigEndian.PutUint16(p[2:], uint16(i))
		binary.BigEndian.PutUint32(p[4:], uint32(i)*160)
		s.to.Datagram(now, s, p, a.addr)
	}
}

// TestNumbersAreNeverUsedTwice: events that the peer cannot be given leave no
// gap, and a packet that comes late from before does not take a used number,
// which under SRTP would repeat key stream.
func TestNumbersAreNeverUsedTwice(t *testing.T) {
	r := newRig(t)
	a, b := two(t, r, []sdp.Codec{codecA, events(101)}, []sdp.Codec{codecA})
	voice := func() []byte {
		p := a.rtp(8, false, bytes.Repeat([]byte{0xD5}, 160))
		a.ts += 160
		return p
	}
	var sent [][]byte
	for range 4 {
		sent = append(sent, voice())
	}
	flash := a.rtp(101, false, []byte{16, 10, 0, 160}) // hook flash: no tone stands for it
	after := voice()
	for _, p := range [][]byte{sent[0], sent[1], sent[3], flash, after, sent[2], voice()} {
		a.raw(p)
	}
	r.pump()
	used := map[uint16]bool{}
	for _, p := range b.packets {
		if used[p.seq] {
			t.Errorf("number %d is used twice", p.seq)
		}
		used[p.seq] = true
	}
	if n := len(b.packets); n != 5 {
		t.Fatalf("%d packets", n)
	}
	if d := b.packets[3].seq - b.packets[2].seq; d != 1 {
		t.Errorf("the flash leaves a gap of %d", d-1)
	}

	// The same when another source takes over in between.
	late := voice()
	a.ssrc++
	other := a.seq
	a.seq = 500
	a.raw(voice())
	a.raw(voice())
	a.ssrc--
	a.seq = other
	a.raw(late)
	a.raw(voice())
	r.pump()
	for i := 1; i < len(b.packets); i++ {
		for k := range i {
			if b.packets[i].seq == b.packets[k].seq {
				t.Errorf("number %d is used twice", b.packets[i].seq)
			}
		}
	}
}
