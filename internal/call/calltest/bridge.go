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
	br := &Bridge{events: make(chan call.BridgeEvent, 64), refuse: map[string]bool{}, realm: map[string]string{}}
	b.Opened <- br
	return br, nil
}

// Bridge writes down what is asked of it, as short words, and answers with
// descriptions that name the leg and the realm. It is safe for concurrent use.
type Bridge struct {
	mu     sync.Mutex
	log    []string
	refuse map[string]bool
	realm  map[string]string
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

// Offered implements call.Bridge.
func (b *Bridge) Offered(leg string, _ *sdp.Description, p sdp.Profile) error {
	b.mu.Lock()
	b.realm[leg] = p.Realm
	b.mu.Unlock()
	return b.note(leg, "offered %s %s", leg, p.Realm)
}

// AnswerTo implements call.Bridge.
func (b *Bridge) AnswerTo(leg string) (*sdp.Description, error) {
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
	return &sdp.Description{Line: "offer to " + leg + " in " + p.Realm}, nil
}

// Answered implements call.Bridge.
func (b *Bridge) Answered(leg string, _ *sdp.Description) error {
	return b.note(leg, "answered %s", leg)
}

// Join implements call.Bridge.
func (b *Bridge) Join(x, y string) error { return b.note(y, "join %s %s", x, y) }

// Play implements call.Bridge.
func (b *Bridge) Play(leg string, t call.Tone) { _ = b.note(leg, "play %s %d", leg, t) }

// Digit implements call.Bridge.
func (b *Bridge) Digit(leg string, d call.Digit) { _ = b.note(leg, "digit %s %c", leg, d.Digit) }

// Hold implements call.Bridge.
func (b *Bridge) Hold(leg string, on bool) { _ = b.note(leg, "hold %s %v", leg, on) }

// Drop implements call.Bridge.
func (b *Bridge) Drop(leg string) { _ = b.note(leg, "drop %s", leg) }

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
