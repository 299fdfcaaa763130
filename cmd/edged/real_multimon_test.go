package main

import (
	"bytes"
	"math"
	"os/exec"
	"strings"
	"testing"

	"localloop/internal/analog/analogtest"
)

const exchangeBox = `
[[realm]]
name = "lan"
address = "{{.Box}}"
ports = "20000-20099"

[[line]]
name = "reception"
card = "card"
channel = 0
kind = "fxs"
number = "+493055510"

[[line]]
name = "exchange"
card = "card"
channel = 1
kind = "fxo"

[[route]]
match = "*"
to = ["line:exchange"]
`

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

// TestA26MultimonDecodesTheDigitsSentToAnExchange: what the exchange heard on an
// FXO line, decoded by a program that nobody here wrote, is exactly the number,
// also with dial tone in its first 100 ms.
func TestA26MultimonDecodesTheDigitsSentToAnExchange(t *testing.T) {
	realTool(t, "multimon-ng", "sox")
	box := startRealBox(t, t.TempDir(), exchangeBox, map[string]any{"HTTP": realAddr(20).String() + ":8080", "Box": realAddr(20)},
		analogtest.Channel{Kind: analogtest.FXS, Phone: analogtest.PhoneOptions{Name: "reception", Country: "de"}},
		analogtest.Channel{Kind: analogtest.FXO, Exchange: analogtest.ExchangeOptions{Name: "exchange", Country: "de"}})
	phone, exchange := box.card.Phone(0), box.card.Exchange(1)
	// All digits, each doubled somewhere, and the keys of service codes.
	for i, number := range []string{"0301122334455", "00667788990021", "*21*03098#"} {
		ctx := realDeadline(t)
		from := len(exchange.Recording())
		phone.Lift()
		if err := phone.WaitDialTone(ctx); err != nil {
			t.Fatal(err)
		}
		if err := phone.Dial(number); err != nil {
			t.Fatal(err)
		}
		heard, err := exchange.WaitNumber(ctx, i)
		if err != nil {
			t.Fatal(err)
		}
		pcm := exchange.Recording()[from:]
		for name, line := range map[string][]int16{"alone": pcm, "with dial tone": withDialTone(pcm)} {
			if got := multimon(t, line); got != number {
				t.Errorf("dialled %s, multimon-ng decodes %q %s (the simulated exchange: %s)", number, got, name, heard)
			}
		}
		phone.HangUp()
		box.idle(t, ctx)
	}
}
