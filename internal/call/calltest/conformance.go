package calltest

import (
	"testing"
	"time"

	"localloop/internal/call"
)

// LegConformance checks what call.Leg promises to every owner, on a leg that has
// begun (an incoming one's Setup has been read). It releases the leg. The
// deadlines are for liveness only.
func LegConformance(t *testing.T, l call.Leg) {
	t.Helper()
	if l.Name() == "" {
		t.Error("a leg must have a name")
	}
	l.Send(call.Release{Cause: call.NormalClearing})
	l.Send(call.Release{Cause: call.NormalClearing}) // a second one does nothing
	limit := time.After(10 * time.Second)
	releases := 0
	for {
		select {
		case ev, open := <-l.Events():
			if !open {
				if releases != 1 {
					t.Errorf("leg ended with %d releases, want exactly one", releases)
				}
				l.Send(call.Progress{Ringing: true}) // after the end: nothing, and no panic
				return
			}
			if releases > 0 {
				t.Errorf("event %T after the release", ev)
			}
			if _, ok := ev.(call.Release); ok {
				releases++
			}
		case <-limit:
			t.Fatal("leg did not end after it was sent a release")
		}
	}
}
