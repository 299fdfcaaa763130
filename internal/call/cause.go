package call

import "fmt"

// Cause says why a leg was released or refused: an ITU-T Q.850 cause value
// with the SIP status that carries it (RFC 3398 §8.2.6, §7.2.4.1).
type Cause struct {
	Q850   int    // ITU-T Q.850 §2.2.7.1
	Status int    // SIP status toward a caller
	Text   string // for people; empty means the standard text
}

// Causes that this box raises itself or tests for.
var (
	NormalClearing      = Cause{16, 200, ""}
	UserBusy            = Cause{17, 486, ""}
	NoUserResponding    = Cause{18, 408, ""}
	NoAnswer            = Cause{19, 480, ""}
	CallRejected        = Cause{21, 603, ""}
	UnallocatedNumber   = Cause{1, 404, ""}
	AddressIncomplete   = Cause{28, 484, ""}
	DestinationDown     = Cause{27, 503, ""} // destination out of order: line or card gone
	NoCircuit           = Cause{34, 503, ""}
	NetworkOutOfOrder   = Cause{38, 503, ""}
	TemporaryFailure    = Cause{41, 503, ""}
	Congestion42        = Cause{42, 503, ""} // switching equipment congestion
	IncompatibleMedia   = Cause{88, 488, ""}
	RequestPending      = Cause{41, 491, ""} // an offer crosses ours, RFC 3261 §14.2
	RecoveryOnTimer     = Cause{102, 504, ""}
	MediaLost           = Cause{31, 487, "voice path lost"} // ends a call whose voice cannot be restored
	AnsweredElsewhere   = Cause{26, 487, ""}
	OriginatorCancelled = Cause{16, 487, ""}
	Forbidden           = Cause{21, 403, ""}
)

// With returns the cause with a text for people.
func (c Cause) With(format string, args ...any) Cause {
	c.Text = fmt.Sprintf(format, args...)
	return c
}

// Is reports whether two causes are the same but for their text.
func (c Cause) Is(d Cause) bool { return c.Q850 == d.Q850 && c.Status == d.Status }

// TryNext says whether another target may be tried after this cause: the way
// to the called party failed, not the party itself. Busy, rejected, unknown
// and incomplete numbers are final.
func (c Cause) TryNext() bool {
	switch c.Q850 {
	case 27, 31, 34, 38, 41, 42, 44, 47, 58, 88, 102, 18:
		return true
	}
	return c.Status == 408 || c.Status == 500 || c.Status >= 502 && c.Status < 600
}

func (c Cause) String() string {
	if c.Text != "" {
		return fmt.Sprintf("%d/%d %s", c.Status, c.Q850, c.Text)
	}
	return fmt.Sprintf("%d/%d", c.Status, c.Q850)
}
