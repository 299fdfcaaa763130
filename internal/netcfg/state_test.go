package netcfg

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	gateway = netip.MustParseAddr("192.0.2.1")
	ours    = netip.MustParsePrefix("192.0.2.10/24")
	ours32  = netip.MustParsePrefix("192.0.2.10/32")
	ours6   = netip.MustParsePrefix("2001:db8::10/64")
)

func link(index int, name string, up bool) Change {
	return Change{Link: &Link{Index: index, Name: name, Up: up}}
}

func linkGone(index int) Change { return Change{Link: &Link{Index: index}, Gone: true} }

func address(index int, p netip.Prefix, gone bool) Change {
	return Change{Address: &Address{index, p}, Gone: gone}
}

func neighbour(index int, s NeighbourState) Change {
	return Change{Neighbour: &Neighbour{index, gateway, s}}
}

func ev(k Kind, iface string, addr ...netip.Addr) Event {
	e := Event{Kind: k, Interface: iface}
	if len(addr) > 0 {
		e.Addr = addr[0]
	}
	return e
}

// base is a machine with a LAN that is up, and a WAN that is not watched.
var base = State{
	Links:      []Link{{Index: 1, Name: "lo", Up: true}, {Index: 2, Name: "lan0", Up: true}, {Index: 3, Name: "wan0", Up: true}},
	Addresses:  []Address{{2, ours}, {3, netip.MustParsePrefix("198.51.100.2/24")}},
	Neighbours: []Neighbour{{2, gateway, NeighbourGood}},
}

func TestChangesBecomeEvents(t *testing.T) {
	for name, c := range map[string]struct {
		changes []Change
		want    []Event
	}{
		"down and up": {
			[]Change{link(2, "lan0", false), link(2, "lan0", false), link(2, "lan0", true)},
			[]Event{ev(LinkDown, "lan0"), ev(LinkUp, "lan0")},
		},
		"nothing new":        {[]Change{link(2, "lan0", true), address(2, ours, false), neighbour(2, NeighbourGood)}, nil},
		"not watched":        {[]Change{link(3, "wan0", false), address(3, ours, false), neighbour(3, NeighbourBad), linkGone(3)}, nil},
		"never heard of":     {[]Change{linkGone(9), address(9, ours, true), neighbour(9, NeighbourBad)}, nil},
		"pulled out":         {[]Change{linkGone(2)}, []Event{ev(AddressGone, "lan0", ours.Addr()), ev(LinkDown, "lan0")}},
		"pulled out by rule": {[]Change{address(2, ours, true), link(2, "lan0", false), linkGone(2)}, []Event{ev(AddressGone, "lan0", ours.Addr()), ev(LinkDown, "lan0")}},
		"back under another index, address first": {
			[]Change{linkGone(2), address(7, ours, false), link(7, "lan0", true)},
			[]Event{ev(AddressGone, "lan0", ours.Addr()), ev(LinkDown, "lan0"), ev(LinkUp, "lan0"), ev(AddressNew, "lan0", ours.Addr())},
		},
		"renamed away and back": {
			[]Change{link(2, "old0", true), link(2, "lan0", true)},
			[]Event{ev(AddressGone, "lan0", ours.Addr()), ev(LinkDown, "lan0"), ev(LinkUp, "lan0"), ev(AddressNew, "lan0", ours.Addr())},
		},
		"address moves": {
			[]Change{address(2, ours6, false), address(2, ours, true)},
			[]Event{ev(AddressNew, "lan0", ours6.Addr()), ev(AddressGone, "lan0", ours.Addr())},
		},
		"prefix length changes": {[]Change{address(2, ours32, false), address(2, ours, true)}, nil},
		"neighbour fails and returns": {
			[]Change{neighbour(2, NeighbourUnconfirmed), neighbour(2, NeighbourBad), neighbour(2, NeighbourUnconfirmed), neighbour(2, NeighbourBad), neighbour(2, NeighbourGood)},
			[]Event{ev(NeighbourFailed, "lan0", gateway), ev(NeighbourReachable, "lan0", gateway)},
		},
		"neighbour forgotten": {[]Change{neighbour(2, NeighbourForgotten)}, nil},
		"neighbour forgotten after failing": {
			[]Change{neighbour(2, NeighbourBad), neighbour(2, NeighbourForgotten), neighbour(2, NeighbourBad)},
			[]Event{ev(NeighbourFailed, "lan0", gateway), ev(NeighbourFailed, "lan0", gateway)},
		},
		"empty change": {[]Change{{}}, nil},
	} {
		tab := newTables([]string{"lan0"})
		if first := tab.replace(base); first != nil {
			t.Fatalf("the first reading gave %v", first)
		}
		var got []Event
		for _, ch := range c.changes {
			got = append(got, tab.apply(ch)...)
		}
		if d := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
}

func TestReadingAnewGivesWhatWasMissed(t *testing.T) {
	tab := newTables(nil)
	tab.replace(base)
	got := tab.replace(State{
		Links:      []Link{{Index: 1, Name: "lo"}, {Index: 2, Name: "lan0"}, {Index: 8, Name: "wan1", Up: true}},
		Addresses:  []Address{{2, ours6}},
		Neighbours: []Neighbour{{2, gateway, NeighbourBad}},
	})
	want := []Event{
		ev(AddressGone, "wan0", netip.MustParseAddr("198.51.100.2")), ev(LinkDown, "wan0"),
		ev(LinkDown, "lan0"), ev(LinkUp, "wan1"),
		ev(AddressGone, "lan0", ours.Addr()), ev(AddressNew, "lan0", ours6.Addr()),
		ev(NeighbourFailed, "lan0", gateway),
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if again := tab.replace(State{Links: []Link{{Index: 2, Name: "lan0"}, {Index: 8, Name: "wan1", Up: true}}, Addresses: []Address{{2, ours6}}}); again != nil {
		t.Errorf("nothing changed, and still %v", again)
	}
	if len(tab.neighbours) != 0 {
		t.Error("a neighbour that the kernel has forgotten is remembered")
	}
}

func TestNeighboursAreBounded(t *testing.T) {
	tab := newTables(nil)
	tab.replace(base)
	addr := netip.MustParseAddr("10.0.0.0")
	for range maxNeighbours + 100 {
		addr = addr.Next()
		tab.apply(Change{Neighbour: &Neighbour{2, addr, NeighbourBad}})
	}
	if len(tab.neighbours) != maxNeighbours {
		t.Errorf("%d neighbours", len(tab.neighbours))
	}
}

func TestQueueKeepsTheNewestOfEachThing(t *testing.T) {
	var q queue
	for range 1000 {
		q.push([]Event{ev(LinkDown, "lan0"), ev(NeighbourFailed, "lan0", gateway), ev(AddressGone, "lan0", gateway), ev(LinkUp, "lan0")})
	}
	want := []Event{ev(NeighbourFailed, "lan0", gateway), ev(AddressGone, "lan0", gateway), ev(LinkUp, "lan0")}
	if d := cmp.Diff(want, q.events, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
}
