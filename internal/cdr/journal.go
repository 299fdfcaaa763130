package cdr

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// file is what a journal needs of *os.File.
type file interface {
	io.Writer
	io.ReaderAt
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// openFile opens a file for appending. Records are personal data: not for
// everybody.
func openFile(path string) (file, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
}

// journal is the file being written. After an error it is closed, and the next
// append opens and repairs it.
type journal struct {
	store *Store
	f     file
	size  int64
}

func (j *journal) close() {
	if j.f != nil {
		if err := j.f.Close(); err != nil {
			j.store.log.Warn("close call detail records", "file", j.store.path, "error", err)
		}
		j.f = nil
	}
}

// append writes lines and syncs. It returns how many are safely in the file.
func (j *journal) append(lines [][]byte) (n int, err error) {
	defer func() {
		if err != nil {
			j.close()
		}
	}()
	if j.f == nil {
		if err := j.open(); err != nil {
			return 0, err
		}
	}
	synced := 0
	for i, line := range lines {
		if j.size > 0 && j.size+int64(len(line)) > j.store.maxBytes {
			if err := j.f.Sync(); err != nil {
				return synced, fmt.Errorf("sync %s: %w", j.store.path, err)
			}
			synced = i
			if err := j.rotate(); err != nil {
				return synced, err
			}
		}
		if _, err := j.f.Write(line); err != nil {
			// Take back what a full disk left of the batch; open repairs what
			// cannot be taken back.
			_ = j.f.Truncate(j.size - written(lines[synced:i]))
			return synced, fmt.Errorf("write %s: %w", j.store.path, err)
		}
		j.size += int64(len(line))
	}
	if err := j.f.Sync(); err != nil {
		_ = j.f.Truncate(j.size - written(lines[synced:]))
		return synced, fmt.Errorf("sync %s: %w", j.store.path, err)
	}
	return len(lines), nil
}

func written(lines [][]byte) (n int64) {
	for _, l := range lines {
		n += int64(len(l))
	}
	return n
}

func (j *journal) open() error {
	f, err := j.store.open(j.store.path)
	if err != nil {
		return fmt.Errorf("open call detail records: %w", err)
	}
	size, err := repair(f)
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("repair %s: %w", j.store.path, err)
	}
	j.f, j.size = f, size
	syncDir(j.store.path)
	return nil
}

// repair makes the file end with a whole line: power may have failed in the
// middle of one. It returns the size afterwards.
func repair(f file) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := st.Size()
	for cut := false; size > 0; cut = true {
		from := max(size-maxLine, 0)
		tail := make([]byte, size-from)
		if _, err := f.ReadAt(tail, from); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		i := bytes.LastIndexByte(tail, '\n') + 1
		if i == len(tail) {
			break
		}
		if !cut && (i > 0 || from == 0) && json.Valid(tail[i:]) {
			n, err := f.Write([]byte{'\n'}) // only the line's end is missing
			return size + int64(n), err
		}
		// Some file systems leave long runs of zeros: go on until a line ends.
		size = from + int64(i)
		if err := f.Truncate(size); err != nil {
			return 0, err
		}
		if i > 0 {
			break
		}
	}
	return size, nil
}

// rotate renames the file to NAME.1, which replaces the older one, and begins a
// new file: two are kept.
func (j *journal) rotate() error {
	j.close()
	path := j.store.path
	if err := os.Rename(path, path+".1"); err != nil {
		return fmt.Errorf("rotate call detail records: %w", err)
	}
	j.store.count(func(c *Counters) { c.Rotations++ })
	return j.open()
}

// syncDir makes a new name survive power loss; where a file system cannot,
// there is nothing to do about it.
func syncDir(path string) {
	if d, err := os.Open(filepath.Dir(path)); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

// load fills the ring from the files, oldest first. Lines that are no records
// are skipped and counted.
func (s *Store) load() {
	for _, path := range []string{s.path + ".1", s.path} {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			s.log.Warn("earlier call detail records not read", "file", path, "error", err)
			continue
		}
		// A file that others let grow is read from near its end.
		if st, err := f.Stat(); err == nil && st.Size() > 2*s.maxBytes {
			if _, err := f.Seek(-s.maxBytes, io.SeekEnd); err != nil {
				s.log.Warn("earlier call detail records not read", "file", path, "error", err)
			}
		}
		s.loadLines(bufio.NewReaderSize(f, maxLine))
		_ = f.Close()
	}
}

// loadLines reads records up to the end. What is longer than a record, or none,
// is skipped to the next line.
func (s *Store) loadLines(r *bufio.Reader) {
	for {
		line, err := r.ReadSlice('\n')
		long := false
		for ; errors.Is(err, bufio.ErrBufferFull); _, err = r.ReadSlice('\n') {
			long = true
		}
		var rec Record
		switch {
		case len(line) == 0 && !long:
		case long, json.Unmarshal(line, &rec) != nil, rec.ID == "":
			s.counters.Skipped++
		default:
			s.keep(rec)
		}
		if err != nil {
			return
		}
	}
}
