package mediatest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/logging"
	"github.com/pion/srtp/v3"
)

// Config says what a Client is.
type Config struct {
	Name  string
	Paths []Path // at least one; the first is the default
	ICE   bool   // full agent, controlling
	// Lite makes the agent an ICE-lite one: it answers checks and sends none. Such
	// is another SBC behind Teams (C-120), and a stand-in for the box in tests of
	// the doubles themselves.
	Lite bool
	// Secure offers and answers RTP/SAVP with AES_CM_128_HMAC_SHA1_80.
	Secure bool
	// Teams writes descriptions as Microsoft does: private lines, several crypto
	// lines of which one carries an MKI, private STUN attributes.
	Teams bool
	Laws  []Law // accepted, in order; default A-law, µ-law
	// Extra codecs are offered in front of G.711 and never chosen by us: a
	// client that offers SILK first is what a box must cope with.
	Extra []Codec
	// NoMux offers RTCP on a port of its own. The client then receives none.
	NoMux bool
	DSCP  int // mark on what the client sends
	// Check is the pace of connectivity checks, Consent that of consent checks
	// (RFC 7675: 5 s), Dead how long without an answer a pair lives (30 s there).
	Check, Consent, Dead time.Duration
	RTCPEvery            time.Duration // default 5 s
	Seed                 uint64        // of loss and corruption
	Log                  *slog.Logger
}

// Client is one end of a voice path. All methods may be called from any
// goroutine. Close ends it and waits for its goroutines.
type Client struct {
	cfg     Config
	log     *slog.Logger
	sockets []*socket
	ssrc    uint32
	cname   string
	wg      sync.WaitGroup
	done    chan struct{}
	once    sync.Once
	epoch   time.Time

	mu      sync.Mutex
	changed chan struct{} // closed and replaced on every change that a Wait may look for

	sessionID, version uint64
	lastText           []byte
	local, remote      Description
	localKey           []byte
	remoteKnown        bool
	gen                *generation
	older              []*generation
	route              route
	iceState           string

	law              Law
	pt, eventPT      uint8
	cnPT             uint8
	hasCN, hasEvents bool
	sendOK           bool
	out              *srtp.Context
	outKey           []byte
	in               []inContext // newest first

	sender   sender
	receiver receiver
}

type route struct {
	socket *socket
	remote netip.AddrPort
}

type inContext struct {
	key []byte
	ctx *srtp.Context
}

// Start opens the sockets of a client and begins to listen on them. It sends
// voice once a description of the other side is known and, with ICE, a pair is
// nominated; until Say is called it is silent.
func Start(cfg Config) (*Client, error) {
	if len(cfg.Paths) == 0 {
		return nil, errors.New("media client without a path")
	}
	setDefault := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	setDefault(&cfg.Check, 50*time.Millisecond)
	setDefault(&cfg.Consent, 5*time.Second)
	setDefault(&cfg.Dead, 30*time.Second)
	setDefault(&cfg.RTCPEvery, 5*time.Second)
	if cfg.Laws == nil {
		cfg.Laws = []Law{ALaw, MuLaw}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{
		cfg: cfg, log: cfg.Log.With("client", cfg.Name), done: make(chan struct{}), changed: make(chan struct{}),
		cname: token(8), sessionID: uint64(random32()), version: 1, epoch: time.Now(),
		ssrc: 1000 + random32()%4_000_000_000, // inside the x-ssrc-range that Text writes
	}
	for _, p := range cfg.Paths {
		s, err := openSocket(p, cfg.DSCP, cfg.Seed)
		if err != nil {
			c.closeSockets()
			return nil, err
		}
		c.sockets = append(c.sockets, s)
	}
	for _, s := range c.sockets {
		c.wg.Go(func() { s.read(c.inbound) })
	}
	c.wg.Go(c.pace)
	c.wg.Go(c.report)
	return c, nil
}

// Close ends the client. It may be called more than once.
func (c *Client) Close() {
	c.once.Do(func() {
		close(c.done)
		c.mu.Lock()
		gens := append(c.older, c.gen)
		c.older, c.gen = nil, nil
		c.mu.Unlock()
		for _, g := range gens {
			if g != nil {
				g.close()
			}
		}
		c.closeSockets()
	})
	c.wg.Wait()
}

func (c *Client) closeSockets() {
	for _, s := range c.sockets {
		close(s.done)
		_ = s.conn.Close()
		s.wg.Wait()
	}
}

// notify wakes every Wait; c.mu is held.
func (c *Client) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// wait returns when ready, called under c.mu, says so.
func (c *Client) wait(ctx context.Context, what string, ready func() bool) error {
	for {
		c.mu.Lock()
		ok, changed := ready(), c.changed
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-c.done:
			return fmt.Errorf("%s: wait for %s: client closed", c.cfg.Name, what)
		case <-ctx.Done():
			return fmt.Errorf("%s: wait for %s: %w", c.cfg.Name, what, ctx.Err())
		}
	}
}

// WaitConnected waits until the client knows where to send: with ICE, until the
// newest generation has nominated a pair.
func (c *Client) WaitConnected(ctx context.Context) error {
	return c.wait(ctx, "a connected pair", func() bool {
		return c.route.socket != nil && (c.gen == nil || slices.Contains(c.gen.paths, c.route.socket) && len(c.older) == 0)
	})
}

// Pair returns the local and remote address in use and the name of the path;
// invalid and empty before there is one.
func (c *Client) Pair() (local, remote netip.AddrPort, path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.route.socket == nil {
		return
	}
	return c.route.socket.local, c.route.remote, c.route.socket.Name
}

// ICEState returns the state of the newest agent: new, checking, connected,
// disconnected, failed, closed; empty without ICE.
func (c *Client) ICEState() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.iceState
}

// Local and Remote return the descriptions in force.
func (c *Client) Local() Description {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.local
}

// Remote returns the other side's description in force.
func (c *Client) Remote() Description {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.remote
}

// Cut makes a path lose everything in both directions.
func (c *Client) Cut(path string) { c.setCut(path, true) }

// Restore ends a Cut.
func (c *Client) Restore(path string) { c.setCut(path, false) }

func (c *Client) setCut(path string, on bool) {
	for _, s := range c.sockets {
		if s.Name == path {
			s.cut.Store(on)
		}
	}
}

// Impair sets what a path does to datagrams; the zero value does nothing.
func (c *Client) Impair(path string, i Impairment) {
	for _, s := range c.sockets {
		if s.Name == path {
			s.imp.Store(&i)
		}
	}
}

func (c *Client) inbound(s *socket, data []byte, from netip.AddrPort, at time.Time) {
	switch kindOf(data) {
	case STUN:
		c.mu.Lock()
		gens := append(slices.Clone(c.older), c.gen)
		c.mu.Unlock()
		request := data[0] == 0 && data[1] == 1
		for _, g := range gens {
			if g == nil || request && addressedTo(data) != g.ufrag {
				continue
			}
			for _, conn := range g.conns {
				if conn.socket == s {
					conn.deliver(data, from)
				}
			}
		}
	case RTP:
		c.receiveRTP(s, data, from, at)
	case RTCP:
		c.receiveRTCP(data, at)
	}
}

// newGen makes a generation over the named paths (all if none is named). c.mu is not held.
func (c *Client) newGen(names []string) (*generation, error) {
	var paths []*socket
	for _, s := range c.sockets {
		if len(names) == 0 || slices.Contains(names, s.Name) {
			paths = append(paths, s)
		}
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no path named %v", names)
	}
	var g *generation
	ready := make(chan struct{})
	defer close(ready)
	t := iceTimes{check: c.cfg.Check, consent: c.cfg.Consent, dead: c.cfg.Dead, relayWait: 2 * c.cfg.Check}
	logs := &logging.DefaultLoggerFactory{Writer: discard{}, DefaultLogLevel: logging.LogLevelDisabled}
	g, err := newGeneration(paths, c.cfg.Lite, t, logs,
		func(local, remote netip.AddrPort) { <-ready; c.nominated(g, local, remote) },
		func(state string) { <-ready; c.setICEState(g, state) })
	return g, err
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func (c *Client) setICEState(g *generation, state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g == c.gen {
		c.iceState = state
		c.log.Debug("ice", "state", state)
		c.notify()
	}
}

// nominated moves voice to a pair of the newest generation and ends older ones.
func (c *Client) nominated(g *generation, local, remote netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g != c.gen {
		return
	}
	for _, s := range g.paths {
		if s.local == local {
			c.route = route{s, remote}
			c.log.Debug("pair nominated", "path", s.Name, "local", local.String(), "remote", remote.String())
		}
	}
	old := c.older
	c.older = nil
	if len(old) > 0 {
		c.wg.Go(func() {
			for _, o := range old {
				o.close()
			}
		})
	}
	c.notify()
}

func token(n int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	b := make([]byte, n)
	_, _ = rand.Read(b)
	for i := range b {
		b[i] = letters[b[i]%64]
	}
	return string(b)
}

func random32() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return binary.BigEndian.Uint32(b[:])
}

func newKey() []byte {
	k := make([]byte, 30)
	_, _ = rand.Read(k)
	return k
}

func sameKey(a, b []byte) bool { return bytes.Equal(a, b) }
