package analogtest

import (
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"
)

// The items of docs/linecard-link.md §12 that no other test covers.

func TestHelloAgainChangesNothingAndANewOneEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
		defer stop()
		p := c.Phone(0)
		h.must(tCmd, 0, ringUS...)
		h.start(0, MuLaw, 10, nil)
		if err := p.WaitRing(limit(t)); err != nil {
			t.Fatal(err)
		}
		seq := h.seq
		h.hello(0xA1B2C3D4)
		h.seq = seq
		time.Sleep(50 * time.Millisecond)
		if s := c.Snapshot(); len(s.Streaming) != 1 || !p.Snapshot().Ringing || s.Counters.Sessions != 1 {
			t.Errorf("HELLO with the same session: %+v", s)
		}
		h.forget()
		h.hello(0x55)
		f := h.event(0, evState)
		if f.seq != 0 || f.body[2] != 0 {
			t.Errorf("STATE seq %d % x", f.seq, f.body)
		}
		if err := p.WaitQuiet(limit(t), 10*time.Millisecond); err != nil {
			t.Error(err)
		}
		if s := c.Snapshot(); len(s.Streaming) != 0 || s.Counters.Sessions != 2 {
			t.Errorf("HELLO with a new session: %+v", s)
		}
	})
}

func TestWindowOfFourAndOnePerChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(6)})
		defer stop()
		h.wait("STATE of all", func() bool { return len(h.events(5)) > 0 && h.count(tAlarm) > 0 })
		time.Sleep(20 * time.Millisecond)
		h.mu.Lock()
		h.noAck, h.got = true, nil
		h.mu.Unlock()
		for i := range 6 {
			c.Fault(i, 2, true)
			c.Fault(i, 2, false)
		}
		time.Sleep(40 * time.Millisecond)
		h.mu.Lock()
		seen := map[byte]int{}
		for _, f := range h.got {
			if f.typ == tEvt {
				seen[f.ch]++
			}
		}
		h.noAck = false
		h.mu.Unlock()
		if len(seen) != 4 {
			t.Errorf("unacknowledged on channels %v, want four of them", seen)
		}
		for ch, n := range seen {
			if n != 1 {
				t.Errorf("%d frames on channel %d", n, ch)
			}
		}
		h.wait("the rest in order", func() bool {
			for ch := range byte(6) {
				last := byte(9)
				for _, e := range h.events(ch) {
					if e[0] == evFault {
						last = e[2]
					}
				}
				if last != 0 {
					return false
				}
			}
			return true
		})
	})
}

func TestGarbageThenHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1), BootID: 3})
		defer stop()
		junk := make([]byte, 10000)
		for i := range junk {
			junk[i] = byte(c.rng.Uint32())
		}
		h.out <- append(junk, 0)
		h.forget()
		h.hello(0x77)
		if n := c.Counters(); n.DroppedIn == 0 {
			t.Error("nothing dropped")
		}
		if s := c.Snapshot(); s.Session != 0x77 || !s.LinkUp {
			t.Errorf("%+v", s)
		}
	})
}

func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1), BootID: 8})
		defer stop()
		reset := func(magic string, kind byte) {
			h.write(frame{tReset, chCard, 0, 0, append([]byte(magic), kind)})
			time.Sleep(150 * time.Millisecond)
		}
		reset("RSEX", 1)
		reset("RSET", 2)
		if s := c.Snapshot(); s.Boot != 8 || s.Session == 0 {
			t.Errorf("reset without its letters: %+v", s)
		}
		reset("RSET", 0)
		if s := c.Snapshot(); s.Boot != 8 || s.Session != 0 || s.LinkUp {
			t.Errorf("RESET 0: %+v", s)
		}
		h.hello(9)
		reset("RSET", 1)
		if s := c.Snapshot(); s.Boot != 9 || s.Session != 0 {
			t.Errorf("RESET 1: %+v", s)
		}
		h.forget()
		h.hello(10)
		h.wait("reset cause", func() bool {
			for _, f := range h.got {
				if f.typ == tAlarm && f.body[0] == 4 && binary.LittleEndian.Uint16(f.body[2:]) == 3 {
					return true
				}
			}
			return false
		})
	})
}

func TestReorderOfTheCardWhenTheLinkIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
		defer stop()
		p := c.Phone(0)
		p.Lift()
		h.event(0, evOffHook)
		c.Stall(true, true)
		if err := p.WaitProgress(limit(t), CongestionTone); err != nil {
			t.Error(err)
		}
	})
}

func TestToneGainAndReflection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: []Channel{{Kind: FXS, Reflection: -12}}})
		defer stop()
		p := c.Phone(0)
		p.Lift()
		h.event(0, evOffHook)
		step := []byte{1004 & 0xFF, 1004 >> 8, 0, 0, 0xF0, 0xF4, 1} // -16 dBm0 for 500 ms
		h.must(tCmd, 0, append([]byte{cmdTone, 0xFF, 1}, step...)...)
		if err := p.WaitTone(limit(t), 1004); err != nil {
			t.Fatal(err)
		}
		h.event(0, evToneDone)
		if d := p.Log(1004).Audible(); (d - 450*time.Millisecond).Abs() > 80*time.Millisecond {
			t.Errorf("tone of 500 ms was audible %v", d)
		}
		minus6 := int16(-60)
		h.must(tCmd, 0, append(binary.LittleEndian.AppendUint16([]byte{cmdGain}, uint16(minus6)), 0, 0)...)
		s := h.start(0, ALaw, 10, newPlayer(Cadence{{Hz: []float64{700}}}, 0, -10))
		h.wait("a second", func() bool { return s.frames > 100 })
		h.mu.Lock()
		echo := dBm0(goertzel(s.heard[len(s.heard)-2000:], 700))
		h.mu.Unlock()
		rec := p.Recording()
		if got := dBm0(goertzel(rec[len(rec)-2000:], 700)); got < -16.5 || got > -15.5 {
			t.Errorf("phone hears %.1f dBm0, want -16", got)
		}
		if echo < -28.7 || echo > -27.3 {
			t.Errorf("echo %.1f dBm0, want -28", echo)
		}
	})
}
