package netcfg

import (
	"cmp"
	"net/netip"
	"slices"
)

// maxNeighbours bounds the neighbours remembered; the kernel's own table is
// smaller by default (gc_thresh3 1024).
const maxNeighbours = 4096

// tables is what the kernel was last known to have. Its methods are pure: they
// change the tables and return the events that the change amounts to.
//
// Links are known by index, because a name may pass to another link.
type tables struct {
	names map[string]bool // nil: all
	// begun is set by the first reading, which is news to nobody.
	begun bool
	links map[int]Link
	// addresses of all links: that of a new link may be told before the link is.
	addresses  map[Address]bool
	neighbours map[neighbourKey]NeighbourState // good or bad only
}

type neighbourKey struct {
	index int
	addr  netip.Addr
}

func newTables(interfaces []string) *tables {
	t := &tables{links: map[int]Link{}, addresses: map[Address]bool{}, neighbours: map[neighbourKey]NeighbourState{}}
	if len(interfaces) > 0 {
		t.names = make(map[string]bool)
		for _, name := range interfaces {
			t.names[name] = true
		}
	}
	return t
}

func (t *tables) watched(name string) bool {
	if t.names == nil {
		return name != "lo"
	}
	return t.names[name]
}

// replace takes over a whole reading. What differs from the tables gives
// events, except for the first reading.
func (t *tables) replace(s State) []Event {
	var events []Event
	present := make(map[int]bool)
	for _, l := range s.Links {
		present[l.Index] = true
	}
	for _, index := range sortedKeys(t.links) {
		if !present[index] {
			events = append(events, t.apply(Change{Link: &Link{Index: index}, Gone: true})...)
		}
	}
	for _, l := range s.Links {
		events = append(events, t.apply(Change{Link: &l})...)
	}

	have := make(map[Address]bool)
	for _, a := range s.Addresses {
		have[a] = true
	}
	for _, a := range sortedAddresses(t.addresses) {
		if !have[a] {
			events = append(events, t.apply(Change{Address: &a, Gone: true})...)
		}
	}
	for _, a := range s.Addresses {
		events = append(events, t.apply(Change{Address: &a})...)
	}

	known := make(map[neighbourKey]bool)
	for _, n := range s.Neighbours {
		known[neighbourKey{n.Index, n.Addr}] = true
		events = append(events, t.apply(Change{Neighbour: &n})...)
	}
	for k := range t.neighbours {
		if !known[k] {
			delete(t.neighbours, k)
		}
	}
	if !t.begun {
		t.begun = true
		return nil
	}
	return events
}

// apply takes over one change.
func (t *tables) apply(c Change) []Event {
	switch {
	case c.Link != nil && c.Gone:
		return t.dropLink(c.Link.Index, true)
	case c.Link != nil:
		return t.setLink(*c.Link)
	case c.Address != nil:
		return t.setAddress(*c.Address, c.Gone)
	case c.Neighbour != nil:
		return t.setNeighbour(*c.Neighbour)
	}
	return nil
}

func (t *tables) setLink(l Link) []Event {
	var events []Event
	old, known := t.links[l.Index]
	if known && old.Name != l.Name { // renamed: the old name is gone
		events = t.dropLink(l.Index, false)
		known = false
	}
	if !t.watched(l.Name) {
		return events
	}
	t.links[l.Index] = Link{Index: l.Index, Name: l.Name, Up: l.Up}
	switch {
	case l.Up && !(known && old.Up):
		events = append(events, Event{Kind: LinkUp, Interface: l.Name})
	case !l.Up && (!known || old.Up):
		events = append(events, Event{Kind: LinkDown, Interface: l.Name})
	}
	if !known {
		events = append(events, t.addressesOf(l, AddressNew)...)
	}
	return events
}

// dropLink forgets a link, and if it is gone rather than renamed, with all that
// hangs on it. The kernel tells of the addresses of a link that goes beforehand,
// but not if that was lost.
func (t *tables) dropLink(index int, gone bool) []Event {
	var events []Event
	if l, known := t.links[index]; known {
		events = t.addressesOf(l, AddressGone)
		if l.Up {
			events = append(events, Event{Kind: LinkDown, Interface: l.Name})
		}
		delete(t.links, index)
	}
	if gone {
		for a := range t.addresses {
			if a.Index == index {
				delete(t.addresses, a)
			}
		}
		for k := range t.neighbours {
			if k.index == index {
				delete(t.neighbours, k)
			}
		}
	}
	return events
}

// addressesOf lists the addresses of a link as events of one kind.
func (t *tables) addressesOf(l Link, kind Kind) []Event {
	var events []Event
	for _, a := range sortedAddresses(t.addresses) {
		e := Event{Kind: kind, Interface: l.Name, Addr: a.Prefix.Addr()}
		if a.Index == l.Index && !slices.Contains(events, e) {
			events = append(events, e)
		}
	}
	return events
}

func (t *tables) setAddress(a Address, gone bool) []Event {
	if t.addresses[a] == !gone {
		return nil
	}
	e := Event{Kind: AddressNew, Addr: a.Prefix.Addr()}
	if gone {
		e.Kind = AddressGone
		delete(t.addresses, a)
	} else {
		t.addresses[a] = true
	}
	for other := range t.addresses {
		if other != a && other.Index == a.Index && other.Prefix.Addr() == e.Addr {
			return nil // the same address with another prefix length: nothing to its user
		}
	}
	l, watched := t.links[a.Index]
	if !watched {
		return nil
	}
	e.Interface = l.Name
	return []Event{e}
}

func (t *tables) setNeighbour(n Neighbour) []Event {
	l, watched := t.links[n.Index]
	if !watched {
		return nil
	}
	k := neighbourKey{n.Index, n.Addr}
	old := t.neighbours[k]
	switch n.State {
	case NeighbourForgotten:
		// The kernel drops what nobody uses; and failed entries, after telling.
		delete(t.neighbours, k)
	case NeighbourBad:
		if old != NeighbourBad && t.remember(k, NeighbourBad) {
			return []Event{{Kind: NeighbourFailed, Interface: l.Name, Addr: n.Addr}}
		}
	case NeighbourGood:
		if old != NeighbourGood && t.remember(k, NeighbourGood) {
			return []Event{{Kind: NeighbourReachable, Interface: l.Name, Addr: n.Addr}}
		}
	}
	return nil
}

func (t *tables) remember(k neighbourKey, s NeighbourState) bool {
	if _, known := t.neighbours[k]; !known && len(t.neighbours) >= maxNeighbours {
		return false
	}
	t.neighbours[k] = s
	return true
}

// snapshot lists the links with their addresses, by index.
func (t *tables) snapshot() []Link {
	addresses := sortedAddresses(t.addresses)
	list := make([]Link, 0, len(t.links))
	for _, index := range sortedKeys(t.links) {
		l := t.links[index]
		for _, a := range addresses {
			if a.Index == index {
				l.Addresses = append(l.Addresses, a.Prefix)
			}
		}
		list = append(list, l)
	}
	return list
}

func sortedKeys(m map[int]Link) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func sortedAddresses(m map[Address]bool) []Address {
	list := make([]Address, 0, len(m))
	for a := range m {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b Address) int {
		return cmp.Or(a.Index-b.Index, a.Prefix.Addr().Compare(b.Prefix.Addr()), a.Prefix.Bits()-b.Prefix.Bits())
	})
	return list
}
