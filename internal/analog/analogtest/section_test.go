package analogtest

import (
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"
)

// Rules of docs/linecard-link.md that firmware makers asked about; the number
// after SLCL is the section.

func TestSLCL4HelloAfterALostLinkBringsStateUnderTheOldID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: []Channel{{Kind: FXS}, {Kind: FXO}, {Kind: Absent}}})
		defer stop()
		h.must(tCmd, 0, cmdVMWI, 1, 0)
		h.event(1, evState)
		c.Alarm(1, true, 90)
		c.Exchange(1).Parallel(true)
		h.event(1, evParallel)
		c.Stall(true, true)
		if err := c.WaitLink(limit(t), false); err != nil {
			t.Fatal(err)
		}
		c.Phone(0).Lift()
		time.Sleep(100 * time.Millisecond)
		c.Stall(true, false)
		h.wait("PONG without session", func() bool {
			f := h.got[len(h.got)-1]
			return f.typ == tPong && binary.LittleEndian.Uint32(f.body[4:]) == 0
		})
		if s := h.reliable(tCmd, 0, cmdQuery); s != stNoSession {
			t.Errorf("status %d before HELLO", s)
		}
		h.forget()
		h.hello(0xA1B2C3D4)
		if f := h.event(0, evState); f.body[1] != 1 {
			t.Errorf("STATE % x of a phone that was lifted meanwhile", f.body)
		}
		h.event(1, evState)
		if f := h.event(1, evParallel); f.body[1] != 1 {
			t.Errorf("PARALLEL % x", f.body)
		}
		h.wait("the alarm that is active", func() bool { return h.count(tAlarm) > 0 })
		time.Sleep(time.Second)
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, f := range h.got {
			if f.typ == tAlarm && f.body[0] != 1 {
				t.Errorf("ALARM % x: the reset cause is for the first session only", f.body)
			}
		}
		if _, told := h.find(2, evState); told {
			t.Error("STATE of an absent channel")
		}
	})
}

// TestSLCL7GapAfterUnderrunKeepsTheDelay: six frames lost in a row run the
// playout dry; what the empty buffer has concealed is not concealed again.
func TestSLCL7GapAfterUnderrunKeepsTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
		defer stop()
		s := h.start(0, ALaw, 10, nil)
		depth := func(frames int) (worst byte) {
			h.wait("stream", func() bool { return s.frames >= frames })
			h.forget()
			h.wait("three FILLs", func() bool { return h.count(tFill) >= 3 })
			h.mu.Lock()
			defer h.mu.Unlock()
			for _, f := range h.got {
				if f.typ == tFill {
					worst = max(worst, f.body[1])
				}
			}
			return worst
		}
		before := depth(100)
		h.mu.Lock()
		h.skip = 6
		h.mu.Unlock()
		if after := depth(200); after != before {
			t.Errorf("playout depth %d ms, %d ms before the loss", after, before)
		}
		if n := c.Counters(); n.Underruns != 1 || n.Concealed != 6 {
			t.Errorf("%+v", n)
		}
	})
}

func TestSLCL7OldFramesAndThoseOfTheStreamBeforeAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
		defer stop()
		h.must(tStart, chCard, 10, 0, 1, 0, 0, 0, 0, 1) // epoch 0x0100
		voice := func(seq uint16) uint64 {
			before := c.Counters().PCMIn
			h.write(frame{tPCM, 0, seq, 0, make([]byte, 80)})
			time.Sleep(5 * time.Millisecond)
			return c.Counters().PCMIn - before
		}
		for _, v := range []struct {
			seq   uint16
			taken uint64
		}{{0x2100, 0}, {0x00FF, 0}, {0x0101, 1}, {0x0101, 0}, {0x0100, 0}, {0x8102, 0}, {0x0102, 1}, {0x0202, 1}, {0x0103, 0}} {
			if got := voice(v.seq); got != v.taken {
				t.Errorf("seq %#04x: %d frames taken, want %d", v.seq, got, v.taken)
			}
		}
	})
}

func TestSLCL7OnHookExchangeIsHeardButNotItsRinging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, fxo(ExchangeOptions{Country: "us"}))
		defer stop()
		s := h.start(0, ALaw, 10, nil)
		if err := c.Exchange(0).Ring(&CallerID{Number: "12"}, Destination{}); err != nil {
			t.Fatal(err)
		}
		h.event(0, evRingOn)
		h.mu.Lock()
		from := len(s.heard)
		h.mu.Unlock()
		h.event(0, evRingOff)
		h.mu.Lock()
		burst := append([]int16(nil), s.heard[from:]...)
		from = len(s.heard)
		h.mu.Unlock()
		for _, v := range burst[:len(burst)-1600] { // the end is reported 100 ms late
			if v > 8 || v < -8 {
				t.Fatalf("sample %d in a ring burst", v)
			}
		}
		r, number := newFSKReceiver(bell202), ""
		h.wait("caller ID", func() bool {
			r.feed(s.heard[from:], func(m []byte) { id, _ := ParseCallerID(m); number = id.Number }, func([]byte) {})
			from = len(s.heard)
			return number != ""
		})
		if number != "12" {
			t.Errorf("caller %q", number)
		}
	})
}

func TestSLCL8ToneGoesOnAtAnyStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
		defer stop()
		p := c.Phone(0)
		p.Lift()
		h.event(0, evOffHook)
		tone := append([]byte{cmdTone, 1, 2}, 400&0xFF, 400>>8, 0, 0, 0xF0, 200, 0, 1000&0xFF, 1000>>8, 0, 0, 0xF0, 200, 0)
		h.must(tCmd, 0, tone...)
		time.Sleep(2 * time.Second)
		rec := p.Recording()
		if last := rec[len(rec)-1600:]; !audible(last, 1000) || audible(last, 400) {
			t.Error("not at the odd step")
		}
		tone[1] = 2
		if s := h.reliable(tCmd, 0, tone...); s != stBadArgument {
			t.Errorf("repeat behind the last step: status %d", s)
		}
	})
}

func TestSLCL81SlotBeforeTheFirstRing(t *testing.T) {
	ring := func(flags byte, delay uint16) []byte {
		return append(binary.LittleEndian.AppendUint16([]byte{cmdRing, flags, 25, 0, 0xFF}, delay), 2, 0xE8, 3, 0xA0, 0x0F)
	}
	t.Run("host sends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
			defer stop()
			if s := h.reliable(tCmd, 0, ring(2, 499)...); s != stBadArgument {
				t.Errorf("slot of 499 ms: status %d", s)
			}
			h.must(tCmd, 0, ring(2, 900)...)
			f := h.event(0, evCIDSlot)
			if ms := binary.LittleEndian.Uint16(f.body[1:]); ms != 900 {
				t.Errorf("CID_SLOT of %d ms", ms)
			}
			if gap := h.event(0, evRingOn).clock - f.clock; gap < 1090 || gap > 1110 {
				t.Errorf("first ring %d ms after the beginning of the slot, want 1100", gap)
			}
			_ = c
		})
	})
	for name, lift := range map[string]bool{"card sends": false, "phone lifts meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
				defer stop()
				reversed := func() byte {
					h.forget()
					h.must(tCmd, 0, cmdQuery)
					return h.event(0, evState).body[3]
				}
				h.event(0, evState)
				msg := CallerID{Number: "112"}.MDMF(time.Unix(0, 0))
				h.must(tCmd, 0, append([]byte{cmdCallerID, 0, 1, alertReversal, 44, 1, 180, 0}, msg...)...)
				h.must(tCmd, 0, ring(1, 0)...)
				on := h.event(0, evRingOn)
				time.Sleep(50 * time.Millisecond)
				if reversed() != 1 {
					t.Error("no reversal before the data")
				}
				want := byte(0)
				if lift {
					c.Phone(0).Lift()
					want = 1
				}
				done := h.event(0, evCIDDone)
				if done.body[1] != want {
					t.Errorf("CID_DONE %d, want %d", done.body[1], want)
				}
				if !lift {
					if err := c.Phone(0).WaitRing(limit(t)); err != nil {
						t.Fatal(err)
					}
					if id, err := c.Phone(0).WaitCallerID(limit(t), 0); err != nil || id.Number != "112" || id.Rings != 0 {
						t.Errorf("%+v, %v", id, err)
					}
					if done.clock-on.clock < 500 {
						t.Errorf("RING_ON %d ms before the end of the data", done.clock-on.clock)
					}
				}
				if reversed() != 0 {
					t.Error("polarity has not gone back")
				}
			})
		})
	}
}

func TestSLCL82NoAcknowledgementWithin160ms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
		defer stop()
		c.Phone(0).Lift()
		h.event(0, evOffHook)
		msg := CallerID{Number: "112"}.MDMF(time.Unix(0, 0))
		begun := c.clockNow()
		h.must(tCmd, 0, append([]byte{cmdCallerID, 2, 0, alertDTAS, 0, 0, 80, 0}, msg...)...)
		f := h.event(0, evCIDDone)
		if took := f.clock - begun; f.body[1] != 2 || took < 250 || took > 290 {
			t.Errorf("CID_DONE %d after %d ms, want 2 after 260", f.body[1], took)
		}
	})
}

func (c *Card) clockNow() uint16 {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.clock()
}

func TestSLCL83OpenFeedStopsTheHookRecogniser(t *testing.T) {
	for name, tc := range map[string]struct {
		before func(p *Phone) // 50 ms before the feed opens
		during func(p *Phone)
		event  byte // wanted after the feed is back, 0 none
	}{
		"stays":              {event: 0},
		"replaced":           {during: func(p *Phone) { p.HangUp() }, event: evOnHook},
		"opens and comes up": {before: func(p *Phone) { p.HangUp() }, during: func(p *Phone) { p.Lift() }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
				defer stop()
				p := c.Phone(0)
				p.Lift()
				h.event(0, evOffHook)
				time.Sleep(time.Second)
				h.forget()
				if tc.before != nil {
					tc.before(p)
					time.Sleep(50 * time.Millisecond)
				}
				h.must(tCmd, 0, cmdLinefeed, feedOpen, 2000&0xFF, 2000>>8)
				opened := c.clockNow()
				if tc.during != nil {
					tc.during(p)
				}
				time.Sleep(1900 * time.Millisecond)
				h.mu.Lock()
				if n := len(h.events(0)); n != 0 {
					t.Errorf("%d events while the feed is open", n)
				}
				h.mu.Unlock()
				time.Sleep(2 * time.Second)
				h.mu.Lock()
				defer h.mu.Unlock()
				switch list := h.events(0); {
				case tc.event == 0 && len(list) > 0, tc.event != 0 && (len(list) != 1 || list[0][0] != tc.event):
					t.Fatalf("% x", list)
				}
				if f, ok := h.find(0, evOnHook); ok {
					if at := f.clock - opened; at < 1980 || at > 2020 {
						t.Errorf("ONHOOK dates from %d ms after the opening, want the return of the feed", at)
					}
				}
			})
		})
	}
}

// TestSLCL83OffHookCountsFromTheFirstStableClosure: 20 ms with the debounce in
// them; the clock is the closure.
func TestSLCL83OffHookCountsFromTheFirstStableClosure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fxsPort{timing: defaultTiming}
		c, err := New(CardOptions{Channels: fxs(1)})
		if err != nil {
			t.Fatal(err)
		}
		p.channel = c.ports[0].base()
		for ms := range uint64(60) {
			c.w.ms = 1000 + ms
			p.stepHook(ms >= 10 && ms != 13) // bounces once
			if want := ms >= 14+20; p.offHook != want {
				t.Fatalf("%d ms: off-hook %t", ms, p.offHook)
			}
		}
		if p.loopAt != 1014 {
			t.Errorf("closure at %d", p.loopAt)
		}
	})
}

// TestSLCL9NoBatteryOfStateEndsWithBattery: STATE says 16 only where BATTERY 1
// will end it; an interruption that BATTERY does not report is none.
func TestSLCL9NoBatteryOfStateEndsWithBattery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, fxo(ExchangeOptions{}))
		defer stop()
		state := func() byte {
			h.forget()
			h.must(tCmd, 0, cmdQuery)
			return h.event(0, evState).body[4]
		}
		h.event(0, evState)
		c.Exchange(0).Battery(false)
		time.Sleep(500 * time.Millisecond)
		if f := state(); f != 0 {
			t.Errorf("fault %d after 500 ms without battery", f)
		}
		h.event(0, evBattery)
		if f := state(); f != 16 {
			t.Errorf("fault %d, want 16", f)
		}
		c.Exchange(0).Battery(true)
		if f := h.event(0, evBattery); f.body[1] != 1 {
			t.Errorf("BATTERY %d", f.body[1])
		}
		if f := state(); f != 0 {
			t.Errorf("fault %d with battery", f)
		}
	})
}
