// Package wire moves datagrams between UDP sockets and the voice of calls.
//
// A Loop is one locked OS thread. Everything about one call's voice happens on
// one Loop, so that packets need no lock, no channel and no allocation. Control
// comes to it as posted functions. The main types are the interfaces Engine and
// Loop; Epoll is the one engine there is. An engine on io_uring can take its
// place without change elsewhere (docs/decisions/media-loop.md).
//
// The package knows nothing of RTP. Sockets are opened by Listen in any
// goroutine and then belong to the Loop that they are attached to.
package wire

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// MaxDatagram is the longest datagram that is delivered, in bytes. Voice of
// 60 ms has 500; longer ones are dropped and counted.
const MaxDatagram = 2048

// ErrClosed is returned once a Loop has ended.
var ErrClosed = errors.New("media loop has ended")

// Control sets options on a socket before it is bound, as net.ListenConfig's
// Control does; it sets the marks.
type Control func(network, address string, c syscall.RawConn) error

// Engine runs loops.
type Engine interface {
	// Run runs all loops until ctx ends, and returns when every one of them has
	// ended and their sockets are closed.
	Run(ctx context.Context) error
	// Loops returns the loops. Their number does not change.
	Loops() []Loop
	// Listen opens a bound socket. It does not receive until it is attached.
	Listen(local netip.AddrPort, control Control) (Socket, error)
}

// Socket is one UDP socket. Its methods may be called by the loop that it is
// attached to; Local by any goroutine.
type Socket interface {
	Local() netip.AddrPort
	// Send sends a datagram and does not wait: when the kernel has no room the
	// datagram is lost, as on the wire. Others than the loop may call it as long
	// as they see to it that the socket is not closed meanwhile.
	Send(b []byte, to netip.AddrPort) error
	// Close closes a socket that was never attached. Attached ones are detached.
	Close() error
}

// Receiver takes the datagrams of a socket. b is valid during the call, may be
// changed, and has Room bytes of capacity after it.
type Receiver interface {
	Datagram(now time.Time, s Socket, b []byte, from netip.AddrPort)
}

// Room is the capacity after a received datagram.
const Room = 64

// Work is what a loop does besides datagrams. All methods are called on the
// loop's thread.
type Work interface {
	// Rung is called after Ring.
	Rung(now time.Time)
	// Tick is called when the time that it returned last has come, and after
	// each posted function. It returns when it wants to be called again; the
	// zero time means only after the next function.
	Tick(now time.Time) time.Time
	// Due is asked after datagrams and rings: the time at which Tick wants to be
	// called, which may have come nearer.
	Due() time.Time
}

// Loop is one media thread.
type Loop interface {
	// Post lets f run on the loop's thread and does not wait. It returns
	// ErrClosed when the loop has ended: then f will not run. Any goroutine may
	// call it.
	Post(f func(now time.Time)) error
	// Ring wakes the loop so that it calls Work.Rung. It does not allocate or
	// block; any goroutine may call it.
	Ring()
	// SetWork sets the work before the engine runs.
	SetWork(Work)
	// Attach delivers the datagrams of s to r from now on. Loop's thread only.
	Attach(s Socket, r Receiver) error
	// Detach stops delivery and closes s. Loop's thread only.
	Detach(s Socket)
	// Counts may be read by any goroutine.
	Counts() *Counts
}

// Counts of a loop.
type Counts struct {
	Received  atomic.Uint64 // datagrams
	Sent      atomic.Uint64
	Truncated atomic.Uint64 // longer than MaxDatagram
	NoRoom    atomic.Uint64 // not sent: the kernel's buffer is full
	Failed    atomic.Uint64 // not sent: another error
	Panics    atomic.Uint64 // recovered while one datagram was handled
	Lag       atomic.Int64  // ns: the longest time from due to done since it was last read and reset
}
