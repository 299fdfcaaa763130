package qos

import (
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"localloop/internal/config"
)

// Class is what a socket carries.
type Class uint8

// Classes of our sockets.
const (
	Voice Class = iota
	Signalling
)

// String is the class's name for logs.
func (c Class) String() string {
	if c == Signalling {
		return "signalling"
	}
	return "voice"
}

// Socket priorities. They choose the band of pfifo_fast, whose first band is
// for 6 and 7 and whose last would be for 5, so the value is not the 802.1p
// priority; PriorityMap turns one into the other. More than 6 needs privilege.
const (
	voicePriority      = 6
	signallingPriority = 4
)

// PriorityMap is the egress map of a VLAN interface: socket priority to 802.1p
// priority (IEEE 802.1Q table I-2: voice 5, critical applications 3).
func PriorityMap() map[uint32]uint32 {
	return map[uint32]uint32{voicePriority: 5, signallingPriority: 3}
}

// Marks gives sockets their DSCP and priority.
type Marks struct{ voice, signalling config.DSCP }

// NewMarks takes the code points from the configuration.
func NewMarks(c config.QoS) Marks { return Marks{voice: c.Voice, signalling: c.Signalling} }

// DSCP is the code point of a class.
func (m Marks) DSCP(c Class) config.DSCP {
	if c == Signalling {
		return m.signalling
	}
	return m.voice
}

// Control is a function for net.Dialer.Control and net.ListenConfig.Control. It
// marks the socket and reads the marks back. Connections accepted by a listener
// inherit its DSCP but not its priority: see Listener. It needs no privilege and
// is safe for concurrent use.
func (m Marks) Control(c Class) func(network, address string, conn syscall.RawConn) error {
	dscp, priority := m.DSCP(c), c.priority()
	return func(network, address string, conn syscall.RawConn) error {
		var err error
		if cerr := conn.Control(func(fd uintptr) { err = markSocket(int(fd), int(dscp)<<2, priority) }); cerr != nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("mark %s socket %s %s with DSCP %d: %w", c, network, address, dscp, err)
		}
		return nil
	}
}

func (c Class) priority() int {
	if c == Signalling {
		return signallingPriority
	}
	return voicePriority
}

// Listener marks the connections that l accepts, whose priority the kernel
// resets (sk_clone), and with it the 802.1p priority on a VLAN. A connection
// that cannot be marked is accepted all the same: a call with a worse mark is
// better than none, and the Share shows it.
func (m Marks) Listener(l net.Listener, c Class) net.Listener {
	return &markedListener{Listener: l, control: m.Control(c)}
}

type markedListener struct {
	net.Listener
	control func(network, address string, conn syscall.RawConn) error
}

// Accept implements net.Listener.
func (l *markedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			_ = l.control(conn.RemoteAddr().Network(), conn.RemoteAddr().String(), raw)
		}
	}
	return conn, nil
}

func markSocket(fd, tos, priority int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("read SO_DOMAIN: %w", err)
	}
	type option struct {
		name              string
		level, opt, value int
	}
	var options []option
	ipTOS := option{"IP_TOS", unix.IPPROTO_IP, unix.IP_TOS, tos}
	switch domain {
	case unix.AF_INET:
		options = append(options, ipTOS)
	case unix.AF_INET6:
		options = append(options, option{"IPV6_TCLASS", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tos})
		only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		if err != nil {
			return fmt.Errorf("read IPV6_V6ONLY: %w", err)
		}
		if only == 0 {
			// To an IPv4-mapped peer the socket sends IPv4 packets, whose mark is
			// the other option.
			options = append(options, ipTOS)
		}
	default:
		return fmt.Errorf("address family %d has no DSCP", domain)
	}
	// IP_TOS sets a priority of its own, so ours comes after it.
	options = append(options, option{"SO_PRIORITY", unix.SOL_SOCKET, unix.SO_PRIORITY, priority})
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			return fmt.Errorf("set %s to %d: %w", o.name, o.value, err)
		}
	}
	for _, o := range options {
		got, err := unix.GetsockoptInt(fd, o.level, o.opt)
		if err != nil {
			return fmt.Errorf("read back %s: %w", o.name, err)
		}
		// TCP keeps the two ECN bits to itself.
		if got&^3 != o.value&^3 && o.opt != unix.SO_PRIORITY || o.opt == unix.SO_PRIORITY && got != o.value {
			return fmt.Errorf("read back %s: %d instead of %d", o.name, got, o.value)
		}
	}
	return nil
}
