package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"localloop/internal/analog"
	"localloop/internal/call"
	"localloop/internal/cdr"
	"localloop/internal/config"
	"localloop/internal/media"
	"localloop/internal/netcfg"
	"localloop/internal/qos"
	"localloop/internal/route"
	"localloop/internal/sip"
	"localloop/internal/web"
)

// daemon is all parts of edged, joined. It is built whole before anything runs.
type daemon struct {
	log   *slog.Logger
	since time.Time

	config  atomic.Pointer[config.Config]
	loaded  atomic.Pointer[web.ConfigState]
	plan    atomic.Pointer[route.Plan]
	reloads sync.Mutex // one reload at a time

	marks  qos.Marks
	kernel *qos.Netlink
	egress *qos.Egress
	watch  *netcfg.Watch
	media  *media.Engine
	sip    *sip.Endpoint
	analog *analog.Bank
	calls  *call.Switch
	cdr    *cdr.Store
	web    *web.Server
	http   net.Listener
	super  supervisor
}

// build makes the parts and joins them. It opens the HTTP listener, so that a
// second daemon on the same box fails here; nothing is sent or received before
// run, which is owed to a daemon that was built.
func build(cfg *config.Config, log *slog.Logger) (_ *daemon, err error) {
	d := &daemon{log: log, since: time.Now(), super: supervisor{log}}
	d.setConfig(cfg, "")
	defer func() {
		if err != nil && d.kernel != nil {
			d.kernel.Close()
		}
	}()

	plan, err := route.New(cfg, health{d})
	if err != nil {
		return nil, err
	}
	d.plan.Store(plan)
	d.marks = qos.NewMarks(cfg.QoS)

	d.cdr = cdr.New(cfg.CDR, cdr.Options{Logger: log.With("part", "cdr")})
	if d.analog, err = analog.New(analog.Options{
		Box: cfg.Box, Cards: cfg.Cards, Lines: cfg.Lines,
		Accept: d.accept, Plan: router{d}, Log: log.With("part", "analog"),
	}); err != nil {
		return nil, err
	}
	if d.media, err = media.New(media.Options{
		Realms: cfg.Realms, Media: cfg.Media, Lines: d.line,
		Control: d.marks.Control(qos.Voice), Log: log.With("part", "media"),
	}); err != nil {
		return nil, err
	}
	if d.sip, err = sip.New(sip.Options{
		Teams: cfg.Teams, SIP: cfg.SIP, Box: cfg.Box, Accept: d.accept, Emergency: d.isEmergency,
		Control: d.marks.Control(qos.Signalling), Listener: d.markedListener, Version: versionText(), Log: log.With("part", "sip"),
	}); err != nil {
		return nil, err
	}
	d.calls = call.New(call.Options{
		Router: router{d}, Dialer: dialers{d.sip, d.analog}, Bridges: bridges{d.media},
		Limits:   call.Limits{Seize: cfg.Calls.Seize, TryNext: cfg.Calls.TryNext, Ring: cfg.Calls.Ring, Lost: cfg.Calls.Lost},
		MaxCalls: cfg.Box.MaxCalls, Ended: d.ended, Trouble: d.voiceTrouble, Log: log.With("part", "call"),
	})
	if d.kernel, err = qos.NewNetlink(); err != nil {
		return nil, fmt.Errorf("marks: %w", err)
	}
	d.egress = qos.NewEgress(d.kernel, log.With("part", "qos"))
	d.watch = netcfg.New(netcfg.Options{Kernel: netcfg.Netlink{}, Interfaces: realmInterfaces(cfg), Log: log.With("part", "netcfg")})
	d.web = web.New(web.Options{Source: d, Log: log.With("part", "web")})
	if d.http, err = net.Listen("tcp", cfg.Box.HTTP.String()); err != nil {
		return nil, fmt.Errorf("status page: %w (is another edged running?)", err)
	}
	return d, nil
}

// accept hands an incoming leg to the Switch. The Switch is built after the
// parts that call this, which run only after build.
func (d *daemon) accept(l call.Leg) { d.calls.Accept(l) }

// line gives package media the voice of an analog line.
func (d *daemon) line(name string) (media.Line, bool) {
	v, ok := d.analog.Voice(name)
	if !ok {
		return nil, false // not a nil *Voice in a non-nil interface
	}
	return v, true
}

// ended keeps the record of a call.
func (d *daemon) ended(s call.Summary) { d.cdr.Add(cdr.FromSummary(s)) }

// voiceTrouble refuses new calls of a trunk for a while, so that Teams takes the
// non-bypass trunk (C-144).
func (d *daemon) voiceTrouble(trunk, why string) {
	for _, t := range d.config.Load().Teams {
		if t.Name == trunk && t.Failover.RefuseFor > 0 {
			d.sip.Refuse(trunk, time.Now().Add(t.Failover.RefuseFor), why)
		}
	}
}

// run runs all parts until ctx ends or one of them fails, then drains. hurry, or
// a failure, ends the drain early.
func (d *daemon) run(ctx context.Context, reload <-chan struct{}, hurry <-chan struct{}) error {
	// The parts outlive ctx, and the failure of one of them, by the drain: calls
	// must be able to end properly and leave their records.
	partsCtx, stopParts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopParts()
	g, failed := errgroup.WithContext(partsCtx)

	part := func(name string, f func(context.Context) error) {
		g.Go(func() error {
			if err := f(partsCtx); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	d.applyMarks()
	defer d.kernel.Close()
	defer d.removeMarks()
	part("records", d.cdr.Run)
	part("media", d.media.Run)
	part("network", d.watch.Run)
	part("analog", d.analog.Run)
	part("sip", d.sip.Run)
	part("web", func(ctx context.Context) error { return d.web.Run(ctx, d.http) })
	part("watchdog", func(ctx context.Context) error { return d.super.watchdog(ctx, d.alive) })
	part("events", func(ctx context.Context) error { d.networkEvents(ctx); return nil })

	g.Go(func() error {
		defer stopParts()
		select {
		case <-d.sip.Ready():
		case <-ctx.Done():
			return nil
		case <-failed.Done():
			return nil
		}
		d.super.ready()
		d.super.status("%d trunk(s), %d line(s)", len(d.config.Load().Teams)+len(d.config.Load().SIP), len(d.config.Load().Lines))
		d.log.Info("ready", "version", versionText(), "status", "http://"+d.http.Addr().String()+"/")
		for {
			select {
			case <-reload:
				d.reload(ctx)
			case <-ctx.Done():
				d.drain(hurry, failed.Done())
				return nil
			case <-failed.Done():
				d.log.Error("a part has failed: all calls are ended", "calls", len(d.calls.Calls()))
				d.drain(hurry, failed.Done())
				return nil
			}
		}
	})
	return g.Wait()
}

// drain refuses new calls and lets the running ones end, those that are left at
// the limit, on hurry or once a part has failed by a release.
func (d *daemon) drain(hurry, failed <-chan struct{}) {
	limit := d.config.Load().Box.DrainTimeout
	d.super.stopping()
	if n := len(d.calls.Calls()); n > 0 {
		d.log.Info("waiting for calls to end; a second signal ends them", "calls", n, "at most", limit)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-hurry:
			cancel()
		case <-failed:
			cancel()
		case <-stop:
		}
	}()
	d.calls.Drain(ctx)
}

// applyMarks enforces and counts marks on the interfaces. What the kernel refuses
// is logged and shown; the marks set on sockets do not need it.
func (d *daemon) applyMarks() {
	cfg := d.config.Load()
	for _, s := range d.egress.Apply(cfg.QoS, cfg.Realms) {
		if s.Applied {
			d.log.Info("voice marks are enforced and counted", "interface", s.Interface)
		} else {
			d.log.Warn("voice marks are not enforced; sockets still set them", "interface", s.Interface, "why", s.Why)
		}
	}
}

func (d *daemon) removeMarks() {
	if err := d.egress.Remove(); err != nil {
		d.log.Warn("classes of the interfaces were not removed", "err", err)
	}
}

// networkEvents carries what the kernel says to the voice: a leg whose link or
// neighbour is gone need not wait for silence.
func (d *daemon) networkEvents(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-d.watch.Events():
			if !ok {
				return
			}
			why := ""
			switch ev.Kind {
			case netcfg.LinkDown:
				why = "link " + ev.Interface + " down"
			case netcfg.NeighbourFailed:
				why = "neighbour " + ev.Addr.String() + " does not answer on " + ev.Interface
			case netcfg.LinkUp:
				d.applyMarks() // a link that was made anew has lost its classes
				continue
			case netcfg.AddressGone:
				why = "address " + ev.Addr.String() + " gone from " + ev.Interface
			default:
				continue
			}
			for _, r := range d.config.Load().Realms {
				if r.Interface != ev.Interface {
					continue
				}
				switch ev.Kind {
				case netcfg.NeighbourFailed:
					d.media.PathBroken(r.Name, ev.Addr, why)
				case netcfg.AddressGone:
					if ev.Addr != r.Address {
						continue
					}
					fallthrough
				default:
					d.media.PathBroken(r.Name, noAddr, why)
				}
			}
		}
	}
}
