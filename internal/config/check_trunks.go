package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

func (v *checker) teams(t *Teams, at string) {
	v.fqdn(at+".fqdn", t.FQDN)
	v.port(at+".listen", t.Listen)
	v.unicast(at+".source", t.Source, false)
	v.tls(at+".tls", t.TLS)
	if len(t.Proxies) == 0 {
		v.fault(at+".proxies", "is empty: without a proxy Teams never hears of this box")
	}
	var hosts []string
	for i, p := range t.Proxies {
		path := fmt.Sprintf("%s.proxies[%d]", at, i)
		host, _, err := splitHostPort(p)
		if err != nil || !hostName(host) {
			v.fault(path, "%q is not a name with port such as \"sip.pstnhub.microsoft.com:5061\"", clip(p))
			continue
		}
		if slices.Contains(hosts, host) {
			v.fault(path, "%s stands twice", host)
		}
		hosts = append(hosts, host)
	}
	if len(t.PeerNames) == 0 {
		v.fault(at+".peer_names", "is empty: no certificate could be accepted")
	}
	v.hostNames(at+".peer_names", t.PeerNames)
	if len(t.Allow) == 0 {
		v.fault(at+".allow", "is empty: nothing would be let in")
	}
	v.prefixes(at+".allow", t.Allow)
	for name, a := range t.Resolve {
		path := join(at+".resolve", name)
		if !hostName(name) {
			v.fault(path, "%q is no host name", clip(name))
		}
		v.unicast(path, a, false)
	}
	if t.Bypass {
		in := v.realm(at+".internal_realm", t.InternalRealm, true, "media bypass offers a user in the building this realm's address")
		ex := v.realm(at+".external_realm", t.ExternalRealm, true, "media bypass offers anybody else this realm's address, and moves calls there when the LAN fails")
		v.ipv4(at+".internal_realm", in)
		if in != nil && in.Cloud {
			v.fault(at+".internal_realm", "realm %q is marked as cloud: voice of users in the building would leave it", in.Name)
		}
		v.ipv4(at+".external_realm", ex)
	} else {
		v.realm(at+".internal_realm", t.InternalRealm, false, "")
		v.ipv4(at+".external_realm", v.realm(at+".external_realm", t.ExternalRealm, true, "the realm whose address Teams' media processors reach"))
	}
	v.codecs(at+".codecs", t.Codecs)
	if t.OptionsEvery < time.Minute {
		v.fault(at+".options_every", "%v is too often: Microsoft asks for at most one OPTIONS a minute", t.OptionsEvery)
	} else {
		// Teams takes a trunk out of service that it has not heard for minutes.
		v.between(at+".options_every", t.OptionsEvery, time.Minute, 3*time.Minute)
	}
	v.failover(&t.Failover, at+".failover")
}

// ipv4: Teams takes one IPv4 candidate (C-107).
func (v *checker) ipv4(path string, r *Realm) {
	if r != nil && r.Advertise.IsValid() && !r.Advertise.Unmap().Is4() {
		v.fault(path, "realm %q has the address %v; Teams takes IPv4 only", r.Name, r.Advertise)
	}
}

func (v *checker) fqdn(path, name string) {
	if !v.required(path, name, "the name of this box in DNS, in its certificate and in the tenant") {
		return
	}
	lower := strings.ToLower(strings.TrimSuffix(name, "."))
	_, err := netip.ParseAddr(strings.Trim(name, "[]"))
	switch {
	case err == nil:
		v.fault(path, "%q is an address; Teams takes names only", clip(name))
	case len(name) > 63:
		v.fault(path, "is %d signs long; Teams takes up to 63", len(name))
	case !hostName(name) || !strings.Contains(name, "."):
		v.fault(path, "%q is no fully qualified domain name", clip(name))
	case lower == "onmicrosoft.com" || strings.HasSuffix(lower, ".onmicrosoft.com"):
		v.fault(path, "Teams takes no name under onmicrosoft.com: use a domain of your own")
	}
}

// tls checks that the names are there; whether the files can be read and fit
// is for those who read them.
func (v *checker) tls(at string, t TLS) {
	v.required(at+".certificate", t.Certificate, "a PEM file with the certificate and its intermediates")
	v.required(at+".key", t.Key, "a PEM file with the private key")
	v.required(at+".roots", t.Roots, "a PEM file with the roots that peers must chain to")
}

func (v *checker) hostNames(path string, names []string) {
	for i, n := range names {
		if !hostName(n) {
			v.fault(fmt.Sprintf("%s[%d]", path, i), "%q is no host name", clip(n))
		}
	}
}

func (v *checker) failover(f *Failover, at string) {
	v.between(at+".dead_after", f.DeadAfter, 200*time.Millisecond, 30*time.Second)
	v.between(at+".dead_silent", f.DeadSilent, time.Second, 5*time.Minute)
	if f.DeadSilent < f.DeadAfter {
		v.fault(at+".dead_silent", "%v is less than dead_after, %v: a silent peer sends less than a speaking one", f.DeadSilent, f.DeadAfter)
	}
	v.between(at+".restart_within", f.RestartWithin, 200*time.Millisecond, 30*time.Second)
	v.between(at+".refuse_for", f.RefuseFor, 0, time.Hour)
}

func (v *checker) sip(s *SIP, at string) {
	v.oneOf(at+".transport", s.Transport, UDP, TCP, TransportTLS)
	v.oneOf(at+".srtp", s.SRTP, SRTPOff, SRTPRequired)
	v.port(at+".listen", s.Listen)
	for path, host := range map[string]string{at + ".host": s.Host, at + ".domain": s.Domain} {
		if host != "" && !hostOrAddr(host) {
			v.fault(path, "%q is neither a host name nor an address", clip(host))
		}
	}
	for i, p := range s.Peers {
		if host, _, err := splitHostPort(p); err != nil || !hostOrAddr(host) {
			v.fault(fmt.Sprintf("%s.peers[%d]", at, i), "%q is not a host with port such as \"sip.example.net:5060\"", clip(p))
		}
	}
	if len(s.Peers) == 0 && len(s.Allow) == 0 {
		v.fault(at+".peers", "is missing: neither peers nor allow says whom this trunk belongs to")
	}
	v.prefixes(at+".allow", s.Allow)
	if s.Transport == TransportTLS {
		v.tls(at+".tls", s.TLS)
	}
	v.hostNames(at+".peer_names", s.PeerNames)
	v.realm(at+".realm", s.Realm, true, "the realm whose address the peer sends voice to")
	v.codecs(at+".codecs", s.Codecs)
	if s.OptionsEvery != 0 {
		v.between(at+".options_every", s.OptionsEvery, 5*time.Second, time.Hour)
	}
}

func hostOrAddr(s string) bool {
	if hostName(s) {
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil
}

// listener is a socket that the configuration asks for.
type listener struct {
	path string
	udp  bool
	addr netip.AddrPort
}

// listeners finds sockets that cannot both be opened, and signalling inside a
// media range.
func (v *checker) listeners() {
	list := []listener{{"box.http", false, v.c.Box.HTTP}}
	for i, t := range v.c.Teams {
		list = append(list, listener{fmt.Sprintf("teams[%d].listen", i), false, t.Listen})
	}
	for i, s := range v.c.SIP {
		list = append(list, listener{fmt.Sprintf("sip[%d].listen", i), s.Transport == UDP, s.Listen})
	}
	for i, a := range list {
		for _, b := range list[:i] {
			if a.udp == b.udp && a.addr.Port() == b.addr.Port() && a.addr.Port() != 0 && meet(a.addr.Addr(), b.addr.Addr()) {
				v.fault(a.path, "%v is taken by %s", a.addr, b.path)
			}
		}
		for _, r := range v.c.Realms {
			if a.udp && r.Ports.Contains(a.addr.Port()) && meet(a.addr.Addr(), r.Address) {
				v.fault(a.path, "%v lies in the media ports %v of realm %q", a.addr, r.Ports, r.Name)
			}
		}
	}
}

// meet reports whether two local addresses cover a common one. The IPv6
// wildcard takes IPv4 too.
func meet(a, b netip.Addr) bool {
	if !a.IsValid() || !b.IsValid() {
		return false
	}
	wild := func(w, o netip.Addr) bool { return w.IsUnspecified() && (w.Is6() || o.Is4()) }
	return a == b || wild(a, b) || wild(b, a)
}
