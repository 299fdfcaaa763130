package analog

import (
	"sync/atomic"

	"localloop/internal/dsp"
)

// sounder plays a tone and hears nothing.
type sounder struct{ tone *dsp.Tone }

func (sounder) hear([]int16) {}
func (s sounder) speak(frame []int16) {
	if s.tone == nil {
		clear(frame)
		return
	}
	s.tone.Fill(frame)
}

// collector gives dial tone until the first digit and reports digits, A-1, A-2.
type collector struct {
	dial     *dsp.Tone
	receiver *dsp.DTMFReceiver
	digit    func(byte)
	report   func(dsp.DTMFEvent)
	quiet    atomic.Bool // a digit came by pulses
	stopped  bool
}

func newCollector(dial *dsp.Tone, digit func(byte)) *collector {
	c := &collector{dial: dial, receiver: dsp.NewDTMFReceiver(), digit: digit}
	c.report = func(e dsp.DTMFEvent) {
		if e.On {
			c.digit(e.Digit)
		}
	}
	c.receiver.DialTone(true)
	return c
}

func (c *collector) hear(frame []int16) {
	c.receiver.Feed(frame, c.report)
	if !c.stopped && (c.receiver.Present() || c.quiet.Load()) {
		c.stopped = true
		c.dial.Stop()
		c.receiver.DialTone(false)
	}
}

func (c *collector) speak(frame []int16) { c.dial.Fill(frame) }

// fskSender plays one caller-ID message as PCM.
type fskSender struct{ fsk *dsp.FSK }

func (fskSender) hear([]int16)          {}
func (f fskSender) speak(frame []int16) { f.fsk.Fill(frame) }

// dialler sends digits and says when it is through.
type dialler struct {
	sender *dsp.DTMFSender
	sent   func()
	done   bool
}

func (*dialler) hear([]int16) {}
func (d *dialler) speak(frame []int16) {
	if !d.sender.Fill(frame) && !d.done {
		d.done = true
		d.sent()
	}
}

// ear is what an FXO listens for: caller ID and progress tones.
type ear struct {
	fsk     *dsp.FSKReceiver
	tones   *dsp.Detector
	message func([]byte)
	tone    func(dsp.ToneEvent)
}

func (e *ear) hear(frame []int16) {
	if e.fsk != nil {
		e.fsk.Feed(frame, e.message)
	}
	e.tones.Feed(frame, e.tone)
}
