package analogtest

import (
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"
)

func callerIDCommand(where, method, alert byte, octets []byte) []byte {
	return append([]byte{cmdCallerID, where, method, alert, 300 & 0xFF, 300 >> 8, 180, 0}, octets...)
}

func TestBellRingsWithTheCadence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
		defer stop()
		p := c.Phone(0)
		h.must(tCmd, 0, ringUS...)
		if err := p.WaitRings(limit(t), 3); err != nil {
			t.Fatal(err)
		}
		h.must(tCmd, 0, cmdRingStop)
		if err := p.WaitQuiet(limit(t), 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		rings := p.Rings()
		for i, r := range rings[:2] {
			if (r.On-2*time.Second).Abs() > 10*time.Millisecond || (r.Off-4*time.Second).Abs() > 10*time.Millisecond || r.Hz != 20 {
				t.Errorf("ring %d: %v on, %v off, %d Hz", i, r.On, r.Off, r.Hz)
			}
		}
		h.mu.Lock()
		n := 0
		for _, e := range h.events(0) {
			if e[0] == evRingOn {
				n++
			}
		}
		h.mu.Unlock()
		if n != 1 {
			t.Errorf("RING_ON %d times, want once", n)
		}
	})
}

// TestA12CallerIDBetweenTheRings checks the windows at the phone, not at the card.
func TestA12CallerIDBetweenTheRings(t *testing.T) {
	msg := CallerID{Number: "0401234567", Name: "Aino Virtanen"}.MDMF(time.Date(2026, 3, 9, 14, 5, 0, 0, time.UTC))
	for name, off := range map[string]uint16{"long silence": 4000, "silence too short": 1000} {
		for method, modem := range []string{"Bell 202", "V.23"} {
			synctest.Test(t, func(t *testing.T) {
				c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
				defer stop()
				p := c.Phone(0)
				h.must(tCmd, 0, callerIDCommand(0, byte(method), 0, msg)...)
				ring := []byte{cmdRing, 1, 25, 0, 1, 600 & 0xFF, 600 >> 8, 2, 0xE8, 3}
				h.must(tCmd, 0, binary.LittleEndian.AppendUint16(ring, off)...)
				s, err := p.WaitCallerID(limit(t), 0)
				if err != nil {
					t.Fatal(err)
				}
				if s.Number != "0401234567" || s.Name != "Aino Virtanen" || s.Date != "03091405" || s.Modem != modem || s.Rings != 1 {
					t.Errorf("%s %s: %+v", name, modem, s)
				}
				if s.AfterRing < 500*time.Millisecond {
					t.Errorf("%s: signal %v after the ring", name, s.AfterRing)
				}
				if err := p.WaitRings(limit(t), 2); err != nil {
					t.Fatal(err)
				}
				r := p.Rings()
				if gap := r[1].At.Sub(s.At); gap < 180*time.Millisecond {
					t.Errorf("%s: second ring %v after the message", name, gap)
				}
				if f := h.event(0, evCIDDone); f.body[1] != 0 {
					t.Errorf("CID_DONE %d", f.body[1])
				}
				if all, damaged := p.CallerIDs(); len(all) != 1 || damaged != 0 {
					t.Errorf("%d shown, %d damaged", len(all), damaged)
				}
			})
		}
	}
}

func TestCallerIDFromTheHostReachesTheRingingPhone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
		defer stop()
		p := c.Phone(0)
		msg := CallerID{Absent: 'P'}.MDMF(time.Now())
		s := h.start(0, ALaw, 10, nil)
		h.must(tCmd, 0, cmdRing, 2, 25, 0, 1, 600&0xFF, 600>>8, 2, 0xE8, 3, 0xA0, 0x0F)
		f := h.event(0, evCIDSlot)
		if ms := binary.LittleEndian.Uint16(f.body[1:]); ms < 3100 || ms > 3200 {
			t.Errorf("slot of %d ms, want 3200", ms)
		}
		h.mu.Lock()
		s.say = bell202.fskAudio(msg, 300, 180, -13.5)
		h.mu.Unlock()
		shown, err := p.WaitCallerID(limit(t), 0)
		if err != nil || shown.Absent != 'P' {
			t.Errorf("%+v, %v", shown, err)
		}
	})
}

// TestA09A10LiftDuringAndBetweenBursts: ringing stops within 200 ms, the trip is
// told, and no false on-hook follows.
func TestA09A10LiftDuringAndBetweenBursts(t *testing.T) {
	for name, delay := range map[string]time.Duration{"in the burst": 700 * time.Millisecond, "in the pause": 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			c, h, stop := bench(t, CardOptions{Channels: []Channel{{Kind: FXS, Phone: PhoneOptions{
				Script: Script{AnswerRing: 1, Delay: delay, SpeakHz: 700, HangUpAfter: 2 * time.Second}}}}})
			defer stop()
			p := c.Phone(0)
			h.must(tCmd, 0, ringUS...)
			f := h.event(0, evOffHook)
			if f.body[1] != 1 {
				t.Errorf("%s: OFFHOOK without ring trip", name)
			}
			r := p.Rings()
			if on := r[0].On; name == "in the burst" && (on < delay || on > delay+100*time.Millisecond) {
				t.Errorf("%s: burst lasted %v", name, on)
			}
			if err := p.WaitOnHook(limit(t)); err != nil {
				t.Fatal(err)
			}
			on := h.event(0, evOnHook)
			if d := on.clock - f.clock; d < 1950 || d > 2100 {
				t.Errorf("%s: ONHOOK %d ms after OFFHOOK, want 2000", name, d)
			}
			if len(p.Rings()) != 1 {
				t.Errorf("%s: rang on", name)
			}
		})
	}
}

// TestA06OpenLoopsAreSorted is conformance item 12 of the link.
func TestA06OpenLoopsAreSorted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
		defer stop()
		p := c.Phone(0)
		p.Lift()
		h.event(0, evOffHook)
		for _, v := range []struct {
			ms   int
			want byte
		}{{10, 0}, {60, evPulse}, {150, 0}, {300, evFlash}, {1200, evOnHook}} {
			h.forget()
			p.OpenLoop(time.Duration(v.ms) * time.Millisecond)
			time.Sleep(2 * time.Second) // virtual
			h.mu.Lock()
			list := h.events(0)
			h.mu.Unlock()
			var got byte
			if len(list) > 0 {
				got = list[0][0]
			}
			if got != v.want {
				t.Errorf("open for %d ms: %s, want %s", v.ms, eventNames[got], eventNames[v.want])
			}
			if got == evFlash {
				if ms := binary.LittleEndian.Uint16(list[0][1:]); ms < 290 || ms > 310 {
					t.Errorf("flash of %d ms", ms)
				}
			}
		}
		// A real hook bounces.
		h.forget()
		p.Flash(400 * time.Millisecond)
		f := h.event(0, evFlash)
		if ms := binary.LittleEndian.Uint16(f.body[1:]); ms < 385 || ms > 415 {
			t.Errorf("bouncing flash of 400 ms is %d ms", ms)
		}
		h.forget()
		p.HangUp()
		h.event(0, evOnHook)
		p.Wet(15 * time.Millisecond)
		time.Sleep(time.Second)
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, e := range h.events(0) {
			if e[0] == evOffHook {
				t.Error("a wetting pulse of 15 ms is taken for a lift")
			}
		}
	})
}

func TestA05PulseDialling(t *testing.T) {
	for _, k := range []Keying{{Pulse: true}, {Pulse: true, PPS: 8, Break: 66}, {Pulse: true, PPS: 12, Break: 45}} {
		synctest.Test(t, func(t *testing.T) {
			c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
			defer stop()
			p := c.Phone(0)
			p.Lift()
			h.event(0, evOffHook)
			if err := p.Dial("1905", k); err != nil {
				t.Fatal(err)
			}
			if err := p.WaitSaid(limit(t)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(500 * time.Millisecond)
			h.mu.Lock()
			defer h.mu.Unlock()
			var got []byte
			for _, e := range h.events(0) {
				if e[0] == evPulse {
					got = append(got, e[1])
				}
			}
			if string(got) != "\x01\x09\x0a\x05" {
				t.Errorf("%+v: pulses %v, want 1 9 10 5", k, got)
			}
			if !p.Snapshot().OffHook {
				t.Error("dialling hung up")
			}
		})
	}
	if err := newPhone(newWorld(nil), 0, PhoneOptions{}).Dial("1*", Keying{Pulse: true}); err == nil {
		t.Error("pulse digit * accepted")
	}
}

func TestDigitsOfThePhoneReachTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1), DTMFReceiver: true})
		defer stop()
		p := c.Phone(0)
		p.Lift()
		h.event(0, evOffHook)
		s := h.start(0, MuLaw, 10, nil)
		if err := p.Dial("0401#"); err != nil {
			t.Fatal(err)
		}
		p.WaitSaid(limit(t))
		time.Sleep(300 * time.Millisecond)
		h.mu.Lock()
		defer h.mu.Unlock()
		var r dtmfReceiver
		var heard, told string
		r.feed(s.heard, func(d byte) { heard += string(d) })
		for _, e := range h.events(0) {
			if e[0] == evDTMF && e[2] == 1 {
				told += string(e[1])
			}
		}
		if heard != "0401#" || told != "0401#" {
			t.Errorf("heard %q, told %q", heard, told)
		}
	})
}

func TestLinefeedOpenIsNoHangUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
		defer stop()
		p := c.Phone(0)
		p.Lift()
		h.event(0, evOffHook)
		h.must(tCmd, 0, cmdLinefeed, feedOpen, 500&0xFF, 500>>8)
		start := time.Now()
		p.await(limit(t), "no battery", func() bool { return !p.battery })
		p.await(limit(t), "battery", func() bool { return p.battery })
		if d := time.Since(start); (d - 500*time.Millisecond).Abs() > 20*time.Millisecond {
			t.Errorf("open for %v", d)
		}
		time.Sleep(2 * time.Second)
		h.mu.Lock()
		defer h.mu.Unlock()
		if _, ok := h.find(0, evOnHook); ok {
			t.Error("taken for ONHOOK")
		}
	})
}

func TestTypeIICallerIDIsAcknowledged(t *testing.T) {
	msg := CallerID{Number: "112"}.MDMF(time.Unix(0, 0))
	for _, able := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c, h, stop := bench(t, CardOptions{Channels: []Channel{{Kind: FXS, Phone: PhoneOptions{TypeII: able}}}})
			defer stop()
			p := c.Phone(0)
			p.Lift()
			h.event(0, evOffHook)
			h.must(tCmd, 0, append([]byte{cmdCallerID, 2, 0, alertDTAS, 0, 0, 80, 0}, msg...)...)
			f := h.event(0, evCIDDone)
			want := byte(2)
			if able {
				want = 0
				if s, err := p.WaitCallerID(limit(t), 0); err != nil || s.Number != "112" {
					t.Errorf("%+v, %v", s, err)
				}
			}
			if f.body[1] != want {
				t.Errorf("type II %t: CID_DONE %d, want %d", able, f.body[1], want)
			}
		})
	}
}

func TestScriptHangsUpOnBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: []Channel{{Kind: FXS, Phone: PhoneOptions{
			Country: "fi", Script: Script{HangUpOnBusy: time.Second}}}}})
		defer stop()
		p := c.Phone(0)
		p.Lift()
		h.event(0, evOffHook)
		fi, _ := PlanOf("fi")
		s := h.start(0, ALaw, 10, newPlayer(fi.Dial, 0, -18))
		if err := p.WaitDialTone(limit(t)); err != nil {
			t.Fatal(err)
		}
		h.mu.Lock()
		s.tone = newPlayer(fi.Busy, 0, -18)
		h.mu.Unlock()
		if err := p.WaitProgress(limit(t), BusyTone); err != nil {
			t.Fatal(err)
		}
		if err := p.WaitOnHook(limit(t)); err != nil {
			t.Fatal(err)
		}
		h.event(0, evOnHook)
	})
}
