package media

import (
	"encoding/binary"
	"time"
)

// origin identifies where the packets of an outgoing stream come from at a
// time. When it changes, numbers and timestamps are anchored anew.
type origin struct {
	leg  *leg
	ssrc uint32
	what originKind
}

type originKind uint8

const (
	fromNothing originKind = iota
	fromPeer               // packets of the other leg
	fromLine               // frames of the other leg
	fromPlayer             // tones, music, in-band digits
	fromNoise
	fromDigit // RFC 4733 events of ours
)

// outgoing is one RTP stream to a peer. SSRC, sequence numbers and timestamps
// are ours and go on without a break whatever the source, so that the far end
// sees one party and its SRTP context stays valid.
type outgoing struct {
	ssrc    uint32
	started bool
	next    uint16    // the sequence number after the highest sent
	ts      uint32    // timestamp of the newest packet
	at      time.Time // when it was sent

	from    origin
	first   uint16 // first number of this origin: nothing before it may be sent
	seqDiff uint16
	tsDiff  uint32

	packets, octets uint64
}

func (o *outgoing) begin(random [8]byte) {
	o.ssrc = binary.BigEndian.Uint32(random[:])
	// Below 2^15, so that a reordered start cannot confuse a peer's rollover
	// counter (RFC 3711 §3.3.1).
	o.next = binary.BigEndian.Uint16(random[4:]) >> 1
	o.ts = uint32(binary.BigEndian.Uint16(random[6:])) << 8
}

// clock is the timestamp that belongs to now.
func (o *outgoing) clock(now time.Time) uint32 {
	if !o.started {
		return o.ts
	}
	d := now.Sub(o.at)
	return o.ts + uint32(max(0, d)*8000/time.Second)
}

// number maps a packet of an origin to the stream. fresh is true for the first
// of an origin: it carries the marker. ok is false for a packet from before the
// origin took over, whose number has been used.
func (o *outgoing) number(now time.Time, from origin, seq uint16, ts uint32) (outSeq uint16, outTS uint32, fresh, ok bool) {
	if o.from != from {
		clock := o.clock(now)
		if o.started && int32(clock-o.ts) <= 0 {
			clock = o.ts + 1 // two sources within one sample: time must not stand still
		}
		o.from, o.first = from, o.next
		o.seqDiff, o.tsDiff = o.next-seq, clock-ts
		fresh = true
	}
	outSeq, outTS = seq+o.seqDiff, ts+o.tsDiff
	if int16(outSeq-o.first) < 0 {
		return 0, 0, false, false
	}
	return outSeq, outTS, fresh, true
}

// sent records a packet.
func (o *outgoing) sent(now time.Time, seq uint16, ts uint32, size int) {
	if !o.started || int16(seq-o.next) >= 0 {
		o.next = seq + 1
		if !o.started || int32(ts-o.ts) > 0 {
			o.ts, o.at = ts, now
		}
	}
	o.started = true
	o.packets++
	o.octets += uint64(size)
}

// skip closes the gap that a packet which is not forwarded would leave: the far
// end would count it as lost. What comes later from before it is dropped.
func (o *outgoing) skip(from origin, seq uint16) {
	if o.from == from && seq+o.seqDiff == o.next {
		o.seqDiff--
		o.first = o.next
	}
}

// interrupt makes the next packet anchor anew.
func (o *outgoing) interrupt() { o.from = origin{} }

// blocked notes that a packet of an origin could not be sent: when it speaks
// again it begins anew, without a gap in the numbers.
func (o *outgoing) blocked(from origin) {
	if o.from == from {
		o.interrupt()
	}
}

// header writes an RTP header without sources or extension, RFC 3550 §5.1.
func header(b []byte, marker bool, pt uint8, seq uint16, ts, ssrc uint32) {
	b[0] = 0x80
	b[1] = pt
	if marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], ts)
	binary.BigEndian.PutUint32(b[8:], ssrc)
}

// packet is a parsed RTP packet.
type packet struct {
	marker  bool
	pt      uint8
	seq     uint16
	ts      uint32
	ssrc    uint32
	payload []byte
}

// parse reads an RTP packet, RFC 3550 §5.1. It reports false for what is none.
func parse(b []byte) (packet, bool) {
	if len(b) < 12 || b[0]>>6 != 2 {
		return packet{}, false
	}
	n := 12 + 4*int(b[0]&0x0F)
	if b[0]&0x10 != 0 {
		if len(b) < n+4 {
			return packet{}, false
		}
		n += 4 + 4*int(binary.BigEndian.Uint16(b[n+2:]))
	}
	end := len(b)
	if b[0]&0x20 != 0 {
		pad := int(b[len(b)-1])
		if pad == 0 {
			return packet{}, false
		}
		end -= pad
	}
	if n > end {
		return packet{}, false
	}
	return packet{
		marker: b[1]&0x80 != 0, pt: b[1] & 0x7F, seq: binary.BigEndian.Uint16(b[2:]),
		ts: binary.BigEndian.Uint32(b[4:]), ssrc: binary.BigEndian.Uint32(b[8:]), payload: b[n:end],
	}, true
}
