package call

import "time"

// Box in Summary.EndedBy says that this box ended the call.
const Box = "box"

// Summary is what became of one call. The Switch gives it away once, when the
// call has ended; the receiver owns it.
type Summary struct {
	ID        string
	Source    string // trunk or line the call came from
	Leg       string // name of the caller's leg
	Calling   Party
	Called    string
	Emergency bool
	Refs      map[string]string // protocol identifiers by leg name
	Teams     *TeamsHeaders     // what Microsoft's headers said last

	Start  time.Time // Setup
	Alert  time.Time // first Progress; zero if there was none
	Answer time.Time // zero if not answered
	End    time.Time

	Attempts []Attempt // in the order tried
	Cause    Cause     // of the end
	Reason   string    // for people
	EndedBy  string    // leg that released first, or Box

	Moves []Move // changes of path while the call was up
	Voice Report
}

// Attempt is one target that was tried.
type Attempt struct {
	Target Target
	Leg    string
	At     time.Time
	// Alerted: it gave a sign of life (Progress).
	Alerted bool
	Cause   Cause // zero for the attempt that was answered
	Reason  string
}

// alert notes the first sign of life of the attempt under way.
func (s *Summary) alert(now time.Time) {
	if s.Alert.IsZero() {
		s.Alert = now
	}
	if n := len(s.Attempts); n > 0 {
		s.Attempts[n-1].Alerted = true
	}
}

// PostDialDelay is the time from Setup to the first sign of the called party,
// zero if there was none (PDD).
func (s *Summary) PostDialDelay() time.Duration {
	switch {
	case !s.Alert.IsZero():
		return s.Alert.Sub(s.Start)
	case !s.Answer.IsZero():
		return s.Answer.Sub(s.Start)
	}
	return 0
}

// Duration is the time the call was answered, zero if it was not.
func (s *Summary) Duration() time.Duration {
	if s.Answer.IsZero() {
		return 0
	}
	return s.End.Sub(s.Answer)
}
