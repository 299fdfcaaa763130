package jitter

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// arrival is one packet of a simulated network.
type arrival struct {
	at   time.Duration
	seq  uint16
	ts   uint32
	pcm  []int16
	cn   bool
	lost bool
}

func sine(n int, from uint32) []int16 {
	pcm := make([]int16, n)
	for i := range pcm {
		pcm[i] = int16(8000 * math.Sin(2*math.Pi*200*float64(from+uint32(i))/Rate))
	}
	return pcm
}

// stream sends 20 ms packets for length; delay says how long each is under way.
func stream(length time.Duration, seq uint16, ts uint32, skew float64, delay func(i int) time.Duration) []arrival {
	var list []arrival
	for i := range int(length / (20 * time.Millisecond)) {
		sent := time.Duration(float64(i) * 20e6 * (1 + skew))
		list = append(list, arrival{at: sent + delay(i), seq: seq + uint16(i), ts: ts + uint32(160*i), pcm: sine(160, uint32(160*i))})
	}
	return list
}

// play feeds the arrivals and pulls a frame every 10 ms; it returns what the
// line heard.
func play(b *Buffer, length time.Duration, list []arrival) []int16 {
	epoch := time.Unix(1000, 0)
	var out []int16
	done := make([]bool, len(list))
	first := 0
	for now := time.Duration(0); now < length; now += 10 * time.Millisecond {
		for {
			// In the order of arrival: the network reorders.
			next := -1
			for i := first; i < len(list) && i < first+200; i++ {
				if !done[i] && list[i].at <= now && (next < 0 || list[i].at < list[next].at) {
					next = i
				}
			}
			if next < 0 {
				break
			}
			done[next] = true
			for first < len(list) && done[first] {
				first++
			}
			a := list[next]
			switch {
			case a.lost:
			case a.cn:
				b.Silence(epoch.Add(a.at), a.seq, a.ts, 60)
			default:
				b.Put(epoch.Add(a.at), a.seq, a.ts, a.pcm)
			}
		}
		frame := make([]int16, 80)
		b.Pull(frame)
		out = append(out, frame...)
	}
	return out
}

func level(pcm []int16) float64 {
	var sum float64
	for _, v := range pcm {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum / float64(len(pcm)))
}

// quietest is the lowest level of any 20 ms.
func quietest(pcm []int16) float64 {
	least := math.Inf(1)
	for i := 0; i+160 <= len(pcm); i += 80 {
		least = min(least, level(pcm[i:i+160]))
	}
	return least
}

func steady(time.Duration) func(int) time.Duration {
	return func(int) time.Duration { return 5 * time.Millisecond }
}

func TestEvenStreamIsPlayedSampleBySample(t *testing.T) {
	for _, start := range []struct {
		seq uint16
		ts  uint32
	}{{1, 0}, {65500, math.MaxUint32 - 5000}, {40000, 1 << 31}} {
		b := New(Limits{})
		out := play(b, 10*time.Second, stream(10*time.Second, start.seq, start.ts, 0, steady(0)))
		want := sine(72000, 0)
		at := -1
		for i := range 8000 { // find the delay
			if out[i] == want[0] && out[i+1] == want[1] && out[i+40] == want[40] && out[i+41] == want[41] && out[i+9] == want[9] {
				at = i
				break
			}
		}
		if at < 0 {
			t.Fatalf("start %+v: voice not found", start)
		}
		c := b.Counts()
		if c.Late+c.Concealed+c.Duplicate != 0 || c.Resyncs != 1 {
			t.Errorf("start %+v: %+v", start, c)
		}
		if c.Removed+c.Inserted == 0 {
			for i := range want {
				if out[at+i] != want[i] {
					t.Fatalf("start %+v: sample %d is %d, want %d", start, i, out[at+i], want[i])
				}
			}
		}
		if d := b.Delay(); d > 40*time.Millisecond {
			t.Errorf("delay %v on a perfect network", d)
		}
	}
}

func TestLossIsConcealedWithoutHoles(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	list := stream(30*time.Second, 100, 5, 0, steady(0))
	lost := 0
	for i := 10; i < len(list); i++ {
		if rng.Float64() < 0.05 && !list[i-1].lost {
			list[i].lost = true
			lost++
		}
	}
	b := New(Limits{})
	out := play(b, 29*time.Second, list)
	if q := quietest(out[8000:]); q < 2000 {
		t.Errorf("quietest 20 ms has level %.0f of 5657: a hole", q)
	}
	c := b.Counts()
	if got, want := float64(c.Concealed), float64(lost*160); got < 0.9*want || got > 1.15*want {
		t.Errorf("concealed %.0f samples for %.0f lost", got, want)
	}
}

func TestDelayGrowsWithJitterAndShrinksAgain(t *testing.T) {
	const seed = 11
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	b := New(Limits{Min: 20 * time.Millisecond, Max: 200 * time.Millisecond})
	rough := func(i int) time.Duration {
		if i < 1500 {
			return time.Duration(rng.Float64() * 60e6)
		}
		return 2 * time.Millisecond
	}
	list := stream(90*time.Second, 1, 0, 0, rough)
	play(b, 30*time.Second, list[:1500])
	if d := b.Delay(); d < 45*time.Millisecond || d > 110*time.Millisecond {
		t.Errorf("delay %v under 60 ms of jitter", d)
	}
	before := b.Counts()
	for i := range list {
		list[i].at -= 30 * time.Second
	}
	play(b, 60*time.Second, list[1500:])
	after := b.Counts()
	if d := b.Delay(); d > 50*time.Millisecond {
		t.Errorf("delay %v a minute after the jitter ended", d)
	}
	if late := float64(before.Late) / 1500; late > 0.05 {
		t.Errorf("%.1f %% late under jitter", 100*late)
	}
	if after.Removed == 0 {
		t.Error("the delay came down without removing anything")
	}
}

func TestClocksThatDriftAreFollowed(t *testing.T) {
	for _, ppm := range []float64{-300, 300} {
		b := New(Limits{})
		out := play(b, 5*time.Minute, stream(5*time.Minute+time.Second, 1, 0, ppm*1e-6, steady(0)))
		c := b.Counts()
		if c.Late > 2 || c.Resyncs != 1 || c.Concealed > 800 {
			t.Errorf("%+v ppm: %+v", ppm, c)
		}
		if ppm > 0 && c.Inserted < 200 || ppm < 0 && c.Removed < 200 {
			t.Errorf("%v ppm: nothing was corrected: %+v", ppm, c)
		}
		if q := quietest(out[8000:]); q < 4000 {
			t.Errorf("%v ppm: quietest 20 ms %.0f: corrections are heard", ppm, q)
		}
		if d := b.Delay(); d > 60*time.Millisecond {
			t.Errorf("%v ppm: delay ran to %v", ppm, d)
		}
	}
}

func TestC99SilenceBecomesContinuousNoise(t *testing.T) {
	for name, cn := range map[string]bool{"comfort noise": true, "nothing at all": false} {
		voice := stream(2*time.Second, 1, 0, 0, steady(0))
		list := append([]arrival(nil), voice...)
		if cn {
			for i := range 60 {
				list = append(list, arrival{at: 2*time.Second + time.Duration(i)*time.Second, seq: uint16(101 + i), ts: uint32(16000 + 8000*i), cn: true})
			}
		}
		again := stream(time.Second, uint16(101+60), 62*8000, 0, steady(0))
		for i := range again {
			again[i].at += 62 * time.Second
		}
		list = append(list, again...)
		b := New(Limits{})
		out := play(b, 63*time.Second, list)
		quiet := out[3*8000 : 62*8000]
		if q := quietest(quiet); q < 2 {
			t.Errorf("%s: 20 ms of digital silence (level %.1f)", name, q)
		}
		if l := level(quiet); l > 200 {
			t.Errorf("%s: noise of level %.0f is loud", name, l)
		}
		if l := level(out[62*8000+1600:]); l < 4000 {
			t.Errorf("%s: voice did not come back: level %.0f", name, l)
		}
		if cn && b.Counts().Concealed > 400 {
			t.Errorf("%s: %d samples of silence were concealed as loss", name, b.Counts().Concealed)
		}
	}
}

func TestDiscontinuousVoiceWithoutNoisePacketsIsNotLoss(t *testing.T) {
	list := stream(time.Second, 1, 0, 0, steady(0))
	for i := 20; i < 25; i++ { // 100 ms pause: numbers go on, time jumps
		list[i].lost = true
	}
	for i := 25; i < len(list); i++ {
		list[i].seq -= 5
	}
	b := New(Limits{Min: 150 * time.Millisecond})
	play(b, time.Second, list)
	if c := b.Counts(); c.Concealed > 0 {
		t.Errorf("%+v: the pause was taken for loss", c)
	}
}

func TestSpikeIsBridgedAndTheDelayedVoiceIsStillHeard(t *testing.T) {
	b := New(Limits{})
	list := stream(4*time.Second, 1, 0, 0, func(i int) time.Duration {
		if i >= 50 && i < 57 { // held back for up to 140 ms, then all at once
			return time.Duration(57-i)*20*time.Millisecond + 5*time.Millisecond
		}
		return 5 * time.Millisecond
	})
	play(b, 4*time.Second, list)
	if c := b.Counts(); c.Late > 1 || c.Resyncs != 1 {
		t.Errorf("%+v: delayed packets were thrown away", c)
	}
}

func TestJumpsDuplicatesAndReorderingDoNoHarm(t *testing.T) {
	b := New(Limits{})
	list := stream(2*time.Second, 1, 0, 0, steady(0))
	for i := 0; i+1 < len(list); i += 10 {
		list[i].at, list[i+1].at = list[i+1].at, list[i].at
	}
	list = append(list, list[40])
	list[len(list)-1].at += time.Millisecond
	jump := stream(2*time.Second, 5000, 1<<30, 0, steady(0)) // new clock
	back := stream(2*time.Second, 7000, 1<<30-2000, 0, steady(0))
	for i := range jump {
		jump[i].at += 2 * time.Second
		back[i].at += 4 * time.Second
	}
	list = append(append(list, jump...), back...)
	out := play(b, 6*time.Second, list)
	for _, from := range []int{1, 3, 5} {
		if l := level(out[from*8000 : from*8000+4000]); l < 4500 {
			t.Errorf("after %d s: level %.0f", from, l)
		}
	}
	if c := b.Counts(); c.Duplicate != 1 {
		t.Errorf("%d duplicates, want 1", c.Duplicate)
	}
}

func TestNothingAllocates(t *testing.T) {
	b := New(Limits{})
	now, pcm, frame := time.Unix(0, 0), sine(160, 0), make([]int16, 80)
	seq := uint16(0)
	if n := testing.AllocsPerRun(1000, func() {
		now = now.Add(20 * time.Millisecond)
		if seq%7 != 0 {
			b.Put(now, seq, uint32(seq)*160, pcm)
		}
		seq++
		b.Pull(frame)
		b.Pull(frame)
	}); n != 0 {
		t.Errorf("%v allocations per packet", n)
	}
}

func FuzzBuffer(f *testing.F) {
	f.Add([]byte{1, 0, 0, 160, 2, 0, 0, 3, 255, 1, 1, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		b := New(Limits{})
		now, pcm, frame := time.Unix(0, 0), make([]int16, MaxPacket), make([]int16, 80)
		for i := 0; i+4 <= len(script) && i < 4000; i += 4 {
			now = now.Add(time.Duration(script[i]) * time.Millisecond)
			seq, ts := uint16(script[i+1])<<8, uint32(script[i+2])<<24|uint32(script[i+3])<<6
			switch script[i] & 3 {
			case 0:
				b.Silence(now, seq, ts, script[i+1])
			case 1:
				b.Put(now, seq, ts, pcm[:int(script[i+3])*MaxPacket/255])
			default:
				b.Put(now, uint16(i/4), uint32(i*40), pcm[:160])
			}
			b.Pull(frame)
			if d := b.Target(); d > 500*time.Millisecond {
				t.Fatalf("target %v", d)
			}
		}
	})
}
