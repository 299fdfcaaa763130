package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"localloop/internal/media/mediatest"
)

// capture counts the box's packets on the interfaces, outside edged: RTP to and
// from its two addresses, and the marks of what it sends.
type capture struct {
	sockets []tap
	on      bool
	why     string // why it is not on
	o       *options

	mu    sync.Mutex
	count counts
}

// counts are totals since the start; differences belong to a call.
type counts struct {
	lanRTP, wanRTP    uint64     // both directions
	voice, signalling [64]uint64 // what the box sent, by DSCP
}

type tap struct {
	fd       int
	loopback bool
}

// openCapture opens packet sockets where the kernel permits it.
func openCapture(o *options) *capture {
	c := &capture{o: o}
	type place struct{ netns, name string }
	places := []place{{"", "lo"}}
	if !o.loopback() {
		places = []place{{o.LANNetns, o.LANIf}, {"", o.WANIf}}
	}
	for _, p := range places {
		if p.name == "" {
			continue
		}
		err := mediatest.InNetns(p.netns, func() error {
			t, err := openTap(p.name)
			if err != nil {
				return err
			}
			t.loopback = o.loopback()
			c.sockets = append(c.sockets, t)
			return nil
		})
		if err != nil {
			c.why = fmt.Sprintf("no packet capture on %s: %v", p.name, err)
			c.close()
			return c
		}
	}
	c.on = true
	return c
}

func openTap(name string) (tap, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return tap{}, err
	}
	// Only a tap on all protocols sees what leaves. Network order on little-endian
	// machines, which all our targets are.
	const protocol = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return tap{}, err
	}
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: ifi.Index}),
		// run looks for its end between packets.
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20),
	)
	if err != nil {
		_ = unix.Close(fd)
		return tap{}, err
	}
	return tap{fd: fd}, nil
}

func (c *capture) close() {
	for _, t := range c.sockets {
		_ = unix.Close(t.fd)
	}
	c.sockets = nil
}

// run reads all taps until ctx ends.
func (c *capture) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, t := range c.sockets {
		wg.Go(func() {
			buf := make([]byte, 2048)
			for ctx.Err() == nil {
				n, from, err := unix.Recvfrom(t.fd, buf, 0)
				if err != nil {
					if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
						continue
					}
					return
				}
				ll, ok := from.(*unix.SockaddrLinklayer)
				// On loopback each packet is seen leaving and arriving.
				if !ok || ll.Protocol != unix.ETH_P_IP<<8&0xff00|unix.ETH_P_IP>>8 || t.loopback && ll.Pkttype == unix.PACKET_OUTGOING {
					continue
				}
				c.packet(buf[:n])
			}
		})
	}
	wg.Wait()
	c.close()
}

// packet classifies one IPv4 packet.
func (c *capture) packet(b []byte) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return
	}
	head, total := 4*int(b[0]&0x0f), int(binary.BigEndian.Uint16(b[2:]))
	if head < 20 || total > len(b) || total < head+8 || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
		return
	}
	dscp, payload := b[1]>>2, b[head:total]
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	fromBox := src == c.o.LAN || src == c.o.WAN
	c.mu.Lock()
	defer c.mu.Unlock()
	switch b[9] {
	case unix.IPPROTO_UDP:
		if !isRTP(payload[8:]) {
			return
		}
		switch {
		case src == c.o.LAN || dst == c.o.LAN:
			c.count.lanRTP++
		case src == c.o.WAN || dst == c.o.WAN:
			c.count.wanRTP++
		default:
			return
		}
		if fromBox {
			c.count.voice[dscp]++
		}
	case unix.IPPROTO_TCP:
		if len(payload) < 20 || !fromBox {
			return
		}
		offset := 4 * int(payload[12]>>4)
		port := func(at int) bool {
			p := binary.BigEndian.Uint16(payload[at:])
			return p >= c.o.SIP && p < c.o.SIP+3
		}
		if offset < len(payload) && (port(0) || port(2)) { // with data: not a bare ACK
			c.count.signalling[dscp]++
		}
	}
}

// isRTP tells RTP from STUN, RTCP and the rest by its first octets, RFC 7983 and
// RFC 5761 §4.
func isRTP(b []byte) bool {
	return len(b) >= 12 && b[0]>>6 == 2 && (b[1] < 192 || b[1] > 223)
}

// snapshot returns the totals so far. ok is false if nothing is captured.
func (c *capture) snapshot() (counts, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count, c.on
}

func (a counts) since(b counts) counts {
	d := counts{lanRTP: a.lanRTP - b.lanRTP, wanRTP: a.wanRTP - b.wanRTP}
	for i := range a.voice {
		d.voice[i], d.signalling[i] = a.voice[i]-b.voice[i], a.signalling[i]-b.signalling[i]
	}
	return d
}

// setLink takes an interface down or up, as a pulled cable does.
func setLink(name string, up bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	flags := req.Uint16() &^ unix.IFF_UP
	if up {
		flags |= unix.IFF_UP
	}
	req.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return nil
}
