package qos

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"localloop/internal/config"
)

// lab is two network namespaces joined by a veth pair, "box" here and "peer"
// there. The test's goroutine stays in the box's namespace, on a thread that
// ends with it.
type lab struct {
	peer  netns.NsHandle
	mac   net.HardwareAddr
	box   *Netlink
	admin *netlink.Handle
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	// Never unlocked: the thread in the namespace dies with this goroutine.
	runtime.LockOSThread()
	host, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	named := func(role string) netns.NsHandle {
		name := fmt.Sprintf("qos-%s-%d-%d", role, os.Getpid(), unix.Gettid())
		h, err := netns.NewNamed(name)
		if err != nil {
			t.Skipf("no network namespace %s here: %v", name, err)
		}
		t.Cleanup(func() {
			h.Close()
			if err := netns.DeleteNamed(name); err != nil {
				t.Errorf("delete namespace %s: %v", name, err)
			}
		})
		return h
	}
	l := &lab{peer: named("peer")}
	box := named("box") // and stay there
	if l.admin, err = netlink.NewHandleAt(box, unix.NETLINK_ROUTE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.admin.Close)
	far, err := netlink.NewHandleAt(l.peer, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	must(t, l.admin.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "box"}, PeerName: "peer", PeerNamespace: netlink.NsFd(int(l.peer))}))
	near, err := l.admin.LinkByName("box")
	must(t, err)
	there, err := far.LinkByName("peer")
	must(t, err)
	for _, side := range []struct {
		h    *netlink.Handle
		link netlink.Link
		ip4  string
		ip6  string
	}{{l.admin, near, "192.0.2.1/24", "2001:db8::1/64"}, {far, there, "192.0.2.2/24", "2001:db8::2/64"}} {
		for _, a := range []string{side.ip4, side.ip6} {
			addr, err := netlink.ParseAddr(a)
			must(t, err)
			if strings.Contains(a, ":") {
				addr.Flags = unix.IFA_F_NODAD
			}
			must(t, side.h.AddrAdd(side.link, addr))
		}
		must(t, side.h.LinkSetUp(side.link))
	}
	l.mac = there.Attrs().HardwareAddr
	for _, ip := range []string{"192.0.2.2", "2001:db8::2"} {
		must(t, l.admin.NeighSet(&netlink.Neigh{LinkIndex: near.Attrs().Index, IP: net.ParseIP(ip), HardwareAddr: l.mac, State: netlink.NUD_PERMANENT}))
	}
	l.box, err = NewNetlink()
	must(t, err)
	t.Cleanup(l.box.Close)
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needHTB skips where the kernel lacks what the tree is made of.
func needHTB(t *testing.T, states []State) {
	t.Helper()
	for _, s := range states {
		if strings.Contains(s.Why, "the kernel lacks") {
			t.Skip(s.Why)
		}
	}
}

// capture listens at the peer, outside of everything that is judged.
func (l *lab) capture(t *testing.T) int {
	t.Helper()
	box, err := netns.Get()
	must(t, err)
	defer box.Close()
	must(t, netns.Set(l.peer))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	must(t, netns.Set(box))
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20))
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	return fd
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// flow is what the capture tells packets apart by.
type flow struct {
	v6    bool
	media bool // UDP source port 20000–20999
	dscp  int
}

// count reads the capture until the stop packet.
func count(t *testing.T, fd int) map[flow]uint64 {
	t.Helper()
	seen := map[flow]uint64{}
	buf := make([]byte, 2048)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatalf("capture: %v after %v", err, seen)
		}
		p := buf[:n]
		if n < 14+28 {
			continue
		}
		var f flow
		var udp []byte
		switch binary.BigEndian.Uint16(p[12:]) {
		case unix.ETH_P_IP:
			f.dscp = int(p[15] >> 2)
			if p[14+9] != 17 {
				continue
			}
			udp = p[14+int(p[14]&15)*4:]
		case unix.ETH_P_IPV6:
			f.v6, f.dscp = true, int(binary.BigEndian.Uint16(p[14:])>>6&0x3F)
			if p[14+6] != 17 || n < 14+48 {
				continue
			}
			udp = p[14+40:]
		default:
			continue
		}
		port := binary.BigEndian.Uint16(udp)
		f.media = port >= 20000 && port <= 20999
		if string(udp[8:12]) == "stop" {
			return seen
		}
		seen[f]++
	}
}

// send sends packets from a port, through control.
func send(t *testing.T, network, from, to string, packets int, control func(string, string, syscall.RawConn) error) {
	t.Helper()
	conn, err := (&net.ListenConfig{Control: control}).ListenPacket(context.Background(), network, from)
	must(t, err)
	defer conn.Close()
	addr, err := net.ResolveUDPAddr("udp", to)
	must(t, err)
	for range packets {
		_, err := conn.WriteTo([]byte("voice of a call, 20 ms"), addr)
		must(t, err)
	}
}

// TestQ02ShareEqualsAnIndependentCapture sends marked and unmarked voice,
// signalling and others over both IP versions and compares the counters with
// what a packet socket on the other side sees.
func TestQ02ShareEqualsAnIndependentCapture(t *testing.T) {
	l := newLab(t)
	e := NewEgress(l.box, nil)
	c := laboratory
	c.Interfaces = []string{"box"}
	states := e.Apply(c, realms)
	needHTB(t, states)
	if !states[0].Applied {
		t.Fatal(states[0].Why)
	}
	fd := l.capture(t)
	marks := NewMarks(c)
	voice, signalling := marks.Control(Voice), marks.Control(Signalling)
	foreign := NewMarks(config.QoS{Voice: 10}).Control(Voice)
	const four, six = "192.0.2.2:9", "[2001:db8::2]:9"
	send(t, "udp4", "192.0.2.1:20000", four, 50, voice)
	send(t, "udp4", "192.0.2.1:20511", four, 7, nil)
	send(t, "udp4", "192.0.2.1:20999", four, 5, foreign)
	send(t, "udp6", "[2001:db8::1]:20998", six, 40, voice)
	send(t, "udp6", "[2001:db8::1]:20100", six, 3, nil)
	send(t, "udp4", "192.0.2.1:19999", four, 11, voice) // EF, but no media port
	send(t, "udp6", "[2001:db8::1]:21000", six, 2, voice)
	send(t, "udp4", "192.0.2.1:5060", four, 13, signalling)
	send(t, "udp6", "[2001:db8::1]:5060", six, 4, signalling)
	send(t, "udp4", "192.0.2.1:21000", four, 17, nil)
	stop, err := net.Dial("udp4", four)
	must(t, err)
	defer stop.Close()
	_, err = stop.Write([]byte("stop"))
	must(t, err)

	seen := count(t, fd)
	var voiceEF, unmarked, otherEF, af41 uint64
	for f, n := range seen {
		switch {
		case f.media && f.dscp == 46:
			voiceEF += n
		case f.media:
			unmarked += n
		case f.dscp == 46:
			otherEF += n
		case f.dscp == 34:
			af41 += n
		}
	}
	if voiceEF != 90 || unmarked != 15 || otherEF != 13 || af41 != 17 {
		t.Fatalf("the capture itself is wrong: %v", seen)
	}
	s := e.Shares()[0]
	if s.Voice != voiceEF || s.VoiceUnmarked != unmarked || s.OtherEF != otherEF || s.Signalling != af41 {
		t.Errorf("counted %+v, captured %d %d %d %d", s, voiceEF, unmarked, otherEF, af41)
	}
	if m, ok := s.Marked(); !ok || m != float64(voiceEF)/float64(voiceEF+unmarked) {
		t.Errorf("share %v %v", m, ok)
	}
	if s.Other < 17 {
		t.Errorf("other %d, at least 17 were sent", s.Other)
	}
}

// TestM01VLANCarriesDSCPAnd8021pPriority sends through a VLAN interface with our
// map of priorities and reads the tags on the other side: as the kernel tells
// them beside the packet, or in it.
func TestM01VLANCarriesDSCPAnd8021pPriority(t *testing.T) {
	l := newLab(t)
	parent, err := l.admin.LinkByName("box")
	must(t, err)
	vlan := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "box.7", ParentIndex: parent.Attrs().Index}, VlanId: 7, EgressQosMap: PriorityMap()}
	if err := l.admin.LinkAdd(vlan); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("the kernel lacks VLANs: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	link, err := l.admin.LinkByName("box.7")
	must(t, err)
	addr, err := netlink.ParseAddr("198.51.100.1/24")
	must(t, err)
	must(t, l.admin.AddrAdd(link, addr))
	must(t, l.admin.LinkSetUp(link))
	must(t, l.admin.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: net.ParseIP("198.51.100.2"), HardwareAddr: l.mac, State: netlink.NUD_PERMANENT}))

	c := laboratory
	c.Interfaces = []string{"box.7"}
	e := NewEgress(l.box, nil)
	states := e.Apply(c, realms)
	needHTB(t, states)
	if !states[0].Applied {
		t.Fatal(states[0].Why)
	}
	fd := l.capture(t)
	must(t, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1))
	marks := NewMarks(c)
	send(t, "udp4", "198.51.100.1:20000", "198.51.100.2:9", 5, marks.Control(Voice))
	send(t, "udp4", "198.51.100.1:5060", "198.51.100.2:9", 3, marks.Control(Signalling))
	type tagged struct{ vlan, priority, dscp int }
	seen := map[tagged]int{}
	for range 1000 {
		if seen[tagged{7, 5, 46}] == 5 && seen[tagged{7, 3, 34}] == 3 {
			break
		}
		buf, oob := make([]byte, 2048), make([]byte, 256)
		n, noob, _, _, err := unix.Recvmsg(fd, buf, oob, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatalf("capture: %v after %v", err, seen)
		}
		tag, ip := 0, buf[14:n]
		kind := binary.BigEndian.Uint16(buf[12:])
		if kind == unix.ETH_P_8021Q {
			tag, kind, ip = int(binary.BigEndian.Uint16(buf[14:])), binary.BigEndian.Uint16(buf[16:]), buf[18:n]
		}
		messages, err := unix.ParseSocketControlMessage(oob[:noob])
		must(t, err)
		for _, m := range messages {
			// struct tpacket_auxdata: status, len, snaplen (32 bits each), mac,
			// net, vlan_tci, vlan_tpid (16 bits each).
			const vlanValid = 1 << 4
			if m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 18 && binary.NativeEndian.Uint32(m.Data)&vlanValid != 0 {
				tag = int(binary.NativeEndian.Uint16(m.Data[16:]))
			}
		}
		if kind == unix.ETH_P_IP && ip[9] == 17 {
			seen[tagged{tag & 0xFFF, tag >> 13, int(ip[1] >> 2)}]++
		}
	}
	if seen[tagged{7, 5, 46}] != 5 || seen[tagged{7, 3, 34}] != 3 {
		t.Errorf("seen %v", seen)
	}
	if s := e.Shares()[0]; s.Voice != 5 || s.VoiceUnmarked != 0 || s.Signalling != 3 {
		t.Errorf("counted %+v", s)
	}
}

// TestApplyInTheKernelIsIdempotentAndGivesBack looks with tc's eyes, the
// netlink library, at what stands before and after.
func TestApplyInTheKernelIsIdempotentAndGivesBack(t *testing.T) {
	l := newLab(t)
	before, err := l.box.Read("box")
	must(t, err)
	e := NewEgress(l.box, nil)
	c := laboratory
	c.Interfaces = []string{"box"}
	states := e.Apply(c, realms)
	needHTB(t, states)
	first, err := l.box.Read("box")
	must(t, err)
	p, err := PlanFor(WantedTree("box", c, []config.PortRange{realms[0].Ports}), first)
	must(t, err)
	if len(p.Steps) != 0 {
		t.Errorf("after Apply there is still to do:\n%s", p)
	}
	if states = e.Apply(c, realms); !states[0].Applied {
		t.Fatal(states)
	}
	second, err := l.box.Read("box")
	must(t, err)
	for i := range first.Filters {
		if first.Filters[i].Handle != second.Filters[i].Handle {
			t.Error("the second Apply made filters anew")
		}
	}
	// Somebody damages the tree: the filters of one priority go, a class is
	// slowed down.
	link, err := l.admin.LinkByName("box")
	must(t, err)
	must(t, l.box.Do(link.Attrs().Index, Step{Verb: Delete, Filter: &second.Filters[0]}))
	slow := *find(second.Classes, classVoice)
	slow.Rate = 1_000_000
	must(t, l.box.Do(link.Attrs().Index, Step{Verb: Change, Class: &slow}))
	if s := e.Shares()[0]; s.Applied {
		t.Error("damage goes unnoticed")
	}
	if states = e.Apply(c, realms); !states[0].Applied || !e.Shares()[0].Applied {
		t.Errorf("not repaired: %v", states)
	}
	c.Signalling = 24
	if states = e.Apply(c, realms); !states[0].Applied {
		t.Errorf("other mark: %v", states)
	}
	must(t, e.Remove())
	after, err := l.box.Read("box")
	must(t, err)
	if after.Root != before.Root {
		t.Errorf("root is %s, was %s", after.Root, before.Root)
	}
}

func TestForeignDisciplineInTheKernelIsNotTouched(t *testing.T) {
	l := newLab(t)
	link, err := l.admin.LinkByName("box")
	must(t, err)
	htb := netlink.NewHtb(netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(0x7777, 0), Parent: netlink.HANDLE_ROOT})
	if err := l.admin.QdiscAdd(htb); err != nil {
		t.Skipf("no HTB: %v", err)
	}
	e := NewEgress(l.box, nil)
	c := laboratory
	c.Interfaces = []string{"box"}
	s := e.Apply(c, realms)[0]
	if s.Applied || !strings.Contains(s.Why, "somebody else") {
		t.Errorf("%+v", s)
	}
	must(t, e.Remove())
	if got, err := l.box.Read("box"); err != nil || got.Root.Handle != htb.Handle {
		t.Errorf("root %s, %v", got.Root, err)
	}
}

// TestWithoutPrivilegeNothingIsPretended drops CAP_NET_ADMIN from a thread and
// works on it against the real kernel; sockets are marked all the same.
func TestWithoutPrivilegeNothingIsPretended(t *testing.T) {
	newLab(t) // a namespace of our own, should the kernel allow after all
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all [2]unix.CapUserData
	must(t, unix.Capget(&header, &all[0]))
	none := all
	none[0].Effective, none[1].Effective = 0, 0
	must(t, unix.Capset(&header, &none[0]))
	defer func() { must(t, unix.Capset(&header, &all[0])) }()
	k, err := NewNetlink() // opened without privilege: the kernel looks at both
	must(t, err)
	defer k.Close()
	c := laboratory
	c.Interfaces = []string{"box"}
	e := NewEgress(k, nil)
	s := e.Apply(c, realms)[0]
	if s.Applied || !strings.Contains(s.Why, "operation not permitted (needs CAP_NET_ADMIN)") {
		t.Errorf("%+v", s)
	}
	if share := e.Shares()[0]; share.Applied {
		t.Errorf("%+v", share)
	}
	conn, err := (&net.ListenConfig{Control: NewMarks(c).Control(Voice)}).ListenPacket(context.Background(), "udp4", "192.0.2.1:0")
	must(t, err)
	defer conn.Close()
	if got := optionOf(t, conn, unix.IPPROTO_IP, unix.IP_TOS); got != 46<<2 {
		t.Errorf("TOS %#x", got)
	}
}
