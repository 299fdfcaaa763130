package analog

import (
	"time"

	"localloop/internal/call"
	"localloop/internal/dsp"
)

// listen begins to listen on an FXO.
func (l *line) listen() {
	e := &ear{tones: dsp.NewDetector(l.plan)}
	stream := l.stream
	later := func(f func()) {
		l.card.post(func() {
			if l.stream == stream && stream != nil {
				f()
			}
		})
	}
	e.tone = func(t dsp.ToneEvent) {
		in, ok := toneInput(t)
		if ok {
			later(func() { l.feed(in) })
		}
	}
	if l.fxo.state == fxoBurst {
		l.caller = call.Party{} // one that came too late for its call is not this one's
		e.fsk = dsp.NewFSKReceiver()
		e.message = func(m []byte) {
			m = append([]byte(nil), m...)
			later(func() { l.callerID(m) })
		}
	}
	l.voice.listen(e.hear)
}

func toneInput(t dsp.ToneEvent) (input, bool) {
	if !t.On {
		return input{kind: inRingbackEnd}, t.Kind == dsp.RingbackTone
	}
	switch t.Kind {
	case dsp.DialTone:
		return input{kind: inDialTone}, true
	case dsp.RingbackTone:
		return input{kind: inRingback}, true
	case dsp.BusyTone:
		return input{kind: inBusy}, true
	case dsp.CongestionTone, dsp.SpecialTone:
		return input{kind: inCongest}, true
	}
	return input{}, false
}

// callerID takes a message heard on an FXO. A damaged one is no caller ID, A-23.
func (l *line) callerID(m []byte) {
	id, err := dsp.ParseCallerID(m, time.Now())
	if err != nil {
		l.log.Info("caller ID not usable", "error", err)
		return
	}
	l.caller = call.Party{Number: id.Number, Name: id.Name, Private: id.NumberAbsent == 'P'}
	l.feed(input{kind: inCallerID})
}
