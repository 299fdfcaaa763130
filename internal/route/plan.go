// Package route chooses where a call goes: the dial plan, the rewriting of
// numbers, emergency, and the order of targets by health.
//
// The main type is Plan, which implements call.Router. A Plan is made from one
// configuration and never changes; a reload makes a new one. It keeps no state
// of calls: capacity is the Switch's, the choice of a realm signalling's, and
// what is dialled on a line is collected by package analog, which asks Complete.
//
// Numbers follow ITU-T E.164; what is dialled on analog lines is completed by
// the box's country and area code, and undone for lines to an exchange.
package route

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"localloop/internal/call"
	"localloop/internal/config"
	"localloop/internal/sdp"
)

// emergencyRing is how long an emergency target may alert: a control room's
// queue is not hung up on.
const emergencyRing = 5 * time.Minute

// Health tells which trunks and lines can take calls now. It is asked while a
// call is routed, from any goroutine.
type Health interface {
	// Usable reports whether new calls may be sent there and, if not, why.
	Usable(name string) (ok bool, why string)
}

// Plan is a compiled dial plan. It is safe for concurrent use.
type Plan struct {
	cfg       *config.Config
	health    Health
	rules     []rule // most specific first, then file order
	emergency []target
	numbers   numbers
	lines     map[string]config.Line
}

var _ call.Router = (*Plan)(nil)

// rule is one route of the configuration.
type rule struct {
	config.Route
	pattern config.Pattern
	targets []target
}

// target is a parsed "kind:NAME".
type target struct{ kind, name string }

func (t target) String() string { return t.kind + ":" + t.name }

// New compiles the routes of a configuration. With health nil everything counts
// as usable. The error can only be a fault that config.Parse would have found.
func New(cfg *config.Config, health Health) (*Plan, error) {
	p := &Plan{cfg: cfg, health: health, numbers: newNumbers(cfg.Box), lines: map[string]config.Line{}}
	for _, l := range cfg.Lines {
		p.lines[l.Name] = l
	}
	for _, r := range cfg.Routes {
		pattern, err := config.ParsePattern(r.Match)
		if err != nil {
			return nil, fmt.Errorf("route %q: %w", r.Name, err)
		}
		targets, err := p.parse(r.To)
		if err != nil {
			return nil, fmt.Errorf("route %q: %w", r.Name, err)
		}
		p.rules = append(p.rules, rule{r, pattern, targets})
	}
	slices.SortStableFunc(p.rules, func(a, b rule) int { return a.pattern.Compare(b.pattern) })
	var err error
	if p.emergency, err = p.parse(cfg.Emergency.To); err != nil {
		return nil, fmt.Errorf("emergency: %w", err)
	}
	return p, nil
}

func (p *Plan) parse(list []string) ([]target, error) {
	targets := make([]target, 0, len(list))
	for _, text := range list {
		kind, name, _ := strings.Cut(text, ":")
		t := target{kind, name}
		if _, ok := p.profile(t, true); !ok {
			return nil, fmt.Errorf("there is no target %q", text)
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// ProfileFor is what the peers of a trunk, or a line, may be offered. internal
// is true for a Teams user in the building. It reports false for a name that
// is not configured.
func (p *Plan) ProfileFor(name string, internal bool) (sdp.Profile, bool) {
	for _, kind := range []string{"teams", "sip", "line"} {
		if profile, ok := p.profile(target{kind, name}, internal); ok {
			return profile, true
		}
	}
	return sdp.Profile{}, false
}

func (p *Plan) profile(t target, internal bool) (sdp.Profile, bool) {
	switch t.kind {
	case "teams":
		if i := slices.IndexFunc(p.cfg.Teams, func(c config.Teams) bool { return c.Name == t.name }); i >= 0 {
			return p.cfg.Teams[i].Profile(p.cfg.Box, internal), true
		}
	case "sip":
		if i := slices.IndexFunc(p.cfg.SIP, func(c config.SIP) bool { return c.Name == t.name }); i >= 0 {
			return p.cfg.SIP[i].Profile(p.cfg.Box), true
		}
	case "line":
		if l, ok := p.lines[t.name]; ok {
			return l.Profile(p.cfg.Box), true
		}
	}
	return sdp.Profile{}, false
}

// Route implements call.Router. Without a target the Cause says why; with
// targets it is zero.
func (p *Plan) Route(s call.Setup) ([]call.Target, call.Cause) {
	return p.route(s, func(string, string, ...any) {})
}

// route decides and notes each step of the way.
func (p *Plan) route(s call.Setup, note func(what, format string, args ...any)) ([]call.Target, call.Cause) {
	dialled := clean(s.Called)
	if number, is := p.isEmergency(dialled); is || s.Emergency && len(p.emergency) > 0 {
		if !is {
			number = dialled
		}
		note("emergency", "%s is an emergency number: dialled as it is, whatever the health of trunks", number)
		return p.routeEmergency(number, s.Source, note)
	}
	_, fromLine := p.lines[s.Source]
	e164 := p.numbers.international(dialled, fromLine)
	if e164 != dialled && e164 != "" {
		note("number", "%s is %s", dialled, e164)
	}
	matched := false
	for _, r := range p.rules {
		number, ok := r.match(dialled, e164)
		if !ok {
			continue
		}
		if !r.serves(s.Source) {
			note("route", "%s (%s) matches %s but is not for calls from %s", r.Name, r.Match, number, orNobody(s.Source))
			continue
		}
		matched = true
		note("route", "%s (%s) matches %s", r.Name, r.Match, number)
		if targets := p.targets(r, number, s.Source, note); len(targets) > 0 {
			return targets, call.Cause{}
		}
		note("route", "%s has no target left", r.Name)
	}
	cause := call.UnallocatedNumber.With("no route for %s", orNone(dialled))
	switch {
	case matched:
		cause = call.UnallocatedNumber.With("every route for %s leads back to %s", orNone(dialled), s.Source)
	case dialled == "":
		cause = call.AddressIncomplete.With("no number")
	}
	note("result", "refused: %s", cause)
	return nil, cause
}

func orNobody(s string) string {
	if s == "" {
		return "an unnamed source"
	}
	return s
}

func orNone(s string) string {
	if s == "" {
		return "a call without number"
	}
	return s
}

// match says whether the route is for the number, and in which form. Patterns
// with '+' see the E.164 form, others what was dialled; "*" takes either.
func (r *rule) match(dialled, e164 string) (number string, ok bool) {
	if e164 != "" {
		if m, _ := r.pattern.Match(e164); m {
			return e164, true
		}
	}
	m, _ := r.pattern.Match(dialled)
	return dialled, m
}

func (r *rule) serves(source string) bool {
	return len(r.From) == 0 || slices.Contains(r.From, source)
}

// allows reports whether a call from source may go to t. It may not go back
// where it came from, unless the route names that trunk as a source itself; a
// line can never call itself.
func (r *rule) allows(t target, source string) bool {
	return t.name != source || t.kind != "line" && slices.Contains(r.From, source)
}

// targets builds the targets of a route, those that are not usable last.
func (p *Plan) targets(r rule, number, source string, note func(string, string, ...any)) []call.Target {
	rewritten := number
	if r.Strip > 0 || r.Add != "" {
		rewritten = r.Add + number[min(r.Strip, len(number)):]
		note("number", "%s becomes %s by the route", number, rewritten)
	}
	var up, down []call.Target
	for _, t := range r.targets {
		if !r.allows(t, source) {
			note("target", "%s is left out: the call came from there", t)
			continue
		}
		target := p.target(t, rewritten, r.RingTimeout)
		if ok, why := p.usable(t.name); !ok {
			note("target", "%s as %s is tried last: %s", t, target.Number, why)
			down = append(down, target)
			continue
		}
		note("target", "%s as %s%s", t, target.Number, realms(target.Profile))
		up = append(up, target)
	}
	return append(up, down...)
}

func realms(p sdp.Profile) string {
	switch {
	case p.Realm == "":
		return ""
	case p.Fallback == "":
		return ", voice over " + p.Realm
	}
	return ", voice over " + p.Realm + ", when that fails over " + p.Fallback
}

func (p *Plan) usable(name string) (bool, string) {
	if p.health == nil {
		return true, ""
	}
	ok, why := p.health.Usable(name)
	if !ok && why == "" {
		why = "out of service"
	}
	return ok, why
}

// target makes the call.Target. A Teams user is guessed to be in the building
// until its answer says otherwise (C-133).
func (p *Plan) target(t target, number string, ring time.Duration) call.Target {
	profile, _ := p.profile(t, true)
	c := call.Target{Kind: call.ToTrunk, Name: t.name, Number: number, Profile: profile, RingTimeout: ring}
	if t.kind == "line" {
		c.Kind = call.ToLine
		if p.lines[t.name].Kind == config.FXO {
			c.Number = p.numbers.dialled(number)
		}
	}
	return c
}

// Emergency reports whether a number, as received, is an emergency number.
func (p *Plan) Emergency(number string) bool {
	_, is := p.isEmergency(number)
	return is
}

// isEmergency finds the emergency number, with or without the '+' that some
// clients put before every number.
func (p *Plan) isEmergency(dialled string) (string, bool) {
	n := strings.TrimPrefix(dialled, "+")
	return n, slices.Contains(p.cfg.Emergency.Numbers, n)
}

// routeEmergency gives every emergency target in its configured order: health,
// capacity and loop rules do not remove one. A trunk that the call came from
// goes last; only the caller's own line cannot be dialled.
func (p *Plan) routeEmergency(number, source string, note func(string, string, ...any)) ([]call.Target, call.Cause) {
	var list, back []call.Target
	for _, t := range p.emergency {
		c := p.target(t, number, emergencyRing)
		c.Emergency = true
		if ok, why := p.usable(t.name); ok {
			note("target", "%s as %s%s", t, c.Number, realms(c.Profile))
		} else {
			note("target", "%s as %s, tried all the same: %s", t, c.Number, why)
		}
		switch {
		case t.name != source:
			list = append(list, c)
		case t.kind != "line":
			back = append(back, c)
		}
	}
	if list = append(list, back...); len(list) == 0 {
		cause := call.NoCircuit.With("no way out for emergency number %s", number)
		note("result", "refused: %s", cause)
		return nil, cause
	}
	return list, call.Cause{}
}
