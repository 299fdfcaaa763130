package analogtest

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal in raw mode. The card keeps the slave side open
// as well: without that a read fails whenever no host has it open.
type terminal struct{ master, slave *os.File }

func openPTY() (io.ReadWriteCloser, string, error) {
	m, s, err := pty.Open()
	if err != nil {
		return nil, "", err
	}
	// pty.Open leaves a file whose Read cannot be interrupted and that knows no
	// deadline: the runtime's poller must have it.
	fd, err := unix.Dup(int(m.Fd()))
	m.Close()
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		s.Close()
		return nil, "", err
	}
	t := terminal{os.NewFile(uintptr(fd), "/dev/ptmx"), s}
	if err := t.raw(); err != nil {
		t.Close()
		return nil, "", err
	}
	return t, s.Name(), nil
}

// raw is cfmakeraw(3): eight bits, no echo, no signals, no flow control.
func (t terminal) raw() error {
	conn, err := t.slave.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		var m *unix.Termios
		if m, failed = unix.IoctlGetTermios(int(fd), unix.TCGETS); failed != nil {
			return
		}
		m.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON | unix.IXOFF
		m.Oflag &^= unix.OPOST
		m.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		m.Cflag &^= unix.CSIZE | unix.PARENB
		m.Cflag |= unix.CS8
		m.Cc[unix.VMIN], m.Cc[unix.VTIME] = 1, 0
		failed = unix.IoctlSetTermios(int(fd), unix.TCSETS, m)
	})
	return errors.Join(err, failed)
}

// release gives up the exclusive use that a host asked for and, if it was
// killed, did not give back: the card keeps the terminal alive, so it would last.
func (t terminal) release() {
	if conn, err := t.slave.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _ = unix.IoctlSetInt(int(fd), unix.TIOCNXCL, 0) })
	}
}

func (t terminal) Read(p []byte) (int, error)         { return t.master.Read(p) }
func (t terminal) Write(p []byte) (int, error)        { return t.master.Write(p) }
func (t terminal) SetWriteDeadline(d time.Time) error { return t.master.SetWriteDeadline(d) }
func (t terminal) Close() error                       { return errors.Join(t.master.Close(), t.slave.Close()) }
