package cdr

import "localloop/internal/call"

// FromSummary makes the record of a call out of what the call engine gives away
// at its end.
func FromSummary(s call.Summary) Record {
	r := Record{
		ID: s.ID, Setup: s.Start, Alert: s.Alert, Answer: s.Answer, End: s.End,
		Source: s.Source, Leg: s.Leg, Ref: s.Refs[s.Leg], Calling: s.Calling, Called: s.Called, Emergency: s.Emergency,
		Cause: s.Cause, Reason: s.Reason, ReleasedBy: s.EndedBy, Teams: s.Teams, Voice: s.Voice.Legs,
	}
	for _, a := range s.Attempts {
		r.Attempts = append(r.Attempts, Attempt{
			Kind: a.Target.Kind, Name: a.Target.Name, Number: a.Target.Number, Leg: a.Leg, Ref: s.Refs[a.Leg], At: a.At,
			Alerted: a.Alerted, Cause: a.Cause, Reason: a.Reason,
		})
	}
	return r
}
