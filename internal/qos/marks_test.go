package qos

import (
	"context"
	"net"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"localloop/internal/config"
)

var laboratory = config.QoS{Voice: 46, Signalling: 34}

func optionOf(t *testing.T, c any, level, opt int) int {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	v := -1
	if err := raw.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), level, opt) }); err != nil || v < 0 {
		t.Fatal(err)
	}
	return v
}

// TestQ01UDPSocketsSendTheirMark looks at the TOS of packets as received, not
// only at the options, and needs no privilege. C-106 for a socket.
func TestQ01UDPSocketsSendTheirMark(t *testing.T) {
	for _, c := range []struct {
		class         Class
		network, addr string
		to            string
		dscp, prio    int
	}{
		{Voice, "udp4", "127.0.0.1:0", "udp4", 46, 6},
		{Signalling, "udp4", "127.0.0.1:0", "udp4", 34, 4},
		{Voice, "udp6", "[::1]:0", "udp6", 46, 6},
		{Voice, "udp", ":0", "udp4", 46, 6}, // dual stack, to IPv4
		{Voice, "udp", ":0", "udp6", 46, 6}, // dual stack, to IPv6
	} {
		ctx := context.Background()
		listen := map[string]string{"udp4": "127.0.0.1:0", "udp6": "[::1]:0"}[c.to]
		peer, err := net.ListenPacket(c.to, listen)
		if err != nil {
			t.Skipf("no %s here: %v", c.to, err)
		}
		defer peer.Close()
		level, opt, kind := unix.IPPROTO_IP, unix.IP_RECVTOS, unix.IP_TOS
		if c.to == "udp6" {
			level, opt, kind = unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, unix.IPV6_TCLASS
		}
		raw, _ := peer.(*net.UDPConn).SyscallConn()
		if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, opt, 1) }); err != nil {
			t.Fatal(err)
		}
		conn, err := (&net.ListenConfig{Control: NewMarks(laboratory).Control(c.class)}).ListenPacket(ctx, c.network, c.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.WriteTo([]byte("x"), peer.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		oob := make([]byte, 128)
		_, n, _, _, err := peer.(*net.UDPConn).ReadMsgUDPAddrPort(make([]byte, 16), oob)
		if err != nil {
			t.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil || len(messages) != 1 || int(messages[0].Header.Type) != kind {
			t.Fatalf("%+v: %v %v", c, messages, err)
		}
		if got := int(messages[0].Data[0]) >> 2; got != c.dscp {
			t.Errorf("%s %s to %s: DSCP %d, want %d", c.class, c.network, c.to, got, c.dscp)
		}
		if got := optionOf(t, conn, unix.SOL_SOCKET, unix.SO_PRIORITY); got != c.prio {
			t.Errorf("%s: priority %d, want %d", c.class, got, c.prio)
		}
	}
}

// TestQ02AcceptedConnectionsInheritTheDSCP shows what the kernel does by itself.
func TestQ02AcceptedConnectionsInheritTheDSCP(t *testing.T) {
	l, err := (&net.ListenConfig{Control: NewMarks(laboratory).Control(Signalling)}).Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if got := optionOf(t, accepted, unix.IPPROTO_IP, unix.IP_TOS) >> 2; got != 34 {
		t.Errorf("accepted: DSCP %d, want 34", got)
	}
}

// TestQ02ListenerMarksWhatItAccepts: DSCP and priority.
func TestQ02ListenerMarksWhatItAccepts(t *testing.T) {
	marks := NewMarks(laboratory)
	for _, c := range []struct {
		network, addr string
		level, opt    int
	}{
		{"tcp4", "127.0.0.1:0", unix.IPPROTO_IP, unix.IP_TOS},
		{"tcp6", "[::1]:0", unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
	} {
		l, err := (&net.ListenConfig{Control: marks.Control(Signalling)}).Listen(context.Background(), c.network, c.addr)
		if err != nil {
			t.Skipf("no %s here: %v", c.network, err)
		}
		defer l.Close()
		l = marks.Listener(l, Signalling)
		dialled, err := (&net.Dialer{Control: marks.Control(Signalling)}).Dial(c.network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer dialled.Close()
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer accepted.Close()
		for name, conn := range map[string]net.Conn{"accepted": accepted, "dialled": dialled} {
			if got := optionOf(t, conn, c.level, c.opt) >> 2; got != 34 {
				t.Errorf("%s %s: DSCP %d, want 34", c.network, name, got)
			}
			if got := optionOf(t, conn, unix.SOL_SOCKET, unix.SO_PRIORITY); got != 4 {
				t.Errorf("%s %s: priority %d, want 4", c.network, name, got)
			}
		}
	}
}

func TestControlRefusesASocketWithoutDSCP(t *testing.T) {
	_, err := (&net.ListenConfig{Control: NewMarks(laboratory).Control(Voice)}).Listen(context.Background(), "unix", t.TempDir()+"/s")
	if err == nil || !strings.Contains(err.Error(), "has no DSCP") {
		t.Errorf("unix socket: %v", err)
	}
}
