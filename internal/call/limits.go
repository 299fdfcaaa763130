package call

import "time"

// Limits are the times of a call. The zero value of a field means the default.
type Limits struct {
	// Seize is how long a call may look for a target that shows a sign of life
	// (Progress or Answer) before the caller gets 503. Teams gives up after
	// 10 s and would not try the next trunk in time, so stay well below
	// (C-38, C-39). Emergency calls have no such limit. Default 6 s.
	Seize time.Duration
	// TryNext is how long one target may stay without a sign of life while
	// there are others to try. Default 4 s.
	TryNext time.Duration
	// Ring is how long a target may alert. Default 120 s.
	Ring time.Duration
	// Restart is how long a move of a leg to another realm may take unless its
	// profile says so, and how long a party may stay silent that has come off
	// hold. Default 2 s.
	Restart time.Duration
	// Lost is how long a party hears that the other side is lost before the
	// call is released, and how long a leg without a fallback may stay dead.
	// Default 5 s.
	Lost time.Duration
}

func (l Limits) withDefaults() Limits {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&l.Seize, 6*time.Second)
	set(&l.TryNext, 4*time.Second)
	set(&l.Ring, 120*time.Second)
	set(&l.Restart, 2*time.Second)
	set(&l.Lost, 5*time.Second)
	return l
}
