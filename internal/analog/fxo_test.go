package analog

import (
	"strings"
	"testing"
	"time"

	"localloop/internal/call"
	"localloop/internal/config"
	"localloop/internal/dsp"
)

var oneFXO = map[string]func() *tinyCard{"card1": fxoCard}

// exchange plays a tone of Germany.
func exchange(c dsp.Cadence) func([]int16) {
	t := dsp.NewTone(c, -12)
	return t.Fill
}

func germany(t *testing.T) *dsp.Plan {
	t.Helper()
	p, ok := dsp.Country("de")
	if !ok {
		t.Fatal("no Germany")
	}
	return p
}

func withFXO(t *testing.T, f func(t *testing.T, r *rig, c *tinyCard)) {
	bubble(t, []config.Line{fxoLine("trunk", "card1", 0)}, oneFXO, func(t *testing.T, r *rig) {
		time.Sleep(2 * time.Second) // the guard after start
		r.wantState("trunk", "idle")
		f(t, r, r.cards["card1"])
	})
}

// hooks are the HOOK actions so far.
func hooks(c *tinyCard) (s string) {
	for _, cmd := range c.Did(0, 0x01) {
		s += string('0' + cmd.body[1])
	}
	return s
}

func TestA25A26SeizeDialAndAnswerByReversal(t *testing.T) {
	de := germany(t)
	withFXO(t, func(t *testing.T, r *rig, c *tinyCard) {
		g := r.dial("trunk", "+4940123456", call.Party{})
		time.Sleep(300 * time.Millisecond)
		if hooks(c) != "1" {
			t.Fatalf("HOOK %s, want off-hook", hooks(c))
		}
		r.quiet(g, 200*time.Millisecond)
		c.Say(0, exchange(de.Dial))
		heard := c.Listen(0, 4*time.Second)
		var digits strings.Builder
		dsp.NewDTMFReceiver().Feed(heard, func(e dsp.DTMFEvent) {
			if e.On {
				digits.WriteByte(e.Digit)
			}
		})
		if digits.String() != "040123456" {
			t.Fatalf("exchange hears %q", digits.String())
		}
		if p := want[call.Progress](r, g, time.Second); p.Ringing || p.Answer == nil || p.Answer.Line != "trunk" {
			t.Fatalf("%+v: early media without ringing", p)
		}
		c.Say(0, exchange(de.Ringback))
		r.quiet(g, 30*time.Second)
		c.Event(0, 0x08, 1)
		want[call.Answer](r, g, time.Second)
		c.Say(0, sine(700, -20))
		r.quiet(g, 5*time.Second)
		c.Event(0, 0x08, 0)
		if rel := want[call.Release](r, g, time.Second); !rel.Cause.Is(call.NormalClearing) {
			t.Fatalf("%+v", rel)
		}
		time.Sleep(50 * time.Millisecond)
		if hooks(c) != "10" {
			t.Fatalf("HOOK %s, want off-hook and on-hook", hooks(c))
		}
		if early := r.dial("trunk", "110", call.Party{}); !want[call.Release](r, early, time.Second).Cause.Is(call.NoCircuit) {
			t.Fatal("seized within the guard time")
		}
		time.Sleep(guardTime)
		r.wantState("trunk", "idle")
	})
}

func TestA25NoDialTone(t *testing.T) {
	withFXO(t, func(t *testing.T, r *rig, c *tinyCard) {
		g := r.dial("trunk", "110", call.Party{})
		if rel := want[call.Release](r, g, 6*time.Second); !rel.Cause.Is(call.NoCircuit) || rel.Reason != "no dial tone" {
			t.Fatalf("%+v", rel)
		}
		time.Sleep(50 * time.Millisecond)
		if hooks(c) != "10" {
			t.Fatalf("HOOK %s: the line was not released", hooks(c))
		}
	})
}

// dialled brings a call to the state after the digits.
func dialled(r *rig, c *tinyCard) call.Leg {
	r.t.Helper()
	g := r.dial("trunk", "110", call.Party{})
	c.Say(0, exchange(germany(r.t).Dial))
	want[call.Progress](r, g, 5*time.Second)
	c.Say(0, nil)
	return g
}

func TestA27BusyAndCongestion(t *testing.T) {
	de := germany(t)
	for name, c := range map[string]struct {
		tone  dsp.Cadence
		cause call.Cause
	}{"busy": {de.Busy, call.UserBusy}, "congestion": {de.Congestion, call.Congestion42}, "information": {de.SIT, call.Congestion42}} {
		t.Run(name, func(t *testing.T) {
			withFXO(t, func(t *testing.T, r *rig, card *tinyCard) {
				g := dialled(r, card)
				card.Say(0, exchange(c.tone))
				if rel := want[call.Release](r, g, 8*time.Second); !rel.Cause.Is(c.cause) {
					t.Fatalf("%+v", rel)
				}
			})
		})
	}
}

func TestA28AnswerWithoutReversal(t *testing.T) {
	de := germany(t)
	t.Run("ringback stops", func(t *testing.T) {
		withFXO(t, func(t *testing.T, r *rig, c *tinyCard) {
			g := dialled(r, c)
			c.Say(0, exchange(de.Ringback))
			r.quiet(g, 60*time.Second)
			c.Say(0, sine(700, -20))
			want[call.Answer](r, g, 12*time.Second)
		})
	})
	t.Run("ringback then busy is no answer", func(t *testing.T) {
		withFXO(t, func(t *testing.T, r *rig, c *tinyCard) {
			g := dialled(r, c)
			c.Say(0, exchange(de.Ringback))
			r.quiet(g, 20*time.Second)
			c.Say(0, exchange(de.Busy))
			if rel := want[call.Release](r, g, 12*time.Second); !rel.Cause.Is(call.UserBusy) {
				t.Fatalf("%+v", rel)
			}
		})
	})
	t.Run("nothing heard", func(t *testing.T) {
		withFXO(t, func(t *testing.T, r *rig, c *tinyCard) {
			g := dialled(r, c)
			r.quiet(g, noRingbackTime-time.Second)
			want[call.Answer](r, g, 2*time.Second)
		})
	})
}

func TestA29Disconnect(t *testing.T) {
	de := germany(t)
	for name, end := range map[string]func(c *tinyCard){
		"open loop": func(c *tinyCard) { c.Event(0, 0x09) },
		"open loop of 300 ms": func(c *tinyCard) {
			c.Event(0, 0x09)
			time.Sleep(200 * time.Millisecond)
			c.Event(0, 0x0A, 0x2C, 1)
		},
		"busy tone": func(c *tinyCard) { c.Say(0, exchange(de.Busy)) },
		"dial tone": func(c *tinyCard) { c.Say(0, exchange(de.Dial)) },
	} {
		t.Run(name, func(t *testing.T) {
			withFXO(t, func(t *testing.T, r *rig, c *tinyCard) {
				g := dialled(r, c)
				c.Event(0, 0x08, 1)
				want[call.Answer](r, g, time.Second)
				c.Event(0, 0x09) // a glitch is no disconnect
				time.Sleep(50 * time.Millisecond)
				c.Event(0, 0x0A, 114, 0)
				r.quiet(g, 5*time.Second)
				end(c)
				if rel := want[call.Release](r, g, 5*time.Second); !rel.Cause.Is(call.NormalClearing) {
					t.Fatalf("%+v", rel)
				}
			})
		})
	}
}

// ringBurst rings once for a second.
func ringBurst(c *tinyCard, ms int) {
	c.Event(0, 0x06, 25)
	time.Sleep(time.Duration(ms) * time.Millisecond)
	c.Event(0, 0x07, byte(ms), byte(ms>>8))
}

// callerIDOnLine is a caller-ID message as audio.
func callerIDOnLine(id dsp.CallerID) func([]int16) {
	m, framing, _ := dsp.CIDFraming(dsp.ETSI, false)
	f := dsp.NewFSK(m, -15)
	f.Send(framing, dsp.EncodeCallerID(dsp.ETSI, id))
	return func(pcm []int16) { f.Fill(pcm) }
}

func TestA21A23A24IncomingCallWithCallerID(t *testing.T) {
	withFXO(t, func(t *testing.T, r *rig, c *tinyCard) {
		ringBurst(c, 1000)
		time.Sleep(600 * time.Millisecond)
		c.Say(0, callerIDOnLine(dsp.CallerID{Number: "0301234", Name: "Bert"}))
		g := r.accept(1500 * time.Millisecond)
		s := want[call.Setup](r, g, time.Second)
		if s.Called != "+49305550" || s.Calling.Number != "0301234" || s.Calling.Name != "Bert" || s.Offer.Line != "trunk" {
			t.Fatalf("%+v", s)
		}
		ringBurst(c, 1000)
		r.quiet(g, time.Second)
		at := time.Now()
		g.Send(call.Answer{})
		time.Sleep(200 * time.Millisecond)
		if h := c.Did(0, 0x01); len(h) != 1 || h[0].body[1] != 1 || h[0].at.Sub(at) > 200*time.Millisecond {
			t.Fatalf("HOOK %v", h)
		}
		r.wantState("trunk", "in call")
		g.Send(call.Release{Cause: call.NormalClearing})
		want[call.Release](r, g, time.Second)
		time.Sleep(50 * time.Millisecond)
		if hooks(c) != "10" {
			t.Fatalf("HOOK %s", hooks(c))
		}
	})
}

func TestA22SplashIsNoCallAndA23WithoutCallerID(t *testing.T) {
	withFXO(t, func(t *testing.T, r *rig, c *tinyCard) {
		ringBurst(c, 250) // alert before caller ID
		time.Sleep(500 * time.Millisecond)
		c.Say(0, callerIDOnLine(dsp.CallerID{Number: "0301234"}))
		time.Sleep(1500 * time.Millisecond)
		if len(r.calls) != 0 {
			t.Fatal("a splash was reported as a call")
		}
		ringBurst(c, 1000)
		if s := want[call.Setup](r, r.accept(3*time.Second), time.Second); s.Calling.Number != "0301234" {
			t.Fatalf("%+v", s)
		}
	})
	withFXO(t, func(t *testing.T, r *rig, c *tinyCard) {
		ringBurst(c, 1000)
		s := want[call.Setup](r, r.accept(3*time.Second), time.Second)
		if s.Calling.Number != "" {
			t.Fatalf("%+v", s)
		}
	})
}

func TestRingGoneAfterEightSeconds(t *testing.T) {
	withFXO(t, func(t *testing.T, r *rig, c *tinyCard) {
		ringBurst(c, 1000)
		g := r.accept(3 * time.Second)
		want[call.Setup](r, g, time.Second)
		if rel := want[call.Release](r, g, ringGoneTime+time.Second); !rel.Cause.Is(call.OriginatorCancelled) {
			t.Fatalf("%+v", rel)
		}
		r.wantState("trunk", "idle")
		// Refused by the box: it rings on, but it is no new call.
		ringBurst(c, 1000)
		g = r.accept(3 * time.Second)
		want[call.Setup](r, g, time.Second)
		g.Send(call.Release{Cause: call.UserBusy})
		want[call.Release](r, g, time.Second)
		ringBurst(c, 1000)
		time.Sleep(4 * time.Second)
		if len(r.calls) != 0 {
			t.Fatal("a refused call came again")
		}
		time.Sleep(ringGoneTime)
		r.wantState("trunk", "idle")
		if hooks(c) != "" {
			t.Fatalf("HOOK %s of a call that was never answered", hooks(c))
		}
	})
}

func TestA30GlareIsAnIncomingCall(t *testing.T) {
	withFXO(t, func(t *testing.T, r *rig, c *tinyCard) {
		g := r.dial("trunk", "110", call.Party{})
		time.Sleep(20 * time.Millisecond)
		c.Event(0, 0x06, 25)
		if rel := want[call.Release](r, g, 500*time.Millisecond); !rel.Cause.Is(call.NoCircuit) || !rel.Cause.TryNext() {
			t.Fatalf("%+v", rel)
		}
		in := r.accept(500 * time.Millisecond)
		want[call.Setup](r, in, time.Second)
		in.Send(call.Answer{})
		time.Sleep(100 * time.Millisecond)
		r.wantState("trunk", "in call")
		if hooks(c) != "1" {
			t.Fatalf("HOOK %s: the caller must not be dropped", hooks(c))
		}
	})
}

func TestA32BatteryAndParallelPhone(t *testing.T) {
	withFXO(t, func(t *testing.T, r *rig, c *tinyCard) {
		c.Event(0, 0x0B, 0)
		time.Sleep(50 * time.Millisecond)
		r.wantState("trunk", "out of service")
		if g := r.dial("trunk", "110", call.Party{}); !want[call.Release](r, g, time.Second).Cause.Is(call.DestinationDown) {
			t.Fatal("a line without battery was offered")
		}
		c.Event(0, 0x0B, 1)
		time.Sleep(2 * time.Second)
		r.wantState("trunk", "idle")
		c.Event(0, 0x12, 1)
		time.Sleep(50 * time.Millisecond)
		r.wantState("trunk", "out of service")
		c.Event(0, 0x12, 0)
		time.Sleep(2 * time.Second)
		r.wantState("trunk", "idle")
		c.Event(0, 0x08, 1) // polarity swapped at rest: the new normal
		time.Sleep(50 * time.Millisecond)
		g := dialled(r, c)
		r.quiet(g, time.Second)
		c.Event(0, 0x08, 0)
		want[call.Answer](r, g, time.Second)
	})
}

// TestA23CallerIDOfOneCallIsNotShownForTheNext: a message after a splash that no
// call follows, and one that comes after its call was reported.
func TestA23CallerIDOfOneCallIsNotShownForTheNext(t *testing.T) {
	for name, before := range map[string]func(r *rig, c *tinyCard){
		"splash without a call": func(r *rig, c *tinyCard) {
			ringBurst(c, 250)
			time.Sleep(500 * time.Millisecond)
			c.Say(0, callerIDOnLine(dsp.CallerID{Number: "0301234"}))
			time.Sleep(10 * time.Second)
		},
		"message too late": func(r *rig, c *tinyCard) {
			ringBurst(c, 1000)
			g := r.accept(3 * time.Second)
			want[call.Setup](r, g, time.Second)
			c.Say(0, callerIDOnLine(dsp.CallerID{Number: "0301234"}))
			want[call.Release](r, g, 10*time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			withFXO(t, func(t *testing.T, r *rig, c *tinyCard) {
				before(r, c)
				c.Say(0, nil)
				time.Sleep(2 * time.Second)
				r.wantState("trunk", "idle")
				ringBurst(c, 1000)
				if s := want[call.Setup](r, r.accept(3*time.Second), time.Second); s.Calling.Number != "" {
					t.Fatalf("caller of the ring before: %+v", s.Calling)
				}
			})
		})
	}
}
