package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

func (v *checker) cards() {
	seen, devices := map[string]string{}, map[string]string{}
	for i := range v.c.Cards {
		k, at := &v.c.Cards[i], fmt.Sprintf("card[%d]", i)
		v.name(at+".name", k.Name, seen)
		if v.required(at+".device", k.Device, "a serial device such as \"/dev/ttyUSB0\"") {
			if o, twice := devices[k.Device]; twice {
				v.fault(at+".device", "%q is already the device of %s", clip(k.Device), o)
			}
			devices[k.Device] = at
		}
		v.intBetween(at+".baud", k.Baud, 115200, 3000000)
		v.oneOf(at+".law", k.Law, ALaw, MuLaw)
	}
}

func (v *checker) lines() {
	type channel struct {
		card string
		n    int
	}
	seen, numbers := map[channel]string{}, map[string]string{}
	for i := range v.c.Lines {
		l, at := &v.c.Lines[i], fmt.Sprintf("line[%d]", i)
		if v.required(at+".card", l.Card, "the name of the card that the line is on") {
			if !slices.ContainsFunc(v.c.Cards, func(k Card) bool { return k.Name == l.Card }) {
				v.fault(at+".card", "there is no card %q", clip(l.Card))
			}
		}
		// 0xFF stands for the card itself on the link; 24 lines are the most a
		// UART carries.
		v.intBetween(at+".channel", l.Channel, 0, 23)
		c := channel{l.Card, l.Channel}
		if o, twice := seen[c]; twice && l.Card != "" {
			v.fault(at+".channel", "channel %d of card %q is already %s", l.Channel, l.Card, o)
		}
		seen[c] = at
		if v.required(at+".kind", l.Kind, "fxs (a phone is connected) or fxo (an exchange is connected)") {
			v.oneOf(at+".kind", l.Kind, FXS, FXO)
		}
		if l.Number != "" {
			if !e164.MatchString(l.Number) {
				v.fault(at+".number", "%q is no E.164 number such as \"+493055501\"", clip(l.Number))
			} else if o, twice := numbers[l.Number]; twice {
				v.fault(at+".number", "%s is already the number of %s", l.Number, o)
			}
			numbers[l.Number] = at
		}
		if len([]rune(l.Display)) > 50 || strings.ContainsFunc(l.Display, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			v.fault(at+".display", "is longer than 50 signs or holds control characters")
		}
		if !country.MatchString(l.Country) && v.given(at+".country") {
			v.fault(at+".country", "%q is not two small letters of ISO 3166-1 such as \"de\"", clip(l.Country))
		}
		if l.CallerID != "" {
			v.oneOf(at+".caller_id", l.CallerID, Bellcore, ETSI, Off)
		}
		for path, g := range map[string]float64{at + ".tx_gain": l.TxGain, at + ".rx_gain": l.RxGain} {
			if g < -20 || g > 6 {
				v.fault(path, "%g dB is not between -20 and 6", g)
			}
		}
		if l.Hotline != "" && !dialled.MatchString(l.Hotline) {
			v.fault(at+".hotline", "%q is no number", clip(l.Hotline))
		}
	}
}

func (v *checker) routes() {
	names := map[string]string{}
	for i := range v.c.Routes {
		r, at := &v.c.Routes[i], fmt.Sprintf("route[%d]", i)
		if r.Name == "" && !v.failed[at+".name"] {
			r.Name = fmt.Sprintf("route-%d", i+1)
		}
		v.name(at+".name", r.Name, names)
		least := 0
		if v.required(at+".match", r.Match, "a pattern such as \"+4930*\"") {
			p, err := ParsePattern(r.Match)
			if err != nil {
				v.fault(at+".match", "%v", err)
			}
			least = p.Least()
			// Stripping a number to nothing is right only when something is added.
			if r.Strip < 0 || r.Strip > least || r.Strip == least && r.Strip > 0 && r.Add == "" && !p.rest {
				v.fault(at+".strip", "%d digits cannot be taken off %q and leave a number", r.Strip, clip(r.Match))
			}
		}
		for j, from := range r.From {
			if !v.isSource(from) {
				v.fault(fmt.Sprintf("%s.from[%d]", at, j), "there is no trunk or line %q", clip(from))
			}
		}
		if r.Add != "" && !dialled.MatchString(r.Add) && r.Add != "+" {
			v.fault(at+".add", "%q is no beginning of a number", clip(r.Add))
		}
		if len(r.To) == 0 {
			v.fault(at+".to", "is missing: a list of targets such as \"teams:NAME\", \"sip:NAME\" or \"line:NAME\"")
		}
		v.targets(at+".to", r.To)
		if r.RingTimeout != 0 {
			v.between(at+".ring_timeout", r.RingTimeout, 5*time.Second, 10*time.Minute)
		}
	}
}

func (v *checker) isSource(name string) bool {
	return slices.ContainsFunc(v.c.Teams, func(t Teams) bool { return t.Name == name }) ||
		slices.ContainsFunc(v.c.SIP, func(s SIP) bool { return s.Name == name }) ||
		slices.ContainsFunc(v.c.Lines, func(l Line) bool { return l.Name == name })
}

func (v *checker) targets(path string, list []string) {
	for i, t := range list {
		p := fmt.Sprintf("%s[%d]", path, i)
		kind, name, ok := strings.Cut(t, ":")
		found := false
		switch {
		case !ok:
		case kind == "teams":
			found = slices.ContainsFunc(v.c.Teams, func(t Teams) bool { return t.Name == name })
		case kind == "sip":
			found = slices.ContainsFunc(v.c.SIP, func(s SIP) bool { return s.Name == name })
		case kind == "line":
			found = slices.ContainsFunc(v.c.Lines, func(l Line) bool { return l.Name == name })
		default:
			ok = false
		}
		switch {
		case !ok:
			v.fault(p, "%q is not \"teams:NAME\", \"sip:NAME\" or \"line:NAME\"", clip(t))
		case !found:
			v.fault(p, "there is no %s %q", map[string]string{"teams": "Teams trunk", "sip": "SIP trunk", "line": "line"}[kind], clip(name))
		case slices.Contains(list[:i], t):
			v.fault(p, "%s stands twice", t)
		}
	}
}

func (v *checker) emergency() {
	e := &v.c.Emergency
	for i, n := range e.Numbers {
		p := fmt.Sprintf("emergency.numbers[%d]", i)
		switch {
		case len(n) < 2 || len(n) > 6 || !digits.MatchString(n):
			v.fault(p, "%q is no emergency number: two to six digits", clip(n))
		case slices.Contains(e.Numbers[:i], n):
			v.fault(p, "%s stands twice", n)
		}
	}
	switch {
	case len(e.Numbers) > 0 && len(e.To) == 0:
		v.fault("emergency.to", "is missing: emergency numbers need at least one target")
	case len(e.Numbers) == 0 && len(e.To) > 0:
		v.fault("emergency.numbers", "is missing: no number would reach these targets")
	}
	v.targets("emergency.to", e.To)
	// An emergency call must leave the building; a phone on an FXS line cannot
	// take it there, but may be tried before.
	leaves := func(t string) bool {
		return !slices.ContainsFunc(v.c.Lines, func(l Line) bool { return t == "line:"+l.Name && l.Kind == FXS })
	}
	if len(e.To) > 0 && !slices.ContainsFunc(e.To, leaves) {
		v.fault("emergency.to", "all targets are phones of this box: emergency calls would not leave the building")
	}
}

func (v *checker) rest() {
	for i, n := range v.c.QoS.Interfaces {
		p := fmt.Sprintf("qos.interfaces[%d]", i)
		switch {
		case !linkName.MatchString(n):
			v.fault(p, "%q is no interface name", clip(n))
		case slices.Contains(v.c.QoS.Interfaces[:i], n):
			v.fault(p, "%s stands twice", n)
		}
	}
	k := &v.c.Calls
	v.between("calls.seize", k.Seize, time.Second, 9*time.Second) // C-38
	v.between("calls.try_next", k.TryNext, 500*time.Millisecond, 9*time.Second)
	if k.TryNext >= k.Seize {
		v.fault("calls.try_next", "%v is not less than seize, %v: no second target would be tried", k.TryNext, k.Seize)
	}
	v.between("calls.ring", k.Ring, 5*time.Second, 10*time.Minute)
	v.between("calls.lost", k.Lost, time.Second, 5*time.Minute)
	m := &v.c.Media
	v.between("media.jitter_min", m.JitterMin, 0, time.Second)
	v.between("media.jitter_max", m.JitterMax, 20*time.Millisecond, 2*time.Second)
	if m.JitterMax < m.JitterMin {
		v.fault("media.jitter_max", "%v is less than jitter_min, %v", m.JitterMax, m.JitterMin)
	}
	v.intBetween("media.loops", m.Loops, 0, 64)
	v.intBetween("cdr.keep", v.c.CDR.Keep, 1, 100000)
}
