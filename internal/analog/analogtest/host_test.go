package analogtest

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// testHost is the smallest host that makes a card work: it opens a session,
// acknowledges, and answers PCM frame by frame.
type testHost struct {
	t    *testing.T
	conn io.ReadWriteCloser

	mu      sync.Mutex
	changed chan struct{}
	in      splitter
	got     []frame
	acks    map[uint16]byte // CMD seq -> status
	seq     uint16
	mute    bool // sends nothing of itself
	noAck   bool
	skip    int // PCM frames not to be answered
	pcm     map[byte]*hostStream
	done    chan struct{}
	out     chan []byte
	written chan struct{}
}

type hostStream struct {
	law    Law
	seq    uint16
	first  bool
	tone   *player
	say    []int16 // instead of tone
	heard  []int16
	frames int
	last   uint16
	gaps   int
}

func newTestHost(t *testing.T, conn io.ReadWriteCloser) *testHost {
	h := &testHost{t: t, conn: conn, changed: make(chan struct{}), acks: map[uint16]byte{}, pcm: map[byte]*hostStream{}, done: make(chan struct{}), out: make(chan []byte, 1000), written: make(chan struct{})}
	go h.read()
	// One writer only: a second one would wait for net.Pipe's mutex, which
	// testing/synctest does not take for waiting.
	go func() {
		for p := range h.out {
			h.conn.Write(p)
		}
		close(h.written)
	}()
	return h
}

func (h *testHost) close() {
	h.conn.Close()
	<-h.done
	close(h.out)
	<-h.written
}

func (h *testHost) write(f frame) {
	select {
	case h.out <- f.wire():
	default: // the card does not read
	}
}

func (h *testHost) read() {
	defer close(h.done)
	buf := make([]byte, 512)
	for {
		n, err := h.conn.Read(buf)
		var out []frame
		h.mu.Lock()
		h.in.feed(buf[:n], func(f frame) { out = append(out, h.take(f)...) })
		close(h.changed)
		h.changed = make(chan struct{})
		h.mu.Unlock()
		for _, f := range out {
			h.write(f)
		}
		if err != nil {
			return
		}
	}
}

func (h *testHost) take(f frame) (out []frame) {
	f.body = append([]byte(nil), f.body...)
	if f.typ != tPCM {
		h.got = append(h.got, f)
	}
	if h.mute {
		return nil
	}
	switch f.typ {
	case tEvt, tAlarm:
		if !h.noAck {
			out = append(out, frame{tAck, f.ch, 0, f.clock, []byte{byte(f.seq), byte(f.seq >> 8), stOK}})
		}
	case tAck:
		h.acks[binary.LittleEndian.Uint16(f.body)] = f.body[2]
	case tFill: // each 100 ms while a stream runs: keeps the link alive as well
	case tPCM:
		s := h.pcm[f.ch]
		if s == nil {
			return nil
		}
		pcm := make([]int16, len(f.body))
		s.law.Decode(pcm, f.body)
		s.heard = append(s.heard, pcm...)
		if !s.first && f.seq != s.last+1 {
			s.gaps++
		}
		s.last = f.seq
		s.frames++
		n := 1
		if s.first {
			n, s.first = 2, false
		}
		for range n {
			pcm := make([]int16, len(f.body))
			switch {
			case len(s.say) > 0:
				s.say = s.say[copy(pcm, s.say):]
			case s.tone != nil:
				s.tone.fill(pcm)
			}
			body := make([]byte, len(pcm))
			s.law.Encode(body, pcm)
			if h.skip > 0 {
				h.skip--
			} else {
				out = append(out, frame{tPCM, f.ch, s.seq, f.clock, body})
			}
			s.seq++
		}
	}
	return out
}

func (h *testHost) wait(what string, ok func() bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for {
		h.mu.Lock()
		if ok() {
			h.mu.Unlock()
			return
		}
		ch := h.changed
		h.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			h.t.Fatalf("host: %s did not come; the last: %+v", what, h.got[max(0, len(h.got)-5):])
		}
	}
}

func helloBody(id uint32) []byte {
	return appendTLV(appendTLV(nil, 1, 1, 0), 2, binary.LittleEndian.AppendUint32(nil, id)...)
}

// hello opens a session and keeps it alive until ctx ends.
func (h *testHost) hello(id uint32) {
	h.t.Helper()
	h.mu.Lock()
	h.seq = 0
	before := h.count(tWelcome)
	h.mu.Unlock()
	answered := make(chan struct{})
	defer close(answered)
	go func() { // each 200 ms, as the document says
		for {
			h.write(frame{tHello, chCard, 0, 0, helloBody(id)})
			select {
			case <-answered:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	h.wait("WELCOME", func() bool { return h.count(tWelcome) > before })
}

// ping keeps the link up until stop is closed.
func (h *testHost) ping(stop <-chan struct{}) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			h.write(frame{tPing, chCard, 0, 0, make([]byte, 8)})
		}
	}
}

func (h *testHost) count(typ byte) (n int) {
	for _, f := range h.got {
		if f.typ == typ {
			n++
		}
	}
	return n
}

// reliable sends a frame and returns the status of its ACK.
func (h *testHost) reliable(typ, ch byte, body ...byte) byte {
	h.t.Helper()
	h.mu.Lock()
	seq := h.seq
	h.seq++
	delete(h.acks, seq)
	h.mu.Unlock()
	h.write(frame{typ, ch, seq, 0, body})
	var status byte
	h.wait("ACK", func() bool {
		s, ok := h.acks[seq]
		status = s
		return ok
	})
	return status
}

func (h *testHost) must(typ, ch byte, body ...byte) {
	h.t.Helper()
	if s := h.reliable(typ, ch, body...); s != stOK {
		h.t.Fatalf("frame %#x % x: status %d", typ, body, s)
	}
}

func (h *testHost) start(ch byte, law Law, ms int, tone *player) *hostStream {
	h.t.Helper()
	s := &hostStream{law: law, seq: 0x100, last: 0xFF, first: true, tone: tone}
	h.mu.Lock()
	h.pcm[ch] = s
	h.mu.Unlock()
	code := byte(1)
	if law == ALaw {
		code = 0
	}
	h.must(tStart, chCard, append(append([]byte{byte(ms), code}, binary.LittleEndian.AppendUint32(nil, 1<<ch)...), 0, 1)...)
	return s
}

// events returns the events of a channel: id and arguments.
func (h *testHost) events(ch byte) (list [][]byte) {
	for _, f := range h.got {
		if f.typ == tEvt && f.ch == ch {
			list = append(list, f.body)
		}
	}
	return list
}

func (h *testHost) find(ch, id byte) (frame, bool) {
	for _, f := range h.got {
		if f.typ == tEvt && f.ch == ch && f.body[0] == id {
			return f, true
		}
	}
	return frame{}, false
}

// event waits for an event and returns its frame.
func (h *testHost) event(ch, id byte) (f frame) {
	h.t.Helper()
	h.wait("event "+eventNames[id], func() (ok bool) {
		f, ok = h.find(ch, id)
		return ok
	})
	return f
}

// forget drops what has come so far.
func (h *testHost) forget() {
	h.mu.Lock()
	h.got = nil
	h.mu.Unlock()
}

// bench is a card served over net.Pipe with a host in session. Everything runs in
// the bubble of the test; stop it with the function returned.
func bench(t *testing.T, o CardOptions) (*Card, *testHost, func()) {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error)
	go func() { ran <- c.Serve(ctx, a) }()
	h := newTestHost(t, b)
	h.hello(0xA1B2C3D4)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { h.ping(stop) })
	return c, h, func() {
		close(stop)
		wg.Wait()
		cancel()
		h.close()
		if err := <-ran; err != nil {
			t.Errorf("card: %v", err)
		}
	}
}

func fxs(n int) (list []Channel) {
	for range n {
		list = append(list, Channel{Kind: FXS})
	}
	return list
}

func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
