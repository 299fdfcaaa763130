package main

import (
	"localloop/internal/call"
	"localloop/internal/media"
	"localloop/internal/sdp"
)

// bridges opens voice for calls: the one seam between the columns CALLS and
// VOICE. It and bridge below translate names; they decide nothing.
type bridges struct{ engine *media.Engine }

func (b bridges) Open(callID string) (call.Bridge, error) {
	m, err := b.engine.Open(callID)
	if err != nil {
		return nil, err
	}
	br := &bridge{m: m, events: make(chan call.BridgeEvent), closing: make(chan struct{}), done: make(chan struct{})}
	go br.forward()
	return br, nil
}

// bridge is a media.Bridge in the words of package call.
type bridge struct {
	m       *media.Bridge
	events  chan call.BridgeEvent
	closing chan struct{} // closed by Close: nobody reads events any more
	done    chan struct{} // closed when forward has ended
}

var tones = map[call.Tone]media.Tone{
	call.NoTone:      media.NoTone,
	call.Ringback:    media.Ringback,
	call.Busy:        media.Busy,
	call.Congestion:  media.Congestion,
	call.Music:       media.Music,
	call.Unavailable: media.Unavailable,
}

func (b *bridge) Offered(leg string, offer *sdp.Description, p sdp.Profile) error {
	return b.m.Offered(leg, offer, p)
}
func (b *bridge) AnswerTo(leg string) (*sdp.Description, error) { return b.m.AnswerTo(leg) }
func (b *bridge) OfferTo(leg string, p sdp.Profile) (*sdp.Description, error) {
	return b.m.OfferTo(leg, p)
}
func (b *bridge) Answered(leg string, answer *sdp.Description) error {
	return b.m.Answered(leg, answer)
}
func (b *bridge) Confirm(leg string)           { b.m.Confirm(leg) }
func (b *bridge) Join(x, y string) error       { return b.m.Join(x, y) }
func (b *bridge) Play(leg string, t call.Tone) { b.m.Play(leg, tones[t]) }
func (b *bridge) Digit(leg string, d call.Digit) {
	b.m.Digit(leg, media.Digit{Digit: d.Digit, Duration: d.Duration})
}
func (b *bridge) Hold(leg string, on bool)        { b.m.Hold(leg, on) }
func (b *bridge) Drop(leg string)                 { b.m.Drop(leg) }
func (b *bridge) Events() <-chan call.BridgeEvent { return b.events }

// forward translates events until the voice is closed.
func (b *bridge) forward() {
	defer close(b.done)
	defer close(b.events)
	for ev := range b.m.Events() {
		var out call.BridgeEvent
		switch ev := ev.(type) {
		case media.VoiceDead:
			out = call.VoiceDead(ev)
		case media.VoiceAlive:
			out = call.VoiceAlive(ev)
		case media.DigitHeard:
			out = call.DigitHeard{Leg: ev.Leg, Digit: call.Digit(ev.Digit)}
		default:
			continue
		}
		select {
		case b.events <- out:
		case <-b.closing:
		}
	}
}

// Close ends the voice and returns what was measured.
func (b *bridge) Close() call.Report {
	close(b.closing)
	measured := b.m.Close()
	<-b.done
	var r call.Report
	for _, l := range measured.Legs {
		leg := call.LegReport{
			Leg: l.Leg, Realm: l.Realm, MediaPath: l.MediaPath, Local: l.Local, Remote: l.Remote, Pair: l.Pair, Codec: l.Codec,
			Sent: l.Sent, Received: l.Received, Lost: l.Lost, Late: l.Late, Rejected: l.Rejected,
			Jitter: l.Jitter, RoundTrip: l.RoundTrip, MOS: l.MOS, Gap: l.Gap,
		}
		for _, m := range l.Moves {
			leg.Moves = append(leg.Moves, call.Move(m))
		}
		r.Legs = append(r.Legs, leg)
	}
	return r
}
