package cdr

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"localloop/internal/config"
)

// Defaults of Options.
const (
	defaultMaxBytes = 16 << 20
	defaultQueue    = 1024
	defaultRetry    = 5 * time.Second
	// maxLine is the longest record in the file. A longer one is written
	// without its attempts and voice.
	maxLine = 64 << 10
)

// Options are what a Store takes besides the configuration; zero values mean
// the defaults.
type Options struct {
	MaxBytes int64         // of the file, before it is renamed to NAME.1
	Queue    int           // records that may wait for the file
	Retry    time.Duration // between attempts after a write error
	Logger   *slog.Logger

	open func(path string) (file, error) // for tests
}

// Store keeps records. It is safe for concurrent use.
type Store struct {
	path     string
	maxBytes int64
	retry    time.Duration
	log      *slog.Logger
	open     func(path string) (file, error)
	queue    chan []byte

	mu       sync.Mutex
	ring     []Record // the newest at (next-1) modulo its length
	next     int
	full     bool
	counters Counters
}

// New makes a store and reads the newest records of the file, if there is one,
// into memory. A file that cannot be read is logged and otherwise ignored:
// calls matter more than records. Nothing is written before Run.
func New(cfg config.CDR, o Options) *Store {
	s := &Store{path: cfg.File, maxBytes: o.MaxBytes, retry: o.Retry, log: o.Logger, open: o.open, ring: make([]Record, max(cfg.Keep, 1))}
	if s.maxBytes <= 0 {
		s.maxBytes = defaultMaxBytes
	}
	if s.retry <= 0 {
		s.retry = defaultRetry
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.open == nil {
		s.open = openFile
	}
	if o.Queue <= 0 {
		o.Queue = defaultQueue
	}
	s.queue = make(chan []byte, o.Queue)
	if s.path != "" {
		s.load()
	}
	return s
}

// Add keeps a record and queues it for the file. It never waits for the file.
func (s *Store) Add(r Record) {
	line, err := encode(r)
	if err != nil {
		s.log.Error("call detail record not written", "call", r.ID, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(r)
	s.counters.Calls[r.Outcome()]++
	switch {
	case err != nil:
		s.counters.WriteErrors++
	case s.path != "":
		select {
		case s.queue <- line:
		default:
			s.counters.Dropped++
		}
	}
}

func (s *Store) keep(r Record) {
	s.ring[s.next] = r
	s.next = (s.next + 1) % len(s.ring)
	s.full = s.full || s.next == 0
}

// encode makes a line with its end.
func encode(r Record) ([]byte, error) {
	line, err := json.Marshal(r)
	if err == nil && len(line) >= maxLine {
		r.Attempts, r.Voice = nil, nil
		line, err = json.Marshal(r)
	}
	if err != nil {
		return nil, err
	}
	return append(line, '\n'), nil
}

// Last returns up to n records, the newest first.
func (s *Store) Last(n int) []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.next
	if s.full {
		have = len(s.ring)
	}
	list := make([]Record, 0, max(min(n, have), 0))
	for i := range cap(list) {
		list = append(list, s.ring[(s.next-1-i+len(s.ring))%len(s.ring)])
	}
	return list
}

// Counters returns the totals so far.
func (s *Store) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counters
}

func (s *Store) count(f func(*Counters)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.counters)
}

// Run writes records to the file until ctx ends, then what is still queued. It
// returns nil: a file that cannot be written is logged, counted and tried again.
func (s *Store) Run(ctx context.Context) error {
	if s.path == "" {
		<-ctx.Done()
		return nil
	}
	w := &journal{store: s}
	defer w.close()
	for {
		select {
		case line := <-s.queue:
			s.write(ctx, w, s.batch(line))
		case <-ctx.Done():
			// Whoever added a record before the end finds it in the file.
			for {
				select {
				case line := <-s.queue:
					s.write(ctx, w, s.batch(line))
				default:
					return nil
				}
			}
		}
	}
}

// batch takes what waits behind the first line, so that one sync serves all.
func (s *Store) batch(first []byte) [][]byte {
	lines := [][]byte{first}
	for len(lines) < 64 {
		select {
		case line := <-s.queue:
			lines = append(lines, line)
		default:
			return lines
		}
	}
	return lines
}

// write writes and syncs lines. It tries again until it succeeds, and once
// more when ctx has ended; meanwhile the queue fills, and Add drops what does not fit.
func (s *Store) write(ctx context.Context, w *journal, lines [][]byte) {
	failed := false
	for {
		last := ctx.Err() != nil // an attempt that begins after the end is the last
		n, err := w.append(lines)
		lines = lines[n:]
		s.count(func(c *Counters) {
			c.Written += uint64(n)
			if err != nil {
				c.WriteErrors++
			}
		})
		if err == nil {
			if failed {
				s.log.Info("call detail records are written again", "file", s.path)
			}
			return
		}
		if !failed {
			s.log.Error("call detail records wait for their file", "file", s.path, "error", err)
			failed = true
		}
		if last {
			s.count(func(c *Counters) { c.Dropped += uint64(len(lines)) })
			return
		}
		timer := time.NewTimer(s.retry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}
