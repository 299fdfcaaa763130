package mediatest

import (
	"context"
	"math"
	"time"
)

// Stats is what a client measured.
type Stats struct {
	Paths       map[string]PathCount
	Received    uint64 // RTP packets accepted from the present SSRC
	Lost        uint64 // by sequence number
	Late        uint64 // duplicates and packets overtaken by later ones
	Jitter      time.Duration
	Unauthentic uint64 // SRTP or SRTCP that did not verify
	Unknown     uint64 // RTP of no use: before an answer, other payload type, other source
	Noise       uint64 // CN packets
	Reports     uint64 // RTCP SR and RR received
	RoundTrip   time.Duration
	RoundTripOK bool // a report of the other side gave a round trip time
	LastRTP     time.Time
	Sent        uint64
	FarLost     float64 // share that the other side reported lost, last report
}

// Stats returns the counters so far.
func (c *Client) Stats() Stats {
	st := Stats{Paths: map[string]PathCount{}}
	for _, s := range c.sockets {
		st.Paths[s.Name] = s.counts()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &c.receiver
	st.Received, st.Late, st.Unauthentic, st.Unknown, st.Noise = r.packets, r.late, r.unauthentic, r.unknown, r.noise
	if r.known {
		if expected := uint64(r.highest-r.first) + 1; expected > r.packets {
			st.Lost = expected - r.packets
		}
	}
	st.Jitter = time.Duration(r.jitter / sampleRate * float64(time.Second))
	st.Reports = r.srs + r.rrs
	st.RoundTrip, st.RoundTripOK = r.rtt, r.farCount > 0 && r.lastSR != 0
	st.LastRTP, st.Sent, st.FarLost = r.lastRTP, uint64(c.sender.packets), float64(r.farLost)/256
	return st
}

// WaitReports waits until n RTCP reports have arrived.
func (c *Client) WaitReports(ctx context.Context, n uint64) error {
	return c.wait(ctx, "RTCP reports", func() bool { return c.receiver.srs+c.receiver.rrs >= n })
}

// WaitPackets waits until n RTP packets have been accepted.
func (c *Client) WaitPackets(ctx context.Context, n uint64) error {
	return c.wait(ctx, "RTP packets", func() bool { return c.receiver.packets >= n })
}

// MOS estimates the listening quality of G.711 by ITU-T G.107 with its defaults:
// one-way delay and share of packets lost, at random. The loss robustness of
// G.711 with concealment is Bpl 25.1 (G.113 appendix I).
func MOS(oneWay time.Duration, loss float64) float64 {
	d := float64(oneWay.Milliseconds())
	delay := 0.024 * d
	if d > 177.3 {
		delay += 0.11 * (d - 177.3)
	}
	r := 93.2 - delay - 95*(loss*100)/(loss*100+25.1)
	switch {
	case r <= 0:
		return 1
	case r >= 100:
		return 4.5
	}
	return math.Round((1+0.035*r+r*(r-60)*(100-r)*7e-6)*100) / 100
}
