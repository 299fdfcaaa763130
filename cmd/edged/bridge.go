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
	br := &bridge{m: m, events: make(chan call.BridgeEvent)}
	go br.forward()
	return br, nil
}

// bridge is a media.Bridge in the words of package call.
type bridge struct {
	m      *media.Bridge
	events chan call.BridgeEvent
	closed chan struct{}
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
func (b *bridge) Answered(leg string, answer *sdp.Description) error { return b.m.Answered(leg, answer) }
func (b *bridge) Join(x, y string) error                             { return b.m.Join(x, y) }
func (b *bridge) Play(leg string, t call.Tone)                       { b.m.Play(leg, tones[t]) }
func (b *bridge) Digit(leg string, d call.Digit) {
	b.m.Digit(leg, media.Digit{Digit: d.Digit, Duration: d.Duration})
}
func (b *bridge) Hold(leg string, on bool)         { b.m.Hold(leg, on) }
func (b *bridge) Drop(leg string)                  { b.m.Drop(leg) }
func (b *bridge) Events() <-chan call.BridgeEvent  { return b.events }
