package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"localloop/internal/media/mediatest"
)

// Addresses of the laboratory. Microsoft is behind a router: the box reaches it
// by its default route only.
var (
	boxLAN   = netip.MustParseAddr("192.168.77.5")
	boxWAN   = netip.MustParseAddr("198.51.100.20")
	clientIP = netip.MustParseAddr("192.168.77.31")
	cloudIP  = netip.MustParseAddr("203.0.113.40")
)

// space is network namespaces, each a machine:
//
//	branch ── branch0 │ lan0 ── box ── wan0 │ up0 ── wan ── down0 │ cloud0 ── ms
type space struct {
	box, branch, wan, ms string // names
	edged, branchsim     string // programs
}

// newSpace builds the programs and the namespaces. It skips where that needs
// more than this machine grants.
func newSpace(t *testing.T) *space {
	t.Helper()
	switch {
	case testing.Short():
		t.Skip("places real calls, some of a minute")
	case os.Getuid() != 0:
		t.Skip("needs root for network namespaces")
	}
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	s := &space{}
	for name, at := range map[string]*string{"box": &s.box, "branch": &s.branch, "wan": &s.wan, "ms": &s.ms} {
		*at = fmt.Sprintf("edged-%s-%d", name, os.Getpid())
		if out, err := exec.Command("ip", "netns", "add", *at).CombinedOutput(); err != nil {
			t.Skipf("no network namespace here: %v %s", err, out)
		}
		t.Cleanup(func() {
			if out, err := exec.Command("ip", "netns", "del", *at).CombinedOutput(); err != nil {
				t.Errorf("ip netns del %s: %v %s", *at, err, out)
			}
			if _, err := os.Stat(nsFile(*at)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("namespace %s is left: %v", *at, err)
			}
		})
	}
	run := func(format string, args ...any) {
		t.Helper()
		s.sh(t, "", fmt.Sprintf(format, args...))
	}
	run("ip link add lan0 netns %s type veth peer name branch0 netns %s", s.box, s.branch)
	run("ip link add wan0 netns %s type veth peer name up0 netns %s", s.box, s.wan)
	run("ip link add down0 netns %s type veth peer name cloud0 netns %s", s.wan, s.ms)
	for _, a := range []struct{ ns, dev, addr string }{
		{s.box, "lan0", boxLAN.String()}, {s.branch, "branch0", clientIP.String()},
		{s.box, "wan0", boxWAN.String()}, {s.wan, "up0", "198.51.100.1"},
		{s.wan, "down0", "203.0.113.1"}, {s.ms, "cloud0", cloudIP.String()},
	} {
		// One packet a segment, so that what a capture sees is what a queue counts.
		run("ip -n %s link set lo up; ip -n %s link set %s up gso_max_segs 1; ip -n %s addr add %s/24 dev %s", a.ns, a.ns, a.dev, a.ns, a.addr, a.dev)
	}
	run("ip -n %s route add default via 198.51.100.1; ip -n %s route add default via 203.0.113.1", s.box, s.ms)
	s.sh(t, s.wan, "echo 1 > /proc/sys/net/ipv4/ip_forward")

	dir := t.TempDir()
	s.edged, s.branchsim = filepath.Join(dir, "edged"), filepath.Join(dir, "branchsim")
	for out, args := range map[string][]string{s.edged: {"-race", "."}, s.branchsim: {"../branchsim"}} {
		if text, err := exec.Command("go", append([]string{"build", "-o", out}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", out, err, text)
		}
	}
	return s
}

func nsFile(name string) string { return "/run/netns/" + name }

// sh runs a shell command in a namespace, or here if ns is empty.
func (s *space) sh(t *testing.T, ns, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	if ns != "" {
		cmd = exec.Command("ip", "netns", "exec", ns, "sh", "-ec", script)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// process is edged, a process of its own in the box.
type process struct {
	s    *space
	dir  string
	cmd  *exec.Cmd
	log  *bytes.Buffer // complete when stopped
	done chan error
}

// start prepares a configuration, lets change edit it, and runs edged.
func (s *space) start(t *testing.T, change func(string) string) *process {
	t.Helper()
	p := &process{s: s, dir: t.TempDir(), log: &bytes.Buffer{}, done: make(chan error, 1)}
	if out, err := p.sim("prepare").CombinedOutput(); err != nil {
		t.Fatalf("prepare: %v\n%s", err, out)
	}
	file := filepath.Join(p.dir, "edged.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		if err := os.WriteFile(file, []byte(change(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.cmd = exec.Command("ip", "netns", "exec", s.box, s.edged, "-c", file, "run")
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() { p.stop(t) })
	return p
}

// stop ends edged, which must end well and without a data race. It may be called
// again.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(unix.SIGTERM)
	select {
	case err := <-p.done:
		if err != nil {
			t.Errorf("edged: %v", err)
		}
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		t.Errorf("edged does not end: %v", <-p.done)
	}
	p.cmd = nil
	if strings.Contains(p.log.String(), "DATA RACE") || t.Failed() {
		t.Errorf("edged's log:\n%s", p.log)
	}
}

// sim is branchsim at Microsoft, with the building's socket in the branch.
func (p *process) sim(args ...string) *exec.Cmd {
	base := []string{"netns", "exec", p.s.ms, p.s.branchsim, "--dir", p.dir, "--lan", boxLAN.String(), "--wan", boxWAN.String(),
		"--client", clientIP.String(), "--cloud", cloudIP.String(), "--lan-netns", nsFile(p.s.branch), "--lan-if", "branch0", "--wan-if", "cloud0",
		"--box-lan-if", "lan0", "--box-wan-if", "wan0", "--status", "http://127.0.0.1:8080/status.json", "--status-netns", nsFile(p.s.box)}
	return exec.Command("ip", append(base, args...)...)
}

// tap captures what passes an interface, outside edged and branchsim.
type tap struct {
	fd    int
	quiet chan struct{} // nothing came for a while; nobody need listen
	stop  chan struct{}
	done  chan struct{}

	mu   sync.Mutex
	seen seen
}

// seen is what a tap has counted.
type seen struct {
	udp, rtp             uint64 // both directions
	mediaEF, mediaOther  uint64 // UDP that the box sent from a media port: RTP, RTCP, STUN
	voiceEF, voiceOther  uint64 // RTP among it
	signalEF41, tcpOther uint64 // TCP that the box sent: with AF41; with data, but without
}

// tap begins to capture on an interface of a namespace.
func (s *space) tap(t *testing.T, ns, device string) *tap {
	t.Helper()
	c := &tap{quiet: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
	err := mediatest.InNetns(nsFile(ns), func() (err error) {
		const protocol = unix.ETH_P_ALL << 8 // packet(7): a socket for ETH_P_IP alone is not shown what leaves
		ifi, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, protocol); err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
			unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
			unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: ifi.Index}))
	})
	if err != nil {
		t.Fatalf("capture on %s in %s: %v", device, ns, err)
	}
	go func() {
		defer close(c.done)
		buf := make([]byte, 2048)
		for {
			n, from, err := unix.Recvfrom(c.fd, buf, 0)
			switch {
			case err == nil:
				if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Protocol == unix.ETH_P_IP<<8&0xff00|unix.ETH_P_IP>>8 {
					c.packet(buf[:n])
				}
				continue
			case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENETDOWN):
				return
			}
			select {
			case <-c.stop: // only when nothing is left to read
				return
			case c.quiet <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() {
		close(c.stop)
		<-c.done
		st, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil || st.Drops > 0 {
			t.Errorf("capture on %s: %+v %v", device, st, err)
		}
		_ = unix.Close(c.fd)
	})
	return c
}

func (c *tap) packet(b []byte) {
	if len(b) < 28 || b[0] != 0x45 {
		return
	}
	b = b[:min(len(b), int(binary.BigEndian.Uint16(b[2:])))]
	dscp, src, body := b[1]>>2, netip.AddrFrom4([4]byte(b[12:16])), b[20:]
	ours := src == boxLAN || src == boxWAN
	c.mu.Lock()
	defer c.mu.Unlock()
	n := &c.seen
	switch {
	case b[9] == unix.IPPROTO_UDP:
		n.udp++
		voice := len(body) >= 8+12 && body[8]>>6 == 2 && (body[9] < 192 || body[9] > 223) // RFC 5761 §4
		if voice {
			n.rtp++
		}
		if port := binary.BigEndian.Uint16(body); !ours || port < 20000 || port > 20199 {
			return
		}
		for _, counter := range []struct {
			is        bool
			ef, other *uint64
		}{{true, &n.mediaEF, &n.mediaOther}, {voice, &n.voiceEF, &n.voiceOther}} {
			switch {
			case counter.is && dscp == 46:
				*counter.ef++
			case counter.is:
				*counter.other++
			}
		}
	case b[9] == unix.IPPROTO_TCP && ours && len(body) >= 20:
		if dscp == 34 {
			n.signalEF41++
		} else if len(body) > 4*int(body[12]>>4) {
			n.tcpOther++
		}
	}
}

// counts waits until the wire is quiet and everything on it has been read: the
// reader has run into its time limit twice, the second time from the start.
func (c *tap) counts() seen {
	<-c.quiet
	<-c.quiet
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}
