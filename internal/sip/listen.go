package sip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// listen opens the trunk's own socket.
func (t *trunk) listen(ctx context.Context) error {
	lc := net.ListenConfig{Control: t.e.opt.Control}
	if t.transport == "UDP" {
		pc, err := lc.ListenPacket(ctx, "udp", t.bind.String())
		if err != nil {
			return fmt.Errorf("trunk %s: listen on %s: %w", t.name, t.bind, err)
		}
		t.udp = &link{t: t, packet: pc, born: time.Now(), dead: make(chan struct{})}
		t.setLocal(addrPort(pc.LocalAddr()))
		return nil
	}
	ln, err := lc.Listen(ctx, "tcp", t.bind.String())
	if err != nil {
		return fmt.Errorf("trunk %s: listen on %s: %w", t.name, t.bind, err)
	}
	if wrap := t.e.opt.Listener; wrap != nil {
		ln = wrap(ln)
	}
	t.listener = ln
	t.setLocal(addrPort(ln.Addr()))
	return nil
}

const (
	maxInbound = 512 // connections; Microsoft opens two for each of its proxies (C-17)
	// maxPerSource leaves room for others when one address opens all it can,
	// with or without a certificate. A carrier's NAT may hide several hosts.
	maxPerSource     = 32
	handshakeTimeout = 10 * time.Second
)

// accept serves the listener until it is closed. Sources out of the allowed
// ranges are closed before they may say anything (C-18).
func (t *trunk) accept(ctx context.Context) {
	for {
		c, err := t.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, or a peer that was gone before we looked.
			t.log.Warn("accept", "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return
			}
			continue
		}
		remote := addrPort(c.RemoteAddr())
		if !t.trusted(remote.Addr()) || !t.seat(remote.Addr()) {
			t.counters.untrusted.Add(1)
			_ = c.Close()
			continue
		}
		t.wg.Go(func() {
			defer t.unseat(remote.Addr())
			t.serve(ctx, c, remote)
		})
	}
}

// seat counts a connection that a peer opens; false if there is no room for it.
func (t *trunk) seat(a netip.Addr) bool {
	t.mu.Lock()
	all, here := t.inbound, t.sources[a]
	ok := all < maxInbound && here < maxPerSource
	if ok {
		t.inbound++
		t.sources[a]++
	}
	t.mu.Unlock()
	if !ok && t.quiet.Allow() {
		t.log.Warn("connection refused: too many", "remote", a, "from there", here, "all", all)
	}
	return ok
}

func (t *trunk) unseat(a netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inbound--
	if t.sources[a]--; t.sources[a] == 0 {
		delete(t.sources, a)
	}
}

// serve runs one connection that a peer opened.
func (t *trunk) serve(ctx context.Context, c net.Conn, remote netip.AddrPort) {
	if t.id != nil {
		tc := tls.Server(c, t.id.server())
		limited, cancel := context.WithTimeout(ctx, handshakeTimeout)
		err := tc.HandshakeContext(limited)
		cancel()
		if err != nil {
			_ = c.Close()
			n := t.counters.handshakes.Add(1)
			if t.quiet.Allow() {
				t.log.Warn("TLS refused", "remote", remote, "error", err, "count", n)
			}
			return
		}
		c = tc
	}
	l := &link{t: t, stream: c, remote: remote, born: time.Now(), dead: make(chan struct{})}
	if !t.adopt(l) {
		_ = c.Close()
		return
	}
	l.readStream()
	t.forget(l)
}
