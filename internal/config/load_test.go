package config

import (
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"localloop/internal/sdp"
)

var update = flag.Bool("update", false, "rewrite golden files and docs/config.md")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (run with -update if the change is meant):\n%s", path, diff)
	}
}

// TestBadFilesReportEveryFault compares all faults of each file, with line and
// key, with the list beside it.
func TestBadFilesReportEveryFault(t *testing.T) {
	files, _ := filepath.Glob("testdata/bad/*.toml")
	if len(files) < 8 {
		t.Fatalf("only %d files", len(files))
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse(filepath.Base(f), text)
			var faults Faults
			if !errors.As(err, &faults) || c != nil {
				t.Fatalf("config %v, error %v", c, err)
			}
			golden(t, strings.TrimSuffix(f, ".toml")+".faults", err.Error()+"\n")
			for i := 1; i < len(faults); i++ {
				if faults[i].Line < faults[i-1].Line {
					t.Errorf("line %d after line %d", faults[i].Line, faults[i-1].Line)
				}
			}
		})
	}
}

// TestGoodFilesComplete shows the whole configuration, defaults included.
func TestGoodFilesComplete(t *testing.T) {
	files, _ := filepath.Glob("testdata/good/*.toml")
	if len(files) < 2 {
		t.Fatalf("only %d files", len(files))
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			c, err := Load(f)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.MarshalIndent(c, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(f, ".toml")+".json", string(text)+"\n")
		})
	}
}

func TestLoadRefusesWhatIsNoConfiguration(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "absent.toml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
	big := filepath.Join(dir, "big.toml")
	if err := os.WriteFile(big, []byte(strings.Repeat("# text\n", MaxFile/7+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":        "",
		"not UTF-8":    "[box]\nname = \"\xff\"\n",
		"deep nesting": "a = " + strings.Repeat("[", 200000),
		"no TOML":      "hello",
	} {
		var faults Faults
		if _, err := Parse("x.toml", []byte(text)); !errors.As(err, &faults) || len(faults) == 0 || faults[0].File != "x.toml" {
			t.Errorf("%s: %v", name, err)
		}
	}
	var faults Faults
	if _, err := Load(big); !errors.As(err, &faults) || !strings.Contains(err.Error(), "larger") {
		t.Errorf("big file: %v", err)
	}
}

func TestFaultsAreBounded(t *testing.T) {
	_, err := Parse("x.toml", []byte(strings.Repeat("[[route]]\nx = 1\n", 4000)))
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != maxFaults {
		t.Errorf("%d faults", len(faults))
	}
}

func TestListsAreBounded(t *testing.T) {
	_, err := Parse("x.toml", []byte("[box]\ncountry = \"de\"\n"+strings.Repeat("[[line]]\n", 513)))
	if err == nil || err.Error() != "x.toml:3: line: 513 of them, more than 512" {
		t.Error(err)
	}
}

func TestDSCP(t *testing.T) {
	for text, want := range map[string]DSCP{"EF": 46, "ef": 46, "AF41": 34, "AF11": 10, "AF43": 38, "CS0": 0, "CS3": 24, "CS7": 56, "VA": 44, "0": 0, "63": 63, "46": 46} {
		var d DSCP
		if err := d.UnmarshalText([]byte(text)); err != nil || d != want {
			t.Errorf("%s: %d, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "AF44", "AF51", "AF10", "CS8", "64", "-1", "EF ef", "0x2e"} {
		var d DSCP
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q taken as %d", text, d)
		}
	}
	for d := DSCP(0); d < 64; d++ {
		text, _ := d.MarshalText()
		var back DSCP
		if err := back.UnmarshalText(text); err != nil || back != d {
			t.Errorf("%d written as %s, read as %d", d, text, back)
		}
	}
}

func TestPortRange(t *testing.T) {
	var r PortRange
	for _, text := range []string{"", "5", "-", "0-5", "9-5", "1-65536", "a-b", "1-2-3"} {
		if err := r.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q taken as %v", text, r)
		}
	}
	if err := r.UnmarshalText([]byte("20000-20999")); err != nil || r.Ports() != 1000 || !r.Contains(20000) || !r.Contains(20999) || r.Contains(21000) || r.String() != "20000-20999" {
		t.Errorf("%v %v", r, err)
	}
}

func TestProfiles(t *testing.T) {
	box := Box{Country: "de"}
	teams := Teams{Bypass: true, InternalRealm: "lan", ExternalRealm: "wan", Codecs: []string{"PCMA"},
		Failover: Failover{DeadAfter: 700 * time.Millisecond, DeadSilent: 9 * time.Second, RestartWithin: 3 * time.Second, RefuseFor: time.Minute}}
	base := sdp.Profile{Realm: "wan", Secure: true, ICE: sdp.LiteICE, RTCPMux: true, Codecs: []string{"PCMA"}, Ptime: 20 * time.Millisecond, InactiveHold: true, Country: "de",
		DeadAfter: 700 * time.Millisecond, DeadSilent: 9 * time.Second, RestartWithin: 3 * time.Second}
	internal := base
	internal.Realm, internal.Fallback = "lan", "wan"
	plain := base
	plain.ICE = sdp.NoICE
	plain.DeadAfter, plain.DeadSilent, plain.RestartWithin = 0, 0, 0 // nowhere to move
	same := teams
	same.InternalRealm = "wan"
	off := teams
	off.Bypass = false
	tests := []struct {
		name      string
		got, want sdp.Profile
	}{
		{"C127 internal user", teams.Profile(box, true), internal},
		{"C128 external user", teams.Profile(box, false), base},
		{"one realm for both", same.Profile(box, true), base},
		{"no bypass", off.Profile(box, true), plain},
		{"SIP", SIP{Realm: "wan", SRTP: SRTPRequired, Codecs: []string{"PCMU"}}.Profile(box),
			sdp.Profile{Realm: "wan", Secure: true, RTCPMux: true, Codecs: []string{"PCMU"}, Ptime: 20 * time.Millisecond, Country: "de",
				DeadAfter: 15 * time.Second, DeadSilent: time.Minute}},
		{"line", Line{Name: "phone"}.Profile(box), sdp.Profile{Line: "phone", Country: "de"}},
		{"line abroad", Line{Name: "phone", Country: "at"}.Profile(box), sdp.Profile{Line: "phone", Country: "at"}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}
}

func TestPatternMatch(t *testing.T) {
	tests := []struct {
		pattern, number string
		match, partial  bool
	}{
		{"+4930*", "+4930", true, true},
		{"+4930*", "+49305551", true, true},
		{"+4930*", "+493", false, true},
		{"+4930*", "+4989", false, false},
		{"0", "0", true, false},
		{"0", "", false, true},
		{"0", "00", false, false},
		{"*", "", true, true},
		{"*", "+49#", true, true},
		{"+49305550[1-4]?", "+4930555049", true, false},
		{"+49305550[1-4]?", "+493055504", false, true},
		{"+49305550[1-4]?", "+4930555051", false, false},
		{"[*]21[*]?*", "*21*5", true, true},
		{"[05#]", "#", true, false},
		{"[05#]", "4", false, false},
		{"?", "*", false, false},
		{"*", "abc", true, true},
		{"???", "abc", false, false},
	}
	for _, tt := range tests {
		p, err := ParsePattern(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if m, part := p.Match(tt.number); m != tt.match || part != tt.partial {
			t.Errorf("%s on %q: %v %v", tt.pattern, tt.number, m, part)
		}
	}
	for _, bad := range []string{"", "a", "4+9", "[", "[]", "[3-1]", "[+]", "[a-z]", "1*2*", "[#-5]", strings.Repeat("1", 65)} {
		if p, err := ParsePattern(bad); err == nil && bad != "1*2*" {
			t.Errorf("%q taken as %v", bad, p)
		}
	}
}

func TestPatternMostSpecificFirst(t *testing.T) {
	pairs := [][2]string{{"112", "1*"}, {"[1-4]234", "1*"}, {"1*", "????"}, {"+4930*", "+49*"}, {"+49305550[1-4]?", "+49305550*"}, {"112*", "?????*"}, {"12", "12*"}, {"12?*", "12*"}, {"0", "*"}, {"[12]5", "[1-5]5"}}
	for _, p := range pairs {
		a, err1 := ParsePattern(p[0])
		b, err2 := ParsePattern(p[1])
		if err1 != nil || err2 != nil || a.Compare(b) >= 0 || b.Compare(a) <= 0 {
			t.Errorf("%s does not go before %s: %d %d", p[0], p[1], a.Compare(b), b.Compare(a))
		}
	}
}

func TestMeet(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{{"10.0.0.1", "10.0.0.1", true}, {"10.0.0.1", "10.0.0.2", false}, {"0.0.0.0", "10.0.0.2", true}, {"::", "10.0.0.2", true}, {"0.0.0.0", "::1", false}, {"::1", "::", true}}
	for _, tt := range tests {
		a, b := netip.MustParseAddr(tt.a), netip.MustParseAddr(tt.b)
		if meet(a, b) != tt.want || meet(b, a) != tt.want {
			t.Errorf("%v and %v", a, b)
		}
	}
}

// FuzzParse: no text panics, and what is taken is complete.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.toml", "testdata/bad/*.toml"} {
		files, _ := filepath.Glob(pattern)
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Add([]byte("teams.resolve.a = 1\n[teams.allow]\n\"\"=1\n[realm.ports]\nLow=1"))
	f.Add([]byte("route=[{},{to=[{}]},[]]\n[[card.name]]\n[box.http.addr]\nz={}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("fuzz", text)
		if (c == nil) == (err == nil) {
			t.Fatalf("config %v, error %v", c, err)
		}
		var faults Faults
		if err != nil && !errors.As(err, &faults) {
			t.Fatalf("error of type %T", err)
		}
		for _, fault := range faults {
			if fault.Text == "" || strings.ContainsRune(fault.String(), '\n') {
				t.Fatalf("fault %q", fault)
			}
		}
		if c != nil && c.Box.Country == "" {
			t.Fatal("incomplete configuration taken")
		}
	})
}
