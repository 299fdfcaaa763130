package calltest

import (
	"fmt"
	"sync"

	"localloop/internal/call"
	"localloop/internal/sdp"
)

// Bridges opens echoing bridges and remembers them in Opened.
type Bridges struct {
	Opened chan *Bridge
	// Full makes Open fail.
	Full bool
}

// NewBridges makes Bridges that remember up to 64 bridges.
func NewBridges() *Bridges { return &Bridges{Opened: make(chan *Bridge, 64)} }

// Open implements call.Bridges.
func (b *Bridges) Open(string) (call.Bridge, error) {
	if b.Full {
		return nil, errNoRoom
	}
	br := &Bridge{events: make(chan call.BridgeEvent, 64), refuse: map[string]bool{}, known: map[string]bool{}, theirs: map[string]bool{}}
	b.Opened <- br
	return br, nil
}

// Bridge writes down what is asked of it, as short words, and answers with
// descriptions that name the leg and the realm. Like a real one it refuses what
// has no sense: to join a leg that it does not know, to answer without an offer.
// It is safe for concurrent use.
type Bridge struct {
	mu     sync.Mutex
	log    []string
	refuse map[string]bool
	known  map[string]bool // legs that were offered something, or have offered
	theirs map[string]bool // legs whose offer is the last one
	events chan call.BridgeEvent
	closed bool
}

// Log returns what was asked so far: "offered a", "offer-to b lan", "join a b" …
func (b *Bridge) Log() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.log...)
}

// Refuse makes every description of leg unusable from now on.
func (b *Bridge) Refuse(leg string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse[leg] = true
}

// Emit reports an event of the voice.
func (b *Bridge) Emit(ev call.BridgeEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.events <- ev
	}
}

func (b *Bridge) note(leg, format string, args ...any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, fmt.Sprintf(format, args...))
	if b.refuse[leg] {
		return fmt.Errorf("leg %s: refused by the test", leg)
	}
	return nil
}

// has is note for what needs a leg in a certain state.
func (b *Bridge) has(in map[string]bool, want bool, leg, what string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.known[leg] || in[leg] != want {
		b.log = append(b.log, "NO "+what+" "+leg)
		return fmt.Errorf("%s %s: no such leg, or no offer", what, leg)
	}
	return nil
}

func (b *Bridge) offer(leg string, theirs bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known[leg], b.theirs[leg] = true, theirs
}

// Offered implements call.Bridge.
func (b *Bridge) Offered(leg string, _ *sdp.Description, p sdp.Profile) error {
	if err := b.note(leg, "offered %s %s", leg, p.Realm); err != nil {
		return err
	}
	b.offer(leg, true)
	return nil
}

// AnswerTo implements call.Bridge.
func (b *Bridge) AnswerTo(leg string) (*sdp.Description, error) {
	if err := b.has(b.theirs, true, leg, "answer-to"); err != nil {
		return nil, err
	}
	if err := b.note(leg, "answer-to %s", leg); err != nil {
		return nil, err
	}
	return &sdp.Description{Line: "answer to " + leg}, nil
}

// OfferTo implements call.Bridge.
func (b *Bridge) OfferTo(leg string, p sdp.Profile) (*sdp.Description, error) {
	if err := b.note(leg, "offer-to %s %s", leg, p.Realm); err != nil {
		return nil, err
	}
	b.offer(leg, false)
	return &sdp.Description{Line: "offer to " + leg + " in " + p.Realm}, nil
}

// Confirm implements call.Bridge.
func (b *Bridge) Confirm(leg string) { _ = b.note(leg, "confirm %s", leg) }

// Answered implements call.Bridge.
func (b *Bridge) Answered(leg string, _ *sdp.Description) error {
	if err := b.has(b.theirs, false, leg, "answered"); err != nil {
		return err
	}
	return b.note(leg, "answered %s", leg)
}

// Join implements call.Bridge.
func (b *Bridge) Join(x, y string) error {
	for _, leg := range []string{x, y} {
		if err := b.has(nil, false, leg, "join"); err != nil {
			return err
		}
	}
	return b.note(y, "join %s %s", x, y)
}

// Play implements call.Bridge.
func (b *Bridge) Play(leg string, t call.Tone) { _ = b.note(leg, "play %s %d", leg, t) }

// Digit implements call.Bridge.
func (b *Bridge) Digit(leg string, d call.Digit) { _ = b.note(leg, "digit %s %c", leg, d.Digit) }

// Hold implements call.Bridge.
func (b *Bridge) Hold(leg string, on bool) { _ = b.note(leg, "hold %s %v", leg, on) }

// Drop implements call.Bridge.
func (b *Bridge) Drop(leg string) {
	_ = b.note(leg, "drop %s", leg)
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.known, leg)
}

// Events implements call.Bridge.
func (b *Bridge) Events() <-chan call.BridgeEvent { return b.events }

// Close implements call.Bridge.
func (b *Bridge) Close() call.Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		b.log = append(b.log, "close")
		close(b.events)
	}
	return call.Report{}
}
