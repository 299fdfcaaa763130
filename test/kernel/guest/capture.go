package main

import (
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capture reads frames at the far end of a link with a packet socket: what a
// machine at the other end of the cable would see.
type capture struct{ fd int }

func newCapture(index int) (*capture, error) {
	all := htons(unix.ETH_P_ALL)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	c := &capture{fd}
	// The kernel takes the tag out of the frame and hands it over beside.
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		c.close()
		return nil, fmt.Errorf("PACKET_AUXDATA: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
		c.close()
		return nil, fmt.Errorf("bind packet socket: %w", err)
	}
	wait := unix.NsecToTimeval((200 * time.Millisecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		c.close()
		return nil, fmt.Errorf("SO_RCVTIMEO: %w", err)
	}
	return c, nil
}

func (c *capture) close() { _ = unix.Close(c.fd) }

// frames returns want UDP frames, or as many as have come when none has for a
// while.
func (c *capture) frames(want int) ([]frame, error) {
	var got []frame
	b, oob := make([]byte, 2048), make([]byte, 256)
	for len(got) < want {
		n, on, _, from, err := unix.Recvmsg(c.fd, b, oob, 0)
		switch err {
		case nil:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return got, nil
		default:
			return got, fmt.Errorf("capture: %w", err)
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
			continue // of our own end
		}
		f, ok := decode(b[:n])
		if !ok {
			continue
		}
		if tci, tagged := tagOf(oob[:on]); tagged {
			f.tag(tci)
		}
		got = append(got, f)
	}
	return got, nil
}

// tagOf finds the 802.1Q tag in the control message of a packet socket.
func tagOf(oob []byte) (tci uint16, ok bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < int(unsafe.Sizeof(unix.TpacketAuxdata{})) {
			continue
		}
		// struct tpacket_auxdata: status, len, snaplen (32 bit), mac, net, vlan_tci, vlan_tpid (16 bit).
		status := binary.NativeEndian.Uint32(m.Data)
		if status&unix.TP_STATUS_VLAN_VALID != 0 && binary.NativeEndian.Uint16(m.Data[18:]) == unix.ETH_P_8021Q {
			return binary.NativeEndian.Uint16(m.Data[16:]), true
		}
	}
	return 0, false
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}
