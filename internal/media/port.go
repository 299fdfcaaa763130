package media

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"localloop/internal/bypass"
	"localloop/internal/config"
	"localloop/internal/media/wire"
)

// errNoPort is returned when all ports of a realm are in use.
var errNoPort = errors.New("no free port")

// realm is a network from which voice is sent, with its ports.
type realm struct {
	config.Realm
	name  string
	cloud bool

	mu   sync.Mutex // control path only
	next uint16
	used map[uint16]bool // even ports

	packetsIn, packetsOut, bytesIn, bytesOut atomic.Uint64
}

func newRealm(c config.Realm) *realm {
	if !c.Advertise.IsValid() {
		c.Advertise = c.Address
	}
	return &realm{Realm: c, name: c.Name, cloud: c.Cloud, used: map[uint16]bool{}}
}

func (r *realm) received(n int) { r.packetsIn.Add(1); r.bytesIn.Add(uint64(n)) }
func (r *realm) sent(n int)     { r.packetsOut.Add(1); r.bytesOut.Add(uint64(n)) }

// bounds is the first even port and the number of pairs.
func (r *realm) bounds() (first, pairs int) {
	first = (int(r.Ports.Low) + 1) &^ 1
	return first, (int(r.Ports.High) + 1 - first) / 2
}

// free reports how many pairs are not in use.
func (r *realm) free() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, pairs := r.bounds()
	return pairs - len(r.used)
}

// sender is what RTCP needs of a socket.
type sender interface {
	Send(b []byte, to netip.AddrPort) error
}

// port is an even port for RTP and the odd one above it for RTCP (RFC 3550 §11),
// reserved for one leg.
type port struct {
	realm *realm
	base  uint16
	rtp   wire.Socket
	rtcp  wire.Socket // nil when RTCP shares the port
	leg   *leg
	// detach gives a socket back; it is the loop's.
	detach func(wire.Socket)
	closed bool
	// answers is held while a check is answered, which agents do in goroutines of
	// their own, and while the sockets are closed. Voice does not take it.
	answers sync.Mutex
	picked  atomic.Pointer[picks]
}

// picks are the pairs that agents chose on this port, a new value with each
// choice.
type picks struct {
	agent *bypass.Agent
	pair  bypass.Pair
	other *picks // of the agent before, during a restart
}

// selection is the pair that an agent chose last.
func (p *port) selection(a *bypass.Agent) *bypass.Pair {
	for k := p.picked.Load(); k != nil; k = k.other {
		if k.agent == a {
			return &k.pair
		}
	}
	return nil
}

// answer sends a response of an agent.
func (p *port) answer(b []byte, to netip.AddrPort) {
	p.answers.Lock()
	defer p.answers.Unlock()
	if !p.closed && p.rtp.Send(b, to) == nil {
		p.realm.sent(len(b))
	}
}

// pick stores a choice of an agent.
func (p *port) pick(a *bypass.Agent, pair bypass.Pair) {
	n := &picks{agent: a, pair: pair}
	for k := p.picked.Load(); k != nil; k = k.other {
		if k.agent != a {
			n.other = &picks{agent: k.agent, pair: k.pair}
			break
		}
	}
	p.picked.Store(n)
}

// Datagram implements wire.Receiver.
func (p *port) Datagram(now time.Time, s wire.Socket, b []byte, from netip.AddrPort) {
	if p.leg != nil {
		p.leg.v.packet(now, p, s == p.rtcp, b, from)
	}
}

// address is what descriptions say.
func (p *port) address() netip.AddrPort { return netip.AddrPortFrom(p.realm.Advertise, p.base) }

// open reserves and binds a pair. Numbers go round, so that stragglers of a
// call that has ended do not reach the next.
func (r *realm) open(listen func(netip.AddrPort, wire.Control) (wire.Socket, error), control wire.Control) (*port, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first, pairs := r.bounds()
	var last error
	for range pairs {
		base := uint16(first + 2*(int(r.next)%pairs))
		r.next++
		if r.used[base] {
			continue
		}
		rtp, err := listen(netip.AddrPortFrom(r.Address, base), control)
		if err != nil {
			last = err
			continue
		}
		rtcp, err := listen(netip.AddrPortFrom(r.Address, base+1), control)
		if err != nil {
			_ = rtp.Close()
			last = err
			continue
		}
		r.used[base] = true
		return &port{realm: r, base: base, rtp: rtp, rtcp: rtcp}, nil
	}
	if last == nil {
		last = errNoPort
	}
	return nil, fmt.Errorf("port of realm %s (%d-%d): %w", r.name, r.Ports.Low, r.Ports.High, last)
}

// close frees the pair. It runs on the loop, or anywhere when the port was never
// attached or the loop has ended.
func (p *port) close() {
	if p.closed {
		return
	}
	p.answers.Lock()
	p.closed = true
	p.answers.Unlock()
	for _, s := range [...]wire.Socket{p.rtp, p.rtcp} {
		if s == nil {
			continue
		}
		if p.detach != nil {
			p.detach(s)
		} else {
			_ = s.Close()
		}
	}
	p.realm.mu.Lock()
	delete(p.realm.used, p.base)
	p.realm.mu.Unlock()
}
