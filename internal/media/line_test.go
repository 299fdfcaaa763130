package media

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"localloop/internal/dsp"
	"localloop/internal/sdp"
)

var lineProfile = sdp.Profile{Line: "line-1", Country: "de"}

// withLine sets up a call between an RTP peer and line-1.
func withLine(t testing.TB, r *rig, codecs ...sdp.Codec) (*memPeer, *memLine) {
	t.Helper()
	a := r.peer("10.0.0.50:4000", 440)
	if err := r.b.Offered("a", a.describe(codecs...), plainProfile); err != nil {
		t.Fatal(err)
	}
	if d, err := r.b.OfferTo("line", lineProfile); err != nil || d.Line != "line-1" {
		t.Fatalf("%+v %v", d, err)
	}
	if err := r.b.Answered("line", &sdp.Description{Line: "line-1"}); err != nil {
		t.Fatal(err)
	}
	d, err := r.b.AnswerTo("a")
	if err != nil {
		t.Fatal(err)
	}
	a.to, a.pt = r.ours(d), d.Codecs[0].PayloadType
	r.join("a", "line")
	return a, r.lines["line-1"]
}

// speaker makes the frames of a line: a tone, or digits.
type speaker struct {
	phase, hz float64
	digits    *dsp.DTMFSender
}

func (s *speaker) frame() []int16 {
	f := make([]int16, frameLen)
	if s.digits != nil && s.digits.Fill(f) {
		return f
	}
	for i := range f {
		f[i] = int16(7000 * math.Sin(s.phase))
		s.phase += 2 * math.Pi * s.hz / 8000
	}
	return f
}

func TestLineAndPeerHearEachOther(t *testing.T) {
	for _, c := range []sdp.Codec{codecA, codecU} {
		r := newRig(t)
		a, l := withLine(t, r, c)
		if c == codecU {
			a.law = dsp.MuLaw
		}
		s := &speaker{hz: 900}
		r.run(3*time.Second, func(i int) {
			if i%2 == 0 {
				a.talk()
			}
			l.sink(s.frame())
		})
		if got := len(l.heard); got != 300*frameLen {
			t.Errorf("%d samples written for 300 frames read: the card is the clock", got)
		}
		if x := share(l.heard[4000:], 440); x < 0.98 {
			t.Errorf("%s: the line hears the peer with share %.3f", c.Name, x)
		}
		if x := share(a.heard(a.pt, a.law), 900); x < 0.98 {
			t.Errorf("%s: the peer hears the line with share %.3f", c.Name, x)
		}
		unbroken(t, "a", a.packets)
		for i := 1; i < len(a.packets); i++ {
			if a.packets[i].ts-a.packets[i-1].ts != 160 || len(a.packets[i].payload) != 160 {
				t.Fatalf("packet %d: step %d, %d bytes", i, a.packets[i].ts-a.packets[i-1].ts, len(a.packets[i].payload))
			}
		}
		rep := r.close()
		if x := rep["line"]; x.MediaPath != "line" || x.Received != 300 || x.Sent != 300 {
			t.Errorf("report of the line: %+v", x)
		}
		if x := rep["a"]; x.MOS < 4.3 {
			t.Errorf("MOS %.2f", x.MOS)
		}
		if l.on {
			t.Error("the line is still attached")
		}
	}
}

// The last key of the number may still be held when the far end answers: it is
// neither an event nor a tone for the far end. The next key is.
func TestAKeyHeldFromDiallingIsNotSentToTheFarEnd(t *testing.T) {
	r := newRig(t)
	a, l := withLine(t, r, codecA, events(101))
	s := &speaker{digits: dsp.NewDTMFSender(-8, -10)}
	s.digits.Queue("0", 300*time.Millisecond, 200*time.Millisecond)
	s.digits.Queue("5", 120*time.Millisecond, 120*time.Millisecond)
	r.run(1200*time.Millisecond, func(int) { l.sink(s.frame()) })
	var codes []byte
	var ts uint32
	for _, p := range a.packets {
		if p.pt == 101 && (len(codes) == 0 || p.ts != ts) {
			codes, ts = append(codes, p.payload[0]), p.ts
		}
	}
	if string(codes) != "\x05" {
		t.Errorf("events %v, want the key pressed in the call alone", codes)
	}
	if heard := countEvents[DigitHeard](r); len(heard) != 1 || heard[0].Digit.Digit != '5' {
		t.Errorf("digits reported: %+v", heard)
	}
}

func TestC97KeysOfAPhoneBecomeEventsAndTheToneIsSuppressed(t *testing.T) {
	r := newRig(t)
	a, l := withLine(t, r, codecA, events(101))
	s := &speaker{hz: 0, digits: dsp.NewDTMFSender(-8, -10)}
	feed := func(int) { l.sink(s.frame()) }
	r.run(500*time.Millisecond, feed)
	start := len(a.packets)
	s.digits.Queue("159#", 120*time.Millisecond, 120*time.Millisecond)
	r.run(1500*time.Millisecond, feed)
	unbroken(t, "a", a.packets)
	var codes []byte
	ends := map[uint32]int{}
	var loud time.Duration
	var ts uint32
	for _, p := range a.packets[start:] {
		if p.pt == 101 {
			if len(codes) == 0 || p.ts != ts {
				codes = append(codes, p.payload[0])
				ts = p.ts
			}
			if p.payload[1]&0x80 != 0 {
				ends[p.ts]++
				if d := binary.BigEndian.Uint16(p.payload[2:]); d < 480 || d > 1440 {
					t.Errorf("a key of 120 ms is told as %d samples", d)
				}
			}
			continue
		}
		pcm := make([]int16, len(p.payload))
		dsp.ALaw.Decode(pcm, p.payload)
		for i := 0; i+8 <= len(pcm); i += 8 {
			if dsp.Level(pcm[i:i+8]) > -30 {
				loud += time.Millisecond
			}
		}
	}
	if string(codes) != "\x01\x05\x09\x0b" {
		t.Errorf("events %v", codes)
	}
	for ts, n := range ends {
		if n != 3 {
			t.Errorf("event at %d has %d end packets", ts, n)
		}
	}
	// C-97 allows 40 ms for each; muting at the first suspicion leaves about ten.
	if loud > 4*15*time.Millisecond {
		t.Errorf("tones leak for %v over four keys", loud)
	}
	heard := countEvents[DigitHeard](r)
	if len(heard) != 4 || heard[0].Leg != "line" || heard[3].Digit.Digit != '#' {
		t.Errorf("reported %+v", heard)
	}
}

func TestKeysPassAsTonesWhenThePeerKnowsNoEvents(t *testing.T) {
	r := newRig(t)
	a, l := withLine(t, r, codecA)
	s := &speaker{digits: dsp.NewDTMFSender(-8, -10)}
	s.digits.Queue("42", 100*time.Millisecond, 100*time.Millisecond)
	r.run(time.Second, func(int) { l.sink(s.frame()) })
	if got := tonesIn(a.heard(8, dsp.ALaw)); got != "42" {
		t.Errorf("the peer hears %q", got)
	}
}

func tonesIn(pcm []int16) string {
	var digits []byte
	rx := dsp.NewDTMFReceiver()
	for len(pcm) >= 80 {
		rx.Feed(pcm[:80], func(e dsp.DTMFEvent) {
			if e.On {
				digits = append(digits, e.Digit)
			}
		})
		pcm = pcm[80:]
	}
	return string(digits)
}

// TestC98EventsBecomeCleanTonesOnALine: each digit once, for as long as the key
// was held, also when it is short and when end packets are lost.
func TestC98EventsBecomeCleanTonesOnALine(t *testing.T) {
	r := newRig(t)
	a, l := withLine(t, r, codecA, events(101))
	s := &speaker{}
	r.run(time.Second, func(i int) {
		if i%2 == 0 {
			a.talk()
		}
		l.sink(s.frame())
	})
	from := len(l.heard)
	press := func(code byte, packets, ends int) {
		for i := 1; i <= packets+ends; i++ {
			p := []byte{code, 10, 0, 0}
			binary.BigEndian.PutUint16(p[2:], uint16(160*min(i, packets)))
			if i > packets {
				p[1] |= 0x80
			}
			a.raw(a.rtp(101, i == 1, p))
			r.run(20*time.Millisecond, func(int) { l.sink(s.frame()) })
		}
		a.ts += uint32(160 * (packets + ends))
		r.run(160*time.Millisecond, func(i int) {
			if i%2 == 0 {
				a.talk()
			}
			l.sink(s.frame())
		})
	}
	press(1, 5, 3)
	press(2, 2, 1)  // 40 ms: sounded longer
	press(3, 30, 3) // 600 ms
	press(11, 4, 0) // the end is lost
	press(0, 5, 3)
	r.run(500*time.Millisecond, func(int) { l.sink(s.frame()) })
	if got := tonesIn(l.heard[from:]); got != "123#0" {
		t.Errorf("the line hears %q", got)
	}
	long := 0
	for i := from; i+80 <= len(l.heard); i += 80 {
		if share(l.heard[i:i+80], 1477) > 0.3 && share(l.heard[i:i+80], 697) > 0.3 {
			long++
		}
	}
	if long < 55 || long > 66 {
		t.Errorf("the long digit sounds for %d ms, want 600", 10*long)
	}
}

func TestC99LineHearsContinuousNoiseWhileThePeerIsSilent(t *testing.T) {
	r := newRig(t)
	a, l := withLine(t, r, codecA, codecCN)
	s := &speaker{}
	step := func(i int) { l.sink(s.frame()) }
	r.run(time.Second, func(i int) {
		if i%2 == 0 {
			a.talk()
		}
		step(i)
	})
	a.raw(a.rtp(13, false, []byte{60}))
	r.run(100*time.Millisecond, step)
	from := len(l.heard)
	r.run(60*time.Second, func(i int) {
		if i%500 == 0 {
			a.rtcpReport()
		}
		step(i)
	})
	quiet := l.heard[from:]
	for i := 0; i+160 <= len(quiet); i += 80 {
		if lv := dsp.Level(quiet[i : i+160]); lv < -80 || lv > -40 {
			t.Fatalf("at %d ms the noise has %.0f dBm0", i/8, lv)
		}
	}
	if dead := countEvents[VoiceDead](r); len(dead) > 0 {
		t.Errorf("a silent peer with RTCP was given up: %+v", dead)
	}
}

func TestTonesArePlayedToALine(t *testing.T) {
	r := newRig(t)
	if err := r.b.Offered("line", &sdp.Description{Line: "line-1"}, lineProfile); err != nil {
		t.Fatal(err)
	}
	if d, err := r.b.AnswerTo("line"); err != nil || d.Line != "line-1" {
		t.Fatal(d, err)
	}
	r.b.Play("line", Ringback)
	r.pump()
	l, s := r.lines["line-1"], &speaker{}
	r.run(900*time.Millisecond, func(int) { l.sink(s.frame()) })
	if x := share(l.heard, 425); x < 0.95 {
		t.Errorf("ringback has share %.2f", x)
	}
	r.b.Digit("line", Digit{Digit: '7'})
	r.b.Digit("line", Digit{Digit: '7'})
	l.heard = nil
	r.run(900*time.Millisecond, func(int) { l.sink(s.frame()) })
	if got := tonesIn(l.heard); got != "77" {
		t.Errorf("digits heard: %q", got)
	}
}

func TestLinePathAllocatesNothing(t *testing.T) {
	r := newRig(t)
	a, l := withLine(t, r, codecA, events(101))
	s := r.loop.socks[a.to]
	p := a.rtp(8, false, make([]byte, 160))
	r.peers = nil
	seq, f, now := uint16(0), make([]int16, frameLen), r.now
	l.heard = make([]int16, 0, 1<<20)
	if n := testing.AllocsPerRun(1000, func() {
		seq++
		now = now.Add(20 * time.Millisecond)
		binary.BigEndian.PutUint16(p[2:], seq)
		binary.BigEndian.PutUint32(p[4:], uint32(seq)*160)
		s.to.Datagram(now, s, p, a.addr)
		for range 2 {
			l.sink(f)
			r.loop.work.Rung(now)
		}
	}); n != 0 {
		t.Errorf("%v allocations per packet and two frames", n)
	}
	if len(l.heard) < 2000*frameLen {
		t.Errorf("only %d samples reached the line", len(l.heard))
	}
}

func TestTwoLinesTalk(t *testing.T) {
	r := newRig(t)
	for _, n := range []string{"line-1", "line-2"} {
		if _, err := r.b.OfferTo(n, sdp.Profile{Line: n}); err != nil {
			t.Fatal(err)
		}
	}
	r.join("line-1", "line-2")
	s, q := &speaker{hz: 500}, &speaker{hz: 1200}
	r.run(2*time.Second, func(int) {
		r.lines["line-1"].sink(s.frame())
		r.lines["line-2"].sink(q.frame())
	})
	if x := share(r.lines["line-1"].heard[2400:], 1200); x < 0.95 {
		t.Errorf("line-1 hears line-2 with share %.2f", x)
	}
	if x := share(r.lines["line-2"].heard[2400:], 500); x < 0.95 {
		t.Errorf("line-2 hears line-1 with share %.2f", x)
	}
}

// rtcpReport sends an empty receiver report.
func (p *memPeer) rtcpReport() {
	b := []byte{0x80, 201, 0, 1, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(b[4:], p.ssrc)
	to := netip2(p.to)
	if s := p.r.loop.socks[to]; s != nil && s.to != nil {
		p.r.loop.datagram(p.r.now, s, b, p.rtcpAddr())
	}
}
