package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"localloop/internal/analog/analogtest"
)

const sippBox = `
[[realm]]
name = "wan"
address = "{{.Box}}"
ports = "20000-20099"
cloud = true

[[sip]]
name = "carrier"
listen = "{{.Box}}:5060"
peers = ["{{.Carrier}}:5060"]
realm = "wan"
options_every = "0s"

[[line]]
name = "reception"
card = "card"
channel = 0
kind = "fxs"
number = "+493055510"

[[route]]
match = "+493055510"
to = ["line:reception"]

[[route]]
match = "+493055520"
to = ["sip:carrier"]
`

// TestSippTalksToThePhoneOverASIPTrunk: the SIP load tester is the carrier of a
// plain SIP trunk, as caller that speaks and hangs up, and as called party that
// answers in the other companding law and sends back what it hears.
func TestSippTalksToThePhoneOverASIPTrunk(t *testing.T) {
	realTool(t, "sipp", "espeak-ng", "sox")
	scenarios, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	here, carrier := realAddr(10), realAddr(11)
	box := startRealBox(t, dir, sippBox, map[string]any{"HTTP": realAddr(10).String() + ":8080", "Box": here, "Carrier": carrier},
		analogtest.Channel{Kind: analogtest.FXS, Phone: analogtest.PhoneOptions{Name: "reception", Country: "de"}})
	phone := box.card.Phone(0)
	sipp := func(scenario string, args ...string) *realProcess {
		cmd := exec.Command("sipp", append([]string{"-sf", filepath.Join(scenarios, scenario), "-i", carrier.String(), "-p", "5060",
			"-mi", carrier.String(), "-m", "1", "-nostdin", "-timeout", "60s", "-timeout_error", "-trace_err", "-error_file", "errors"}, args...)...)
		cmd.Dir = dir
		return startReal(t, cmd)
	}

	calls := 0
	t.Run("sipp calls", func(t *testing.T) {
		says := speak(t, "This is a call from the carrier to the branch. The caller says a sentence and hangs up.", "en")
		alaw := exec.Command("sox", "-D", "-t", "raw", "-r", "8000", "-c", "1", "-e", "signed", "-b", "16", "-L", "-",
			"-t", "al", filepath.Join(dir, "speech.al"), "pad", "0.5", "1.5")
		alaw.Stdin = bytes.NewReader(realOctets(says))
		if out, err := alaw.CombinedOutput(); err != nil {
			t.Fatalf("sox: %v\n%s", err, out)
		}
		ctx := realDeadline(t)
		for {
			calls++
			before, mark := box.starved(), len(phone.Recording())
			phone.SetScript(analogtest.Script{AnswerRing: 1, Delay: 200 * time.Millisecond})
			caller := sipp("sipp_uac.xml", "-s", realNumber, here.String()+":5060")
			if err := caller.wait(ctx); err != nil {
				t.Fatalf("sipp: %v", err)
			}
			r := box.record(t, ctx, calls)
			if !r.Answered() || r.Calling.Number != realUser || r.Source != "carrier" {
				t.Errorf("%+v", r)
			}
			like := compare(says, phone.Recording()[mark:])
			phone.SetScript(analogtest.Script{})
			phone.HangUp()
			box.idle(t, ctx)
			starved := box.starved() - before
			t.Logf("at the phone: %v; the card ran dry or over %d times", like, starved)
			if like.matches() {
				return
			}
			if starved == 0 || calls == maxRounds {
				t.Fatalf("what sipp said is not found: %v", like)
			}
		}
	})
	t.Run("phone calls", func(t *testing.T) {
		says := speak(t, "The branch calls somebody outside and hears every word of its own come back from there.", "en")
		ctx := realDeadline(t)
		phone.SetScript(analogtest.Script{})
		called := sipp("sipp_uas.xml", "-mp", "16000", "-rtp_echo")
		phone.Lift()
		if err := phone.WaitDialTone(ctx); err != nil {
			t.Fatal(err)
		}
		if err := phone.Dial(realDialed); err != nil {
			t.Fatal(err)
		}
		realUntil(t, ctx, "the answer", func() bool {
			calls := box.calls.Calls()
			return len(calls) == 1 && !calls[0].Answer.IsZero()
		})
		for round := 1; ; round++ {
			before, mark := box.starved(), len(phone.Recording())
			phone.Say(says)
			realUntil(t, ctx, "the echo at the phone", func() bool { return len(phone.Recording()) >= mark+len(says)+realRate })
			like, starved := compare(says, phone.Recording()[mark:]), box.starved()-before
			t.Logf("back at the phone: %v; the card ran dry or over %d times", like, starved)
			if like.matches() {
				break
			}
			if starved == 0 || round == maxRounds {
				t.Fatalf("what the phone said does not come back: %v", like)
			}
		}
		phone.HangUp()
		if err := called.wait(ctx); err != nil {
			t.Fatalf("sipp: %v", err)
		}
		r := box.record(t, ctx, calls+1)
		for _, v := range r.Voice {
			if v.Realm == "wan" && v.Codec != "PCMU" {
				t.Errorf("codec %s", v.Codec)
			}
		}
	})
}
