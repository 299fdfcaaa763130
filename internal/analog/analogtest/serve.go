package analogtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// serve opens the line whenever the card is plugged in.
func (c *Card) serve(ctx context.Context) error {
	for {
		if c.w.await(ctx, "the card to be plugged in", func() bool { return c.plugged }) != nil {
			return nil
		}
		conn, path, err := c.open()
		if err != nil {
			return fmt.Errorf("open line of simulated card: %w", err)
		}
		c.carry(ctx, conn, path)
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (c *Card) open() (io.ReadWriteCloser, string, error) {
	c.w.mu.Lock()
	connect := c.opt.Connect
	c.w.mu.Unlock()
	if connect == nil {
		connect = openPTY
	}
	conn, path, err := connect()
	if err != nil {
		return nil, "", err
	}
	if c.opt.Link != "" && path != "" {
		// Replaced in one step, so that whoever opens it finds the old or the new one.
		tmp := c.opt.Link + ".new"
		if err := errors.Join(os.Symlink(path, tmp), os.Rename(tmp, c.opt.Link)); err != nil {
			conn.Close()
			return nil, "", err
		}
		path = c.opt.Link
	}
	return conn, path, nil
}

// carry moves octets until the line is closed by either side or unplugged.
func (c *Card) carry(ctx context.Context, conn io.ReadWriteCloser, path string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.out.forget()
	c.out.put(outgoing{octets: []byte{0}, at: time.Now()})
	c.w.mu.Lock()
	c.conn, c.path = conn, path
	c.link.in.buf = c.link.in.buf[:0]
	c.w.tell(-1, "plugged in at %s", path)
	c.w.wake()
	c.w.mu.Unlock()

	var all sync.WaitGroup
	toCard, toHost := make(chan late, 4096), make(chan late, 4096)
	all.Go(func() { defer cancel(); c.read(ctx, conn, toCard) })
	all.Go(func() { deliverLate(ctx, toCard, func(p []byte) error { c.receive(p); return nil }) })
	all.Go(func() { defer cancel(); c.write(ctx, toHost) })
	all.Go(func() {
		defer cancel()
		deliverLate(ctx, toHost, func(p []byte) error { return c.emit(conn, p) })
	})
	<-ctx.Done()
	conn.Close()
	all.Wait()

	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.conn == conn {
		c.conn, c.path, c.plugged = nil, "", false
	}
	if c.opt.Link != "" {
		os.Remove(c.opt.Link)
	}
	c.w.tell(-1, "unplugged")
	c.w.wake()
}

// late is a chunk that arrives at due.
type late struct {
	octets []byte
	due    time.Time
}

func deliverLate(ctx context.Context, in <-chan late, to func([]byte) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-in:
			if !sleepUntil(ctx, m.due) || to(m.octets) != nil {
				return
			}
		}
	}
}

// sleepUntil does not bother the scheduler for less than a fifth of a millisecond.
func sleepUntil(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d < 200*time.Microsecond {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// read takes octets from the host no faster than the line rate: a host that
// writes too much is held up by the kernel as by a real UART.
func (c *Card) read(ctx context.Context, conn io.Reader, to chan<- late) {
	buf := make([]byte, 1024)
	var pace pacer
	var last time.Time
	for {
		n, err := conn.Read(buf)
		// What a stalled card has in its buffer it does not look at either.
		if c.w.await(ctx, "reading", func() bool { return !c.stallIn }) != nil {
			return
		}
		if n > 0 {
			c.w.mu.Lock()
			baud := c.baud
			p := c.toCard.damage(append([]byte(nil), buf[:n]...))
			delay := c.toCard.delay()
			c.w.mu.Unlock()
			arrived := pace.take(time.Now(), n, baud)
			if !sleepUntil(ctx, arrived) {
				return
			}
			c.trace.note('>', buf[:n])
			if last = latest(last, arrived.Add(delay)); len(p) > 0 {
				select {
				case to <- late{p, last}:
				case <-ctx.Done():
					return
				}
			}
		}
		if err != nil {
			return
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// write takes what waits for the wire, at the line rate.
func (c *Card) write(ctx context.Context, to chan<- late) {
	var pace pacer
	var last time.Time
	for {
		m, ok := c.out.next()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-c.out.signal:
			}
			continue
		}
		if c.w.await(ctx, "writing", func() bool { return !c.stallTo }) != nil {
			return
		}
		c.w.mu.Lock()
		baud := c.baud
		p := c.toHost.damage(m.octets)
		delay := c.toHost.delay()
		c.w.mu.Unlock()
		left := pace.take(time.Now(), len(m.octets), baud)
		if !sleepUntil(ctx, left) {
			return
		}
		if m.baudAfter != 0 {
			c.w.mu.Lock()
			c.baud = m.baudAfter
			c.w.tell(-1, "%d bit/s", c.baud)
			c.w.mu.Unlock()
		}
		if last = latest(last, left.Add(delay)); len(p) > 0 {
			select {
			case to <- late{p, last}:
			case <-ctx.Done():
				return
			}
		}
	}
}

// emit puts octets on the line. A UART does not wait for whoever should read:
// what a host does not take within 20 ms is lost.
func (c *Card) emit(conn io.Writer, p []byte) error {
	c.trace.note('<', p)
	d, limited := conn.(interface{ SetWriteDeadline(time.Time) error })
	c.w.mu.Lock()
	i := c.toHost
	c.w.mu.Unlock()
	return i.pieces(p, func(piece []byte) error {
		if limited {
			limited = d.SetWriteDeadline(time.Now().Add(20*time.Millisecond)) == nil
		}
		n, err := conn.Write(piece)
		if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			c.w.mu.Lock()
			c.count.HostBlocked += uint64(len(piece) - n)
			c.w.mu.Unlock()
			return nil
		}
		return err
	})
}

// Path is where the host finds the card: the symbolic link of CardOptions.Link,
// else the slave side of the pseudo-terminal. It is empty while unplugged.
func (c *Card) Path() string {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.path
}

// WaitPlugged returns the path when the line is open.
func (c *Card) WaitPlugged(ctx context.Context) (string, error) {
	path := ""
	err := c.w.await(ctx, "the card's line", func() bool {
		path = c.path
		return c.conn != nil
	})
	return path, err
}

// Unplug pulls the cable. The card keeps its power, its session runs into its
// time limit. It returns when the line is closed.
func (c *Card) Unplug(ctx context.Context) error {
	c.w.mu.Lock()
	c.plugged = false
	if c.conn != nil {
		c.conn.Close()
	}
	c.w.wake()
	c.w.mu.Unlock()
	return c.w.await(ctx, "the cable", func() bool { return c.conn == nil })
}

// Replug puts the cable back and returns the path, which is another one unless
// CardOptions.Link is set. Call it after Unplug has returned.
func (c *Card) Replug(ctx context.Context) (string, error) {
	c.w.mu.Lock()
	c.plugged = true
	c.w.wake()
	c.w.mu.Unlock()
	return c.WaitPlugged(ctx)
}

// tracer writes the trace format of docs/linecard-link.md §11, a frame a line. A
// nil tracer writes nothing.
type tracer struct {
	mu   sync.Mutex
	w    io.Writer
	rest [2][]byte // of the frame under way, by direction
}

func (t *tracer) note(dir byte, p []byte) {
	if t == nil {
		return
	}
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &t.rest[dir&2>>1] // '<' is 0x3C, '>' 0x3E
	for _, b := range p {
		if *r = append(*r, b); b == 0 || len(*r) == 512 {
			fmt.Fprintf(t.w, "%d.%06d %c % x\n", now.Unix(), now.Nanosecond()/1000, dir, *r)
			*r = (*r)[:0]
		}
	}
}
