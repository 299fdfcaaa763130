package bypass

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v4"
)

// forger makes datagrams that an outsider can make: he may know our ufrag, which
// travels in the clear, and not our password.
type forger struct {
	r    *rand.Rand
	good []byte
	a    *Agent
}

func (f *forger) datagram() []byte {
	switch f.r.IntN(5) {
	case 0: // noise
		b := make([]byte, f.r.IntN(1500))
		for i := range b {
			b[i] = byte(f.r.Uint32())
		}
		return b
	case 1: // noise with a STUN header
		b := make([]byte, headerSize+4*f.r.IntN(300))
		for i := range b {
			b[i] = byte(f.r.Uint32())
		}
		b[0], b[1] = 0, 1
		b[2], b[3] = byte((len(b)-headerSize)>>8), byte(len(b)-headerSize)
		copy(b[4:], []byte{0x21, 0x12, 0xA4, 0x42})
		return b
	case 2: // a good check with one to three bytes changed, not only in FINGERPRINT
		b := bytes.Clone(f.good)
		for i := range 1 + f.r.IntN(3) {
			at := f.r.IntN(len(b))
			if i == 0 {
				at = f.r.IntN(len(b) - 8)
			}
			b[at] ^= byte(1 + f.r.IntN(255))
		}
		if bytes.Equal(b[:len(b)-8], f.good[:len(b)-8]) {
			b[0] ^= 0xff // two changes have met
		}
		return b
	case 3: // cut short
		return f.good[:f.r.IntN(len(f.good))]
	default: // well formed, with a guessed password and a new fork each time
		return request(&Agent{ufrag: f.a.ufrag, pwd: fmt.Sprint("guess", f.r.Uint64())},
			fmt.Sprint("f", f.r.Uint64()), f.r.Uint32(), useCandidate)
	}
}

func (f *forger) source() netip.AddrPort {
	ip := f.r.Uint32()
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(ip >> 24), byte(ip >> 16), byte(ip >> 8), byte(ip)}), uint16(1+f.r.IntN(65535)))
}

// TestForgedFloodLeavesNoTrace sends what an outsider can send (C-111, C-151)
// while a session runs, and looks for answers, goroutines, memory and harm.
func TestForgedFloodLeavesNoTrace(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		check(t, a, w, "fork", host, hostPriority)
		check(t, a, w, "fork", host, hostPriority, useCandidate)
		wantPair(t, w, host, true, "fork")
		pairs := len(w.selected)
		f := &forger{r: rand.New(rand.NewPCG(seed, 1)), good: request(a, "fork", 1, controlling), a: a}
		flood := func() {
			for range 10_000 {
				a.Handle(f.datagram(), f.source())
			}
		}
		flood()
		goroutines, heap := runtime.NumGoroutine(), heapInUse()
		flood()
		if n := runtime.NumGoroutine(); n != goroutines || n > 12 {
			t.Errorf("%d goroutines after the flood, %d before", n, goroutines)
		}
		if grown := int64(heapInUse()) - int64(heap); grown > 1<<20 {
			t.Errorf("heap grew by %d bytes", grown)
		}
		noAnswer(t, w, "forged flood")
		s := a.Stats()
		if s.Panics != 0 || s.Answered != 2 || len(s.Forks) != 1 || s.Forks[0].Sources != 1 || len(w.selected) != pairs {
			t.Errorf("the flood left a trace: %+v", s)
		}
		if dropped := s.Malformed + s.NotRequest + s.Username + s.Integrity + s.Fingerprint; dropped != 20_000 {
			t.Errorf("%d datagrams counted as dropped, want 20000: %+v", dropped, s)
		}
		if s.Integrity < 1000 || s.Malformed < 1000 {
			t.Errorf("the flood did not reach the checks it is meant for: %+v", s)
		}
		check(t, a, w, "fork", srflx, srflxPriority, useCandidate)
	})
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestInsiderIsBounded lets somebody who knows the password open forks and
// sources without end.
func TestInsiderIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		check(t, a, w, "real", host, hostPriority, useCandidate)
		_ = a.SetRemote(teamsICE("real"))
		f := &forger{r: rand.New(rand.NewPCG(1, 2)), a: a}
		for i := range 500 {
			a.Handle(request(a, fmt.Sprint("fork", i), 1, controlling), f.source())
			a.Handle(request(a, "fork1", 1, controlling), f.source())
		}
		synctest.Wait()
		s := a.Stats()
		sources := 0
		for _, f := range s.Forks {
			sources += f.Sources
		}
		if len(s.Forks) != maxForks || sources != maxSources || s.Limit == 0 {
			t.Errorf("%d forks, %d sources, %d refused", len(s.Forks), sources, s.Limit)
		}
		if n := runtime.NumGoroutine(); n > 10+5*maxForks {
			t.Errorf("%d goroutines", n)
		}
		w.take()
		wantPair(t, w, host, true, "real")

		// The answer of a further fork finds its place even now.
		if err := a.SetRemote(teamsICE("answer")); err != nil {
			t.Fatal(err)
		}
		if got := a.Stats().Forks; len(got) != maxForks || got[maxForks-1].RemoteUfrag != "answer" {
			t.Errorf("forks %+v", got)
		}
	})
}

// TestRoamingPhoneIsServedAllDay has a phone whose NAT gives it a new port every
// half minute: places are taken over from ports that have fallen silent, and pion
// is renewed before it remembers too many.
func TestRoamingPhoneIsServedAllDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		for i := range 3 * maxFed {
			from := netip.AddrPortFrom(srflx.Addr(), uint16(20000+i))
			check(t, a, w, "roam", from, 100)
			check(t, a, w, "roam", from, 100, useCandidate)
			wantPair(t, w, from, true, "roam")
			time.Sleep(30 * time.Second)
		}
		if s := a.Stats(); s.Forks[0].Sources > maxSources || s.Limit+s.Busy != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestBusyForkLeavesNominationsToBeRepeated fills a fork's backlog: the peer must
// not be told success for a nomination that nobody has seen.
func TestBusyForkLeavesNominationsToBeRepeated(t *testing.T) {
	a, w := newAgent(t)
	defer closeNow(t, a)
	a.mu.Lock()
	f := a.openFork("slow", time.Now(), false)
	f.conn, f.fed = newConn(a), map[netip.AddrPort]struct{}{} // nobody reads it
	a.mu.Unlock()
	for i := range backlog + 5 {
		a.Handle(request(a, "slow", 1, controlling, useCandidate), host)
		if got, want := len(w.take()) == 1, i < backlog; got != want {
			t.Fatalf("check %d answered: %v, want %v", i, got, want)
		}
	}
	if s := a.Stats(); s.Busy != 5 || s.Answered != backlog {
		t.Errorf("stats %+v", s)
	}
}

func TestIsSTUNFollowsRFC7983(t *testing.T) {
	check := stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw
	for first, want := range map[byte]bool{0: true, 1: true, 3: true, 4: false, 20: false, 63: false, 64: false, 128: false, 191: false} {
		b := bytes.Clone(check)
		b[0] = first
		if IsSTUN(b) != want {
			t.Errorf("first byte %d: %v", first, !want)
		}
	}
	rtp := append([]byte{0x80, 8, 0, 1}, check[4:]...)
	if IsSTUN(rtp) || IsSTUN(check[:19]) || IsSTUN(nil) {
		t.Error("RTP or a fragment taken for STUN")
	}
}

func TestLocalUfragOfForeignBytes(t *testing.T) {
	user := func(s string) []byte {
		return stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername(s)).Raw
	}
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"plain":         {user("ours:theirs"), "ours"},
		"two colons":    {user("ours:their:s"), "ours"},
		"no colon":      {user("ours"), ""},
		"empty left":    {user(":theirs"), ""},
		"empty right":   {user("ours:"), ""},
		"no username":   {stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw, ""},
		"response":      {stun.MustBuild(stun.TransactionID, stun.BindingSuccess, stun.NewUsername("ours:theirs")).Raw, ""},
		"cut":           {user("ours:theirs")[:28], ""},
		"behind others": {stun.MustBuild(stun.TransactionID, stun.BindingRequest, implementationVersion, stun.NewUsername("ours:x")).Raw, "ours"},
	} {
		got, ok := LocalUfrag(c.b)
		if string(got) != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q %v", name, got, ok)
		}
	}
	b := user("ours:theirs")
	if n := testing.AllocsPerRun(100, func() { LocalUfrag(b) }); n != 0 {
		t.Errorf("LocalUfrag allocates %v times", n)
	}
}

// FuzzHandle feeds foreign bytes, as they are and signed with our password, so
// that what lies behind the authentication is reached as well.
func FuzzHandle(f *testing.F) {
	seedAgent := &Agent{ufrag: "LOCALFRG", pwd: "aNWGmNgrU8N0MXN1r3ZPgypi"}
	f.Add(request(seedAgent, "QUEP", 1, controlling), false)
	f.Add(request(seedAgent, "QUEP", 1, controlling, useCandidate, implementationVersion, candidateIdentifier), true)
	f.Add(request(seedAgent, "QUEP", 1, controlled), true)
	f.Add(request(seedAgent, "QUEP", 1, number(0x7AAA, 1)), true)
	f.Add(stun.MustBuild(stun.TransactionID, stun.BindingSuccess, flag(stun.AttrXORMappedAddress)).Raw, false)
	f.Add([]byte{0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42}, false)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		w := &wire{}
		a, err := New(Options{Candidate: public, Send: w.send, Selected: w.choose, Rand: bytes.NewReader(bytes.Repeat([]byte{7}, 64))})
		if err != nil {
			t.Fatal(err)
		}
		if sign && len(b) >= headerSize && len(b) < 1000 {
			m := &stun.Message{Raw: bytes.Clone(b)}
			if m.Decode() == nil {
				signed := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername(a.ufrag+":fork"))
				for _, attr := range m.Attributes {
					if attr.Type != stun.AttrMessageIntegrity && attr.Type != stun.AttrFingerprint {
						signed.Add(attr.Type, attr.Value)
					}
				}
				_ = stun.NewShortTermIntegrity(a.pwd).AddTo(signed)
				_ = stun.Fingerprint.AddTo(signed)
				b = signed.Raw
			}
		}
		LocalUfrag(b)
		before := bytes.Clone(b)
		a.Handle(b, host)
		a.Handle(b, srflx)
		if !bytes.Equal(b, before) {
			t.Error("Handle changed the datagram")
		}
		s := a.Stats()
		if s.Panics != 0 {
			t.Error("parser fault")
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		for _, d := range w.take() {
			if d.b[0]&1 == 0 && d.b[1]&0x10 == 0 {
				t.Errorf("a request left: % x", d.b)
			}
			if s.Answered+s.UnknownAttribute+s.RoleConflict == 0 {
				t.Error("an answer to something that is not authenticated")
			}
		}
	})
}
