package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"localloop/internal/config"
)

// notifySocket is systemd's end of sd_notify(3).
func notifySocket(t *testing.T) <-chan string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	said := make(chan string, 64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			said <- string(buf[:n])
		}
	}()
	t.Cleanup(func() { _ = c.Close(); <-done })
	return said
}

// expect waits for a notification that begins with prefix; the others before it
// are passed over. The deadline is for liveness only.
func expect(t *testing.T, said <-chan string, prefix string) string {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case s := <-said:
			if strings.HasPrefix(s, prefix) {
				return s
			}
		case <-limit:
			t.Fatalf("systemd was never told %s", prefix)
		}
	}
}

// lonelyBox is a configuration without trunks and lines, on a free port.
func lonelyBox(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprintf(`
[box]
name = "lonely"
country = "de"
http = %q
drain_timeout = "1s"
`, l.Addr())
}

// lonely writes text and loads it.
func lonely(t *testing.T, text string) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "edged.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestSystemdHearsOfReadyReloadWatchdogAndStop(t *testing.T) {
	said := notifySocket(t)
	t.Setenv("WATCHDOG_USEC", "200000")
	t.Setenv("WATCHDOG_PID", "")
	_ = os.Unsetenv("WATCHDOG_PID") // Setenv above restores it
	cfg := lonely(t, lonelyBox(t))
	d, err := build(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reload := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() { done <- d.run(ctx, reload, nil) }()

	expect(t, said, "READY=1")
	expect(t, said, "WATCHDOG=1")
	reload <- struct{}{}
	if s := expect(t, said, "RELOADING=1"); !strings.Contains(s, "MONOTONIC_USEC=") {
		t.Errorf("RELOADING came without the time that Type=notify-reload needs: %q", s)
	}
	expect(t, said, "READY=1")
	cancel()
	expect(t, said, "STOPPING=1")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWatchdogIsNotPettedWhileAPartHangs(t *testing.T) {
	said := notifySocket(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	_ = os.Unsetenv("WATCHDOG_PID")
	ctx, cancel := context.WithCancel(t.Context())
	s := supervisor{slog.New(slog.DiscardHandler)}
	asked := make(chan struct{})
	done := make(chan error, 1)
	n := 0
	go func() {
		done <- s.watchdog(ctx, func() error {
			if n++; n == 3 {
				close(asked)
			}
			return errors.New("media thread 0 has not answered")
		})
	}()
	<-asked
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	s.notify("X_END=1")
	for s := range said {
		if strings.HasPrefix(s, "WATCHDOG") {
			t.Fatal("the watchdog was petted although a part hangs")
		}
		if s == "X_END=1" {
			return
		}
	}
}

func TestABadFileNeverReplacesAGoodOne(t *testing.T) {
	good := lonelyBox(t)
	cfg := lonely(t, good)
	d, err := build(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.http.Close()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(cfg.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d.reload(t.Context())
	}
	write(strings.Replace(good, `country = "de"`, `country = "de"`+"\ncolour = 3", 1))
	if s := d.loaded.Load(); !strings.Contains(s.Refused, "colour") || d.config.Load() != cfg {
		t.Errorf("after a bad file: refused %q, configuration replaced: %v", s.Refused, d.config.Load() != cfg)
	}
	write(strings.Replace(good, cfg.Box.HTTP.String(), "127.0.0.1:9", 1))
	if s := d.loaded.Load(); !strings.Contains(s.Refused, "box.http") || d.config.Load() != cfg {
		t.Errorf("after a change that needs a restart: refused %q", s.Refused)
	}
	write(strings.Replace(good, "lonely", "renamed", 1))
	if s := d.loaded.Load(); s.Refused != "" || d.config.Load().Box.Name != "renamed" {
		t.Errorf("a good file was refused: %q", s.Refused)
	}
}
