package qos

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrForeign says that the root of the interface belongs to somebody else.
var ErrForeign = errors.New("a queueing discipline of somebody else is in place")

// Verb is what a Step does.
type Verb uint8

// Verbs of a plan.
const (
	Add Verb = iota
	Delete
	Change // of a class in place, which keeps its counters
)

// String is the verb as tc has it.
func (v Verb) String() string {
	switch v {
	case Delete:
		return "delete"
	case Change:
		return "change"
	}
	return "add"
}

// Step is one change of the kernel; exactly one of the pointers is set.
type Step struct {
	Verb   Verb
	Qdisc  *Qdisc
	Class  *ClassNode
	Filter *Filter
}

// Plan is the changes that turn what is there into what is wanted, in order.
// An empty Plan means that nothing is to do.
type Plan struct {
	Interface string
	Index     int
	Steps     []Step
}

// PlanFor compares. It replaces the kernel's default discipline and repairs ours;
// at a foreign one it gives ErrForeign. A repair keeps what is right, and with it
// the counters.
func PlanFor(wanted, present Tree) (Plan, error) {
	p := Plan{Interface: wanted.Interface, Index: present.Index}
	if present.Root.foreign() {
		return p, fmt.Errorf("%s at the root of %s: %w", present.Root, wanted.Interface, ErrForeign)
	}
	if present.Root.ours() && (present.Root.Default != wanted.Root.Default || moved(wanted, present)) {
		// HTB takes its default, and a class its parent, only when made.
		old := present.Root
		p.Steps = append(p.Steps, Step{Verb: Delete, Qdisc: &old})
		present = Tree{Index: present.Index}
	}
	if !present.Root.ours() {
		root := wanted.Root
		p.Steps = append(p.Steps, Step{Verb: Add, Qdisc: &root})
		present.Classes, present.Filters = nil, nil
	}
	// Filters go first and come last: they point at classes.
	for _, f := range present.Filters {
		if !slices.ContainsFunc(wanted.Filters, f.same) {
			p.Steps = append(p.Steps, Step{Verb: Delete, Filter: &f})
		}
	}
	for _, c := range slices.Backward(present.Classes) {
		if find(wanted.Classes, c.Handle) == nil {
			p.Steps = append(p.Steps, Step{Verb: Delete, Class: &c})
		}
	}
	for _, c := range wanted.Classes {
		switch have := find(present.Classes, c.Handle); {
		case have == nil:
			p.Steps = append(p.Steps, Step{Verb: Add, Class: &c})
		case !have.same(c):
			p.Steps = append(p.Steps, Step{Verb: Change, Class: &c})
		}
	}
	for _, f := range wanted.Filters {
		if !slices.ContainsFunc(present.Filters, f.same) {
			p.Steps = append(p.Steps, Step{Verb: Add, Filter: &f})
		}
	}
	return p, nil
}

func find(classes []ClassNode, handle uint32) *ClassNode {
	if i := slices.IndexFunc(classes, func(c ClassNode) bool { return c.Handle == handle }); i >= 0 {
		return &classes[i]
	}
	return nil
}

// moved reports a class that hangs elsewhere than it should.
func moved(wanted, present Tree) bool {
	return slices.ContainsFunc(present.Classes, func(c ClassNode) bool {
		w := find(wanted.Classes, c.Handle)
		return w != nil && w.Parent != c.Parent
	})
}

// RemovalPlan takes away what is ours; the kernel then puts its default back.
func RemovalPlan(present Tree) Plan {
	p := Plan{Interface: present.Interface, Index: present.Index}
	if present.Root.ours() {
		root := present.Root
		p.Steps = []Step{{Verb: Delete, Qdisc: &root}}
	}
	return p
}

// String prints the plan, a step a line, in the words of tc.
func (p Plan) String() string {
	if len(p.Steps) == 0 {
		return p.Interface + ": nothing to do\n"
	}
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%s: %s\n", p.Interface, s)
	}
	return b.String()
}

// String prints the step in the words of tc.
func (s Step) String() string {
	switch {
	case s.Qdisc != nil:
		if s.Verb == Delete {
			return fmt.Sprintf("qdisc delete root handle %s", handleText(s.Qdisc.Handle))
		}
		return fmt.Sprintf("qdisc add root handle %s %s default %x", handleText(s.Qdisc.Handle), s.Qdisc.Kind, s.Qdisc.Default)
	case s.Class != nil:
		if s.Verb == Delete {
			return "class delete classid " + handleText(s.Class.Handle)
		}
		return fmt.Sprintf("class %s parent %s classid %s htb prio %d rate %dbit", s.Verb, handleText(s.Class.Parent), handleText(s.Class.Handle), s.Class.Priority, s.Class.Rate)
	case s.Filter != nil:
		var b strings.Builder
		protocol := "ip"
		if s.Filter.IPv6 {
			protocol = "ipv6"
		}
		fmt.Fprintf(&b, "filter %s protocol %s prio %d u32", s.Verb, protocol, s.Filter.Priority)
		for _, k := range s.Filter.Keys {
			fmt.Fprintf(&b, " match u32 %08x %08x at %d", k.Value, k.Mask, k.Offset)
		}
		fmt.Fprintf(&b, " flowid %s", handleText(s.Filter.Class))
		return b.String()
	}
	return "nothing"
}
