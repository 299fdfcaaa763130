package mediatest

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"
)

// TestPathOpensInItsNetns binds a path to an address that only the other
// namespace has, and finds this one unchanged.
func TestPathOpensInItsNetns(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	name := fmt.Sprintf("mediatest-%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Skipf("no network namespace here: %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	if out, err := exec.Command("ip", "-n", name, "addr", "add", "192.0.2.77/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	here := func() string {
		link, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	before := here()
	p := Path{Name: "lan", Local: netip.MustParseAddr("192.0.2.77"), Netns: "/run/netns/" + name}
	s, err := openSocket(p, 46, 1)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.conn.Close()
	p.Netns = ""
	if s, err := openSocket(p, 46, 1); err == nil {
		_ = s.conn.Close()
		t.Error("this namespace has the address as well: the test proves nothing")
	}
	p.Netns = "/run/netns/nowhere"
	if _, err := openSocket(p, 46, 1); err == nil {
		t.Error("opened in a namespace that is not there")
	}
	if now := here(); now != before {
		t.Errorf("the process was left in %s, not in %s", now, before)
	}
}
