package dsp

import (
	"math"
	"slices"
)

// toneSet is frequencies that sound together, as clusters that the window
// cannot divide.
type toneSet struct{ clusters []cluster }

type cluster struct {
	low, high   float64 // Hz, of the nominal tones
	tolerance   float64 // Hz that the centre of gravity may be outside
	first, last int     // bins, as indices of Detector.bins
	core        [2]int  // narrower, for the balance of neighbours
}

type detectorBin struct {
	k      int
	coeff  float32
	energy float64
}

var detectorWindowTable = buildDetectorWindow()

func buildDetectorWindow() (t [detectorWindow]float32) {
	for i := range t {
		t[i] = float32(0.5 - 0.5*math.Cos(2*math.Pi*(float64(i)+0.5)/detectorWindow))
	}
	return t
}

// classOf finds or makes the class of a step that sounds. Steps that a window of
// 50 ms cannot tell apart are of one class, and left to the cadence: 400 Hz and
// 400 Hz modulated, or 425 Hz and 400+425+450 Hz.
func (d *Detector) classOf(hz []float64, am float64) int8 {
	var clusters []cluster
	for _, f := range slices.Sorted(slices.Values(hz)) {
		if n := len(clusters); n > 0 && f-am-clusters[n-1].high < 38 {
			clusters[n-1].high = f + am
			continue
		}
		clusters = append(clusters, cluster{low: f - am, high: f + am})
	}
	for i := range d.sets {
		if slices.Equal(d.sets[i].clusters, clusters) {
			return int8(i)
		}
	}
	d.sets = append(d.sets, toneSet{clusters})
	return int8(len(d.sets) - 1)
}

// same reports that two sets are one for a window. A set of two tones has a
// balance to go by, so only the nearly equal are; a wide cluster hides what lies
// inside it, and two near tones look like one in their middle.
func same(a, b []cluster) bool {
	if len(a) == 1 && len(b) > 1 {
		low, high := b[0].low, b[len(b)-1].high
		return low > a[0].low-5 && high < a[0].high+5 ||
			high-low < 60 && math.Abs(low+high-a[0].low-a[0].high) < 30
	}
	margin := 30.0
	if len(a) > 1 {
		margin = 10
	}
	return slices.EqualFunc(a, b, func(c, o cluster) bool { return c.low < o.high+margin && o.low < c.high+margin })
}

// unify gives sets that are the same one class, and what follows from it.
func (d *Detector) unify() {
	for i := 0; i < len(d.sets); i++ {
		for j := 0; j < len(d.sets); j++ {
			if i == j || !same(d.sets[i].clusters, d.sets[j].clusters) {
				continue
			}
			have, gone := d.sets[i].clusters, d.sets[j].clusters
			if len(have) == 1 {
				have[0].low, have[0].high = min(have[0].low, gone[0].low), max(have[0].high, gone[len(gone)-1].high)
			} else {
				for k := range have {
					have[k].low, have[k].high = min(have[k].low, gone[k].low), max(have[k].high, gone[k].high)
				}
			}
			d.sets = slices.Delete(d.sets, j, j+1)
			keep := i
			if j < i {
				keep--
			}
			for _, p := range d.patterns {
				for _, st := range p.steps {
					for k, c := range st.classes {
						switch {
						case int(c) == j:
							st.classes[k] = int8(keep)
						case int(c) > j:
							st.classes[k] = c - 1
						}
					}
				}
			}
			i, j = -1, len(d.sets) // from the start: the set has grown
		}
	}
}

// plan chooses the bins that the sets need.
func (d *Detector) plan() {
	bin := func(hz float64) int { return int(math.Round(hz / detectorBinHz)) }
	var want []int
	for _, s := range d.sets {
		for j := range s.clusters {
			c := &s.clusters[j]
			c.tolerance = max(15, c.high*0.02) + 3
			if c.low >= 900 {
				c.tolerance = 50 // SIT: North America shifts its tones
			}
			c.first, c.last = bin(c.low-c.tolerance-30), bin(c.high+c.tolerance+30)
			c.core = [2]int{bin(c.low - 12), bin(c.high + 12)}
			for k := c.first; k <= c.last; k++ {
				want = append(want, k)
			}
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	for _, k := range want {
		d.bins = append(d.bins, detectorBin{k: k, coeff: float32(2 * math.Cos(2*math.Pi*float64(k)/detectorWindow))})
	}
	index := func(k int) int { i, _ := slices.BinarySearch(want, k); return i }
	for _, s := range d.sets {
		for j := range s.clusters {
			c := &s.clusters[j]
			c.first, c.last = index(c.first), index(c.last)
			c.core = [2]int{index(c.core[0]), index(c.core[1])}
		}
	}
}

// classify judges the last window.
func (d *Detector) classify() int8 {
	var x [detectorWindow]float32
	n := copy(x[:], d.ring[d.next:])
	copy(x[n:], d.ring[:d.next])
	var energy float64
	for i, w := range detectorWindowTable {
		x[i] *= w
		energy += float64(x[i]) * float64(x[i])
	}
	// Two near frequencies beat, and Australia's congestion has bursts 10 dB
	// weaker, so the limit is 12 dB down; that makes bursts about 20 ms longer
	// than they are, see detectorLonger.
	d.level *= 0.998
	if energy < detectorFloor || energy < d.level/16 {
		return classSilence
	}
	for i := range d.bins {
		b := &d.bins[i]
		var s1, s2 float32
		for _, v := range x {
			s1, s2 = v+b.coeff*s1-s2, s1
		}
		p, q := float64(s1), float64(s2)
		b.energy = (p*p + q*q - float64(b.coeff)*p*q) * 2 / detectorWindow
	}
	best, purest := classOther, detectorPurity
	fewest := maxTones + 1
	for i := range d.sets {
		// Of two sets that explain the window, the one with fewer frequencies:
		// a set whose second frequency is absent fails by its balance.
		share, ok := d.share(&d.sets[i], energy)
		if n := len(d.sets[i].clusters); ok && (share > purest+0.03 || share > detectorPurity && n > fewest || best == classOther && share > purest) {
			best, purest, fewest = int8(i), share, n
		}
	}
	if best >= 0 {
		d.level = max(d.level, energy)
	}
	return best
}

// share is the part of the energy that a set has, and whether the set is there.
func (d *Detector) share(s *toneSet, energy float64) (float64, bool) {
	var sum, cores, weakest, strongest float64
	covered := -1
	for i := range s.clusters {
		c := &s.clusters[i]
		var whole, core, moment float64
		for b := c.first; b <= c.last; b++ {
			e := d.bins[b].energy
			whole += e
			moment += e * float64(d.bins[b].k) * detectorBinHz
			if b > covered {
				sum += e
			}
		}
		for b := c.core[0]; b <= c.core[1]; b++ {
			core += d.bins[b].energy
		}
		cores += core
		covered = c.last
		if whole == 0 {
			return 0, false
		}
		// Where another cluster is near, its skirt pulls the centre over.
		alone := (i == 0 || s.clusters[i-1].last < c.first) && (i+1 == len(s.clusters) || s.clusters[i+1].first > c.last)
		if centre := moment / whole; alone && (centre < c.low-c.tolerance || centre > c.high+c.tolerance) {
			return 0, false
		}
		if i == 0 {
			weakest, strongest = core, core
		}
		weakest, strongest = min(weakest, core), max(strongest, core)
	}
	share := sum / energy
	// The energy must be at the tones, not between them.
	return share, share > detectorPurity && cores > 0.5*energy && weakest > detectorApart*strongest
}
