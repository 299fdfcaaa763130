package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"localloop/internal/config"
)

type runCommand struct {
	Verbose bool `short:"v" help:"Log every event of every call."`
}

// Run runs the daemon until SIGTERM or SIGINT.
func (k runCommand) Run(c *commands, e env) error {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	if err := checkFiles(cfg); err != nil {
		return err
	}
	level := slog.LevelInfo
	if k.Verbose {
		level = slog.LevelDebug
	}
	d, err := build(cfg, newLog(level))
	if err != nil {
		return err
	}

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	reload, hurry := make(chan struct{}, 1), make(chan struct{})
	done := make(chan struct{})
	defer close(done)
	go func() {
		stops := 0
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				if s == syscall.SIGHUP {
					select {
					case reload <- struct{}{}:
					default: // one is waiting already and will read the newest file
					}
					continue
				}
				cancel()
				if stops++; stops == 2 {
					close(hurry)
				}
			}
		}
	}()
	return d.run(ctx, reload, hurry)
}

// checkFiles looks for the files that a configuration names, which package
// config does not: it reports all that are missing.
func checkFiles(cfg *config.Config) error {
	var faults config.Faults
	need := func(key, file string) {
		if file == "" {
			return
		}
		f, err := os.Open(file)
		if err == nil {
			_ = f.Close()
			return
		}
		text := "cannot be read: " + err.Error()
		if errors.Is(err, fs.ErrNotExist) {
			text = fmt.Sprintf("no such file: %s", file)
		}
		faults = append(faults, config.Fault{File: cfg.Path, Key: key, Text: text})
	}
	keys := func(at string, t config.TLS) {
		need(at+".tls.certificate", t.Certificate)
		need(at+".tls.key", t.Key)
		need(at+".tls.roots", t.Roots)
	}
	for _, t := range cfg.Teams {
		keys("teams."+t.Name, t.TLS)
	}
	for _, t := range cfg.SIP {
		keys("sip."+t.Name, t.TLS)
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}
