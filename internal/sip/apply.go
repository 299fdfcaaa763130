package sip

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"time"

	"localloop/internal/config"
	"localloop/internal/sdp"
)

// settings are what a trunk may change while it runs. Calls in progress keep
// what they began with.
type settings struct {
	profile func(internal bool) sdp.Profile
	bypass  bool
	allow   []netip.Prefix
	every   time.Duration // interval of OPTIONS, 0 none
}

func teamsSettings(c config.Teams, box config.Box) *settings {
	return &settings{
		profile: func(internal bool) sdp.Profile { return c.Profile(box, internal) },
		bypass:  c.Bypass, allow: c.Allow, every: c.OptionsEvery,
	}
}

func sipSettings(c config.SIP, box config.Box) *settings {
	return &settings{profile: func(bool) sdp.Profile { return c.Profile(box) }, allow: c.Allow, every: c.OptionsEvery}
}

// fixedTeams is c without what settings hold: its change takes a restart.
func fixedTeams(c config.Teams) config.Teams {
	c.Allow, c.Bypass, c.InternalRealm, c.ExternalRealm, c.Codecs, c.OptionsEvery = nil, false, "", "", nil, 0
	c.Failover = config.Failover{}
	return c
}

func fixedSIP(c config.SIP) config.SIP {
	c.Allow, c.Realm, c.SRTP, c.Codecs, c.OptionsEvery = nil, "", "", nil, 0
	return c
}

// Apply takes a new configuration: sources, realms, codecs, bypass and the
// interval of OPTIONS change at once for calls to come. Sockets, names, peers and
// the set of trunks cannot: the error then names the trunks that need a restart
// for their change, and nothing is changed at all. Safe to call twice.
// Certificates are read by ReloadTLS.
func (e *Endpoint) Apply(teams []config.Teams, plain []config.SIP, box config.Box) error {
	var errs error
	seen := make(map[*trunk]bool)
	next := make(map[*trunk]*settings)
	apply := func(name string, fixed any, s *settings) {
		t := e.trunk(name)
		if t == nil {
			errs = errors.Join(errs, fmt.Errorf("trunk %s: new trunks need a restart", name))
			return
		}
		seen[t] = true
		if !reflect.DeepEqual(t.fixed, fixed) {
			errs = errors.Join(errs, fmt.Errorf("trunk %s: its sockets, names or peers change: that needs a restart", name))
			return
		}
		next[t] = s
	}
	for _, c := range teams {
		if len(c.Allow) == 0 {
			errs = errors.Join(errs, fmt.Errorf("trunk %s: no allowed sources", c.Name))
			seen[e.trunk(c.Name)] = true
			continue
		}
		apply(c.Name, fixedTeams(c), teamsSettings(c, box))
	}
	for _, c := range plain {
		apply(c.Name, fixedSIP(c), sipSettings(c, box))
	}
	for _, t := range e.trunks {
		if !seen[t] {
			errs = errors.Join(errs, fmt.Errorf("trunk %s: removed trunks need a restart", t.name))
		}
	}
	if errs != nil {
		return errs
	}
	for t, s := range next {
		t.live.Store(s)
		t.expel()
	}
	return nil
}

// expel closes the connections of peers that are allowed no longer. Their calls
// stay: they are found on any other.
func (t *trunk) expel() {
	t.mu.Lock()
	var out []*link
	for l := range t.links {
		if l.stream != nil && !l.ours && !t.trusted(l.remote.Addr()) {
			out = append(out, l)
		}
	}
	t.mu.Unlock()
	for _, l := range out {
		l.close()
	}
}
