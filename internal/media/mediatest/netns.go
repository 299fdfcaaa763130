package mediatest

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// InNetns calls f on a thread that is in the network namespace whose file is
// path (/run/netns/NAME, /proc/PID/ns/net); sockets that f opens stay there. An
// empty path means the namespace of the process. f must open its sockets on the
// goroutine it is called on.
func InNetns(path string, f func() error) error {
	if path == "" {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine, so none is left in
		// the wrong namespace. The main thread cannot end and is what /proc/self
		// shows, so the way back is taken as well.
		runtime.LockOSThread()
		done <- inNetns(path, f)
	}()
	return <-done
}

// inNetns moves the calling thread there and back.
func inNetns(path string, f func() error) error {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer func() { _ = home.Close() }()
	there, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer func() { _ = there.Close() }()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return errors.Join(f(), unix.Setns(int(home.Fd()), unix.CLONE_NEWNET))
}
