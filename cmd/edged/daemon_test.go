package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"localloop/internal/call"
	"localloop/internal/call/calltest"
	"localloop/internal/sdp"
)

// release waits for the Release that a leg is sent. The deadline is for liveness.
func release(t *testing.T, l *calltest.Leg) call.Release {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case ev := <-l.Sent:
			if r, ok := ev.(call.Release); ok {
				return r
			}
		case <-limit:
			t.Fatalf("%s was never released", l.Name())
		}
	}
}

// A part that fails ends the daemon, but its calls first: with a word to their
// peers, while the parts that carry it still run, and with their records.
func TestFailingPartDrainsBeforeTheOthersStop(t *testing.T) {
	d, err := build(lonely(t, lonelyBox(t)), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	// A leg that has not yet said what it wants is a call under way.
	waiting := calltest.NewLeg("waiting#1", nil)
	d.calls.Accept(waiting)
	done := make(chan error, 1)
	go func() { done <- d.run(t.Context(), nil, nil) }()
	<-d.sip.Ready()
	_ = d.http.Close() // the status page fails
	if err := <-done; err == nil || !strings.HasPrefix(err.Error(), "web: ") {
		t.Errorf("run returned %v", err)
	}
	if r := release(t, waiting); !strings.Contains(r.Reason, "shutting down") {
		t.Errorf("released with %+v", r)
	}
	late := calltest.NewLeg("late#1", &call.Setup{Source: "x", Called: "+49301", Offer: &sdp.Description{}})
	d.calls.Accept(late)
	if r := release(t, late); r.Cause.Status != 503 {
		t.Errorf("a call after the end got %+v", r)
	}
}

func TestChangesThatARunningDaemonCannotTakeUpAreNamed(t *testing.T) {
	text := lonelyBox(t)
	old := lonely(t, text)
	now := lonely(t, strings.Replace(text, `"de"`, `"fr"`, 1)+`
[[realm]]
name = "lan"
address = "127.0.0.1"
interface = "lan0"
ports = "20000-20099"
`)
	keys := strings.Join(needRestart(old, now), " ")
	if keys != "box.country realm.interface" {
		t.Errorf("keys %q", keys)
	}
}
