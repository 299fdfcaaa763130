// Package jitter turns the packets of a voice stream into the even flow of
// samples that an analog line needs.
//
// The main type is Buffer. Packets are put in as they arrive, frames are pulled
// by the clock of the line card, which is the master: the sender's clock and the
// network follow. The delay adapts between two limits; what is lost is
// concealed, silence becomes comfort noise (RFC 3389), and clocks that drift are
// reconciled by removing or repeating a pitch period.
//
// The package is pure: the time of arrival is given, and there is no socket, no
// goroutine and no randomness. Nothing allocates but New. Relaying between two
// RTP legs has no jitter buffer: the far end has one.
package jitter

import "time"

// Rate of all samples, in Hz.
const Rate = 8000

const (
	ring = 8192 // samples, 1.02 s; a power of two
	mask = ring - 1

	// behind is how many samples stay readable after they were played, for
	// repeating a pitch period.
	behind = 1024

	// holdLimit is how long an empty buffer waits for a late packet with its
	// play position standing still; then the peer counts as silent.
	holdLimit = Rate / 5

	// lateRun is how many late packets in a row show that the sender's clock
	// stepped back, not that the network was slow.
	lateRun = 10

	// MaxPacket is the longest packet accepted, 200 ms.
	MaxPacket = Rate / 5
)

// Limits of the playout delay.
type Limits struct{ Min, Max time.Duration }

// Counts of a buffer. Late, Duplicate and Resyncs are packets and events,
// Concealed is samples.
type Counts struct {
	Received  uint64
	Late      uint64 // arrived after their time and were discarded
	Duplicate uint64
	Resyncs   uint64 // play position set anew: first packet, after silence, after a jump
	Concealed uint64
	Removed   uint64 // samples taken out to lower the delay or follow a fast clock
	Inserted  uint64 // samples repeated to raise it or follow a slow clock
}

// cell says what a place of the ring holds.
type cell uint8

const (
	empty cell = iota
	voice
	silence // the sender said nothing here (DTX): not a loss
)

// Buffer is the jitter buffer of one stream. It belongs to one goroutine.
//
//	            first packet                    nothing left, CN or 200 ms
//	   quiet ───────────────────────▶ playing ─────────────────────────────▶ quiet
//	(comfort noise)               (voice, conceal)                     (comfort noise)
type Buffer struct {
	pcm  [ring]int16
	have [ring]cell

	playing bool
	play    uint32 // timestamp of the next sample to be played
	end     uint32 // timestamp after the newest sample
	held    int    // samples output while the play position stood still

	lastSeq uint16 // of the newest packet
	lastEnd uint32
	cn      bool // the newest packet was comfort noise
	lateRun int  // packets in a row that came too late

	delay  estimator
	cover  concealer
	noise  Noise
	pause  int // samples until the next change of delay
	count  Counts
	limits [2]int
}

// New makes a buffer. Limits that are zero mean 20 ms and 200 ms.
func New(l Limits) *Buffer {
	if l.Min <= 0 {
		l.Min = 20 * time.Millisecond
	}
	if l.Max <= 0 {
		l.Max = 200 * time.Millisecond
	}
	b := &Buffer{}
	b.limits[0] = min(samples(l.Min), Rate/2)
	b.limits[1] = max(min(samples(l.Max), Rate/2), b.limits[0])
	b.delay.reset(b.limits[0])
	return b
}

func samples(d time.Duration) int { return int(d * Rate / time.Second) }

// Reset forgets the stream but keeps counts and noise level: another source
// speaks now.
func (b *Buffer) Reset() {
	b.quiet()
	b.delay.reset(b.limits[0])
}

// Put stores a packet of samples that arrived at now. seq and timestamp are
// those of the sender. It reports false when the packet was not used.
func (b *Buffer) Put(now time.Time, seq uint16, timestamp uint32, pcm []int16) bool {
	n := len(pcm)
	if n == 0 || n > MaxPacket {
		return false
	}
	b.count.Received++
	b.delay.arrived(now, timestamp)
	target := b.target()
	lead := int32(timestamp - b.play)
	switch {
	case !b.playing:
		b.start(seq, timestamp, target)
		lead = int32(target)
	case lead+int32(n) <= 0 && lead > -ring && b.lateRun < lateRun:
		b.count.Late++
		b.lateRun++
		return false
	case lead+int32(n) <= 0 || int(lead)+n > ring-behind:
		// A jump of the sender's clock: nothing of the old belongs to the new.
		b.start(seq, timestamp, target)
		lead = int32(target)
	}
	b.lateRun = 0
	b.delay.led(lead)
	if newer := int16(seq - b.lastSeq); newer > 0 {
		// Consecutive numbers with a gap in time are silence, not loss.
		if newer == 1 && int32(timestamp-b.lastEnd) > 0 {
			b.mark(b.lastEnd, timestamp, silence)
		}
		b.lastSeq, b.lastEnd, b.cn = seq, timestamp+uint32(n), false
	}
	if lead < 0 {
		pcm, timestamp = pcm[-lead:], b.play
	}
	if b.have[timestamp&mask] == voice {
		b.count.Duplicate++
		return false
	}
	for i, s := range pcm {
		at := (timestamp + uint32(i)) & mask
		b.pcm[at], b.have[at] = s, voice
	}
	if e := timestamp + uint32(len(pcm)); int32(e-b.end) > 0 {
		b.end = e
	}
	return true
}

// Silence tells that the sender is silent from timestamp on. level is the noise
// level of RFC 3389 §3.1: -dBov, 0 to 127.
func (b *Buffer) Silence(now time.Time, seq uint16, timestamp uint32, level byte) {
	b.noise.Announced(level)
	if int16(seq-b.lastSeq) > 0 || !b.playing {
		b.lastSeq, b.lastEnd, b.cn = seq, timestamp, true
	}
}

// start sets the play position so that the packet at timestamp is heard after
// the target delay.
func (b *Buffer) start(seq uint16, timestamp uint32, target int) {
	clear(b.have[:])
	b.playing, b.held, b.cn = true, 0, false
	b.play, b.end = timestamp-uint32(target), timestamp
	b.mark(b.play, timestamp, silence)
	b.lastSeq, b.lastEnd = seq-1, timestamp
	b.delay.settle(target)
	b.pause = Rate / 2
	b.count.Resyncs++
}

func (b *Buffer) quiet() { b.playing = false }

// mark sets empty places from one timestamp up to another.
func (b *Buffer) mark(from, to uint32, c cell) {
	if int32(to-from) > ring-behind {
		return
	}
	if int32(from-b.play) < 0 {
		from = b.play
	}
	for t := from; int32(to-t) > 0; t++ {
		if b.have[t&mask] == empty {
			b.have[t&mask] = c
		}
	}
}

// advance moves the play position and wipes what nobody can reach any more.
func (b *Buffer) advance(n int) {
	for i := range n {
		b.have[(b.play+uint32(i)-behind)&mask] = empty
	}
	b.play += uint32(n)
}

// Pull writes the next samples for the line; it is called once for each frame
// that the line sends. dst holds at most 80 samples.
func (b *Buffer) Pull(dst []int16) {
	if b.pause > 0 {
		b.pause -= len(dst)
	}
	for len(dst) > 0 {
		dst = dst[b.some(dst):]
	}
}

// some writes at least one sample of one kind and reports how many.
func (b *Buffer) some(dst []int16) int {
	if !b.playing {
		b.noise.Fill(dst)
		b.cover.played(dst)
		return len(dst)
	}
	ahead := int(int32(b.end - b.play))
	if ahead <= 0 {
		return b.starve(dst)
	}
	at := b.have[b.play&mask]
	run := 1
	for run < len(dst) && run < ahead && b.have[(b.play+uint32(run))&mask] == at {
		run++
	}
	switch at {
	case voice:
		b.held = 0
		if run == len(dst) {
			if n := b.stretch(dst); n > 0 {
				return n
			}
		}
		for i := range run {
			dst[i] = b.pcm[(b.play+uint32(i))&mask]
		}
		b.cover.join(dst[:run])
		b.noise.heard(dst[:run])
		b.cover.played(dst[:run])
		b.advance(run)
		return run
	case silence:
		b.held = 0
		b.noise.Fill(dst[:run])
		b.cover.join(dst[:run])
		b.cover.played(dst[:run])
		b.advance(run)
		return run
	}
	// Lost. What was concealed while waiting for it need not be heard twice.
	if skip := min(b.held, run); skip > 0 {
		b.held -= skip
		b.advance(skip)
		return 0
	}
	b.conceal(dst[:run])
	b.advance(run)
	return run
}

// starve bridges an empty buffer. The play position stands still, so that
// packets that are merely late are still heard, later.
func (b *Buffer) starve(dst []int16) int {
	if b.cn || b.held >= holdLimit {
		b.quiet()
		return 0
	}
	b.held += len(dst)
	b.conceal(dst)
	return len(dst)
}

func (b *Buffer) conceal(dst []int16) {
	b.cover.fill(dst, &b.noise)
	b.cover.played(dst)
	b.count.Concealed += uint64(len(dst))
}

// target is the wanted delay in samples.
func (b *Buffer) target() int {
	return max(b.limits[0], min(b.limits[1], b.delay.wanted()))
}

// Counts returns what was counted so far.
func (b *Buffer) Counts() Counts { return b.count }

// Delay is the present playout delay of the quickest packets.
func (b *Buffer) Delay() time.Duration { return time.Duration(b.delay.now()) * time.Second / Rate }

// Target is the delay that the buffer aims at.
func (b *Buffer) Target() time.Duration { return time.Duration(b.target()) * time.Second / Rate }
