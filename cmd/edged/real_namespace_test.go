package main

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// The branch and the world outside are two network namespaces joined by two
// links, as in test/run.sh: a real ICE agent leaves loopback addresses out
// of its candidates.
var (
	realLAN   = netip.MustParsePrefix("192.168.77.5/24") // the box, link lan0
	realWAN   = netip.MustParsePrefix("198.51.100.20/24")
	realCloud = netip.MustParsePrefix("198.51.100.40/24") // outside, other end of wan0
)

const realInside = "LOCALLOOP_TEST_NAMESPACE"

// inNamespace runs the test again in a process of its own, in a fresh network
// namespace, and reports true there. In the first process it reports false once
// the test is done; it skips where the kernel grants no namespace.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(realInside) == t.Name() {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=4m")
	cmd.Env = append(os.Environ(), realInside+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // Pdeathsig is about the thread that started it
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Skipf("no network namespace: %v", err)
	case err != nil:
		t.Fatalf("in the namespace: %v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP: "+t.Name())):
		t.Skipf("in the namespace:\n%s", out)
	}
	t.Logf("in the namespace:\n%s", out)
	return false
}

// outside is the namespace beyond the box's links.
type outside struct{ ns netns.NsHandle }

// newOutside makes the two namespaces' links and addresses.
func newOutside(t *testing.T) *outside {
	t.Helper()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Skipf("%s: %v", what, err)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	must("this namespace", err)
	defer func() { _ = here.Close() }()
	o := &outside{}
	o.ns, err = netns.New() // and enters it
	must("a second network namespace", err)
	t.Cleanup(func() { _ = o.ns.Close() })
	must("back to the first namespace", netns.Set(here))

	there, err := netlink.NewHandleAt(o.ns)
	must("netlink in the second namespace", err)
	defer there.Close()
	us, err := netlink.NewHandle()
	must("netlink", err)
	defer us.Close()
	up := func(h *netlink.Handle, name string, addr netip.Prefix) {
		t.Helper()
		link, err := h.LinkByName(name)
		must("link "+name, err)
		if addr.IsValid() {
			must("address of "+name, h.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), 32)}}))
		}
		must(name+" up", h.LinkSetUp(link))
	}
	for _, pair := range [][2]string{{"lan0", "branch0"}, {"wan0", "internet0"}} {
		must("links", us.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: pair[0]}, PeerName: pair[1], PeerNamespace: netlink.NsFd(o.ns)}))
	}
	up(us, "lo", netip.Prefix{})
	up(us, "lan0", realLAN)
	up(us, "wan0", realWAN)
	up(there, "lo", netip.Prefix{})
	up(there, "internet0", realCloud)
	return o
}

// start starts a program outside.
func (o *outside) start(t *testing.T, cmd *exec.Cmd) *realProcess {
	t.Helper()
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		defer func() { _ = here.Close() }()
		if err := netns.Set(here); err != nil {
			t.Fatalf("back to the first namespace: %v", err) // the thread stays locked and ends with the goroutine
		}
		runtime.UnlockOSThread()
	}()
	if err := netns.Set(o.ns); err != nil {
		t.Fatal(err)
	}
	return startReal(t, cmd)
}

// realNames answers queries for one name in the box's place, as public DNS would:
// a real client resolves the Contact of a dialog.
func realNames(t *testing.T, at netip.AddrPort, name string, address netip.Addr) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	want := append(dnsName(name), 0, 1, 0, 1) // type A, class IN
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if n < 12 {
				continue
			}
			end := 12
			for end < n && b[end] != 0 {
				end += int(b[end]) + 1
			}
			end += 5
			if end > n {
				continue
			}
			answer := append([]byte(nil), b[:end]...)
			answer[2], answer[3] = 0x84, 0 // response, authoritative, no error
			copy(answer[6:12], make([]byte, 6))
			if string(answer[12:]) == string(want) {
				answer[7] = 1
				answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
				answer = append(answer, address.AsSlice()...)
			}
			_, _ = conn.WriteToUDPAddrPort(answer, from)
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
}

func dnsName(name string) []byte {
	var b []byte
	label := 0
	for i := 0; i <= len(name); i++ {
		if i == len(name) || name[i] == '.' {
			b = append(append(b, byte(i-label)), name[label:i]...)
			label = i + 1
		}
	}
	return append(b, 0)
}
