package analogtest

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ringUS = []byte{cmdRing, 0, 20, 0, 0xFF, 0, 0, 2, 0xD0, 7, 0xA0, 0x0F} // 2000 on, 4000 off

func TestWelcomeDescribesTheCard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, h, stop := bench(t, CardOptions{Channels: []Channel{{Kind: FXS}, {Kind: FXS}, {Kind: FXO}}, BootID: 0xBEEF})
		defer stop()
		h.wait("STATE of all", func() bool { return len(h.events(0)) > 0 && len(h.events(1)) > 0 && len(h.events(2)) > 0 })
		h.mu.Lock()
		defer h.mu.Unlock()
		w := h.got[0]
		list, err := parseTLVs(w.body)
		if w.typ != tWelcome || err != nil {
			t.Fatalf("first frame %+v, %v", w, err)
		}
		runs := 0
		for _, e := range list {
			switch e.tag {
			case 0x02:
				if binary.LittleEndian.Uint32(e.value) != 0xA1B2C3D4 {
					t.Errorf("session % x", e.value)
				}
			case 0x14:
				if binary.LittleEndian.Uint32(e.value) != 0xBEEF {
					t.Errorf("boot id % x", e.value)
				}
			case 0x15:
				if e.value[0] != 3 {
					t.Errorf("channels % x", e.value)
				}
			case 0x16:
				runs++
			}
		}
		if runs != 2 {
			t.Errorf("%d runs of channels, want FXS and FXO", runs)
		}
		if e := h.events(0)[0]; e[0] != evState || e[1] != 0 {
			t.Errorf("first event % x", e)
		}
	})
}

func TestCommandSentTwiceActsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
		defer stop()
		f := frame{tCmd, 0, 77, 0, []byte{cmdMeter, 3, 0, 0, 10, 0, 10, 0}}
		h.write(f)
		h.write(f)
		h.wait("METER_DONE", func() bool { _, ok := h.find(0, evMeterDone); return ok })
		h.wait("two ACKs", func() bool { return h.count(tAck) == 2 })
		if n := c.Phone(0).Snapshot().Metered; n != 3 {
			t.Errorf("%d metering pulses, want 3", n)
		}
		if n := c.Counters().Duplicates; n != 1 {
			t.Errorf("%d duplicates", n)
		}
	})
}

func TestRefusalsNameTheirReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: []Channel{{Kind: FXS}, {Kind: FXO}}})
		defer stop()
		for _, v := range []struct {
			name   string
			ch     byte
			body   []byte
			status byte
		}{
			{"unknown command", 0, []byte{0x55}, stUnknown},
			{"vendor command", 0, []byte{0x90}, stUnknown},
			{"empty", 0, nil, stBadArgument},
			{"short RING", 0, ringUS[:9], stBadArgument},
			{"RING on FXO", 1, ringUS, stUnsupported},
			{"HOOK on FXS", 0, []byte{cmdHook, 1, 0, 0}, stUnsupported},
			{"no such channel", 2, []byte{cmdQuery}, stBadArgument},
			{"card ID from nowhere", 0, append([]byte{cmdRing, 1}, ringUS[2:]...), stBadArgument},
			{"flash on-hook", 1, []byte{cmdHook, 2, 100, 0}, stWrongState},
			{"odd ring", 0, []byte{cmdRing, 0, 20, 0, 0xFF, 0, 0, 3, 100, 0, 100, 0, 100, 0}, stBadArgument},
			{"longer than needed", 0, append(ringUS[:len(ringUS):len(ringUS)], 1, 2, 3), stOK},
		} {
			if got := h.reliable(tCmd, v.ch, v.body...); got != v.status {
				t.Errorf("%s: status %d, want %d", v.name, got, v.status)
			}
		}
		c.Phone(0).Lift()
		h.event(0, evOffHook)
		if got := h.reliable(tCmd, 0, ringUS...); got != stWrongState {
			t.Errorf("RING to a lifted phone: %d", got)
		}
	})
}

func TestEventIsRepeatedThenTheLinkIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(2)})
		defer stop()
		h.wait("STATE", func() bool { return len(h.events(1)) > 0 && h.count(tAlarm) > 0 })
		time.Sleep(10 * time.Millisecond) // virtual: the last ACK arrives
		h.mu.Lock()
		h.noAck, h.got = true, nil
		h.mu.Unlock()
		start := time.Now()
		c.Phone(0).Lift()
		if err := c.WaitLink(limit(t), false); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 1550*time.Millisecond || d > 1700*time.Millisecond {
			t.Errorf("link down after %v, want 1.55 s after the event", d)
		}
		h.mu.Lock()
		n := 0
		for _, f := range h.got {
			if f.typ == tEvt && f.body[0] == evOffHook {
				n++
			}
		}
		h.noAck = false
		h.mu.Unlock()
		if n != 5 {
			t.Errorf("event sent %d times, want 5", n)
		}
		if s := h.reliable(tCmd, 0, cmdQuery); s != stNoSession {
			t.Errorf("command after the link went down: status %d", s)
		}
		h.forget()
		h.hello(0xD00D)
		h.wait("STATE of the lifted phone", func() bool {
			f, ok := h.find(0, evState)
			return ok && f.body[1] == 1
		})
	})
}

func TestSilenceOfTheHostStopsTheCard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: []Channel{{Kind: FXS}, {Kind: FXO}}})
		defer stop()
		h.must(tCmd, 0, ringUS...)
		h.must(tCmd, 1, cmdHook, 1, 0, 0)
		h.start(0, MuLaw, 10, nil)
		if err := c.Phone(0).WaitRing(limit(t)); err != nil {
			t.Fatal(err)
		}
		c.Stall(true, true) // hears nothing any more
		if err := c.WaitLink(limit(t), false); err != nil {
			t.Fatal(err)
		}
		if s := c.Snapshot(); len(s.Streaming) != 0 {
			t.Errorf("after link down: streaming %v", s.Streaming)
		}
		down := time.Now()
		if err := c.Phone(0).WaitQuiet(limit(t), 5*time.Millisecond); err != nil || time.Since(down) > 20*time.Millisecond {
			t.Errorf("rings %v after link down: %v", time.Since(down), err)
		}
		if !c.Exchange(1).Snapshot().Seized {
			t.Error("FXO released at once")
		}
		if err := c.Exchange(1).WaitState(limit(t), ExIdle); err != nil {
			t.Error(err)
		}
	})
}

func TestRestartHasANewBootID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1), BootID: 5})
		defer stop()
		c.Reboot()
		if c.BootID() == 5 {
			t.Error("boot id has not changed")
		}
		h.forget()
		h.wait("PONG without session", func() bool {
			for _, f := range h.got {
				if f.typ == tPong && binary.LittleEndian.Uint32(f.body[4:]) == 0 && binary.LittleEndian.Uint32(f.body[8:]) == c.BootID() {
					return true
				}
			}
			return false
		})
		if s := h.reliable(tCmd, 0, cmdQuery); s != stNoSession {
			t.Errorf("status %d, want NO_SESSION", s)
		}
	})
}

func TestVoiceBothWaysFrameForFrame(t *testing.T) {
	for _, law := range []Law{ALaw, MuLaw} {
		for _, ms := range []int{10, 20} {
			synctest.Test(t, func(t *testing.T) {
				c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
				defer stop()
				p := c.Phone(0)
				p.Lift()
				p.Speak(700, -16)
				p.Watch(1004)
				h.event(0, evOffHook)
				s := h.start(0, law, ms, newPlayer(Cadence{{Hz: []float64{1004}}}, 0, -20))
				if err := p.WaitTone(limit(t), 1004); err != nil {
					t.Fatal(err)
				}
				h.wait("ten seconds", func() bool { return s.frames >= 10000/ms })
				h.mu.Lock()
				heard, gaps := s.heard, s.gaps
				h.mu.Unlock()
				if gaps != 0 {
					t.Errorf("%d gaps in the card's frames", gaps)
				}
				tail := heard[len(heard)-8000:]
				if got := dBm0(goertzel(tail, 700)); math.Abs(got+16) > 0.3 {
					t.Errorf("host hears 700 Hz at %.1f dBm0, want -16", got)
				}
				rec := p.Recording()
				if got := dBm0(goertzel(rec[len(rec)-8000:], 1004)); math.Abs(got+20) > 0.3 {
					t.Errorf("phone hears 1004 Hz at %.1f dBm0, want -20", got)
				}
				n := c.Counters()
				if n.Underruns != 0 || n.Overruns != 0 || n.Concealed != 0 {
					t.Errorf("underruns %d, overruns %d, concealed %d", n.Underruns, n.Overruns, n.Concealed)
				}
				if l := p.Log(1004); len(l.Spans) != 1 {
					t.Errorf("tone in %d pieces: %v", len(l.Spans), l.Spans)
				}
			})
		}
	}
}

func TestLostHostFramesAreConcealedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
		defer stop()
		p := c.Phone(0)
		p.Lift()
		p.Watch(1004)
		s := h.start(0, MuLaw, 10, newPlayer(Cadence{{Hz: []float64{1004}}}, 0, -20))
		h.wait("stream", func() bool { return s.frames >= 100 })
		h.mu.Lock()
		h.skip = 4
		h.mu.Unlock()
		h.wait("more", func() bool { return s.frames >= 300 })
		n := c.Counters()
		if n.Concealed != 4 {
			t.Errorf("%d frames concealed, want 4", n.Concealed)
		}
		// Nothing but the missing 40 ms: the delay is as before.
		h.mu.Lock()
		depth := byte(0)
		for _, f := range h.got {
			if f.typ == tFill {
				depth = f.body[1]
			}
		}
		h.mu.Unlock()
		if depth > 30 {
			t.Errorf("playout depth %d ms after the loss", depth)
		}
	})
}

func TestStreamIsClockedByTheCard(t *testing.T) {
	for _, ppm := range []float64{0, 100, -1000} {
		synctest.Test(t, func(t *testing.T) {
			_, h, stop := bench(t, CardOptions{Channels: fxs(1), PPM: ppm})
			defer stop()
			s := h.start(0, MuLaw, 10, nil)
			start := time.Now()
			h.wait("6000 frames", func() bool { return s.frames >= 6000 })
			want := time.Duration(60e9 / (1 + ppm/1e6))
			if d := time.Since(start) - want; d.Abs() > 30*time.Millisecond {
				t.Errorf("%g ppm: 6000 frames took %v more than %v", ppm, d, want)
			}
		})
	}
}

func TestThrottleIsTheLineRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		c, err := New(CardOptions{Channels: fxs(1), Baud: 115200})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ran := make(chan error)
		go func() { ran <- c.Serve(ctx, a) }()
		const n = 11520
		got := make(chan time.Duration)
		if _, err := c.WaitPlugged(limit(t)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		go func() {
			io.ReadFull(b, make([]byte, n+1))
			got <- time.Since(start)
		}()
		c.Garbage(n)
		if d := <-got; d < 990*time.Millisecond || d > 1020*time.Millisecond {
			t.Errorf("card: %d octets took %v, want 1 s", n, d)
		}
		start = time.Now()
		b.Write(make([]byte, 2*n))
		if d := time.Since(start); d < 1800*time.Millisecond || d > 2100*time.Millisecond {
			t.Errorf("host: %d octets took %v, want 2 s", 2*n, d)
		}
		cancel()
		<-ran
		b.Close()
	})
}

func TestSetBaudFallsBackWhenTheHostIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(1)})
		defer stop()
		h.must(tSetBaud, chCard, binary.LittleEndian.AppendUint32(nil, 2000000)...)
		if got := c.Snapshot().Baud; got != 2000000 {
			t.Errorf("rate %d", got)
		}
		time.Sleep(600 * time.Millisecond) // virtual; the pings arrive meanwhile
		if got := c.Snapshot().Baud; got != 2000000 {
			t.Errorf("rate %d although the host was heard", got)
		}
		h.must(tSetBaud, chCard, binary.LittleEndian.AppendUint32(nil, 3000000)...)
		c.Stall(true, true)
		time.Sleep(900 * time.Millisecond)
		if got := c.Snapshot().Baud; got != 2000000 {
			t.Errorf("rate %d, want the one before", got)
		}
		c.Stall(true, false)
		if err := c.WaitLink(limit(t), true); err != nil {
			h.hello(3)
		}
		h.hello(4)
		h.start(0, ALaw, 10, nil)
		if s := h.reliable(tSetBaud, chCard, binary.LittleEndian.AppendUint32(nil, 1000000)...); s != stWrongState {
			t.Errorf("SETBAUD while streaming: status %d", s)
		}
	})
}

// TestDamagedLineLosesNoEvent is A-37: damage costs frames, never an event.
func TestA37DamagedLineLosesNoEvent(t *testing.T) {
	const seed = 99
	for name, i := range map[string]Impairment{
		"loss":    {Seed: seed, Loss: 8e-4},
		"corrupt": {Seed: seed, Corrupt: 8e-4},
		"insert":  {Seed: seed, Insert: 8e-4},
		"latency": {Seed: seed, Latency: 20 * time.Millisecond, Jitter: 15 * time.Millisecond},
		"octets":  {Seed: seed, Chunk: 1},
		"bursts":  {Seed: seed, BurstLoss: 1e-4, BurstLen: 40},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, h, stop := bench(t, CardOptions{Channels: fxs(1), NoFSK: true})
			defer stop()
			p := c.Phone(0)
			h.start(0, MuLaw, 10, nil)
			c.Impair(true, i)
			c.Impair(false, i)
			const lifts = 15
			for range lifts {
				p.Lift()
				p.WaitOffHook(limit(t))
				time.Sleep(300 * time.Millisecond)
				p.HangUp()
				p.WaitOnHook(limit(t))
				time.Sleep(1300 * time.Millisecond)
			}
			c.Impair(true, Impairment{})
			c.Impair(false, Impairment{})
			time.Sleep(time.Second)
			h.mu.Lock()
			defer h.mu.Unlock()
			var order []byte
			seen := map[uint16]bool{}
			for _, f := range h.got {
				if f.typ == tEvt && f.ch == 0 && f.body[0] != evState && !seen[f.seq] {
					seen[f.seq] = true
					order = append(order, f.body[0])
				}
			}
			if len(order) != 2*lifts {
				t.Errorf("%s (seed %d): %d events, want %d", name, seed, len(order), 2*lifts)
			}
			for k, id := range order {
				if want := byte(evOffHook + k%2); id != want {
					t.Fatalf("%s (seed %d): event %d is %s", name, seed, k, eventNames[id])
				}
			}
			n := c.Counters()
			if d := n.ToHost; name == "loss" && d.Lost == 0 || name == "corrupt" && d.Corrupted == 0 || name == "insert" && d.Inserted == 0 {
				t.Errorf("%s: nothing was damaged: %+v", name, d)
			}
			if n.LinkDowns != 0 {
				t.Errorf("%s: link down %d times", name, n.LinkDowns)
			}
		})
	}
}

func TestReadyOnlyWhenTheHostKnowsEveryLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: fxs(2)})
		defer stop()
		if err := c.WaitReady(limit(t)); err != nil {
			t.Fatal(err)
		}
		h.mu.Lock()
		h.noAck = true
		h.mu.Unlock()
		h.hello(0x11223344) // the session is up at once, its STATEs are not acknowledged
		if err := c.WaitLink(limit(t), true); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(limit(t), 300*time.Millisecond)
		defer cancel()
		if err := c.WaitReady(ctx); err == nil {
			t.Fatal("ready, though the host has acknowledged no line's state")
		}
		h.mu.Lock()
		h.noAck = false
		h.mu.Unlock()
		if err := c.WaitReady(limit(t)); err != nil { // the STATEs are repeated
			t.Fatal(err)
		}
	})
}
