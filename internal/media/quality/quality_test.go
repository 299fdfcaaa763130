package quality

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestEModelKnownPoints(t *testing.T) {
	for _, c := range []struct {
		name   string
		codec  Impairment
		delay  time.Duration
		loss   float64
		r, mos float64
	}{
		{"defaults, ITU-T G.107 §7.7", G711, 0, 0, 93.2, 4.41},
		{"100 ms cost nothing", G711, 100 * time.Millisecond, 0, 93.2, 4.41},
		{"200 ms, Idd 3.0", G711, 200 * time.Millisecond, 0, 90.2, 4.34},
		{"400 ms, Idd 24.1", G711, 400 * time.Millisecond, 0, 69.1, 3.56},
		{"1 % loss concealed", G711, 0, 0.01, 89.56, 4.33},
		{"1 % loss bare", G711Bare, 0, 0.01, 75.28, 3.83},
		{"5 % loss concealed", G711, 0, 0.05, 77.42, 3.91},
		{"all lost", G711, 0, 1, 17.3, 1.2},
	} {
		r := Rating(c.codec, c.delay, c.loss)
		if math.Abs(r-c.r) > 0.35 || math.Abs(MOS(r)-c.mos) > 0.05 {
			t.Errorf("%s: R %.2f MOS %.2f, want %.2f %.2f", c.name, r, MOS(r), c.r, c.mos)
		}
	}
	if MOS(-3) != 1 || MOS(120) != 4.5 {
		t.Error("limits of MOS")
	}
}

func TestReceptionCountsLossDuplicatesAndOrder(t *testing.T) {
	var r Reception
	now := time.Unix(5, 0)
	step := func(seq uint16) Verdict {
		now = now.Add(20 * time.Millisecond)
		return r.Packet(now, seq, uint32(seq)*160)
	}
	for _, c := range []struct {
		seq  uint16
		want Verdict
	}{
		{65533, Fresh}, {65535, Fresh}, {65534, Fresh}, {65534, Duplicate}, {0, Fresh}, {4, Fresh}, {3, Fresh},
		{30000, Old}, {5, Fresh}, {40000, Old}, {40001, Restarted}, {40003, Fresh}, {40001, Duplicate},
	} {
		if got := step(c.seq); got != c.want {
			t.Fatalf("packet %d: verdict %d, want %d", c.seq, got, c.want)
		}
	}
	if r.Lost() != 3 || r.Received() != 9 { // 1, 2 and 40002
		t.Errorf("lost %d, received %d", r.Lost(), r.Received())
	}
	r.Moved()
	step(7)
	step(9)
	if r.Lost() != 4 || r.Received() != 11 {
		t.Errorf("after another source: lost %d, received %d", r.Lost(), r.Received())
	}
	b := r.Report()
	if b.Fraction != 256/3 || b.Lost != 4 || b.Highest != 9 {
		t.Errorf("%+v", b)
	}
	if b = r.Report(); b.Fraction != 0 {
		t.Errorf("second report repeats the loss: %+v", b)
	}
}

func TestEventsAreNoJitter(t *testing.T) {
	var r Reception
	now := time.Unix(9, 0)
	for i := range 200 {
		now = now.Add(20 * time.Millisecond)
		if i%40 > 30 {
			r.Event(now, uint16(i))
		} else {
			r.Packet(now, uint16(i), uint32(i)*160)
		}
	}
	if r.Jitter() != 0 || r.Lost() != 0 || r.Received() != 200 {
		t.Errorf("jitter %v, lost %d, received %d", r.Jitter(), r.Lost(), r.Received())
	}
}

func TestJitterFollowsRFC3550(t *testing.T) {
	var r Reception
	const seed = 3
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	now := time.Unix(1<<30, 0)
	var j, last float64
	for i := range 5000 {
		d := rng.Float64() * 20 // ms
		r.Packet(now.Add(time.Duration((float64(i)*20+d)*1e6)), uint16(i), uint32(i)*160)
		if i > 0 {
			j += (math.Abs(d-last) - j) / 16
		}
		last = d
	}
	if got := float64(r.Jitter()) / 1e6; math.Abs(got-j) > 0.5 {
		t.Errorf("jitter %.2f ms, reference %.2f", got, j)
	}
}
