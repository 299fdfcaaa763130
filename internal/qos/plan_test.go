package qos

import (
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"localloop/internal/config"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}

func applied(wanted Tree) Tree {
	t := wanted
	t.Index = 7
	t.Classes, t.Filters = slices.Clone(wanted.Classes), slices.Clone(wanted.Filters)
	for i := range t.Filters {
		t.Filters[i].Handle = 0x80000800 + uint32(i)
	}
	return t
}

func TestPlans(t *testing.T) {
	ports := []config.PortRange{{Low: 20000, High: 20999}}
	wanted := WantedTree("eth0", laboratory, ports)
	odd := applied(wanted)
	odd.Classes[1].Rate = 1000
	odd.Classes = append(odd.Classes, ClassNode{Handle: major | 0x99, Parent: classRoot})
	odd.Filters = odd.Filters[1:]
	odd.Filters = append(odd.Filters, Filter{Handle: 0x80100800, Priority: 9, Keys: []Key{dscpKey(false, 8)}, Class: major | 0x99})
	other := applied(wanted)
	other.Root.Default = 0
	for _, c := range []struct {
		name    string
		wanted  Tree
		present Tree
	}{
		{"fresh", wanted, Tree{Index: 7, Root: Qdisc{Kind: "pfifo_fast"}}},
		{"fresh-without-ports", WantedTree("eth0", laboratory, nil), Tree{Index: 7, Root: Qdisc{Kind: "mq"}}},
		{"nothing", wanted, applied(wanted)},
		{"repair", wanted, odd},
		{"other-default", WantedTree("eth0", config.QoS{Voice: 46, Signalling: 24}, nil), other},
		{"other-signalling", WantedTree("eth0", config.QoS{Voice: 46, Signalling: 24}, ports), applied(wanted)},
	} {
		p, err := PlanFor(c.wanted, c.present)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, c.name, p.String())
	}
	golden(t, "remove", RemovalPlan(applied(wanted)).String())
}

func TestForeignDisciplinesAreLeftAlone(t *testing.T) {
	wanted := WantedTree("eth0", laboratory, nil)
	for _, root := range []Qdisc{{Kind: "fq_codel", Handle: 0x80010000}, {Kind: "htb", Handle: 0x00010000}, {Kind: "prio", Handle: major}} {
		p, err := PlanFor(wanted, Tree{Root: root})
		if !errors.Is(err, ErrForeign) || len(p.Steps) > 0 {
			t.Errorf("%s: %v, %v", root, p, err)
		}
		if p := RemovalPlan(Tree{Interface: "eth0", Root: root}); len(p.Steps) > 0 {
			t.Errorf("%s is removed: %v", root, p)
		}
	}
}

// TestCoverIsExact tries every port against the blocks of random ranges.
func TestCoverIsExact(t *testing.T) {
	const seed = 1
	rnd := rand.New(rand.NewPCG(seed, 1))
	ranges := []config.PortRange{{Low: 0, High: 65535}, {Low: 1, High: 65534}, {Low: 20000, High: 20999}, {Low: 5, High: 5}, {Low: 65535, High: 65535}}
	for range 50 {
		a, b := uint16(rnd.Uint32()), uint16(rnd.Uint32())
		ranges = append(ranges, config.PortRange{Low: min(a, b), High: max(a, b)})
	}
	for _, r := range ranges {
		keys := cover(r)
		if len(keys) > 30 {
			t.Errorf("%v: %d blocks", r, len(keys))
		}
		for port := range uint32(65536) {
			n := 0
			for _, k := range keys {
				if port<<16&k.Mask == k.Value {
					n++
				}
			}
			if want := port >= uint32(r.Low) && port <= uint32(r.High); (n == 1) != want || n > 1 {
				t.Fatalf("seed %d: %v: port %d matches %d blocks", seed, r, port, n)
			}
		}
	}
}
