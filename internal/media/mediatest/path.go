package mediatest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Path is one way by which a client's datagrams leave: a socket on a local
// address.
type Path struct {
	Name  string     // "lan", "wan"
	Local netip.Addr // bound to; also what candidates and c= say
	Port  uint16     // 0: the kernel's choice
	Netns string     // file of the network namespace the socket is in; empty: the process's
	// Relay makes the path's candidate a relayed one: the socket stands for a
	// transport relay in Microsoft's cloud.
	Relay bool
	// Reaches is where datagrams of this path can go: a relay in the cloud does
	// not reach a private address, though on loopback the kernel would deliver.
	// Nil means everywhere.
	Reaches []netip.Prefix
	// Impair is what the path does to datagrams from the beginning; Client.Impair
	// changes it.
	Impair Impairment
}

func (p Path) reaches(to netip.Addr) bool {
	if p.Reaches == nil {
		return true
	}
	for _, r := range p.Reaches {
		if r.Contains(to) {
			return true
		}
	}
	return false
}

// Impairment is what a path does to datagrams in each direction.
type Impairment struct {
	Delay   time.Duration
	Jitter  time.Duration // uniformly distributed, added to Delay; datagrams may overtake
	Loss    float64       // 0 to 1
	Corrupt float64       // share of datagrams with one byte changed
}

// Kind is the kind of a datagram, by its first bytes (RFC 7983, RFC 5761 §4).
type Kind uint8

// Kinds of datagrams.
const (
	STUN Kind = iota
	RTP
	RTCP
	Other
	kinds
)

func kindOf(b []byte) Kind {
	switch {
	case len(b) >= 20 && b[0] < 4:
		return STUN
	case len(b) >= 8 && b[0] >= 128 && b[0] < 192 && b[1] >= 192 && b[1] <= 223:
		return RTCP
	case len(b) >= 12 && b[0] >= 128 && b[0] < 192:
		return RTP
	}
	return Other
}

// PathCount counts the datagrams of one path, as seen at the client's socket.
type PathCount struct {
	Sent, Received [4]uint64 // by Kind
	// STUNRequests counts the checks that the other side sent: an ICE-lite
	// agent sends none.
	STUNRequests uint64
	// Dropped counts datagrams that the path lost: cut, out of reach, impaired.
	Dropped uint64
	// DSCP counts received datagrams by Kind and code point.
	DSCP [4][64]uint64
}

// socket is the open Path.
type socket struct {
	Path
	conn  *net.UDPConn
	local netip.AddrPort
	cut   atomic.Bool
	imp   atomic.Pointer[Impairment]
	wg    sync.WaitGroup // delayed datagrams
	done  chan struct{}

	mu    sync.Mutex
	count PathCount
	dice  *rand.Rand
}

func openSocket(p Path, dscp int, seed uint64) (*socket, error) {
	network := "udp4"
	if p.Local.Is6() {
		network = "udp6"
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			if p.Local.Is6() {
				err = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1),
					unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_TCLASS, dscp<<2))
				return
			}
			err = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, dscp<<2))
		})
		return errors.Join(cerr, err)
	}}
	var pc net.PacketConn
	if err := InNetns(p.Netns, func() (err error) {
		pc, err = lc.ListenPacket(context.Background(), network, netip.AddrPortFrom(p.Local, p.Port).String())
		return err
	}); err != nil {
		return nil, fmt.Errorf("open path %s: %w", p.Name, err)
	}
	conn := pc.(*net.UDPConn)
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	s := &socket{
		Path: p, conn: conn, done: make(chan struct{}),
		local: netip.AddrPortFrom(local.Addr().Unmap(), local.Port()),
		dice:  rand.New(rand.NewPCG(seed, uint64(local.Port()))),
	}
	if p.Impair != (Impairment{}) {
		s.imp.Store(&p.Impair)
	}
	return s, nil
}

// read passes each datagram that survives the path to deliver until the socket
// is closed. The slice belongs to deliver.
func (s *socket) read(deliver func(s *socket, data []byte, from netip.AddrPort, at time.Time)) {
	buf := make([]byte, 4096)
	oob := make([]byte, 128)
	for {
		n, oobn, _, from, err := s.conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // ICMP errors of earlier datagrams
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		data := append([]byte(nil), buf[:n]...)
		tos := typeOfService(oob[:oobn])
		s.through(data, from.Addr(), func(data []byte) {
			kind := kindOf(data)
			s.mu.Lock()
			s.count.Received[kind]++
			s.count.DSCP[kind][tos>>2]++
			if kind == STUN && data[0] == 0 && data[1] == 1 {
				s.count.STUNRequests++
			}
			s.mu.Unlock()
			deliver(s, data, from, time.Now())
		})
	}
}

// write sends a copy of data.
func (s *socket) write(data []byte, to netip.AddrPort) {
	s.through(append([]byte(nil), data...), to.Addr(), func(data []byte) {
		if _, err := s.conn.WriteToUDPAddrPort(data, to); err != nil {
			s.drop() // link down, no route: to the client the same as a lost datagram
			return
		}
		s.mu.Lock()
		s.count.Sent[kindOf(data)]++
		s.mu.Unlock()
	})
}

func (s *socket) drop() {
	s.mu.Lock()
	s.count.Dropped++
	s.mu.Unlock()
}

// through lets a datagram pass the path: at once, later, changed or not at all.
func (s *socket) through(data []byte, far netip.Addr, pass func([]byte)) {
	if s.cut.Load() || !s.reaches(far) {
		s.drop()
		return
	}
	imp := s.imp.Load()
	if imp == nil {
		pass(data)
		return
	}
	s.mu.Lock()
	lose, spoil := s.dice.Float64() < imp.Loss, s.dice.Float64() < imp.Corrupt
	delay := imp.Delay
	if imp.Jitter > 0 {
		delay += time.Duration(s.dice.Int64N(int64(imp.Jitter)))
	}
	if spoil && len(data) > 0 {
		data[s.dice.IntN(len(data))] ^= byte(1 + s.dice.IntN(255))
	}
	s.mu.Unlock()
	if lose {
		s.drop()
		return
	}
	if delay <= 0 {
		pass(data)
		return
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
			if s.cut.Load() {
				s.drop()
				return
			}
			pass(data)
		case <-s.done:
		}
	}()
}

func (s *socket) counts() PathCount {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// typeOfService reads the octet that IP_RECVTOS or IPV6_RECVTCLASS delivers.
func typeOfService(oob []byte) byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_TOS && len(m.Data) >= 1:
			return m.Data[0]
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_TCLASS && len(m.Data) >= 4:
			return byte(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return 0
}
