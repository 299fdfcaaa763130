package analog

import (
	"cmp"
	"slices"
	"time"
)

// LineStatus is what can be seen of one line.
type LineStatus struct {
	Line      string
	Card      string
	Channel   int
	Kind      string
	Number    string
	State     string // idle, ringing, in call …
	InService bool   // the card answers and has the line without a fault
	OffHook   bool
	LinkUp    bool
	LinkFault string // why the card is not up
	Calls     uint64
	Flashes   uint64
	// Frames of PCM from and to the line, lost ones from the card, and those
	// that the call did not provide in time.
	Heard, Spoken, Lost, Starved uint64
	// LastFault stays when the line is back in service.
	LastFault   string
	LastFaultAt time.Time
	Link        LinkStatus // of the card
}

// LinkStatus is the counters of a card's link.
type LinkStatus struct {
	Firmware  string
	Opens     uint64 // of the port
	Sessions  uint64
	Alarms    uint64
	Repeats   uint64 // commands sent again
	Bad       uint64 // frames dropped for COBS, length or check sequence
	Dropped   uint64 // frames dropped for want of room
	Malformed uint64
	RoundTrip time.Duration
	Underruns uint32 // of the card's playout
}

// Status lists all lines by name.
func (b *Bank) Status() []LineStatus {
	b.mu.RLock()
	var all []LineStatus
	for _, c := range b.cards {
		all = append(all, *c.status.Load()...)
	}
	b.mu.RUnlock()
	slices.SortFunc(all, func(x, y LineStatus) int { return cmp.Compare(x.Line, y.Line) })
	return all
}

// publish makes the present state visible to Status.
func (c *card) publish() {
	s := c.session.Stats()
	ls := LinkStatus{Firmware: c.welcome.Firmware, Opens: c.opens, Sessions: s.Sessions, Alarms: c.alarms, Repeats: s.Repeats,
		Malformed: s.Malformed, RoundTrip: s.RoundTrip, Underruns: s.Card.Underruns}
	if c.conn != nil {
		n := c.conn.Counters()
		ls.Bad, ls.Dropped = n.Bad, n.Dropped
	}
	list := make([]LineStatus, 0, len(c.lines))
	for _, l := range c.lines {
		v := l.voice
		list = append(list, LineStatus{
			Line: l.conf.Name, Card: c.name, Channel: l.conf.Channel, Kind: l.conf.Kind, Number: l.conf.Number,
			State: l.state(), InService: l.serves(), OffHook: l.offHook, LinkUp: c.session.Up(), LinkFault: c.linkFault(),
			Calls: l.calls, Flashes: l.flashes,
			Heard: v.heard.Load(), Spoken: v.spoken.Load(), Lost: v.lost.Load(), Starved: v.starve.Load(),
			LastFault: l.fault, LastFaultAt: l.faultAt, Link: ls,
		})
	}
	c.status.Store(&list)
}
