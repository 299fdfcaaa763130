package analog

import (
	"localloop/internal/analog/link"
	"localloop/internal/dsp"
)

// stream is one run of PCM on a channel, from START to STOP. All but seq.Depth
// is the reader's.
type stream struct {
	seq   *link.Stream
	law   dsp.Law
	voice *Voice
	send  func(h link.Header, body []byte)

	channel uint8
	in, out [frameLen]int16
	octets  [frameLen]byte
	missing int // frames concealed in a row
}

// receive takes one PCM frame from the card and sends what is due in return:
// the card is the clock.
func (s *stream) receive(h link.Header, body []byte) {
	if len(body) != frameLen {
		return
	}
	lost, due, ok := s.seq.Receive(h.Seq)
	if !ok {
		return
	}
	for range lost {
		s.conceal()
		s.voice.lost.Add(1)
		s.voice.hear(s.in[:])
		due = s.answer(due, h.Clock)
	}
	s.missing = 0
	s.law.Decode(s.in[:], body)
	s.voice.hear(s.in[:])
	for due > 0 {
		due = s.answer(due, h.Clock)
	}
}

func (s *stream) answer(due int, clock uint16) int {
	if due <= 0 {
		return 0
	}
	s.voice.speak(s.out[:])
	s.law.Encode(s.octets[:], s.out[:])
	s.send(link.Header{Type: link.TypePCM, Channel: s.channel, Seq: s.seq.NextSeq(), Clock: clock}, s.octets[:])
	return due - 1
}

// conceal stands in for a lost frame: the last one, fading out within 60 ms.
func (s *stream) conceal() {
	s.missing++
	if s.missing > 6 {
		clear(s.in[:])
		return
	}
	for i := range s.in {
		s.in[i] = s.in[i] * 3 / 4
	}
}
