package analogtest

import (
	"math/rand/v2"
	"time"
)

// feed is what the exchange end of a pair of wires puts on it at one instant.
type feed struct {
	battery  bool
	reversed bool
	ring     bool // ringing voltage
	ringHz   int
}

// contact is a switch in the loop that follows a plan of movements: a hook or a
// dial. A movement bounces.
type contact struct {
	closed bool
	plan   []movement
	rng    *rand.Rand
	bounce time.Duration // longest bounce of a hook
}

type movement struct {
	at     uint64 // card milliseconds
	closed bool
}

// step returns the state in millisecond ms.
func (c *contact) step(ms uint64) bool {
	for len(c.plan) > 0 && c.plan[0].at <= ms {
		c.closed = c.plan[0].closed
		c.plan = c.plan[1:]
	}
	return c.closed
}

// settled is the position when all movements are over, and when that is.
func (c *contact) settled(ms uint64) (closed bool, at uint64) {
	if n := len(c.plan); n > 0 {
		return c.plan[n-1].closed, max(ms, c.plan[n-1].at)
	}
	return c.closed, ms
}

// move plans a movement at ms or after what is planned already. It touches and
// parts in stretches of 1 to 3 ms before it stays.
func (c *contact) move(ms uint64, closed bool) (over uint64) {
	_, at := c.settled(ms)
	end := at + uint64(c.bounce/time.Millisecond)
	c.plan = append(c.plan, movement{at, closed})
	for at+4 < end {
		at += 1 + c.rng.Uint64N(3)
		c.plan = append(c.plan, movement{at, !closed})
		at += 1 + c.rng.Uint64N(2)
		c.plan = append(c.plan, movement{at, closed})
	}
	return at
}

// clean plans a movement without bounce.
func (c *contact) clean(at uint64, closed bool) { c.plan = append(c.plan, movement{at, closed}) }

// open plans an interruption of the loop, its start and end bouncing.
func (c *contact) open(ms uint64, long time.Duration) {
	_, at := c.settled(ms)
	c.move(at, false)
	end := at + uint64(long/time.Millisecond)
	if _, s := c.settled(ms); s < end {
		c.clean(end, true)
	} else {
		c.clean(s+1, true)
	}
	c.bounceAfter(end)
}

func (c *contact) bounceAfter(at uint64) {
	end := at + uint64(c.bounce/time.Millisecond)
	for at+4 < end {
		at += 1 + c.rng.Uint64N(3)
		c.clean(at, false)
		at += 1 + c.rng.Uint64N(2)
		c.clean(at, true)
	}
}

// pulses plans the pulses of one digit: 0 is ten.
func (c *contact) pulses(ms uint64, n int, k Keying) {
	_, at := c.settled(ms)
	period := 1000 / k.PPS
	for i := range n {
		start := at + uint64(float64(i)*period)
		c.clean(start, false)
		c.clean(start+uint64(period*k.Break/100), true)
	}
	// The finger goes back to the next digit.
	c.clean(at+uint64(float64(n)*period)+800, true)
}
