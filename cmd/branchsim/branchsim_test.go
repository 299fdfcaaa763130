package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"localloop/internal/config"
)

func addr(t testing.TB, s string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestPreparedConfigurationIsAccepted reads what prepare wrote with the
// product's own strict reader.
func TestPreparedConfigurationIsAccepted(t *testing.T) {
	for name, extra := range map[string][]string{
		"loopback":   nil,
		"namespaces": {"--lan=10.20.0.2", "--wan=198.51.100.20", "--client=10.20.0.31", "--cloud=203.0.113.9", "--box-lan-if=lan0", "--box-wan-if=wan0"},
	} {
		dir := t.TempDir()
		var out, errOut bytes.Buffer
		if code := execute(append([]string{"prepare", "--dir", dir}, extra...), &out, &errOut); code != 0 {
			t.Fatalf("%s: exit code %d: %s", name, code, errOut.String())
		}
		c, err := config.Load(filepath.Join(dir, "edged.toml"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(c.Teams) != 1 || c.Teams[0].FQDN != boxFQDN || len(c.Teams[0].Resolve) != 3 || len(c.Lines) != 3 {
			t.Errorf("%s: %+v", name, c.Teams)
		}
		if _, _, err := readKeys(&options{Dir: dir}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, key := range []string{"box.key", "proxies.key"} {
			if st, err := os.Stat(filepath.Join(dir, key)); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("%s: %s: %v %v", name, key, st, err)
			}
		}
	}
}

// TestOnceWithoutEdgedFailsAndSaysSo: no call is reported as anything but failed
// when there is nothing to call, and the last line is still the JSON object.
func TestOnceWithoutEdgedFailsAndSaysSo(t *testing.T) {
	dir := t.TempDir()
	var out, errOut bytes.Buffer
	args := []string{"--dir", dir, "--sip-port", "45061", "--ready", "300ms"}
	for i, name := range []string{"lan", "wan", "client", "cloud"} {
		args = append(args, fmt.Sprintf("--%s=127.%d.7.%d", name, ownNet(), 10+i))
	}
	if code := execute(append([]string{"prepare"}, args...), &out, &errOut); code != 0 {
		t.Fatalf("prepare: %s", errOut.String())
	}
	out.Reset()
	if code := execute(append([]string{"once"}, args...), &out, &errOut); code != 1 {
		t.Errorf("exit code %d; %s", code, errOut.String())
	}
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	var s struct {
		Calls []struct {
			Name                         string
			OK                           bool
			LanRTPPackets                *float64
			LanRTPPacketsReason          string `json:"lanRtpPacketsReason"`
			AudioForward, AudioBackward  bool
			MediaPath, CutToAudioMs, MOS any
		}
		OK bool
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &s); err != nil {
		t.Fatalf("last line is no JSON: %v\n%s", err, out.String())
	}
	if s.OK || len(s.Calls) != len(standardCalls) {
		t.Errorf("%+v", s)
	}
	for _, c := range s.Calls {
		if c.OK || c.AudioForward || c.LanRTPPackets != nil || c.LanRTPPacketsReason == "" {
			t.Errorf("%+v", c)
		}
	}
}

func TestReportWritesNumbersAndReasons(t *testing.T) {
	r := result{
		name: "a", direction: "Teams to phone", mediaPath: "lan", lanRTP: measured(301), wanRTP: measured(0), audioForward: true, audioBackward: true,
		cutToAudio: unknown("no path was cut"), mos: measured(4.37), dscpVoice: measured(46), dscpSignalling: unknown("why %d", 7),
	}
	var b bytes.Buffer
	if err := (summary{Calls: []result{r}, CountedBy: "x", Violations: []string{}, OK: true}).print(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	const want = `{"calls":[{"name":"a","direction":"Teams to phone","mediaPath":"lan","lanRtpPackets":301,"wanRtpPackets":0,"audioForward":true,"audioBackward":true,` +
		`"cutToAudioMs":null,"cutToAudioMsReason":"no path was cut","mos":4.37,"dscpVoice":46,"dscpSignalling":null,"dscpSignallingReason":"why 7","ok":true}],` +
		`"countedBy":"x","violations":[],"ok":true}`
	if got := lines[len(lines)-1]; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestJudgementNeedsTheRightPath(t *testing.T) {
	good := result{mediaPath: "lan", lanRTP: measured(10), wanRTP: measured(0), audioForward: true, audioBackward: true}
	internal := standardCalls[0]
	if fault := internal.judge(good); fault != "" {
		t.Errorf("good call: %s", fault)
	}
	for name, spoil := range map[string]func(*result){
		"packet on the WAN": func(r *result) { r.wanRTP = measured(1) },
		"cloud":             func(r *result) { r.mediaPath = "cloud" },
		"deaf":              func(r *result) { r.audioBackward = false },
		"nothing counted":   func(r *result) { r.lanRTP = measured(0) },
	} {
		r := good
		spoil(&r)
		if internal.judge(r) == "" {
			t.Errorf("%s: judged good", name)
		}
	}
	moved := result{mediaPath: "cloud", lanRTP: measured(10), wanRTP: measured(10), audioForward: true, audioBackward: true, cutToAudio: unknown("x")}
	if standardCalls[3].judge(moved) == "" {
		t.Error("cut without a measured time judged good")
	}
}

// ip4 makes an IPv4 packet.
func ip4(dscp byte, protocol byte, src, dst netip.Addr, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[1], b[8], b[9] = 0x45, dscp<<2, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	return append(b, payload...)
}

func TestCaptureCountsTheBoxsVoiceAndSignalling(t *testing.T) {
	o := &options{LAN: addr(t, "10.20.0.2"), WAN: addr(t, "198.51.100.20"), SIP: 5061}
	client, cloud := addr(t, "10.20.0.31"), addr(t, "203.0.113.9")
	rtp := append(make([]byte, 8), 0x80, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xd5)
	rtcp := append(make([]byte, 8), 0x80, 200, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xd5)
	stun := append(make([]byte, 8), 0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0)
	tcp := make([]byte, 24)
	binary.BigEndian.PutUint16(tcp[2:], 5062)
	tcp[12] = 5 << 4
	c := &capture{o: o}
	c.packet(ip4(46, 17, o.LAN, client, rtp))
	c.packet(ip4(0, 17, client, o.LAN, rtp))
	c.packet(ip4(46, 17, o.WAN, cloud, rtp))
	c.packet(ip4(46, 17, o.LAN, client, rtcp))
	c.packet(ip4(46, 17, o.LAN, client, stun))
	c.packet(ip4(46, 17, client, cloud, rtp))
	c.packet(ip4(34, 6, o.WAN, cloud, tcp))
	c.packet(ip4(0, 6, o.WAN, cloud, tcp[:20])) // bare ACK
	c.packet(ip4(0, 6, cloud, o.WAN, tcp))
	c.packet(nil)
	c.packet([]byte{0x45, 0, 0xff, 0xff})
	if c.count.lanRTP != 2 || c.count.wanRTP != 1 {
		t.Errorf("LAN %d, WAN %d", c.count.lanRTP, c.count.wanRTP)
	}
	if c.count.voice != [64]uint64{46: 2} || c.count.signalling != [64]uint64{34: 1} {
		t.Errorf("voice %v, signalling %v", c.count.voice, c.count.signalling)
	}
	if m := mark("voice", c.count.voice, ""); !m.known || m.value != 46 {
		t.Errorf("%+v", m)
	}
	if m := mark("voice", [64]uint64{0: 3, 46: 2}, ""); m.known || !strings.Contains(m.reason, "3×0") {
		t.Errorf("mixed marks: %+v", m)
	}
}

// TestCaptureSeesLoopback sends a marked packet over the real loopback interface.
func TestCaptureSeesLoopback(t *testing.T) {
	here := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{127, ownNet(), 8, n}) }
	o := &options{LAN: here(10), WAN: here(20), SIP: 5061}
	c := openCapture(o)
	if !c.on {
		t.Skip(c.why)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.run(ctx) }()
	sendMarked(t, o.LAN, 46, 5)
	deadline := time.Now().Add(10 * time.Second)
	for {
		n, _ := c.snapshot()
		if n.lanRTP >= 5 {
			if n.lanRTP != 5 || n.voice[46] != 5 {
				t.Errorf("5 packets sent, %d counted, marks %v", n.lanRTP, n.voice)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of 5 packets seen", n.lanRTP)
		}
	}
	cancel()
	<-done
}

func FuzzCapture(f *testing.F) {
	a, b := netip.AddrFrom4([4]byte{10, 0, 0, 1}), netip.AddrFrom4([4]byte{10, 0, 0, 2})
	f.Add(ip4(46, 17, a, b, make([]byte, 30)))
	f.Add(ip4(34, 6, a, b, make([]byte, 30)))
	f.Fuzz(func(_ *testing.T, p []byte) {
		c := &capture{o: &options{LAN: a, WAN: b}}
		c.packet(p)
	})
}

func sendMarked(t *testing.T, from netip.Addr, dscp, n int) {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, dscp<<2) })
	}}
	conn, err := lc.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(from, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for range n {
		if _, err := conn.WriteTo([]byte{0x80, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xd5}, conn.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
}
