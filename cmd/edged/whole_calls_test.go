package main

import (
	"math"
	"testing"
	"time"

	"localloop/internal/analog/analogtest"
	"localloop/internal/media/mediatest"
	"localloop/internal/sip/siptest"
)

// lifts lets a phone be lifted when it rings and speak.
func (r *wholeRig) lifts(channel int) *analogtest.Phone {
	p := r.card.Phone(channel)
	p.SetScript(analogtest.Script{AnswerRing: 1, Delay: 100 * time.Millisecond, SpeakHz: wholePhoneHz, SpeakDBm0: wholeLevel})
	return p
}

// dials lifts a phone, waits for dial tone, dials and speaks.
func (r *wholeRig) dials(channel int, number string) *analogtest.Phone {
	r.t.Helper()
	p := r.card.Phone(channel)
	p.SetScript(analogtest.Script{})
	ctx := r.within(wholePatience)
	p.Lift()
	r.must(p.WaitDialTone(ctx))
	r.must(p.Dial(number))
	r.must(p.WaitSaid(ctx))
	p.Speak(wholePhoneHz, wholeLevel)
	return p
}

// hangsUp replaces the receiver.
func (r *wholeRig) hangsUp(p *analogtest.Phone) {
	r.t.Helper()
	p.Speak(0, 0)
	p.HangUp()
	p.SetScript(analogtest.Script{})
	r.must(p.WaitOnHook(r.within(wholePatience)))
}

// says lets a party of a SIP call speak.
func says(c *siptest.Call, hz float64) { c.Media().Say(mediatest.Tone(hz, wholeLevel)) }

// hears waits until the party of a SIP call hears hz from now on.
func (r *wholeRig) hears(c *siptest.Call, hz float64) {
	r.t.Helper()
	if _, err := c.Media().WaitTone(r.within(wholePatience), hz, time.Now()); err != nil {
		r.t.Fatal(err)
	}
}

// phoneHears waits until hz begins or goes on at the phone from now on.
func (r *wholeRig) phoneHears(p *analogtest.Phone, hz float64) {
	r.t.Helper()
	from := time.Now()
	p.Watch(hz)
	r.until(wholePatience, p.Name()+" hears a tone", func() bool {
		at, ok := p.Log(hz).FirstAfter(from)
		if !ok {
			return false
		}
		last, _ := p.Log(hz).Last()
		return last.Sub(at) >= 60*time.Millisecond
	})
}

// place places a call of a Teams user and waits until it stands.
func (r *wholeRig) place(user, number string) *siptest.Call {
	r.t.Helper()
	c, err := r.teams.Place(r.within(wholePatience), user, wholeFQDN, number)
	r.must(err)
	r.must(c.WaitEstablished(r.within(wholePatience)))
	return c
}

// incoming waits for the next call at Teams, answered.
func (r *wholeRig) incoming() *siptest.Call {
	r.t.Helper()
	c, err := r.teams.Incoming(r.within(wholePatience))
	r.must(err)
	r.must(c.WaitEstablished(r.within(wholePatience)))
	return c
}

// bye ends a call from the double's side and waits until the box rests.
func (r *wholeRig) bye(c *siptest.Call) {
	r.t.Helper()
	r.must(c.Bye(r.within(wholePatience)))
}

// over waits until the box has ended the call, and returns the message.
func (r *wholeRig) over(c *siptest.Call) *siptest.Message {
	r.t.Helper()
	m, err := c.WaitEnded(r.within(wholePatience))
	r.must(err)
	return m
}

// path returns which way the voice of a call goes.
func path(c *siptest.Call) string {
	_, _, p := c.Media().Pair()
	return p
}

// wants fails unless the last record says so.
func (r *wholeRig) recorded(source, target, mediaPath string) {
	r.t.Helper()
	rec := r.lastRecord()
	if rec.Source != source || rec.Target != target || rec.MediaPath != mediaPath {
		r.t.Errorf("record %+v: want %s to %s by %q", rec, source, target, mediaPath)
	}
}

// TestWholeTeamsAndPhone: the address follows the user, C-127, C-128.
func TestWholeTeamsAndPhone(t *testing.T) {
	t.Parallel()
	r := newWhole(t)
	r.sub("internal user calls the phone by the LAN", func(t *testing.T) {
		p := r.lifts(0)
		c := r.place(wholeAnna, wholeReception)
		says(c, wholeTeamsHz)
		r.hears(c, wholePhoneHz)
		r.phoneHears(p, wholeTeamsHz)
		if path(c) != "lan" {
			t.Errorf("voice by %q", path(c))
		}
		// As loud as spoken, both ways: no gain is configured.
		from := time.Now()
		r.must(c.Media().WaitPackets(r.within(wholePatience), c.Media().Stats().Received+25))
		if share, level := mediatest.ToneShare(c.Media().Recording(from), wholePhoneHz); share < 0.9 || math.Abs(level-wholeLevel) > 1.5 {
			t.Errorf("Teams hears the phone at %.1f dBm0 (share %.2f), want %d", level, share, wholeLevel)
		}
		pcm := p.Recording()
		if level := analogtest.Level(pcm[max(0, len(pcm)-3200):]); math.Abs(level-wholeLevel) > 1.5 {
			t.Errorf("the phone hears Teams at %.1f dBm0, want %d", level, wholeLevel)
		}
		if n := c.Media().Stats().Paths["wan"]; n.Sent[mediatest.RTP]+n.Received[mediatest.RTP] != 0 {
			t.Errorf("RTP on the WAN: %+v", n)
		}
		r.bye(c)
		r.hangsUp(p)
		r.idle()
		r.recorded("teams", "reception", "lan")
	})
	r.sub("external user calls the phone by the cloud", func(t *testing.T) {
		p := r.lifts(0)
		c := r.place(wholeEmil, wholeReception)
		says(c, wholeTeamsHz)
		r.hears(c, wholePhoneHz)
		r.phoneHears(p, wholeTeamsHz)
		if path(c) != "wan" {
			t.Errorf("voice by %q", path(c))
		}
		r.hangsUp(p) // the called party hangs up first
		if m := r.over(c); m.Method != "BYE" {
			t.Errorf("ended by %s %d", m.Method, m.Status)
		}
		r.idle()
		r.recorded("teams", "reception", "cloud")
	})
	r.sub("phone calls internal and external users", func(t *testing.T) {
		for number, want := range map[string]string{"03055520": "lan", "03055530": "wan"} {
			p := r.dials(0, number)
			c := r.incoming()
			says(c, wholeTeamsHz)
			r.phoneHears(p, wholeTeamsHz)
			r.hears(c, wholePhoneHz)
			if path(c) != want {
				t.Errorf("%s: voice by %q, want %q", number, path(c), want)
			}
			r.hangsUp(p)
			if m := r.over(c); m.Method != "BYE" {
				t.Errorf("ended by %s %d", m.Method, m.Status)
			}
			r.idle()
		}
	})
}
