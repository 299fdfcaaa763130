package main

import (
	"bytes"
	"context"
	"io"
	"math"
	"net"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"localloop/internal/analog"
	"localloop/internal/analog/analogtest"
	"localloop/internal/call"
	"localloop/internal/config"
)

// heardByExchange dials numbers on an FXO line and returns what the exchange heard
// of each. It runs in virtual time: a machine under load starves a simulated card
// as it would not starve a real one, and a frame that is late cuts a digit in two.
func heardByExchange(t *testing.T, link analogtest.Impairment, numbers ...string) (heard [][]int16, counters analogtest.Counters) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		host, far := net.Pipe()
		card, err := analogtest.New(analogtest.CardOptions{ToHost: link, Channels: []analogtest.Channel{
			{Kind: analogtest.FXO, Exchange: analogtest.ExchangeOptions{Name: "exchange", Country: "de"}}}})
		if err != nil {
			t.Fatal(err)
		}
		bank, err := analog.New(analog.Options{
			Box:    config.Box{Name: "branch", Country: "de", CountryCode: "49", TrunkPrefix: "0", InternationalPrefix: "00"},
			Cards:  []config.Card{{Name: "card", Device: "pipe", Baud: 921600, Law: config.ALaw}},
			Lines:  []config.Line{{Name: "exchange", Card: "card", Kind: config.FXO, Country: "de"}},
			Open:   func(config.Card) (io.ReadWriteCloser, error) { return host, nil },
			Accept: func(call.Leg) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 2)
		go func() { ended <- card.Serve(ctx, far) }()
		go func() { ended <- bank.Run(ctx) }()
		state := func(want string) {
			t.Helper()
			for range 6000 { // a minute of virtual time
				if bank.Status()[0].State == want {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Fatalf("line is %s, not %s", bank.Status()[0].State, want)
		}
		for _, number := range numbers {
			state("idle")
			from := len(card.Exchange(0).Recording())
			leg, err := bank.Dial(ctx, call.Target{Kind: call.ToLine, Name: "exchange", Number: number}, call.Setup{Called: number})
			if err != nil {
				t.Fatal(err)
			}
			state("waiting")
			time.Sleep(200 * time.Millisecond) // what the card holds is played
			heard = append(heard, card.Exchange(0).Recording()[from:])
			leg.Send(call.Release{Cause: call.NormalClearing})
			for range leg.Events() {
			}
		}
		counters = card.Snapshot().Counters
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	return heard, counters
}

// multimon decodes the DTMF digits of 8 kHz samples with multimon-ng, which
// wants 22050 Hz.
func multimon(t *testing.T, pcm []int16) string {
	t.Helper()
	ctx := realDeadline(t)
	sox := exec.CommandContext(ctx, "sox", "-D", "-t", "raw", "-r", "8000", "-c", "1", "-e", "signed", "-b", "16", "-L", "-", "-t", "raw", "-r", "22050", "-")
	sox.Stdin = bytes.NewReader(realOctets(pcm))
	raw, err := sox.Output()
	if err != nil {
		t.Fatalf("sox: %v", err)
	}
	decode := exec.CommandContext(ctx, "multimon-ng", "-q", "-c", "-a", "DTMF", "-t", "raw", "-")
	decode.Stdin = bytes.NewReader(raw)
	out, err := decode.Output()
	if err != nil {
		t.Fatalf("multimon-ng: %v", err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(out)) {
		if d, ok := strings.CutPrefix(line, "DTMF: "); ok {
			digits.WriteString(strings.TrimSpace(d))
		}
	}
	return digits.String()
}

// withDialTone adds the exchange's dial tone as the line would reflect it until
// 100 ms of the first digit have passed.
func withDialTone(pcm []int16) []int16 {
	first := 0
	for first < len(pcm) && pcm[first] > -300 && pcm[first] < 300 {
		first++
	}
	out := append([]int16(nil), pcm...)
	// 425 Hz at -13 dBm0 toward the box comes back 12 dB softer from a line of
	// ordinary balance; 3.14 dBm0 is full scale of A-law.
	amplitude := 32124 * math.Pow(10, (-13-12-3.14)/20)
	for i := range min(len(out), first+realRate/10) {
		out[i] += int16(amplitude * math.Sin(2*math.Pi*425*float64(i)/realRate))
	}
	return out
}

// TestA26MultimonDecodesTheDigitsSentToAnExchange: what an exchange heard on an
// FXO line, decoded by a program that nobody here wrote, is exactly the number,
// also with dial tone in its first 100 ms, and over a link to the card that stalls.
func TestA26MultimonDecodesTheDigitsSentToAnExchange(t *testing.T) {
	realTool(t, "multimon-ng", "sox")
	// All keys that are dialled, digits doubled.
	numbers := []string{"#21*0301122334", "0556677889903", "*0#987654321"}
	for name, link := range map[string]analogtest.Impairment{
		"a quiet link":                   {},
		"a link that stalls up to 35 ms": {Seed: 26, Jitter: 35 * time.Millisecond},
	} {
		heard, counters := heardByExchange(t, link, numbers...)
		for i, number := range numbers {
			for how, line := range map[string][]int16{"alone": heard[i], "with dial tone": withDialTone(heard[i])} {
				if got := multimon(t, line); got != number {
					t.Errorf("%s, %s: dialled %s, multimon-ng decodes %q", name, how, number, got)
				}
			}
		}
		t.Logf("%s: %d underruns, %d overruns", name, counters.Underruns, counters.Overruns)
	}
}
