package quality

import "time"

// Verdict says what a packet's sequence number means.
type Verdict uint8

// Verdicts of Reception.Packet.
const (
	Fresh     Verdict = iota // new: use it
	Duplicate                // heard before: drop it
	Old                      // too far behind, or the first after a jump that may be a fault: drop it
	Restarted                // the sender's numbering starts anew here: use it
)

const (
	// maxDropout and the rule of two consecutive packets are RFC 3550 A.1.
	maxDropout = 3000
	window     = 64
)

// Reception follows the sequence numbers, losses and jitter of one source. The
// zero value is ready; it belongs to one goroutine and does not allocate.
type Reception struct {
	started  bool
	first    uint16
	high     uint16
	cycles   uint32
	seen     uint64 // bit i: high-i was received
	bad      uint16
	hasBad   bool
	received uint64 // of this numbering

	epoch   time.Time
	jitter  int64 // RFC 3550 A.8: scaled by 16
	transit int64
	ts      uint32
	timed   bool

	total     uint64 // received in all, earlier numberings included
	lost      uint64 // lost in earlier numberings
	reported  uint64 // expected and received at the last report
	reportedR uint64
}

// Packet takes a packet of 8 kHz voice that arrived at now.
func (r *Reception) Packet(now time.Time, seq uint16, timestamp uint32) Verdict {
	return r.packet(now, seq, timestamp, true)
}

// Event takes a packet of RFC 4733. Its timestamp stands still while the event
// lasts, so it tells nothing about jitter.
func (r *Reception) Event(now time.Time, seq uint16) Verdict {
	return r.packet(now, seq, 0, false)
}

func (r *Reception) packet(now time.Time, seq uint16, timestamp uint32, timed bool) Verdict {
	if !r.started {
		r.begin(seq)
		r.arrived(now, timestamp, timed)
		return Fresh
	}
	switch ahead := int16(seq - r.high); {
	case ahead > 0 && ahead < maxDropout:
		if seq < r.high {
			r.cycles++
		}
		r.seen = r.seen<<uint(ahead) | 1 // shifts of 64 and more give 0
		r.high = seq
		r.hasBad = false
	case ahead <= 0 && ahead > -window:
		bit := uint64(1) << uint(-ahead)
		if r.seen&bit != 0 {
			return Duplicate
		}
		r.seen |= bit
	case r.hasBad && seq == r.bad:
		r.lost = r.Lost()
		r.begin(seq)
		r.timed = false
		r.arrived(now, timestamp, timed)
		return Restarted
	default:
		r.bad, r.hasBad = seq+1, true
		return Old
	}
	r.arrived(now, timestamp, timed)
	return Fresh
}

func (r *Reception) begin(seq uint16) {
	r.started, r.first, r.high, r.cycles, r.seen, r.hasBad, r.received = true, seq, seq, 0, 1, false, 0
	r.reported, r.reportedR = 0, 0
}

func (r *Reception) arrived(now time.Time, timestamp uint32, timed bool) {
	r.received++
	r.total++
	if !timed {
		r.timed = false
		return
	}
	// The unit of transit is the sample; only differences count, so any epoch will do.
	if r.epoch.IsZero() {
		r.epoch = now
	}
	arrival := int64(now.Sub(r.epoch) / (125 * time.Microsecond))
	if r.timed {
		d := arrival - r.transit - int64(int32(timestamp-r.ts))
		if d < 0 {
			d = -d
		}
		// A pause in the timestamps (comfort noise, another source) is not jitter.
		if d < 8000 {
			r.jitter += d - (r.jitter+8)>>4
		}
	}
	r.timed, r.transit, r.ts = true, arrival, timestamp
}

func (r *Reception) expected() uint64 {
	if !r.started {
		return 0
	}
	return uint64(r.cycles)<<16 + uint64(r.high) - uint64(r.first) + 1
}

// Received is how many packets were used.
func (r *Reception) Received() uint64 { return r.total }

// Lost is how many are missing.
func (r *Reception) Lost() uint64 {
	if e := r.expected(); e > r.received {
		return r.lost + e - r.received
	}
	return r.lost
}

// Jitter is the interarrival jitter of RFC 3550 §6.4.1.
func (r *Reception) Jitter() time.Duration {
	return time.Duration(r.jitter>>4) * 125 * time.Microsecond
}

// Block is what a report block of RFC 3550 §6.4.1 says about this source.
type Block struct {
	Fraction uint8
	Lost     uint32 // 24 bits
	Highest  uint32
	Jitter   uint32 // samples
}

// Report makes the report block and begins the next interval.
func (r *Reception) Report() Block {
	expected, received := r.expected()-r.reported, r.received-r.reportedR
	r.reported, r.reportedR = r.expected(), r.received
	b := Block{Lost: uint32(min(r.Lost(), 1<<23-1)), Highest: r.cycles<<16 | uint32(r.high), Jitter: uint32(r.jitter >> 4)}
	if expected > received {
		b.Fraction = uint8((expected - received) << 8 / expected)
	}
	return b
}

// Moved says that another source follows: the numbering starts with its next
// packet, the sums go on.
func (r *Reception) Moved() {
	r.lost = r.Lost()
	r.started, r.timed, r.received = false, false, 0
}
