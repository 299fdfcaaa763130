package netcfg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// receiveBuffer of each subscription, in bytes: room for a table's worth of
// changes. The kernel caps it at net.core.rmem_max.
const receiveBuffer = 1 << 20

// Netlink is the running kernel's network, over rtnetlink. The zero value means
// the network namespace of the calling thread.
type Netlink struct {
	// Namespace is another network namespace to watch; nil is the present one.
	// The caller owns and closes it, after Run.
	Namespace *netns.NsHandle
}

// Read implements Kernel.
func (k Netlink) Read() (State, error) {
	var s State
	handle, err := k.handle()
	if err != nil {
		return s, fmt.Errorf("open netlink: %w", err)
	}
	defer handle.Close()
	links, err := retried(handle.LinkList)
	if err != nil {
		return s, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		s.Links = append(s.Links, linkOf(l.Attrs()))
	}
	addrs, err := retried(func() ([]netlink.Addr, error) { return handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return s, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok && usable(a.Flags) {
			s.Addresses = append(s.Addresses, Address{a.LinkIndex, p})
		}
	}
	neighbours, err := retried(func() ([]netlink.Neigh, error) { return handle.NeighList(0, netlink.FAMILY_ALL) })
	if err != nil {
		return s, fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range neighbours {
		if addr, ok := netip.AddrFromSlice(n.IP); ok {
			s.Neighbours = append(s.Neighbours, Neighbour{n.LinkIndex, addr.Unmap(), verdict(n.State)})
		}
	}
	return s, nil
}

// Subscribe implements Kernel.
func (k Netlink) Subscribe(ctx context.Context) (<-chan Change, func() error, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	lost := func(err error) { cancel(err) }
	links := make(chan netlink.LinkUpdate)
	addrs := make(chan netlink.AddrUpdate)
	neighbours := make(chan netlink.NeighUpdate)
	done := ctx.Done()
	var opened []func() // read out, so that the library's goroutine ends
	fail := func(what string, err error) (<-chan Change, func() error, error) {
		cancel(err)
		for _, drain := range opened {
			drain()
		}
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	if err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{
		Namespace: k.Namespace, ErrorCallback: lost, ReceiveBufferSize: receiveBuffer}); err != nil {
		return fail("links", err)
	}
	opened = append(opened, func() { drain(links) })
	if err := netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{
		Namespace: k.Namespace, ErrorCallback: lost, ReceiveBufferSize: receiveBuffer}); err != nil {
		return fail("addresses", err)
	}
	opened = append(opened, func() { drain(addrs) })
	if err := netlink.NeighSubscribeWithOptions(neighbours, done, netlink.NeighSubscribeOptions{
		Namespace: k.Namespace, ErrorCallback: lost, ReceiveBufferSize: receiveBuffer}); err != nil {
		return fail("neighbours", err)
	}

	changes := make(chan Change)
	var running sync.WaitGroup
	// A subscription that ends takes the others with it.
	running.Go(func() { defer cancel(errEnded); forward(done, changes, links, linkChange) })
	running.Go(func() { defer cancel(errEnded); forward(done, changes, addrs, addressChange) })
	running.Go(func() { defer cancel(errEnded); forward(done, changes, neighbours, neighbourChange) })
	go func() {
		running.Wait()
		close(changes)
	}()
	return changes, func() error { return context.Cause(ctx) }, nil
}

var errEnded = errors.New("netlink subscription ended")

// forward converts updates until their channel is closed, which the library does
// when its socket fails or done is closed. It reads to the end in any case: the
// library's goroutine would wait for us for ever.
func forward[T any](done <-chan struct{}, out chan<- Change, in <-chan T, convert func(T) (Change, bool)) {
	for update := range in {
		c, ok := convert(update)
		if !ok {
			continue
		}
		select {
		case out <- c:
		case <-done:
		}
	}
}

func drain[T any](in <-chan T) {
	for range in {
	}
}

// retried repeats a dump that the kernel says was interrupted by a change.
func retried[T any](list func() ([]T, error)) (got []T, err error) {
	for range 5 {
		if got, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
	}
	return got, err
}

func (k Netlink) handle() (*netlink.Handle, error) {
	if k.Namespace != nil {
		return netlink.NewHandleAt(*k.Namespace, unix.NETLINK_ROUTE)
	}
	return netlink.NewHandle(unix.NETLINK_ROUTE)
}

func linkChange(u netlink.LinkUpdate) (Change, bool) {
	if u.Family == unix.AF_BRIDGE {
		return Change{}, false // about a bridge port: leaving a bridge is no end of a link
	}
	l := linkOf(u.Attrs())
	return Change{Link: &l, Gone: u.Header.Type == unix.RTM_DELLINK}, true
}

func addressChange(u netlink.AddrUpdate) (Change, bool) {
	p, ok := prefixOf(&u.LinkAddress)
	if !ok || u.NewAddr && u.Flags&unix.IFA_F_TENTATIVE != 0 {
		return Change{}, false // comes again when duplicate detection has ended
	}
	return Change{Address: &Address{u.LinkIndex, p}, Gone: !u.NewAddr || !usable(u.Flags)}, true
}

func neighbourChange(u netlink.NeighUpdate) (Change, bool) {
	addr, ok := netip.AddrFromSlice(u.IP)
	if !ok { // forwarding entries of a bridge have no address
		return Change{}, false
	}
	n := Neighbour{u.LinkIndex, addr.Unmap(), verdict(u.State)}
	if u.Type == unix.RTM_DELNEIGH {
		n.State = NeighbourForgotten
	}
	return Change{Neighbour: &n}, true
}

// linkOf reads a link. It is up when it is set up and has a carrier:
// IFF_RUNNING is what the kernel makes of the operational state, RFC 2863.
func linkOf(a *netlink.LinkAttrs) Link {
	const carries = unix.IFF_UP | unix.IFF_RUNNING
	return Link{Index: a.Index, Name: a.Name, Up: a.RawFlags&carries == carries}
}

// usable holds for addresses that duplicate detection has not put in doubt.
func usable(flags int) bool { return flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 }

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits), ok
}

func verdict(state int) NeighbourState {
	switch {
	case state&netlink.NUD_FAILED != 0:
		return NeighbourBad
	case state&(netlink.NUD_REACHABLE|netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0:
		return NeighbourGood
	}
	return NeighbourUnconfirmed
}
