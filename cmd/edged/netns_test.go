package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"localloop/internal/web"
)

// simulated is the last line of branchsim once.
type simulated struct {
	Calls []struct {
		Name, Fault   string
		MediaPath     string
		LAN           float64  `json:"lanRtpPackets"`
		WAN           float64  `json:"wanRtpPackets"`
		Cut           *float64 `json:"cutToAudioMs"`
		DSCPVoice     float64
		DSCPSignal    float64 `json:"dscpSignalling"`
		OK            bool
		AudioForward  bool
		AudioBackward bool
	}
	OK bool
}

// once places standard calls by number.
func (p *process) once(t *testing.T, args ...string) simulated {
	t.Helper()
	var errOut strings.Builder
	cmd := p.sim(append([]string{"--talk", "2s", "once"}, args...)...)
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var s simulated
	if jerr := json.Unmarshal([]byte(lines[len(lines)-1]), &s); jerr != nil || err != nil || !s.OK {
		t.Fatalf("branchsim: %v %v\n%s%s", err, jerr, out, errOut.String())
	}
	for _, c := range s.Calls {
		t.Logf("%s: %s LAN %.0f WAN %.0f", c.Name, c.MediaPath, c.LAN, c.WAN)
		if !c.OK || !c.AudioForward || !c.AudioBackward || c.DSCPVoice != 46 || c.DSCPSignal != 34 {
			t.Errorf("%+v", c)
		}
	}
	return s
}

// status asks edged as a user does.
func (p *process) status(t *testing.T) web.Status {
	t.Helper()
	out, err := exec.Command("ip", "netns", "exec", p.s.box, p.s.edged, "-c", p.dir+"/edged.toml", "status", "--json").Output()
	if err != nil {
		t.Fatalf("edged status: %v", err)
	}
	var s web.Status
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("edged status: %v\n%s", err, out)
	}
	return s
}

func marksOf(t *testing.T, s web.Status, name string) web.InterfaceMark {
	t.Helper()
	for _, m := range s.Marks.Interfaces {
		if m.Interface == name {
			return m
		}
	}
	t.Fatalf("status does not know %s: %+v", name, s.Marks)
	return web.InterfaceMark{}
}

// nftCounter counts UDP on a device in both directions, in the kernel's own way.
func (s *space) nftCounter(t *testing.T, ns, device string) (read func() uint64) {
	t.Helper()
	s.sh(t, ns, fmt.Sprintf(`nft -f - <<X
table inet count {
	counter seen {}
	chain in { type filter hook prerouting priority -400; iifname %q meta l4proto udp counter name seen; }
	chain out { type filter hook postrouting priority 400; oifname %q meta l4proto udp counter name seen; }
}
X`, device, device))
	t.Cleanup(func() { s.sh(t, ns, "nft delete table inet count") })
	number := regexp.MustCompile(`packets (\d+)`)
	return func() uint64 {
		t.Helper()
		out := s.sh(t, ns, "nft list counter inet count seen")
		m := number.FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("nft: %s", out)
		}
		n, err := strconv.ParseUint(m[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
}

// TestNetnsVoiceStaysWhereItBelongs runs edged, built with the race detector, in
// a box of its own between a branch LAN and Microsoft behind a router, and
// compares what it says of itself with two counts that it cannot reach: packet
// captures at the other ends of its cables and nftables' counters there. Voice
// carries DSCP 46, C-106.
func TestNetnsVoiceStaysWhereItBelongs(t *testing.T) {
	s := newSpace(t)
	for _, tc := range []struct {
		name  string
		only  string
		path  string
		busy  string // the box's interface that carries the voice
		quiet string
	}{
		{"internal user both ways: nothing on the WAN", "1,2", "lan", "lan0", "wan0"},
		{"external user: nothing on the LAN", "3", "cloud", "wan0", "lan0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			taps := map[string]*tap{"lan0": s.tap(t, s.branch, "branch0"), "wan0": s.tap(t, s.wan, "up0")}
			nft := map[string]func() uint64{"lan0": s.nftCounter(t, s.branch, "branch0"), "wan0": s.nftCounter(t, s.wan, "up0")}
			p := s.start(t, nil)
			result := p.once(t, "--only", tc.only)

			before := taps["wan0"].counts()
			status := p.status(t)
			seen := map[string]seen{"lan0": taps["lan0"].counts(), "wan0": taps["wan0"].counts()}
			sum := 0.0
			for _, c := range result.Calls {
				if sum += c.LAN + c.WAN; c.MediaPath != tc.path {
					t.Errorf("%s went by %s", c.Name, c.MediaPath)
				}
			}
			busy, quiet := seen[tc.busy], seen[tc.quiet]
			t.Logf("%s: %+v", tc.busy, busy)
			t.Logf("%s: %+v", tc.quiet, quiet)
			// With bypass there is no reason for any UDP there: not even STUN or RTCP.
			if n := nft[tc.quiet](); quiet.rtp != 0 || quiet.udp != 0 || n != 0 {
				t.Errorf("%s: %d RTP and %d UDP packets captured, nftables counted %d UDP packets, want none", tc.quiet, quiet.rtp, quiet.udp, n)
			}
			if n := nft[tc.busy](); busy.udp != n {
				t.Errorf("%s: %d UDP packets captured, nftables counted %d", tc.busy, busy.udp, n)
			}
			if toBox := busy.rtp - busy.voiceEF - busy.voiceOther; toBox < 50 {
				t.Errorf("%s: only %d RTP packets to the box: the capture sees one direction", tc.busy, toBox)
			}
			if busy.rtp < 100 || busy.rtp != uint64(sum) {
				t.Errorf("%s: %d RTP packets captured, branchsim counted %.0f", tc.busy, busy.rtp, sum)
			}
			if busy.voiceEF < 50 || busy.voiceOther != 0 {
				t.Errorf("%s: voice of the box: %d with DSCP 46, %d without", tc.busy, busy.voiceEF, busy.voiceOther)
			}
			if seen["wan0"].signalEF41 == 0 || seen["wan0"].tcpOther != 0 {
				t.Errorf("signalling of the box: %d packets with DSCP 34, %d without", seen["wan0"].signalEF41, seen["wan0"].tcpOther)
			}
			// What edged says of itself is what was on the wire, to the packet.
			for name, n := range seen {
				m := marksOf(t, status, name)
				if !m.Applied {
					if strings.Contains(m.Why, "the kernel lacks") {
						t.Skip("the share was not compared: " + m.Why)
					}
					t.Fatalf("%s: marks are not enforced: %s", name, m.Why)
				}
				if m.Marked != n.mediaEF || m.Unmarked != n.mediaOther {
					t.Errorf("%s: status says %d with EF and %d without, captured were %d and %d", name, m.Marked, m.Unmarked, n.mediaEF, n.mediaOther)
				}
				switch total := n.mediaEF + n.mediaOther; {
				case total == 0 && m.Share != nil:
					t.Errorf("%s: a share of nothing: %v", name, *m.Share)
				case total > 0 && (m.Share == nil || *m.Share != float64(n.mediaEF)/float64(total)):
					t.Errorf("%s: share %v of %d", name, m.Share, total)
				}
			}
			// OPTIONS may go out between the looks, so there are two.
			if m := marksOf(t, status, "wan0"); m.Signal < before.signalEF41 || m.Signal > seen["wan0"].signalEF41 {
				t.Errorf("status says %d signalling packets with AF41, captured were %d to %d", m.Signal, before.signalEF41, seen["wan0"].signalEF41)
			}
		})
	}
}

// drop and mend of the branch: the machine is deaf and dumb, its link stays up.
const (
	dropIP  = `nft add table inet cut; nft 'add chain inet cut in { type filter hook input priority -300; policy drop; }'; nft 'add chain inet cut out { type filter hook output priority -300; policy drop; }'`
	dropARP = `; nft add table arp cut; nft 'add chain arp cut in { type filter hook input priority 0; policy drop; }'`
	mendIP  = `nft delete table inet cut`
	mendARP = `; nft delete table arp cut`
)

// TestNetnsCallSurvivesTheLossOfTheLAN cuts the LAN in mid-call in each way that
// edged must notice, while the far end speaks.
func TestNetnsCallSurvivesTheLossOfTheLAN(t *testing.T) {
	s := newSpace(t)
	in := func(script string) string { return "ip netns exec " + s.branch + ` sh -ec "` + script + `"` }
	for _, tc := range []struct {
		name  string
		args  []string
		ready func(*testing.T)
		conf  func(string) string
		why   string  // in edged's log
		worst float64 // ms
	}{
		{name: "link down", args: []string{"--cut=link"}, why: "link lan0 down", worst: 4000},
		{name: "silent, no event", args: []string{"--cut=command", "--cut-with", in(dropIP), "--mend-with", in(mendIP)}, why: "no packets for", worst: 4000},
		{
			name: "neighbour failed", args: []string{"--cut=command", "--cut-with", in(dropIP + dropARP), "--mend-with", in(mendIP + mendARP)},
			// The kernel's own timers, faster: as they are a neighbour is asked for
			// again after half a minute.
			ready: func(t *testing.T) {
				s.sh(t, s.box, `cd /proc/sys/net/ipv4/neigh/lan0; echo 200 > base_reachable_time_ms; echo 0 > delay_first_probe_time; echo 50 > retrans_time_ms; echo 2 > ucast_solicit; ip neigh flush dev lan0`)
			},
			// Silence alone would be noticed later than the voice is to be back.
			conf: func(text string) string {
				return strings.Replace(text, "external_realm = \"wan\"\n", "external_realm = \"wan\"\nfailover.dead_after = \"6s\"\n", 1)
			},
			why: "neighbour " + clientIP.String() + " does not answer on lan0", worst: 4000,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.ready != nil {
				tc.ready(t)
			}
			lan, wan := s.tap(t, s.branch, "branch0"), s.tap(t, s.wan, "up0")
			p := s.start(t, tc.conf)
			result := p.once(t, append([]string{"--only", "4"}, tc.args...)...)
			c := result.Calls[0]
			if c.Cut == nil {
				t.Fatalf("no time from cut to audio: %+v", c)
			}
			t.Logf("cut to audio: %.0f ms", *c.Cut)
			if *c.Cut > tc.worst || c.MediaPath != "cloud" {
				t.Errorf("%.0f ms from cut to audio, at most %.0f; media path %s", *c.Cut, tc.worst, c.MediaPath)
			}
			l, w := lan.counts(), wan.counts()
			t.Logf("LAN %+v", l)
			t.Logf("WAN %+v", w)
			if l.voiceEF == 0 || w.voiceEF == 0 || l.voiceOther+w.voiceOther+l.tcpOther+w.tcpOther != 0 {
				t.Errorf("marks: LAN %+v, WAN %+v", l, w)
			}
			status := p.status(t)
			if n := len(status.Last); n != 1 || status.Last[0].MediaPath != "cloud" || status.Last[0].Moves == 0 {
				t.Errorf("edged's record: %+v", status.Last)
			}
			p.stop(t)
			if !strings.Contains(p.log.String(), tc.why) {
				t.Errorf("edged did not notice it by %q:\n%s", tc.why, p.log)
			}
		})
	}
}
