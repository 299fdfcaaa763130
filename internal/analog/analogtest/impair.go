package analogtest

import (
	"math/rand/v2"
	"time"
)

// Impairment damages one direction of the serial line. The zero Impairment does
// nothing. All choices follow from Seed.
type Impairment struct {
	Seed uint64
	// Probabilities for each octet: it is lost, its value changes, a foreign
	// octet comes before it.
	Loss, Corrupt, Insert float64
	// BurstLoss is the probability that BurstLen octets from here are lost.
	BurstLoss float64
	BurstLen  int
	// Latency delays every chunk, and up to Jitter more; order is kept.
	Latency, Jitter time.Duration
	// Chunk cuts what is handed on into pieces of so many octets: short reads for
	// the one who receives.
	Chunk int
}

// Damage counts what an Impairment has done.
type Damage struct {
	Octets, Lost, Corrupted, Inserted uint64
}

type impairer struct {
	Impairment
	rng   *rand.Rand
	done  Damage
	burst int
}

func newImpairer(i Impairment) *impairer {
	return &impairer{Impairment: i, rng: rand.New(rand.NewPCG(i.Seed, 0x5143))}
}

// damage returns what is left of p, which is not changed.
func (i *impairer) damage(p []byte) []byte {
	i.done.Octets += uint64(len(p))
	if i.Loss == 0 && i.Corrupt == 0 && i.Insert == 0 && i.BurstLoss == 0 {
		return p
	}
	out := make([]byte, 0, len(p)+8)
	for _, b := range p {
		if i.Insert > 0 && i.rng.Float64() < i.Insert {
			out = append(out, byte(i.rng.Uint32()))
			i.done.Inserted++
		}
		if i.BurstLoss > 0 && i.burst == 0 && i.rng.Float64() < i.BurstLoss {
			i.burst = i.BurstLen
		}
		switch {
		case i.burst > 0:
			i.burst--
			i.done.Lost++
			continue
		case i.Loss > 0 && i.rng.Float64() < i.Loss:
			i.done.Lost++
			continue
		case i.Corrupt > 0 && i.rng.Float64() < i.Corrupt:
			b ^= byte(1 + i.rng.IntN(255))
			i.done.Corrupted++
		}
		out = append(out, b)
	}
	return out
}

func (i *impairer) delay() time.Duration {
	d := i.Latency
	if i.Jitter > 0 {
		d += time.Duration(i.rng.Int64N(int64(i.Jitter)))
	}
	return d
}

// pieces calls f with p in pieces of Chunk octets.
func (i *impairer) pieces(p []byte, f func([]byte) error) error {
	n := i.Chunk
	if n <= 0 {
		n = len(p)
	}
	for len(p) > 0 {
		k := min(n, len(p))
		if err := f(p[:k]); err != nil {
			return err
		}
		p = p[k:]
	}
	return nil
}

// pacer is the bit clock of one direction: 10 bits an octet. Octets take their
// time on the wire whoever hands them over.
type pacer struct{ free time.Time }

// take returns when n octets that are handed over at now have passed the wire.
func (p *pacer) take(now time.Time, n int, baud uint32) time.Time {
	if p.free.Before(now) {
		p.free = now
	}
	if baud > 0 {
		p.free = p.free.Add(time.Duration(n) * 10 * time.Second / time.Duration(baud))
	}
	return p.free
}
