package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Epoll is the Engine on epoll, recvfrom and sendto.
type Epoll struct {
	loops []Loop
	log   *slog.Logger
}

// NewEpoll makes an engine of n loops. clock nil means time.Now.
func NewEpoll(n int, clock func() time.Time, log *slog.Logger) (*Epoll, error) {
	if clock == nil {
		clock = time.Now
	}
	e := &Epoll{log: log}
	for range max(1, n) {
		l, err := newEpollLoop(clock, log)
		if err != nil {
			e.close()
			return nil, err
		}
		e.loops = append(e.loops, l)
	}
	return e, nil
}

func (e *Epoll) close() {
	for _, l := range e.loops {
		l.(*epollLoop).close()
	}
}

// Loops implements Engine.
func (e *Epoll) Loops() []Loop { return e.loops }

// Run implements Engine. It may be called once.
func (e *Epoll) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, len(e.loops))
	for i, l := range e.loops {
		wg.Go(func() {
			errs[i] = l.(*epollLoop).run()
		})
	}
	stop := context.AfterFunc(ctx, func() {
		for _, l := range e.loops {
			l.(*epollLoop).stop.Store(true)
			l.Ring()
		}
	})
	wg.Wait()
	stop()
	return errors.Join(errs...)
}

const (
	batch = 64 // events of one epoll_wait
	// burst is how many datagrams of one socket are read before others get
	// their turn: a flood on one port must not silence the rest.
	burst = 16
)

type epollLoop struct {
	epfd, wake int
	clock      func() time.Time
	log        *slog.Logger
	work       Work
	counts     Counts

	mu     sync.Mutex // guards posted and ended; control path only
	posted []func(time.Time)
	ended  bool

	rung   atomic.Bool
	awake  atomic.Bool // the eventfd has been written and not yet read
	stop   atomic.Bool
	socks  map[int32]*udpSocket
	events [batch]unix.EpollEvent
	buf    [MaxDatagram + Room]byte
	from   unix.RawSockaddrAny
}

func newEpollLoop(clock func() time.Time, log *slog.Logger) (*epollLoop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)}
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, wake, &ev); err != nil {
		unix.Close(epfd)
		unix.Close(wake)
		return nil, fmt.Errorf("epoll add eventfd: %w", err)
	}
	return &epollLoop{epfd: epfd, wake: wake, clock: clock, log: log, socks: map[int32]*udpSocket{}}, nil
}

func (l *epollLoop) SetWork(w Work)  { l.work = w }
func (l *epollLoop) Counts() *Counts { return &l.counts }

func (l *epollLoop) Post(f func(time.Time)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return ErrClosed
	}
	l.posted = append(l.posted, f)
	l.signal()
	return nil
}

func (l *epollLoop) Ring() {
	l.rung.Store(true)
	l.signal()
}

// signal wakes the thread; signals that come before it wakes are one.
func (l *epollLoop) signal() {
	if l.awake.Swap(true) {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// The only error possible is a full counter, which also wakes.
	_, _ = unix.Write(l.wake, one[:])
}

// run is the loop.
func (l *epollLoop) run() error {
	// The thread holds the call's voice: it is not shared with goroutines that
	// may occupy it. It is not unlocked, so that it ends with the loop.
	runtime.LockOSThread()
	defer l.close()
	due := time.Time{}
	for !l.stop.Load() {
		n, err := unix.EpollWait(l.epfd, l.events[:], l.timeout(due))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll wait: %w", err)
		}
		now := l.clock()
		for i := range max(n, 0) {
			if fd := l.events[i].Fd; int(fd) == l.wake {
				l.woken()
			} else if s := l.socks[fd]; s != nil {
				l.read(now, s)
			}
		}
		if l.rung.Swap(false) && l.work != nil {
			l.guard("ring", func() { l.work.Rung(now) })
		}
		posted := l.runPosted(now)
		if l.work == nil {
			continue
		}
		if n > 0 {
			due = l.work.Due()
		}
		if posted || !due.IsZero() && !now.Before(due) {
			if lag := now.Sub(due); !due.IsZero() && lag > time.Duration(l.counts.Lag.Load()) {
				l.counts.Lag.Store(int64(lag))
			}
			l.guard("tick", func() { due = l.work.Tick(now) })
		}
	}
	return nil
}

// timeout is the wait in ms, rounded up so that a tick is never early by a
// spinning millisecond.
func (l *epollLoop) timeout(due time.Time) int {
	if due.IsZero() {
		return -1
	}
	d := due.Sub(l.clock())
	if d <= 0 {
		return 0
	}
	return int(min(time.Minute, d+time.Millisecond-1) / time.Millisecond)
}

func (l *epollLoop) woken() {
	var b [8]byte
	_, _ = unix.Read(l.wake, b[:])
	l.awake.Store(false)
}

func (l *epollLoop) runPosted(now time.Time) bool {
	l.mu.Lock()
	list := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, f := range list {
		l.guard("command", func() { f(now) })
	}
	return len(list) > 0
}

// guard keeps a fault of one call from ending the voice of all others.
func (l *epollLoop) guard(what string, f func()) {
	defer l.recovered(what)
	f()
}

func (l *epollLoop) recovered(what string) {
	if p := recover(); p != nil {
		l.counts.Panics.Add(1)
		stack := make([]byte, 4096)
		l.log.Error("panic in the voice path", "at", what, "panic", fmt.Sprint(p), "stack", string(stack[:runtime.Stack(stack, false)]))
	}
}

func (l *epollLoop) read(now time.Time, s *udpSocket) {
	defer l.recovered("datagram")
	for range burst {
		n, from, err := s.recv(l.buf[:MaxDatagram], &l.from)
		if err != 0 {
			return // nothing left, or an error that the next event repeats
		}
		l.counts.Received.Add(1)
		if n > MaxDatagram {
			l.counts.Truncated.Add(1)
			continue
		}
		s.to.Datagram(now, s, l.buf[:n], from)
		if s.to == nil {
			return // detached meanwhile
		}
	}
}

func (l *epollLoop) Attach(sock Socket, r Receiver) error {
	s, ok := sock.(*udpSocket)
	if !ok || s.fd < 0 {
		return fmt.Errorf("attach %v: %w", sock.Local(), os.ErrInvalid)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.fd)}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, s.fd, &ev); err != nil {
		return fmt.Errorf("attach %v: %w", sock.Local(), err)
	}
	s.to, s.counts = r, &l.counts
	l.socks[int32(s.fd)] = s
	return nil
}

func (l *epollLoop) Detach(sock Socket) {
	s, ok := sock.(*udpSocket)
	if !ok || s.fd < 0 {
		return
	}
	delete(l.socks, int32(s.fd))
	_ = s.Close() // closing removes it from epoll
}

// close ends the loop: what was posted and has not run is run, so that nobody
// waits for it in vain.
func (l *epollLoop) close() {
	l.mu.Lock()
	ended := l.ended
	l.ended = true
	l.mu.Unlock()
	if ended {
		return
	}
	l.runPosted(l.clock())
	for _, s := range l.socks {
		_ = s.Close()
	}
	clear(l.socks)
	unix.Close(l.epfd)
	// wake stays open until the process ends or the loop is collected: Ring may
	// race with the end, and a number in use elsewhere must not be written to.
	runtime.AddCleanup(l, func(fd int) { unix.Close(fd) }, l.wake)
}

// Listen implements Engine.
func (e *Epoll) Listen(local netip.AddrPort, control Control) (Socket, error) {
	s, err := listen(local, control)
	if err != nil {
		return nil, err
	}
	return s, nil
}
