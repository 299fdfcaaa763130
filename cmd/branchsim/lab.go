package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os/exec"
	"time"

	"golang.org/x/sync/errgroup"

	"localloop/internal/media/mediatest"
	"localloop/internal/sip/siptest"
)

// Teams users of the tenant.
const (
	internalUser = "+493055520" // sits in the branch
	externalUser = "+493055530" // elsewhere
	dialInternal = "03055520"   // as the phone dials it
)

const expedited = 46 // DSCP EF, what a Teams client with QoS switched on sets

// branch is what the standard calls need of the phones behind the box: the line
// card, or in tests a stand-in for card and box together.
type branch interface {
	run(ctx context.Context) error
	linked(ctx context.Context) error // the box knows its lines
	answers()                         // the phone is lifted when it rings, and speaks phoneHz
	dials(ctx context.Context, number string) error
	hears(ctx context.Context) error // teamsHz
	gap(cut time.Time) time.Duration // from cut to the end of the silence that it caused
	hangUp(ctx context.Context) error
	idle(ctx context.Context) error
	line() string
}

// lab is the composed other side.
type lab struct {
	o       *options
	teams   *siptest.Teams
	card    branch
	capture *capture
	log     *slog.Logger
}

// withLab builds the other side, runs it, waits for edged, calls use, and takes
// everything down again.
func withLab(ctx context.Context, o *options, t terminal, use func(context.Context, *lab) error) (err error) {
	log := o.logger(t.err)
	card, err := newLineCard(o.tty(), log)
	if err != nil {
		return err
	}
	return withBranch(ctx, o, t, log, card, use)
}

func (o *options) logger(w io.Writer) *slog.Logger {
	level := slog.LevelError
	if o.Verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// withBranch is withLab with the phones given.
func withBranch(ctx context.Context, o *options, t terminal, log *slog.Logger, card branch, use func(context.Context, *lab) error) (err error) {
	if o.limits == (limits{}) {
		o.limits = usualLimits
	}
	certificate, roots, err := readKeys(o)
	if err != nil {
		return err
	}
	l := &lab{o: o, log: log, card: card}
	l.teams, err = siptest.StartTeams(siptest.TeamsConfig{
		Proxies: o.proxies(), Sources: []netip.Addr{o.Cloud}, Certificate: certificate, Roots: roots,
		Trunks:     []siptest.Trunk{{FQDN: boxFQDN, Address: netip.AddrPortFrom(o.WAN, o.SIP), LMO: true}},
		Users:      []siptest.User{o.internal(log), o.external(log)},
		NoTransfer: true, Confirm: true, OptionsEvery: 10 * time.Second, Log: log,
	})
	if err != nil {
		return err
	}
	defer l.teams.Close()
	l.capture = openCapture(o)
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	defer func() {
		cancel()
		if werr := group.Wait(); err == nil && werr != nil {
			err = werr
		}
	}()
	group.Go(func() error { return l.card.run(ctx) })
	group.Go(func() error { l.capture.run(ctx); return nil })
	if err := l.ready(ctx, t.err); err != nil {
		return err
	}
	return use(ctx, l)
}

// ready waits until edged has found its peers.
func (l *lab) ready(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, l.o.Ready)
	defer cancel()
	fmt.Fprintf(w, "waiting for edged: trunk %s at %s, card at %s\n", boxFQDN, netip.AddrPortFrom(l.o.WAN, l.o.SIP), l.o.tty())
	if err := l.card.linked(ctx); err != nil {
		return fmt.Errorf("edged does not talk to the line card: %w", err)
	}
	if err := l.teams.WaitActive(ctx, boxFQDN); err != nil {
		return fmt.Errorf("edged's Teams trunk is not active: %w", err)
	}
	if l.o.Status != "" {
		if err := l.o.waitStatus(ctx); err != nil {
			return fmt.Errorf("edged is not ready for calls: %w", err)
		}
	}
	return nil
}

func host(a netip.Addr) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())} }

// internal has a socket on the LAN, and one at a relay in the cloud, which does
// not reach the box's LAN address whatever the kernel here would deliver.
func (o *options) internal(log *slog.Logger) siptest.User {
	return siptest.User{
		Number: internalUser, Name: "Anna (in the building)", Location: "internal", Site: "branch-1",
		Media: o.client("anna", log,
			mediatest.Path{Name: "lan", Local: o.Client, Netns: o.LANNetns, Reaches: host(o.LAN)},
			mediatest.Path{Name: "wan", Local: o.Cloud, Reaches: host(o.WAN), Relay: true}),
		Answering: siptest.Answering{RingFor: 500 * time.Millisecond},
	}
}

func (o *options) external(log *slog.Logger) siptest.User {
	return siptest.User{
		Number: externalUser, Name: "Emil (elsewhere)", Location: "external",
		Media:     o.client("emil", log, mediatest.Path{Name: "wan", Local: o.Cloud, Reaches: host(o.WAN)}),
		Answering: siptest.Answering{RingFor: 500 * time.Millisecond},
	}
}

func (o *options) client(name string, log *slog.Logger, paths ...mediatest.Path) mediatest.Config {
	for i := range paths {
		paths[i].Impair = mediatest.Impairment{Delay: o.Delay, Jitter: o.Jitter, Loss: o.Loss, Corrupt: o.Corrupt}
	}
	return mediatest.Config{
		Name: name, Paths: paths, ICE: true, Secure: true, Teams: true, DSCP: expedited, Log: log,
		Extra: []mediatest.Codec{{PayloadType: 104, Name: "SILK/16000"}, {PayloadType: 9, Name: "G722/8000"}},
		// Calls here are short: a report each second gives a round trip time.
		RTCPEvery: time.Second,
	}
}

// cut breaks the LAN path of a call; restore mends it.
func (l *lab) cut(c *mediatest.Client) error {
	switch l.o.cutKind() {
	case "link":
		return l.link(false)
	case "command":
		return shell(l.o.CutWith)
	}
	c.Cut("lan")
	return nil
}

func (l *lab) restore(c *mediatest.Client) error {
	switch l.o.cutKind() {
	case "link":
		return l.link(true)
	case "command":
		return shell(l.o.Mend)
	}
	c.Restore("lan")
	return nil
}

func (o *options) cutKind() string {
	switch {
	case o.Cut != "auto":
		return o.Cut
	case o.LANIf != "":
		return "link"
	}
	return "client"
}

func (l *lab) link(up bool) error {
	return mediatest.InNetns(l.o.LANNetns, func() error { return setLink(l.o.LANIf, up) })
}

func shell(command string) error {
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, out)
	}
	return nil
}
