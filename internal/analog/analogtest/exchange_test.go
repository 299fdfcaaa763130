package analogtest

import (
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"
)

func fxo(o ExchangeOptions) CardOptions {
	return CardOptions{Channels: []Channel{{Kind: FXO, Exchange: o}}}
}

func TestA25BoxDialsAndTheFarEndAnswers(t *testing.T) {
	for name, pulse := range map[string]bool{"DTMF": false, "pulse": true} {
		synctest.Test(t, func(t *testing.T) {
			c, h, stop := bench(t, fxo(ExchangeOptions{Country: "fi", Reversal: true, Route: func(n string) Destination {
				if n != "09123" {
					return Destination{Busy: true}
				}
				return Destination{Ringing: 3 * time.Second, SpeakHz: 1004, ClearAfter: 5 * time.Second}
			}}))
			defer stop()
			e := c.Exchange(0)
			h.must(tCmd, 0, cmdHook, 1, 0, 0)
			s := h.start(0, ALaw, 10, nil)
			fi, _ := PlanOf("fi")
			ear := newEar(fi)
			wait := func(p Progress) {
				t.Helper()
				done := 0
				h.wait(p.String(), func() bool {
					for ; done+80 <= len(s.heard); done += 80 {
						ear.hear(time.Now(), s.heard[done:done+80])
						if ear.now == p {
							return true
						}
					}
					return false
				})
			}
			wait(DialTone)
			if pulse {
				h.must(tCmd, 0, append([]byte{cmdDial, 60, 40, 800 & 0xFF, 800 >> 8}, "09123"...)...)
				h.event(0, evDialDone)
			} else {
				pcm, _ := DTMF("09123", Keying{})
				h.mu.Lock()
				s.say = pcm
				h.mu.Unlock()
			}
			if n, err := e.WaitNumber(limit(t), 0); err != nil || n != "09123" {
				t.Fatalf("%s: number %q, %v", name, n, err)
			}
			wait(RingbackTone)
			if f := h.event(0, evPolarity); f.body[1] != 1 {
				t.Errorf("polarity %d at the answer", f.body[1])
			}
			if err := e.WaitState(limit(t), ExTalking); err != nil {
				t.Fatal(err)
			}
			h.mu.Lock()
			s.tone = newPlayer(Cadence{{Hz: []float64{700}}}, 0, -16)
			h.mu.Unlock()
			if err := e.WaitTone(limit(t), 700); err != nil {
				t.Error(err)
			}
			h.wait("far end's tone", func() bool {
				n := len(s.heard)
				return audible(s.heard[n-320:], 1004)
			})
			wait(BusyTone)
			h.must(tCmd, 0, cmdHook, 0, 0, 0)
			if err := e.WaitState(limit(t), ExIdle); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestA21ExchangeRingsTheBox(t *testing.T) {
	for _, country := range []string{"us", "uk", "fr", "jp"} {
		synctest.Test(t, func(t *testing.T) {
			c, h, stop := bench(t, fxo(ExchangeOptions{Country: country}))
			defer stop()
			e := c.Exchange(0)
			s := h.start(0, MuLaw, 10, nil)
			id := CallerID{Number: "0401234567", Name: "Aino"}
			e.Splash(50 * time.Millisecond)
			time.Sleep(time.Second)
			if _, ok := func() (frame, bool) { h.mu.Lock(); defer h.mu.Unlock(); return h.find(0, evRingOn) }(); ok {
				t.Error("a splash of 50 ms is reported as ringing")
			}
			if err := e.Ring(&id, Destination{SpeakHz: 1004}); err != nil {
				t.Fatal(err)
			}
			if e.Ring(nil, Destination{}) == nil {
				t.Error("rings a line that is ringing")
			}
			f := h.event(0, evRingOn)
			if f.body[1] != 25 {
				t.Errorf("%s: %d Hz", country, f.body[1])
			}
			off := h.event(0, evRingOff)
			plan, _ := PlanOf(country)
			if ms := time.Duration(binary.LittleEndian.Uint16(off.body[1:])) * time.Millisecond; (ms - plan.Ring[0]).Abs() > 5*time.Millisecond {
				t.Errorf("%s: burst of %v, want %v", country, ms, plan.Ring[0])
			}
			r, done, got := newFSKReceiver(bell202), 0, ""
			h.wait("caller ID as audio", func() bool {
				r.feed(s.heard[done:], func(m []byte) {
					id, _ := ParseCallerID(m)
					got = id.Number
				}, func([]byte) {})
				done = len(s.heard)
				return got != ""
			})
			if got != id.Number {
				t.Errorf("caller %q", got)
			}
			h.must(tCmd, 0, cmdHook, 1, 0, 0)
			if err := e.WaitState(limit(t), ExTalking); err != nil {
				t.Error(err)
			}
			h.wait("far end's tone", func() bool { return audible(s.heard[len(s.heard)-320:], 1004) })
		})
	}
}

func TestA29ExchangeClearsInEachWay(t *testing.T) {
	for how, want := range map[Clearing]byte{ByOpenLoop: evLoopOpen, ByReversal: evPolarity, ByBusyTone: 0} {
		synctest.Test(t, func(t *testing.T) {
			c, h, stop := bench(t, fxo(ExchangeOptions{Reversal: how == ByReversal}))
			defer stop()
			e := c.Exchange(0)
			if err := e.Ring(nil, Destination{}); err != nil {
				t.Fatal(err)
			}
			h.event(0, evRingOn)
			h.must(tCmd, 0, cmdHook, 1, 0, 0)
			if err := e.WaitState(limit(t), ExTalking); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			e.OpenLoop(50 * time.Millisecond) // a glitch
			time.Sleep(time.Second)
			h.mu.Lock()
			_, glitch := h.find(0, evLoopOpen)
			h.mu.Unlock()
			if glitch {
				t.Error("a glitch of 50 ms is reported")
			}
			h.forget()
			e.ClearBy(how)
			if want != 0 {
				h.event(0, want)
			}
			if how == ByOpenLoop {
				f := h.event(0, evLoopClosed)
				if ms := binary.LittleEndian.Uint16(f.body[1:]); ms < 590 || ms > 610 {
					t.Errorf("open for %d ms, want 600", ms)
				}
			}
			h.must(tCmd, 0, cmdHook, 0, 0, 0)
			if err := e.WaitState(limit(t), ExIdle); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestA31A32FlashAndBattery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, fxo(ExchangeOptions{}))
		defer stop()
		e := c.Exchange(0)
		e.Battery(false)
		if f := h.event(0, evBattery); f.body[1] != 0 {
			t.Error("battery lost is not told")
		}
		h.forget()
		e.Battery(true)
		if f := h.event(0, evBattery); f.body[1] != 1 {
			t.Error("battery back is not told")
		}
		e.Parallel(true)
		if f := h.event(0, evParallel); f.body[1] != 1 {
			t.Error("the parallel phone is not told")
		}
		h.must(tCmd, 0, cmdHook, 1, 0, 0)
		time.Sleep(time.Second)
		h.must(tCmd, 0, cmdHook, 2, 600&0xFF, 600>>8)
		if f := h.event(0, evHookDone); f.body[1] != 2 {
			t.Errorf("HOOK_DONE %d", f.body[1])
		}
		long, err := e.WaitFlash(limit(t), 0)
		if err != nil || (long-600*time.Millisecond).Abs() > 10*time.Millisecond {
			t.Errorf("flash of %v, %v", long, err)
		}
	})
}
