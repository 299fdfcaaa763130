package main

import (
	"strings"
	"testing"
	"time"

	"localloop/internal/analog/analogtest"
	"localloop/internal/media/mediatest"
	"localloop/internal/sip/siptest"
)

// The three kinds of leg meet each other in every pair.
func TestWholeTrunksPhonesAndTeams(t *testing.T) {
	t.Parallel()
	r := newWhole(t)
	peers := []struct {
		name, number string
		peer         *siptest.Peer
	}{{"carrier", wholeCarrier, r.carrier}, {"pbx", wholePBX, r.pbx}, {"secure", wholeSecure, r.secure}}
	for _, p := range peers {
		r.sub(p.name+" calls the phone", func(t *testing.T) {
			phone := r.lifts(0)
			c, err := p.peer.Place(r.within(wholePatience), "+4989555", wholeReception)
			r.must(err)
			r.must(c.WaitEstablished(r.within(wholePatience)))
			says(c, wholePeerHz)
			r.hears(c, wholePhoneHz)
			r.phoneHears(phone, wholePeerHz)
			r.bye(c)
			r.hangsUp(phone)
			r.idle()
			if rec := r.lastRecord(); rec.Source != p.name || rec.Target != "reception" {
				t.Errorf("record %+v", rec)
			}
		})
		r.sub("phone calls "+p.name, func(t *testing.T) {
			phone := r.dials(1, "0"+strings.TrimPrefix(p.number, "+49"))
			c, err := p.peer.Incoming(r.within(wholePatience))
			r.must(err)
			r.must(c.WaitEstablished(r.within(wholePatience)))
			says(c, wholePeerHz)
			r.hears(c, wholePhoneHz)
			r.phoneHears(phone, wholePeerHz)
			r.hangsUp(phone)
			if m := r.over(c); m.Method != "BYE" {
				t.Errorf("ended by %s %d", m.Method, m.Status)
			}
			r.idle()
		})
		r.sub("Teams calls "+p.name, func(t *testing.T) {
			a := r.place(wholeAnna, p.number)
			b, err := p.peer.Incoming(r.within(wholePatience))
			r.must(err)
			r.must(b.WaitEstablished(r.within(wholePatience)))
			says(a, wholeTeamsHz)
			says(b, wholePeerHz)
			r.hears(a, wholePeerHz)
			r.hears(b, wholeTeamsHz)
			r.bye(b)
			if m := r.over(a); m.Method != "BYE" {
				t.Errorf("ended by %s %d", m.Method, m.Status)
			}
			r.idle()
			if rec := r.lastRecord(); rec.Source != "teams" || rec.Target != p.name {
				t.Errorf("record %+v", rec)
			}
		})
		r.sub(p.name+" calls Teams", func(t *testing.T) {
			a, err := p.peer.Place(r.within(wholePatience), "+4989555", wholeAnna)
			r.must(err)
			b := r.incoming()
			r.must(a.WaitEstablished(r.within(wholePatience)))
			says(a, wholePeerHz)
			says(b, wholeTeamsHz)
			r.hears(a, wholeTeamsHz)
			r.hears(b, wholePeerHz)
			// Digits cross as RFC 4733 events.
			b.Media().Dial("42", 100*time.Millisecond)
			r.must(a.Media().WaitDigits(r.within(wholePatience), "42"))
			a.Media().Dial("7#", 100*time.Millisecond)
			r.must(b.Media().WaitDigits(r.within(wholePatience), "7#"))
			r.bye(a)
			if m := r.over(b); m.Method != "BYE" {
				t.Errorf("ended by %s %d", m.Method, m.Status)
			}
			r.idle()
		})
	}
}

func TestWholeExchangeLine(t *testing.T) {
	t.Parallel()
	r := newWhole(t)
	x := r.card.Exchange(2)
	r.sub("Teams seizes the line, dials and speaks", func(t *testing.T) {
		c := r.place(wholeAnna, wholeOutside)
		says(c, wholeTeamsHz)
		number, err := x.WaitNumber(r.within(wholePatience), 0)
		r.must(err)
		if number != "0307770"+"00" && number != "777000" {
			t.Errorf("dialled %q", number)
		}
		r.must(x.WaitTone(r.within(wholePatience), wholeTeamsHz))
		r.hears(c, wholeExchangeHz)
		// Digits of the Teams user reach the exchange as tones.
		for _, hz := range []float64{770, 1336} {
			x.Watch(hz)
		}
		says(c, 0)
		c.Media().Dial("5", 200*time.Millisecond)
		r.until(wholePatience, "the exchange hears the digit 5", func() bool {
			return x.Log(770).Audible() >= 80*time.Millisecond && x.Log(1336).Audible() >= 80*time.Millisecond
		})
		r.bye(c)
		r.must(x.WaitState(r.within(wholePatience), analogtest.ExIdle))
		r.idle()
		r.recorded("teams", "exchange", "lan")
	})
	r.sub("the far end of the exchange hangs up", func(t *testing.T) {
		c := r.place(wholeAnna, wholeOutside)
		r.hears(c, wholeExchangeHz)
		x.Clear()
		if m := r.over(c); m.Method != "BYE" {
			t.Errorf("ended by %s %d", m.Method, m.Status)
		}
		r.must(x.WaitState(r.within(wholePatience), analogtest.ExIdle))
		r.idle()
	})
	r.sub("a number that is busy", func(t *testing.T) {
		c, err := r.teams.Place(r.within(wholePatience), wholeAnna, wholeFQDN, "+4930777009")
		r.must(err)
		if m := r.over(c); m.Status != 486 {
			t.Errorf("ended by %s %d %s", m.Method, m.Status, m.Get("Reason"))
		}
		r.idle()
	})
	r.sub("a call from the exchange rings the phone", func(t *testing.T) {
		p := r.lifts(0)
		r.must(x.Ring(&analogtest.CallerID{Number: "03012345"}, analogtest.Destination{SpeakHz: wholeExchangeHz, SpeakDBm0: wholeLevel}))
		r.must(p.WaitOffHook(r.within(wholePatience)))
		r.phoneHears(p, wholeExchangeHz)
		r.must(x.WaitTone(r.within(wholePatience), wholePhoneHz))
		r.hangsUp(p)
		r.must(x.WaitState(r.within(wholePatience), analogtest.ExIdle))
		r.idle()
		if rec := r.lastRecord(); rec.Source != "exchange" || rec.Target != "reception" {
			t.Errorf("record %+v", rec)
		}
	})
	r.sub("a call from the exchange rings a Teams user", func(t *testing.T) {
		x := r.card.Exchange(3)
		r.must(x.Ring(&analogtest.CallerID{Number: "03012345"}, analogtest.Destination{SpeakHz: wholeExchangeHz, SpeakDBm0: wholeLevel}))
		c := r.incoming()
		says(c, wholeTeamsHz)
		r.hears(c, wholeExchangeHz)
		r.must(x.WaitTone(r.within(wholePatience), wholeTeamsHz))
		r.bye(c)
		r.must(x.WaitState(r.within(wholePatience), analogtest.ExIdle))
		r.idle()
		if rec := r.lastRecord(); rec.Source != "exchange2" || rec.Target != "teams" || !strings.Contains(rec.Calling, "12345") {
			t.Errorf("record %+v", rec)
		}
	})
	r.sub("the caller of the exchange gives up", func(t *testing.T) {
		p := r.card.Phone(0)
		p.SetScript(analogtest.Script{})
		r.must(x.Ring(nil, analogtest.Destination{}))
		r.must(p.WaitRing(r.within(wholePatience)))
		x.StopRing()
		r.must(p.WaitQuiet(r.within(wholePatience), 5500*time.Millisecond))
		r.idle()
	})
}

func TestWholeCallsThatAreNotAnswered(t *testing.T) {
	t.Parallel()
	r := newWhole(t)
	r.sub("phone is busy", func(t *testing.T) {
		p := r.card.Phone(0)
		p.SetScript(analogtest.Script{})
		p.Lift()
		r.must(p.WaitDialTone(r.within(wholePatience)))
		c, err := r.teams.Place(r.within(wholePatience), wholeAnna, wholeFQDN, wholeReception)
		r.must(err)
		if m := r.over(c); m.Status != 486 {
			t.Errorf("%d %s", m.Status, m.Get("Reason"))
		}
		r.hangsUp(p)
		r.idle()
	})
	r.sub("Teams user is busy", func(t *testing.T) {
		p := r.dials(0, "03055550")
		p.Speak(0, 0)
		c, err := r.teams.Incoming(r.within(wholePatience))
		r.must(err)
		if m := r.over(c); m.Status != 486 {
			t.Errorf("%d", m.Status)
		}
		r.must(p.WaitProgress(r.within(wholePatience), analogtest.BusyTone))
		r.hangsUp(p)
		r.idle()
	})
	r.sub("nobody answers the phone", func(t *testing.T) {
		r.card.Phone(1).SetScript(analogtest.Script{})
		c, err := r.teams.Place(r.within(wholePatience), wholeAnna, wholeFQDN, wholeWorkshop)
		r.must(err)
		r.must(r.card.Phone(1).WaitRing(r.within(wholePatience)))
		if m := r.over(c); m.Status != 480 {
			t.Errorf("%d %s", m.Status, m.Get("Reason"))
		}
		r.must(r.card.Phone(1).WaitQuiet(r.within(wholePatience), 5500*time.Millisecond))
		r.idle()
	})
	r.sub("Teams gives up while the phone rings", func(t *testing.T) {
		p := r.card.Phone(0)
		p.SetScript(analogtest.Script{})
		c, err := r.teams.Place(r.within(wholePatience), wholeAnna, wholeFQDN, wholeReception)
		r.must(err)
		r.must(p.WaitRing(r.within(wholePatience)))
		m, err := c.Cancel(r.within(wholePatience))
		r.must(err)
		if m.Status != 487 {
			t.Errorf("%d", m.Status)
		}
		r.idle()
		r.must(p.WaitQuiet(r.within(wholePatience), 5500*time.Millisecond))
	})
	r.sub("the phone gives up while Teams rings", func(t *testing.T) {
		p := r.dials(0, "03055540")
		c, err := r.teams.Incoming(r.within(wholePatience))
		r.must(err)
		r.must(c.Ring())
		p.Speak(0, 0)
		r.must(p.WaitProgress(r.within(wholePatience), analogtest.RingbackTone))
		r.hangsUp(p)
		if m := r.over(c); m.Method != "CANCEL" {
			t.Errorf("ended by %s %d", m.Method, m.Status)
		}
		r.idle()
	})
	r.sub("a number that does not exist", func(t *testing.T) {
		p := r.dials(0, "03055599")
		p.Speak(0, 0)
		r.until(wholePatience, "a tone of refusal", func() bool {
			h := p.Snapshot().Hears.Progress
			return h == analogtest.CongestionTone || h == analogtest.BusyTone
		})
		r.hangsUp(p)
		r.idle()
	})
}

// watchDTMF follows the eight frequencies of digits (ITU-T Q.23).
func watchDTMF(watch func(float64)) {
	for _, hz := range []float64{697, 770, 852, 941, 1209, 1336, 1477, 1633} {
		watch(hz)
	}
}

func TestWholeInTheCall(t *testing.T) {
	t.Parallel()
	r := newWhole(t)
	p := r.lifts(0)
	c := r.place(wholeAnna, wholeReception)
	says(c, wholeTeamsHz)
	r.hears(c, wholePhoneHz)
	r.phoneHears(p, wholeTeamsHz)

	r.sub("digits from Teams are tones at the phone", func(t *testing.T) {
		watchDTMF(p.Watch)
		c.Media().Say(nil)
		c.Media().Dial("159", 200*time.Millisecond)
		for digit, hz := range map[string][2]float64{"1": {697, 1209}, "5": {770, 1336}, "9": {852, 1477}} {
			r.until(wholePatience, "the phone hears the digit "+digit, func() bool {
				return p.Log(hz[0]).Audible() >= 100*time.Millisecond && p.Log(hz[1]).Audible() >= 100*time.Millisecond
			})
		}
		says(c, wholeTeamsHz)
	})
	r.sub("digits from the phone are events at Teams", func(t *testing.T) {
		p.Speak(0, 0)
		r.must(p.Dial("6#"))
		r.must(c.Media().WaitDigits(r.within(wholePatience), "6#"))
		p.Speak(wholePhoneHz, wholeLevel)
		r.hears(c, wholePhoneHz)
	})
	r.sub("hold and resume", func(t *testing.T) {
		resp, err := c.Reinvite(r.within(wholePatience), mediatest.Reoffer{Direction: "inactive"})
		r.must(err)
		if d, err := mediatest.ParseDescription(resp.Body); err != nil || d.Direction != "inactive" {
			t.Errorf("answer %d: %v %v", resp.Status, d.Direction, err)
		}
		r.must(p.WaitNoTone(r.within(wholePatience), wholeTeamsHz))
		// The party that waits hears that it waits.
		r.until(wholePatience, "the held phone hears something", func() bool { return p.Snapshot().Hears.DBm0 > -40 })
		held := c.Media().Stats().Sent
		resp, err = c.Reinvite(r.within(wholePatience), mediatest.Reoffer{})
		r.must(err)
		if d, err := mediatest.ParseDescription(resp.Body); err != nil || d.Direction != "sendrecv" && d.Direction != "" {
			t.Errorf("answer %d: %v %v", resp.Status, d.Direction, err)
		}
		r.phoneHears(p, wholeTeamsHz)
		r.hears(c, wholePhoneHz)
		if c.Media().Stats().Sent == held {
			t.Error("Teams sent nothing after the hold")
		}
	})
	r.sub("ICE restart by Teams", func(t *testing.T) {
		before := c.Media().Remote()
		resp, err := c.Reinvite(r.within(wholePatience), mediatest.Reoffer{Restart: true, Rekey: true})
		r.must(err)
		if resp.Status != 200 {
			t.Fatalf("%d", resp.Status)
		}
		after := c.Media().Remote()
		if before.Ufrag == after.Ufrag || before.Pwd == after.Pwd {
			t.Error("C-117: the answer to an ICE restart has the old credentials")
		}
		r.must(c.Media().WaitConnected(r.within(wholePatience)))
		r.hears(c, wholePhoneHz)
		r.phoneHears(p, wholeTeamsHz)
		if path(c) != "lan" {
			t.Errorf("voice by %q", path(c))
		}
	})
	r.bye(c)
	r.hangsUp(p)
	r.idle()
}

// C-144: while the LAN is broken new calls are refused, so that Teams takes its
// other trunk; the running call moves.
func TestC144WholeLANCutInMidCall(t *testing.T) {
	t.Parallel()
	r := newWhole(t, wholeRefuseFor(12*time.Second))
	p := r.lifts(0)
	c := r.place(wholeAnna, wholeReception)
	says(c, wholeTeamsHz)
	r.hears(c, wholePhoneHz)
	r.phoneHears(p, wholeTeamsHz)
	mark := len(c.Events())
	c.Media().Cut("lan")
	offer, _, err := c.AwaitRequest(r.within(wholePatience), mark, "INVITE")
	r.must(err)
	d, err := mediatest.ParseDescription(offer.Message.Body)
	r.must(err)
	if len(d.Candidates) != 1 || d.Candidates[0].Addr.Addr() != r.wan {
		t.Errorf("restart with candidates %+v, want only %v", d.Candidates, r.wan)
	}
	_, err = c.Media().WaitTone(r.within(wholePatience), wholePhoneHz, offer.At)
	r.must(err)
	r.phoneHears(p, wholeTeamsHz)
	if path(c) != "wan" {
		t.Errorf("voice by %q", path(c))
	}
	r.sub("new calls get 503", func(t *testing.T) {
		second, err := r.teams.Place(r.within(wholePatience), wholeEmil, wholeFQDN, wholeWorkshop)
		r.must(err)
		m := r.over(second)
		if m.Status != 503 || m.Get("Retry-After") == "" {
			t.Errorf("%d %q", m.Status, m.Get("Retry-After"))
		}
		if r.trunk("teams").Refusing == "" {
			t.Error("the status does not say that calls are refused")
		}
	})
	r.sub("the client's confirming re-INVITE leaves the call in the cloud", func(t *testing.T) {
		// RFC 8839 §4.4.1.2.2; the headers still say that the user is in the building.
		resp, err := c.Reinvite(r.within(wholePatience), mediatest.Reoffer{Confirm: true})
		r.must(err)
		d, err := mediatest.ParseDescription(resp.Body)
		r.must(err)
		if len(d.Candidates) != 1 || d.Candidates[0].Addr.Addr() != r.wan {
			t.Errorf("answer with candidates %+v, want only %v", d.Candidates, r.wan)
		}
		from := time.Now()
		r.hears(c, wholePhoneHz)
		r.phoneHears(p, wholeTeamsHz)
		r.until(wholePatience, "three seconds of voice after it", func() bool {
			last, _ := p.Log(wholeTeamsHz).Last()
			return last.Sub(from) > 3*time.Second || !c.Established()
		})
		if !c.Established() || path(c) != "wan" {
			t.Errorf("established %v, voice by %q", c.Established(), path(c))
		}
	})
	r.sub("after a while calls are taken again", func(t *testing.T) {
		r.until(wholePatience, "the trunk takes calls", func() bool { return r.trunk("teams").Refusing == "" })
		q := r.lifts(1)
		second := r.place(wholeEmil, wholeWorkshop)
		r.hears(second, wholePhoneHz)
		r.bye(second)
		r.hangsUp(q)
	})
	r.bye(c)
	r.hangsUp(p)
	r.idle()
	for _, rec := range r.status().Last {
		if rec.Calling == wholeAnna && (rec.Moves != 1 || rec.MediaPath != "cloud") {
			t.Errorf("record %+v", rec)
		}
	}
}
