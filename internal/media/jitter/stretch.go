package jitter

const (
	minShift = 20  // samples
	maxShift = 120 // 15 ms: longer jumps are heard
	// tolerance keeps the delay from hunting around its target.
	above = 15 * Rate / 1000
	below = 5 * Rate / 1000
	// A change of one pitch period every 100 ms follows any network; quicker
	// only when far too late.
	calm   = Rate / 10
	hurry  = Rate / 50
	urgent = 60 * Rate / 1000
	// voiced is the likeness from which a period may be cut without being heard.
	voiced = 0.6
	// faint is the mean square below which any cut is inaudible, about -50 dBm0.
	faint = 75 * 75
)

// stretch changes the delay by about one pitch period if it is off its target.
// It fills dst and reports its length, or 0 if nothing was to be done.
func (b *Buffer) stretch(dst []int16) int {
	if b.pause > 0 || b.cover.covered > 0 {
		return 0
	}
	excess := b.delay.now() - b.target()
	switch {
	case excess > above:
		return b.shorten(dst, excess)
	case excess < -below:
		return b.lengthen(dst, -excess)
	}
	return 0
}

// shorten leaves out one period: dst passes from the sound at the play position
// to the sound one period later.
func (b *Buffer) shorten(dst []int16, excess int) int {
	n := len(dst)
	var x [80 + maxShift]int16
	have := b.contiguous(x[:n+min(maxShift, excess)], 0)
	if have < n+minShift {
		return 0
	}
	shift, like := minShift, float32(-1)
	for s := minShift; s <= have-n; s++ {
		if l := likeness(x[:n], x[s:]); l > like {
			shift, like = s, l
		}
	}
	if power(x[:have]) < faint {
		shift = have - n
	} else if like < voiced && excess < urgent {
		return 0
	}
	for i := range dst {
		w := float32(i+1) / float32(n+1)
		dst[i] = clip((1-w)*float32(x[i]) + w*float32(x[i+shift]))
	}
	b.cover.played(dst)
	b.advance(n + shift)
	b.delay.moved(-shift)
	b.count.Removed += uint64(shift)
	b.pause = calm
	if excess > urgent {
		b.pause = hurry
	}
	return n
}

// lengthen repeats one period: dst passes from the sound at the play position
// to the sound one period before.
func (b *Buffer) lengthen(dst []int16, missing int) int {
	n := len(dst)
	var x [80 + maxShift]int16
	if b.contiguous(x[:n+maxShift], -maxShift) < n+maxShift {
		return 0
	}
	shift, like := minShift, float32(-1)
	for s := minShift; s <= maxShift; s++ {
		if l := likeness(x[maxShift:maxShift+n], x[maxShift-s:]); l > like {
			shift, like = s, l
		}
	}
	if power(x[:]) < faint {
		shift = min(maxShift, max(minShift, missing))
	} else if like < voiced && missing < urgent {
		return 0
	}
	for i := range dst {
		w := float32(i+1) / float32(n+1)
		dst[i] = clip((1-w)*float32(x[maxShift+i]) + w*float32(x[maxShift+i-shift]))
	}
	b.cover.played(dst)
	if n >= shift {
		b.advance(n - shift)
	} else {
		b.play -= uint32(shift - n)
	}
	b.delay.moved(shift)
	b.count.Inserted += uint64(shift)
	b.pause = calm
	return n
}

// contiguous copies voice from the play position plus offset on, as far as it
// goes without a hole.
func (b *Buffer) contiguous(dst []int16, offset int32) int {
	for i := range dst {
		at := (b.play + uint32(offset) + uint32(i)) & mask
		if b.have[at] != voice {
			return i
		}
		dst[i] = b.pcm[at]
	}
	return len(dst)
}

func power(x []int16) float32 {
	var sum float32
	for _, v := range x {
		sum += float32(v) * float32(v)
	}
	return sum / float32(max(1, len(x)))
}
