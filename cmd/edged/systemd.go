package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/journal"
)

// supervisor talks to systemd (sd_notify(3)). Without systemd every method does
// nothing.
type supervisor struct{ log *slog.Logger }

func (s supervisor) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		s.log.Warn("systemd was not told", "state", state, "err", err)
	}
}

func (s supervisor) ready()    { s.notify(sd.SdNotifyReady) }
func (s supervisor) stopping() { s.notify(sd.SdNotifyStopping) }

// reloading announces a reload; systemd wants the monotonic time with it and a
// READY at the end (Type=notify-reload).
func (s supervisor) reloading() {
	s.notify(sd.SdNotifyReloading + "\n" + sd.SdNotifyMonotonicUsec())
}

func (s supervisor) status(format string, args ...any) {
	s.notify("STATUS=" + fmt.Sprintf(format, args...))
}

// watchdog pets systemd's watchdog at half its period for as long as alive says
// that the parts answer. It returns when ctx is done, or at once without a
// watchdog. A part that hangs lets the watchdog run out, and systemd restarts
// the daemon.
func (s supervisor) watchdog(ctx context.Context, alive func() error) error {
	period, err := sd.SdWatchdogEnabled(false)
	if err != nil || period <= 0 {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(period / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := alive(); err != nil {
				s.log.Error("watchdog is not petted", "why", err)
				continue
			}
			s.notify(sd.SdNotifyWatchdog)
		}
	}
}

// newLog writes to stderr. Under systemd stderr is the journal already; the time
// is then left out, because the journal has its own.
func newLog(level slog.Level) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if underJournal, err := journal.StderrIsJournalStream(); err == nil && underJournal {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}
