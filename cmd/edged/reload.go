package main

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	"localloop/internal/config"
	"localloop/internal/route"
	"localloop/internal/web"
)

// setConfig makes cfg the configuration in use.
func (d *daemon) setConfig(cfg *config.Config, refused string) {
	d.config.Store(cfg)
	d.loaded.Store(&web.ConfigState{File: cfg.Path, Loaded: time.Now(), Refused: refused})
}

// refuse notes that a reload was refused. What is in use stays in use.
func (d *daemon) refuse(err error) {
	now := *d.loaded.Load()
	now.Refused = err.Error()
	d.loaded.Store(&now)
	d.log.Error("reload refused, the older configuration stays in use", "err", err)
}

// reload reads the configuration and the certificates again. Running calls keep
// what they began with. A configuration with a fault changes nothing.
func (d *daemon) reload(ctx context.Context) {
	d.reloads.Lock()
	defer d.reloads.Unlock()
	d.super.reloading()
	defer d.super.ready()
	old := d.config.Load()
	cfg, err := config.Load(old.Path)
	if err == nil {
		err = checkFiles(cfg)
	}
	if err != nil {
		d.refuse(err)
		return
	}
	if err := d.apply(ctx, old, cfg); err != nil {
		d.refuse(err)
		return
	}
	d.log.Info("configuration reloaded", "file", cfg.Path)
}

// apply takes up a configuration that is free of faults: all of it or nothing.
// Parts are asked in order; when one refuses, those before it get the old
// configuration back.
func (d *daemon) apply(ctx context.Context, old, cfg *config.Config) error {
	if keys := needRestart(old, cfg); len(keys) > 0 {
		return fmt.Errorf("changes of %s need a restart; restart edged, or undo them to reload the rest", strings.Join(keys, ", "))
	}
	plan, err := route.New(cfg, health{d})
	if err != nil {
		return err
	}
	parts := []func(*config.Config) error{
		func(c *config.Config) error { return d.sip.Apply(c.Teams, c.SIP, c.Box) },
		func(c *config.Config) error { return d.media.Apply(c.Realms) },
		func(c *config.Config) error { return d.analog.Apply(*c) },
	}
	for i, part := range parts {
		err := part(cfg)
		if err == nil {
			continue
		}
		for _, done := range parts[:i] {
			if back := done(old); back != nil {
				d.log.Error("a part kept the new configuration", "err", back)
			}
		}
		return err
	}
	d.plan.Store(plan)
	d.setConfig(cfg, "")
	d.applyMarks()
	// Certificates come last: a trunk whose files are bad keeps what it has, and
	// says so, while everything else is in force.
	return d.sip.ReloadTLS(ctx)
}

// needRestart lists the changes that a running daemon cannot take up.
func needRestart(old, now *config.Config) []string {
	var keys []string
	differ := func(key string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			keys = append(keys, key)
		}
	}
	differ("box.http", old.Box.HTTP, now.Box.HTTP)
	differ("box.country", old.Box.Country, now.Box.Country) // tones of lines
	differ("box.max_calls", old.Box.MaxCalls, now.Box.MaxCalls)
	differ("realm.interface", realmInterfaces(old), realmInterfaces(now))
	differ("calls", old.Calls, now.Calls)
	differ("qos.voice", old.QoS.Voice, now.QoS.Voice)
	differ("qos.signalling", old.QoS.Signalling, now.QoS.Signalling)
	differ("media", old.Media, now.Media)
	differ("cdr", old.CDR, now.CDR)
	return keys
}
