package link

import (
	"errors"
	"time"
)

const (
	window   = 4  // frames of a direction without ACK, one a channel
	maxQueue = 32 // frames that wait for a channel
	// memory is how long the receiver remembers the last frame of a channel:
	// longer than any repeat, shorter than a counter needs to come round.
	memory = 3 * time.Second
)

// retry is how long to wait after each transmission, §3.
var retry = [...]time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond,
	400 * time.Millisecond, 800 * time.Millisecond}

// ErrQueueFull says that a channel has too many commands outstanding.
var ErrQueueFull = errors.New("command queue full")

// order is one reliable frame on its way.
type order struct {
	h    Header
	body []byte
	done func(Status)
	sent int       // transmissions
	due  time.Time // of the next repeat, or of giving up
}

// outbox sends reliable frames: at most one of a channel and window in all
// without ACK, each repeated until it is acknowledged.
type outbox struct {
	seq     uint16
	flying  map[uint8]*order
	waiting []*order // in order of Command
	write   func(Header, []byte)
	repeats uint64
}

func newOutbox(write func(Header, []byte)) *outbox {
	return &outbox{flying: map[uint8]*order{}, write: write}
}

func (o *outbox) add(now time.Time, t Type, ch uint8, body []byte, clock uint16, done func(Status)) error {
	n := 0
	for _, w := range o.waiting {
		if w.h.Channel == ch {
			n++
		}
	}
	if n >= maxQueue {
		return ErrQueueFull
	}
	o.waiting = append(o.waiting, &order{h: Header{Type: t, Channel: ch, Clock: clock}, body: body, done: done})
	o.launch(now)
	return nil
}

// launch sends what the window allows.
func (o *outbox) launch(now time.Time) {
	held := map[uint8]bool{}
	for i := 0; i < len(o.waiting) && len(o.flying) < window; {
		w := o.waiting[i]
		if o.flying[w.h.Channel] != nil || held[w.h.Channel] {
			held[w.h.Channel] = true
			i++
			continue
		}
		o.waiting = append(o.waiting[:i], o.waiting[i+1:]...)
		w.h.Seq = o.seq
		o.seq++
		o.flying[w.h.Channel] = w
		o.transmit(now, w)
	}
}

func (o *outbox) transmit(now time.Time, w *order) {
	w.due = now.Add(retry[w.sent])
	w.sent++
	o.write(w.h, w.body)
}

// ack takes an acknowledgement. One that fits nothing is that of a repeat.
func (o *outbox) ack(now time.Time, ch uint8, seq uint16, s Status) {
	w := o.flying[ch]
	if w == nil || w.h.Seq != seq {
		return
	}
	delete(o.flying, ch)
	o.launch(now)
	if w.done != nil {
		w.done(s)
	}
}

// tick repeats what is due. It reports false when a frame ran out of repeats.
func (o *outbox) tick(now time.Time) bool {
	for ch := range o.each() {
		w := o.flying[ch]
		if now.Before(w.due) {
			continue
		}
		if w.sent == len(retry) {
			return false
		}
		o.repeats++
		o.transmit(now, w)
	}
	return true
}

// each goes through the channels in flight in order, so that runs are equal.
func (o *outbox) each() func(func(uint8) bool) {
	return func(yield func(uint8) bool) {
		for ch := range 256 {
			if o.flying[uint8(ch)] != nil && !yield(uint8(ch)) {
				return
			}
		}
	}
}

// next is when tick has something to do; zero if never.
func (o *outbox) next() (t time.Time) {
	for _, w := range o.flying {
		t = earlier(t, w.due)
	}
	return t
}

// drop forgets everything and says so to those who wait.
func (o *outbox) drop() {
	var all []*order
	for ch := range o.each() {
		all = append(all, o.flying[ch])
	}
	all = append(all, o.waiting...)
	o.flying, o.waiting, o.seq = map[uint8]*order{}, nil, 0
	for _, w := range all {
		if w.done != nil {
			w.done(StatusLinkDown)
		}
	}
}

// inbox recognises repeats, for each channel by the last frame.
type inbox struct {
	last map[uint8]handled
}

type handled struct {
	seq    uint16
	status Status
	at     time.Time
}

// repeat reports whether the frame was handled before, and how.
func (i *inbox) repeat(now time.Time, ch uint8, seq uint16) (Status, bool) {
	h, ok := i.last[ch]
	return h.status, ok && h.seq == seq && now.Sub(h.at) < memory
}

func (i *inbox) remember(now time.Time, ch uint8, seq uint16, s Status) {
	i.last[ch] = handled{seq, s, now}
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
