package link

import "sync/atomic"

// maxGap is the largest jump of the sequence number that counts as loss, §7.
const maxGap = 9

// frameMillis is the length of a PCM frame here.
const frameMillis = 10

// Stream keeps the sequence rules of PCM on one channel from one START to the
// next, §7: the card is the clock, and exactly as many frames go out as came in,
// lost ones counted, plus one in reserve. Receive and NextSeq belong to the
// reader's goroutine, Depth to the session's.
type Stream struct {
	epoch   uint16
	next    uint16 // expected
	tx      uint16
	started bool

	adjust    atomic.Int32 // +1: send one more, -1: leave one out
	low, high int          // FILLs in a row, Depth only
	slips     atomic.Uint64
}

// NewStream returns the stream that START began with epoch.
func NewStream(epoch uint16) *Stream { return &Stream{epoch: epoch, next: epoch, tx: epoch} }

// Receive takes the sequence number of a frame. lost is how many frames are
// missing before it, send how many frames are to be sent in return. ok is false
// for a frame that is old, or of an earlier stream.
func (s *Stream) Receive(seq uint16) (lost, send int, ok bool) {
	gap := int(int16(seq - s.next))
	if !s.started {
		// Frames of the stream before START may still be under way.
		if gap < 0 || gap > 255 {
			return 0, 0, false
		}
		s.started = true
		s.next = seq + 1
		if gap >= maxGap {
			gap = 0
		}
		return 0, gap + 2, true
	}
	if gap < 0 {
		return 0, 0, false
	}
	s.next = seq + 1
	if gap >= maxGap {
		gap = 0
	}
	send = gap + 1
	if a := s.adjust.Swap(0); a != 0 {
		send += int(a)
		s.slips.Add(1)
	}
	return gap, send, true
}

// NextSeq is the sequence number of the next frame to send.
func (s *Stream) NextSeq() uint16 {
	n := s.tx
	s.tx++
	return n
}

// Depth takes the playout depth of a FILL, in ms.
func (s *Stream) Depth(ms uint8) {
	switch {
	case ms < frameMillis:
		s.high = 0
		if s.low++; s.low >= 2 {
			s.low = 0
			s.adjust.Store(1)
		}
	case ms > 3*frameMillis:
		s.low = 0
		if s.high++; s.high >= 3 {
			s.high = 0
			s.adjust.Store(-1)
		}
	default:
		s.low, s.high = 0, 0
	}
}

// Slips counts frames that were added or left out because of Depth.
func (s *Stream) Slips() uint64 { return s.slips.Load() }
