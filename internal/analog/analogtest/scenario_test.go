package analogtest

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestScenarioOfBothDirections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h, stop := bench(t, CardOptions{Channels: []Channel{
			{Kind: FXS, Phone: PhoneOptions{Name: "reception", Watch: []float64{1004}}},
			{Kind: FXO, Exchange: ExchangeOptions{Name: "city"}}}})
		defer stop()
		p := c.Phone(0)
		us, _ := PlanOf("us")
		s := h.start(0, MuLaw, 10, newPlayer(us.Dial, 0, -16))
		if err := p.Place(limit(t), "200"); err != nil {
			t.Fatal(err)
		}
		h.mu.Lock()
		var got string
		var r dtmfReceiver
		r.feed(append(s.heard, make([]int16, 400)...), func(d byte) { got += string(d) })
		s.tone = newPlayer(Cadence{{Hz: []float64{1004}}}, 0, -16)
		h.mu.Unlock()
		if got != "200" {
			t.Errorf("dialled %q", got)
		}
		if err := p.WaitTone(limit(t), 1004); err != nil {
			t.Fatal(err)
		}
		from := time.Now()
		time.Sleep(time.Second)
		h.mu.Lock()
		s.tone = nil
		h.mu.Unlock()
		time.Sleep(300 * time.Millisecond)
		h.mu.Lock()
		s.tone = newPlayer(Cadence{{Hz: []float64{1004}}}, 0, -16)
		h.mu.Unlock()
		time.Sleep(time.Second)
		v := p.Log(1004).Voice(from, time.Time{})
		if !v.Heard || v.Gaps != 1 || (v.Longest.Lasts()-300*time.Millisecond).Abs() > 30*time.Millisecond {
			t.Errorf("voice %+v", v)
		}
		if view := c.View(); !strings.Contains(view, "reception: off-hook, hears steady tone 1004 Hz") || !strings.Contains(view, "city: idle") {
			t.Errorf("view:\n%s", view)
		}
		if err := p.End(limit(t)); err != nil {
			t.Fatal(err)
		}
		h.event(0, evOnHook)
		h.must(tCmd, 0, ringUS...)
		if err := p.Take(limit(t), 2, 700); err != nil {
			t.Fatal(err)
		}
		h.wait("his voice", func() bool { return audible(s.heard[len(s.heard)-320:], 700) })
	})
}

func TestViewOfAnUnpluggedCard(t *testing.T) {
	c, err := New(CardOptions{Channels: fxs(1)})
	if err != nil {
		t.Fatal(err)
	}
	if v := c.View(); !strings.Contains(v, "unplugged") || !strings.Contains(v, "phone 0: on-hook") {
		t.Errorf("view:\n%s", v)
	}
	for _, o := range []CardOptions{{}, {Channels: fxs(25)}, {Channels: fxs(1), FrameMS: []int{30}}, {Channels: []Channel{{Kind: 7}}}} {
		if _, err := New(o); err == nil {
			t.Errorf("accepted %+v", o)
		}
	}
}
