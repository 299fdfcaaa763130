package analog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"

	"localloop/internal/config"
)

const (
	readTimeout  = 50 * time.Millisecond
	writeTimeout = time.Second
)

// port is a serial port of this machine. go.bug.st/serial sets it up and reads;
// writing goes through a second, non-blocking descriptor of the same tty: the
// library's Write has no deadline and not even Close ends it when the peer has
// stopped reading. That descriptor also holds the lock.
type port struct {
	serial serial.Port
	tx     *os.File
	closed atomic.Bool
	read   sync.Mutex // held by Read: Close must not free a descriptor in use
}

// openPort opens the card's port for this process alone. The lock is flock: the
// kernel's TIOCEXCL does not stop root, and goes away with the process either way.
func openPort(c config.Card) (io.ReadWriteCloser, error) {
	tx, err := os.OpenFile(c.Device, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open line card %s: %w", c.Name, err)
	}
	if err := lock(tx); err != nil {
		tx.Close()
		return nil, fmt.Errorf("open line card %s at %s: %w", c.Name, c.Device, err)
	}
	s, err := serial.Open(c.Device, &serial.Mode{BaudRate: c.Baud, DataBits: 8, Parity: serial.NoParity, StopBits: serial.OneStopBit})
	if err == nil {
		// What came while nobody had the port open is of no session, SLCL §1.
		if err = errors.Join(s.ResetInputBuffer(), s.SetReadTimeout(readTimeout)); err != nil {
			s.Close()
		}
	}
	if err != nil {
		tx.Close()
		return nil, fmt.Errorf("open line card %s at %s: %w", c.Name, c.Device, err)
	}
	return &port{serial: s, tx: tx}, nil
}

// ErrInUse says that another process or part holds the port.
var ErrInUse = errors.New("port is in use by another process")

func lock(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var lockErr error
	if err := raw.Control(func(fd uintptr) { lockErr = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		return err
	}
	if errors.Is(lockErr, unix.EWOULDBLOCK) {
		return ErrInUse
	}
	return lockErr
}

// Read returns 0, nil after a timeout, which is no end of file.
func (p *port) Read(b []byte) (int, error) {
	p.read.Lock()
	defer p.read.Unlock()
	if p.closed.Load() {
		return 0, os.ErrClosed
	}
	return p.serial.Read(b)
}

func (p *port) Write(b []byte) (int, error) {
	if err := p.tx.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		return 0, err
	}
	return p.tx.Write(b)
}

// Close ends a pending Write at once and a pending Read within its timeout.
func (p *port) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	err := p.tx.Close()
	p.read.Lock()
	defer p.read.Unlock()
	return errors.Join(err, p.serial.Close())
}
