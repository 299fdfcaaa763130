package main

import (
	"context"
	"net"
	"net/netip"

	"localloop/internal/analog"
	"localloop/internal/call"
	"localloop/internal/config"
	"localloop/internal/qos"
	"localloop/internal/sip"
)

// noAddr stands for every address.
var noAddr netip.Addr

// dialers gives each kind of target to the part that dials it.
type dialers struct {
	sip    *sip.Endpoint
	analog *analog.Bank
}

// Dial implements call.Dialer.
func (d dialers) Dial(ctx context.Context, to call.Target, s call.Setup) (call.Leg, error) {
	if to.Kind == call.ToLine {
		return d.analog.Dial(ctx, to, s)
	}
	return d.sip.Dial(ctx, to, s)
}

// isEmergency asks the dial plan in use.
func (d *daemon) isEmergency(number string) bool { return d.plan.Load().Emergency(number) }

// markedListener marks accepted signalling connections.
func (d *daemon) markedListener(l net.Listener) net.Listener {
	return d.marks.Listener(l, qos.Signalling)
}

// router asks the dial plan in use, which a reload replaces.
type router struct{ d *daemon }

// Route implements call.Router.
func (r router) Route(s call.Setup) ([]call.Target, call.Cause) { return r.d.plan.Load().Route(s) }

// Complete implements analog.DialPlan.
func (r router) Complete(from, digits string) int {
	return int(r.d.plan.Load().Complete(from, digits))
}

// health tells the dial plan which trunks and lines can take calls.
type health struct{ d *daemon }

// Usable implements route.Health.
func (h health) Usable(name string) (ok bool, why string) {
	cfg := h.d.config.Load()
	for _, l := range cfg.Lines {
		if l.Name == name {
			return h.lineUsable(name)
		}
	}
	if h.d.sip == nil || !h.d.sip.Healthy(name) {
		return false, "no peer of the trunk answers OPTIONS"
	}
	return true, ""
}

func (h health) lineUsable(name string) (ok bool, why string) {
	for _, s := range h.d.analog.Status() {
		switch {
		case s.Line != name || s.InService:
		case !s.LinkUp:
			return false, s.LinkFault
		default:
			return false, s.LastFault
		}
	}
	return true, ""
}

// realmInterfaces are the interfaces whose links and neighbours are watched.
func realmInterfaces(cfg *config.Config) []string {
	var names []string
	seen := map[string]bool{"": true}
	for _, r := range cfg.Realms {
		if !seen[r.Interface] {
			seen[r.Interface] = true
			names = append(names, r.Interface)
		}
	}
	return names
}
