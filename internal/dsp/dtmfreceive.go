package dsp

import "math"

// DTMFEvent is the beginning or the end of a digit.
type DTMFEvent struct {
	Digit byte // 0–9 * # A–D
	On    bool
	// Sample is where the edge was, counted from the first sample fed: earlier
	// than the report, by about 35 ms. It is right within 10 ms.
	Sample uint64
}

// DTMFReceiver finds digits in the voice of a line, ITU-T Q.24. It belongs to
// one goroutine.
//
// Windows of 20 ms, shaped so that a strong tone does not spill onto a weak
// one, are taken every 5 ms. A window is a hit when one row and one column
// carry nearly all of its energy, with allowed levels, twist and frequencies.
// A digit is reported after a run of equal hits and ends after a run of misses:
//
//	        begin hits                  end misses
//	idle ----------------> digit -----------------------> idle
//	                         |  begin hits of another digit
//	                         +--------------------------> that digit
//
// The frequency is not judged by how much passes a filter but measured, by the
// advance of phase from window to window, so the limits of Q.24 hold at any
// level and twist.
type DTMFReceiver struct {
	ring  [dtmfWindow]float32 // last samples; next is overwritten next
	next  int
	count uint64 // samples fed
	hop   int    // samples until the next window is taken

	windowed [dtmfWindow]float32
	last     [8]dtmfTone // of the window before
	dialTone bool

	digit   byte // reported and on; 0 none
	pending byte // digit of the current run of hits
	hits    int
	pure    int     // hits of the run that were pure
	purity  float64 // of the last window
	misses  int
	began   uint64 // window end of the first hit of pending
	lastHit uint64 // window end of the last hit of digit
}

// dtmfTone is what one window shows at one frequency.
type dtmfTone struct {
	re, im float64
	power  float64 // re² + im²
}

const (
	dtmfWindow = 160 // 20 ms
	dtmfHop    = 40  // 5 ms

	// A tone of n ms gives about n/5 hits. 40 ms must be accepted at any
	// alignment, less than 23 ms must not be (Q.24 Annex A).
	dtmfBegin = 5
	// A gap of 10 ms must not split a digit, a pause of 30 ms must.
	dtmfEnd = 5
	// dtmfPresent is how many hits make Present true.
	dtmfPresent = 2

	dtmfFloor    = -38.0  // dBm0 per tone; -25 must be accepted, -55 rejected
	dtmfNormal   = 9.0    // dB that the column may be weaker: 8 required
	dtmfReverse  = 5.0    // dB that the row may be weaker: 4 required
	dtmfMaxShift = 0.0215 // 1.5 % accepted, 3.5 % rejected; transmitters may be 1.8 % off
	dtmfApart    = 4.0    // power ratio to the other tones of the group: 6 dB
	// dtmfPurity is the share of the window's energy that the two tones must
	// have; windows at the edges of a tone reach less than those inside it.
	dtmfPurity = 0.70
	// dtmfPure is the share that dtmfPureHits windows of a digit must reach:
	// noise 15 dB down leaves 97 %. Speech hardly ever stays there.
	dtmfPure     = 0.93
	dtmfPureHits = 3
)

// dtmfTables are constants of the receiver.
type dtmfTables struct {
	window [dtmfWindow]float32
	coeff  [8]float32 // 2cos(w) for Goertzel
	cos    [8]float64
	sin    [8]float64
	// turn is the advance of phase of the nominal tone in one hop.
	turn [8]float64
	// low are the DFT bins below 500 Hz, where dial tones are.
	low [10]float32
}

var dtmfTable = buildDTMFTables()

func buildDTMFTables() (t dtmfTables) {
	for i := range t.window {
		t.window[i] = float32(0.5 - 0.5*math.Cos(2*math.Pi*(float64(i)+0.5)/dtmfWindow))
	}
	for i := range t.coeff {
		w := 2 * math.Pi * dtmfHz(i) / SampleRate
		t.coeff[i] = float32(2 * math.Cos(w))
		t.cos[i], t.sin[i] = math.Cos(w), math.Sin(w)
		t.turn[i] = w * dtmfHop
	}
	for i := range t.low {
		t.low[i] = float32(2 * math.Cos(2*math.Pi*float64(i+1)/dtmfWindow))
	}
	return t
}

// dtmfHz is frequency i: rows first, then columns.
func dtmfHz(i int) float64 {
	if i < 4 {
		return dtmfRows[i]
	}
	return dtmfColumns[i-4]
}

// NewDTMFReceiver makes a receiver.
func NewDTMFReceiver() *DTMFReceiver { return &DTMFReceiver{hop: dtmfHop} }

// Reset forgets what was heard, for the next call.
func (r *DTMFReceiver) Reset() { *r = DTMFReceiver{hop: dtmfHop} }

// DialTone tells the receiver that a tone below 500 Hz is being sent to the
// line, so that its echo is no evidence against a digit.
func (r *DTMFReceiver) DialTone(on bool) { r.dialTone = on }

// Present reports that a digit seems to be beginning or is there: about 20 ms
// after its start, so that the voice path can be muted before the far end
// takes the rest of the tone for a digit of its own. It may be wrong for
// a moment of speech.
func (r *DTMFReceiver) Present() bool { return r.digit != 0 || r.hits >= dtmfPresent }

// Feed takes any number of samples and calls report for each edge found. It
// does not allocate.
func (r *DTMFReceiver) Feed(pcm []int16, report func(DTMFEvent)) {
	for _, s := range pcm {
		r.ring[r.next] = float32(s)
		if r.next++; r.next == dtmfWindow {
			r.next = 0
		}
		r.count++
		if r.hop--; r.hop == 0 {
			r.hop = dtmfHop
			r.step(r.analyse(), report)
		}
	}
}

// step advances the state by one window: digit is 0 for a miss.
func (r *DTMFReceiver) step(digit byte, report func(DTMFEvent)) {
	if digit != 0 && digit == r.pending {
		r.hits++
	} else {
		r.pending, r.hits, r.pure = digit, 0, 0
		if digit != 0 {
			r.hits, r.began = 1, r.count
		}
	}
	if digit != 0 && r.purity >= dtmfPure {
		r.pure++
	}
	begins := r.hits >= dtmfBegin && r.pure >= dtmfPureHits
	if r.digit != 0 {
		if digit == r.digit {
			r.misses, r.lastHit = 0, r.count
			return
		}
		r.misses++
		if r.misses < dtmfEnd && !begins {
			return
		}
		// Half a window after the last hit the tone no longer covered the
		// middle of the window.
		report(DTMFEvent{Digit: r.digit, Sample: r.lastHit - dtmfWindow/2 + dtmfHop})
		r.digit = 0
	}
	if begins {
		r.digit, r.misses, r.lastHit = r.pending, 0, r.count
		report(DTMFEvent{Digit: r.digit, On: true, Sample: r.began - min(r.began, dtmfWindow/2+dtmfHop/2)})
	}
}

// analyse judges the last window.
func (r *DTMFReceiver) analyse() byte {
	t := &dtmfTable
	var energy float64
	n := copy(r.windowed[:], r.ring[r.next:])
	copy(r.windowed[n:], r.ring[:r.next])
	for i, w := range t.window {
		v := r.windowed[i] * w
		r.windowed[i] = v
		energy += float64(v) * float64(v)
	}
	previous := r.last
	r.purity = 0
	// Σ|x·w|² of a tone of amplitude A is A²/2 · 3N/8.
	const quietest = zeroDBm0 * zeroDBm0 / 2 * 3 * dtmfWindow / 8
	floor := quietest * math.Pow(10, dtmfFloor/10)
	if energy < floor {
		r.last = [8]dtmfTone{}
		return 0
	}
	for i := range r.last {
		r.last[i] = r.tone(i)
	}
	row, ok1 := strongest(r.last[:4])
	col, ok2 := strongest(r.last[4:])
	if !ok1 || !ok2 {
		return 0
	}
	low, ok1 := shifted(&previous[row], &r.last[row], row)
	high, ok2 := shifted(&previous[4+col], &r.last[4+col], 4+col)
	if !ok1 || !ok2 || low < floor || high < floor {
		return 0
	}
	if high*dtmfRatio(dtmfNormal) < low || low*dtmfRatio(dtmfReverse) < high {
		return 0
	}
	if r.dialTone {
		energy -= r.lowBand()
	}
	if r.purity = (low + high) / energy; r.purity < dtmfPurity {
		return 0
	}
	return dtmfKeys[4*row+col]
}

func dtmfRatio(dB float64) float64 { return math.Pow(10, dB/10) }

// tone is the Goertzel algorithm with phase at the window's end.
func (r *DTMFReceiver) tone(i int) dtmfTone {
	s1, s2 := goertzel(&r.windowed, dtmfTable.coeff[i])
	re := s1 - s2*dtmfTable.cos[i]
	im := s2 * dtmfTable.sin[i]
	return dtmfTone{re: re, im: im, power: re*re + im*im}
}

func goertzel(x *[dtmfWindow]float32, coeff float32) (float64, float64) {
	var s1, s2 float32
	for _, v := range x {
		s1, s2 = v+coeff*s1-s2, s1
	}
	return float64(s1), float64(s2)
}

// strongest finds the tone that stands out of its group.
func strongest(group []dtmfTone) (int, bool) {
	best := 0
	for i := range group {
		if group[i].power > group[best].power {
			best = i
		}
	}
	for i := range group {
		if i != best && group[i].power*dtmfApart > group[best].power {
			return 0, false
		}
	}
	return best, group[best].power > 0
}

// shifted measures by how much a tone is off its nominal frequency, refuses it
// if that is too much, and gives its energy in the window.
func shifted(before, now *dtmfTone, i int) (float64, bool) {
	if before.power == 0 {
		return 0, false
	}
	// now · conj(before), turned back by the nominal advance.
	re := now.re*before.re + now.im*before.im
	im := now.im*before.re - now.re*before.im
	d := math.Remainder(math.Atan2(im, re)-dtmfTable.turn[i], 2*math.Pi) / dtmfHop // rad per sample
	hz := d * SampleRate / (2 * math.Pi)
	if math.Abs(hz) > dtmfMaxShift*dtmfHz(i) {
		return 0, false
	}
	// What a Hann window lets through x bins off its centre; the tone's energy
	// in the window is 3/N of its squared peak there (see quietest).
	pass := 1.0
	if x := hz * dtmfWindow / SampleRate; math.Abs(x) > 0.01 {
		pass = math.Sin(math.Pi*x) / (math.Pi * x) / (1 - x*x)
	}
	return now.power / (pass * pass) * 3 / dtmfWindow, true
}

// lowBand is the window's energy from 25 to 525 Hz, by Parseval's theorem.
func (r *DTMFReceiver) lowBand() float64 {
	var sum float64
	for _, c := range dtmfTable.low {
		s1, s2 := goertzel(&r.windowed, c)
		sum += s1*s1 + s2*s2 - float64(c)*s1*s2
	}
	return sum * 2 / dtmfWindow
}
