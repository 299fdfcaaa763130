package analog

import (
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"localloop/internal/analog/link"
	"localloop/internal/call"
	"localloop/internal/call/calltest"
	"localloop/internal/config"
	"localloop/internal/dsp"
)

var oneFXS = map[string]func() *tinyCard{"card1": fxsCard}

func TestA01A02DialToneAndDTMF(t *testing.T) {
	bubble(t, []config.Line{fxsLine("desk", "card1", 0)}, oneFXS, func(t *testing.T, r *rig) {
		c := r.cards["card1"]
		r.wantState("desk", "idle")
		c.Event(0, 0x01, 0)
		pcm := c.Listen(0, 200*time.Millisecond)
		if len(pcm) < 1200 {
			t.Fatalf("%d samples within 200 ms of off-hook", len(pcm))
		}
		if l := power(pcm[len(pcm)-800:], 425); math.Abs(l-toneLevel) > 1 {
			t.Fatalf("dial tone at %.1f dBm0, want %.1f", l, toneLevel)
		}
		r.wantState("desk", "dial tone")
		c.Say(0, keys("0305551234"))
		time.Sleep(100 * time.Millisecond)
		if l := dsp.Level(c.Listen(0, 50*time.Millisecond)); l > -60 {
			t.Fatalf("%.0f dBm0 of dial tone 100 ms after the first digit began", l)
		}
		g := r.accept(2 * time.Second)
		s := want[call.Setup](r, g, time.Second)
		if s.Called != "0305551234" || s.Source != "desk" || s.Calling.Number != "+493055510" || s.Calling.Name != "Desk" ||
			s.Offer == nil || s.Offer.Line != "desk" || s.Profile.Line != "desk" || s.Profile.Country != "de" {
			t.Fatalf("%+v", s)
		}
		r.wantState("desk", "waiting")
		g.Send(call.Progress{Ringing: true})
		g.Send(call.Answer{})
		r.quiet(g, time.Second)
		r.wantState("desk", "in call")
		g.Send(call.Update{Hold: true})
		if a := want[call.Answer](r, g, time.Second); a.Description.Line != "desk" {
			t.Fatalf("%+v", a)
		}
		c.Event(0, 0x03, 0x2C, 0x01) // flash: ignored
		r.quiet(g, time.Second)
		c.Event(0, 0x02)
		if rel := want[call.Release](r, g, time.Second); !rel.Cause.Is(call.NormalClearing) {
			t.Fatalf("%+v", rel)
		}
		if _, ok := <-g.Events(); ok {
			t.Fatal("events after Release")
		}
		time.Sleep(100 * time.Millisecond)
		r.wantState("desk", "idle")
		if c.Streams(0) {
			t.Fatal("PCM still runs on an idle line")
		}
	})
}

func TestA05PulsesMixWithDTMF(t *testing.T) {
	bubble(t, []config.Line{fxsLine("desk", "card1", 1)}, oneFXS, func(t *testing.T, r *rig) {
		c := r.cards["card1"]
		c.Event(1, 0x01, 0)
		time.Sleep(300 * time.Millisecond)
		for _, pulses := range []byte{10, 3, 10, 5, 5, 5} {
			c.Event(1, 0x04, pulses)
			time.Sleep(100 * time.Millisecond)
		}
		if l := dsp.Level(c.Listen(1, 100*time.Millisecond)); l > -60 {
			t.Fatalf("%.0f dBm0 of dial tone after pulses", l)
		}
		c.Say(1, keys("1234"))
		s := want[call.Setup](r, r.accept(3*time.Second), time.Second)
		if s.Called != "0305551234" {
			t.Fatalf("called %q", s.Called)
		}
	})
}

// TestPulseDigitsOfSwedenAndNewZealand: A-5.
func TestPulseDigitsOfSwedenAndNewZealand(t *testing.T) {
	for country, want := range map[string]string{"de": "1234567890", "se": "0123456789", "nz": "9876543210"} {
		var got []byte
		for n := uint8(1); n <= 10; n++ {
			got = append(got, pulseDigit(n, country))
		}
		if string(got) != want {
			t.Errorf("%s: %s, want %s", country, got, want)
		}
	}
	if pulseDigit(0, "de") != 0 || pulseDigit(11, "de") != 0 {
		t.Error("pulses that are no digit")
	}
}

// The far end ends the call: the tone of A-17, then what A-7 says.
func TestA08A12RingAndCallerIDAndAnswer(t *testing.T) {
	bubble(t, []config.Line{fxsLine("desk", "card1", 0)}, oneFXS, func(t *testing.T, r *rig) {
		c := r.cards["card1"]
		c.mu.Lock()
		c.noRingOn = true
		c.mu.Unlock()
		g := r.dial("desk", "10", call.Party{Number: "+4940123456", Name: "Anna"})
		r.quiet(g, time.Second) // acknowledged, but no bell yet
		cid := c.Did(0, 0x07)
		ring := c.Did(0, 0x02)
		if len(cid) != 1 || len(ring) != 1 {
			t.Fatalf("%d CALLERID, %d RING", len(cid), len(ring))
		}
		if b := cid[0].body; b[1] != 0 || b[2] != link.MethodV23 || b[3] != 0 {
			t.Fatalf("CALLERID %x: want V.23 in the slot", b)
		}
		id, err := dsp.ParseCallerID(cid[0].body[8:], time.Now())
		if err != nil || id.Number != "040123456" || id.Name != "Anna" {
			t.Fatalf("%+v %v", id, err)
		}
		if want := []byte{2, 1, 0, 0, 1, 0x58, 2, 2, 0xE8, 3, 0xA0, 0x0F}; !slices.Equal(ring[0].body, want) {
			t.Fatalf("RING % x, want % x", ring[0].body, want)
		}
		c.Event(0, 0x06, 25)
		if p := want[call.Progress](r, g, time.Second); !p.Ringing || p.Answer != nil {
			t.Fatalf("%+v", p)
		}
		c.Event(0, 0x06, 25) // once only
		r.quiet(g, time.Second)
		c.Event(0, 0x01, 1)
		if a := want[call.Answer](r, g, 200*time.Millisecond); a.Description.Line != "desk" {
			t.Fatalf("%+v", a)
		}
		time.Sleep(100 * time.Millisecond)
		if !c.Streams(0) {
			t.Fatal("no PCM 100 ms after the answer")
		}
		r.wantState("desk", "in call")
		// The far end hangs up: silence, then reorder, howler, parked.
		g.Send(call.Release{Cause: call.NormalClearing})
		want[call.Release](r, g, time.Second)
		if l := dsp.Level(c.Listen(0, time.Second)); l > -60 {
			t.Fatalf("%.0f dBm0 after the far end hung up", l)
		}
		time.Sleep(quietTime)
		if l := power(c.Listen(0, 4800*time.Millisecond), 425); l < toneLevel-8 {
			t.Fatalf("no reorder tone: %.0f dBm0", l)
		}
		r.wantState("desk", "reorder")
		if g2 := r.dial("desk", "10", call.Party{}); !want[call.Release](r, g2, time.Second).Cause.Is(call.UserBusy) {
			t.Fatal("not busy")
		}
		time.Sleep(reorderTime)
		r.wantState("desk", "howler")
		if l := power(c.Listen(0, time.Second), 2450); l < -20 {
			t.Fatalf("no howler: %.0f dBm0", l)
		}
		time.Sleep(howlerTime)
		r.wantState("desk", "parked")
		if c.Streams(0) {
			t.Fatal("PCM on a parked line")
		}
		c.Event(0, 0x02)
		time.Sleep(100 * time.Millisecond)
		r.wantState("desk", "idle")
	})
}

func TestA12PrivateAndUnavailable(t *testing.T) {
	bubble(t, []config.Line{fxsLine("desk", "card1", 0)}, oneFXS, func(t *testing.T, r *rig) {
		for _, c := range []struct {
			from call.Party
			want byte
		}{{call.Party{Number: "+491", Private: true}, 'P'}, {call.Party{}, 'O'}} {
			g := r.dial("desk", "10", c.from)
			want[call.Progress](r, g, time.Second)
			sent := r.cards["card1"].Did(0, 0x07)
			id, err := dsp.ParseCallerID(sent[len(sent)-1].body[8:], time.Now())
			if err != nil || id.NumberAbsent != c.want || id.Number != "" {
				t.Fatalf("%+v %v", id, err)
			}
			g.Send(call.Release{Cause: call.OriginatorCancelled})
			want[call.Release](r, g, time.Second)
		}
	})
}

// TestA12HostSendsCallerIDWhereTheCardCannot: FSK as PCM in the slot.
func TestA12HostSendsCallerIDWhereTheCardCannot(t *testing.T) {
	card := func() *tinyCard { c := fxsCard(); c.caps = link.CanRing | link.CanOnHookPCM; return c }
	bubble(t, []config.Line{fxsLine("desk", "card1", 0)}, map[string]func() *tinyCard{"card1": card}, func(t *testing.T, r *rig) {
		c := r.cards["card1"]
		g := r.dial("desk", "10", call.Party{Number: "+4940123456", Name: "Anna"})
		want[call.Progress](r, g, time.Second)
		ring := c.Did(0, 0x02)
		if len(ring) != 1 || ring[0].body[1] != link.SlotByHost || len(c.Did(0, 0x07)) != 0 {
			t.Fatalf("RING %+v", ring)
		}
		time.Sleep(1600 * time.Millisecond)
		c.Event(0, 0x13, 0xB8, 0x0B) // 3 s
		pcm := c.Listen(0, 1500*time.Millisecond)
		var id dsp.CallerID
		dsp.NewFSKReceiver().Feed(pcm, func(m []byte) { id, _ = dsp.ParseCallerID(m, time.Now()) })
		if id.Number != "040123456" || id.Name != "Anna" {
			t.Fatalf("phone reads %+v", id)
		}
		g.Send(call.Release{Cause: call.OriginatorCancelled})
		want[call.Release](r, g, time.Second)
		time.Sleep(50 * time.Millisecond)
		if c.Streams(0) {
			t.Fatal("PCM on an idle line")
		}
	})
}

func TestA11CallerGivesUp(t *testing.T) {
	bubble(t, []config.Line{fxsLine("desk", "card1", 0)}, oneFXS, func(t *testing.T, r *rig) {
		c := r.cards["card1"]
		g := r.dial("desk", "10", call.Party{})
		want[call.Progress](r, g, time.Second)
		at := time.Now()
		g.Send(call.Release{Cause: call.OriginatorCancelled})
		if rel := want[call.Release](r, g, time.Second); !rel.Cause.Is(call.OriginatorCancelled) {
			t.Fatalf("%+v", rel)
		}
		time.Sleep(100 * time.Millisecond)
		stops := c.Did(0, 0x03)
		if len(stops) != 1 || stops[0].at.Sub(at) > time.Second {
			t.Fatalf("%d RING_STOP", len(stops))
		}
		r.wantState("desk", "idle")
		if len(r.calls) != 0 {
			t.Fatal("ghost call")
		}
	})
}

// TestCallerGivesUpBeforeRing: the answer to CALLERID comes after the release and
// must not start the bell.
func TestCallerGivesUpBeforeRing(t *testing.T) {
	bubble(t, []config.Line{fxsLine("desk", "card1", 0)}, oneFXS, func(t *testing.T, r *rig) {
		g := r.dial("desk", "10", call.Party{Number: "+491"})
		g.Send(call.Release{Cause: call.OriginatorCancelled})
		want[call.Release](r, g, time.Second)
		time.Sleep(time.Second)
		if n := len(r.cards["card1"].Did(0, 0x02)); n != 0 {
			t.Fatalf("%d RING after the caller gave up", n)
		}
		r.wantState("desk", "idle")
	})
}

func TestRingRefusedOrNotConfirmed(t *testing.T) {
	for name, c := range map[string]struct {
		status byte
		silent bool
		cause  call.Cause
	}{
		"hardware":         {byte(link.StatusHardware), false, call.DestinationDown},
		"lifted meanwhile": {byte(link.StatusWrongState), false, call.UserBusy},
		"no bell":          {0, true, call.DestinationDown},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, []config.Line{fxsLine("desk", "card1", 0)}, oneFXS, func(t *testing.T, r *rig) {
				card := r.cards["card1"]
				card.mu.Lock()
				card.refuse[0x02], card.noRingOn = c.status, c.silent
				card.mu.Unlock()
				g := r.dial("desk", "10", call.Party{})
				if rel := want[call.Release](r, g, ringConfirmTime+time.Second); !rel.Cause.Is(c.cause) {
					t.Fatalf("%+v", rel)
				}
				time.Sleep(100 * time.Millisecond)
				r.wantState("desk", "idle")
			})
		})
	}
}

func TestA07NothingDialled(t *testing.T) {
	bubble(t, []config.Line{fxsLine("desk", "card1", 0)}, oneFXS, func(t *testing.T, r *rig) {
		c := r.cards["card1"]
		c.Event(0, 0x01, 0)
		time.Sleep(firstDigitTime - 100*time.Millisecond)
		r.wantState("desk", "dial tone")
		time.Sleep(300 * time.Millisecond)
		r.wantState("desk", "reorder")
		c.Event(0, 0x02)
		time.Sleep(50 * time.Millisecond)
		r.wantState("desk", "idle")
	})
}

func TestHotlineDialsAtOnce(t *testing.T) {
	l := fxsLine("lift", "card1", 0)
	l.Hotline = "112"
	bubble(t, []config.Line{l}, oneFXS, func(t *testing.T, r *rig) {
		r.cards["card1"].Event(0, 0x01, 0)
		if s := want[call.Setup](r, r.accept(100*time.Millisecond), time.Second); s.Called != "112" {
			t.Fatalf("%+v", s)
		}
	})
}

func TestA38UnplugEndsOnlyTheCallsOfItsCard(t *testing.T) {
	lines := []config.Line{fxsLine("one", "card1", 0), fxsLine("two", "card2", 0)}
	bubble(t, lines, map[string]func() *tinyCard{"card1": fxsCard, "card2": fxsCard}, func(t *testing.T, r *rig) {
		inCall := func(line, card string) call.Leg {
			g := r.dial(line, "1", call.Party{})
			want[call.Progress](r, g, time.Second)
			r.cards[card].Event(0, 0x01, 1)
			want[call.Answer](r, g, time.Second)
			return g
		}
		one, two := inCall("one", "card1"), inCall("two", "card2")
		r.mu.Lock()
		r.out["card1"] = true
		r.mu.Unlock()
		r.cards["card1"].unplug()
		rel := want[call.Release](r, one, 2*time.Second)
		if !rel.Cause.Is(call.DestinationDown) || rel.Reason != "line card card1 unplugged" {
			t.Fatalf("%+v", rel)
		}
		r.quiet(two, 10*time.Second)
		r.wantState("one", "out of service")
		r.wantState("two", "in call")
		if g := r.dial("one", "1", call.Party{}); !want[call.Release](r, g, time.Second).Cause.Is(call.DestinationDown) {
			t.Fatal("a dead card takes calls")
		}
		r.cards["card1"].mu.Lock()
		r.cards["card1"].state[0] = 0
		r.cards["card1"].mu.Unlock()
		r.mu.Lock()
		r.out["card1"] = false
		r.mu.Unlock()
		time.Sleep(3 * time.Second)
		r.wantState("one", "idle")
		three := inCall("one", "card1")
		three.Send(call.Release{Cause: call.NormalClearing})
		two.Send(call.Release{Cause: call.NormalClearing})
	})
}

func TestA38RestartAndSilenceOfTheCard(t *testing.T) {
	for name, harm := range map[string]func(*tinyCard){
		"restart": func(c *tinyCard) { c.boot++; c.session = 0; clear(c.streams) },
		"silence": func(c *tinyCard) { c.silent = true },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, []config.Line{fxsLine("desk", "card1", 0)}, oneFXS, func(t *testing.T, r *rig) {
				c := r.cards["card1"]
				g := r.dial("desk", "1", call.Party{})
				want[call.Progress](r, g, time.Second)
				c.Event(0, 0x01, 1)
				want[call.Answer](r, g, time.Second)
				c.mu.Lock()
				harm(c)
				c.mu.Unlock()
				if rel := want[call.Release](r, g, 2*time.Second); !rel.Cause.Is(call.DestinationDown) {
					t.Fatalf("%+v", rel)
				}
				c.mu.Lock()
				c.silent = false
				c.mu.Unlock()
				time.Sleep(10 * time.Second)
				r.wantState("desk", "parked") // the phone is still off-hook
				c.Event(0, 0x02)
				time.Sleep(100 * time.Millisecond)
				r.wantState("desk", "idle")
			})
		})
	}
}

func TestA38HundredReplugsLeaveNothing(t *testing.T) {
	bubble(t, []config.Line{fxsLine("desk", "card1", 0)}, oneFXS, func(t *testing.T, r *rig) {
		for range 100 {
			r.cards["card1"].unplug()
			time.Sleep(time.Second)
			r.wantState("desk", "idle")
		}
		if n := r.bank.Status()[0].Link.Opens; n < 101 {
			t.Fatalf("opened %d times", n)
		}
	}) // the bubble fails if a goroutine is left
}

func TestVoiceBothWaysAndOneFrameForEach(t *testing.T) {
	bubble(t, []config.Line{fxsLine("desk", "card1", 0)}, oneFXS, func(t *testing.T, r *rig) {
		c := r.cards["card1"]
		g := r.dial("desk", "1", call.Party{})
		want[call.Progress](r, g, time.Second)
		v, ok := r.bank.Voice("desk")
		if !ok {
			t.Fatal("no voice")
		}
		far := sine(1000, -10)
		var mu sync.Mutex
		var got []int16
		v.Attach(func(frame []int16) {
			mu.Lock()
			got = append(got, frame...)
			mu.Unlock()
			var out [80]int16
			far(out[:])
			v.Write(out[:])
		})
		c.Say(0, sine(600, -10))
		c.Event(0, 0x01, 1)
		want[call.Answer](r, g, time.Second)
		phone := c.Listen(0, 2*time.Second)
		c.mu.Lock()
		s := *c.streams[0]
		c.mu.Unlock()
		v.Detach()
		if d := s.got - s.sent; d < 0 || d > 1 {
			t.Fatalf("card sent %d frames and got %d", s.sent, s.got)
		}
		if l := power(phone[8000:16000], 1000); math.Abs(l+10) > 0.5 {
			t.Fatalf("phone hears 1000 Hz at %.1f dBm0", l)
		}
		mu.Lock()
		defer mu.Unlock()
		if l := power(got[4000:12000], 600); math.Abs(l+10) > 0.5 {
			t.Fatalf("far end hears 600 Hz at %.1f dBm0", l)
		}
		time.Sleep(50 * time.Millisecond)
		if l := dsp.Level(c.Listen(0, time.Second)); l > -60 {
			t.Fatalf("%.0f dBm0 after Detach", l)
		}
	})
}

func TestVoiceDoesNotAllocate(t *testing.T) {
	v := &Voice{}
	s := &stream{seq: link.NewStream(0), voice: v, send: func(link.Header, []byte) {}}
	v.Attach(func(frame []int16) { v.Write(frame) })
	body := make([]byte, 80)
	seq := uint16(0)
	if a := testing.AllocsPerRun(500, func() {
		s.receive(link.Header{Type: link.TypePCM, Seq: seq}, body)
		seq++
	}); a != 0 {
		t.Fatalf("%v allocations a frame", a)
	}
}

func TestWrongKindAndFaults(t *testing.T) {
	lines := []config.Line{fxsLine("desk", "card1", 0), fxoLine("wrong", "card1", 1)}
	bubble(t, lines, oneFXS, func(t *testing.T, r *rig) {
		st := r.bank.Status()
		if st[1].State != "out of service" || st[1].LastFault != "channel 1 of line card card1 is fxs, not fxo" {
			t.Fatalf("%+v", st[1])
		}
		c := r.cards["card1"]
		c.Event(0, 0x10, 2, 1)
		time.Sleep(50 * time.Millisecond)
		if st := r.bank.Status()[0]; st.State != "out of service" || st.InService || st.LastFault != "line fault: short" {
			t.Fatalf("%+v", st)
		}
		c.Event(0, 0x10, 2, 0)
		time.Sleep(50 * time.Millisecond)
		r.wantState("desk", "idle")
		if st := r.bank.Status()[0]; !st.InService {
			t.Fatalf("%+v", st)
		}
	})
}

func TestApplyLeavesLinesInUseAlone(t *testing.T) {
	desk, other := fxsLine("desk", "card1", 0), fxsLine("other", "card1", 1)
	bubble(t, []config.Line{desk}, oneFXS, func(t *testing.T, r *rig) {
		c := r.cards["card1"]
		cards := []config.Card{{Name: "card1", Device: "/dev/card1", Baud: 921600, Law: "alaw"}}
		apply := func(lines ...config.Line) {
			t.Helper()
			if err := r.bank.Apply(config.Config{Box: testBox, Cards: cards, Lines: lines}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		g := r.dial("desk", "1", call.Party{})
		want[call.Progress](r, g, time.Second)
		c.Event(0, 0x01, 1)
		want[call.Answer](r, g, time.Second)
		changed := desk
		changed.Hotline = "112"
		apply(changed, other)
		r.wantState("desk", "in call")
		r.wantState("other", "idle")
		apply(other)
		r.wantState("desk", "in call")
		cards = nil
		apply()
		r.wantState("desk", "in call")
		r.wantState("other", "unknown")
		cards = []config.Card{{Name: "card1", Device: "/dev/card1", Baud: 921600, Law: "alaw"}}
		apply(changed)
		r.quiet(g, time.Second)
		c.Event(0, 0x02)
		want[call.Release](r, g, time.Second)
		time.Sleep(100 * time.Millisecond)
		r.wantState("desk", "idle")
		c.Event(0, 0x01, 0) // the changed line is in force now
		if s := want[call.Setup](r, r.accept(time.Second), time.Second); s.Called != "112" {
			t.Fatalf("%+v", s)
		}
		c.Event(0, 0x02)
		time.Sleep(100 * time.Millisecond)
		cards = nil
		apply()
		if len(r.bank.Status()) != 0 {
			t.Fatalf("%+v", r.bank.Status())
		}
		if _, err := r.bank.Dial(t.Context(), call.Target{Kind: call.ToLine, Name: "desk"}, call.Setup{}); err == nil {
			t.Fatal("a removed line can be dialled")
		}
	})
}

// TestVoiceDelayDoesNotStay: a call whose loop was late once has its frames in
// time again.
func TestVoiceDelayDoesNotStay(t *testing.T) {
	v := &Voice{}
	v.Attach(func([]int16) {})
	n := int16(0)
	write := func() {
		frame := make([]int16, 80)
		n++
		frame[0] = n
		v.Write(frame)
	}
	out := make([]int16, 80)
	for range 5 { // more than is kept
		write()
	}
	delay := func() int16 { write(); v.speak(out); return n - out[0] }
	first := delay()
	if first != maxQueued-1 {
		t.Fatalf("%d frames late at first, want %d", first, maxQueued-1)
	}
	for range 3 * spareAfter {
		delay()
	}
	if d := delay(); d != 0 {
		t.Fatalf("%d frames late at the end", d)
	}
	v.Detach()
	v.Write(out)
	v.speak(out)
	if out[0] != 0 {
		t.Fatal("a frame after Detach")
	}
}

// TestLegConformance: legs of lines keep what call.Leg promises to every owner.
func TestLegConformance(t *testing.T) {
	t.Run("from a phone", func(t *testing.T) {
		bubble(t, []config.Line{fxsLine("desk", "card1", 0)}, oneFXS, func(t *testing.T, r *rig) {
			r.cards["card1"].Event(0, 0x01, 0)
			time.Sleep(time.Second)
			r.cards["card1"].Say(0, keys("112"))
			g := r.accept(3 * time.Second)
			want[call.Setup](r, g, time.Second)
			calltest.LegConformance(t, g)
		})
	})
	t.Run("to a phone", func(t *testing.T) {
		bubble(t, []config.Line{fxsLine("desk", "card1", 0)}, oneFXS, func(t *testing.T, r *rig) {
			g := r.dial("desk", "1", call.Party{})
			want[call.Progress](r, g, time.Second)
			calltest.LegConformance(t, g)
		})
	})
	t.Run("to an exchange", func(t *testing.T) {
		withFXO(t, func(t *testing.T, r *rig, c *tinyCard) {
			calltest.LegConformance(t, r.dial("trunk", "110", call.Party{}))
		})
	})
}

func TestApplyRefusesWhatDoesNotFitTogether(t *testing.T) {
	card := config.Card{Name: "card1"}
	for name, c := range map[string]config.Config{
		"line twice":   {Cards: []config.Card{card}, Lines: []config.Line{fxsLine("a", "card1", 0), fxsLine("a", "card1", 1)}},
		"card twice":   {Cards: []config.Card{card, card}},
		"unknown card": {Cards: []config.Card{card}, Lines: []config.Line{fxsLine("a", "card2", 0)}},
		"channel":      {Cards: []config.Card{card}, Lines: []config.Line{fxsLine("a", "card1", 24)}},
	} {
		if _, err := New(Options{Cards: c.Cards, Lines: c.Lines, Accept: func(call.Leg) {}}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("a bank without Accept")
	}
}
