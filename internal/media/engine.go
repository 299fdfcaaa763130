package media

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"localloop/internal/bypass"
	"localloop/internal/config"
	"localloop/internal/media/jitter"
	"localloop/internal/media/wire"
)

// Options of an Engine.
type Options struct {
	Realms []config.Realm
	Media  config.Media
	// Failover holds the times after which a silent peer counts as dead. Zero
	// values mean 1.2 s and 12 s.
	Failover config.Failover
	// Lines finds the voice of an analog line by name. Nil: there are none.
	Lines func(name string) (Line, bool)
	// Control sets the marks of a socket before it is bound; nil sets none.
	Control func(network, address string, c syscall.RawConn) error
	// Clock nil means time.Now; Rand nil means crypto/rand.
	Clock func() time.Time
	Rand  io.Reader
	Log   *slog.Logger
}

// Engine owns the media loops, the realms and their ports. Its methods may be
// called by any goroutine.
type Engine struct {
	o       Options
	wire    wire.Engine
	workers []*worker
	epoch   time.Time
	drops   drops
	bridges atomic.Int64
	legs    atomic.Int64
	ending  sync.WaitGroup // agents that are being closed

	mu     sync.Mutex // guards realms, not taken per packet
	realms map[string]*realm
}

// Times of Failover when they are not configured.
const (
	deadAfter  = 1200 * time.Millisecond
	deadSilent = 12 * time.Second // two RTCP reports and a half
)

// New makes an Engine. Nothing is sent or received before Run.
func New(o Options) (*Engine, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Failover.DeadAfter <= 0 {
		o.Failover.DeadAfter = deadAfter
	}
	if o.Failover.DeadSilent <= 0 {
		o.Failover.DeadSilent = deadSilent
	}
	n := o.Media.Loops
	if n <= 0 {
		n = max(1, runtime.NumCPU()/2)
	}
	w, err := wire.NewEpoll(n, o.Clock, o.Log)
	if err != nil {
		return nil, fmt.Errorf("media engine: %w", err)
	}
	return newEngine(o, w)
}

// newEngine makes an Engine on any loops.
func newEngine(o Options, w wire.Engine) (*Engine, error) {
	e := &Engine{o: o, wire: w, epoch: o.Clock(), realms: map[string]*realm{}}
	for _, l := range w.Loops() {
		k := &worker{loop: l}
		l.SetWork(k)
		e.workers = append(e.workers, k)
	}
	if err := e.Apply(o.Realms); err != nil {
		return nil, err
	}
	return e, nil
}

// Run carries voice until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	err := e.wire.Run(ctx)
	e.ending.Wait()
	return err
}

// end closes an agent, which may take a while, outside the loop.
func (e *Engine) end(a *bypass.Agent) {
	e.ending.Go(func() {
		if err := a.Close(); err != nil {
			e.o.Log.Warn("close ICE agent", "err", err)
		}
	})
}

// Apply takes the realms of a new configuration. Calls in progress keep the
// realms that they began with. It is safe to call it twice.
func (e *Engine) Apply(realms []config.Realm) error {
	next := map[string]*realm{}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range realms {
		r := newRealm(c)
		if _, pairs := r.bounds(); pairs <= 0 || !c.Address.IsValid() {
			return fmt.Errorf("realm %s: no address or no pair of ports in %d-%d", c.Name, c.Ports.Low, c.Ports.High)
		}
		if old := e.realms[c.Name]; old != nil && old.Realm == r.Realm {
			r = old
		}
		next[c.Name] = r
	}
	e.realms = next
	return nil
}

func (e *Engine) realm(name string) (*realm, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.realms[name]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("realm %q is not configured", name)
}

// ErrFull is returned by Open when no realm has a free port.
var ErrFull = errors.New("all media ports are in use")

// Open makes the voice of a call. callID names it in logs.
func (e *Engine) Open(callID string) (*Bridge, error) {
	e.mu.Lock()
	realms := slices.Collect(maps.Values(e.realms))
	e.mu.Unlock()
	if len(realms) > 0 && !slices.ContainsFunc(realms, func(r *realm) bool { return r.free() > 0 }) {
		return nil, fmt.Errorf("open voice of call %s: %w", callID, ErrFull)
	}
	w := slices.MinFunc(e.workers, func(a, b *worker) int { return int(a.calls.Load() - b.calls.Load()) })
	b := newBridge(e, w, callID)
	if err := w.loop.Post(func(time.Time) { w.add(b.voice) }); err != nil {
		return nil, fmt.Errorf("open voice of call %s: %w", callID, err)
	}
	w.calls.Add(1)
	e.bridges.Add(1)
	return b, nil
}

// PathBroken takes word from the kernel that a way is gone: all of a realm's
// with the zero Addr, or one neighbour's. Legs there die at once unless packets
// still come within 200 ms.
func (e *Engine) PathBroken(realm string, remote netip.Addr, why string) {
	for _, w := range e.workers {
		// A loop that has ended has no legs.
		_ = w.loop.Post(func(now time.Time) {
			for _, v := range w.voices {
				v.pathBroken(now, realm, remote, why)
				w.sooner(v.due)
			}
		})
	}
}

// Stats is a snapshot for metrics. Counters never go back, but for realms that
// were changed by Apply.
type Stats struct {
	Calls  int
	Legs   int
	Realms []RealmStats
	// Drops counts received packets that were not used, by reason.
	Drops map[string]uint64
	Loops []LoopStats
}

// RealmStats counts datagrams of RTP, RTCP and STUN, and their bytes without
// UDP and IP headers. PortsFree counts pairs.
type RealmStats struct {
	Realm                                    string
	PacketsIn, PacketsOut, BytesIn, BytesOut uint64
	PortsFree                                int
}

// LoopStats is the state of one media thread. Lag is the longest delay of a
// timer since the snapshot before.
type LoopStats struct {
	Calls                              int
	Received, Sent, NotSent, Truncated uint64
	Panics                             uint64
	Lag                                time.Duration
}

// Stats returns what was counted. Drop reasons: unknown, source,
// authentication, replay, malformed, duplicate, payload, unsent, check, event.
func (e *Engine) Stats() Stats {
	s := Stats{Calls: int(e.bridges.Load()), Legs: int(e.legs.Load()), Drops: map[string]uint64{
		"unknown": e.drops.unknown.Load(), "source": e.drops.source.Load(), "authentication": e.drops.auth.Load(),
		"replay": e.drops.replay.Load(), "malformed": e.drops.malformed.Load(), "duplicate": e.drops.duplicate.Load(),
		"payload": e.drops.payload.Load(), "unsent": e.drops.unsent.Load(), "check": e.drops.check.Load(), "event": e.drops.event.Load(),
	}}
	e.mu.Lock()
	for _, r := range e.realms {
		s.Realms = append(s.Realms, RealmStats{Realm: r.name, PacketsIn: r.packetsIn.Load(), PacketsOut: r.packetsOut.Load(),
			BytesIn: r.bytesIn.Load(), BytesOut: r.bytesOut.Load(), PortsFree: r.free()})
	}
	e.mu.Unlock()
	slices.SortFunc(s.Realms, func(a, b RealmStats) int {
		if a.Realm < b.Realm {
			return -1
		}
		return 1
	})
	for _, w := range e.workers {
		c := w.loop.Counts()
		s.Loops = append(s.Loops, LoopStats{Calls: int(w.calls.Load()), Received: c.Received.Load(), Sent: c.Sent.Load(),
			NotSent: c.NoRoom.Load() + c.Failed.Load(), Truncated: c.Truncated.Load(), Panics: c.Panics.Load(), Lag: time.Duration(c.Lag.Swap(0))})
	}
	return s
}

// limits of the jitter buffers.
func (e *Engine) limits() jitter.Limits {
	return jitter.Limits{Min: e.o.Media.JitterMin, Max: e.o.Media.JitterMax}
}
