package analogtest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.bug.st/serial"
)

// safeBuffer is a trace that a test may read while the card writes.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestPseudoTerminalUnplugAndReplug(t *testing.T) {
	link := filepath.Join(t.TempDir(), "ttyCARD")
	var trace safeBuffer
	c, err := New(CardOptions{Channels: fxs(2), Link: link, Trace: &trace})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	long := limit(t)
	path, err := c.WaitPlugged(long)
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	for round := range 3 {
		if path != link || c.Path() != link {
			t.Fatalf("path %q, want %q", path, link)
		}
		tty, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		h := newTestHost(t, tty)
		c.Garbage(300)
		h.hello(uint32(7 + round))
		c.Phone(0).Lift()
		s := h.start(0, MuLaw, 10, newPlayer(Cadence{{Hz: []float64{1004}}}, 0, -20))
		if err := c.Phone(0).WaitTone(long, 1004); err != nil {
			t.Fatal(err)
		}
		h.wait("frames", func() bool { return s.frames > 20 })
		c.Phone(0).HangUp()
		if err := c.Unplug(long); err != nil {
			t.Fatal(err)
		}
		<-h.done // the host sees the end of the line
		h.close()
		if _, err := os.Lstat(link); !os.IsNotExist(err) {
			t.Errorf("link is still there: %v", err)
		}
		if err := c.WaitLink(long, false); err != nil {
			t.Fatal(err)
		}
		if path, err = c.Replug(long); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if !bytes.Contains([]byte(trace.String()), []byte(" > 03 01 ff 01")) {
		t.Error("the trace does not show HELLO")
	}
}

func TestHostThatDoesNotReadLosesOctetsOnly(t *testing.T) {
	c, err := New(CardOptions{Channels: fxs(1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	if _, err := c.WaitPlugged(limit(t)); err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	for range 300 {
		c.Garbage(512) // more than the kernel keeps, 64 KiB
	}
	ctx2, cancel2 := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel2()
	if err := c.w.await(ctx2, "loss", func() bool { return c.count.HostBlocked > 0 }); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

// TestSerialLibraryOpensTheCard: the library that the product uses must accept
// the pseudo-terminal, also after a host that was killed in exclusive use.
func TestSerialLibraryOpensTheCard(t *testing.T) {
	c, err := New(CardOptions{Channels: fxs(1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	long := limit(t)
	path, err := c.WaitPlugged(long)
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	for i := range 2 {
		port, err := serial.Open(path, &serial.Mode{BaudRate: 921600})
		if err != nil {
			t.Fatal(err)
		}
		h := newTestHost(t, port)
		h.hello(uint32(1 + i))
		s := h.start(0, ALaw, 10, nil)
		h.wait("frames", func() bool { return s.frames > 20 })
		h.close()
		if err := c.WaitLink(long, false); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
