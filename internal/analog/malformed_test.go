package analog

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"localloop/internal/analog/analogtest"
	"localloop/internal/analog/link"
	"localloop/internal/call"
	"localloop/internal/config"
)

// TestMalformedFramesDoNotHarmARunningCall sends 10 000 frames with right check
// sequence and wrong content, and damaged ones, into a running call.
func TestMalformedFramesDoNotHarmARunningCall(t *testing.T) {
	const seed = 20
	t.Logf("seed %d", seed)
	bubble(t, []config.Line{fxsLine("desk", "card1", 0), fxsLine("other", "card1", 1)}, oneFXS, func(t *testing.T, r *rig) {
		c := r.cards["card1"]
		g := r.dial("desk", "1", call.Party{})
		want[call.Progress](r, g, time.Second)
		c.Event(0, 0x01, 1)
		want[call.Answer](r, g, time.Second)
		v, _ := r.bank.Voice("desk")
		var frames atomic.Int64
		v.Attach(func([]int16) { frames.Add(1) })
		rng := rand.New(rand.NewPCG(seed, seed))
		for i := range 10000 {
			body := make([]byte, rng.UintN(40))
			for j := range body {
				body[j] = byte(rng.Uint32())
			}
			h := link.Header{Type: link.Type(rng.Uint32()), Channel: byte(rng.Uint32()), Seq: uint16(rng.Uint32()), Clock: uint16(rng.Uint32())}
			switch h.Type {
			case link.TypePong, link.TypeAck:
				body = body[:min(len(body), 2)] // whole ones would rightly end the session
			case link.TypeEvent:
				if h.Channel < 2 {
					body = append([]byte{byte(0x40 + rng.UintN(64))}, body...) // no real event of a real phone
				}
			case link.TypePCM:
				if h.Channel < 2 && len(body) == 80 {
					body = body[:79]
				}
			}
			wire := link.AppendFrame(nil, h, body)
			if i%3 == 0 {
				wire[rng.UintN(uint(len(wire)))] ^= byte(1 + rng.UintN(255))
			}
			c.mu.Lock()
			c.out = append(append(c.out, wire...), 0)
			c.mu.Unlock()
			if i%20 == 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		before := frames.Load()
		r.quiet(g, time.Second)
		r.wantState("desk", "in call")
		if n := frames.Load() - before; n < 99 {
			t.Fatalf("%d frames of voice in a second", n)
		}
		if st := r.bank.Status()[0].Link; st.Bad < 1000 || st.Sessions != 1 {
			t.Fatalf("%+v", st)
		}
		c.Event(0, 0x02)
		want[call.Release](r, g, time.Second)
	})
}

func TestA38WrongDeviceIsNamedAndLeftInPeace(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(net.Conn)
		want   string
	}{
		"modem": {func(n net.Conn) {
			for _, err := n.Write([]byte("\r\nRING\r\nOK\x00\r\n\x00")); err == nil; _, err = n.Write([]byte("\r\nRING\r\n\x00")) {
				time.Sleep(100 * time.Millisecond)
			}
		}, "wrong device: octets, but no frame of a line card"},
		"loop":   {func(n net.Conn) { io.Copy(n, n) }, "our own frames come back"},
		"silent": {func(n net.Conn) { io.Copy(io.Discard, n) }, "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var opens atomic.Int64
				r := &rig{t: t, calls: make(chan call.Leg, 1)}
				b, err := New(Options{Box: testBox, Lines: []config.Line{fxsLine("desk", "card1", 0)},
					Cards:  []config.Card{{Name: "card1", Device: "pipe", Baud: 921600, Law: "alaw"}},
					Accept: func(g call.Leg) { r.calls <- g },
					Open: func(config.Card) (io.ReadWriteCloser, error) {
						opens.Add(1)
						host, far := net.Pipe()
						if name != "loop" && name != "silent" {
							go io.Copy(io.Discard, far)
						}
						go func() { c.answer(far); far.Close() }()
						return host, nil
					}})
				if err != nil {
					t.Fatal(err)
				}
				r.bank = b
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- b.Run(ctx) }()
				time.Sleep(4 * time.Second)
				if s := b.Status()[0]; s.LinkUp || !strings.HasPrefix(s.LinkFault, c.want) || s.State != "out of service" {
					t.Errorf("%+v", s)
				}
				g := r.dial("desk", "1", call.Party{})
				if rel := want[call.Release](r, g, time.Second); !rel.Cause.Is(call.DestinationDown) {
					t.Errorf("%+v", rel)
				}
				time.Sleep(20 * time.Second)
				if n := opens.Load(); n < 3 || n > 10 {
					t.Errorf("opened %d times in 24 s", n)
				}
				cancel()
				<-ended
				time.Sleep(time.Second) // the far ends see it
				if _, err := b.Dial(t.Context(), call.Target{Kind: call.ToLine, Name: "desk"}, call.Setup{}); err == nil {
					t.Error("a bank that has ended takes calls")
				}
			})
		})
	}
}

// TestA38GarbageBeforeTheCard: a card that starts with noise is found.
func TestA38GarbageBeforeTheCard(t *testing.T) {
	withDouble(t, analogtest.CardOptions{ToHost: analogtest.Impairment{Seed: 3, Chunk: 1}}, func(t *testing.T, d *double) {
		d.card.Garbage(10000)
		time.Sleep(2 * time.Second)
		d.wantState("desk", "idle")
		g := d.dial("desk", "10", call.Party{})
		want[call.Progress](d.rig, g, 3*time.Second)
	})
}
