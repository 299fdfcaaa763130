// Command guest is the init of the kernel laboratory: it runs under QEMU on
// Debian's kernel and tests what a workstation's or a runner's kernel often
// lacks (VLAN devices with 802.1p, fq_codel, flower, pedit). See
// test/kernel/run.sh.
//
// Its output on the console is one line for each test, "ok NAME" or
// "FAIL NAME why", and at the end "done N ok, M failed". A further test is a
// function of the list tests; each has a fresh link of its own.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// limit of one test. The guest's clock runs with its instructions, so this is
// work rather than time of the machine outside.
const limit = 60 * time.Second

// test is one line of the result. run returns nil if the kernel does what the
// name says.
type test struct {
	name string
	run  func(*link) error
}

func tests() []test {
	var all []test
	all = append(all, vlanTests()...)
	all = append(all, trafficTests()...)
	all = append(all, qosTests()...)
	all = append(all, watchTests()...)
	return all
}

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: runs as init of the kernel laboratory (make test-kernel)")
		os.Exit(2)
	}
	defer powerOff()
	if err := boot(); err != nil {
		fmt.Printf("FAIL boot %v\n", err)
		return
	}
	passed, failed := 0, 0
	for _, t := range tests() {
		if err := guarded(t); err != nil {
			failed++
			fmt.Printf("FAIL %s %s\n", t.name, strings.ReplaceAll(err.Error(), "\n", "; "))
		} else {
			passed++
			fmt.Printf("ok %s\n", t.name)
		}
	}
	fmt.Printf("done %d ok, %d failed\n", passed, failed)
}

// guarded runs a test on a fresh link and turns a panic or a hang into a
// failure. What hangs is left behind: the machine ends soon.
func guarded(t test) error {
	result := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				result <- fmt.Errorf("panic: %v", r)
			}
		}()
		l, err := newLink()
		if err != nil {
			result <- err
			return
		}
		defer l.remove()
		result <- t.run(l)
	}()
	select {
	case err := <-result:
		return err
	case <-time.After(limit):
		return fmt.Errorf("no result after %v", limit)
	}
}

// boot makes what a Go program expects of a system, and loads the modules in
// the order of their names.
func boot() error {
	for _, m := range []struct{ kind, at string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, path := range modules {
		if err := insert(path); err != nil {
			return fmt.Errorf("load %s: %w", filepath.Base(path), err)
		}
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	fmt.Printf("kernel %s, %d modules\n", strings.TrimSpace(string(release)), len(modules))
	return nil
}

func insert(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

func powerOff() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // init must not end: the kernel would panic
}
