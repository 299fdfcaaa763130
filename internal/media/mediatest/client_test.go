package mediatest

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// liveness is a deadline that only a hang exceeds.
func liveness(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func loopback(n byte) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, n}) }

func start(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func negotiate(t *testing.T, caller, callee *Client) {
	t.Helper()
	offer, err := caller.Offer()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := callee.Answer(offer)
	if err != nil {
		t.Fatalf("%v in\n%s", err, offer)
	}
	if err := caller.Accept(answer); err != nil {
		t.Fatalf("%v in\n%s", err, answer)
	}
}

func hear(t *testing.T, c *Client, hz float64, since time.Time) {
	t.Helper()
	if _, err := c.WaitTone(liveness(t), hz, since); err != nil {
		t.Fatal(err)
	}
}

func TestToneArrivesInBothDirections(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, law := range []Law{ALaw, MuLaw} {
			a := start(t, Config{Name: "a", Paths: []Path{{Name: "lan", Local: loopback(1)}}, Secure: secure, Laws: []Law{law}, DSCP: 46})
			b := start(t, Config{Name: "b", Paths: []Path{{Name: "lan", Local: loopback(2)}}, Secure: secure, RTCPEvery: 30 * time.Millisecond})
			negotiate(t, a, b)
			began := time.Now()
			a.Say(Tone(700, -10))
			b.Say(Tone(1100, -10))
			hear(t, b, 700, began)
			hear(t, a, 1100, began)
			if a.Hears(700, time.Minute) {
				t.Error("a hears its own tone")
			}
			if err := a.WaitReports(liveness(t), 2); err != nil {
				t.Error(err)
			}
			n := b.Stats().Paths["lan"]
			if n.DSCP[RTP][46] == 0 || n.DSCP[RTP][0] != 0 {
				t.Errorf("secure %v: DSCP of received RTP: %v", secure, n.DSCP[RTP])
			}
			if st := b.Stats(); st.Unauthentic != 0 || st.Unknown != 0 || st.Lost != 0 {
				t.Errorf("secure %v: %+v", secure, st)
			}
		}
	}
}

func TestWrongKeyIsHeardAsNothing(t *testing.T) {
	a := start(t, Config{Name: "a", Paths: []Path{{Name: "lan", Local: loopback(1)}}, Secure: true})
	b := start(t, Config{Name: "b", Paths: []Path{{Name: "lan", Local: loopback(2)}}, Secure: true})
	offer, _ := a.Offer()
	answer, err := b.Answer(offer)
	if err != nil {
		t.Fatal(err)
	}
	d, err := ParseDescription(answer)
	if err != nil {
		t.Fatal(err)
	}
	d.Crypto[0].Key = newKey()
	if err := a.Accept(d.Text(false)); err != nil {
		t.Fatal(err)
	}
	b.Say(Tone(700, -10))
	if err := a.wait(liveness(t), "packets that do not verify", func() bool { return a.receiver.unauthentic >= 10 }); err != nil {
		t.Fatal(err)
	}
	if st := a.Stats(); st.Received != 0 || a.Hears(700, time.Minute) {
		t.Errorf("%d packets accepted under the wrong key", st.Received)
	}
}

func TestDigitsArriveAsEvents(t *testing.T) {
	a := start(t, Config{Name: "a", Paths: []Path{{Name: "lan", Local: loopback(1)}}})
	b := start(t, Config{Name: "b", Paths: []Path{{Name: "lan", Local: loopback(2)}}})
	negotiate(t, a, b)
	a.Say(Tone(700, -10))
	a.Dial("19*#d", 60*time.Millisecond)
	if err := b.WaitDigits(liveness(t), "19*#D"); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitDialled(liveness(t)); err != nil {
		t.Fatal(err)
	}
	digits := b.Digits()
	if len(digits) != 5 {
		t.Errorf("%d digits heard: repeated end packets must not count", len(digits))
	}
	for _, d := range digits {
		if d.Duration != 60*time.Millisecond {
			t.Errorf("digit %c lasted %v, sent 60 ms", d.Digit, d.Duration)
		}
	}
}

func TestSilenceIsSparseComfortNoise(t *testing.T) {
	a := start(t, Config{Name: "a", Paths: []Path{{Name: "lan", Local: loopback(1)}}})
	b := start(t, Config{Name: "b", Paths: []Path{{Name: "lan", Local: loopback(2)}}})
	negotiate(t, a, b)
	a.Silence()
	ctx := liveness(t)
	if err := b.wait(ctx, "comfort noise", func() bool { return b.receiver.noise >= 2 }); err != nil {
		t.Fatal(err)
	}
	if st := b.Stats(); st.Received != st.Noise {
		t.Errorf("%d packets, %d of them noise", st.Received, st.Noise)
	}
}

func TestOffersThatCannotBeUsedAreRejected(t *testing.T) {
	c := start(t, Config{Name: "c", Paths: []Path{{Name: "lan", Local: loopback(1)}}, Secure: true})
	base := "v=0\r\no=- 1 1 IN IP4 127.0.0.9\r\ns=-\r\nc=IN IP4 127.0.0.9\r\nt=0 0\r\n"
	key := "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:pmHzZjoTqRvX0CjXkZdvcb21c3W0d03FyNMiVMiU|2^31\r\n"
	for name, text := range map[string]string{
		"plain RTP":          base + "m=audio 4000 RTP/AVP 8\r\n",
		"no key":             base + "m=audio 4000 RTP/SAVP 8\r\n",
		"no codec":           base + "m=audio 4000 RTP/SAVP 18\r\n" + key,
		"payload type twice": base + "m=audio 4000 RTP/SAVP 8 8\r\n" + key,
		"no audio":           base + "m=video 4000 RTP/SAVP 8\r\n" + key,
		"empty":              "",
	} {
		if _, err := c.Answer([]byte(text)); !errors.Is(err, ErrRejected) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVersionRisesOnlyWithChange(t *testing.T) {
	c := start(t, Config{Name: "c", Paths: []Path{{Name: "lan", Local: loopback(1)}}, Secure: true, Teams: true, ICE: true})
	first, _ := c.Offer()
	second, _ := c.Offer()
	if string(first) != string(second) {
		t.Error("an offer without change differs from the one before")
	}
	third, err := c.Reoffer(Reoffer{Restart: true})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := ParseDescription(first)
	b, _ := ParseDescription(third)
	if b.Version != a.Version+1 {
		t.Errorf("version %d after %d", b.Version, a.Version)
	}
	if a.Ufrag == b.Ufrag || a.Pwd == b.Pwd {
		t.Error("restart kept ufrag or pwd")
	}
}

func TestImpairedPathLosesAndCorrupts(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	bad := Impairment{Loss: 0.3, Corrupt: 0.2, Delay: time.Millisecond, Jitter: 2 * time.Millisecond}
	a := start(t, Config{Name: "a", Paths: []Path{{Name: "lan", Local: loopback(1), Impair: bad}}, Secure: true, Seed: seed})
	b := start(t, Config{Name: "b", Paths: []Path{{Name: "lan", Local: loopback(2)}}, Secure: true})
	negotiate(t, a, b)
	a.Say(Tone(700, -10))
	if err := b.WaitPackets(liveness(t), 40); err != nil {
		t.Fatal(err)
	}
	st := b.Stats()
	if st.Lost == 0 || st.Unauthentic == 0 {
		t.Errorf("lost %d, not authentic %d", st.Lost, st.Unauthentic)
	}
}

func TestCutPathIsSilentAndRestoredPathSpeaks(t *testing.T) {
	a := start(t, Config{Name: "a", Paths: []Path{{Name: "lan", Local: loopback(1)}}})
	b := start(t, Config{Name: "b", Paths: []Path{{Name: "lan", Local: loopback(2)}}})
	negotiate(t, a, b)
	a.Say(Tone(700, -10))
	hear(t, b, 700, time.Now())
	a.Cut("lan")
	sent := a.Stats().Paths["lan"].Sent[RTP]
	ctx := liveness(t)
	for a.Stats().Paths["lan"].Dropped < 10 {
		if ctx.Err() != nil {
			t.Fatal("cut path drops nothing")
		}
		if err := a.waitFrame(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n := a.Stats().Paths["lan"].Sent[RTP]; n > sent+1 {
		t.Errorf("%d packets left by the cut path", n-sent)
	}
	restored := time.Now()
	a.Restore("lan")
	hear(t, b, 700, restored)
	if g := b.ToneGap(700, restored.Add(-time.Second)); g.Length() < 150*time.Millisecond {
		t.Errorf("gap of %v after ten lost frames", g.Length())
	}
}

// waitFrame waits about one frame without a wall clock assertion.
func (c *Client) waitFrame(ctx context.Context) error {
	tick := time.NewTicker(frameTime)
	defer tick.Stop()
	select {
	case <-tick.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
