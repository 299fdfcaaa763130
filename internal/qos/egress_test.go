package qos

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"localloop/internal/config"
)

// fakeKernel keeps one tree an interface and can refuse.
type fakeKernel struct {
	trees  map[string]*Tree
	refuse func(Step) error
	lose   func(Step) bool // says done, does nothing
	did    int
}

func (k *fakeKernel) Read(name string) (Tree, error) {
	t, ok := k.trees[name]
	if !ok {
		return Tree{}, fmt.Errorf("find interface %s: not found", name)
	}
	c := *t
	c.Classes, c.Filters = slices.Clone(t.Classes), slices.Clone(t.Filters)
	return c, nil
}

func (k *fakeKernel) Do(index int, s Step) error {
	if k.refuse != nil {
		if err := k.refuse(s); err != nil {
			return err
		}
	}
	k.did++
	if k.lose != nil && k.lose(s) {
		return nil
	}
	for _, t := range k.trees {
		if t.Index != index {
			continue
		}
		switch {
		case s.Qdisc != nil && s.Verb == Add:
			t.Root = *s.Qdisc
		case s.Qdisc != nil:
			*t = Tree{Interface: t.Interface, Index: index, Root: Qdisc{Kind: "pfifo_fast"}}
		case s.Class != nil && s.Verb == Add:
			c := *s.Class
			c.Packets = 0
			t.Classes = append(t.Classes, c)
		case s.Class != nil && s.Verb == Change:
			c := find(t.Classes, s.Class.Handle)
			c.Priority, c.Rate = s.Class.Priority, s.Class.Rate
		case s.Class != nil:
			t.Classes = slices.DeleteFunc(t.Classes, func(c ClassNode) bool { return c.Handle == s.Class.Handle })
		case s.Filter != nil && s.Verb == Add:
			f := *s.Filter
			f.Handle = 0x80000000 + uint32(k.did)
			t.Filters = append(t.Filters, f)
		case s.Filter != nil:
			t.Filters = slices.DeleteFunc(t.Filters, func(f Filter) bool { return f.Handle == s.Filter.Handle })
		}
	}
	return nil
}

func (k *fakeKernel) send(name string, class, packets uint32) {
	for i := range k.trees[name].Classes {
		if c := &k.trees[name].Classes[i]; c.Handle == class {
			c.Packets += packets
		}
	}
}

func newFakeKernel() *fakeKernel {
	return &fakeKernel{trees: map[string]*Tree{
		"lan0": {Interface: "lan0", Index: 2, Root: Qdisc{Kind: "mq"}},
		"wan0": {Interface: "wan0", Index: 3, Root: Qdisc{Kind: "cake", Handle: 0x80010000}},
	}}
}

var realms = []config.Realm{{Name: "lan", Ports: config.PortRange{Low: 20000, High: 20999}}}

func with(interfaces ...string) config.QoS {
	c := laboratory
	c.Interfaces = interfaces
	return c
}

func TestApplyTwiceChangesNothingTheSecondTime(t *testing.T) {
	k := newFakeKernel()
	e := NewEgress(k, nil)
	if s := e.Apply(with("lan0"), realms); !s[0].Applied {
		t.Fatal(s)
	}
	k.send("lan0", classVoice, 100)
	did := k.did
	if s := e.Apply(with("lan0"), realms); !s[0].Applied || k.did != did {
		t.Errorf("%v, %d more steps", s, k.did-did)
	}
	if s := e.Shares()[0]; s.Voice != 100 {
		t.Errorf("the second Apply lost the counters: %+v", s)
	}
}

func TestSharesCountPastTheEndOf32Bits(t *testing.T) {
	k := newFakeKernel()
	e := NewEgress(k, nil)
	e.Apply(with("lan0"), realms)
	for range 4 {
		k.send("lan0", classVoice, 1<<31-1)
		k.send("lan0", classVoiceUnmarked, 1000)
		e.Shares()
	}
	s := e.Shares()[0]
	if want := uint64(4 * (1<<31 - 1)); s.Voice != want || s.VoiceUnmarked != 4000 {
		t.Errorf("%+v", s)
	}
	if m, ok := s.Marked(); !ok || m < 0.9999 || m >= 1 {
		t.Errorf("share %v %v", m, ok)
	}
}

func TestCountingStartsAnewWithTheDaemon(t *testing.T) {
	k := newFakeKernel()
	NewEgress(k, nil).Apply(with("lan0"), realms)
	k.send("lan0", classVoice, 500)
	e := NewEgress(k, nil)
	e.Apply(with("lan0"), realms)
	k.send("lan0", classVoice, 3)
	if s := e.Shares()[0]; s.Voice != 3 {
		t.Errorf("%+v, want 3: the rest belongs to an earlier run", s)
	}
}

func TestLostTreeIsReportedAndRepaired(t *testing.T) {
	k := newFakeKernel()
	e := NewEgress(k, nil)
	e.Apply(with("lan0"), realms)
	k.send("lan0", classVoice, 10)
	e.Shares()
	*k.trees["lan0"] = Tree{Interface: "lan0", Index: 2, Root: Qdisc{Kind: "mq"}}
	s := e.Shares()[0]
	if _, ok := s.Marked(); s.Applied || ok || !strings.Contains(s.Why, "differences") {
		t.Errorf("%+v", s)
	}
	e.Apply(with("lan0"), realms)
	k.send("lan0", classVoice, 5)
	if s := e.Shares()[0]; !s.Applied || s.Voice != 15 {
		t.Errorf("after repair %+v", s)
	}
}

func TestRefusalIsReportedNotPretended(t *testing.T) {
	for _, c := range []struct {
		name   string
		refuse func(Step) error
		iface  string
		want   string
	}{
		{"no privilege", func(Step) error { return syscall.EPERM }, "lan0", "operation not permitted (needs CAP_NET_ADMIN)"},
		{"no HTB", func(s Step) error {
			if s.Qdisc != nil {
				return syscall.ENOENT
			}
			return nil
		}, "lan0", "lacks HTB"},
		{"no u32", func(s Step) error {
			if s.Filter != nil {
				return syscall.EOPNOTSUPP
			}
			return nil
		}, "lan0", "lacks HTB or u32"},
		{"foreign", nil, "wan0", "cake 8001: at the root of wan0"},
		{"absent", nil, "lan9", "lan9"},
	} {
		k := newFakeKernel()
		k.refuse = c.refuse
		e := NewEgress(k, nil)
		s := e.Apply(with(c.iface), realms)[0]
		if s.Applied || !strings.HasPrefix(s.Why, "not applied: ") || !strings.Contains(s.Why, c.want) {
			t.Errorf("%s: %+v", c.name, s)
		}
		if _, ok := e.Shares()[0].Marked(); ok {
			t.Errorf("%s: a share is pretended", c.name)
		}
		if k.trees["lan0"].Root.Kind != "mq" && k.trees["lan0"].Root.Kind != "pfifo_fast" {
			t.Errorf("%s: half a tree stays: %+v", c.name, k.trees["lan0"])
		}
		if k.trees["wan0"].Root.Kind != "cake" {
			t.Errorf("%s: the foreign discipline was touched", c.name)
		}
	}
}

func TestReadBackFindsWhatTheKernelDidNotDo(t *testing.T) {
	k := newFakeKernel()
	k.lose = func(s Step) bool { return s.Filter != nil && s.Filter.IPv6 }
	s := NewEgress(k, nil).Apply(with("lan0"), realms)[0]
	if s.Applied || !strings.Contains(s.Why, "read back lan0") {
		t.Errorf("%+v", s)
	}
}

func TestInterfaceNoLongerConfiguredIsGivenBack(t *testing.T) {
	k := newFakeKernel()
	e := NewEgress(k, nil)
	e.Apply(with("lan0"), realms)
	e.Apply(with(), realms)
	if r := k.trees["lan0"].Root; r.ours() {
		t.Errorf("still %s", r)
	}
	e.Apply(with("lan0"), realms)
	if err := e.Remove(); err != nil || k.trees["lan0"].Root.ours() {
		t.Errorf("Remove: %v, %s", err, k.trees["lan0"].Root)
	}
}
