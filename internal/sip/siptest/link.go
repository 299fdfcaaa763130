package siptest

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// link is one way to and from the other side: a connection, or for UDP a socket
// together with an address.
type link struct {
	conn     net.Conn // nil for UDP
	packets  *net.UDPConn
	remote   netip.AddrPort
	local    netip.AddrPort
	opened   bool   // by us
	name     string // for opened links the target, for others the listener
	names    []string
	dscp     int // of the connection's SYN; -1 if unknown
	mu       sync.Mutex
	lastUsed atomic.Int64
	closed   atomic.Bool
}

func (l *link) reliable() bool { return l.conn != nil }

func (l *link) send(m *Message, upper bool) error {
	l.lastUsed.Store(time.Now().UnixNano())
	b := m.Bytes(upper)
	if l.conn == nil {
		_, err := l.packets.WriteToUDPAddrPort(b, l.remote)
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, err := l.conn.Write(b)
	return err
}

func (l *link) close() {
	if l.conn != nil && !l.closed.Swap(true) {
		_ = l.conn.Close()
	}
}

// serve reads a connection until it ends; each message goes to handle.
func (l *link) serve(handle func(*link, *Message), bad func(*link, error)) {
	defer l.close()
	r := bufio.NewReaderSize(stamping{l}, 8<<10)
	for {
		m, err := Read(r)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !l.closed.Load() {
				bad(l, err)
			}
			return
		}
		handle(l, m)
	}
}

// stamping notes when octets arrive: a CRLF of the box restarts the idle timer too.
type stamping struct{ l *link }

func (s stamping) Read(p []byte) (int, error) {
	n, err := s.l.conn.Read(p)
	s.l.lastUsed.Store(time.Now().UnixNano())
	return n, err
}

// verify checks a peer certificate as Microsoft does: chain and dates; any key
// usage, because in 2026 some have lost client authentication.
func verify(roots *x509.CertPool, cs tls.ConnectionState, name string) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("peer sent no certificate")
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, DNSName: name}
	for _, c := range cs.PeerCertificates[1:] {
		options.Intermediates.AddCert(c)
	}
	if _, err := cs.PeerCertificates[0].Verify(options); err != nil {
		return fmt.Errorf("peer certificate: %w", err)
	}
	return nil
}

func addrPortOf(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
