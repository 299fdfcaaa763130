package media

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"math"
	mrand "math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"localloop/internal/config"
	"localloop/internal/dsp"
	"localloop/internal/media/wire"
	"localloop/internal/sdp"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an Engine on loops and sockets of memory, in virtual time.
type rig struct {
	t     testing.TB
	e     *Engine
	b     *Bridge
	now   time.Time
	loop  *memLoop
	lines map[string]*memLine
	got   []Event
	peers []*memPeer
}

// memLoop is a wire.Loop that the test drives.
type memLoop struct {
	mu     sync.Mutex
	posted []func(time.Time)
	ended  bool
	work   wire.Work
	due    time.Time
	rung   bool
	socks  map[netip.AddrPort]*memSocket
	rig    *rig
	counts wire.Counts
}

type memSocket struct {
	l     *memLoop
	local netip.AddrPort
	to    wire.Receiver
	open  bool
	last  []byte
}

func (s *memSocket) Local() netip.AddrPort { return s.local }
func (s *memSocket) Close() error {
	s.open = false
	delete(s.l.socks, s.local)
	return nil
}

func (s *memSocket) Send(b []byte, to netip.AddrPort) error {
	for _, p := range s.l.rig.peers {
		if to == p.addr || to == p.rtcpAddr() {
			p.receive(s.local, to, b)
			return nil
		}
	}
	s.last = append(s.last[:0], b...)
	return nil
}

func (l *memLoop) Run(context.Context) error { return nil }
func (l *memLoop) Loops() []wire.Loop        { return []wire.Loop{l} }
func (l *memLoop) Listen(a netip.AddrPort, _ wire.Control) (wire.Socket, error) {
	if l.socks[a] != nil {
		return nil, io.ErrClosedPipe
	}
	s := &memSocket{l: l, local: a, open: true}
	l.socks[a] = s
	return s, nil
}
func (l *memLoop) Post(f func(time.Time)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return wire.ErrClosed
	}
	l.posted = append(l.posted, f)
	return nil
}
func (l *memLoop) Ring()                                       { l.rung = true }
func (l *memLoop) SetWork(w wire.Work)                         { l.work = w }
func (l *memLoop) Counts() *wire.Counts                        { return &l.counts }
func (l *memLoop) Attach(s wire.Socket, r wire.Receiver) error { s.(*memSocket).to = r; return nil }
func (l *memLoop) Detach(s wire.Socket)                        { _ = s.Close() }
func (l *memLoop) datagram(now time.Time, s *memSocket, b []byte, from netip.AddrPort) {
	buf := make([]byte, len(b), len(b)+wire.Room)
	copy(buf, b)
	s.to.Datagram(now, s, buf, from)
}

// memLine is an analog line of memory.
type memLine struct {
	sink  func([]int16)
	heard []int16
	on    bool
}

func (l *memLine) Attach(sink func([]int16)) { l.sink, l.on = sink, true }
func (l *memLine) Write(f []int16)           { l.heard = append(l.heard, f...) }
func (l *memLine) Detach()                   { l.on = false }

func newRig(t testing.TB, change ...func(*Options)) *rig {
	t.Helper()
	const seed = 42
	r := &rig{t: t, now: time.Unix(1_700_000_000, 0), lines: map[string]*memLine{"line-1": {}, "line-2": {}}}
	r.loop = &memLoop{socks: map[netip.AddrPort]*memSocket{}, rig: r}
	src := mrand.NewChaCha8([32]byte{seed})
	o := Options{
		Realms: []config.Realm{
			{Name: "lan", Address: netip.MustParseAddr("10.0.0.1"), Ports: config.PortRange{Low: 20000, High: 20099}},
			{Name: "wan", Address: netip.MustParseAddr("192.0.2.1"), Advertise: netip.MustParseAddr("198.51.100.1"), Ports: config.PortRange{Low: 30000, High: 30099}, Cloud: true},
		},
		Lines: func(name string) (Line, bool) { l, ok := r.lines[name]; return l, ok },
		Clock: func() time.Time { return r.now }, Rand: src, Log: slog.New(slog.DiscardHandler),
		Failover: config.Failover{DeadAfter: 1200 * time.Millisecond, DeadSilent: 12 * time.Second},
	}
	for _, f := range change {
		f(&o)
	}
	var err error
	if r.e, err = newEngine(o, r.loop); err != nil {
		t.Fatal(err)
	}
	if r.b, err = r.e.Open("call-1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.close()
		r.e.ending.Wait()
	})
	return r
}

// close closes the bridge and returns its report by leg.
func (r *rig) close() map[string]LegReport {
	r.pump()
	r.loop.mu.Lock()
	r.loop.ended = true
	r.loop.mu.Unlock()
	m := map[string]LegReport{}
	for _, l := range r.b.Close().Legs {
		m[l.Leg] = l
	}
	return m
}

func (r *rig) pump() {
	for {
		r.loop.mu.Lock()
		list := r.loop.posted
		r.loop.posted = nil
		r.loop.mu.Unlock()
		if len(list) == 0 {
			break
		}
		for _, f := range list {
			f(r.now)
		}
		r.loop.due = r.loop.work.Tick(r.now)
	}
	if r.loop.rung {
		r.loop.rung = false
		r.loop.work.Rung(r.now)
	}
	if d := r.loop.work.Due(); !d.IsZero() && !r.now.Before(d) {
		r.loop.work.Tick(r.now)
	}
	for {
		select {
		case e, ok := <-r.b.ch:
			if !ok {
				return
			}
			r.got = append(r.got, e)
		default:
			return
		}
	}
}

// run lets time pass in steps of 10 ms; each calls f before.
func (r *rig) run(d time.Duration, f func(step int)) {
	for i := range int(d / (10 * time.Millisecond)) {
		if f != nil {
			f(i)
		}
		r.pump()
		r.now = r.now.Add(10 * time.Millisecond)
	}
	r.pump()
}

// memPeer is an RTP party with an address, written anew here: it shares no code
// with what it judges.
type memPeer struct {
	r       *rig
	addr    netip.AddrPort
	to      netip.AddrPort // where it sends
	pt      uint8
	law     dsp.Law
	ssrc    uint32
	seq     uint16
	ts      uint32
	phase   float64
	hz      float64
	packets []received
	rtcp    [][]byte
	open    func([]byte) []byte // SRTP, nil if none
	seal    func([]byte) []byte
}

type received struct {
	at      time.Time
	from    netip.AddrPort
	pt      uint8
	marker  bool
	seq     uint16
	ts      uint32
	ssrc    uint32
	payload []byte
}

func (r *rig) peer(addr string, hz float64) *memPeer {
	p := &memPeer{r: r, addr: netip.MustParseAddrPort(addr), pt: 8, ssrc: uint32(len(r.peers)+1) * 1111, seq: uint16(60000 + len(r.peers)*5000), ts: 4_000_000_000, hz: hz}
	r.peers = append(r.peers, p)
	return p
}

func (p *memPeer) rtcpAddr() netip.AddrPort {
	return netip.AddrPortFrom(p.addr.Addr(), p.addr.Port()+1)
}

func (p *memPeer) receive(from, to netip.AddrPort, b []byte) {
	b = bytes.Clone(b)
	if to == p.rtcpAddr() || b[1] >= 192 && b[1] <= 223 && b[0]>>6 == 2 {
		p.rtcp = append(p.rtcp, b)
		return
	}
	if b[0] < 4 {
		return // STUN
	}
	if p.open != nil {
		if b = p.open(b); b == nil {
			p.r.t.Errorf("%v: a packet does not decrypt", p.addr)
			return
		}
	}
	p.packets = append(p.packets, received{at: p.r.now, from: from, pt: b[1] & 0x7F, marker: b[1]&0x80 != 0, seq: binary.BigEndian.Uint16(b[2:]),
		ts: binary.BigEndian.Uint32(b[4:]), ssrc: binary.BigEndian.Uint32(b[8:]), payload: b[12:]})
}

// raw sends bytes to the box.
func (p *memPeer) raw(b []byte) { p.rawFrom(p.addr, b) }

func (p *memPeer) rawFrom(from netip.AddrPort, b []byte) {
	s := p.r.loop.socks[p.to]
	if s == nil || s.to == nil {
		return
	}
	p.r.loop.datagram(p.r.now, s, b, from)
}

func (p *memPeer) rtp(pt uint8, marker bool, payload []byte) []byte {
	b := make([]byte, 12, 12+len(payload)+16)
	b[0], b[1] = 0x80, pt
	if marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], p.seq)
	binary.BigEndian.PutUint32(b[4:], p.ts)
	binary.BigEndian.PutUint32(b[8:], p.ssrc)
	b = append(b, payload...)
	p.seq++
	if p.seal != nil {
		b = p.seal(b)
	}
	return b
}

// talk sends 20 ms of the peer's tone.
func (p *memPeer) talk() {
	pcm := p.sound(160)
	payload := make([]byte, 160)
	p.law.Encode(payload, pcm)
	p.raw(p.rtp(p.pt, false, payload))
	p.ts += 160
}

func (p *memPeer) sound(n int) []int16 {
	pcm := make([]int16, n)
	for i := range pcm {
		pcm[i] = int16(9000 * math.Sin(p.phase))
		p.phase += 2 * math.Pi * p.hz / 8000
	}
	return pcm
}

// heard decodes what came with a payload type.
func (p *memPeer) heard(pt uint8, law dsp.Law) []int16 {
	var pcm []int16
	for _, k := range p.packets {
		if k.pt == pt {
			x := make([]int16, len(k.payload))
			law.Decode(x, k.payload)
			pcm = append(pcm, x...)
		}
	}
	return pcm
}

// share is the part of the power of pcm that lies at hz: an independent Goertzel.
func share(pcm []int16, hz float64) float64 {
	if len(pcm) == 0 {
		return 0
	}
	c := 2 * math.Cos(2*math.Pi*hz/8000)
	var a, b, e float64
	for _, v := range pcm {
		x := float64(v)
		a, b = x+c*a-b, a
		e += x * x
	}
	if e == 0 {
		return 0
	}
	return 2 * (a*a + b*b - c*a*b) / (e * float64(len(pcm)))
}

// Descriptions.

var (
	codecA  = sdp.Codec{PayloadType: 8, Name: "PCMA", ClockRate: 8000, Channels: 1}
	codecU  = sdp.Codec{PayloadType: 0, Name: "PCMU", ClockRate: 8000, Channels: 1}
	codecCN = sdp.Codec{PayloadType: 13, Name: "CN", ClockRate: 8000, Channels: 1}
)

func events(pt uint8) sdp.Codec {
	return sdp.Codec{PayloadType: pt, Name: "telephone-event", ClockRate: 8000, Channels: 1, Fmtp: "0-16"}
}

func (p *memPeer) describe(codecs ...sdp.Codec) *sdp.Description {
	return &sdp.Description{SessionID: 1, Version: 1, RTP: p.addr, RTCP: p.rtcpAddr(), Transport: "RTP/AVP", Codecs: codecs, Ptime: 20 * time.Millisecond}
}

var plainProfile = sdp.Profile{Realm: "lan", Country: "de"}

// ours is the socket that a description of ours means.
func (r *rig) ours(d *sdp.Description) netip.AddrPort {
	if d.RTP.Addr() == netip.MustParseAddr("198.51.100.1") {
		return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), d.RTP.Port())
	}
	return d.RTP
}

// calls lets a peer call in; b answers. It returns our answer.
func (r *rig) caller(leg string, p *memPeer, prof sdp.Profile, offer *sdp.Description) *sdp.Description {
	r.t.Helper()
	if err := r.b.Offered(leg, offer, prof); err != nil {
		r.t.Fatal(err)
	}
	d, err := r.b.AnswerTo(leg)
	if err != nil {
		r.t.Fatal(err)
	}
	p.to = r.ours(d)
	r.pump()
	return d
}

// called makes our offer to a peer that answers as described.
func (r *rig) called(leg string, p *memPeer, prof sdp.Profile, answer *sdp.Description) *sdp.Description {
	r.t.Helper()
	d, err := r.b.OfferTo(leg, prof)
	if err != nil {
		r.t.Fatal(err)
	}
	p.to = r.ours(d)
	if err := r.b.Answered(leg, answer); err != nil {
		r.t.Fatal(err)
	}
	r.pump()
	return d
}

func (r *rig) join(a, b string) {
	r.t.Helper()
	if err := r.b.Join(a, b); err != nil {
		r.t.Fatal(err)
	}
	r.pump()
}

func countEvents[E Event](r *rig) (list []E) {
	for _, e := range r.got {
		if x, ok := e.(E); ok {
			list = append(list, x)
		}
	}
	return list
}
