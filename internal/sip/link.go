package sip

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

const (
	writeTimeout = 5 * time.Second
	// idleTimeout ends a stream on which nothing came. Microsoft closes after two
	// minutes itself, and our own connections carry OPTIONS each minute.
	idleTimeout = 10 * time.Minute
)

// link is a way that messages travel: one TCP or TLS connection, or the UDP
// socket of a trunk. Writing is safe from any goroutine.
type link struct {
	t       *trunk
	stream  net.Conn       // nil for UDP
	packet  net.PacketConn // nil for streams
	remote  netip.AddrPort // of a stream
	ours    bool           // opened by us
	retired atomic.Bool    // replaced; closed when its last response is in
	born    time.Time

	writing sync.Mutex
	users   atomic.Int32 // client transactions whose responses will come here
	dead    chan struct{}
	once    sync.Once
}

var errClosed = errors.New("connection closed")

func (l *link) alive() bool {
	select {
	case <-l.dead:
		return false
	default:
		return true
	}
}

// close ends the link; its reader returns soon after. Safe to call twice.
func (l *link) close() {
	l.once.Do(func() {
		close(l.dead)
		if l.stream != nil {
			_ = l.stream.Close()
		} else {
			_ = l.packet.Close()
		}
	})
}

func (l *link) write(b []byte, to netip.AddrPort) error {
	if !l.alive() {
		return errClosed
	}
	if l.packet != nil {
		_, err := l.packet.WriteTo(b, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return fmt.Errorf("send to %s: %w", to, err)
		}
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.stream.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("send to %s: %w", l.remote, err)
	}
	if _, err := l.stream.Write(b); err != nil {
		// Half a message may be out: nothing can follow it.
		l.close()
		return fmt.Errorf("send to %s: %w", l.remote, err)
	}
	return nil
}

// readStream reads messages until the stream ends. It owns the reading side.
func (l *link) readStream() {
	defer l.close()
	buf := make([]byte, 0, 4<<10)
	var next framer
	var begun time.Time // of a message that is not whole yet
	for {
		n, m, f := next.next(buf)
		switch {
		case f != nil && f.close:
			l.t.fault(l, l.remote, m, f)
			return
		case m != nil:
			l.t.receive(l, l.remote, m, f)
			buf = append(buf[:0], buf[n:]...)
			begun = time.Time{}
			continue
		case n > 0:
			if n >= 4 && l.write(crlf, l.remote) != nil { // ping, RFC 5626 §3.5.1
				return
			}
			buf = append(buf[:0], buf[n:]...)
			continue
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, min(2*cap(buf), maxHead+maxBody+8)), buf...)
		}
		deadline := time.Now().Add(idleTimeout)
		switch {
		case len(buf) == 0:
			begun = time.Time{}
		case begun.IsZero():
			begun = time.Now()
			fallthrough
		default:
			// As long as a transaction would wait for it.
			deadline = begun.Add(64 * l.t.e.times.t1)
		}
		if err := l.stream.SetReadDeadline(deadline); err != nil {
			return
		}
		k, err := l.stream.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+k]
		if err != nil && k == 0 {
			return
		}
	}
}

// readPackets reads datagrams until the socket closes. Sources that the trunk
// does not trust are dropped before they are looked at (C-18).
func (l *link) readPackets() {
	defer l.close()
	buf := make([]byte, 64<<10)
	for {
		n, addr, err := l.packet.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // ICMP errors of earlier datagrams
		}
		src := addrPort(addr)
		if !l.t.trusted(src.Addr()) {
			l.t.counters.untrusted.Add(1)
			continue
		}
		b := buf[:n]
		if len(bytes.Trim(b, "\r\n\x00")) == 0 {
			continue // keep-alive
		}
		m, f := datagram(bytes.Clone(b))
		if m == nil {
			l.t.fault(l, src, nil, f)
			continue
		}
		l.t.receive(l, src, m, f)
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	case *net.TCPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// flow is a link together with where on it a transaction goes. It is what
// sipgo's transactions see of our transports: they may write, and no more.
type flow struct {
	*link
	to netip.AddrPort
	// target replaces the Request-URI in the text, byte for byte as the peer
	// gave it (C-42): sipgo takes a URI apart and writes it anew.
	target string
}

var _ sipgo.Connection = flow{}

// LocalAddr returns the address of our end.
func (f flow) LocalAddr() net.Addr {
	if f.stream != nil {
		return f.stream.LocalAddr()
	}
	return f.packet.LocalAddr()
}

// WriteMsg writes a message. It is called with sipgo's transaction locked.
func (f flow) WriteMsg(msg sipgo.Message) error {
	var b bytes.Buffer
	msg.StringWrite(&b)
	text := b.Bytes()
	if req, ok := msg.(*sipgo.Request); ok && f.target != "" {
		_, rest, _ := bytes.Cut(text, crlf)
		line := string(req.Method) + " " + f.target + " SIP/2.0\r\n"
		text = append([]byte(line), rest...)
	}
	return f.write(text, f.to)
}

// Ref counts transactions, so that a connection that is replaced is kept until
// their responses are in.
func (f flow) Ref(i int) int { return int(f.users.Add(int32(i))) }

// TryClose gives back one reference. Connections are closed by their trunk only.
func (f flow) TryClose() (int, error) { return int(f.users.Add(-1)), nil }

// Close does nothing: a transaction does not own the connection.
func (f flow) Close() error { return nil }

// settle closes a link that was replaced once nobody waits on it any more.
func (l *link) settle() {
	if l.retired.Load() && l.users.Load() <= 0 {
		l.close()
	}
}

// retire keeps a link for the responses that are still to come.
func (l *link) retire() {
	l.retired.Store(true)
	l.settle()
}

// adopt makes a link known; false while the trunk is closing.
func (t *trunk) adopt(l *link) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing {
		return false
	}
	t.links[l] = struct{}{}
	return true
}

// forget ends what waits for a link that is gone: a response never comes on
// another connection from Microsoft (no aliasing, RFC 5923 is not used).
func (t *trunk) forget(l *link) {
	t.mu.Lock()
	delete(t.links, l)
	var waiting []*clientTx
	for _, c := range t.clients {
		if c.link == l {
			waiting = append(waiting, c)
		}
	}
	t.mu.Unlock()
	for _, c := range waiting {
		c.Terminate()
	}
}

// dial opens a connection to addr, with TLS for host if the trunk has it. It
// gives up with ctx.
func (t *trunk) dial(ctx context.Context, addr netip.AddrPort, host string) (*link, error) {
	d := net.Dialer{Control: t.e.opt.Control, KeepAlive: 30 * time.Second}
	if t.source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.source, 0))
	}
	c, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	if t.id != nil {
		tc := tls.Client(c, t.id.client(host))
		if err := tc.HandshakeContext(ctx); err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("TLS with %s at %s: %w", host, addr, err)
		}
		c = tc
	}
	return t.open(c, addr, true)
}

// open makes a link of a connection and starts its reader.
func (t *trunk) open(c net.Conn, remote netip.AddrPort, ours bool) (*link, error) {
	l := &link{t: t, stream: c, remote: remote, ours: ours, born: time.Now(), dead: make(chan struct{})}
	if !t.adopt(l) {
		_ = c.Close()
		return nil, errClosed
	}
	t.wg.Go(func() {
		l.readStream()
		t.forget(l)
	})
	return l, nil
}
