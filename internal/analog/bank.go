package analog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"localloop/internal/analog/link"
	"localloop/internal/call"
	"localloop/internal/config"
)

// DialPlan judges digits that are being dialled on a line.
type DialPlan interface {
	// Complete says of the digits dialled so far on a line: 0 no number begins
	// so, 1 part of a number, 2 a complete number, 3 a complete number that may
	// go on. It is called from several goroutines.
	Complete(from, digits string) int
}

// Options of a Bank.
type Options struct {
	Box   config.Box
	Cards []config.Card
	Lines []config.Line
	// Open opens the port of a card; nil means the serial port that it names.
	// Close must make pending Read and Write return; a Read may return 0, nil
	// after it has waited.
	Open func(config.Card) (io.ReadWriteCloser, error)
	// Accept takes a call that comes from a line. It must not wait: it is
	// called by the goroutine that owns the card.
	Accept func(call.Leg)
	// Plan is asked after each digit; nil takes any number that is followed by
	// '#' or a pause.
	Plan DialPlan
	Log  *slog.Logger
}

// Bank is all line cards and lines of the box. Its methods may be called from any
// goroutine.
type Bank struct {
	o   Options
	log *slog.Logger

	mu     sync.RWMutex
	cards  map[string]*card
	lines  map[string]*line // by name; of a line only card, voice and the name are read here
	voices map[string]*Voice
	start  func(*card) // while Run runs
	ended  bool
	legs   atomic.Uint64
}

var _ call.Dialer = (*Bank)(nil)

// New returns a Bank of the configured cards and lines. Nothing is opened before Run.
func New(o Options) (*Bank, error) {
	if o.Accept == nil {
		return nil, errors.New("analog bank: no Accept")
	}
	if o.Open == nil {
		o.Open = openPort
	}
	b := &Bank{o: o, log: o.Log, cards: map[string]*card{}, lines: map[string]*line{}, voices: map[string]*Voice{}}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if err := b.Apply(config.Config{Box: o.Box, Cards: o.Cards, Lines: o.Lines}); err != nil {
		return nil, err
	}
	for _, c := range b.cards {
		c.drain()
		c.reconcile()
		c.publish()
	}
	return b, nil
}

// Run opens the cards and serves them until ctx ends; then it releases their calls
// and waits for all goroutines. It may be called once.
func (b *Bank) Run(ctx context.Context) error {
	var running sync.WaitGroup
	b.mu.Lock()
	b.start = func(c *card) {
		running.Go(func() {
			c.run(ctx)
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.cards[c.name] == c {
				delete(b.cards, c.name)
			}
			for name, l := range b.lines {
				if l.card == c {
					delete(b.lines, name)
				}
			}
		})
	}
	for _, c := range b.cards {
		b.start(c)
	}
	b.mu.Unlock()
	<-ctx.Done()
	b.mu.Lock()
	b.start, b.ended = nil, true
	b.mu.Unlock()
	running.Wait()
	return nil
}

// Apply takes over a configuration: lines and cards that are new appear, those that
// are gone or changed follow as soon as they are free. Calls in progress are not
// touched. Box is kept as it was at New. It may be called again with the same. After
// an error nothing has changed.
func (b *Bank) Apply(cfg config.Config) error {
	byCard := map[string][]config.Line{}
	wanted := map[string]bool{}
	for _, c := range cfg.Cards {
		if wanted[c.Name] {
			return fmt.Errorf("analog bank: card %q twice", c.Name)
		}
		wanted[c.Name] = true
	}
	seen := map[string]bool{}
	for _, l := range cfg.Lines {
		if !wanted[l.Card] {
			return fmt.Errorf("analog bank: line %q: no card %q", l.Name, l.Card)
		}
		if seen[l.Name] {
			return fmt.Errorf("analog bank: line %q twice", l.Name)
		}
		if l.Channel < 0 || l.Channel >= link.Channels {
			return fmt.Errorf("analog bank: line %q: channel %d", l.Name, l.Channel)
		}
		seen[l.Name] = true
		byCard[l.Card] = append(byCard[l.Card], l)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return errors.New("analog bank: closed")
	}
	for _, conf := range cfg.Cards {
		c := b.cards[conf.Name]
		fresh := c == nil
		if fresh {
			c = newCard(b, conf)
		}
		if !c.post(func() { c.want(conf, byCard[conf.Name], false) }) {
			c, fresh = newCard(b, conf), true // the old one is just ending
			c.post(func() { c.want(conf, byCard[conf.Name], false) })
		}
		b.cards[conf.Name] = c
		if fresh && b.start != nil {
			b.start(c)
		}
	}
	for name, c := range b.cards {
		if !wanted[name] {
			c.post(func() { c.want(c.conf, nil, true) })
		}
	}
	return nil
}

// add registers a line by name. It reports false while the name belongs to another.
func (b *Bank) add(l *line) bool {
	name := l.conf.Name
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lines[name] != nil {
		return false
	}
	if b.voices[name] == nil {
		b.voices[name] = &Voice{}
	}
	l.voice = b.voices[name]
	b.lines[name] = l
	return true
}

// remove forgets a line; a card that waited for its name is woken.
func (b *Bank) remove(l *line) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lines[l.conf.Name] == l {
		delete(b.lines, l.conf.Name)
	}
	for _, c := range b.cards {
		if c != l.card {
			c.post(func() { c.stale = c.stale || c.pending() })
		}
	}
}

// leg makes a leg with a name that is unique in the process.
func (b *Bank) leg(line string, post func(func()) bool) *leg {
	return newLeg(fmt.Sprintf("%s#%d", line, b.legs.Add(1)), post)
}

// Dial begins a call to a line: an FXS rings its phone, an FXO is seized and
// dials to.Number. It returns at once; refusal arrives as Release. The error says
// that the target is no line of the box.
func (b *Bank) Dial(_ context.Context, to call.Target, s call.Setup) (call.Leg, error) {
	if to.Kind != call.ToLine {
		return nil, fmt.Errorf("dial %q: not a line", to.Name)
	}
	b.mu.RLock()
	l := b.lines[to.Name]
	b.mu.RUnlock()
	if l == nil {
		return nil, fmt.Errorf("dial line %q: no such line", to.Name)
	}
	g := b.leg(to.Name, l.card.post)
	g.setup = s
	if !l.card.post(func() { l.card.begin(l, g, to) }) {
		g.release(call.DestinationDown, "line card "+l.card.name+" closed")
	}
	return g, nil
}

// Voice is the PCM of a line. It stays the same for the life of the Bank.
func (b *Bank) Voice(line string) (*Voice, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.lines[line] == nil {
		return nil, false
	}
	return b.voices[line], true
}
