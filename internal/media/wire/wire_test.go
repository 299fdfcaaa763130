package wire

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs an engine until the test ends.
func start(t testing.TB, n int) *Epoll {
	t.Helper()
	e, err := NewEpoll(n, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return e
}

// do runs f on the loop and waits for it.
func do(t testing.TB, l Loop, f func(now time.Time)) {
	t.Helper()
	done := make(chan struct{})
	if err := l.Post(func(now time.Time) { defer close(done); f(now) }); err != nil {
		t.Fatal(err)
	}
	<-done
}

type echo struct{ got atomic.Uint64 }

func (e *echo) Datagram(_ time.Time, s Socket, b []byte, from netip.AddrPort) {
	e.got.Add(1)
	if bytes.Equal(b, []byte("panic")) {
		panic("asked for")
	}
	if cap(b)-len(b) < Room {
		panic("no room after the datagram")
	}
	_ = s.Send(b, from)
}

func open(t testing.TB, e *Epoll, l Loop, addr string, r Receiver) Socket {
	t.Helper()
	s, err := e.Listen(netip.MustParseAddrPort(addr), nil)
	if err != nil {
		if addr[0] == '[' {
			t.Skipf("no IPv6 loopback: %v", err)
		}
		t.Fatal(err)
	}
	do(t, l, func(time.Time) {
		if err := l.Attach(s, r); err != nil {
			t.Error(err)
		}
	})
	return s
}

func dial(t testing.TB, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDatagramsPassBothFamilies(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			e := start(t, 2)
			l := e.Loops()[1]
			s := open(t, e, l, addr, &echo{})
			c := dial(t, s.Local())
			buf := make([]byte, 4096)
			for _, want := range [][]byte{{1}, bytes.Repeat([]byte{7}, 172), bytes.Repeat([]byte{9}, MaxDatagram)} {
				if _, err := c.Write(want); err != nil {
					t.Fatal(err)
				}
				n, err := c.Read(buf)
				if err != nil || !bytes.Equal(buf[:n], want) {
					t.Fatalf("%d bytes came back as %d: %v", len(want), n, err)
				}
			}
			do(t, l, func(time.Time) {}) // the last is counted after it was sent
			if l.Counts().Received.Load() != 3 || l.Counts().Sent.Load() != 3 {
				t.Errorf("received %d, sent %d", l.Counts().Received.Load(), l.Counts().Sent.Load())
			}
		})
	}
}

func TestPanicAndOversizeHurtNobody(t *testing.T) {
	e := start(t, 1)
	l := e.Loops()[0]
	s := open(t, e, l, "127.0.0.1:0", &echo{})
	c := dial(t, s.Local())
	for _, b := range [][]byte{[]byte("panic"), make([]byte, MaxDatagram+1), []byte("ok")} {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 4096)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "ok" {
		t.Fatalf("%q %v", buf[:n], err)
	}
	if l.Counts().Panics.Load() != 1 || l.Counts().Truncated.Load() != 1 {
		t.Errorf("panics %d, truncated %d", l.Counts().Panics.Load(), l.Counts().Truncated.Load())
	}
}

type beat struct {
	due   time.Time
	ticks chan time.Time
	rings atomic.Uint64
}

func (b *beat) Rung(time.Time) { b.rings.Add(1) }
func (b *beat) Due() time.Time { return b.due }
func (b *beat) Tick(now time.Time) time.Time {
	select {
	case b.ticks <- now:
	default:
	}
	b.due = now.Add(5 * time.Millisecond)
	return b.due
}

func TestTicksComeNotBeforeTheirTime(t *testing.T) {
	e, err := NewEpoll(1, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b := &beat{ticks: make(chan time.Time, 20)}
	l := e.Loops()[0]
	l.SetWork(b)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	if err := l.Post(func(time.Time) {}); err != nil {
		t.Fatal(err)
	}
	last := <-b.ticks
	for range 10 {
		now := <-b.ticks
		if now.Sub(last) < 5*time.Millisecond {
			t.Errorf("tick after %v", now.Sub(last))
		}
		last = now
	}
	l.Ring()
	for b.rings.Load() == 0 {
		<-b.ticks
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	l.Ring() // harmless afterwards
	if err := l.Post(func(time.Time) {}); !errors.Is(err, ErrClosed) {
		t.Errorf("post to an ended loop: %v", err)
	}
}

func TestDetachedSocketIsClosedAndItsPortFree(t *testing.T) {
	e := start(t, 1)
	l := e.Loops()[0]
	r := &echo{}
	s := open(t, e, l, "127.0.0.1:0", r)
	do(t, l, func(time.Time) { l.Detach(s); l.Detach(s) })
	again, err := e.Listen(s.Local(), nil)
	if err != nil {
		t.Fatalf("port not free: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Send([]byte{1}, s.Local()); err == nil {
		t.Error("sent on a closed socket")
	}
}

func TestControlSeesTheSocketBeforeItIsBound(t *testing.T) {
	e := start(t, 1)
	var port int
	s, err := e.Listen(netip.MustParseAddrPort("127.0.0.1:0"), func(network, address string, c syscall.RawConn) error {
		if network != "udp4" || address != "127.0.0.1:0" {
			t.Errorf("%s %s", network, address)
		}
		return c.Control(func(fd uintptr) {
			if err := syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_TOS, 46<<2); err != nil {
				t.Error(err)
			}
			sa, err := syscall.Getsockname(int(fd))
			if err != nil {
				t.Error(err)
				return
			}
			port = sa.(*syscall.SockaddrInet4).Port
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if port != 0 {
		t.Error("the socket was bound already")
	}
	tos, err := syscall.GetsockoptInt(s.(*udpSocket).fd, syscall.IPPROTO_IP, syscall.IP_TOS)
	if err != nil || tos != 46<<2 {
		t.Errorf("TOS %d, %v", tos, err)
	}
	if _, err := e.Listen(netip.MustParseAddrPort("127.0.0.1:0"), func(string, string, syscall.RawConn) error { return errors.New("no") }); err == nil {
		t.Error("a refusing control was ignored")
	}
}

func TestReceivingAndSendingAllocateNothing(t *testing.T) {
	a, err := listen(netip.MustParseAddrPort("127.0.0.1:0"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	l, err := newEpollLoop(time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	r := &sink{}
	if err := l.Attach(a, r); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 172)
	if n := testing.AllocsPerRun(500, func() {
		if err := a.Send(p, a.local); err != nil {
			t.Fatal(err)
		}
		l.read(time.Time{}, a)
	}); n != 0 {
		t.Errorf("%v allocations per datagram", n)
	}
	if r.got < 500 {
		t.Errorf("only %d datagrams came", r.got)
	}
	delete(l.socks, int32(a.fd))
}

type sink struct{ got int }

func (s *sink) Datagram(time.Time, Socket, []byte, netip.AddrPort) { s.got++ }
