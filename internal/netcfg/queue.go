package netcfg

import (
	"net/netip"
	"slices"
)

// queue holds events that nobody has fetched yet. A newer event takes the place
// of an older one about the same thing, so there are never more than things.
type queue struct{ events []Event }

// subject is what an event is about.
type subject struct {
	about uint8
	iface string
	addr  netip.Addr
}

func (e Event) subject() subject {
	s := subject{iface: e.Interface, addr: e.Addr}
	switch e.Kind {
	case NeighbourFailed, NeighbourReachable:
		s.about = 1
	case AddressGone, AddressNew:
		s.about = 2
	}
	return s
}

func (q *queue) push(events []Event) {
	for _, e := range events {
		s := e.subject()
		q.events = slices.DeleteFunc(q.events, func(old Event) bool { return old.subject() == s })
		q.events = append(q.events, e)
	}
}

func (q *queue) front() (Event, bool) {
	if len(q.events) == 0 {
		return Event{}, false
	}
	return q.events[0], true
}

func (q *queue) pop() { q.events = slices.Delete(q.events, 0, 1) }
