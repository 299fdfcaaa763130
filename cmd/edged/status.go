package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"localloop/internal/analog"
	"localloop/internal/call"
	"localloop/internal/cdr"
	"localloop/internal/qos"
	"localloop/internal/sip"
	"localloop/internal/web"
)

// lastCalls is how many ended calls the status shows.
const lastCalls = 50

// Status implements web.Source: a snapshot of every part.
func (d *daemon) Status() web.Status {
	cfg, now := d.config.Load(), time.Now()
	s := web.Status{
		Box: cfg.Box.Name, Version: versionText(), Since: d.since, Now: now, Config: *d.loaded.Load(),
		Trunks: trunks(d.sip.Status(), now), Calls: liveCalls(d.calls.Calls()),
		Last: records(d.cdr.Last(lastCalls)), Media: d.mediaStatus(), Marks: d.markStatus(),
	}
	bank := d.analog.Status()
	s.Lines, s.Cards = lines(bank), cards(bank)
	for _, l := range d.watch.Links() {
		s.Links = append(s.Links, web.Link{Name: l.Name, Up: l.Up})
	}
	s.Checks = d.checks(s)
	return s
}

func trunks(list []sip.TrunkStatus, now time.Time) []web.Trunk {
	out := make([]web.Trunk, 0, len(list))
	for _, t := range list {
		w := web.Trunk{Name: t.Name, Kind: t.Kind, Up: t.Up, Why: strings.Join(t.Alarms, "; "), Certificate: t.Certificate,
			Dropped: map[string]uint64{"malformed": t.Malformed, "untrusted": t.Untrusted, "handshake": t.Handshakes, "stray": t.Stray, "panic": t.Panics}}
		if t.Refusing.After(now) {
			w.Refusing = fmt.Sprintf("%s, for another %s", t.Why, t.Refusing.Sub(now).Round(time.Second))
		}
		for _, p := range t.Peers {
			w.Peers = append(w.Peers, web.Peer{Name: p.Name, Up: p.Up, Last: p.LastAnswer, Region: p.Region, Why: p.Why})
		}
		out = append(out, w)
	}
	return out
}

func lines(list []analog.LineStatus) []web.Line {
	out := make([]web.Line, 0, len(list))
	for _, l := range list {
		w := web.Line{Name: l.Line, Card: l.Card, Kind: l.Kind, Number: l.Number, State: l.State, Hook: "on-hook", Link: l.LinkUp}
		if l.OffHook {
			w.Hook = "off-hook"
		}
		switch {
		case !l.LinkUp:
			w.Fault = l.LinkFault
		case !l.InService:
			w.Fault = l.LastFault
		}
		out = append(out, w)
	}
	return out
}

// cards lists the cards that have lines; the lines of one card agree.
func cards(list []analog.LineStatus) []web.Card {
	out := []web.Card{}
	for _, l := range list {
		if slices.ContainsFunc(out, func(k web.Card) bool { return k.Name == l.Card }) {
			continue
		}
		out = append(out, web.Card{Name: l.Card, Up: l.LinkUp, Fault: l.LinkFault, Firmware: l.Link.Firmware, Sessions: l.Link.Sessions,
			Dropped: map[string]uint64{"bad": l.Link.Bad, "room": l.Link.Dropped, "malformed": l.Link.Malformed}})
	}
	return out
}

func liveCalls(list []call.View) []web.Call {
	out := make([]web.Call, 0, len(list))
	for _, c := range list {
		out = append(out, web.Call{ID: c.ID, Source: c.Source, Target: c.Target, Calling: c.Calling, Called: c.Called,
			Emergency: c.Emergency, State: c.State, Start: c.Start, Answer: c.Answer})
	}
	return out
}

func records(list []cdr.Record) []web.Record {
	out := make([]web.Record, 0, len(list))
	for _, r := range list {
		w := web.Record{ID: r.ID, Start: r.Setup, Seconds: r.Duration().Seconds(), Source: r.Source, Calling: r.Calling.Number,
			Called: r.Called, Cause: r.Cause.String(), Reason: r.Reason, MediaPath: r.MediaPath()}
		if n := len(r.Attempts); n > 0 {
			w.Target = r.Attempts[n-1].Name
		}
		for _, leg := range r.Voice {
			w.Moves += len(leg.Moves)
			if leg.MOS > 0 && (w.MOS == nil || leg.MOS < *w.MOS) {
				w.MOS = &leg.MOS
			}
		}
		out = append(out, w)
	}
	return out
}

func (d *daemon) mediaStatus() web.Media {
	stats := d.media.Stats()
	m := web.Media{Legs: stats.Legs, Dropped: stats.Drops}
	for _, r := range stats.Realms {
		m.Realms = append(m.Realms, web.MediaRealm{Name: r.Realm, Sent: r.PacketsOut, Received: r.PacketsIn, PortsFree: r.PortsFree})
	}
	return m
}

func (d *daemon) markStatus() web.Marks {
	m := web.Marks{Voice: d.marks.DSCP(qos.Voice).String(), Signalling: d.marks.DSCP(qos.Signalling).String()}
	for _, s := range d.egress.Shares() {
		w := web.InterfaceMark{Interface: s.Interface, Applied: s.Applied, Why: s.Why, Marked: s.Voice, Unmarked: s.VoiceUnmarked, Signal: s.Signalling}
		if share, ok := s.Marked(); ok {
			w.Share = &share
		}
		m.Interfaces = append(m.Interfaces, w)
	}
	return m
}

// checks is the rows of /healthz: is the daemon itself well. A trunk whose peer
// is away is not a fault of the daemon.
func (d *daemon) checks(s web.Status) []web.HealthCheck {
	row := func(name string, err error) web.HealthCheck {
		c := web.HealthCheck{Name: name, OK: err == nil}
		if err != nil {
			c.Why = err.Error()
		}
		return c
	}
	var ready error
	select {
	case <-d.sip.Ready():
	default:
		ready = errors.New("not ready yet")
	}
	return []web.HealthCheck{row("sip", ready), row("media", d.media.Alive())}
}

// alive is asked for systemd's watchdog.
func (d *daemon) alive() error {
	for _, c := range d.checks(web.Status{}) {
		if !c.OK {
			return fmt.Errorf("%s: %s", c.Name, c.Why)
		}
	}
	return nil
}
