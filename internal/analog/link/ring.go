package link

import "sync/atomic"

// ring is a queue of octets between one producer and one consumer, without a
// lock. put is all or nothing, so the consumer always sees whole frames.
type ring struct {
	buf  []byte        // length a power of two
	head atomic.Uint64 // written by the producer
	tail atomic.Uint64 // written by the consumer
}

func newRing(size int) *ring { return &ring{buf: make([]byte, size)} }

func (r *ring) put(p []byte) bool {
	head := r.head.Load()
	if len(r.buf)-int(head-r.tail.Load()) < len(p) {
		return false
	}
	at := int(head) & (len(r.buf) - 1)
	n := copy(r.buf[at:], p)
	copy(r.buf, p[n:])
	r.head.Store(head + uint64(len(p)))
	return true
}

// take appends everything that is queued.
func (r *ring) take(dst []byte) []byte {
	head, tail := r.head.Load(), r.tail.Load()
	at, n := int(tail)&(len(r.buf)-1), int(head-tail)
	first := min(n, len(r.buf)-at)
	dst = append(dst, r.buf[at:at+first]...)
	dst = append(dst, r.buf[:n-first]...)
	r.tail.Store(head)
	return dst
}
