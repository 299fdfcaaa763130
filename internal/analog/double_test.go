package analog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"localloop/internal/analog/analogtest"
	"localloop/internal/call"
	"localloop/internal/config"
)

// double is a Bank with one card of analogtest, which was written from the
// document alone: channel 0 a phone, channel 1 an exchange.
type double struct {
	*rig
	card  *analogtest.Card
	phone *analogtest.Phone
	ex    *analogtest.Exchange
}

var doubleLines = []config.Line{fxsLine("desk", "card1", 0), fxoLine("trunk", "card1", 1)}

func doubleCard(t *testing.T, o analogtest.CardOptions) *analogtest.Card {
	t.Helper()
	o.Channels = []analogtest.Channel{
		{Kind: analogtest.FXS, Phone: analogtest.PhoneOptions{Country: "de"}},
		{Kind: analogtest.FXO, Exchange: analogtest.ExchangeOptions{Country: "de", Reversal: true, CallerIDModem: "v23",
			Route: func(number string) analogtest.Destination {
				if number == "0999" {
					return analogtest.Destination{Busy: true}
				}
				return analogtest.Destination{Ringing: 7 * time.Second, SpeakHz: 1004}
			}}},
	}
	c, err := analogtest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// withDouble runs f in virtual time over a pipe.
func withDouble(t *testing.T, o analogtest.CardOptions, f func(t *testing.T, d *double)) {
	synctest.Test(t, func(t *testing.T) {
		hosts := make(chan net.Conn, 1)
		o.Connect = func() (io.ReadWriteCloser, string, error) {
			host, card := net.Pipe()
			select {
			case old := <-hosts: // nobody opened it
				old.Close()
			default:
			}
			hosts <- host
			return card, "pipe", nil
		}
		c := doubleCard(t, o)
		d := startDouble(t, c, func(config.Card) (io.ReadWriteCloser, error) {
			select {
			case h := <-hosts:
				return h, nil
			default:
				return nil, errors.New("no such device")
			}
		}, "pipe")
		f(t, d)
	})
}

func startDouble(t *testing.T, c *analogtest.Card, open func(config.Card) (io.ReadWriteCloser, error), device string) *double {
	t.Helper()
	r := &rig{t: t, calls: make(chan call.Leg, 10)}
	d := &double{r, c, c.Phone(0), c.Exchange(1)}
	var err error
	r.bank, err = New(Options{Box: testBox, Lines: doubleLines, Open: open,
		Cards:  []config.Card{{Name: "card1", Device: device, Baud: 921600, Law: "alaw"}},
		Accept: func(g call.Leg) { r.calls <- g },
		Plan:   testPlan{"112": 2, "0305551234": 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- c.Run(ctx) }()
	go func() { ended <- r.bank.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	if device == "pipe" {
		time.Sleep(3 * time.Second)
		r.wantState("desk", "idle")
		r.wantState("trunk", "idle")
	}
	return d
}

// talk attaches a far end that speaks hz.
func (d *double) talk(line string, hz float64) func() []int16 {
	v, ok := d.bank.Voice(line)
	if !ok {
		d.t.Fatal("no voice of " + line)
	}
	far := sine(hz, -10)
	heard := make(chan []int16, 1)
	heard <- nil
	v.Attach(func(frame []int16) {
		var out [80]int16
		far(out[:])
		v.Write(out[:])
		h := append(<-heard, frame...)
		heard <- h[max(0, len(h)-8000):]
	})
	return func() []int16 { h := <-heard; heard <- h; return h }
}

func limit(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestDoublePhoneDialsTalksAndHangsUp(t *testing.T) {
	for name, k := range map[string]analogtest.Keying{
		"dtmf":  {On: 50 * time.Millisecond, Off: 50 * time.Millisecond},
		"pulse": {Pulse: true},
	} {
		t.Run(name, func(t *testing.T) {
			withDouble(t, analogtest.CardOptions{}, func(t *testing.T, d *double) {
				d.phone.Lift()
				ok(t, d.phone.WaitDialTone(limit(t, 5*time.Second)))
				ok(t, d.phone.Dial("0305551234", k))
				g := d.accept(20 * time.Second)
				if s := want[call.Setup](d.rig, g, time.Second); s.Called != "0305551234" {
					t.Fatalf("called %q", s.Called)
				}
				d.phone.Watch(1000)
				heard := d.talk("desk", 1000)
				g.Send(call.Answer{})
				ok(t, d.phone.WaitTone(limit(t, 2*time.Second), 1000))
				d.phone.Speak(600, -16)
				time.Sleep(2 * time.Second)
				if l := power(heard(), 600); l < -18 || l > -14 {
					t.Fatalf("far end hears 600 Hz at %.1f dBm0, want -16", l)
				}
				if n := d.card.Counters(); n.Underruns > 0 || n.Concealed > 0 || n.Overruns > 0 {
					t.Fatalf("playout of the card suffers: %+v", n)
				}
				g.Send(call.Release{Cause: call.UserBusy})
				want[call.Release](d.rig, g, time.Second)
				ok(t, d.phone.WaitProgress(limit(t, 5*time.Second), analogtest.BusyTone))
				d.phone.HangUp()
				time.Sleep(2 * time.Second)
				d.wantState("desk", "idle")
			})
		})
	}
}

func TestDoublePhoneRingsShowsAndAnswers(t *testing.T) {
	for name, o := range map[string]analogtest.CardOptions{"card sends FSK": {}, "host sends FSK": {NoFSK: true}} {
		t.Run(name, func(t *testing.T) {
			withDouble(t, o, func(t *testing.T, d *double) {
				g := d.dial("desk", "10", call.Party{Number: "+4940123456", Name: "Anna"})
				want[call.Progress](d.rig, g, 3*time.Second)
				id, err := d.phone.WaitCallerID(limit(t, 6*time.Second), 0)
				ok(t, err)
				if id.Number != "040123456" || id.Name != "Anna" || id.Rings != 1 || id.AfterRing < 500*time.Millisecond {
					t.Fatalf("%+v", id)
				}
				ok(t, d.phone.WaitRings(limit(t, 10*time.Second), 2))
				rings := d.phone.Rings()
				if on, off := rings[0].On, rings[0].Off; on < 950*time.Millisecond || on > 1050*time.Millisecond || off < 3950*time.Millisecond || off > 4050*time.Millisecond {
					t.Fatalf("rings %v, pauses %v", on, off)
				}
				d.phone.Watch(1000)
				d.talk("desk", 1000)
				lifted := time.Now()
				d.phone.Lift()
				want[call.Answer](d.rig, g, time.Second)
				ok(t, d.phone.WaitTone(limit(t, time.Second), 1000))
				if took := time.Since(lifted); took > 500*time.Millisecond {
					t.Fatalf("voice %v after the phone was lifted", took)
				}
				d.quiet(g, time.Second) // no false on-hook
				d.phone.HangUp()
				want[call.Release](d.rig, g, 2*time.Second)
			})
		})
	}
}

func TestDoubleExchangeOutgoing(t *testing.T) {
	withDouble(t, analogtest.CardOptions{}, func(t *testing.T, d *double) {
		g := d.dial("trunk", "+4940123456", call.Party{})
		want[call.Progress](d.rig, g, 6*time.Second)
		if n, err := d.ex.WaitNumber(limit(t, 5*time.Second), 0); err != nil || n != "040123456" {
			t.Fatalf("exchange got %q, %v", n, err)
		}
		heard := d.talk("trunk", 700)
		d.ex.Watch(700)
		want[call.Answer](d.rig, g, 15*time.Second)
		ok(t, d.ex.WaitTone(limit(t, 2*time.Second), 700))
		time.Sleep(time.Second)
		if l := power(heard(), 1004); l < -18 || l > -14 {
			t.Fatalf("far end at %.1f dBm0", l)
		}
		d.ex.Clear()
		want[call.Release](d.rig, g, 10*time.Second)
		time.Sleep(2 * time.Second)
		d.wantState("trunk", "idle")
		g = d.dial("trunk", "0999", call.Party{})
		want[call.Progress](d.rig, g, 6*time.Second)
		if rel := want[call.Release](d.rig, g, 10*time.Second); !rel.Cause.Is(call.UserBusy) {
			t.Fatalf("%+v", rel)
		}
	})
}

func TestDoubleExchangeIncoming(t *testing.T) {
	withDouble(t, analogtest.CardOptions{}, func(t *testing.T, d *double) {
		ok(t, d.ex.Ring(&analogtest.CallerID{Number: "0301234", Name: "Bert"}, analogtest.Destination{SpeakHz: 900}))
		g := d.accept(5 * time.Second)
		if s := want[call.Setup](d.rig, g, time.Second); s.Calling.Number != "0301234" || s.Called != "+49305550" {
			t.Fatalf("%+v", s)
		}
		heard := d.talk("trunk", 700)
		g.Send(call.Answer{})
		time.Sleep(2 * time.Second)
		if l := power(heard(), 900); l < -20 {
			t.Fatalf("caller at %.1f dBm0", l)
		}
		g.Send(call.Release{Cause: call.NormalClearing})
		want[call.Release](d.rig, g, time.Second)
		time.Sleep(2 * time.Second)
		d.wantState("trunk", "idle")
	})
}

// TestDoubleA37CallsThroughDamage: 20 calls over a line with damaged octets.
func TestDoubleA37CallsThroughDamage(t *testing.T) {
	for _, rate := range []float64{1e-4, 1e-3} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			i := analogtest.Impairment{Seed: 37, Loss: rate / 3, Corrupt: rate / 3, Insert: rate / 3, Chunk: 7, Latency: time.Millisecond}
			withDouble(t, analogtest.CardOptions{ToHost: i, ToCard: i}, func(t *testing.T, d *double) {
				for n := range 20 {
					g := d.dial("desk", "10", call.Party{Number: "+4940123456"})
					want[call.Progress](d.rig, g, 5*time.Second)
					time.Sleep(300 * time.Millisecond)
					d.phone.Lift()
					want[call.Answer](d.rig, g, 3*time.Second)
					d.quiet(g, 2*time.Second)
					d.phone.HangUp()
					if rel := want[call.Release](d.rig, g, 4*time.Second); !rel.Cause.Is(call.NormalClearing) {
						t.Fatalf("call %d: %+v", n, rel)
					}
					time.Sleep(100 * time.Millisecond)
				}
				st, c := d.bank.Status()[0], d.card.Counters()
				damaged := c.ToHost.Lost + c.ToHost.Corrupted + c.ToHost.Inserted
				t.Logf("%d octets damaged toward the host, %d frames of voice lost, %d dropped; %d commands repeated; card repeated %d", damaged, st.Lost, st.Link.Bad, st.Link.Repeats, c.Repeats)
				if st.Link.Sessions != 1 {
					t.Fatalf("%d sessions: the link went down", st.Link.Sessions)
				}
				if damaged == 0 || float64(st.Lost) > 1.1*float64(damaged) {
					t.Fatalf("%d frames lost by %d damaged octets", st.Lost, damaged)
				}
			})
		})
	}
}

func TestDoubleA38RebootUnplugStallGarbage(t *testing.T) {
	for name, harm := range map[string]func(d *double) func(){
		"reboot": func(d *double) func() { d.card.Reboot(); return func() {} },
		"unplug": func(d *double) func() {
			ok(d.t, d.card.Unplug(limit(d.t, 5*time.Second)))
			return func() {
				_, err := d.card.Replug(limit(d.t, 5*time.Second))
				ok(d.t, err)
			}
		},
		"stall": func(d *double) func() {
			d.card.Stall(true, true)
			d.card.Stall(false, true)
			return func() { d.card.Stall(true, false); d.card.Stall(false, false) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			withDouble(t, analogtest.CardOptions{}, func(t *testing.T, d *double) {
				g := d.dial("desk", "10", call.Party{})
				want[call.Progress](d.rig, g, 3*time.Second)
				d.phone.Lift()
				want[call.Answer](d.rig, g, 2*time.Second)
				d.card.Garbage(500) // does no harm
				d.quiet(g, 2*time.Second)
				repair := harm(d)
				if rel := want[call.Release](d.rig, g, 2*time.Second); !rel.Cause.Is(call.DestinationDown) {
					t.Fatalf("%+v", rel)
				}
				time.Sleep(3 * time.Second)
				repair()
				d.phone.HangUp()
				time.Sleep(12 * time.Second)
				if name == "stall" || name == "unplug" {
					if d.state("desk") != "idle" { // the pipe was closed by the host: plug anew
						_ = d.card.Unplug(limit(t, 5*time.Second))
						if _, err := d.card.Replug(limit(t, 5*time.Second)); err != nil {
							t.Fatal(err)
						}
						time.Sleep(5 * time.Second)
					}
				}
				d.wantState("desk", "idle")
				g = d.dial("desk", "10", call.Party{})
				want[call.Progress](d.rig, g, 3*time.Second)
			})
		})
	}
}
