package jitter

import "time"

// estimator follows how much later than the quickest packets the others arrive,
// and how far ahead of playout the quickest are.
type estimator struct {
	epoch   time.Time
	started bool
	last    uint32 // timestamp of the last packet
	ext     int64  // the same without wrap

	// The least transit of the last 4 to 8 s; a window, because clocks drift.
	least     [2]int64
	since     time.Time
	lateness  int64 // of the last packet, samples
	histogram [bins]float32
	packets   float32

	smoothed float32 // delay of the quickest packets, samples
}

const (
	bins     = 100
	binWidth = Rate / 200 // 5 ms
	// covered is the share of packets that shall arrive in time; the rest is
	// concealed. More would make every call as slow as its worst moments.
	covered = 0.97
	// memory is the number of packets after which the past counts 1/e: 10 s.
	memory = 500
	// guard covers the step of 10 ms in which frames are pulled.
	guard      = Rate / 100
	leastEvery = 4 * time.Second
	never      = int64(1) << 62
)

func (e *estimator) reset(first int) {
	*e = estimator{smoothed: float32(first), least: [2]int64{never, never}}
	// Until something is known, as if packets came up to 10 ms late.
	e.histogram[1] = 1
}

func (e *estimator) arrived(now time.Time, timestamp uint32) {
	if !e.started {
		e.started, e.epoch, e.since, e.last = true, now, now, timestamp
	}
	if jump := int32(timestamp - e.last); jump > 2*Rate || jump < -2*Rate {
		// After a silence or a jump only the shape of lateness remains valid.
		e.least = [2]int64{never, never}
	}
	e.ext += int64(int32(timestamp - e.last))
	e.last = timestamp
	transit := int64(now.Sub(e.epoch))*Rate/int64(time.Second) - e.ext
	if now.Sub(e.since) >= leastEvery {
		e.least[1], e.least[0], e.since = e.least[0], transit, now
	}
	e.least[0] = min(e.least[0], transit)
	e.lateness = transit - min(e.least[0], e.least[1])
	bin := min(int(e.lateness/binWidth), bins-1)
	e.packets = min(e.packets+1, memory)
	keep := 1 - 1/(e.packets+10) // the prior weighs 10 packets
	for i := range e.histogram {
		e.histogram[i] *= keep
	}
	e.histogram[bin] += 1 - keep
}

// led takes how far ahead of playout the packet just reported was.
func (e *estimator) led(lead int32) {
	e.smoothed += (float32(int64(lead)+e.lateness) - e.smoothed) / 16
}

// settle says that the delay was set.
func (e *estimator) settle(samples int) { e.smoothed = float32(samples) + float32(e.lateness) }

// moved says that the delay was changed by so many samples.
func (e *estimator) moved(samples int) { e.smoothed += float32(samples) }

func (e *estimator) now() int { return int(e.smoothed) }

// wanted is the delay in samples that lets the covered share arrive in time.
func (e *estimator) wanted() int {
	sum := float32(0)
	for i, h := range e.histogram {
		if sum += h; sum >= covered {
			return (i+1)*binWidth + guard
		}
	}
	return bins*binWidth + guard
}
