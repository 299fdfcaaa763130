package sip

import (
	"time"

	"localloop/internal/call"
)

// stopAck gives up waiting for an ACK.
func (g *leg) stopAck() {
	if g.ack != nil {
		g.ack.stop()
		g.ack = nil
		g.open--
	}
}

// ackWait is a 2xx of ours that the peer has not acknowledged.
type ackWait struct {
	s       *serverTx
	body    []byte
	offered bool // the 2xx holds an offer, the ACK its answer
	stop    func()
}

// await repeats a 2xx until its ACK comes, RFC 3261 §13.3.1.4: over every
// transport, for behind a stream there may be hops without one.
func (g *leg) await(s *serverTx, body []byte, offered bool) {
	g.stopAck()
	w := &ackWait{s: s, body: body, offered: offered}
	g.ack = w
	g.open++
	tm := g.t.e.times
	var waited time.Duration
	var again func(time.Duration)
	again = func(d time.Duration) {
		w.stop = g.after(d, func() {
			if waited += d; waited >= 64*tm.t1 {
				g.unacknowledged()
				return
			}
			s.respond(200, g.localTag, nil, "application/sdp", body)
			again(min(2*d, tm.t2))
		})
	}
	again(tm.t1)
}

func (g *leg) unacknowledged() {
	g.stopAck()
	c := call.RecoveryOnTimer.With("no ACK for our 200")
	g.byeCause = nil
	g.bye(g.d, c)
	g.release(c, "")
}

// onACK is an ACK for a 2xx.
func (g *leg) onACK(m *message) {
	if g.ack == nil || m.cseq != g.ack.s.m.cseq || g.d == nil || m.from.tag() != g.d.remote {
		return // repeated, or of a request that is history
	}
	offered := g.ack.offered
	g.stopAck()
	if c := g.byeCause; c != nil {
		g.byeCause = nil
		g.bye(g.d, *c)
		return
	}
	if offered && !g.over {
		desc, err := m.description()
		if err != nil || desc == nil {
			c := call.IncompatibleMedia.With("ACK without an answer to our offer")
			g.bye(g.d, c)
			g.release(c, "")
			return
		}
		g.emit(call.Answer{Description: desc})
	}
	g.nextUpdate()
}
