package netcfg

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// liveness is how long a test waits for the kernel before it gives up.
const liveness = 30 * time.Second

// namespace makes a named network namespace and removes it afterwards.
func namespace(t *testing.T, name string) (netns.NsHandle, *netlink.Handle) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	name = fmt.Sprintf("netcfg-%s-%d", name, os.Getpid())
	var ns netns.NsHandle
	var err error
	made := make(chan struct{})
	go func() { // a thread of its own, which ends with the goroutine
		defer close(made)
		runtime.LockOSThread()
		ns, err = netns.NewNamed(name)
	}()
	<-made
	if err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	t.Cleanup(func() {
		_ = ns.Close()
		if err := netns.DeleteNamed(name); err != nil {
			t.Error(err)
		}
	})
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return ns, h
}

// inside runs f on a thread in the namespace.
func inside(t *testing.T, ns netns.NsHandle, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func watch(t *testing.T, ns netns.NsHandle, names ...string) *Watch {
	t.Helper()
	w := New(Options{Kernel: Netlink{Namespace: &ns}, Interfaces: names})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return w
}

// until reads events up to the wanted one; what it passes over is logged.
func until(t *testing.T, w *Watch, want Event) {
	t.Helper()
	limit := time.After(liveness)
	for {
		select {
		case got := <-w.Events():
			if got == want {
				return
			}
			t.Logf("passed over %v %v %v", got.Kind, got.Interface, got.Addr)
		case <-limit:
			t.Fatalf("no %v %v %v within %v", want.Kind, want.Interface, want.Addr, liveness)
		}
	}
}

// TestRealKernel goes through the life of a link in a namespace of its own.
func TestRealKernel(t *testing.T) {
	ns, h := namespace(t, "life")
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}, PeerName: "far0"}
	if err := h.LinkAdd(pair); err != nil {
		t.Skipf("no veth in this kernel: %v", err)
	}
	lan, err := h.LinkByName("lan0")
	must(t, err)
	far, err := h.LinkByName("far0")
	must(t, err)
	w := watch(t, ns, "lan0", "new0")
	for limit := time.After(liveness); len(w.Links()) == 0; {
		select {
		case <-limit:
			t.Fatal("the first state was not read")
		case <-time.After(time.Millisecond):
		}
	}
	if l := w.Links()[0]; l.Name != "lan0" || l.Up || len(l.Addresses) != 0 {
		t.Errorf("first state %+v", w.Links())
	}

	must(t, h.LinkSetUp(far))
	must(t, h.LinkSetUp(lan))
	until(t, w, ev(LinkUp, "lan0"))
	must(t, h.AddrAdd(lan, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 10), Mask: net.CIDRMask(24, 32)}}))
	until(t, w, ev(AddressNew, "lan0", ours.Addr()))

	// Nobody has this address: the kernel asks three times, then gives up.
	nobody := netip.MustParseAddr("192.0.2.99")
	inside(t, ns, func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(nobody, 9).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("anybody there?"))
		return err
	})
	until(t, w, ev(NeighbourFailed, "lan0", nobody))
	must(t, h.NeighSet(&netlink.Neigh{LinkIndex: lan.Attrs().Index, IP: nobody.AsSlice(), State: netlink.NUD_REACHABLE, HardwareAddr: far.Attrs().HardwareAddr}))
	until(t, w, ev(NeighbourReachable, "lan0", nobody))

	// The far end goes: no carrier. Then it comes back.
	must(t, h.LinkSetDown(far))
	until(t, w, ev(LinkDown, "lan0"))
	must(t, h.LinkSetUp(far))
	until(t, w, ev(LinkUp, "lan0"))

	must(t, h.AddrDel(lan, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 10), Mask: net.CIDRMask(24, 32)}}))
	until(t, w, ev(AddressGone, "lan0", ours.Addr()))
	must(t, h.LinkSetDown(lan))
	until(t, w, ev(LinkDown, "lan0"))
	must(t, h.LinkSetUp(lan))
	until(t, w, ev(LinkUp, "lan0"))
	must(t, h.LinkDel(lan))
	until(t, w, ev(LinkDown, "lan0"))
	if l := w.Links(); len(l) != 0 {
		t.Errorf("links after deletion %+v", l)
	}

	must(t, h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "new0", Flags: net.FlagUp}, PeerName: "far1"}))
	far1, err := h.LinkByName("far1")
	must(t, err)
	must(t, h.LinkSetUp(far1))
	until(t, w, ev(LinkUp, "new0"))
	if w.Resyncs() != 0 {
		t.Errorf("%d resyncs in a quiet namespace", w.Resyncs())
	}
}

// TestRealKernelOverflow changes more than an unread socket holds. The reader is
// held up, the socket overflows, and the last state is known all the same.
func TestRealKernelOverflow(t *testing.T) {
	ns, h := namespace(t, "flood")
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan0", Flags: net.FlagUp}, PeerName: "far0"}); err != nil {
		t.Skipf("no veth in this kernel: %v", err)
	}
	far, err := h.LinkByName("far0")
	must(t, err)
	must(t, h.LinkSetUp(far))
	lan, err := h.LinkByName("lan0")
	must(t, err)

	k := &heldKernel{Netlink: Netlink{Namespace: &ns}, release: make(chan struct{})}
	w := New(Options{Kernel: k, Interfaces: []string{"lan0"}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for limit := time.After(liveness); len(w.Links()) == 0; {
		select {
		case <-limit:
			t.Fatal("the first state was not read")
		case <-time.After(time.Millisecond):
		}
	}
	for i := range 3000 { // about 700 bytes each in the socket's account
		must(t, h.LinkSetMTU(lan, 1300+i%100))
	}
	must(t, h.LinkSetDown(lan))
	close(k.release)
	until(t, w, ev(LinkDown, "lan0"))
	for limit := time.After(liveness); w.Resyncs() == 0; {
		select {
		case <-w.Events():
		case <-limit:
			t.Skip("the socket did not overflow here")
		}
	}
}

// heldKernel holds back the changes of its first subscription.
type heldKernel struct {
	Netlink
	release chan struct{}
	used    bool
}

func (k *heldKernel) Subscribe(ctx context.Context) (<-chan Change, func() error, error) {
	changes, lost, err := k.Netlink.Subscribe(ctx)
	if err != nil || k.used {
		return changes, lost, err
	}
	k.used = true
	out := make(chan Change)
	go func() {
		defer close(out)
		select {
		case <-k.release:
		case <-ctx.Done():
		}
		for c := range changes {
			select {
			case out <- c:
			case <-ctx.Done():
			}
		}
	}()
	return out, lost, nil
}

func TestWatchNeedsNoPrivilege(t *testing.T) {
	k := Netlink{}
	ctx, cancel := context.WithCancel(context.Background())
	changes, lost, err := k.Subscribe(ctx)
	must(t, err)
	if _, err := k.Read(); err != nil {
		t.Error(err)
	}
	cancel()
	drain(changes)
	if lost() == nil {
		t.Error("no cause for the end")
	}
}
