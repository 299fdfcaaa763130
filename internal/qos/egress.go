package qos

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"syscall"

	"localloop/internal/config"
)

// State says whether the marks are enforced and counted on an interface.
type State struct {
	Interface string
	Applied   bool
	Why       string // if not applied: for people
}

// Share is what left an interface since it was applied.
type Share struct {
	State
	Voice         uint64 // packets of voice with the voice mark
	VoiceUnmarked uint64 // packets of voice with another mark, or none
	OtherEF       uint64 // packets with the voice mark that are not our voice
	Signalling    uint64 // packets with the signalling mark
	Other         uint64
}

// Marked is the part of voice packets that left with the mark, 0 to 1; false if
// there were none or nothing was counted.
func (s Share) Marked() (float64, bool) {
	all := s.Voice + s.VoiceUnmarked
	if !s.Applied || all == 0 {
		return 0, false
	}
	return float64(s.Voice) / float64(all), true
}

// Egress keeps the trees of all configured interfaces. Safe for concurrent use.
type Egress struct {
	kernel Kernel
	log    *slog.Logger

	mu    sync.Mutex
	ifs   []*egressInterface
	owned []string // interfaces on which a tree of ours may stand
}

type egressInterface struct {
	wanted Tree
	state  State
	// The kernel's packet counters are of 32 bits; these go on.
	last  map[uint32]uint32 // as last read; nil before the first reading
	total map[uint32]uint64
}

// NewEgress makes an Egress that works through k. It changes nothing yet.
func NewEgress(k Kernel, log *slog.Logger) *Egress {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Egress{kernel: k, log: log}
}

// Apply makes the interfaces what the configuration wants, reads them back and
// says for each how it went. Called again it changes only what differs, so a
// second call with the same configuration changes nothing. An interface that was
// configured before and is no longer is given back. realms tell the media ports.
func (e *Egress) Apply(c config.QoS, realms []config.Realm) []State {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, name := range slices.Clone(e.owned) {
		if !slices.Contains(c.Interfaces, name) {
			if err := e.remove(name); err != nil {
				e.log.Warn("marks not removed", "interface", name, "err", err)
			}
		}
	}
	var ifs []*egressInterface
	var states []State
	for _, name := range c.Interfaces {
		i := &egressInterface{
			wanted: WantedTree(name, c, portsOn(name, realms)),
			total:  map[uint32]uint64{},
		}
		for _, old := range e.ifs {
			if old.wanted.Interface == name {
				i.last, i.total = old.last, old.total
			}
		}
		err := e.apply(i)
		i.state = State{Interface: name, Applied: err == nil, Why: why(err)}
		if err != nil {
			e.log.Warn("marks not applied", "interface", name, "why", i.state.Why)
		}
		ifs = append(ifs, i)
		states = append(states, i.state)
	}
	e.ifs = ifs
	return states
}

// portsOn lists the media ports of realms that may use an interface.
func portsOn(name string, realms []config.Realm) []config.PortRange {
	var ports []config.PortRange
	for _, r := range realms {
		if (r.Interface == "" || r.Interface == name) && r.Ports.High != 0 && !slices.Contains(ports, r.Ports) {
			ports = append(ports, r.Ports)
		}
	}
	return ports
}

func (e *Egress) apply(i *egressInterface) error {
	name := i.wanted.Interface
	present, err := e.kernel.Read(name)
	if err != nil {
		return err
	}
	plan, err := PlanFor(i.wanted, present)
	if err != nil {
		return err
	}
	i.baseline(present, plan)
	if len(plan.Steps) > 0 && !slices.Contains(e.owned, name) {
		e.owned = append(e.owned, name)
	}
	for _, s := range plan.Steps {
		err := e.kernel.Do(plan.Index, s)
		if err == nil {
			e.log.Debug("marks", "interface", name, "step", s.String())
			continue
		}
		err = fmt.Errorf("%s on %s: %w", s, name, err)
		// Half a tree would count wrong.
		if rerr := e.remove(name); rerr != nil && !errors.Is(rerr, syscall.EPERM) {
			err = errors.Join(err, rerr)
		}
		return err
	}
	return e.readBack(i)
}

// readBack compares what stands with what was wanted.
func (e *Egress) readBack(i *egressInterface) error {
	present, err := e.kernel.Read(i.wanted.Interface)
	if err != nil {
		return err
	}
	left, err := PlanFor(i.wanted, present)
	if err != nil {
		return err
	}
	if len(left.Steps) > 0 {
		return fmt.Errorf("read back %s: %d differences, the first: %s", i.wanted.Interface, len(left.Steps), left.Steps[0])
	}
	i.add(present)
	return nil
}

// baseline decides from where counting starts: classes that are made now start
// at zero, classes that stand from an earlier run of the daemon at what they
// show.
func (i *egressInterface) baseline(present Tree, p Plan) {
	first := i.last == nil
	if first {
		i.last = map[uint32]uint32{}
	}
	for _, c := range present.Classes {
		if first {
			i.last[c.Handle] = c.Packets
		}
	}
	for _, s := range p.Steps {
		switch {
		case s.Qdisc != nil:
			clear(i.last)
		case s.Class != nil && s.Verb != Change:
			delete(i.last, s.Class.Handle)
		}
	}
}

// add takes the counters over, past the end of 32 bits.
func (i *egressInterface) add(present Tree) {
	for _, c := range present.Classes {
		last := i.last[c.Handle]
		if c.Packets < last && last-c.Packets < 1<<31 {
			last = 0 // made anew by somebody; a counter that wrapped falls further
		}
		i.total[c.Handle] += uint64(c.Packets - last)
		i.last[c.Handle] = c.Packets
	}
}

// Shares reads the counters. An interface whose tree is not in place any more is
// reported as not applied; Apply repairs it. It is to be called at least once a
// day, since the kernel's counters have 32 bits.
func (e *Egress) Shares() []Share {
	e.mu.Lock()
	defer e.mu.Unlock()
	var shares []Share
	for _, i := range e.ifs {
		if i.state.Applied {
			if err := e.readBack(i); err != nil {
				i.state = State{Interface: i.wanted.Interface, Why: why(err)}
				e.log.Warn("marks lost", "interface", i.wanted.Interface, "why", i.state.Why)
			}
		}
		shares = append(shares, Share{
			State:         i.state,
			Voice:         i.total[classVoice],
			VoiceUnmarked: i.total[classVoiceUnmarked],
			OtherEF:       i.total[classOtherEF],
			Signalling:    i.total[classSignalling],
			Other:         i.total[classOther],
		})
	}
	return shares
}

// Remove gives all interfaces back to the kernel's default.
func (e *Egress) Remove() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for _, name := range slices.Clone(e.owned) {
		errs = append(errs, e.remove(name))
	}
	e.ifs = nil
	return errors.Join(errs...)
}

func (e *Egress) remove(name string) error {
	present, err := e.kernel.Read(name)
	if err != nil {
		return err
	}
	plan := RemovalPlan(present)
	for _, s := range plan.Steps {
		if err := e.kernel.Do(plan.Index, s); err != nil {
			return fmt.Errorf("%s on %s: %w", s, name, err)
		}
	}
	e.owned = slices.DeleteFunc(e.owned, func(n string) bool { return n == name })
	return nil
}

// why explains an error to people.
func why(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.EPERM):
		return fmt.Sprintf("not applied: %v (needs CAP_NET_ADMIN)", err)
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EOPNOTSUPP):
		return fmt.Sprintf("not applied: %v (the kernel lacks HTB or u32)", err)
	}
	return fmt.Sprintf("not applied: %v", err)
}
