package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"localloop/internal/analog/analogtest"
	"localloop/internal/sip/siptest"
)

// hostileInputs is how many bad inputs of each kind are sent.
const hostileInputs = 10_000

// hostile is two calls that must live through what happens to the box.
type hostile struct {
	*wholeRig
	rand           *rand.Rand
	teams, carrier *siptest.Call
	near, far      *analogtest.Phone
	began          time.Time
	routines       int
	heap           uint64
	stood          atomic.Int64 // longest time that this machine gave the test nothing
}

// newHostile places both calls and measures what the daemon holds.
func newHostile(t *testing.T) *hostile {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("HOSTILE_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("HOSTILE_SEED=%d", seed)
	// A machine with other work must not look like a dead path.
	h := &hostile{wholeRig: newWhole(t, wholeDeadAfter(10*time.Second)), rand: rand.New(rand.NewPCG(seed, 0))}
	h.near, h.far = h.lifts(0), h.lifts(1)
	h.teams = h.place(wholeAnna, wholeReception)
	var err error
	h.carrier, err = h.wholeRig.carrier.Place(h.within(wholePatience), "+4989555", wholeWorkshop)
	h.must(err)
	h.must(h.carrier.WaitEstablished(h.within(wholePatience)))
	says(h.teams, wholeTeamsHz)
	says(h.carrier, wholePeerHz)
	h.alive()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go h.clock(stop, stopped)
	t.Cleanup(func() { close(stop); <-stopped })
	h.heap, h.routines = hostileHeap(h.log), runtime.NumGoroutine()
	h.began = time.Now()
	return h
}

// clock notes how late a tick of 10 ms comes at worst.
func (h *hostile) clock(stop, stopped chan struct{}) {
	defer close(stopped)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		now := time.Now()
		h.stood.Store(max(h.stood.Load(), int64(now.Sub(last))))
		last = now
	}
}

// hostileHeap is what is live without the test's own log.
func hostileHeap(l *wholeLog) uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	l.mu.Lock()
	defer l.mu.Unlock()
	return m.HeapAlloc - min(m.HeapAlloc, uint64(l.b.Cap()))
}

// alive waits until all four parties hear each other.
func (h *hostile) alive() {
	h.t.Helper()
	h.hears(h.teams, wholePhoneHz)
	h.hears(h.carrier, wholePhoneHz)
	h.phoneHears(h.near, wholeTeamsHz)
	h.phoneHears(h.far, wholePeerHz)
}

// judge looks whether the calls, the goroutines and the memory have suffered.
func (h *hostile) judge(what string) {
	h.t.Helper()
	h.alive()
	// What a busy machine withholds from the whole test is no fault of the box, up
	// to a limit.
	stood := time.Duration(h.stood.Load())
	limit := 500*time.Millisecond + min(stood, 2*time.Second)
	h.t.Logf("%s: the machine stood still for %v at worst; silence may last %v", what, stood, limit)
	for name, c := range map[string]*siptest.Call{"Teams": h.teams, "carrier": h.carrier} {
		if g := c.Media().ToneGap(wholePhoneHz, h.began); g.Length() > limit {
			h.t.Errorf("%s: %s heard nothing for %v", what, name, g.Length())
		}
		if !c.Established() {
			h.t.Errorf("%s: the call of %s is over", what, name)
		}
	}
	for hz, p := range map[float64]*analogtest.Phone{wholeTeamsHz: h.near, wholePeerHz: h.far} {
		for _, g := range p.Log(hz).Gaps(limit) {
			if g.From.After(h.began) {
				h.t.Errorf("%s: %s heard nothing for %v", what, p.Name(), g.Lasts())
			}
		}
	}
	// Transactions over UDP live 32 s (RFC 3261 timers H and J).
	h.until(70*time.Second, what+": no goroutine is left over", func() bool { return runtime.NumGoroutine() <= h.routines+10 })
	if now := hostileHeap(h.log); now > h.heap+32<<20 {
		h.t.Errorf("%s: %d MB are held, %d MB before", what, now>>20, h.heap>>20)
	}
	s := h.status()
	for _, tr := range s.Trunks {
		if tr.Dropped["panic"] != 0 {
			h.t.Errorf("%s: %d panics in trunk %s", what, tr.Dropped["panic"], tr.Name)
		}
	}
	for _, l := range h.d.media.Stats().Loops {
		if l.Panics != 0 {
			h.t.Errorf("%s: %d panics in a media loop", what, l.Panics)
		}
	}
	if code, _ := h.get("/healthz"); code != 200 {
		h.t.Errorf("%s: healthz %d", what, code)
	}
	if len(s.Calls) != 2 {
		h.t.Errorf("%s: %d calls", what, len(s.Calls))
	}
}

func (h *hostile) finish() {
	h.t.Helper()
	h.bye(h.teams)
	h.bye(h.carrier)
	h.hangsUp(h.near)
	h.hangsUp(h.far)
	h.idle()
}

// mutate damages b in one to four places.
func (h *hostile) mutate(b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + h.rand.IntN(4) {
		if len(b) == 0 {
			return b
		}
		i := h.rand.IntN(len(b))
		j := min(len(b), i+1+h.rand.IntN(20))
		switch h.rand.IntN(8) {
		case 0:
			b[i] = byte(h.rand.Uint32())
		case 1:
			b[i] ^= 1 << h.rand.IntN(8)
		case 2:
			b = append(b[:i], b[j:]...)
		case 3:
			b = append(b[:j], append(bytes.Clone(b[i:j]), b[j:]...)...)
		case 4:
			b = append(b[:i], append([]byte{0, 0xff, '\r', '\n'}[:1+h.rand.IntN(4)], b[i:]...)...)
		case 5:
			b = append(b[:i], append(bytes.Repeat([]byte{b[i]}, h.rand.IntN(3000)), b[i:]...)...)
		case 6:
			b = append(b[:i], append([]byte(strconv.FormatUint(h.rand.Uint64(), 10)), b[j:]...)...)
		case 7:
			b = b[:i]
		}
	}
	return b
}

// heads are requests and responses as they should be; @ stands for a number of
// its own in each.
var hostileHeads = []string{
	"INVITE sip:nobody@edge.branch.example SIP/2.0\r\nVia: SIP/2.0/%s 127.0.0.1:5061;rport;branch=z9hG4bK@\r\nFrom: \"A\" <sip:a@b>;tag=@\r\nTo: <sip:nobody@edge.branch.example>\r\nCall-ID: @\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContact: <sip:x@y:5061;transport=tls>\r\nX-MS-UserLocation: internal\r\nX-MS-MediaPath: a.example, b.example\r\nContent-Type: application/sdp\r\n",
	"OPTIONS sip:edge.branch.example:5061;transport=tls SIP/2.0\r\nVia: SIP/2.0/%s 127.0.0.1:5061;rport;branch=z9hG4bK@\r\nFrom: <sip:x>;tag=@\r\nTo: <sip:y>\r\nCall-ID: @\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContact: <sip:x:5061;transport=tls>\r\n",
	"BYE sip:edge.branch.example SIP/2.0\r\nVia: SIP/2.0/%s 127.0.0.1:5061;rport;branch=z9hG4bK@\r\nFrom: <sip:x>;tag=@\r\nTo: <sip:y>;tag=@\r\nCall-ID: @\r\nCSeq: 2 BYE\r\nMax-Forwards: 70\r\nReason: Q.850;cause=16;text=\"a;b\"\r\n",
	"ACK sip:edge.branch.example SIP/2.0\r\nVia: SIP/2.0/%s 127.0.0.1:5061;rport;branch=z9hG4bK@\r\nFrom: <sip:x>;tag=@\r\nTo: <sip:y>;tag=@\r\nCall-ID: @\r\nCSeq: 1 ACK\r\n",
	"CANCEL sip:nobody@edge.branch.example SIP/2.0\r\nVia: SIP/2.0/%s 127.0.0.1:5061;rport;branch=z9hG4bK@\r\nFrom: <sip:x>;tag=@\r\nTo: <sip:y>\r\nCall-ID: @\r\nCSeq: 1 CANCEL\r\n",
	"SIP/2.0 200 OK\r\nVia: SIP/2.0/%s 127.0.0.1:5061;branch=z9hG4bK@\r\nFrom: <sip:x>;tag=@\r\nTo: <sip:y>;tag=@\r\nCall-ID: @\r\nCSeq: 1 INVITE\r\nRecord-Route: <sip:p;lr>, <sip:q;lr>\r\nContact: <sip:z>\r\nContent-Type: multipart/mixed;boundary=x\r\n",
	"REGISTER sip:edge SIP/2.0\r\nv: SIP/2.0/%s 127.0.0.1:5061;rport;branch=z9hG4bK@\r\nf: <sip:x>;tag=@\r\nt: <sip:y>\r\ni: @\r\nCSeq: 1 REGISTER\r\nm: *\r\nExpires: 0\r\n",
}

const hostileSDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/SAVP 104 9 8 0 101 13\r\na=rtcp:40001 IN IP4 127.0.0.1\r\n" +
	"a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=candidate:1 1 UDP 2130706431 127.0.0.1 40000 typ host\r\na=candidate:2 1 TCP-ACT 1684797951 127.0.0.1 40002 typ relay raddr 127.0.0.1 rport 1\r\n" +
	"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^31|1:1\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=rtcp-mux\r\na=sendrecv\r\n"

// framed completes a damaged head: mostly with the right length, so that a
// stream goes on.
func (h *hostile) framed(head, body []byte) []byte {
	n := len(body)
	if h.rand.IntN(200) == 0 {
		if n = h.rand.IntN(len(body) + 1); h.rand.IntN(2) == 0 {
			n = 1<<20 + h.rand.IntN(1<<20)
		}
	}
	head = bytes.ReplaceAll(head, []byte("\r\n\r\n"), []byte("\r\n"))
	return append(fmt.Appendf(bytes.TrimRight(head, "\r\n"), "\r\nContent-Length: %d\r\n\r\n", n), body...)
}

func (h *hostile) message(i int, transport string) []byte {
	text := strings.ReplaceAll(fmt.Sprintf(hostileHeads[h.rand.IntN(len(hostileHeads))], transport), "@", "h"+strconv.Itoa(i))
	body := []byte(nil)
	if h.rand.IntN(2) == 0 {
		body = h.mutate([]byte(hostileSDP))
	}
	return h.framed(h.mutate([]byte(text)), body)
}

// hostileTLS is a connection with Microsoft's certificate and address.
type hostileTLS struct {
	*tls.Conn
	done    chan struct{} // the box has closed it
	answers chan string   // Call-IDs of barriers
}

func (h *hostile) newHostileTLS() *hostileTLS {
	h.t.Helper()
	k, err := wholeKeys()
	h.must(err)
	d := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(h.cloud, 0)), Timeout: wholePatience}
	conn, err := tls.DialWithDialer(d, "tcp", netip.AddrPortFrom(h.wan, 5061).String(),
		&tls.Config{RootCAs: k.root.Pool(), ServerName: wholeFQDN, Certificates: []tls.Certificate{k.proxies.TLS}})
	h.must(err)
	c := &hostileTLS{conn, make(chan struct{}), make(chan string, hostileInputs)}
	go func() {
		defer close(c.done)
		for in := bufio.NewReader(conn); ; {
			m, err := siptest.Read(in)
			if err != nil {
				return
			}
			if id := m.Get("Call-ID"); strings.HasPrefix(id, "barrier") {
				c.answers <- id
			}
		}
	}()
	return c
}

// through sends b and reports whether the box has read it: it either closed the
// connection over it or answered the OPTIONS behind it.
func (c *hostileTLS) through(h *hostile, b []byte, n int) (open bool) {
	h.t.Helper()
	id := fmt.Sprintf("barrier%d", n)
	b = fmt.Appendf(b, "OPTIONS sip:edge.branch.example:5061;transport=tls SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1:5061;branch=z9hG4bK%s\r\nFrom: <sip:x>;tag=x\r\nTo: <sip:y>\r\n"+
		"Call-ID: %s\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContact: <sip:x:5061;transport=tls>\r\nContent-Length: 0\r\n\r\n", id, id)
	_ = c.SetDeadline(time.Now().Add(wholePatience))
	if _, err := c.Write(b); err != nil {
		return false
	}
	select {
	case <-c.answers:
		return true
	case <-c.done:
		return false
	}
}

func (c *hostileTLS) end() {
	_ = c.Close()
	<-c.done
}

// TestHostileSIPOverTLS: a peer with Microsoft's certificate and address gone mad.
// Each message is known to have been read.
func TestHostileSIPOverTLS(t *testing.T) {
	h := newHostile(t)
	before := h.trunk("teams").Dropped["malformed"]
	c, connections := h.newHostileTLS(), 1
	for i := range hostileInputs {
		if !c.through(h, h.message(i, "TLS"), i) {
			c.end()
			c, connections = h.newHostileTLS(), connections+1
		}
	}
	c.end()
	dropped := h.trunk("teams").Dropped["malformed"] - before
	t.Logf("%d messages on %d connections, %d counted as malformed", hostileInputs, connections, dropped)
	if dropped < hostileInputs/4 {
		t.Errorf("only %d of %d messages were counted as malformed", dropped, hostileInputs)
	}
	h.judge("SIP over TLS")
	h.finish()
}

// hostileUDP is a socket at the carrier's address that knows when the box has
// read everything that was sent.
type hostileUDP struct {
	h       *hostile
	conn    *net.UDPConn
	done    chan struct{}
	finals  atomic.Int64
	barrier chan string
	n       int
}

// newHostileUDP answers final responses to its INVITEs with an ACK.
func (h *hostile) newHostileUDP() *hostileUDP {
	h.t.Helper()
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.carrierAt, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.wan, 5070)))
	h.must(err)
	u := &hostileUDP{h: h, conn: conn, done: make(chan struct{}), barrier: make(chan string, 16)}
	go u.read()
	return u
}

func (u *hostileUDP) read() {
	defer close(u.done)
	b := make([]byte, 64<<10)
	for {
		n, err := u.conn.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		m, err := siptest.Parse(bytes.Clone(b[:n]))
		if err != nil || m.IsRequest() {
			continue
		}
		if id := m.Get("Call-ID"); strings.HasPrefix(id, "barrier") {
			u.barrier <- id
			continue
		}
		seq, method := m.CSeq()
		if method != "INVITE" || m.Status < 200 {
			continue
		}
		u.finals.Add(1)
		ack := &siptest.Message{Method: "ACK", URI: "sip:" + wholeReception + "@edge", Version: "SIP/2.0"}
		for _, name := range []string{"Via", "From", "To", "Call-ID"} {
			ack.Add(name, m.Get(name))
		}
		ack.Add("CSeq", fmt.Sprintf("%d ACK", seq))
		_, _ = u.conn.Write(ack.Bytes(false))
	}
}

// wait returns when the box has answered an OPTIONS sent after all the rest.
func (u *hostileUDP) wait() {
	u.h.t.Helper()
	u.n++
	id := fmt.Sprintf("barrier%d", u.n)
	text := "OPTIONS sip:edge SIP/2.0\r\nVia: SIP/2.0/UDP " + u.conn.LocalAddr().String() + ";rport;branch=z9hG4bK" + id + "\r\nFrom: <sip:x>;tag=x\r\nTo: <sip:y>\r\nCall-ID: " + id +
		"\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContact: <sip:x>\r\nContent-Length: 0\r\n\r\n"
	ctx, cancel := context.WithTimeout(u.h.ctx, wholePatience)
	defer cancel()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		_, err := u.conn.Write([]byte(text))
		u.h.must(err)
		for answered := true; answered; {
			select {
			case got := <-u.barrier:
				if got == id {
					return
				}
			case <-again.C:
				answered = false // lost: again
			case <-ctx.Done():
				u.h.t.Fatal("the box does not answer OPTIONS any more")
			}
		}
	}
}

func (u *hostileUDP) close() {
	_ = u.conn.Close()
	<-u.done
}

func TestHostileSIPOverUDP(t *testing.T) {
	h := newHostile(t)
	u := h.newHostileUDP()
	defer u.close()
	before := h.trunk("carrier").Dropped["malformed"]
	for i := range hostileInputs {
		b := h.message(i, "UDP")
		_, _ = u.conn.Write(b[:min(len(b), 60000)])
		if i%50 == 49 {
			u.wait()
		}
	}
	u.wait()
	dropped := h.trunk("carrier").Dropped["malformed"] - before
	t.Logf("%d datagrams, %d counted as malformed", hostileInputs, dropped)
	if dropped < hostileInputs/4 {
		t.Errorf("only %d of %d datagrams were counted as malformed", dropped, hostileInputs)
	}
	h.judge("SIP over UDP")
	h.finish()
}

// TestHostileSDP: good INVITEs with damaged bodies, to a phone that is busy.
func TestHostileSDP(t *testing.T) {
	h := newHostile(t)
	u := h.newHostileUDP()
	defer u.close()
	for i := range hostileInputs {
		id := "s" + strconv.Itoa(i)
		body := h.mutate([]byte(hostileSDP))
		msg := fmt.Sprintf("INVITE sip:%s@edge SIP/2.0\r\nVia: SIP/2.0/UDP %s;rport;branch=z9hG4bK%s\r\nFrom: <sip:+4989@x>;tag=%s\r\nTo: <sip:%s@edge>\r\nCall-ID: %s\r\n"+
			"CSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContact: <sip:x@%s>\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s",
			wholeReception, u.conn.LocalAddr(), id, id, wholeReception, id, u.conn.LocalAddr(), len(body), body)
		_, _ = u.conn.Write([]byte(msg[:min(len(msg), 60000)]))
		if i%25 == 24 {
			u.wait()
			h.until(wholePatience, "the calls of the batch are refused", func() bool { return len(h.d.calls.Calls()) <= 2 })
		}
	}
	u.wait()
	h.until(wholePatience, "each INVITE got its final response", func() bool { return u.finals.Load() >= hostileInputs*99/100 })
	h.judge("SDP")
	h.finish()
}

// stun writes a message; each field may be a lie.
func (h *hostile) stun() []byte {
	b := make([]byte, 20, 200)
	binary.BigEndian.PutUint16(b, []uint16{1, 1, 1, 0x101, 0x111, 0x11, 3, uint16(h.rand.IntN(0x4000))}[h.rand.IntN(8)])
	binary.BigEndian.PutUint32(b[4:], 0x2112A442)
	for i := 8; i < 20; i++ {
		b[i] = byte(h.rand.Uint32())
	}
	for range h.rand.IntN(6) {
		kind := []uint16{6, 8, 0x24, 0x25, 0x8029, 0x802a, 0x8028, 0x20, uint16(h.rand.Uint32())}[h.rand.IntN(9)]
		n := h.rand.IntN(40)
		b = binary.BigEndian.AppendUint16(b, kind)
		b = binary.BigEndian.AppendUint16(b, uint16(n+h.rand.IntN(3)*h.rand.IntN(4000)))
		for range (n + 3) &^ 3 {
			b = append(b, byte(h.rand.Uint32()))
		}
	}
	n := len(b) - 20
	if h.rand.IntN(4) == 0 {
		n = h.rand.IntN(1 << 16)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	return b[:len(b)-h.rand.IntN(2)*h.rand.IntN(len(b))]
}

// rtp is never voice: what is wrong is the version, a length in the header, or
// a payload type that was not agreed.
func (h *hostile) rtp() []byte {
	b := make([]byte, 1+h.rand.IntN(200))
	for i := range b {
		b[i] = byte(h.rand.Uint32())
	}
	switch h.rand.IntN(3) {
	case 0:
		b[0] = b[0]&0x3f | 0x80
		if len(b) > 1 {
			b[1] = byte(h.rand.IntN(2))<<7 | byte(20+h.rand.IntN(40))
		}
	case 1:
		b[0] = 0x8f // 15 contributing sources
		b = b[:min(len(b), 12+h.rand.IntN(50))]
	case 2:
		b[0] = 0x90 // an extension that does not end
		if len(b) >= 16 {
			b[14], b[15] = 0xff, 0xff
		}
	}
	return b
}

func (h *hostile) rtcp() []byte {
	b := make([]byte, 4+h.rand.IntN(100))
	for i := range b {
		b[i] = byte(h.rand.Uint32())
	}
	b[0], b[1] = 0x80|b[0]&0x3f, byte(192+h.rand.IntN(32))
	if h.rand.IntN(2) == 0 {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)/4-1))
	}
	return b
}

// TestHostileMedia: rubbish at the media ports, from the address of the peer of
// the call and from a stranger's.
func TestHostileMedia(t *testing.T) {
	h := newHostile(t)
	_, atLAN, way := h.teams.Media().Pair()
	_, atWAN, _ := h.carrier.Media().Pair()
	stranger, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.stranger, 0)))
	h.must(err)
	defer func() { _ = stranger.Close() }()
	sum := func() (n uint64) {
		for _, d := range h.status().Media.Dropped {
			n += d
		}
		return n
	}
	for name, make := range map[string]func() []byte{"STUN": h.stun, "RTP": h.rtp, "RTCP": h.rtcp} {
		h.sub(name, func(t *testing.T) {
			before := sum()
			for i := range hostileInputs {
				b := make()
				switch i % 4 {
				case 0:
					h.teams.Media().SendRaw(way, b, atLAN)
				case 1:
					h.carrier.Media().SendRaw("wan", b, atWAN)
				case 2:
					_, _ = stranger.WriteToUDPAddrPort(b, atLAN)
				case 3:
					_, _ = stranger.WriteToUDPAddrPort(b, netip.AddrPortFrom(h.wan, atWAN.Port()+uint16(h.rand.IntN(2))))
				}
				if i%50 == 49 { // at the pace of voice, so that no buffer of the kernel runs over
					h.must(h.teams.Media().WaitPackets(h.within(wholePatience), h.teams.Media().Stats().Received+1))
				}
			}
			h.judge(name)
			dropped := sum() - before
			t.Logf("%d datagrams, %d counted as dropped: %v", hostileInputs, dropped, h.status().Media.Dropped)
			if dropped < hostileInputs*9/10 && name != "STUN" || dropped < hostileInputs*3/5 {
				t.Errorf("only %d of %d datagrams were counted", dropped, hostileInputs)
			}
		})
	}
	h.finish()
}

// TestHostileLineCard: noise between the frames of the card that carries both calls.
func TestHostileLineCard(t *testing.T) {
	h := newHostile(t)
	before := h.status().Cards[0].Dropped
	for i := range hostileInputs {
		h.card.Garbage(1 + h.rand.IntN(12))
		if i%20 == 19 {
			h.must(h.teams.Media().WaitPackets(h.within(wholePatience), h.teams.Media().Stats().Received+1))
		}
	}
	h.until(wholePatience, "bad frames are counted", func() bool { return h.status().Cards[0].Dropped["bad"] > before["bad"]+hostileInputs/100 })
	h.judge("line card")
	t.Logf("dropped frames: %v", h.status().Cards[0].Dropped)
	if k := h.status().Cards[0]; k.Sessions != 1 || !k.Up {
		t.Errorf("card %+v", k)
	}
	h.finish()
}
