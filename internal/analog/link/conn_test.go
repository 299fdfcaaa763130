package link

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConnPassesFramesAndEndsWithItsPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, card := net.Pipe()
		var c *Conn
		pcm := 0
		c = NewConn(host, func(h Header, body []byte) {
			pcm++
			c.SendVoice(Header{Type: TypePCM, Channel: h.Channel, Seq: h.Seq}, body)
		})
		ended := make(chan error, 1)
		go func() { ended <- c.Run() }()
		answers := make(chan Header, 16)
		go func() {
			var r Reader
			buf := make([]byte, 1) // the shortest reads
			for {
				n, err := card.Read(buf)
				if err != nil {
					close(answers)
					return
				}
				r.Feed(buf[:n], func(h Header, _ []byte) { answers <- h })
			}
		}()
		c.Send(Header{Type: TypeHello, Channel: CardChannel}, appendHello(nil, 1, ""))
		if h := <-answers; h.Type != TypeHello {
			t.Fatalf("card got %v", h)
		}
		if _, err := card.Write(AppendFrame([]byte{1, 2, 3, 0}, Header{Type: TypePCM, Channel: 3, Seq: 9}, make([]byte, 80))); err != nil {
			t.Fatal(err)
		}
		if h := <-answers; h.Type != TypePCM || h.Channel != 3 || h.Seq != 9 {
			t.Fatalf("card got %v", h)
		}
		if _, err := card.Write(AppendFrame(nil, Header{Type: TypePong, Channel: CardChannel}, []byte{4, 5})); err != nil {
			t.Fatal(err)
		}
		if f := <-c.Frames(); f.Type != TypePong || len(f.Body()) != 2 {
			t.Fatalf("host got %v", f)
		}
		if n := c.Counters(); n.Good != 2 || n.Bad != 1 || c.Heard().IsZero() {
			t.Fatalf("%+v", n)
		}
		card.Close() // unplugged
		if err := <-ended; !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
			t.Fatalf("ended with %v", err)
		}
		if _, ok := <-c.Frames(); ok {
			t.Fatal("frames after the end")
		}
		for range answers {
		}
	})
}

// TestA38StallIsSeenAndCloseEndsIt: a peer that stops reading blocks Write.
func TestA38StallIsSeenAndCloseEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, card := net.Pipe()
		defer card.Close()
		c := NewConn(host, func(Header, []byte) {})
		ended := make(chan error, 1)
		go func() { ended <- c.Run() }()
		for range 10000 { // far more than the rings hold: it must not wait
			c.Send(Header{Type: TypePing}, make([]byte, 8))
		}
		synctest.Wait()
		if c.Stalled(time.Now()) {
			t.Fatal("stalled at once")
		}
		time.Sleep(stallLimit)
		if !c.Stalled(time.Now()) {
			t.Fatal("stall not seen")
		}
		if c.Counters().Dropped == 0 {
			t.Fatal("nothing dropped: the queue has no limit")
		}
		c.Close()
		c.Close()
		<-ended
	})
}
