// Package config is the configuration of the box: the types, their defaults,
// the rules a configuration must meet, and reading and writing the file.
//
// The file is TOML 1.0, read strictly: an unknown key is an error. A fault names
// file, line and key; all faults are reported, not only the first. The package
// is pure but for the file: what the machine has (interfaces, devices,
// certificates that can be read) is checked by the parts that use it.
//
// The main type is Config. A Config that was returned by Load or Parse has been
// validated and completed with defaults, and is never changed afterwards: a
// reload makes a new one.
package config

import (
	"net/netip"
	"time"
)

// Config is the whole configuration. One instance describes one box. Comments of
// fields appear in docs/config.md, which a test generates: words there are for
// those who write the file.
type Config struct {
	Box       Box       `toml:"box"`
	Realms    []Realm   `toml:"realm"`
	Teams     []Teams   `toml:"teams"`
	SIP       []SIP     `toml:"sip"`
	Cards     []Card    `toml:"card"`
	Lines     []Line    `toml:"line"`
	Routes    []Route   `toml:"route"`
	Emergency Emergency `toml:"emergency"`
	Calls     Calls     `toml:"calls"`
	QoS       QoS       `toml:"qos"`
	Media     Media     `toml:"media"`
	CDR       CDR       `toml:"cdr"`
	Path      string    `toml:"-"` // the file it was read from
}

// Box is what concerns the box as a whole.
type Box struct {
	Name    string         `toml:"name"`    // shown in logs and X-MS-SBC; letters, digits, '-'
	Country string         `toml:"country"` // ISO 3166-1 alpha-2, lower case: tones, numbers; required
	HTTP    netip.AddrPort `toml:"http"`    // status page, /healthz, /metrics; loopback only in this step
	// The area code and prefixes make E.164 of what is dialled on lines.

	AreaCode            string        `toml:"area_code"`            // national area code without trunk prefix: "30"; empty where numbers are always dialled whole
	TrunkPrefix         string        `toml:"trunk_prefix"`         // national prefix such as "0"; default by country unless country_code is given
	InternationalPrefix string        `toml:"international_prefix"` // such as "00"; default by country
	CountryCode         string        `toml:"country_code"`         // such as "49"; default by country
	MaxCalls            int           `toml:"max_calls"`            // calls at a time; further ones are refused
	DrainTimeout        time.Duration `toml:"drain_timeout"`        // how long shutdown waits for calls
	State               string        `toml:"state"`                // directory for what must survive
}

// Realm is a network from which voice is sent: its address and ports, RFC 5853 §3.
type Realm struct {
	Name      string     `toml:"name"`      // by which trunks refer to it
	Address   netip.Addr `toml:"address"`   // local address that sockets are bound to
	Advertise netip.Addr `toml:"advertise"` // address written into descriptions; default: address. Set it behind 1:1 NAT
	Interface string     `toml:"interface"` // for link and neighbour events, and marks; optional
	Ports     PortRange  `toml:"ports"`     // UDP ports of media
	Cloud     bool       `toml:"cloud"`     // true: voice here leaves the building ("cloud" in records)
}

// PortRange is a range of UDP ports, both ends included; in TOML "20000-20999".
type PortRange struct{ Low, High uint16 }

// TLS names the key material of a trunk or listener.
type TLS struct {
	Certificate string `toml:"certificate"` // PEM file: leaf, then intermediates
	Key         string `toml:"key"`         // PEM file, readable by the daemon alone
	Roots       string `toml:"roots"`       // PEM file of the roots that peers must chain to
}

// Teams is one Direct Routing trunk: one FQDN, one pairing in the tenant.
type Teams struct {
	Name   string         `toml:"name"`   // in routes, logs and records
	FQDN   string         `toml:"fqdn"`   // our name, as in the certificate and in the tenant
	Listen netip.AddrPort `toml:"listen"` // where Teams connects to, TLS
	// Source is the local address of connections that we open; unset: the kernel's choice.
	Source netip.Addr `toml:"source"`
	TLS    TLS        `toml:"tls"`
	// Proxies are Microsoft's names with port, in order. Default: the three of the commercial cloud.
	Proxies []string `toml:"proxies"`
	// PeerNames are the names one of which the peer's certificate must hold.
	PeerNames []string `toml:"peer_names"`
	// Allow is the address ranges from which signalling is read. Default: Microsoft's.
	Allow []netip.Prefix `toml:"allow"`
	// Resolve pins names to addresses for laboratories; empty uses DNS.
	Resolve map[string]netip.Addr `toml:"resolve"`

	Bypass        bool          `toml:"bypass"`         // media bypass (ICE-lite) on this trunk
	InternalRealm string        `toml:"internal_realm"` // realm offered to a user in the building
	ExternalRealm string        `toml:"external_realm"` // realm offered to anybody else, and fallback
	Codecs        []string      `toml:"codecs"`         // PCMA, PCMU in order of preference; default by country
	OptionsEvery  time.Duration `toml:"options_every"`  // OPTIONS to each proxy; one to three minutes
	// Failover governs a running call whose local voice path dies.
	Failover Failover `toml:"failover"`
}

// Failover holds the times of the ladder from local media to cloud media.
type Failover struct {
	// DeadAfter is how long nothing may arrive from a peer that was sending
	// voice before its path counts as dead.
	DeadAfter time.Duration `toml:"dead_after"`
	// DeadSilent is the same while the peer was silent (comfort noise, mute).
	DeadSilent time.Duration `toml:"dead_silent"`
	// RestartWithin is how long the ICE restart may take.
	RestartWithin time.Duration `toml:"restart_within"`
	// RefuseFor is how long new calls of the trunk get 503 afterwards.
	RefuseFor time.Duration `toml:"refuse_for"`
}

// SIP is a plain SIP trunk: a carrier, a PBX.
type SIP struct {
	Name      string         `toml:"name"`       // in routes, logs and records
	Transport string         `toml:"transport"`  // udp, tcp, tls
	Listen    netip.AddrPort `toml:"listen"`     // default: port 5060 of all addresses, with TLS 5061
	Host      string         `toml:"host"`       // our name or address in Contact; the listen address if unset
	Domain    string         `toml:"domain"`     // host of From and To; default: the first peer's host
	Peers     []string       `toml:"peers"`      // host:port in order of preference
	Allow     []netip.Prefix `toml:"allow"`      // trusted sources; default: the addresses of peers
	TLS       TLS            `toml:"tls"`        // for transport tls
	PeerNames []string       `toml:"peer_names"` // names one of which the peer's certificate must hold; default: the peers' hosts
	Realm     string         `toml:"realm"`      // realm from which voice is sent to the peer
	SRTP      string         `toml:"srtp"`       // off, required
	Codecs    []string       `toml:"codecs"`     // PCMA, PCMU in order of preference; default by country
	// OptionsEvery is the interval of OPTIONS to the peer; 0 sends none.
	OptionsEvery time.Duration `toml:"options_every"`
}

// Values of SIP.Transport, SIP.SRTP, Card.Law, Line.Kind and Line.CallerID.
const (
	UDP = "udp"
	TCP = "tcp"
	// TransportTLS is TLS over TCP.
	TransportTLS = "tls"

	SRTPOff      = "off"
	SRTPRequired = "required"

	ALaw  = "alaw"
	MuLaw = "ulaw"

	FXS = "fxs"
	FXO = "fxo"

	Bellcore = "bellcore"
	ETSI     = "etsi"
	Off      = "off"
)

// Card is a serial line card.
type Card struct {
	Name   string `toml:"name"`   // by which lines refer to it
	Device string `toml:"device"` // tty
	Baud   int    `toml:"baud"`   // bit/s
	Law    string `toml:"law"`    // alaw or ulaw on the link; default by country
}

// Line is one analog line: a channel of a card.
type Line struct {
	Name     string  `toml:"name"`      // in routes, logs and records
	Card     string  `toml:"card"`      // name of its card
	Channel  int     `toml:"channel"`   // 0 to 23
	Kind     string  `toml:"kind"`      // fxs: a phone is connected; fxo: an exchange is connected
	Number   string  `toml:"number"`    // own number, E.164
	Display  string  `toml:"display"`   // name shown to those it calls
	Country  string  `toml:"country"`   // default: the box's
	CallerID string  `toml:"caller_id"` // bellcore, etsi, off; default by country
	TxGain   float64 `toml:"tx_gain"`   // dB toward the line, -20 to 6
	RxGain   float64 `toml:"rx_gain"`   // dB from the line, -20 to 6
	// Hotline is dialled when the phone lifts without dialling; empty: dial tone.
	Hotline string `toml:"hotline"`
}

// Route sends numbers to targets.
type Route struct {
	Name        string        `toml:"name"`         // for explanations and records; default: its place in the file
	Match       string        `toml:"match"`        // "+4930*", "0", "+49305550[1-4]?"; the most specific wins, then file order
	From        []string      `toml:"from"`         // sources (trunks, lines); empty: any
	To          []string      `toml:"to"`           // "teams:NAME", "sip:NAME", "line:NAME" in order; a target on the side that the call came from is left out unless from names it
	Strip       int           `toml:"strip"`        // digits taken off the front ('+' counts)
	Add         string        `toml:"add"`          // put in front afterwards
	RingTimeout time.Duration `toml:"ring_timeout"` // how long a target may alert, 5s to 10m
}

// Emergency is decided before any route and is exempt from limits.
type Emergency struct {
	Numbers []string `toml:"numbers"` // 112, 110 …
	To      []string `toml:"to"`      // targets in order; local lines first
}

// Calls holds the times of setting up and losing a call. Emergency calls have
// neither seize nor lost.
type Calls struct {
	// Seize is how long a call may look for a target that shows a sign of life;
	// then the caller gets 503. Teams gives up after 10 s.
	Seize time.Duration `toml:"seize"`
	// TryNext is how long one target may stay without a sign of life while
	// there are others to try.
	TryNext time.Duration `toml:"try_next"`
	// Ring is how long a target may alert unless its route says so.
	Ring time.Duration `toml:"ring"`
	// Lost is how long a party hears that the other side cannot be reached
	// before the call is released.
	Lost time.Duration `toml:"lost"`
}

// QoS is the marks, RFC 4594, and where they are enforced.
type QoS struct {
	Voice      DSCP     `toml:"voice"`      // mark of RTP, RTCP and STUN
	Signalling DSCP     `toml:"signalling"` // mark of SIP
	Interfaces []string `toml:"interfaces"` // egress interfaces where the kernel marks and counts
}

// DSCP is a code point 0–63; in TOML "EF", "AF41", "CS3" or a number.
type DSCP uint8

// Media holds the limits of the voice path.
type Media struct {
	JitterMin time.Duration `toml:"jitter_min"` // least delay of the jitter buffer toward a line
	JitterMax time.Duration `toml:"jitter_max"` // greatest delay; later packets are lost
	Loops     int           `toml:"loops"`      // media threads; 0: one per two processors
}

// CDR says where call detail records go.
type CDR struct {
	File string `toml:"file"` // JSON lines; empty keeps the last calls in memory only
	Keep int    `toml:"keep"` // calls kept in memory for status and web
}
