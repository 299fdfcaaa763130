package wire

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// buffer is the socket's receive buffer: 200 ms of a stalled loop at 50 packets
// per second would need 10 packets; the kernel counts about 1 KiB for each.
const buffer = 128 << 10

// udpSocket is a non-blocking socket whose system calls allocate nothing.
type udpSocket struct {
	fd     int
	local  netip.AddrPort
	six    bool
	to     Receiver
	counts *Counts
}

func listen(local netip.AddrPort, control Control) (*udpSocket, error) {
	s := &udpSocket{fd: -1, local: local, six: local.Addr().Is6() && !local.Addr().Is4In6()}
	if !local.Addr().IsValid() {
		return nil, fmt.Errorf("listen: address %v: %w", local, os.ErrInvalid)
	}
	family, network := unix.AF_INET, "udp4"
	if s.six {
		family, network = unix.AF_INET6, "udp6"
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	fail := func(what string, err error) (*udpSocket, error) {
		unix.Close(fd)
		return nil, fmt.Errorf("%s %v: %w", what, local, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer); err != nil {
		return fail("receive buffer of", err)
	}
	if s.six {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fail("IPV6_V6ONLY of", err)
		}
	}
	if control != nil {
		if err := control(network, local.String(), rawConn(fd)); err != nil {
			return fail("mark", err)
		}
	}
	var sa unix.Sockaddr
	if s.six {
		sa = &unix.SockaddrInet6{Port: int(local.Port()), Addr: local.Addr().As16()}
	} else {
		sa = &unix.SockaddrInet4{Port: int(local.Port()), Addr: local.Addr().Unmap().As4()}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return fail("bind", err)
	}
	if local.Port() == 0 {
		got, err := unix.Getsockname(fd)
		if err != nil {
			return fail("name of", err)
		}
		switch got := got.(type) {
		case *unix.SockaddrInet4:
			s.local = netip.AddrPortFrom(local.Addr(), uint16(got.Port))
		case *unix.SockaddrInet6:
			s.local = netip.AddrPortFrom(local.Addr(), uint16(got.Port))
		}
	}
	s.fd = fd
	return s, nil
}

func (s *udpSocket) Local() netip.AddrPort { return s.local }

func (s *udpSocket) Close() error {
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd, s.to = -1, nil
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close %v: %w", s.local, err)
	}
	return nil
}

// recv reads one datagram. The length is the real one, also when it was cut.
//
// The calls are raw because they never block: the scheduler of Go need not be
// told of a few microseconds (docs/decisions/media-loop.md).
func (s *udpSocket) recv(b []byte, from *unix.RawSockaddrAny) (int, netip.AddrPort, syscall.Errno) {
	size := uint32(unix.SizeofSockaddrAny)
	n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_TRUNC, uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(&size)))
	if err != 0 {
		return 0, netip.AddrPort{}, err
	}
	switch from.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(from))
		return int(n), netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), ntohs(&sa.Port)), 0
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(from))
		return int(n), netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), ntohs(&sa.Port)), 0
	}
	return int(n), netip.AddrPort{}, 0
}

// ntohs reads a port, which is big endian in memory.
func ntohs(p *uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(p))
	return uint16(b[0])<<8 | uint16(b[1])
}

func htons(dst *uint16, port uint16) {
	b := (*[2]byte)(unsafe.Pointer(dst))
	b[0], b[1] = byte(port>>8), byte(port)
}

// Send implements Socket.
func (s *udpSocket) Send(b []byte, to netip.AddrPort) error {
	if len(b) == 0 || s.fd < 0 {
		return os.ErrInvalid
	}
	var sa4 unix.RawSockaddrInet4
	var sa6 unix.RawSockaddrInet6
	var sa unsafe.Pointer
	var size uintptr
	addr := to.Addr().Unmap()
	switch {
	case s.six && addr.Is6():
		sa6.Family, sa6.Addr = unix.AF_INET6, addr.As16()
		htons(&sa6.Port, to.Port())
		sa, size = unsafe.Pointer(&sa6), unix.SizeofSockaddrInet6
	case !s.six && addr.Is4():
		sa4.Family, sa4.Addr = unix.AF_INET, addr.As4()
		htons(&sa4.Port, to.Port())
		sa, size = unsafe.Pointer(&sa4), unix.SizeofSockaddrInet4
	default:
		s.count(unix.EAFNOSUPPORT)
		return unix.EAFNOSUPPORT
	}
	_, _, err := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_NOSIGNAL, uintptr(sa), size)
	s.count(err)
	if err != 0 {
		return err
	}
	return nil
}

func (s *udpSocket) count(err syscall.Errno) {
	switch {
	case s.counts == nil:
	case err == 0:
		s.counts.Sent.Add(1)
	case err == unix.EAGAIN || err == unix.ENOBUFS:
		s.counts.NoRoom.Add(1)
	default:
		s.counts.Failed.Add(1)
	}
}

// rawConn lets control functions reach the descriptor.
type rawConn int

func (c rawConn) Control(f func(fd uintptr)) error { f(uintptr(c)); return nil }
func (c rawConn) Read(func(uintptr) bool) error    { return os.ErrInvalid }
func (c rawConn) Write(func(uintptr) bool) error   { return os.ErrInvalid }
