package route

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"localloop/internal/call"
	"localloop/internal/config"
	"localloop/internal/sdp"
)

const branch = `
[box]
country = "de"
area_code = "30"
[[realm]]
name = "lan"
address = "10.20.0.2"
ports = "20000-20999"
[[realm]]
name = "wan"
address = "192.0.2.10"
ports = "20000-20999"
[[teams]]
name = "teams"
fqdn = "sbc3.branch.example"
tls = { certificate = "c", key = "k", roots = "r" }
bypass = true
internal_realm = "lan"
external_realm = "wan"
[[teams]]
name = "teams-mp"
fqdn = "sbc4.branch.example"
listen = "0.0.0.0:5062"
tls = { certificate = "c", key = "k", roots = "r" }
external_realm = "wan"
[[sip]]
name = "carrier"
realm = "wan"
srtp = "required"
peers = ["198.51.100.7:5060"]
[[sip]]
name = "pbx"
realm = "lan"
listen = "0.0.0.0:5070"
peers = ["10.20.0.9:5060"]
[[card]]
name = "c"
device = "/dev/ttyS0"
[[line]]
name = "desk"
card = "c"
channel = 0
kind = "fxs"
number = "+493055501"
[[line]]
name = "lift"
card = "c"
channel = 1
kind = "fxs"
[[line]]
name = "exchange"
card = "c"
channel = 2
kind = "fxo"
country = "at"
[[route]]
name = "desk"
match = "+493055501"
to = ["line:desk"]
ring_timeout = "30s"
[[route]]
name = "block"
match = "+493055502"
to = ["teams:teams", "line:lift"]
[[route]]
name = "pbx"
match = "+49305550*"
to = ["sip:pbx"]
[[route]]
name = "extension"
match = "[2-4]?"
strip = 0
add = "+4930555"
to = ["sip:pbx"]
[[route]]
name = "service"
match = "0800*"
from = ["desk"]
to = ["line:exchange"]
[[route]]
name = "out"
match = "+*"
to = ["teams:teams", "teams:teams-mp", "sip:carrier", "line:exchange"]
[[route]]
name = "transit"
match = "+43*"
from = ["carrier"]
to = ["sip:carrier"]
strip = 3
add = "0043"
[[route]]
name = "exchange-in"
match = "*"
from = ["exchange"]
to = ["line:exchange", "line:desk"]
[emergency]
numbers = ["110", "112"]
to = ["line:exchange", "sip:carrier", "teams:teams"]
`

type down map[string]string

func (d down) Usable(name string) (bool, string) { why, is := d[name]; return !is, why }

func plan(t testing.TB, text string, h Health) *Plan {
	t.Helper()
	cfg, err := config.Parse("test.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// short writes targets as "name=number name=number".
func short(targets []call.Target) string {
	var s []string
	for _, t := range targets {
		s = append(s, t.Name+"="+t.Number)
	}
	return strings.Join(s, " ")
}

func TestRoute(t *testing.T) {
	p := plan(t, branch, down{})
	tests := []struct {
		name, from, called, want string
		cause                    call.Cause
	}{
		{"internal user calls the phone", "teams", "+493055501", "desk=+493055501", call.Cause{}},
		{"separators", "teams", "+49 (30) 555-01", "desk=+493055501", call.Cause{}},
		{"most specific first", "carrier", "+493055503", "pbx=+493055503", call.Cause{}},
		{"several targets in order", "carrier", "+493055502", "teams=+493055502 lift=+493055502", call.Cause{}},
		{"out by every way, the exchange dials national", "desk", "+4989123456", "teams=+4989123456 teams-mp=+4989123456 carrier=+4989123456 exchange=089123456", call.Cause{}},
		{"the exchange dials abroad", "desk", "0033145678901", "teams=+33145678901 teams-mp=+33145678901 carrier=+33145678901 exchange=0033145678901", call.Cause{}},
		{"national number from a line", "desk", "089123456", "teams=+4989123456 teams-mp=+4989123456 carrier=+4989123456 exchange=089123456", call.Cause{}},
		{"local number from a line", "lift", "55501", "desk=+493055501", call.Cause{}},
		{"local number from a trunk is no E.164", "pbx", "55501", "", call.UnallocatedNumber},
		{"national number from a trunk", "pbx", "03055501", "desk=+493055501", call.Cause{}},
		{"never back to the trunk it came from", "carrier", "+33145678901", "teams=+33145678901 teams-mp=+33145678901 exchange=0033145678901", call.Cause{}},
		{"unless from names it", "carrier", "+43155501", "carrier=0043155501", call.Cause{}},
		{"a line never calls itself", "desk", "+493055501", "pbx=+493055501", call.Cause{}},
		{"even when from names it", "exchange", "", "desk=", call.Cause{}},
		{"raw pattern and rewriting", "desk", "27", "pbx=+493055527", call.Cause{}},
		{"raw before a vague E.164 pattern", "desk", "0800123456", "exchange=0800123456", call.Cause{}},
		{"route of another source", "lift", "0800123456", "teams=+49800123456 teams-mp=+49800123456 carrier=+49800123456 exchange=0800123456", call.Cause{}},
		{"unknown", "teams", "99", "", call.UnallocatedNumber},
		{"no number", "teams", "", "", call.AddressIncomplete},
		{"a name is no number", "pbx", "alice.b", "", call.UnallocatedNumber},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			targets, cause := p.Route(call.Setup{Called: tt.called, Source: tt.from})
			if got := short(targets); got != tt.want || !cause.Is(tt.cause) {
				t.Errorf("got %q (%v)\nwant %q (%v)", got, cause, tt.want, tt.cause)
			}
			if len(targets) == 0 && cause.Text == "" {
				t.Error("refused without words")
			}
		})
	}
}

func TestLoopOnlyRouteIsRefusedWithItsReason(t *testing.T) {
	text := branch[:strings.Index(branch, "[[route]]\nname = \"block\"")] + branch[strings.Index(branch, "[emergency]"):]
	_, cause := plan(t, text, nil).Route(call.Setup{Called: "+493055501", Source: "desk"})
	if !cause.Is(call.UnallocatedNumber) || !strings.Contains(cause.Text, "back to desk") {
		t.Error(cause)
	}
}

func TestUnhealthyTrunksAreTriedLast(t *testing.T) {
	h := down{"teams": "no OPTIONS answered", "teams-mp": ""}
	p := plan(t, branch, h)
	targets, _ := p.Route(call.Setup{Called: "+33145678901", Source: "desk"})
	want := "carrier=+33145678901 exchange=0033145678901 teams=+33145678901 teams-mp=+33145678901"
	if got := short(targets); got != want {
		t.Errorf("got %q", got)
	}
	delete(h, "teams") // health is asked anew for each call
	targets, _ = p.Route(call.Setup{Called: "+33145678901", Source: "desk"})
	if !strings.HasPrefix(short(targets), "teams=") {
		t.Error(short(targets))
	}
}

func TestEmergency(t *testing.T) {
	everythingDown := down{"teams": "x", "carrier": "x", "exchange": "x"}
	const all = "exchange=112 carrier=112 teams=112"
	tests := []struct {
		name string
		s    call.Setup
		want string
	}{
		{"from a line", call.Setup{Called: "112", Source: "desk"}, all},
		{"from Teams, dialled with plus", call.Setup{Called: "+112", Source: "pbx"}, all},
		{"its own trunk goes last", call.Setup{Called: "112", Source: "carrier"}, "exchange=112 teams=112 carrier=112"},
		{"a line does not dial itself", call.Setup{Called: "112", Source: "exchange"}, "carrier=112 teams=112"},
		{"no source", call.Setup{Called: "110"}, strings.ReplaceAll(all, "112", "110")},
		{"marked as emergency", call.Setup{Called: "115", Source: "pbx", Emergency: true}, "exchange=115 carrier=115 teams=115"},
		{"marked, E.164", call.Setup{Called: "+493019222", Source: "pbx", Emergency: true}, "exchange=03019222 carrier=+493019222 teams=+493019222"},
	}
	for _, tt := range tests {
		p := plan(t, branch, everythingDown)
		targets, cause := p.Route(tt.s)
		if got := short(targets); got != tt.want || cause != (call.Cause{}) {
			t.Errorf("%s: got %q (%v), want %q", tt.name, got, cause, tt.want)
		}
		for _, target := range targets {
			if target.RingTimeout != emergencyRing {
				t.Errorf("%s: %s may alert %v only", tt.name, target.Name, target.RingTimeout)
			}
		}
	}
}

func TestEmergencyWithoutAnyWayOutSaysSo(t *testing.T) {
	text := strings.Replace(branch, `to = ["line:exchange", "sip:carrier", "teams:teams"]`, `to = ["line:exchange"]`, 1)
	targets, cause := plan(t, text, nil).Route(call.Setup{Called: "112", Source: "exchange"})
	if len(targets) != 0 || !cause.Is(call.NoCircuit) || !strings.Contains(cause.Text, "112") {
		t.Errorf("%v %v", targets, cause)
	}
}

// TestEmergencyIsDecidedBeforeRoutes: a route that would catch or rewrite the
// number is not asked.
func TestEmergencyIsDecidedBeforeRoutes(t *testing.T) {
	text := strings.Replace(branch, "[[route]]", "[[route]]\nname = \"trap\"\nmatch = \"112\"\nadd = \"+49\"\nto = [\"line:desk\"]\n[[route]]", 1)
	targets, _ := plan(t, text, nil).Route(call.Setup{Called: "112", Source: "lift"})
	if got := short(targets); got != "exchange=112 carrier=112 teams=112" {
		t.Error(got)
	}
}

func TestTargetsCarryProfiles(t *testing.T) {
	p := plan(t, branch, nil)
	targets, _ := p.Route(call.Setup{Called: "+4989123456", Source: "desk"})
	ptime := 20 * time.Millisecond
	g711 := []string{"PCMA", "PCMU"}
	want := []call.Target{
		{Kind: call.ToTrunk, Name: "teams", Number: "+4989123456", Profile: sdp.Profile{Realm: "lan", Fallback: "wan", Secure: true, ICE: sdp.LiteICE, RTCPMux: true, Codecs: g711, Ptime: ptime, InactiveHold: true, Country: "de",
			DeadAfter: time.Second, DeadSilent: 15 * time.Second, RestartWithin: 2 * time.Second}},
		{Kind: call.ToTrunk, Name: "teams-mp", Number: "+4989123456", Profile: sdp.Profile{Realm: "wan", Secure: true, RTCPMux: true, Codecs: g711, Ptime: ptime, InactiveHold: true, Country: "de"}},
		{Kind: call.ToTrunk, Name: "carrier", Number: "+4989123456", Profile: sdp.Profile{Realm: "wan", Secure: true, RTCPMux: true, Codecs: g711, Ptime: ptime, Country: "de",
			DeadAfter: 15 * time.Second, DeadSilent: time.Minute}},
		{Kind: call.ToLine, Name: "exchange", Number: "089123456", Profile: sdp.Profile{Line: "exchange", Country: "at"}},
	}
	if diff := cmp.Diff(want, targets); diff != "" {
		t.Error(diff)
	}
	if targets, _ = p.Route(call.Setup{Called: "+493055501", Source: "teams"}); targets[0].RingTimeout != 30*time.Second {
		t.Errorf("ring timeout %v", targets[0].RingTimeout)
	}
	external, ok := p.ProfileFor("teams", false)
	if !ok || external.Realm != "wan" || external.Fallback != "" || external.ICE != sdp.LiteICE {
		t.Errorf("external user: %+v", external)
	}
	if _, ok := p.ProfileFor("nobody", true); ok {
		t.Error("profile for nobody")
	}
}

func TestComplete(t *testing.T) {
	p := plan(t, branch, down{"teams": "down"})
	tests := []struct {
		from, digits string
		want         Match
	}{
		{"desk", "", Partial},
		{"desk", "1", Partial},
		{"desk", "11", Partial}, // 112, or a local number
		{"desk", "112", Exact},
		{"desk", "2", Partial},
		{"desk", "27", ExactMaybeLonger}, // extension, or a local number
		{"desk", "0", Partial},
		{"desk", "00", Partial},
		{"desk", "0049", Partial},
		{"desk", "004930", Partial},
		{"desk", "0049305", Partial},
		{"desk", "00493055", ExactMaybeLonger},
		{"desk", "089", Partial},
		{"desk", "08912", ExactMaybeLonger},
		{"desk", "+49", ExactMaybeLonger},
		{"desk", "*2", No},
		{"nobody", "*2", No},
		{"exchange", "*2", ExactMaybeLonger}, // its own route takes anything
	}
	for _, tt := range tests {
		if got := p.Complete(tt.from, tt.digits); got != tt.want {
			t.Errorf("%q from %s: %v, want %v", tt.digits, tt.from, got, tt.want)
		}
	}
}

// TestCompleteWithoutOpenEnds: where the plan knows the length, the call goes
// at the last digit.
func TestCompleteWithoutOpenEnds(t *testing.T) {
	const base = `
[[realm]]
name = "lan"
address = "10.20.0.2"
ports = "20000-20999"
[[sip]]
name = "pbx"
realm = "lan"
peers = ["10.20.0.9:5060"]
[[card]]
name = "c"
device = "/dev/ttyS0"
[[line]]
name = "desk"
card = "c"
kind = "fxs"
`
	us := plan(t, "[box]\ncountry = \"us\"\narea_code = \"212\"\n"+base+"[[route]]\nmatch = \"+*\"\nto = [\"sip:pbx\"]\n", nil)
	ext := plan(t, "[box]\ncountry = \"de\"\n"+base+"[[route]]\nmatch = \"2??\"\nto = [\"sip:pbx\"]\n[[route]]\nmatch=\"2005\"\nto = [\"line:desk\"]\n", nil)
	tests := []struct {
		p      *Plan
		digits string
		want   Match
	}{
		{us, "1", Partial}, {us, "1305555", Partial}, {us, "13055551234", Exact},
		{us, "555123", Partial}, {us, "5551234", ExactMaybeLonger}, {us, "30555512", Partial}, {us, "3055551234", Exact},
		{us, "0", Partial}, {us, "01149", Partial}, {us, "0114930555", ExactMaybeLonger},
		{ext, "", Partial}, {ext, "1", No}, {ext, "20", Partial}, {ext, "200", Exact}, {ext, "2005", No},
	}
	for _, tt := range tests {
		if got := tt.p.Complete("desk", tt.digits); got != tt.want {
			t.Errorf("%q: %v, want %v", tt.digits, got, tt.want)
		}
	}
	if got := ext.Complete("other", "200"); got != ExactMaybeLonger {
		t.Errorf("another line may also call 2005: %v", got)
	}
}

// TestNumbers is C-52 with the rules of the box.
func TestNumbers(t *testing.T) {
	de := newNumbers(config.Box{CountryCode: "49", AreaCode: "30", TrunkPrefix: "0", InternationalPrefix: "00"})
	us := newNumbers(config.Box{CountryCode: "1", AreaCode: "212", TrunkPrefix: "1", InternationalPrefix: "011"})
	dk := newNumbers(config.Box{CountryCode: "45", InternationalPrefix: "00"})
	none := newNumbers(config.Box{})
	tests := []struct {
		n              numbers
		digits         string
		line, trunk    string // E.164 form from a line and from a trunk
		againFromLines string // what an exchange line dials for it
	}{
		{de, "55501", "+493055501", "", "03055501"},
		{de, "03055501", "+493055501", "+493055501", "03055501"},
		{de, "0043123456", "+43123456", "+43123456", "0043123456"},
		{de, "+4989", "+4989", "+4989", "089"},
		{de, "12", "", "", ""},
		{de, "*21", "", "", ""},
		{de, "0012", "", "", ""},
		{us, "5551234", "+12125551234", "", "12125551234"},
		{us, "3055551234", "+13055551234", "", "13055551234"},
		{us, "13055551234", "+13055551234", "+13055551234", "13055551234"},
		{us, "0114930555", "+4930555", "+4930555", "0114930555"},
		{us, "555123", "", "", ""},
		{us, "1305555", "", "", ""}, // begins with the national prefix: incomplete
		{dk, "33123456", "+4533123456", "", "33123456"},
		{dk, "114", "", "", ""},
		{none, "55501", "", "", ""},
	}
	for _, tt := range tests {
		if got := tt.n.international(tt.digits, true); got != tt.line {
			t.Errorf("%s from a line: %q, want %q", tt.digits, got, tt.line)
		}
		if got := tt.n.international(tt.digits, false); got != tt.trunk {
			t.Errorf("%s from a trunk: %q, want %q", tt.digits, got, tt.trunk)
		}
		if tt.line != "" {
			if got := tt.n.dialled(tt.line); got != tt.againFromLines {
				t.Errorf("%s on an exchange line: %q, want %q", tt.line, got, tt.againFromLines)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	p := plan(t, branch, down{"teams": "no answer to OPTIONS for 3m"})
	var got []string
	for _, q := range [][2]string{{"089123456", "carrier"}, {"27", "desk"}, {"112", "desk"}, {"99", "teams"}, {"0800123456", "lift"}} {
		got = append(got, fmt.Sprintf("%s from %s", q[0], q[1]))
		for _, s := range p.Explain(q[0], q[1]) {
			got = append(got, "  "+s.What+": "+s.Text)
		}
	}
	want := `089123456 from carrier
  number: 089123456 is +4989123456
  route: out (+*) matches +4989123456
  target: teams:teams as +4989123456 is tried last: no answer to OPTIONS for 3m
  target: teams:teams-mp as +4989123456, voice over wan
  target: sip:carrier is left out: the call came from there
  target: line:exchange as 089123456
  result: 1. trunk teams-mp, number +4989123456
  result: 2. line exchange, number 089123456
  result: 3. trunk teams, number +4989123456
27 from desk
  route: extension ([2-4]?) matches 27
  number: 27 becomes +493055527 by the route
  target: sip:pbx as +493055527, voice over lan
  result: 1. trunk pbx, number +493055527
112 from desk
  emergency: 112 is an emergency number: dialled as it is, whatever the health of trunks
  target: line:exchange as 112
  target: sip:carrier as 112, voice over wan
  target: teams:teams as 112, tried all the same: no answer to OPTIONS for 3m
  result: 1. line exchange, number 112
  result: 2. trunk carrier, number 112
  result: 3. trunk teams, number 112
99 from teams
  route: exchange-in (*) matches 99 but is not for calls from teams
  result: refused: 404/1 no route for 99
0800123456 from lift
  number: 0800123456 is +49800123456
  route: service (0800*) matches 0800123456 but is not for calls from lift
  route: out (+*) matches +49800123456
  target: teams:teams as +49800123456 is tried last: no answer to OPTIONS for 3m
  target: teams:teams-mp as +49800123456, voice over wan
  target: sip:carrier as +49800123456, voice over wan
  target: line:exchange as 0800123456
  result: 1. trunk teams-mp, number +49800123456
  result: 2. trunk carrier, number +49800123456
  result: 3. line exchange, number 0800123456
  result: 4. trunk teams, number +49800123456`
	if diff := cmp.Diff(strings.Split(want, "\n"), got); diff != "" {
		t.Error(diff)
	}
}

// FuzzRoute: any dialled text is routed or refused with words, and a route
// never leads back to its source line.
func FuzzRoute(f *testing.F) {
	for _, s := range []string{"", "+", "112", "+112", "0", "00", "27", "alice", "+493055501", "*21*5#", "0800"} {
		f.Add(s, "desk")
		f.Add(s, "carrier")
	}
	p := plan(f, branch, down{"teams": "x"})
	f.Fuzz(func(t *testing.T, called, from string) {
		targets, cause := p.Route(call.Setup{Called: called, Source: from})
		if (len(targets) == 0) != (cause != call.Cause{}) {
			t.Fatalf("%v with %v", targets, cause)
		}
		for _, target := range targets {
			if target.Kind == call.ToLine && (target.Name == from || target.Name == "exchange" && strings.HasPrefix(target.Number, "+")) {
				t.Fatalf("%q from %q to %+v", called, from, target)
			}
		}
		p.Complete(from, called)
		p.Explain(called, from)
	})
}

func TestNewRefusesWhatParseWouldHave(t *testing.T) {
	for name, cfg := range map[string]config.Config{
		"pattern":   {Routes: []config.Route{{Name: "a", Match: "x", To: []string{"sip:a"}}}},
		"target":    {Routes: []config.Route{{Name: "a", Match: "1", To: []string{"sip:a"}}}},
		"kind":      {Routes: []config.Route{{Name: "a", Match: "1", To: []string{"fax:a"}}}},
		"emergency": {Emergency: config.Emergency{To: []string{"line:a"}}},
	} {
		if p, err := New(&cfg, nil); err == nil {
			t.Errorf("%s: %v", name, p)
		}
	}
}
