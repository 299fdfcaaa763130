package analogtest

import (
	"sync"
	"time"
)

// outgoing is a piece of what the card sends.
type outgoing struct {
	octets    []byte
	at        time.Time
	baudAfter uint32 // the rate changes when it has left
}

// outbox is what waits for the wire: control frames first, and at most three
// PCM frames a channel. A card has little memory: what does not fit is lost.
type outbox struct {
	mu     sync.Mutex
	ctrl   []outgoing
	pcm    []outgoing
	of     []int // channel of each in pcm
	perCh  []int
	signal chan struct{}
}

func newOutbox(channels int) outbox {
	return outbox{perCh: make([]int, channels), signal: make(chan struct{}, 1)}
}

func (o *outbox) kick() {
	select {
	case o.signal <- struct{}{}:
	default:
	}
}

func (o *outbox) put(m outgoing) {
	o.mu.Lock()
	if len(o.ctrl) < 1024 {
		o.ctrl = append(o.ctrl, m)
	}
	o.mu.Unlock()
	o.kick()
}

func (o *outbox) putPCM(ch int, m outgoing) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.perCh[ch] >= 3 {
		return false
	}
	o.perCh[ch]++
	o.pcm = append(o.pcm, m)
	o.of = append(o.of, ch)
	return true
}

func (o *outbox) next() (m outgoing, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case len(o.ctrl) > 0:
		m, o.ctrl = o.ctrl[0], o.ctrl[1:]
	case len(o.pcm) > 0:
		m, o.pcm = o.pcm[0], o.pcm[1:]
		o.perCh[o.of[0]]--
		o.of = o.of[1:]
	default:
		return m, false
	}
	return m, true
}

// forget drops what has not left.
func (o *outbox) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ctrl, o.pcm, o.of = nil, nil, nil
	clear(o.perCh)
}
