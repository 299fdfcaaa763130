package sip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"localloop/internal/call"
	"localloop/internal/config"
)

// Resolver finds the addresses of a peer. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options are what an Endpoint is made of.
type Options struct {
	Teams []config.Teams
	SIP   []config.SIP
	Box   config.Box
	// Accept is given each incoming leg, from the leg's goroutine: it must not
	// wait. The leg's first event is its Setup.
	Accept func(call.Leg)
	// Emergency tells emergency numbers: such a call is let in even while new
	// calls are refused or there is no room. May be nil.
	Emergency func(number string) bool
	// Control is called on every socket, of listeners and of connections, before
	// it is bound: marks. May be nil.
	Control func(network, address string, c syscall.RawConn) error
	// Listener wraps each listener, to mark the connections that it accepts: the
	// kernel does not hand on all of a listener's marks. May be nil.
	Listener func(net.Listener) net.Listener
	// Resolver is the system's if nil.
	Resolver Resolver
	// Version stands in User-Agent, Server and X-MS-SBC.
	Version string
	Log     *slog.Logger
}

// Endpoint is the box on its SIP side: all trunks. It implements call.Dialer for
// targets of kind call.ToTrunk. Its methods are safe for concurrent use.
type Endpoint struct {
	opt      Options
	log      *slog.Logger
	version  string
	resolver Resolver
	now      func() time.Time
	times    times
	trunks   []*trunk
	ready    chan struct{}
	once     sync.Once
}

var _ call.Dialer = (*Endpoint)(nil)

// New builds an Endpoint and reads its certificates. Nothing is opened yet.
func New(opt Options) (*Endpoint, error) {
	if opt.Accept == nil {
		return nil, errors.New("sip: no Accept function")
	}
	e := &Endpoint{
		opt: opt, log: opt.Log, version: opt.Version, resolver: opt.Resolver, now: time.Now, ready: make(chan struct{}),
		times: times{
			t1: sipgo.T1, t2: sipgo.T2, connect: 3 * time.Second, first: 4 * time.Second, ask: 10 * time.Second,
			renew: 55 * time.Minute, ring: time.Minute, alert: 7 * time.Second,
		},
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.resolver == nil {
		e.resolver = net.DefaultResolver
	}
	if e.version == "" {
		e.version = "0"
	}
	seen := make(map[string]bool)
	add := func(t *trunk, err error) error {
		if err != nil {
			return err
		}
		if seen[t.name] {
			return fmt.Errorf("trunk %s: configured twice", t.name)
		}
		seen[t.name] = true
		e.trunks = append(e.trunks, t)
		return nil
	}
	for _, c := range opt.Teams {
		if err := add(newTeamsTrunk(e, c)); err != nil {
			return nil, err
		}
	}
	for _, c := range opt.SIP {
		if err := add(newSIPTrunk(e, c)); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// Run opens the listeners, keeps the peers watched and serves until ctx ends;
// then it ends the calls that are left and waits for everything. An error is
// about a socket that could not be opened. It may be called once.
func (e *Endpoint) Run(ctx context.Context) error {
	for i, t := range e.trunks {
		if err := t.listen(ctx); err != nil {
			for _, u := range e.trunks[:i] {
				u.shut()
			}
			return err
		}
	}
	var wg sync.WaitGroup
	for _, t := range e.trunks {
		wg.Go(func() { t.run(ctx) })
	}
	e.once.Do(func() { close(e.ready) })
	wg.Wait()
	return nil
}

// Ready is closed once all listeners are open.
func (e *Endpoint) Ready() <-chan struct{} { return e.ready }

// Dial starts a call over the trunk that to names. See call.Dialer. ctx bounds
// nothing beyond the return: the leg ends by events.
func (e *Endpoint) Dial(_ context.Context, to call.Target, s call.Setup) (call.Leg, error) {
	t := e.trunk(to.Name)
	if t == nil || to.Kind != call.ToTrunk {
		return nil, fmt.Errorf("call %s: no trunk %q", to.Number, to.Name)
	}
	select {
	case <-e.ready:
	default:
		return nil, fmt.Errorf("call %s over %s: not running", to.Number, to.Name)
	}
	g, err := t.newCall(to, s)
	if err != nil {
		return nil, fmt.Errorf("call %s over %s: %w", to.Number, to.Name, err)
	}
	return g, nil
}

func (e *Endpoint) trunk(name string) *trunk {
	for _, t := range e.trunks {
		if t.name == name {
			return t
		}
	}
	return nil
}

// Healthy reports whether a trunk may be given calls: at least one of its peers
// answers OPTIONS, or none is asked. Unknown trunks are not healthy.
func (e *Endpoint) Healthy(name string) bool {
	t := e.trunk(name)
	return t != nil && t.up()
}

// Refuse answers new calls of a trunk with 503 and Retry-After until a time, so
// that Microsoft takes the next trunk of its route (C-144). A time in the past
// ends it. OPTIONS are still answered and sent, and running calls stay.
func (e *Endpoint) Refuse(name string, until time.Time, why string) {
	t := e.trunk(name)
	if t == nil {
		return
	}
	t.mu.Lock()
	t.refuseTo, t.refusal = until, why
	t.mu.Unlock()
	t.log.Warn("new calls are refused", "until", until, "why", why)
}

// ReloadTLS reads certificates, keys and roots again and renews our connections,
// which is when peers see the new ones (C-8, C-9). Running calls are not touched.
// A trunk whose files are bad keeps what it has.
func (e *Endpoint) ReloadTLS(ctx context.Context) error {
	var errs error
	var wg sync.WaitGroup
	for _, t := range e.trunks {
		if t.id == nil {
			continue
		}
		if err := t.loadTLS(); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		for _, p := range t.peers {
			wg.Go(func() {
				c, cancel := context.WithTimeout(ctx, e.times.ask)
				defer cancel()
				p.renew(c)
			})
		}
	}
	wg.Wait()
	return errs
}

// TrunkStatus is a trunk as shown to people and metrics.
type TrunkStatus struct {
	Name   string
	Kind   string // "teams" or "sip"
	Local  netip.AddrPort
	Up     bool
	Peers  []PeerStatus
	Legs   int
	Alarms []string // what is wrong with our certificate
	// Certificate is when ours ends; zero without TLS.
	Certificate time.Time
	// Refusing is until when new calls are refused, and why; zero if they are not.
	Refusing time.Time
	Why      string

	Malformed  uint64 // messages refused or dropped
	Untrusted  uint64 // connections and datagrams from elsewhere
	Handshakes uint64 // TLS handshakes that failed
	Stray      uint64 // responses that nobody waited for
	Panics     uint64
}

// PeerStatus is one next hop of a trunk.
type PeerStatus struct {
	Name       string
	Up         bool
	LastAnswer time.Time // to OPTIONS, zero if never
	Region     string    // of the Microsoft proxy that answered
	Why        string    // why it is down, or what went wrong last
}

// Status returns the state of all trunks, in the order of the configuration.
func (e *Endpoint) Status() []TrunkStatus {
	out := make([]TrunkStatus, 0, len(e.trunks))
	for _, t := range e.trunks {
		out = append(out, t.status())
	}
	return out
}

func (t *trunk) status() TrunkStatus {
	s := TrunkStatus{
		Name: t.name, Kind: "sip", Up: t.up(),
		Malformed: t.counters.malformed.Load(), Untrusted: t.counters.untrusted.Load(),
		Handshakes: t.counters.handshakes.Load(), Stray: t.counters.stray.Load(), Panics: t.counters.panics.Load(),
	}
	if t.teams {
		s.Kind = "teams"
	}
	if t.id != nil {
		s.Certificate = t.id.expiry()
	}
	for _, p := range t.peers {
		p.mu.Lock()
		s.Peers = append(s.Peers, PeerStatus{Name: p.addr(), Up: p.isUp || t.live.Load().every <= 0, LastAnswer: p.answer, Region: p.region, Why: p.why})
		p.mu.Unlock()
	}
	s.Alarms = t.alarms()
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Local, s.Legs = t.bind, len(t.all)
	if t.e.now().Before(t.refuseTo) {
		s.Refusing, s.Why = t.refuseTo, t.refusal
	}
	return s
}
