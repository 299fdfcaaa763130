package media

import (
	"sync/atomic"
	"time"

	"localloop/internal/dsp"
	"localloop/internal/media/jitter"
)

// lineLeg is the voice of an analog line.
type lineLeg struct {
	line     Line
	attached bool
	frames   frameRing
	ring     func() // wakes the loop

	buffer *jitter.Buffer // toward the line
	ssrc   uint32         // whose packets are in it
	keyer  keyer
	rx     *dsp.DTMFReceiver
	on     func(dsp.DTMFEvent)

	// The count of frames is the clock of the stream that goes out.
	seq uint16
	ts  uint32

	half [2 * frameLen]int16
	fill int
	out  [frameLen]int16

	quiet    int  // frames without a key in a row, until settled
	digit    byte // that sounds now; 0 none
	digitAt  uint64
	now      time.Time
	received uint64
	sent     uint64
}

// frameRing hands frames from the reader of the card to the loop: one writer,
// one reader, no lock.
type frameRing struct {
	slots   [16][frameLen]int16
	head    atomic.Uint32 // next to be read
	tail    atomic.Uint32 // next to be written
	dropped atomic.Uint64
}

// put copies a frame in; a loop that has stalled for 160 ms loses the newest.
func (r *frameRing) put(frame []int16) {
	tail := r.tail.Load()
	if tail-r.head.Load() >= uint32(len(r.slots)) {
		r.dropped.Add(1)
		return
	}
	slot := &r.slots[tail%uint32(len(r.slots))]
	clear(slot[copy(slot[:], frame):])
	r.tail.Store(tail + 1)
}

// get copies the oldest frame out.
func (r *frameRing) get(dst []int16) bool {
	head := r.head.Load()
	if head == r.tail.Load() {
		return false
	}
	copy(dst, r.slots[head%uint32(len(r.slots))][:])
	r.head.Store(head + 1)
	return true
}

func newLineLeg(l *leg, line Line, limits jitter.Limits, ring func()) *lineLeg {
	n := &lineLeg{line: line, buffer: jitter.New(limits), rx: dsp.NewDTMFReceiver(), ring: ring}
	n.on = func(e dsp.DTMFEvent) { n.dialled(l, e) }
	return n
}

// settled is how many frames without a key show that no key is left over from
// dialling: more than the receiver needs to notice one.
const settled = 6

// leftover reports that a key may still be held with which the call was dialled:
// it is not meant for the far end.
func (n *lineLeg) leftover() bool { return n.quiet < settled }

// settle watches for the release of a key that is left over from dialling.
func (n *lineLeg) settle() {
	switch {
	case !n.leftover():
	case n.rx.Present():
		n.quiet = 0
	default:
		n.quiet++
	}
}

// sink takes a frame from the card's reader.
func (n *lineLeg) sink(frame []int16) {
	n.frames.put(frame)
	n.ring()
}

// frame takes a frame from the line and gives it one in return.
func (v *voice) frame(now time.Time, l *leg, pcm []int16) {
	v.now = now
	n := l.line
	n.now = now
	n.received++
	n.rx.Feed(pcm, n.on)
	n.settle()
	if to := l.peer; to != nil && !l.held {
		if to.line != nil {
			// The far card has its own clock: the buffer joins the two.
			to.line.buffer.Put(now, uint16(n.ts/frameLen), n.ts, pcm)
		} else {
			l.lineToRTP(now, to, pcm)
		}
	}
	n.ts += frameLen
	l.toLine()
	n.line.Write(n.out[:])
	n.sent++
}

// toLine makes the next frame for the line.
func (l *leg) toLine() {
	n := l.line
	n.buffer.Pull(n.out[:]) // always: the flow of the buffer must not stop
	switch {
	case n.keyer.busy():
		n.keyer.fill(n.out[:])
	case l.player != nil:
		l.player.Fill(n.out[:])
	case l.peer == nil || l.held || l.peer.held:
		clear(n.out[:])
	}
}

// lineToRTP sends voice of a line, two frames a packet.
func (l *leg) lineToRTP(now time.Time, to *leg, pcm []int16) {
	n := l.line
	from := origin{leg: l, what: fromLine}
	p := to.sending()
	if p == nil || to.held || to.playing() || to.digits.busy() {
		n.fill = 0
		to.out.blocked(from)
		return
	}
	at := n.half[n.fill : n.fill+frameLen]
	if n.rx.Present() && p.terms.eventPT != absent {
		// Digits go as events; the tone must not be heard as well (C-97).
		clear(at)
	} else {
		copy(at, pcm)
	}
	if n.fill += frameLen; n.fill < len(n.half) {
		return
	}
	n.fill = 0
	p.terms.voice.law().Encode(l.v.plain[12:12+len(n.half)], n.half[:])
	to.emit(now, p, from, n.seq, n.ts-frameLen, p.terms.voicePT, false, len(n.half))
	n.seq++
}

// dialled takes a digit that was found in the line's voice.
func (n *lineLeg) dialled(l *leg, e dsp.DTMFEvent) {
	to := l.peer
	relay := to != nil && to.line == nil && !l.held && !to.held
	if e.On {
		if n.leftover() {
			return
		}
		n.digit, n.digitAt = e.Digit, e.Sample
		if !relay || to.digits.busy() {
			return
		}
		code, known := eventCode(e.Digit)
		if p := to.sending(); known && p != nil && p.terms.eventPT != absent {
			to.digits.start(to, n.now, code, time.Time{})
			l.v.sooner(to.digits.step(to, n.now))
		}
		return
	}
	if n.digit == 0 {
		return
	}
	d := time.Duration(e.Sample-n.digitAt) * 125 * time.Microsecond
	if relay {
		to.digits.stop(n.now)
		l.v.sooner(n.now)
	}
	l.v.events(DigitHeard{Leg: l.name, Digit: Digit{Digit: n.digit, Duration: d}})
	n.digit = 0
}

// fromRTP takes a packet of an RTP leg for the line.
func (n *lineLeg) fromRTP(now time.Time, from *leg, kind payload, k packet) {
	if n.ssrc != k.ssrc {
		n.ssrc = k.ssrc
		n.buffer.Reset()
	}
	switch kind {
	case pcma, pcmu:
		if len(k.payload) == 0 || len(k.payload) > len(from.v.pcm) {
			from.v.drops.malformed.Add(1)
			return
		}
		pcm := from.v.pcm[:len(k.payload)]
		kind.law().Decode(pcm, k.payload)
		n.buffer.Put(now, k.seq, k.ts, pcm)
	case noise:
		level := byte(65)
		if len(k.payload) > 0 {
			level = k.payload[0]
		}
		n.buffer.Silence(now, k.seq, k.ts, level)
	}
}
