package qos

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Netlink is the Kernel of the network namespace in which it was made. Safe for
// concurrent use.
type Netlink struct{ handle *netlink.Handle }

// NewNetlink opens a netlink socket.
func NewNetlink() (*Netlink, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Netlink{handle: h}, nil
}

// Close closes the socket.
func (k *Netlink) Close() { k.handle.Close() }

// Read implements Kernel.
func (k *Netlink) Read(name string) (Tree, error) {
	t := Tree{Interface: name}
	if err := checkName(name); err != nil {
		return t, err
	}
	link, err := k.handle.LinkByName(name)
	if err != nil {
		return t, fmt.Errorf("find interface %s: %w", name, err)
	}
	t.Index = link.Attrs().Index
	qdiscs, err := again(func() ([]netlink.Qdisc, error) { return k.handle.QdiscList(link) })
	if err != nil {
		return t, fmt.Errorf("list queueing disciplines of %s: %w", name, err)
	}
	for _, q := range qdiscs {
		if q.Attrs().Parent != netlink.HANDLE_ROOT {
			continue
		}
		t.Root = Qdisc{Kind: q.Type(), Handle: q.Attrs().Handle}
		if htb, ok := q.(*netlink.Htb); ok {
			t.Root.Default = htb.Defcls
		}
	}
	if !t.Root.ours() {
		return t, nil
	}
	classes, err := again(func() ([]netlink.Class, error) { return k.handle.ClassList(link, netlink.HANDLE_NONE) })
	if err != nil {
		return t, fmt.Errorf("list classes of %s: %w", name, err)
	}
	for _, c := range classes {
		htb, ok := c.(*netlink.HtbClass)
		if !ok || htb.Handle&0xFFFF0000 != major {
			continue
		}
		n := ClassNode{Handle: htb.Handle, Parent: htb.Parent, Priority: htb.Prio, Rate: htb.Rate * 8} // bytes/s as read
		if n.Parent == netlink.HANDLE_ROOT {
			n.Parent = major // as the kernel shows a class directly under the root
		}
		if htb.Handle == classRoot {
			n.Priority = 0 // only leaves have one
		}
		if s := htb.Statistics; s != nil && s.Basic != nil {
			n.Packets, n.Bytes = s.Basic.Packets, s.Basic.Bytes
		}
		t.Classes = append(t.Classes, n)
	}
	filters, err := again(func() ([]netlink.Filter, error) { return k.handle.FilterList(link, major) })
	if err != nil {
		return t, fmt.Errorf("list filters of %s: %w", name, err)
	}
	for _, f := range filters {
		u, ok := f.(*netlink.U32)
		if !ok || u.Sel == nil { // hash tables are listed as filters without keys
			continue
		}
		n := Filter{Handle: u.Handle, Priority: u.Priority, IPv6: u.Protocol == unix.ETH_P_IPV6, Class: u.ClassId}
		for _, key := range u.Sel.Keys {
			n.Keys = append(n.Keys, Key{Offset: key.Off, Mask: key.Mask, Value: key.Val})
		}
		t.Filters = append(t.Filters, n)
	}
	return t, nil
}

// again repeats a listing that the kernel changed under.
func again[T any](list func() ([]T, error)) ([]T, error) {
	for range 5 {
		got, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
	}
	return list()
}

// Do implements Kernel.
func (k *Netlink) Do(index int, s Step) error {
	switch {
	case s.Qdisc != nil:
		attrs := netlink.QdiscAttrs{LinkIndex: index, Handle: s.Qdisc.Handle, Parent: netlink.HANDLE_ROOT}
		htb := netlink.NewHtb(attrs)
		htb.Defcls = s.Qdisc.Default
		if s.Verb == Delete {
			return k.handle.QdiscDel(htb)
		}
		return k.handle.QdiscAdd(htb)
	case s.Class != nil:
		class := netlink.NewHtbClass(
			netlink.ClassAttrs{LinkIndex: index, Handle: s.Class.Handle, Parent: s.Class.Parent},
			// A quantum of ten frames: derived from this rate it would be megabytes.
			netlink.HtbClassAttrs{Rate: s.Class.Rate, Ceil: s.Class.Rate, Prio: s.Class.Priority, Quantum: 15140})
		switch s.Verb {
		case Delete:
			return k.handle.ClassDel(class)
		case Change:
			return k.handle.ClassChange(class)
		}
		return k.handle.ClassAdd(class)
	case s.Filter != nil:
		protocol := uint16(unix.ETH_P_IP)
		if s.Filter.IPv6 {
			protocol = unix.ETH_P_IPV6
		}
		// No spare capacity: netlink v1.3.1 sends that, too, as keys of zeros.
		keys := make([]netlink.TcU32Key, len(s.Filter.Keys))
		for i, key := range s.Filter.Keys {
			keys[i] = netlink.TcU32Key{Off: key.Offset, Mask: key.Mask, Val: key.Value}
		}
		u := &netlink.U32{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Handle: s.Filter.Handle, Parent: major, Priority: s.Filter.Priority, Protocol: protocol},
			ClassId:     s.Filter.Class,
			Sel:         &netlink.TcU32Sel{Flags: netlink.TC_U32_TERMINAL, Keys: keys},
		}
		if s.Verb == Delete {
			return k.handle.FilterDel(u)
		}
		return k.handle.FilterAdd(u)
	}
	return errors.New("empty step")
}
