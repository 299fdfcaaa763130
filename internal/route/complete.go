package route

import (
	"fmt"
	"slices"
	"strings"

	"localloop/internal/call"
)

// Match says how the digits dialled so far on a line stand to the dial plan.
type Match uint8

// Values of Match.
const (
	No               Match = iota // no route, whatever follows
	Partial                       // more digits are needed
	Exact                         // complete: dial now
	ExactMaybeLonger              // may be dialled, but more digits may follow: wait a while
)

func (m Match) String() string {
	return [...]string{"no", "partial", "exact", "exact, maybe longer"}[m]
}

// Complete is asked after each digit that is dialled on the line named from. An
// emergency number is Exact at once, although longer numbers begin like it.
func (p *Plan) Complete(from, digits string) Match {
	if _, is := p.isEmergency(digits); is {
		return Exact
	}
	match, partial := false, false
	for _, e := range p.cfg.Emergency.Numbers {
		partial = partial || strings.HasPrefix(e, digits)
	}
	var forms []form
	switch {
	case digits == "" && p.numbers.country != "":
		forms = []form{{number: "+"}}
	case isDigits(digits) && p.numbers.country != "":
		forms = p.numbers.forms(digits)
	}
	for _, r := range p.rules {
		if !r.serves(from) || !slices.ContainsFunc(r.targets, func(t target) bool { return r.allows(t, from) }) {
			continue
		}
		m, more := r.pattern.Match(digits)
		// An open pattern matches nothing dialled, too; that is no number yet.
		match, partial = match || m && digits != "", partial || more || m && digits == ""
		for _, f := range forms {
			m, more := r.pattern.Match(f.number)
			match, partial = match || m && f.whole, partial || more && !f.final || m && !f.whole
		}
	}
	switch {
	case match && partial:
		return ExactMaybeLonger
	case match:
		return Exact
	case partial:
		return Partial
	}
	return No
}

// Step is one step of an explanation.
type Step struct {
	What string // number, emergency, route, target, result
	Text string
}

// Explain says in words how a call to number from a trunk or line (may be
// empty) would be routed now.
func (p *Plan) Explain(number, from string) []Step {
	var steps []Step
	note := func(what, format string, args ...any) {
		steps = append(steps, Step{what, fmt.Sprintf(format, args...)})
	}
	targets, _ := p.route(call.Setup{Called: number, Source: from}, note)
	for i, t := range targets {
		kind := "trunk"
		if t.Kind == call.ToLine {
			kind = "line"
		}
		note("result", "%d. %s %s, number %s", i+1, kind, t.Name, t.Number)
	}
	return steps
}
