package analogtest

import (
	"math"
	"time"
)

// stream is the PCM of one channel in both directions.
type stream struct {
	on   bool
	ms   int // frame
	law  Law
	seq  uint16 // of the next frame to the host
	buf  []int16
	want uint16 // expected from the host
	any  bool   // a frame has come

	queue   [][]int16 // waits for playout
	limit   int       // frames
	playing bool
	since   int     // samples since the first frame came, before playout
	fading  int     // samples of concealment since the last real frame
	last    []int16 // the last frame played, for concealment
	head    []int16 // rest of the frame being played
	low     int     // fewest ms waiting since the last FILL
	starved bool
	missed  int // samples of silence or concealment since the last frame came
}

// start begins streams, docs/linecard-link.md §6.1.
func (c *Card) start(ms int, law byte, mask uint32, epoch uint16) byte {
	ok := false
	for _, s := range c.opt.FrameMS {
		ok = ok || s == ms
	}
	if !ok || law > 1 || mask>>len(c.ports) != 0 {
		return stBadArgument
	}
	l := ALaw
	if law == 1 {
		l = MuLaw
	}
	known := false
	for _, k := range c.opt.Laws {
		known = known || k == l
	}
	if !known {
		return stUnsupported
	}
	for i, p := range c.ports {
		if mask>>i&1 != 0 && p.kind() == Absent {
			return stUnsupported
		}
	}
	for i, p := range c.ports {
		if mask>>i&1 != 0 {
			p.base().stream = stream{on: true, ms: ms, law: l, seq: epoch, want: epoch, limit: max(3, c.opt.BufferMS/ms)}
		}
	}
	return stOK
}

// play takes one frame from the host.
func (b *channel) play(seq uint16, body []byte) bool {
	s, n := &b.stream, &b.c.count
	if !s.on || len(body) != 8*s.ms {
		return false
	}
	gap := seq - s.want
	switch {
	case gap >= 0x8000, gap > 255 && !s.any: // old or equal; of the stream before
		n.Overruns++
		return true
	case gap >= 1 && gap <= 8 && s.any:
		// What an empty buffer has concealed already is not concealed again: the
		// delay stays as it was.
		done := min(int(gap), s.missed/(8*s.ms))
		for range int(gap) - done {
			s.push(s.conceal(8*s.ms), n)
		}
		n.Concealed += uint64(gap)
	}
	s.missed = 0
	s.want = seq + 1
	s.any = true
	pcm := make([]int16, len(body))
	s.law.Decode(pcm, body)
	s.push(pcm, n)
	s.last, s.fading = pcm, 0
	n.PCMIn++
	b.in++
	return true
}

func (s *stream) push(pcm []int16, n *Counters) {
	if len(s.queue) >= s.limit {
		s.queue = s.queue[1:]
		n.Overruns++
	}
	s.queue = append(s.queue, pcm)
}

// conceal continues the last frame, fading out within 60 ms.
func (s *stream) conceal(n int) []int16 {
	pcm := make([]int16, n)
	if len(s.last) == 0 {
		return pcm
	}
	for i := range pcm {
		gain := 1 - float64(s.fading)/480
		if gain <= 0 {
			break
		}
		pcm[i] = int16(math.Round(gain * float64(s.last[s.fading%len(s.last)])))
		s.fading++
	}
	return pcm
}

// pull takes what the line needs now.
func (s *stream) pull(dst []int16, n *Counters) {
	clear(dst)
	if !s.on || !s.any {
		return
	}
	if !s.playing {
		s.since += len(dst)
		if len(s.queue) < 2 && s.since < 3*8*s.ms {
			return
		}
		s.playing, s.low = true, s.depth()
	}
	s.low = min(s.low, s.depth())
	for len(dst) > 0 {
		if len(s.head) == 0 {
			if len(s.queue) == 0 {
				if !s.starved {
					n.Underruns++
				}
				s.starved, s.low = true, 0
				copy(dst, s.conceal(len(dst)))
				s.missed += len(dst)
				return
			}
			s.head, s.queue = s.queue[0], s.queue[1:]
			s.starved = false
		}
		k := copy(dst, s.head)
		dst, s.head = dst[k:], s.head[k:]
	}
}

// depth is what waits for playout in ms.
func (s *stream) depth() int {
	n := len(s.head)
	for _, q := range s.queue {
		n += len(q)
	}
	return n / 8
}

// fill is what FILL reports.
func (s *stream) fill() int {
	v := s.low
	s.low = s.depth()
	return min(v, 255)
}

// channel is what FXS and FXO channels have in common.
type channel struct {
	c      *Card
	w      *world
	i      int
	stream stream
	in     uint64 // frames
	out    uint64
	fault  byte

	gainTo, gainFrom float64 // factors
	tone             *player
	digits           *dtmfReceiver
	digit            byte

	reflection float64
	echo       []int16 // delay line of what went to the wires
	to, from   []int16
}

func newChannel(c *Card, i int, d Channel) *channel {
	n := c.tick * 8
	b := &channel{c: c, w: c.w, i: i, to: make([]int16, n), from: make([]int16, n), gainTo: 1, gainFrom: 1}
	if d.Reflection != 0 {
		if d.ReflectionDelay == 0 {
			d.ReflectionDelay = 2 * time.Millisecond
		}
		b.reflection = math.Pow(10, d.Reflection/20)
		b.echo = make([]int16, samples(d.ReflectionDelay))
	}
	if c.opt.DTMFReceiver {
		b.digits = &dtmfReceiver{}
	}
	return b
}

func (b *channel) base() *channel { return b }

// restChannel puts the settings of a channel at their defaults.
func (b *channel) restChannel() {
	b.gainTo, b.gainFrom, b.tone, b.digit = 1, 1, nil, 0
}

// frame is one tick of audio: from the stream to the line and back.
func (b *channel) frame(p port) {
	b.stream.pull(b.to, &b.c.count)
	if b.gainTo != 1 {
		for i, s := range b.to {
			b.to[i] = clip(float64(s) * b.gainTo)
		}
	}
	if b.tone != nil {
		b.tone.fill(b.to)
		if b.tone.ended {
			b.tone = nil
			b.event(evToneDone)
		}
	}
	p.audio(b.to, b.from)
	if b.reflection != 0 && len(b.echo) > 0 {
		for i, s := range b.to {
			b.from[i] = mix(b.from[i], b.reflection*float64(b.echo[0]))
			b.echo = append(b.echo[1:], s)
		}
	}
	if b.gainFrom != 1 {
		for i, s := range b.from {
			b.from[i] = clip(float64(s) * b.gainFrom)
		}
	}
	b.detect()
	s := &b.stream
	if !s.on {
		return
	}
	s.buf = append(s.buf, b.from...)
	for n := 8 * s.ms; len(s.buf) >= n; s.buf = s.buf[n:] {
		body := make([]byte, n)
		s.law.Encode(body, s.buf[:n])
		b.c.link.send(tPCM, byte(b.i), s.seq, uint16(b.w.ms-uint64(s.ms)), body)
		s.seq++
		b.c.count.PCMOut++
		b.out++
	}
}

// detect is the card's own DTMF receiver.
func (b *channel) detect() {
	r := b.digits
	if r == nil {
		return
	}
	if b.digit != 0 && r.now != b.digit {
		b.event(evDTMF, b.digit, 0)
		b.digit = 0
	}
	r.feed(b.from, func(d byte) {
		if b.digit != 0 {
			b.event(evDTMF, b.digit, 0)
		}
		b.digit = d
		b.event(evDTMF, d, 1)
	})
}

// event reports what happens now.
func (b *channel) event(id byte, args ...byte) { b.eventAt(b.w.ms, id, args...) }

// eventAt reports what happened at ms.
func (b *channel) eventAt(ms uint64, id byte, args ...byte) {
	b.w.tell(b.i, "event %s % x", eventNames[id], args)
	b.c.link.reliable(tEvt, byte(b.i), uint16(ms), append([]byte{id}, args...))
}

func (b *channel) sendState() {
	hook, ring, rev, fault := b.c.ports[b.i].state()
	b.event(evState, hook, ring, rev, fault)
}
