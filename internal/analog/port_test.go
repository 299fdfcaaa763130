package analog

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"localloop/internal/analog/analogtest"
	"localloop/internal/call"
	"localloop/internal/config"
)

// terminal is a pseudo-terminal and the card configuration that names it.
func terminal(t *testing.T) (*os.File, config.Card) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	slave.Close()
	t.Cleanup(func() { master.Close() })
	return master, config.Card{Name: "card1", Device: slave.Name(), Baud: 921600}
}

func TestPortIsForOneAlone(t *testing.T) {
	_, conf := terminal(t)
	p, err := openPort(conf)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := openPort(conf); !errors.Is(err, ErrInUse) {
		if err == nil {
			second.Close()
		}
		t.Fatalf("second open: %v, want ErrInUse", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p, err = openPort(conf)
	if err != nil {
		t.Fatalf("open after close: %v", err)
	}
	p.Close()
	conf.Device = "/dev/does-not-exist"
	if _, err := openPort(conf); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("missing device: %v", err)
	}
	conf.Device = "/dev/null"
	if _, err := openPort(conf); err == nil {
		t.Fatal("/dev/null opened as a serial port")
	}
}

// TestSLCL1OpeningDropsWhatCameBefore: a card that talked while the host was away
// has filled the kernel's buffers.
func TestSLCL1OpeningDropsWhatCameBefore(t *testing.T) {
	master, conf := terminal(t)
	hold, err := os.OpenFile(conf.Device, os.O_RDWR|unix.O_NOCTTY, 0) // else the terminal forgets by itself
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	first, err := openPort(conf) // makes it raw
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if n, err := master.Write(bytes.Repeat([]byte{0x55}, 8000)); err != nil {
		t.Fatal(n, err)
	}
	p, err := openPort(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := master.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for range 100 {
		n, err := p.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			if got := string(buf[:n]); got != "new" {
				t.Fatalf("%d octets of before: %.20q", n, got)
			}
			return
		}
	}
	t.Fatal("nothing comes")
}

func TestPortCarriesEveryOctetAndTimeoutIsNoEnd(t *testing.T) {
	master, conf := terminal(t)
	p, err := openPort(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	buf := make([]byte, 1024)
	if n, err := p.Read(buf); n != 0 || err != nil {
		t.Fatalf("read of nothing: %d, %v; want 0, nil", n, err)
	}
	read := func(from interface{ Read([]byte) (int, error) }) (got []byte) {
		for len(got) < len(all) {
			n, err := from.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, buf[:n]...)
		}
		return got
	}
	if _, err := master.Write(all); err != nil {
		t.Fatal(err)
	}
	if got := read(p); !bytes.Equal(got, all) {
		t.Fatalf("host got % x", got)
	}
	if _, err := p.Write(all); err != nil {
		t.Fatal(err)
	}
	if got := read(master); !bytes.Equal(got, all) {
		t.Fatalf("card got % x", got)
	}
}

// TestA38PortUnplugAndStall: a peer that is gone ends Read and Write, one that does
// not read ends Write by its deadline, and Close ends both at once.
func TestA38PortUnplugAndStall(t *testing.T) {
	t.Run("unplug", func(t *testing.T) {
		master, conf := terminal(t)
		p, err := openPort(conf)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		ended := make(chan error, 1)
		go func() {
			buf := make([]byte, 16)
			for {
				if _, err := p.Read(buf); err != nil {
					ended <- err
					return
				}
			}
		}()
		master.Close()
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			t.Fatal("Read does not notice")
		}
		if _, err := p.Write([]byte{0}); err == nil {
			t.Fatal("Write does not notice")
		}
	})
	for name, closeIt := range map[string]bool{"deadline": false, "close": true} {
		t.Run("stall ended by "+name, func(t *testing.T) {
			_, conf := terminal(t)
			p, err := openPort(conf)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			ended := make(chan error, 1)
			go func() {
				for {
					if _, err := p.Write(make([]byte, 4096)); err != nil {
						ended <- err
						return
					}
				}
			}()
			if closeIt {
				time.AfterFunc(100*time.Millisecond, func() { p.Close() })
			}
			select {
			case err := <-ended:
				if want := os.ErrDeadlineExceeded; closeIt == errors.Is(err, want) {
					t.Fatalf("ended with %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("Write blocks for ever")
			}
		})
	}
}

// TestRealTimeCallOverAPseudoTerminal: the real port, the real clock, the card
// written from the document.
func TestRealTimeCallOverAPseudoTerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("real time")
	}
	c := doubleCard(t, analogtest.CardOptions{})
	path := c.Path()
	if path == "" {
		path = t.TempDir() + "/card"
		c = doubleCard(t, analogtest.CardOptions{Link: path})
	}
	d := startDouble(t, c, nil, path)
	waitFor(t, func() bool { return d.state("desk") == "idle" })
	// A machine that stands still for the length of a digit loses it, as a real
	// line would: then people dial again.
	var g call.Leg
	for try := 1; g == nil; try++ {
		d.phone.Lift()
		ok(t, d.phone.WaitDialTone(limit(t, 20*time.Second)))
		ok(t, d.phone.Dial("0305551234"))
		select {
		case g = <-d.calls:
		case <-time.After(5 * time.Second):
			if try == 5 {
				t.Fatalf("no call after dialling %d times; line is %s", try, d.state("desk"))
			}
			t.Logf("try %d: line is %s, card %+v", try, d.state("desk"), d.card.Counters())
			d.phone.HangUp()
			waitFor(t, func() bool { return d.state("desk") == "idle" })
		}
	}
	if s := want[call.Setup](d.rig, g, time.Second); s.Called != "0305551234" {
		t.Fatalf("called %q", s.Called)
	}
	d.phone.Watch(1000)
	d.talk("desk", 1000)
	g.Send(call.Answer{})
	ok(t, d.phone.WaitTone(limit(t, 20*time.Second), 1000))
	ok(t, c.Unplug(limit(t, 10*time.Second)))
	if rel := want[call.Release](d.rig, g, 20*time.Second); rel.Reason != "line card card1 unplugged" {
		t.Fatalf("%+v", rel)
	}
	d.phone.HangUp()
	if _, err := c.Replug(limit(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return d.state("desk") == "idle" })
}

// waitFor polls with a generous limit: for liveness in real time.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it does not come")
		}
	}
}
