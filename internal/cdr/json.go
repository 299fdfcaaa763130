package cdr

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"localloop/internal/call"
)

// The line format. Keys are stable: files are read by other programs. Times are
// RFC 3339 in UTC, durations milliseconds.
type wire struct {
	ID         string        `json:"id"`
	Setup      time.Time     `json:"setupAt"`
	Alert      time.Time     `json:"alertAt,omitzero"`
	Answer     time.Time     `json:"answerAt,omitzero"`
	End        time.Time     `json:"endAt,omitzero"`
	PDD        float64       `json:"postDialDelayMs"`
	Duration   float64       `json:"durationMs"`
	Outcome    string        `json:"outcome"`
	Source     string        `json:"source"`
	Leg        string        `json:"leg,omitempty"`
	Ref        string        `json:"ref,omitempty"`
	Calling    wireParty     `json:"calling"`
	Called     string        `json:"called"`
	Emergency  bool          `json:"emergency,omitempty"`
	Attempts   []wireAttempt `json:"attempts,omitempty"`
	Cause      wireCause     `json:"cause"`
	Reason     string        `json:"reason,omitempty"`
	ReleasedBy string        `json:"releasedBy,omitempty"`
	MediaPath  string        `json:"mediaPath,omitempty"`
	Teams      *wireTeams    `json:"teams,omitempty"`
	Voice      []wireVoice   `json:"voice,omitempty"`
}

type wireParty struct {
	Number  string `json:"number,omitempty"`
	Name    string `json:"name,omitempty"`
	Private bool   `json:"private,omitempty"`
}

type wireCause struct {
	Q850 int    `json:"q850"`
	SIP  int    `json:"sip"`
	Text string `json:"text,omitempty"`
}

type wireAttempt struct {
	Kind    string    `json:"kind"`
	Name    string    `json:"name"`
	Number  string    `json:"number"`
	Leg     string    `json:"leg,omitempty"`
	Ref     string    `json:"ref,omitempty"`
	At      time.Time `json:"at,omitzero"`
	Alerted bool      `json:"alerted,omitempty"`
	Cause   wireCause `json:"cause,omitzero"`
	Reason  string    `json:"reason,omitempty"`
}

type wireTeams struct {
	UserLocation   string   `json:"userLocation,omitempty"`
	MediaPath      []string `json:"mediaPath,omitempty"`
	UserSite       string   `json:"userSite,omitempty"`
	ConversationID string   `json:"conversationId,omitempty"`
	Region         string   `json:"region,omitempty"`
}

type wireVoice struct {
	Leg       string     `json:"leg"`
	Realm     string     `json:"realm,omitempty"`
	MediaPath string     `json:"mediaPath,omitempty"`
	Local     string     `json:"local,omitempty"`
	Remote    string     `json:"remote,omitempty"`
	Pair      string     `json:"pair,omitempty"`
	Codec     string     `json:"codec,omitempty"`
	Sent      uint64     `json:"sent"`
	Received  uint64     `json:"received"`
	Lost      uint64     `json:"lost"`
	Late      uint64     `json:"late"`
	Rejected  uint64     `json:"rejected"`
	Jitter    float64    `json:"jitterMs"`
	RoundTrip float64    `json:"roundTripMs,omitzero"`
	MOS       float64    `json:"mos,omitzero"`
	Gap       float64    `json:"gapMs,omitzero"`
	Moves     []wireMove `json:"moves,omitempty"`
}

type wireMove struct {
	From  string  `json:"from"`
	To    string  `json:"to"`
	Why   string  `json:"why"`
	After float64 `json:"afterMs"`
	Gap   float64 `json:"gapMs"`
	OK    bool    `json:"ok"`
}

// ms keeps microseconds.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func fromMS(v float64) time.Duration { return time.Duration(v*1000+0.5) * time.Microsecond }

// finite: JSON has no sign for a value that was divided by nothing.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

// utc rounds to what a reader can use.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Millisecond)
}

var kindNames = map[call.TargetKind]string{call.ToTrunk: "trunk", call.ToLine: "line"}

// MarshalJSON writes the record as one line of the file.
func (r Record) MarshalJSON() ([]byte, error) {
	w := wire{
		ID: r.ID, Setup: utc(r.Setup), Alert: utc(r.Alert), Answer: utc(r.Answer), End: utc(r.End),
		PDD: ms(r.PostDialDelay()), Duration: ms(r.Duration()), Outcome: r.Outcome().String(),
		Source: r.Source, Leg: r.Leg, Ref: r.Ref, Calling: wireParty(r.Calling), Called: r.Called, Emergency: r.Emergency,
		Cause: causeToWire(r.Cause), Reason: r.Reason, ReleasedBy: r.ReleasedBy, MediaPath: r.MediaPath(),
	}
	if r.Teams != nil {
		t := wireTeams(*r.Teams)
		w.Teams = &t
	}
	for _, a := range r.Attempts {
		w.Attempts = append(w.Attempts, wireAttempt{
			Kind: kindNames[a.Kind], Name: a.Name, Number: a.Number, Leg: a.Leg, Ref: a.Ref, At: utc(a.At),
			Alerted: a.Alerted, Cause: causeToWire(a.Cause), Reason: a.Reason,
		})
	}
	for _, l := range r.Voice {
		v := wireVoice{
			Leg: l.Leg, Realm: l.Realm, MediaPath: l.MediaPath, Local: l.Local, Remote: l.Remote, Pair: l.Pair, Codec: l.Codec,
			Sent: l.Sent, Received: l.Received, Lost: l.Lost, Late: l.Late, Rejected: l.Rejected,
			Jitter: ms(l.Jitter), RoundTrip: ms(l.RoundTrip), MOS: finite(l.MOS), Gap: ms(l.Gap),
		}
		for _, m := range l.Moves {
			v.Moves = append(v.Moves, wireMove{From: m.From, To: m.To, Why: m.Why, After: ms(m.After), Gap: ms(m.Gap), OK: m.OK})
		}
		w.Voice = append(w.Voice, v)
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads a line of the file.
func (r *Record) UnmarshalJSON(line []byte) error {
	var w wire
	if err := json.Unmarshal(line, &w); err != nil {
		return fmt.Errorf("read call detail record: %w", err)
	}
	*r = Record{
		ID: w.ID, Setup: w.Setup, Alert: w.Alert, Answer: w.Answer, End: w.End,
		Source: w.Source, Leg: w.Leg, Ref: w.Ref, Calling: call.Party(w.Calling), Called: w.Called, Emergency: w.Emergency,
		Cause: causeFromWire(w.Cause), Reason: w.Reason, ReleasedBy: w.ReleasedBy,
	}
	if w.Teams != nil {
		t := call.TeamsHeaders(*w.Teams)
		r.Teams = &t
	}
	for _, a := range w.Attempts {
		kind := call.ToTrunk
		if a.Kind == kindNames[call.ToLine] {
			kind = call.ToLine
		}
		r.Attempts = append(r.Attempts, Attempt{
			Kind: kind, Name: a.Name, Number: a.Number, Leg: a.Leg, Ref: a.Ref, At: a.At,
			Alerted: a.Alerted, Cause: causeFromWire(a.Cause), Reason: a.Reason,
		})
	}
	for _, v := range w.Voice {
		l := call.LegReport{
			Leg: v.Leg, Realm: v.Realm, MediaPath: v.MediaPath, Local: v.Local, Remote: v.Remote, Pair: v.Pair, Codec: v.Codec,
			Sent: v.Sent, Received: v.Received, Lost: v.Lost, Late: v.Late, Rejected: v.Rejected,
			Jitter: fromMS(v.Jitter), RoundTrip: fromMS(v.RoundTrip), MOS: v.MOS, Gap: fromMS(v.Gap),
		}
		for _, m := range v.Moves {
			l.Moves = append(l.Moves, call.Move{From: m.From, To: m.To, Why: m.Why, After: fromMS(m.After), Gap: fromMS(m.Gap), OK: m.OK})
		}
		r.Voice = append(r.Voice, l)
	}
	return nil
}

func causeToWire(c call.Cause) wireCause { return wireCause{Q850: c.Q850, SIP: c.Status, Text: c.Text} }

func causeFromWire(w wireCause) call.Cause {
	return call.Cause{Q850: w.Q850, Status: w.SIP, Text: w.Text}
}
