package analogtest

import (
	"encoding/binary"
	"time"
)

// Status octets of ACK, docs/linecard-link.md §3.
const (
	stOK           = 0
	stUnknown      = 1
	stBadArgument  = 2
	stUnsupported  = 3
	stWrongState   = 4
	stNoSession    = 5
	stHardware     = 6
	maxOutstanding = 4
)

// repeatAfter are the waits for an ACK after each transmission; after the last
// the link is down.
var repeatAfter = [...]uint64{50, 100, 200, 400, 800}

// link is the card's end of the protocol. It is guarded by the world's lock.
//
//	no session --HELLO--> up --1 s silence, repeats used up, restart, RESET 0--> no session
type link struct {
	c       *Card
	in      splitter
	session uint32
	up      bool
	heard   uint64 // ms of the last valid frame
	downAt  uint64 // ms at which the session ended
	lost    bool   // it ended with the link: FXO goes on-hook 2 s later

	seq      uint16
	waiting  [26][]*transmission // by channel; 25 is the card's own
	inFlight int
	seen     [26]remembered

	fillAt     uint64
	resetCause int16 // reported once in the next session, 0 none
	tryBaud    uint64
	oldBaud    uint32
}

type transmission struct {
	f    frame
	sent int
	due  uint64
}

type remembered struct {
	seq    uint16
	status byte
	at     uint64
	ok     bool
}

func (l *link) init(c *Card) {
	dropped := l.in.dropped
	*l = link{c: c, resetCause: 1}
	l.in.dropped = dropped
}

func slot(ch byte) int {
	if ch == chCard {
		return 25
	}
	return int(ch)
}

// receive takes octets from the host.
func (c *Card) receive(p []byte) {
	c.w.mu.Lock()
	if c.w.ms < c.deaf {
		c.w.mu.Unlock()
		return
	}
	c.link.in.feed(p, c.link.take)
	events := c.w.take()
	c.w.wake()
	c.w.mu.Unlock()
	c.w.deliver(events)
	c.out.kick()
}

func (l *link) take(f frame) {
	c := l.c
	c.count.FramesIn++
	l.heard = c.w.ms
	l.tryBaud = 0
	card := f.ch == chCard
	if !card && int(f.ch) >= 24 {
		c.count.Unknown++
		return
	}
	switch f.typ {
	case tHello:
		if card {
			l.hello(f.body)
			return
		}
	case tPCM:
		if !card {
			l.pcm(f)
			return
		}
	case tSetBaud, tStart, tStop:
		if card {
			l.handle(f)
			return
		}
	case tCmd:
		l.handle(f)
		return
	case tAck:
		l.acked(f)
		return
	case tPing:
		if card {
			l.pong(f.body)
			return
		}
	case tPong:
		if card {
			return
		}
	case tReset:
		if card {
			l.reset(f.body)
			return
		}
	}
	c.count.Unknown++
}

func (l *link) send(typ, ch byte, seq, clock uint16, body []byte) {
	l.put(frame{typ, ch, seq, clock, body}, 0)
}

func (l *link) put(f frame, baudAfter uint32) {
	if l.c.w.ms < l.c.deaf {
		return
	}
	l.c.count.FramesOut++
	o := outgoing{octets: f.wire(), at: time.Now(), baudAfter: baudAfter}
	if f.typ == tPCM {
		if !l.c.out.putPCM(int(f.ch), o) {
			l.c.count.OutDropped++
		}
		return
	}
	l.c.out.put(o)
}

func (l *link) hello(body []byte) {
	c := l.c
	list, err := parseTLVs(body)
	var id uint32
	version := false
	for _, t := range list {
		switch {
		case t.tag == 0x01 && len(t.value) >= 2:
			version = true
		case t.tag == 0x02 && len(t.value) >= 4:
			id = binary.LittleEndian.Uint32(t.value)
		}
	}
	if err != nil || !version || id == 0 {
		c.count.Unknown++
		return
	}
	fresh := id != l.session // the id of a session that has ended is new as well
	if fresh {
		l.endSession()
		l.session = id
		c.count.Sessions++
		c.w.tell(-1, "session %08x begins", id)
	}
	l.up = true
	l.send(tWelcome, chCard, 0, c.clock(), c.welcome(id))
	if fresh {
		l.tellAll()
	}
}

// tellAll is what a session begins with: everything that the host may have missed.
func (l *link) tellAll() {
	c := l.c
	for _, p := range c.ports {
		if p.kind() != Absent {
			p.base().sendState()
		}
		if f, ok := p.(*fxoPort); ok && f.parallel {
			f.event(evParallel, 1)
		}
	}
	if l.resetCause != 0 {
		l.reliable(tAlarm, chCard, c.clock(), alarmBody(4, false, l.resetCause))
		l.resetCause = 0
	}
	for id, value := range c.alarms {
		if value != nil {
			l.reliable(tAlarm, chCard, c.clock(), alarmBody(byte(id), true, *value))
		}
	}
}

func alarmBody(id byte, active bool, value int16) []byte {
	return binary.LittleEndian.AppendUint16([]byte{id, bit(active)}, uint16(value))
}

// endSession puts link and channels to rest.
func (l *link) endSession() {
	cause, in, heard := l.resetCause, l.in, l.heard
	*l = link{c: l.c, in: in, resetCause: cause, heard: heard, downAt: l.c.w.ms}
	l.c.out.forget()
	for _, p := range l.c.ports {
		p.base().stream = stream{}
		p.rest()
	}
}

func (c *Card) welcome(session uint32) []byte {
	le := binary.LittleEndian
	b := appendTLV(nil, 0x01, 1, 0)
	b = appendTLV(b, 0x02, le.AppendUint32(nil, session)...)
	for i, s := range []string{c.opt.Vendor, c.opt.Model, c.opt.Firmware, c.opt.Serial} {
		b = appendText(b, byte(0x10+i), s)
	}
	b = appendTLV(b, 0x14, le.AppendUint32(nil, c.boot)...)
	b = appendTLV(b, 0x15, byte(len(c.ports)))
	var laws byte
	for _, l := range c.opt.Laws {
		if l == ALaw {
			laws |= 1
		} else {
			laws |= 2
		}
	}
	for i := 0; i < len(c.ports); {
		n := 1
		for i+n < len(c.ports) && c.ports[i+n].kind() == c.ports[i].kind() {
			n++
		}
		run := le.AppendUint32([]byte{byte(i), byte(n), byte(c.ports[i].kind())}, c.ports[i].capabilities())
		b = appendTLV(b, 0x16, append(run, 0, laws)...)
		i += n
	}
	b = appendTLV(b, 0x17, le.AppendUint32(nil, c.opt.MaxBaud)...)
	var sizes []byte
	for _, ms := range c.opt.FrameMS {
		sizes = append(sizes, byte(ms))
	}
	b = appendTLV(b, 0x18, sizes...)
	return appendTLV(b, 0x19, byte(c.opt.BufferMS))
}

func (l *link) pcm(f frame) {
	c := l.c
	if !l.up || int(f.ch) >= len(c.ports) || !c.ports[f.ch].base().play(f.seq, f.body) {
		c.count.PCMDropped++
	}
}

// handle answers a reliable frame of the host, once.
func (l *link) handle(f frame) {
	c := l.c
	var status byte
	m := &l.seen[slot(f.ch)]
	var rate uint32
	switch {
	case !l.up:
		status = stNoSession
	case m.ok && m.seq == f.seq && c.w.ms-m.at <= 3000:
		c.count.Duplicates++
		status = m.status
	default:
		status, rate = l.execute(f)
		// RESET and restart do not come this way; a session cannot have ended here.
		*m = remembered{f.seq, status, c.w.ms, true}
		c.note(f, status)
	}
	if status != stOK {
		c.count.Refused++
	}
	ack := frame{tAck, f.ch, 0, c.clock(), []byte{byte(f.seq), byte(f.seq >> 8), status}}
	l.put(ack, rate)
}

func (l *link) execute(f frame) (status byte, rate uint32) {
	c := l.c
	le := binary.LittleEndian
	switch f.typ {
	case tSetBaud:
		if len(f.body) < 4 {
			return stBadArgument, 0
		}
		rate := le.Uint32(f.body)
		for _, p := range c.ports {
			if p.base().stream.on {
				return stWrongState, 0
			}
		}
		switch {
		case rate < 115200 || rate > 3000000:
			return stBadArgument, 0
		case c.opt.FixedRate || rate > c.opt.MaxBaud:
			return stUnsupported, 0
		}
		l.oldBaud, l.tryBaud = c.baud, c.w.ms+500
		return stOK, rate
	case tStart:
		if len(f.body) < 8 {
			return stBadArgument, 0
		}
		return c.start(int(f.body[0]), f.body[1], le.Uint32(f.body[2:]), le.Uint16(f.body[6:])), 0
	case tStop:
		if len(f.body) < 4 {
			return stBadArgument, 0
		}
		mask := le.Uint32(f.body)
		if mask>>len(c.ports) != 0 {
			return stBadArgument, 0
		}
		for i, p := range c.ports {
			if mask>>i&1 != 0 {
				p.base().stream = stream{}
			}
		}
		return stOK, 0
	}
	// CMD
	if len(f.body) < 1 {
		return stBadArgument, 0
	}
	id := f.body[0]
	if _, known := commandNames[id]; !known {
		return stUnknown, 0
	}
	if int(f.ch) >= len(c.ports) { // all known commands are for a channel
		return stBadArgument, 0
	}
	p := c.ports[f.ch]
	if id == cmdQuery && p.kind() != Absent {
		p.base().sendState()
		return stOK, 0
	}
	return p.command(id, f.body[1:]), 0
}

func (c *Card) note(f frame, status byte) {
	m := Command{At: time.Now(), Channel: int(f.ch), Args: f.body, Status: status}
	if f.ch == chCard {
		m.Channel = -1
	}
	switch f.typ {
	case tSetBaud:
		m.Name = "SETBAUD"
	case tStart:
		m.Name = "START"
	case tStop:
		m.Name = "STOP"
	default:
		if len(f.body) > 0 {
			m.Name, m.Args = commandNames[f.body[0]], f.body[1:]
		}
		if m.Name == "" {
			m.Name = "CMD?"
		}
	}
	if len(c.log) == 512 {
		c.log = append(c.log[:0], c.log[1:]...)
	}
	c.log = append(c.log, m)
	c.w.tell(m.Channel, "%s % x: %d", m.Name, clipBytes(m.Args, 12), status)
}

func clipBytes(p []byte, n int) []byte { return p[:min(n, len(p))] }

func (l *link) pong(body []byte) {
	if len(body) < 8 {
		l.c.count.Unknown++
		return
	}
	c, le := l.c, binary.LittleEndian
	b := append([]byte(nil), body[:4]...)
	for _, v := range []uint32{l.session, c.boot, uint32(c.count.FramesIn), l.in.dropped,
		0, uint32(c.count.Underruns), uint32(c.count.Repeats)} {
		b = le.AppendUint32(b, v)
	}
	l.send(tPong, chCard, 0, c.clock(), b)
}

func (l *link) reset(body []byte) {
	c := l.c
	if len(body) < 5 || string(body[:4]) != "RSET" || body[4] > 1 {
		c.count.Unknown++
		return
	}
	if body[4] == 1 {
		c.restart(3)
		return
	}
	l.endSession()
	c.w.tell(-1, "session reset by the host")
}

// reliable queues a frame that is repeated until its ACK. Without a session
// nobody would listen: STATE tells the truth at the next HELLO.
func (l *link) reliable(typ, ch byte, clock uint16, body []byte) {
	if !l.up {
		return
	}
	t := &transmission{f: frame{typ, ch, l.seq, clock, body}}
	l.seq++
	s := slot(ch)
	l.waiting[s] = append(l.waiting[s], t)
	l.pump()
}

// pump sends what the window allows: four in all, one for each channel.
func (l *link) pump() {
	for s := range l.waiting {
		if l.inFlight >= maxOutstanding {
			return
		}
		if q := l.waiting[s]; len(q) > 0 && q[0].sent == 0 {
			l.inFlight++
			l.transmit(q[0])
		}
	}
}

func (l *link) transmit(t *transmission) {
	l.put(t.f, 0)
	t.due = l.c.w.ms + repeatAfter[t.sent]
	t.sent++
}

func (l *link) acked(f frame) {
	if len(f.body) < 3 {
		l.c.count.Unknown++
		return
	}
	s := slot(f.ch)
	q := l.waiting[s]
	if len(q) == 0 || q[0].sent == 0 || q[0].f.seq != binary.LittleEndian.Uint16(f.body) {
		return // answers a repeat whose first answer came as well
	}
	l.waiting[s] = q[1:]
	l.inFlight--
	l.pump()
}

// step runs the link's times, once a tick.
func (l *link) step() {
	c := l.c
	now := c.w.ms
	if l.tryBaud != 0 && now >= l.tryBaud {
		l.tryBaud = 0
		c.baud = l.oldBaud
		c.w.tell(-1, "back to %d bit/s", c.baud)
	}
	if !l.up {
		if now-l.downAt < 2000 {
			return
		}
		c.baud = c.opt.Baud // where a host that is new looks for the card
		if l.lost {
			l.lost = false
			for _, p := range c.ports {
				p.failSafe()
			}
		}
		return
	}
	if now-l.heard >= 1000 {
		l.down("no valid frame for 1 s")
		return
	}
	for s := range l.waiting {
		q := l.waiting[s]
		if len(q) == 0 || q[0].sent == 0 || now < q[0].due {
			continue
		}
		if q[0].sent == len(repeatAfter) {
			l.down("no ACK")
			return
		}
		c.count.Repeats++
		l.transmit(q[0])
	}
	if now >= l.fillAt {
		l.fillAt = now + 100
		var body []byte
		for i, p := range c.ports {
			if st := &p.base().stream; st.on && st.playing {
				body = append(body, byte(i), byte(st.fill()))
			}
		}
		if len(body) > 0 {
			l.send(tFill, chCard, 0, c.clock(), body)
		}
	}
}

// down is the fail-safe of §5. The session ends: PONG shows it to a host that has
// not noticed, and the next HELLO repairs what was missed.
func (l *link) down(why string) {
	l.up, l.session, l.lost, l.downAt = false, 0, true, l.c.w.ms
	l.waiting, l.inFlight = [26][]*transmission{}, 0
	l.c.count.LinkDowns++
	l.c.w.tell(-1, "link down: %s", why)
	if t, ok := l.c.conn.(terminal); ok {
		t.release()
	}
	for _, p := range l.c.ports {
		p.base().stream = stream{}
		p.linkDown()
	}
}
