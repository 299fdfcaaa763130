package main

import (
	"context"
	"errors"
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
	if keys := needRestart(old, cfg); len(keys) > 0 {
		d.refuse(errors.New("changes of " + strings.Join(keys, ", ") + " take effect with a restart only; restart edged, or undo them to reload the rest"))
		return
	}
	plan, err := route.New(cfg, health{d})
	if err != nil {
		d.refuse(err)
		return
	}
	if err := d.analog.Apply(*cfg); err != nil {
		d.refuse(err)
		return
	}
	d.plan.Store(plan)
	d.setConfig(cfg, "")
	if err := d.sip.ReloadTLS(ctx); err != nil {
		d.refuse(err) // the trunk concerned keeps its certificate
		return
	}
	d.log.Info("configuration reloaded", "file", cfg.Path)
}

// needRestart lists the changes that a running daemon cannot take up: sockets
// are opened once.
func needRestart(old, now *config.Config) []string {
	var keys []string
	differ := func(key string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			keys = append(keys, key)
		}
	}
	differ("box.http", old.Box.HTTP, now.Box.HTTP)
	differ("box.max_calls", old.Box.MaxCalls, now.Box.MaxCalls)
	differ("realm", old.Realms, now.Realms)
	differ("teams", old.Teams, now.Teams)
	differ("sip", old.SIP, now.SIP)
	differ("qos", old.QoS, now.QoS)
	differ("media", old.Media, now.Media)
	differ("cdr", old.CDR, now.CDR)
	return keys
}
