package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"localloop/internal/media/mediatest"
	"localloop/internal/sip/siptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// standIn is box and phone in one: a SIP peer under the box's name whose media is
// ICE-lite with an address on each side. On silence it restarts ICE with its
// public address. It knows nothing of edged; it lets the standard calls and what
// they measure be tested without it.
type standIn struct {
	peer *siptest.Peer
	wg   sync.WaitGroup

	mu      sync.Mutex
	call    *siptest.Call
	changed chan struct{}
	// faults that a test switches on
	mute, stubborn bool
}

func (s *standIn) set(c *siptest.Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.call = c
	close(s.changed)
	s.changed = make(chan struct{})
}

// current waits until a call stands.
func (s *standIn) current(ctx context.Context) (*siptest.Call, error) {
	for {
		s.mu.Lock()
		c, changed := s.call, s.changed
		s.mu.Unlock()
		if c != nil {
			return c, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// run watches the call: who hears nothing any more moves it.
func (s *standIn) run(ctx context.Context) error {
	defer s.wg.Wait()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	var heard, moved *siptest.Call
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		s.mu.Lock()
		c, stubborn := s.call, s.stubborn
		s.mu.Unlock()
		if c == nil || !c.Established() || stubborn {
			continue
		}
		if c.Media().Hears(teamsHz, 500*time.Millisecond) {
			heard = c
		} else if heard == c && moved != c {
			moved = c
			_, _ = c.Reinvite(ctx, mediatest.Reoffer{Restart: true, Paths: []string{"wan"}})
		}
	}
}

func (s *standIn) linked(ctx context.Context) error {
	_, err := s.peer.Ping(ctx)
	return err
}

func (s *standIn) speak(ctx context.Context, c *siptest.Call) error {
	if err := c.WaitEstablished(ctx); err != nil {
		return err
	}
	if !s.mute {
		c.Media().Say(mediatest.Tone(phoneHz, phoneLevel))
	}
	s.set(c)
	return nil
}

func (s *standIn) answers() {
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), usualLimits.setUp)
		defer cancel()
		if c, err := s.peer.Incoming(ctx); err == nil {
			_ = s.speak(ctx, c)
		}
	})
}

func (s *standIn) dials(ctx context.Context, _ string) error {
	c, err := s.peer.Place(ctx, receptionNumber, internalUser)
	if err != nil {
		return err
	}
	s.wg.Go(func() { // outlives the dialling
		ctx, cancel := context.WithTimeout(context.Background(), usualLimits.setUp)
		defer cancel()
		_ = s.speak(ctx, c)
	})
	return nil
}

func (s *standIn) hears(ctx context.Context) error {
	c, err := s.current(ctx)
	if err != nil {
		return err
	}
	_, err = c.Media().WaitTone(ctx, teamsHz, time.Now())
	return err
}

func (s *standIn) gap(cut time.Time) time.Duration {
	c, err := s.current(context.Background())
	if err != nil {
		return 0
	}
	return c.Media().ToneGap(teamsHz, cut).To.Sub(cut)
}

func (s *standIn) hangUp(ctx context.Context) error {
	s.mu.Lock()
	c := s.call
	s.mu.Unlock()
	s.set(nil)
	if c != nil && c.Established() {
		return c.Bye(ctx)
	}
	return nil
}

func (s *standIn) idle(context.Context) error { return nil }
func (s *standIn) line() string               { return "stand-in" }

type lastLine struct {
	Calls []struct {
		Name, MediaPath, Fault      string
		LAN                         *float64 `json:"lanRtpPackets"`
		WAN                         *float64 `json:"wanRtpPackets"`
		AudioForward, AudioBackward bool
		Cut                         *float64 `json:"cutToAudioMs"`
		MOS                         *float64 `json:"mos"`
		Voice                       *float64 `json:"dscpVoice"`
		OK                          bool
	}
	OK bool
}

// ownNet keeps test processes that run at the same time apart.
func ownNet() byte { return byte(10 + os.Getpid()%240) }

// inLab is once's and cuts' way into a lab.
type inLab = func(use func(context.Context, *lab) error) error

// newStandInLab makes a lab around a stand-in.
func newStandInLab(t *testing.T, net byte, lim limits, change func(*standIn)) (in inLab, done func()) {
	t.Helper()
	a := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{127, ownNet(), net, n}) }
	o := &options{
		Dir: t.TempDir(), LAN: a(10), WAN: a(20), Client: a(11), Cloud: a(30), SIP: 45061, Ports: "20000-20199", HTTP: "127.0.0.1:8080",
		Cut: "client", Talk: 1200 * time.Millisecond, Ready: 30 * time.Second, limits: lim,
	}
	var errOut bytes.Buffer
	term := terminal{&errOut, &errOut}
	if err := (prepareCommand{}).Run(o, term); err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(o.file(name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	box, err := siptest.LoadCertificate(read("box.pem"), read("box.key"))
	if err != nil {
		t.Fatal(err)
	}
	_, roots, err := readKeys(o)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := siptest.StartPeer(siptest.PeerConfig{
		Name: "box", Transport: "tls", Listen: netip.AddrPortFrom(o.WAN, o.SIP), Remote: netip.AddrPortFrom(o.Cloud, o.SIP), Host: boxFQDN,
		Certificate: box, Roots: roots, RemoteName: siptest.ProxyNames[0], Answering: siptest.Answering{RingFor: 20 * time.Millisecond},
		Paths: func(invite *siptest.Message) []string { // the LMO decision table, rows i and j
			if invite != nil && invite.Get("X-MS-UserLocation") == "external" {
				return []string{"wan"}
			}
			return []string{"lan"}
		},
		Media: mediatest.Config{Name: "box", ICE: true, Lite: true, Secure: true, DSCP: 46, RTCPEvery: 200 * time.Millisecond,
			Paths: []mediatest.Path{{Name: "lan", Local: o.LAN}, {Name: "wan", Local: o.WAN}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &standIn{peer: peer, changed: make(chan struct{})}
	if change != nil {
		change(s)
	}
	return func(use func(context.Context, *lab) error) error {
		return withBranch(t.Context(), o, term, o.logger(&errOut), s, use)
	}, peer.Close
}

// runOnce runs the standard calls against a stand-in.
func runOnce(t *testing.T, net byte, lim limits, change func(*standIn)) (lastLine, string, error) {
	t.Helper()
	in, done := newStandInLab(t, net, lim, change)
	defer done()
	var out, errOut bytes.Buffer
	runErr := once(terminal{&out, &errOut}, standardCalls, in)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var last lastLine
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatalf("last line: %v\n%s", err, out.String())
	}
	return last, out.String() + errOut.String(), runErr
}

func TestStandardCallsAreMeasured(t *testing.T) {
	last, text, err := runOnce(t, 21, usualLimits, nil)
	t.Log("\n" + text)
	if err != nil || !last.OK || len(last.Calls) != 4 {
		t.Fatalf("%v", err)
	}
	for i, c := range last.Calls {
		if !c.OK || !c.AudioForward || !c.AudioBackward || c.MOS == nil || c.Voice == nil || *c.Voice != 46 {
			t.Errorf("%+v", c)
		}
		if (c.Cut != nil) != (i == 3) {
			t.Errorf("cut to audio of %q: %v", c.Name, c.Cut)
		}
	}
	in, out, cut := last.Calls[0], last.Calls[2], last.Calls[3]
	if *in.MOS < 4 || *cut.MOS >= *in.MOS { // what the cut lost counts
		t.Errorf("MOS %v on the LAN, %v with a cut", *in.MOS, *cut.MOS)
	}
	if in.MediaPath != "lan" || *in.LAN < 100 || *in.WAN != 0 {
		t.Errorf("internal: %+v", in)
	}
	if out.MediaPath != "cloud" || *out.LAN != 0 || *out.WAN < 100 {
		t.Errorf("external: %+v", out)
	}
	// The stand-in notices after 500 ms at the earliest.
	if cut.MediaPath != "cloud" || *cut.LAN == 0 || *cut.WAN == 0 || *cut.Cut < 400 || *cut.Cut > 10000 {
		t.Errorf("cut: %+v, %v ms", cut, *cut.Cut)
	}
}

func TestFaultyBoxFailsTheCalls(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for voice that does not come")
	}
	for name, tc := range map[string]struct {
		net    byte
		limits limits
		change func(*standIn)
		failed []bool
	}{
		"a phone that nobody hears":          {22, limits{setUp: 30 * time.Second, audio: time.Second, repair: time.Second}, func(s *standIn) { s.mute = true }, []bool{true, true, true, true}},
		"a box that does not move the voice": {23, limits{setUp: 30 * time.Second, audio: 10 * time.Second, repair: 1500 * time.Millisecond}, func(s *standIn) { s.stubborn = true }, []bool{false, false, false, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			last, text, err := runOnce(t, tc.net, tc.limits, tc.change)
			if err == nil || last.OK {
				t.Errorf("passed\n%s", text)
			}
			for i, c := range last.Calls {
				if c.OK == tc.failed[i] || c.OK != (c.Fault == "") {
					t.Errorf("call %d: %+v", i, c)
				}
			}
		})
	}
}
