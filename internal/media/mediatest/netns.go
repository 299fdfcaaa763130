package mediatest

import (
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
		// the wrong namespace.
		runtime.LockOSThread()
		ns, err := os.Open(path)
		if err != nil {
			done <- fmt.Errorf("network namespace: %w", err)
			return
		}
		defer func() { _ = ns.Close() }()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace %s: %w", path, err)
			return
		}
		done <- f()
	}()
	return <-done
}
