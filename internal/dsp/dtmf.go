package dsp

import (
	"fmt"
	"strings"
	"time"
)

// dtmfRows and dtmfColumns are the frequencies of ITU-T Q.23 in Hz.
var (
	dtmfRows    = [4]float64{697, 770, 852, 941}
	dtmfColumns = [4]float64{1209, 1336, 1477, 1633}
)

// dtmfKeys is the keypad, row by row.
const dtmfKeys = "123A456B789C*0#D"

// DTMFSender sends digits, ITU-T Q.23. It belongs to one goroutine.
type DTMFSender struct {
	high, low float32 // peak amplitude
	queue     []dtmfKey
	at        int // key of the queue under way
	played    int // samples of it
	row, col  phase
}

type dtmfKey struct {
	row, col phase // advance per sample; zero for a pause
	on, off  int   // samples
}

// NewDTMFSender makes a sender of digits whose high and low group have the given
// levels in dBm0; a Plan has those of its country.
func NewDTMFSender(highDBm0, lowDBm0 float64) *DTMFSender {
	return &DTMFSender{high: float32(peak(highDBm0)), low: float32(peak(lowDBm0))}
}

// dialPause is how long a comma in a dial string waits, as with V.250 modems.
const dialPause = 2 * time.Second

// Queue adds digits, each on for on and followed by off of silence. 0–9 * # A–D
// (either case) are sent, a comma waits two seconds. Nothing is queued if there
// is any other character. Exchanges accept from 40 ms on and 40 ms off (Q.24).
func (s *DTMFSender) Queue(digits string, on, off time.Duration) error {
	up := strings.ToUpper(digits)
	if i := strings.IndexFunc(up, func(r rune) bool { return r != ',' && !strings.ContainsRune(dtmfKeys, r) }); i >= 0 {
		return fmt.Errorf("queue digits %q: %q is no digit", digits, up[i:i+1])
	}
	if s.at == len(s.queue) {
		s.queue, s.at, s.played = s.queue[:0], 0, 0
	}
	for _, r := range up {
		if r == ',' {
			s.queue = append(s.queue, dtmfKey{off: samples(dialPause)})
			continue
		}
		k := strings.IndexRune(dtmfKeys, r)
		s.queue = append(s.queue, dtmfKey{
			row: perSample(dtmfRows[k/4]), col: perSample(dtmfColumns[k%4]),
			on: samples(on), off: samples(off),
		})
	}
	return nil
}

// Clear forgets digits that have not begun. A digit under way is completed.
func (s *DTMFSender) Clear() {
	if s.at < len(s.queue) {
		s.queue = s.queue[:s.at+1]
	}
}

// Fill writes the next len(dst) samples and reports whether any part of dst
// belongs to a queued digit or its pause. When nothing is left it writes silence
// and returns false. It does not allocate.
func (s *DTMFSender) Fill(dst []int16) bool {
	if s.at == len(s.queue) {
		clear(dst)
		return false
	}
	for i := range dst {
		dst[i] = s.next()
	}
	// The last sample of the last pause may be the last of dst.
	if k := s.at; k == len(s.queue)-1 && s.played == s.queue[k].on+s.queue[k].off {
		s.at, s.played = len(s.queue), 0
	}
	return true
}

func (s *DTMFSender) next() int16 {
	for s.at < len(s.queue) && s.played >= s.queue[s.at].on+s.queue[s.at].off {
		s.at++
		s.played = 0
	}
	if s.at == len(s.queue) {
		return 0
	}
	k := &s.queue[s.at]
	n := s.played
	s.played++
	if n >= k.on {
		return 0
	}
	if n == 0 {
		s.row, s.col = 0, 0
	}
	v := s.low*s.row.sin() + s.high*s.col.sin()
	s.row += k.row
	s.col += k.col
	if n < edgeLen {
		v *= edge[n]
	}
	if left := k.on - 1 - n; left < edgeLen {
		v *= edge[left]
	}
	return clip16(float64(v))
}
