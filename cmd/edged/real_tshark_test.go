package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"localloop/internal/analog/analogtest"
	"localloop/internal/media/mediatest"
	"localloop/internal/sip/siptest"
)

const dissectedBox = `
[[realm]]
name = "lan"
address = "{{.LAN}}"
ports = "20000-20099"

[[realm]]
name = "wan"
address = "{{.WAN}}"
ports = "20000-20099"
cloud = true

[[teams]]
name = "teams"
fqdn = "edge.branch.example"
listen = "{{.WAN}}:5061"
source = "{{.WAN}}"
tls.certificate = "{{.Dir}}/box.pem"
tls.key = "{{.Dir}}/box.key"
tls.roots = "{{.Dir}}/root.pem"
allow = ["{{.Cloud}}/32", "{{.Cloud2}}/32", "{{.Cloud3}}/32"]
bypass = true
internal_realm = "lan"
external_realm = "wan"

[teams.resolve]
"sip.pstnhub.microsoft.com" = "{{.Cloud}}"
"sip2.pstnhub.microsoft.com" = "{{.Cloud2}}"
"sip3.pstnhub.microsoft.com" = "{{.Cloud3}}"

[[line]]
name = "reception"
card = "card"
channel = 0
kind = "fxs"
number = "+493055510"

[[route]]
match = "+493055510"
to = ["line:reception"]

[[route]]
match = "+493055520"
to = ["teams:teams"]
`

// TestTsharkDissectsCallsWithoutFault: a call from Teams to the phone and one
// back, the latter moved from the LAN to the public address, are captured outside
// of the daemon and read by Wireshark's dissectors, what is inside TLS too.
func TestTsharkDissectsCallsWithoutFault(t *testing.T) {
	realTool(t, "tshark", "dumpcap")
	dir := t.TempDir()
	lan, wan, client := realAddr(30), realAddr(31), realAddr(32)
	clouds := []netip.Addr{realAddr(33), realAddr(34), realAddr(35)}
	capture := startCapture(t, filepath.Join(dir, "calls.pcapng"), netip.PrefixFrom(lan, 24).Masked())

	proxies, roots := realKeys(t, dir)
	keyLog, err := os.Create(filepath.Join(dir, "tls.keys"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keyLog.Close() })
	media := func(name string, paths ...mediatest.Path) mediatest.Config {
		return mediatest.Config{Name: name, Paths: paths, ICE: true, Secure: true, Teams: true, DSCP: 46, RTCPEvery: time.Second}
	}
	host := func(a netip.Addr) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(a, 32)} }
	const inside = "+493055521"
	var listen []siptest.Proxy
	for i, name := range siptest.ProxyNames {
		listen = append(listen, siptest.Proxy{Name: name, Listen: netip.AddrPortFrom(clouds[i], 5061)})
	}
	teams, err := siptest.StartTeams(siptest.TeamsConfig{
		Proxies: listen, Sources: clouds[:1], Certificate: proxies, Roots: roots,
		Trunks: []siptest.Trunk{{FQDN: realFQDN, Address: netip.AddrPortFrom(wan, 5061), LMO: true}},
		Users: []siptest.User{
			{Number: inside, Location: "internal", Site: "branch", Media: media("anna", mediatest.Path{Name: "lan", Local: client, Reaches: host(lan)})},
			{Number: realUser, Location: "external", Media: media("emil", mediatest.Path{Name: "wan", Local: clouds[0], Reaches: host(wan)})},
		},
		Confirm: true,
		TLS:     func(_ bool, c *tls.Config) { c.KeyLogWriter = keyLog },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(teams.Close)
	box := startRealBox(t, dir, dissectedBox, map[string]any{"HTTP": lan.String() + ":8080", "LAN": lan, "WAN": wan,
		"Cloud": clouds[0], "Cloud2": clouds[1], "Cloud3": clouds[2]},
		analogtest.Channel{Kind: analogtest.FXS, Phone: analogtest.PhoneOptions{Name: "reception", Country: "de"}})
	phone := box.card.Phone(0)
	ctx := realDeadline(t)
	if err := teams.WaitActive(ctx, realFQDN); err != nil {
		t.Fatal(err)
	}

	const phoneHz, teamsHz = 620, 1010
	talk := func(call *siptest.Call) {
		t.Helper()
		began := time.Now()
		phone.Speak(phoneHz, -14)
		call.Media().Say(mediatest.Tone(teamsHz, -14))
		if _, err := call.Media().WaitTone(ctx, phoneHz, began); err != nil {
			t.Error(err)
		}
		if err := phone.WaitTone(ctx, teamsHz); err != nil {
			t.Error(err)
		}
		if err := call.Media().WaitReports(ctx, 1); err != nil {
			t.Error(err)
		}
	}
	phone.SetScript(analogtest.Script{AnswerRing: 1})
	first, err := teams.Place(ctx, inside, realFQDN, realNumber)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.WaitEstablished(ctx); err != nil {
		t.Fatal(err)
	}
	talk(first)
	if err := first.Bye(ctx); err != nil {
		t.Error(err)
	}
	box.record(t, ctx, 1)
	phone.Speak(0, 0)
	phone.HangUp()
	box.idle(t, ctx)
	phone.SetScript(analogtest.Script{})
	phone.Lift()
	if err := phone.WaitDialTone(ctx); err != nil {
		t.Fatal(err)
	}
	if err := phone.Dial(realDialed); err != nil {
		t.Fatal(err)
	}
	second, err := teams.Incoming(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.WaitEstablished(ctx); err != nil {
		t.Fatal(err)
	}
	talk(second)
	phone.HangUp()
	if _, err := second.WaitEnded(ctx); err != nil {
		t.Error(err)
	}
	box.record(t, ctx, 2)

	rows := capture.dissect(t, keyLog.Name())
	seen := map[string]int{}
	for _, r := range rows {
		if r.fault != "" {
			t.Errorf("frame %s, %s to %s, %s: %s", r.number, r.src, r.dst, r.protocols, r.fault)
		}
		ours := r.src == lan.String() || r.src == wan.String()
		for _, m := range r.sip {
			seen["SIP "+m]++
			if ours {
				seen["our SIP "+m]++
			}
			if ours && r.dscp != 34 {
				t.Errorf("frame %s: SIP %s with DSCP %d", r.number, m, r.dscp)
			}
		}
		if r.sdp {
			seen["SDP"]++
		}
		if r.unread {
			t.Errorf("frame %s, %s to %s: no dissector took it (%s)", r.number, r.src, r.dst, r.protocols)
		}
		if !ours {
			continue
		}
		for what, is := range map[string]bool{"RTP": r.rtp, "RTCP": r.rtcp, "STUN": r.stun != ""} {
			if is && r.dscp != 46 {
				t.Errorf("frame %s: %s with DSCP %d", r.number, what, r.dscp)
			}
		}
		switch {
		case r.rtp:
			seen["our RTP from "+r.src]++
		case r.rtcp:
			seen["our RTCP"]++
		case r.stun == "0x0101":
			seen["our STUN success"]++
		case r.stun != "":
			t.Errorf("frame %s: STUN message %s of ours: an ICE-lite agent only answers", r.number, r.stun)
		}
	}
	t.Logf("%d frames: %v", len(rows), seen)
	for what, least := range map[string]int{
		"SIP INVITE": 3, "our SIP INVITE": 2, "our SIP ACK": 2, "SIP BYE": 2, "our SIP BYE": 1, "our SIP OPTIONS": 3,
		"our SIP 100": 1, "our SIP 180": 1, "our SIP 200": 3, "SDP": 6,
		"our STUN success": 2, "our RTP from " + lan.String(): 50, "our RTP from " + wan.String(): 50, "our RTCP": 2,
	} {
		if seen[what] < least {
			t.Errorf("%s: %d seen, at least %d were sent", what, seen[what], least)
		}
	}
	for _, v := range teams.Violations() {
		if v.Rule != "C-32" { // REFER joins Allow with the step that handles it
			t.Errorf("the Teams double complains: %v", v)
		}
	}
}

// realCapture is dumpcap on the loopback interface.
type realCapture struct {
	process *realProcess
	file    string
	probe   net.Conn // to a port where nobody listens
}

// startCapture returns when packets of the network arrive in the file; it skips
// the test where the kernel lets us not capture.
func startCapture(t *testing.T, file string, of netip.Prefix) *realCapture {
	t.Helper()
	c := &realCapture{file: file}
	c.process = startReal(t, exec.Command("dumpcap", "-q", "-i", "lo", "-f", "net "+of.String(), "-w", file))
	probe, err := net.Dial("udp4", netip.AddrPortFrom(of.Addr().Next(), 9).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = probe.Close() })
	c.probe = probe
	var empty int64 = -1
	realUntil(t, realDeadline(t), "the capture", func() bool {
		select {
		case <-c.process.done:
			t.Skipf("no capture: %v: %s", c.process.err, c.process.out.String())
		default:
		}
		info, err := os.Stat(file)
		if err != nil || info.Size() == 0 {
			return false
		}
		if empty < 0 {
			empty = info.Size()
		}
		_, _ = probe.Write([]byte("probe"))
		return info.Size() > empty
	})
	return c
}

// frame is what tshark says about one.
type frame struct {
	number, src, dst, protocols, stun, fault string
	dscp                                     int
	sip                                      []string // methods and status codes
	sdp, rtp, rtcp                           bool
	unread                                   bool // datagram that no dissector took
}

// dissect ends the capture and reads it.
func (c *realCapture) dissect(t *testing.T, keys string) []frame {
	t.Helper()
	// What was captured is in the file once a probe that was sent later is.
	const last = "localloop last probe"
	realUntil(t, realDeadline(t), "the end of the capture", func() bool {
		_, _ = c.probe.Write([]byte(last)) // each second one fails: the first was refused
		b, err := os.ReadFile(c.file)
		return err == nil && bytes.Contains(b, []byte(last))
	})
	c.process.stop(syscall.SIGINT)
	fields := []string{"frame.number", "ip.src", "ip.dst", "frame.protocols", "stun.type", "_ws.malformed", "_ws.expert.severity", "_ws.expert.message",
		"ip.dsfield.dscp", "sip.Method", "sip.Status-Code", "sdp.media", "rtp.ssrc", "data.data"}
	args := []string{"-n", "-r", c.file, "-o", "tls.keylog_file:" + keys, "--enable-heuristic", "rtp_udp", "-Y", "!(udp.port == 9) && !icmp", "-T", "fields", "-E", "separator=/t", "-E", "aggregator=;"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	var rows []frame
	for line := range strings.Lines(string(realRun(t, "tshark", args...))) {
		v := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(v) != len(fields) {
			t.Fatalf("tshark: %d fields in %q", len(v), line)
		}
		r := frame{number: v[0], src: v[1], dst: v[2], protocols: v[3], stun: v[4], sdp: v[11] != "", rtp: v[12] != ""}
		if strings.HasSuffix(r.protocols, ":udp:data") {
			// Multiplexed SRTCP, as a rule taken for nothing: packet types 200 to 204,
			// RFC 5761 §4.
			r.rtcp = len(v[13]) > 16 && v[13][0] >= '8' && v[13][0] <= 'b' && v[13][2:4] >= "c8" && v[13][2:4] <= "cc"
			r.unread = !r.rtcp
		}
		r.dscp, _ = strconv.Atoi(v[8])
		for _, list := range []string{v[9], v[10]} {
			if list != "" {
				r.sip = append(r.sip, strings.Split(list, ";")...)
			}
		}
		const severityError = 8 << 20 // PI_ERROR of epan/proto.h
		for severity := range strings.SplitSeq(v[6], ";") {
			if n, _ := strconv.Atoi(severity); n >= severityError {
				r.fault = fmt.Sprintf("error: %s", v[7])
			}
		}
		if v[5] != "" {
			r.fault = "malformed: " + v[7]
		}
		if strings.HasSuffix(r.protocols, ":rtcp") {
			// Taken for plain RTCP, of which only the first eight octets are legible.
			r.rtcp, r.rtp, r.fault = true, false, ""
		}
		rows = append(rows, r)
	}
	return rows
}
