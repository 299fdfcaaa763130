package cdr

import (
	"testing"
	"time"

	"localloop/internal/call"
)

// What the engine says of each attempt reaches the record: a target that rang
// and was left counts as alerted, the one that was tried after it does not.
func TestRecordTellsWhichAttemptAlerted(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	r := FromSummary(call.Summary{
		Leg: "teams#1", Refs: map[string]string{"teams#1": "abc@x"}, Start: now, Alert: now.Add(time.Second), End: now.Add(time.Minute),
		EndedBy: call.Box, Cause: call.NoCircuit,
		Attempts: []call.Attempt{
			{Target: call.Target{Name: "line-1"}, Alerted: true, Cause: call.UserBusy},
			{Target: call.Target{Name: "line-2"}, Cause: call.NoCircuit},
		},
	})
	if !r.Attempts[0].Alerted || r.Attempts[1].Alerted {
		t.Errorf("attempts %+v", r.Attempts)
	}
	if r.Ref != "abc@x" || r.ReleasedBy != "box" {
		t.Errorf("ref %q, released by %q", r.Ref, r.ReleasedBy)
	}
}
