package cdr

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"localloop/internal/call"
	"localloop/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func numbered(i int) Record {
	return Record{ID: fmt.Sprintf("c-%d", i), Setup: at(time.Duration(i) * time.Second), Source: "desk", Called: "112", Cause: call.UserBusy}
}

// ids lists the identifiers in a file and fails on a line that is no record.
func ids(t *testing.T, path string) (list []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		t.Errorf("%s does not end with a line", path)
	}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		var r Record
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Errorf("%s: %v in %q", path, err, s.Text())
		}
		list = append(list, r.ID)
	}
	return list
}

// run runs the store until stop is called, which waits for its end.
func run(t *testing.T, s *Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRecordsSurviveARestart(t *testing.T) {
	cfg := config.CDR{File: filepath.Join(t.TempDir(), "cdr.jsonl"), Keep: 3}
	s := New(cfg, Options{})
	stop := run(t, s)
	for i := range 5 {
		s.Add(numbered(i))
	}
	stop() // what was added before the end is written
	if got := strings.Join(ids(t, cfg.File), " "); got != "c-0 c-1 c-2 c-3 c-4" {
		t.Errorf("file holds %s", got)
	}
	if c := s.Counters(); c.Written != 5 || c.Calls[Busy] != 5 || c.Dropped+c.WriteErrors != 0 {
		t.Errorf("%+v", c)
	}
	again := New(cfg, Options{})
	last := again.Last(10)
	if len(last) != 3 || last[0].ID != "c-4" || last[2].ID != "c-2" {
		t.Errorf("after restart: %v", last)
	}
	if again.Counters().Attempts() != 0 {
		t.Error("earlier calls were counted again")
	}
	if st, err := os.Stat(cfg.File); err != nil || st.Mode().Perm()&0o007 != 0 {
		t.Errorf("anybody may read it: %v %v", st.Mode(), err)
	}
}

func TestLast(t *testing.T) {
	s := New(config.CDR{Keep: 4}, Options{})
	for _, tt := range []struct {
		add, n int
		want   string
	}{{0, 3, ""}, {2, 0, ""}, {0, -1, ""}, {0, 1, "c-1"}, {0, 9, "c-1 c-0"}, {2, 9, "c-3 c-2 c-1 c-0"}, {3, 3, "c-6 c-5 c-4"}, {0, 9, "c-6 c-5 c-4 c-3"}} {
		for range tt.add {
			s.Add(numbered(int(s.Counters().Attempts())))
		}
		var got []string
		for _, r := range s.Last(tt.n) {
			got = append(got, r.ID)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("Last(%d) = %v, want %s", tt.n, got, tt.want)
		}
	}
}

// TestPowerLossInTheMiddleOfALine: what is left of a line goes, whole lines stay.
func TestPowerLossInTheMiddleOfALine(t *testing.T) {
	whole, err := encode(numbered(1))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, text, want string
		skipped          uint64
	}{
		{"cut in a line", string(whole) + string(whole[:40]), "c-1 c-9", 1},
		{"cut in the only line", string(whole[:40]), "c-9", 1},
		{"only the end missing", strings.TrimSuffix(string(whole), "\n"), "c-1 c-9", 0},
		{"zeros after a crash", string(whole) + strings.Repeat("\x00", 3*maxLine+5), "c-1 c-9", 1},
		{"nothing but zeros", strings.Repeat("\x00", 2*maxLine), "c-9", 1},
		{"empty", "", "c-9", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config.CDR{File: filepath.Join(t.TempDir(), "cdr.jsonl"), Keep: 10}
			if err := os.WriteFile(cfg.File, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			s := New(cfg, Options{})
			if got := s.Counters().Skipped; got != tt.skipped {
				t.Errorf("%d lines skipped, want %d", got, tt.skipped)
			}
			stop := run(t, s)
			s.Add(numbered(9))
			stop()
			if got := strings.Join(ids(t, cfg.File), " "); got != tt.want {
				t.Errorf("file holds %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAFileThatCannotBeReadDoesNotStopCalls(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cdr.jsonl"), []byte("{\"id\":5}\nnonsense\n"+strings.Repeat("x", 3*maxLine)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(config.CDR{File: filepath.Join(dir, "cdr.jsonl"), Keep: 5}, Options{})
	if s.Counters().Skipped != 3 || len(s.Last(5)) != 0 {
		t.Errorf("%+v", s.Counters())
	}
	opened := make(chan struct{}, 1000)
	s = New(config.CDR{File: filepath.Join(dir, "no", "such", "directory"), Keep: 5}, Options{Retry: time.Millisecond, open: func(path string) (file, error) {
		select {
		case opened <- struct{}{}:
		default:
		}
		return openFile(path)
	}})
	stop := run(t, s)
	s.Add(numbered(1))
	for range 3 {
		<-opened
	}
	stop()
	if c := s.Counters(); c.WriteErrors < 3 || c.Dropped != 1 || c.Written != 0 || len(s.Last(5)) != 1 {
		t.Errorf("%+v", c)
	}
}

func TestTwoFilesAreKept(t *testing.T) {
	cfg := config.CDR{File: filepath.Join(t.TempDir(), "cdr.jsonl"), Keep: 100}
	line, err := encode(numbered(10))
	if err != nil {
		t.Fatal(err)
	}
	limit := int64(4*len(line) + 1)
	s := New(cfg, Options{MaxBytes: limit})
	stop := run(t, s)
	for i := 10; i < 30; i++ {
		s.Add(numbered(i))
	}
	stop()
	if c := s.Counters(); c.Written != 20 || c.Rotations != 4 {
		t.Errorf("%+v", c)
	}
	got := strings.Join(append(ids(t, cfg.File+".1"), ids(t, cfg.File)...), " ")
	if want := "c-22 c-23 c-24 c-25 c-26 c-27 c-28 c-29"; got != want {
		t.Errorf("files hold %s, want %s", got, want)
	}
	for _, p := range []string{cfg.File, cfg.File + ".1"} {
		if st, err := os.Stat(p); err != nil || st.Size() > limit {
			t.Errorf("%s: %v %v", p, st, err)
		}
	}
	if last := New(cfg, Options{}).Last(8); len(last) != 8 || last[0].ID != "c-29" || last[7].ID != "c-22" {
		t.Errorf("after restart: %d records", len(last))
	}
}

// faultyFile stands for a disk that is full or hangs.
type faultyFile struct {
	file
	mu   sync.Mutex
	room int           // bytes that may still be written; negative: any
	gate chan struct{} // Write waits until it is closed; nil: does not
}

func (f *faultyFile) Write(b []byte) (int, error) {
	f.mu.Lock()
	gate, room := f.gate, f.room
	f.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if room < 0 || len(b) <= room {
		if room >= 0 {
			f.mu.Lock()
			f.room -= len(b)
			f.mu.Unlock()
		}
		return f.file.Write(b)
	}
	n, _ := f.file.Write(b[:room])
	return n, &fs.PathError{Op: "write", Err: syscall.ENOSPC}
}

// TestSlowFileNeverBlocksACall: Add returns although the file hangs; what the
// queue cannot hold is counted.
func TestSlowFileNeverBlocksACall(t *testing.T) {
	cfg := config.CDR{File: filepath.Join(t.TempDir(), "cdr.jsonl"), Keep: 1000}
	gate := make(chan struct{})
	s := New(cfg, Options{Queue: 8, open: func(path string) (file, error) {
		f, err := openFile(path)
		return &faultyFile{file: f, room: -1, gate: gate}, err
	}})
	stop := run(t, s)
	for i := range 500 { // would never return if Add waited
		s.Add(numbered(i))
	}
	if got := len(s.Last(1000)); got != 500 {
		t.Errorf("%d records in memory", got)
	}
	c := s.Counters()
	if c.Dropped < 500-8-64 || c.Dropped > 500-8 {
		t.Errorf("%d dropped", c.Dropped)
	}
	close(gate)
	stop()
	if c := s.Counters(); c.Written+c.Dropped != 500 || uint64(len(ids(t, cfg.File))) != c.Written {
		t.Errorf("%+v", c)
	}
}

// TestFullDiskLosesNothingThatTheQueueHolds: half a line is taken back, and the
// records follow when there is room.
func TestFullDiskLosesNothingThatTheQueueHolds(t *testing.T) {
	cfg := config.CDR{File: filepath.Join(t.TempDir(), "cdr.jsonl"), Keep: 100}
	line, err := encode(numbered(10))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	full := true
	opened := make(chan struct{}, 1000)
	s := New(cfg, Options{Retry: time.Millisecond, open: func(path string) (file, error) {
		select {
		case opened <- struct{}{}:
		default:
		}
		f, err := openFile(path)
		mu.Lock()
		defer mu.Unlock()
		room := -1
		if full {
			room = 2*len(line) + 7
		}
		return &faultyFile{file: f, room: room}, err
	}})
	for i := 10; i < 30; i++ {
		s.Add(numbered(i))
	}
	stop := run(t, s)
	for range 3 { // it was opened again after errors
		<-opened
	}
	mu.Lock()
	full = false
	mu.Unlock()
	stop()
	if c := s.Counters(); c.WriteErrors == 0 || c.Written != 20 || c.Dropped != 0 {
		t.Errorf("%+v", c)
	}
	got := ids(t, cfg.File)
	if len(got) != 20 || got[0] != "c-10" || got[19] != "c-29" {
		t.Errorf("file holds %v", got)
	}
}

func TestLongRecordIsShortened(t *testing.T) {
	r := sample()
	for range 2000 {
		r.Attempts = append(r.Attempts, r.Attempts[0])
	}
	line, err := encode(r)
	if err != nil || len(line) > maxLine || !bytes.Contains(line, []byte(`"id":"c-1"`)) {
		t.Errorf("%d bytes, %v", len(line), err)
	}
}

func TestConcurrentUse(t *testing.T) {
	cfg := config.CDR{File: filepath.Join(t.TempDir(), "cdr.jsonl"), Keep: 50}
	s := New(cfg, Options{MaxBytes: 4096})
	stop := run(t, s)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				s.Add(numbered(g*100 + i))
				if len(s.Last(5)) == 0 {
					t.Error("nothing kept")
				}
				_ = s.Counters()
			}
		})
	}
	wg.Wait()
	stop()
	if c := s.Counters(); c.Written+c.Dropped != 800 || c.Attempts() != 800 {
		t.Errorf("%+v", c)
	}
	if _, err := os.Stat(cfg.File + ".2"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a third file")
	}
}
