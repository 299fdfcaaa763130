package cdr

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"localloop/internal/call"
)

var update = flag.Bool("update", false, "rewrite golden files")

var t0 = time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return t0.Add(d) }

// sample is a call that moved from the LAN to the cloud.
func sample() Record {
	return Record{
		ID: "c-1", Setup: t0, Alert: at(350 * time.Millisecond), Answer: at(4200 * time.Millisecond), End: at(64200 * time.Millisecond),
		Source: "teams", Leg: "teams#12", Ref: "0a6f6f0e@52.114.0.99",
		Calling: call.Party{Number: "+4915550123", Name: "A. User", Private: true}, Called: "+493055501",
		Attempts: []Attempt{
			{Kind: call.ToTrunk, Name: "pbx", Number: "+493055501", Leg: "pbx#1", Ref: "x@y", At: at(10 * time.Millisecond), Cause: call.RecoveryOnTimer, Reason: "no answer to INVITE"},
			{Kind: call.ToLine, Name: "desk", Number: "+493055501", Leg: "desk", At: at(300 * time.Millisecond), Alerted: true},
		},
		Cause: call.NormalClearing, Reason: "on-hook", ReleasedBy: "desk",
		Teams: &call.TeamsHeaders{UserLocation: "internal", MediaPath: []string{"sbc3.branch.example"}, UserSite: "7", ConversationID: "9c3e", Region: "EUWE"},
		Voice: []call.LegReport{
			{
				Leg: "teams#12", Realm: "wan", MediaPath: "cloud", Local: "198.51.100.20:20120", Remote: "203.0.113.9:50012", Pair: "host/srflx", Codec: "PCMA",
				Sent: 3000, Received: 2950, Lost: 50, Late: 1, Rejected: 2, Jitter: 3250 * time.Microsecond, RoundTrip: 24 * time.Millisecond, MOS: 4.31, Gap: 1200 * time.Millisecond,
				Moves: []call.Move{{From: "lan", To: "wan", Why: "no packets for 1s", After: 20 * time.Second, Gap: 1200 * time.Millisecond, OK: true}},
			},
			{Leg: "desk", MediaPath: "line", Sent: 6000, Received: 6000},
		},
	}
}

func TestLineFormat(t *testing.T) {
	text, err := json.MarshalIndent(sample(), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	const path = "testdata/record.json"
	if *update {
		if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(text)+"\n"); diff != "" {
		t.Errorf("the line format changed; other programs read it:\n%s", diff)
	}
	var back Record
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), back); diff != "" {
		t.Errorf("not read as written:\n%s", diff)
	}
}

func TestTimesOfACall(t *testing.T) {
	r := sample()
	if r.PostDialDelay() != 350*time.Millisecond || r.Duration() != time.Minute || r.MediaPath() != "cloud" {
		t.Errorf("%v %v %s", r.PostDialDelay(), r.Duration(), r.MediaPath())
	}
	r.Alert = time.Time{}
	if r.PostDialDelay() != 4200*time.Millisecond {
		t.Errorf("answered without alerting: %v", r.PostDialDelay())
	}
	r.Answer = time.Time{}
	if r.PostDialDelay() != 0 || r.Duration() != 0 {
		t.Errorf("not answered: %v %v", r.PostDialDelay(), r.Duration())
	}
	r.Voice = r.Voice[1:]
	if r.MediaPath() != "line" {
		t.Error(r.MediaPath())
	}
}

func TestOutcomesAndRatios(t *testing.T) {
	ringing := Record{Setup: t0, Alert: at(time.Second)}
	quiet := Record{Setup: t0}
	answered := Record{Setup: t0, Answer: at(time.Second)}
	with := func(r Record, c call.Cause) Record { r.Cause = c; return r }
	tests := []struct {
		name string
		r    Record
		want Outcome
	}{
		{"answered, voice lost later", with(answered, call.MediaLost), Answered},
		{"busy", with(ringing, call.UserBusy), Busy},
		{"rings out", with(ringing, call.NoAnswer), NoAnswer},
		{"caller gives up while it rings", with(ringing, call.OriginatorCancelled), NoAnswer},
		{"no final answer while it rings", with(ringing, call.NoUserResponding), NoAnswer},
		{"nothing came back", with(quiet, call.NoUserResponding), Failed},
		{"caller gives up before", with(quiet, call.OriginatorCancelled), Abandoned},
		{"declined", with(ringing, call.CallRejected), Rejected},
		{"forbidden", with(quiet, call.Forbidden), Failed},
		{"unknown number", with(quiet, call.UnallocatedNumber), BadNumber},
		{"incomplete", with(quiet, call.AddressIncomplete), BadNumber},
		{"no codec", with(quiet, call.IncompatibleMedia), Failed},
		{"no cause", quiet, Failed},
	}
	var c Counters
	for _, tt := range tests {
		if got := tt.r.Outcome(); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		c.Calls[tt.want]++
	}
	asr, ok1 := c.ASR()
	ner, ok2 := c.NER()
	// 1 answered of 13; 6 reached, 4 failed.
	if !ok1 || !ok2 || math.Abs(asr-1.0/13) > 1e-9 || math.Abs(ner-6.0/10) > 1e-9 || c.Attempts() != 13 {
		t.Errorf("ASR %v, NER %v of %d", asr, ner, c.Attempts())
	}
	if _, ok := (Counters{}).NER(); ok {
		t.Error("a ratio of nothing")
	}
}

func TestValueThatIsNoNumberDoesNotLoseTheRecord(t *testing.T) {
	r := sample()
	r.Voice[0].MOS = math.NaN()
	if line, err := encode(r); err != nil || len(line) == 0 {
		t.Error(err)
	}
}

// FuzzRecord: lines of a file that others may have written never panic, and
// what was read once is stable.
func FuzzRecord(f *testing.F) {
	line, err := encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add([]byte(`{"id":"x","setupAt":"2026-01-01T00:00:00+02:00","postDialDelayMs":1e300,"voice":[{"jitterMs":-1e300}]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var r Record
		if json.Unmarshal(line, &r) != nil {
			return
		}
		if _, err := encode(r); err != nil {
			t.Skip(err) // a year beyond 9999, which JSON cannot hold
		}
	})
}
