package sip

import (
	"context"
	"errors"
	"net/netip"
	"slices"
)

// unsent is a request in a dialog that waits for a way to the peer.
type unsent struct {
	d    *dialog
	send func(flow)
	lost func(error) // there is none; may be nil
}

// inDialog finds a way for a request and sends it in the leg's goroutine: at once
// where a connection stands, else when one is open, in the order of the calls.
// The leg never waits for it: a call whose peer cannot be reached still ends when
// its owner says so.
func (g *leg) inDialog(d *dialog, send func(flow), lost func(error)) {
	if !g.seeking {
		if f, ok := g.t.standing(d); ok {
			send(f)
			return
		}
	}
	g.unsent = append(g.unsent, unsent{d, send, lost})
	g.seek()
}

func (g *leg) seek() {
	if g.seeking || len(g.unsent) == 0 {
		return
	}
	u := g.unsent[0]
	d := *u.d // the dialog itself stays with the leg, which may refresh it meanwhile
	g.seeking = true
	g.open++
	g.t.wg.Go(func() {
		f, err := g.t.flow(context.Background(), &d)
		g.post(func() {
			g.open--
			g.seeking = false
			g.unsent = g.unsent[1:]
			switch {
			case err == nil:
				u.send(f)
			case u.lost != nil:
				u.lost(err)
			default:
				g.log.Warn("no way to the peer", "error", err)
			}
			g.seek()
		})
	})
}

// standing is the way for a request in a dialog that is open already; false if
// one is to be opened first. A Teams dialog always goes over a connection of ours
// to a proxy, never over one that Microsoft opened, never to its Contact (C-13,
// C-42). On a plain trunk a connection of the peer's will do (some carriers take
// no new one), and UDP goes to the route's address if that is trusted.
func (t *trunk) standing(d *dialog) (flow, bool) {
	target, _ := d.destination()
	if !t.teams {
		if u, err := parseURI(target); err == nil && t.transport == "UDP" {
			if ip, err := netip.ParseAddr(u.host); err == nil && t.trusted(ip) {
				port := u.port
				if port == 0 {
					port = 5060
				}
				return flow{link: t.udp, to: netip.AddrPortFrom(ip, uint16(port))}, true
			}
		}
		if d.last.link != nil && d.last.alive() {
			return d.last, true
		}
	}
	try := t.orderFor(d)
	if len(try) == 0 {
		return flow{}, false
	}
	return try[0].standing()
}

// orderFor is the peers for a request in a dialog: first the one that has it.
func (t *trunk) orderFor(d *dialog) []*peer {
	try := t.order()
	if d.peer == nil {
		return try
	}
	return append([]*peer{d.peer}, slices.DeleteFunc(try, func(p *peer) bool { return p == d.peer })...)
}

// flow finds a way for a request in a dialog, and opens one if none stands. That
// may take the time to connect to each peer.
func (t *trunk) flow(ctx context.Context, d *dialog) (flow, error) {
	if f, ok := t.standing(d); ok {
		return f, nil
	}
	var errs error
	for _, p := range t.orderFor(d) {
		c, cancel := context.WithTimeout(ctx, t.e.times.connect)
		f, err := p.flow(c)
		cancel()
		if err == nil {
			return f, nil
		}
		errs = errors.Join(errs, err)
	}
	return flow{}, errs
}
