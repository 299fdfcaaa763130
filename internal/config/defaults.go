package config

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// setDefaults fills what does not depend on other keys, before the file is read.
func (c *Config) setDefaults() {
	c.Box.setDefaults()
	c.Calls.setDefaults()
	c.QoS.setDefaults()
	c.Media.setDefaults()
	c.CDR.setDefaults()
}

func (b *Box) setDefaults() {
	b.Name = "localloop"
	b.HTTP = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 8080)
	b.MaxCalls = 100
	b.DrainTimeout = time.Minute
	b.State = "/var/lib/edged"
}

func (t *Teams) setDefaults() {
	t.Listen = netip.AddrPortFrom(netip.IPv4Unspecified(), 5061)
	t.Proxies = []string{"sip.pstnhub.microsoft.com:5061", "sip2.pstnhub.microsoft.com:5061", "sip3.pstnhub.microsoft.com:5061"}
	t.PeerNames = []string{"sip.pstnhub.microsoft.com"}
	// Microsoft's documents disagree about the second block; this one holds
	// both versions (docs/teams.md, Connections and certificates).
	t.Allow = []netip.Prefix{netip.MustParsePrefix("52.112.0.0/14"), netip.MustParsePrefix("52.120.0.0/14")}
	t.OptionsEvery = time.Minute
	t.Failover.setDefaults()
}

func (f *Failover) setDefaults() {
	f.DeadAfter = time.Second
	f.DeadSilent = 15 * time.Second
	f.RestartWithin = 2 * time.Second
	f.RefuseFor = time.Minute
}

func (s *SIP) setDefaults() {
	s.Transport = UDP
	s.SRTP = SRTPOff
	s.OptionsEvery = time.Minute
}

func (c *Card) setDefaults() { c.Baud = 921600 }

func (c *Calls) setDefaults() {
	c.Seize = 6 * time.Second
	c.TryNext = 4 * time.Second
	c.Ring = 2 * time.Minute
	c.Lost = 5 * time.Second
}

func (q *QoS) setDefaults() { q.Voice, q.Signalling = EF, AF41 }

func (m *Media) setDefaults() {
	m.JitterMin = 20 * time.Millisecond
	m.JitterMax = 200 * time.Millisecond
}

func (c *CDR) setDefaults() { c.Keep = 1000 }

// complete fills what depends on other keys, after the file was read. It must
// bear a configuration with faults.
func (c *Config) complete() {
	n, known := numbering[c.Box.Country]
	if known {
		if c.Box.CountryCode == "" {
			c.Box.CountryCode = n.code
			if c.Box.TrunkPrefix == "" {
				c.Box.TrunkPrefix = n.trunk
			}
		}
		if c.Box.InternationalPrefix == "" {
			c.Box.InternationalPrefix = n.international
		}
	}
	for i := range c.Realms {
		if r := &c.Realms[i]; !r.Advertise.IsValid() {
			r.Advertise = r.Address
		}
	}
	law, codecs := ALaw, []string{"PCMA", "PCMU"}
	if n.mu {
		law, codecs = MuLaw, []string{"PCMU", "PCMA"}
	}
	for i := range c.Teams {
		if t := &c.Teams[i]; len(t.Codecs) == 0 {
			t.Codecs = codecs
		}
	}
	for i := range c.SIP {
		c.SIP[i].complete(codecs)
	}
	for i := range c.Cards {
		if k := &c.Cards[i]; k.Law == "" {
			k.Law = law
		}
	}
	for i := range c.Lines {
		l := &c.Lines[i]
		if l.Country == "" {
			l.Country = c.Box.Country
		}
	}
}

func (s *SIP) complete(codecs []string) {
	if len(s.Codecs) == 0 {
		s.Codecs = codecs
	}
	if !s.Listen.IsValid() {
		port := uint16(5060)
		if s.Transport == TransportTLS {
			port = 5061
		}
		s.Listen = netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	}
	if len(s.Peers) > 0 && s.Domain == "" {
		if host, _, err := splitHostPort(s.Peers[0]); err == nil {
			s.Domain = host
		}
	}
	allow, names := len(s.Allow) == 0, len(s.PeerNames) == 0
	for _, p := range s.Peers {
		host, _, err := splitHostPort(p)
		if err != nil {
			continue
		}
		addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
		switch {
		case err == nil && allow:
			s.Allow = append(s.Allow, netip.PrefixFrom(addr, addr.BitLen()))
		case err != nil && names && s.Transport == TransportTLS && !slices.Contains(s.PeerNames, host):
			s.PeerNames = append(s.PeerNames, host)
		}
	}
}

// plan is a country's numbering in outline and what its equipment expects.
type plan struct {
	code          string // ITU-T E.164 country code
	trunk         string // national prefix, ITU-T E.164 annex A
	international string
	mu            bool // G.711 µ-law network
}

// numbering serves defaults only: every value can be configured.
var numbering = map[string]plan{
	"at": {"43", "0", "00", false},
	"au": {"61", "0", "0011", false},
	"be": {"32", "0", "00", false},
	"ca": {"1", "1", "011", true},
	"ch": {"41", "0", "00", false},
	"cz": {"420", "", "00", false},
	"de": {"49", "0", "00", false},
	"dk": {"45", "", "00", false},
	"es": {"34", "", "00", false},
	"fi": {"358", "0", "00", false},
	"fr": {"33", "0", "00", false},
	"gb": {"44", "0", "00", false},
	"gr": {"30", "", "00", false},
	"hu": {"36", "06", "00", false},
	"ie": {"353", "0", "00", false},
	"in": {"91", "0", "00", false},
	"it": {"39", "", "00", false}, // the 0 of Italian numbers belongs to them
	"jp": {"81", "0", "010", true},
	"lu": {"352", "", "00", false},
	"mx": {"52", "", "00", false},
	"nl": {"31", "0", "00", false},
	"no": {"47", "", "00", false},
	"nz": {"64", "0", "00", false},
	"pl": {"48", "", "00", false},
	"pt": {"351", "", "00", false},
	"ro": {"40", "0", "00", false},
	"se": {"46", "0", "00", false},
	"sg": {"65", "", "000", false},
	"sk": {"421", "0", "00", false},
	"us": {"1", "1", "011", true},
	"za": {"27", "0", "00", false},
}
