package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"localloop/internal/analog/analogtest"
)

// Numbers of the branch's lines.
const (
	receptionNumber = "+493055510"
	workshopNumber  = "+493055511"
)

// The phone says phoneHz, Teams users say teamsHz: no DTMF, no progress tone, no
// fax tone, and no harmonic of each other.
const (
	phoneHz = 620
	teamsHz = 1010
	// phoneLevel and teamsLevel are levels of speech, dBm0.
	phoneLevel = -14
	teamsLevel = -14
)

// lineCard is the card with what hangs on it, reduced to what the standard calls do.
type lineCard struct{ card *analogtest.Card }

func newLineCard(path string, log *slog.Logger) (*lineCard, error) {
	phone := func(name string) analogtest.Channel {
		return analogtest.Channel{Kind: analogtest.FXS, Phone: analogtest.PhoneOptions{Name: name, Country: "de", Watch: []float64{teamsHz}}}
	}
	card, err := analogtest.New(analogtest.CardOptions{
		Link: path,
		Channels: []analogtest.Channel{phone("reception"), phone("workshop"),
			{Kind: analogtest.FXO, Exchange: analogtest.ExchangeOptions{Name: "exchange", Country: "de"}}},
		Observe: func(e analogtest.Event) { log.Debug(e.What, "channel", e.Channel) },
	})
	if err != nil {
		return nil, fmt.Errorf("line card: %w", err)
	}
	return &lineCard{card}, nil
}

func (c *lineCard) run(ctx context.Context) error { return c.card.Run(ctx) }

func (c *lineCard) linked(ctx context.Context) error { return c.card.WaitReady(ctx) }

func (c *lineCard) phone() *analogtest.Phone { return c.card.Phone(0) }

// answers lets the reception phone be lifted at the first burst of the bell and
// speak.
func (c *lineCard) answers() {
	c.phone().SetScript(analogtest.Script{AnswerRing: 1, Delay: 300 * time.Millisecond, SpeakHz: phoneHz, SpeakDBm0: phoneLevel})
}

// dials lets the reception phone call a number and speak; hung up by hangUp.
func (c *lineCard) dials(ctx context.Context, number string) error {
	p := c.phone()
	p.SetScript(analogtest.Script{})
	p.Lift()
	if err := p.WaitDialTone(ctx); err != nil {
		return fmt.Errorf("phone: no dial tone: %w", err)
	}
	if err := p.Dial(number); err != nil {
		return err
	}
	if err := p.WaitSaid(ctx); err != nil {
		return err
	}
	p.Speak(phoneHz, phoneLevel)
	return nil
}

// hears waits until the phone hears the Teams user.
func (c *lineCard) hears(ctx context.Context) error {
	if err := c.phone().WaitTone(ctx, teamsHz); err != nil {
		return fmt.Errorf("phone does not hear %d Hz: %w", teamsHz, err)
	}
	return nil
}

// gap returns the silence at the phone that began at or was not over at cut.
func (c *lineCard) gap(cut time.Time) time.Duration {
	g, ok := c.phone().Log(teamsHz).GapAfter(cut, 60*time.Millisecond)
	if !ok {
		return 0
	}
	return g.To.Sub(cut)
}

func (c *lineCard) hangUp(ctx context.Context) error {
	c.phone().Speak(0, 0)
	c.phone().HangUp()
	return c.phone().WaitOnHook(ctx)
}

// line says what the phone does, for the live view.
func (c *lineCard) line() string { return c.phone().Snapshot().String() }

// idle waits until no line streams: edged has given them free.
func (c *lineCard) idle(ctx context.Context) error {
	if err := c.card.WaitStream(ctx, 0, false); err != nil {
		return err
	}
	return c.phone().WaitQuiet(ctx, 300*time.Millisecond)
}
