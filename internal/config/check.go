package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checker holds the rules that a configuration must meet beyond its types. Each
// rule speaks of one key; a key that could not be read is not judged again.
type checker struct {
	*decoder
	c *Config
}

func (v *checker) check() {
	// Bounds on lists keep a check quick on any text of MaxFile bytes.
	for _, l := range []struct {
		key          string
		length, most int
	}{
		{"realm", len(v.c.Realms), 32}, {"teams", len(v.c.Teams), 32}, {"sip", len(v.c.SIP), 128}, {"card", len(v.c.Cards), 32},
		{"line", len(v.c.Lines), 512}, {"route", len(v.c.Routes), 4096},
	} {
		if l.length > l.most {
			v.fault(l.key, "%d of them, more than %d", l.length, l.most)
			return
		}
	}
	v.box()
	v.realms()
	v.trunkNames()
	for i := range v.c.Teams {
		t, at := &v.c.Teams[i], fmt.Sprintf("teams[%d]", i)
		v.teams(t, at)
		for j := range v.c.Teams[:i] {
			if t.FQDN != "" && strings.EqualFold(t.FQDN, v.c.Teams[j].FQDN) {
				v.fault(at+".fqdn", "%q is already the name of teams[%d]: Teams knows a trunk by its name", clip(t.FQDN), j)
			}
		}
	}
	for i := range v.c.SIP {
		v.sip(&v.c.SIP[i], fmt.Sprintf("sip[%d]", i))
	}
	v.listeners()
	v.cards()
	v.lines()
	v.routes()
	v.emergency()
	v.rest()
}

var (
	// label is a DNS label; it is also safe in X-MS-SBC, in log attributes and
	// in metric labels.
	label = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	// e164 is an international number, ITU-T E.164 §6: at most 15 digits.
	e164     = regexp.MustCompile(`^\+[1-9][0-9]{4,14}$`)
	dialled  = regexp.MustCompile(`^\+?[0-9*#]{1,32}$`)
	digits   = regexp.MustCompile(`^[0-9]{0,6}$`)
	country  = regexp.MustCompile(`^[a-z]{2}$`)
	linkName = regexp.MustCompile(`^[^\s/:]{1,15}$`) // what Linux takes
)

// required reports a value that is missing, and whether it is there.
func (v *checker) required(path, value, what string) bool {
	if value == "" {
		v.fault(path, "is missing: %s", what)
	}
	return value != "" && !v.failed[path]
}

func (v *checker) between(path string, value, low, high time.Duration) {
	if value < low || value > high {
		v.fault(path, "%v is not between %v and %v", value, low, high)
	}
}

func (v *checker) intBetween(path string, value, low, high int) {
	if value < low || value > high {
		v.fault(path, "%d is not between %d and %d", value, low, high)
	}
}

func (v *checker) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		v.fault(path, "%q is not one of %s", clip(value), strings.Join(allowed, ", "))
	}
}

// name checks a name and that it is the only one of its kind.
func (v *checker) name(path, value string, seen map[string]string) {
	if !v.required(path, value, "a name of letters, digits and '-'") {
		return
	}
	if !label.MatchString(value) {
		v.fault(path, "%q is no name: 1 to 63 letters, digits and '-', not at an end", clip(value))
		return
	}
	if first, twice := seen[strings.ToLower(value)]; twice {
		v.fault(path, "%q is already the name of %s", value, first)
		return
	}
	seen[strings.ToLower(value)] = strings.TrimSuffix(path, ".name")
}

func (v *checker) box() {
	b := &v.c.Box
	v.name("box.name", b.Name, map[string]string{})
	if v.required("box.country", b.Country, "two small letters of ISO 3166-1 such as \"de\"; tones and numbers depend on it") && !country.MatchString(b.Country) {
		v.fault("box.country", "%q is not two small letters of ISO 3166-1 such as \"de\"", clip(b.Country))
	}
	if !b.HTTP.Addr().IsLoopback() {
		v.fault("box.http", "%v is not a loopback address: the page has no users and passwords yet", b.HTTP)
	}
	v.port("box.http", b.HTTP)
	for path, s := range map[string]string{"box.area_code": b.AreaCode, "box.trunk_prefix": b.TrunkPrefix, "box.international_prefix": b.InternationalPrefix} {
		if !digits.MatchString(s) {
			v.fault(path, "%q is not up to six digits", clip(s))
		}
	}
	switch {
	case b.CountryCode == "" && len(v.c.Lines) > 0 && !v.failed["box.country"]:
		v.fault("box.country_code", "is missing: no default is known for country %q, and numbers dialled on lines need it", clip(b.Country))
	case b.CountryCode != "" && (!digits.MatchString(b.CountryCode) || b.CountryCode[0] == '0' || len(b.CountryCode) > 3):
		v.fault("box.country_code", "%q is not one to three digits, the first not 0 (ITU-T E.164)", clip(b.CountryCode))
	}
	v.intBetween("box.max_calls", b.MaxCalls, 1, 4096)
	v.between("box.drain_timeout", b.DrainTimeout, 0, 24*time.Hour)
	v.required("box.state", b.State, "a directory")
}

func (v *checker) port(path string, a netip.AddrPort) {
	if a.IsValid() && a.Port() == 0 {
		v.fault(path, "port 0 is no port")
	}
}

func (v *checker) realms() {
	seen := map[string]string{}
	for i := range v.c.Realms {
		r, at := &v.c.Realms[i], fmt.Sprintf("realm[%d]", i)
		v.name(at+".name", r.Name, seen)
		v.unicast(at+".address", r.Address, true)
		if v.given(at + ".advertise") {
			v.unicast(at+".advertise", r.Advertise, true)
		}
		if r.Interface != "" && !linkName.MatchString(r.Interface) {
			v.fault(at+".interface", "%q is no interface name", clip(r.Interface))
		}
		switch {
		case r.Ports == PortRange{}:
			v.fault(at+".ports", "is missing: a range such as \"20000-20999\"")
		case r.Ports.Low < 1024:
			v.fault(at+".ports", "%v begins below 1024, where other services live", r.Ports)
		case r.Ports.Ports() < 2:
			v.fault(at+".ports", "%v holds no pair of ports", r.Ports)
		}
		for j := range v.c.Realms[:i] {
			o := &v.c.Realms[j]
			if o.Address == r.Address && r.Address.IsValid() && o.Ports.Low <= r.Ports.High && r.Ports.Low <= o.Ports.High && r.Ports.High > 0 && o.Ports.High > 0 {
				v.fault(at+".ports", "%v overlaps %v of realm %q on the same address %v", r.Ports, o.Ports, o.Name, r.Address)
			}
		}
	}
}

// unicast checks an address that voice is sent from or to.
func (v *checker) unicast(path string, a netip.Addr, needed bool) {
	switch {
	case !a.IsValid():
		if needed {
			v.fault(path, "is missing: an IP address")
		}
	case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		v.fault(path, "%v is not the address of one interface", a)
	case a.Zone() != "":
		v.fault(path, "%v has a zone", a)
	}
}

// trunkNames: trunks and lines share one space of names, because routes name
// their sources without kind.
func (v *checker) trunkNames() {
	seen := map[string]string{}
	for i := range v.c.Teams {
		v.name(fmt.Sprintf("teams[%d].name", i), v.c.Teams[i].Name, seen)
	}
	for i := range v.c.SIP {
		v.name(fmt.Sprintf("sip[%d].name", i), v.c.SIP[i].Name, seen)
	}
	for i := range v.c.Lines {
		v.name(fmt.Sprintf("line[%d].name", i), v.c.Lines[i].Name, seen)
	}
}

// realm checks the name of a realm.
func (v *checker) realm(path, name string, needed bool, why string) *Realm {
	if name == "" {
		if needed {
			v.fault(path, "is missing: %s", why)
		}
		return nil
	}
	for i := range v.c.Realms {
		if v.c.Realms[i].Name == name {
			return &v.c.Realms[i]
		}
	}
	v.fault(path, "there is no realm %q", clip(name))
	return nil
}

// voiceCodecs are those that this box sends and receives.
var voiceCodecs = []string{"PCMA", "PCMU"}

func (v *checker) codecs(path string, names []string) {
	for i, n := range names {
		p := fmt.Sprintf("%s[%d]", path, i)
		v.oneOf(p, n, voiceCodecs...)
		if slices.Contains(names[:i], n) {
			v.fault(p, "%s stands twice", n)
		}
	}
}

func (v *checker) prefixes(path string, list []netip.Prefix) {
	for i, p := range list {
		if p.IsValid() && p != p.Masked() {
			v.fault(fmt.Sprintf("%s[%d]", path, i), "%v has bits beyond its length; %v is meant?", p, p.Masked())
		}
	}
}

// hostName reports whether s is a DNS name of at most 253 signs.
func hostName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for l := range strings.SplitSeq(s, ".") {
		if !label.MatchString(l) {
			return false
		}
	}
	_, err := netip.ParseAddr(s)
	return err != nil
}

// splitHostPort splits "host:port" and "[v6]:port".
func splitHostPort(s string) (host string, port uint16, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", 0, fmt.Errorf("no port")
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("port %q", s[i+1:])
	}
	return strings.ToLower(s[:i]), uint16(n), nil
}
