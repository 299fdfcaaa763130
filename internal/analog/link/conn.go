package link

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	controlRing = 16 << 10 // octets
	// voiceRing holds about 90 ms of a full link at 921 600 bit/s: older voice
	// is not worth sending.
	voiceRing = 8 << 10
	// frameQueue is how many frames may wait for the session.
	frameQueue = 64
	// stallLimit is how long one Write may take: a peer that stops reading
	// blocks it without end (go.bug.st/serial has no write deadline).
	stallLimit = time.Second
)

// Conn is an open port with its two goroutines: a reader that finds frames and
// hands PCM on at once, and the only writer. Voice passes without lock and
// allocation; the writer is woken by one signal for each read.
type Conn struct {
	port io.ReadWriteCloser
	pcm  func(h Header, body []byte)

	frames         chan Frame
	control, voice *ring
	wake           chan struct{}
	done           chan struct{}
	closing        sync.Once

	pending bool // voice was queued in this read; reader's
	scratch [MaxWire]byte

	// Times count from born, so that a step of the wall clock is no silence.
	born    time.Time
	heard   atomic.Int64 // ns of the last valid frame; 0: none
	writing atomic.Int64 // ns at which the running Write began; 0: none
	octets  atomic.Uint64
	good    atomic.Uint64
	bad     atomic.Uint64
	dropped atomic.Uint64 // frames of ours that found no room, frames that the session did not fetch
}

// NewConn returns a Conn over an open port. Close of the port must make pending
// Read and Write return, and a Read that returns 0, nil must have waited (a read
// timeout, not an end of file). pcm is called in the reader's goroutine for each
// PCM frame; the body is valid during the call.
func NewConn(port io.ReadWriteCloser, pcm func(h Header, body []byte)) *Conn {
	return &Conn{
		port: port, pcm: pcm, born: time.Now().Add(-1), // no instant is 0
		frames:  make(chan Frame, frameQueue),
		control: newRing(controlRing), voice: newRing(voiceRing),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// Frames delivers valid frames other than PCM. It is closed when Run ends.
func (c *Conn) Frames() <-chan Frame { return c.frames }

// Run reads and writes until the port fails or Close is called. It returns after
// both goroutines have ended, with the reason.
func (c *Conn) Run() error {
	werr := make(chan error, 1)
	go func() {
		err := c.write()
		c.Close() // unblocks Read
		werr <- err
	}()
	rerr := c.read()
	c.Close()
	err := <-werr
	close(c.frames)
	if err == nil || errors.Is(err, errClosed) {
		err = rerr
	}
	return err
}

var errClosed = errors.New("closed")

// Close ends Run. It may be called more than once and from anywhere.
func (c *Conn) Close() {
	c.closing.Do(func() {
		close(c.done)
		c.port.Close()
	})
}

func (c *Conn) read() error {
	var r Reader
	buf := make([]byte, 4096)
	for {
		n, err := c.port.Read(buf)
		if n > 0 {
			c.octets.Add(uint64(n))
			good := r.Good
			r.Feed(buf[:n], c.received)
			c.bad.Store(r.Bad)
			c.good.Store(r.Good)
			if r.Good != good {
				c.heard.Store(int64(time.Since(c.born)))
			}
			if c.pending {
				c.pending = false
				c.signal()
			}
		}
		select {
		case <-c.done:
			return errClosed
		default:
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
	}
}

func (c *Conn) received(h Header, body []byte) {
	if h.Type == TypePCM {
		c.pcm(h, body)
		return
	}
	f := Frame{Header: h}
	f.SetBody(body)
	select {
	case c.frames <- f:
	default: // reliable frames will be repeated
		c.dropped.Add(1)
	}
}

// SendVoice queues a PCM frame. Only the pcm function may call it. When the
// writer is behind by the whole queue the frame is dropped and counted.
func (c *Conn) SendVoice(h Header, body []byte) {
	if !c.voice.put(AppendFrame(c.scratch[:0], h, body)) {
		c.dropped.Add(1)
	}
	c.pending = true
}

// Send queues any other frame. Only the session's goroutine may call it.
func (c *Conn) Send(h Header, body []byte) {
	var wire [MaxWire + 1]byte
	b := wire[:0]
	if h.Type == TypeHello {
		b = append(b, 0) // ends whatever was on the line before, §2
	}
	if !c.control.put(AppendFrame(b, h, body)) {
		c.dropped.Add(1)
	}
	c.signal()
}

func (c *Conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Conn) write() error {
	buf := make([]byte, 0, controlRing+voiceRing)
	for {
		select {
		case <-c.done:
			return errClosed
		case <-c.wake:
		}
		for {
			buf = c.voice.take(c.control.take(buf[:0]))
			if len(buf) == 0 {
				break
			}
			if err := c.writeAll(buf); err != nil {
				return err
			}
		}
	}
}

func (c *Conn) writeAll(b []byte) error {
	c.writing.Store(int64(time.Since(c.born)))
	defer c.writing.Store(0)
	for len(b) > 0 {
		n, err := c.port.Write(b)
		select {
		case <-c.done:
			return errClosed
		default:
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if n == 0 {
			return fmt.Errorf("write: %w", io.ErrShortWrite)
		}
		b = b[n:]
	}
	return nil
}

// Heard is when the last valid frame came, zero if none did.
func (c *Conn) Heard() time.Time {
	ns := c.heard.Load()
	if ns == 0 {
		return time.Time{}
	}
	return c.born.Add(time.Duration(ns))
}

// Stalled reports that one Write has lasted longer than it may: the port is to be closed.
func (c *Conn) Stalled(now time.Time) bool {
	ns := c.writing.Load()
	return ns != 0 && now.Sub(c.born.Add(time.Duration(ns))) >= stallLimit
}

// Counters of a port.
type Counters struct {
	Octets  uint64 // received
	Good    uint64 // valid frames received
	Bad     uint64 // dropped: COBS, length, check sequence
	Dropped uint64 // for want of room
}

// Counters may be called from any goroutine.
func (c *Conn) Counters() Counters {
	return Counters{c.octets.Load(), c.good.Load(), c.bad.Load(), c.dropped.Load()}
}
