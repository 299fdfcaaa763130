package localloop

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// allowed is the package map of docs/architecture.md: for each package the
// packages of ours that it may import. A subpackage obeys its parent's row and
// may be imported by its parent only, unless it has a row of its own.
var allowed = map[string][]string{
	"cmd/edged":       {"*"},
	"cmd/branchsim":   {"internal/sip/siptest", "internal/media/mediatest", "internal/analog/analogtest"},
	"internal/web":    {"internal/config", "internal/call", "internal/cdr"},
	"internal/call":   {"internal/sdp"},
	"internal/sip":    {"internal/call", "internal/sdp", "internal/config"},
	"internal/analog": {"internal/call", "internal/dsp", "internal/sdp", "internal/config"},
	"internal/route":  {"internal/call", "internal/config", "internal/sdp"},
	"internal/cdr":    {"internal/call", "internal/config"},
	"internal/media":  {"internal/bypass", "internal/dsp", "internal/sdp", "internal/config"},
	"internal/bypass": {"internal/sdp"},
	"internal/sdp":    {},
	"internal/netcfg": {"internal/config"},
	"internal/qos":    {"internal/config"},
	"internal/trust":  {"internal/config"},
	"internal/dsp":    {},
	"internal/config": {"internal/sdp"},
	// Test doubles stand for the other side: they share no code with what they judge.
	"internal/sip/siptest":       {"internal/media/mediatest"},
	"internal/media/mediatest":   {},
	"internal/analog/analogtest": {},
	// Tools of the repository itself.
	"test/report": {},
	// The kernel laboratory runs what touches the kernel on Debian's.
	"test/kernel/guest":  {"internal/qos", "internal/netcfg", "internal/config"},
	"test/kernel/initrd": {},
	// Scripted legs and an echoing bridge speak call's own types.
	"internal/call/calltest": {"internal/call", "internal/sdp"},
}

// doublesOnly are modules that only test doubles and tests may import: a second,
// independent implementation of what the product does with the v2 lines.
var doublesOnly = []string{"github.com/pion/ice/v4", "github.com/pion/srtp/v3", "github.com/creack/pty"}

// fenced maps modules to the only packages of ours that may import them.
var fenced = map[string][]string{
	"github.com/pion/ice/v2":           {"internal/bypass"},
	"github.com/pion/stun":             {"internal/bypass"},
	"github.com/pion/srtp/v2":          {"internal/media"},
	"github.com/emiago/sipgo":          {"internal/sip"},
	"go.bug.st/serial":                 {"internal/analog"},
	"github.com/vishvananda/netlink":   {"internal/qos", "internal/netcfg", "test/kernel/guest"},
	"github.com/coreos/go-systemd/v22": {"cmd/edged"},
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

// TestLayersImportsFollowTheMap reads the real import graph. Test files may
// import what they like, apart from what the doubles must not know.
func TestLayersImportsFollowTheMap(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	const module = "localloop/"
	seen := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours {
			continue // the root package holds this test only
		}
		seen++
		row, rules := rowOf(name)
		if row == "" {
			t.Errorf("%s: no row in the package map; add one to docs/architecture.md and to this test", name)
			continue
		}
		isDouble := strings.HasSuffix(row, "test") || row == "cmd/branchsim"
		for _, imp := range p.Imports {
			if dep, ok := strings.CutPrefix(imp, module); ok {
				if !importAllowed(row, rules, dep) {
					t.Errorf("%s imports %s, which the package map does not allow", name, dep)
				}
			}
			for _, m := range doublesOnly {
				if under(imp, m) && !isDouble {
					t.Errorf("%s imports %s, which belongs to the test doubles", name, imp)
				}
			}
			for m, users := range fenced {
				if !under(imp, m) {
					continue
				}
				if ok := contains(users, func(u string) bool { return under(name, u) }) && !isDouble; !ok {
					t.Errorf("%s imports %s, which is fenced to %v", name, imp, users)
				}
			}
		}
	}
	if seen < 10 {
		t.Fatalf("only %d packages seen: the test does not see the tree", seen)
	}
}

func importAllowed(row string, rules []string, dep string) bool {
	if under(dep, row) {
		return true
	}
	depRow, _ := rowOf(dep)
	return contains(rules, func(r string) bool {
		return r == "*" && !strings.HasSuffix(depRow, "test") || r == depRow && dep == depRow || r == dep
	})
}

// rowOf finds the package's own row or the nearest parent's.
func rowOf(name string) (string, []string) {
	for n := name; n != ""; {
		if rules, ok := allowed[n]; ok {
			return n, rules
		}
		i := strings.LastIndexByte(n, '/')
		if i < 0 {
			break
		}
		n = n[:i]
	}
	return "", nil
}

func under(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

func contains(list []string, f func(string) bool) bool {
	for _, s := range list {
		if f(s) {
			return true
		}
	}
	return false
}
