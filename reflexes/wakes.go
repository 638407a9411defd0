package reflexes

// wakes is a heap of instances by the time at which each has to be judged.
type wakes []*instance

// set puts in, or moves, an instance; never takes it out.
func (h *wakes) set(in *instance, at Boot) {
	in.wake = at
	i := in.slot
	switch {
	case at == never && i < 0:
		return
	case at == never:
		last := len(*h) - 1
		h.swap(i, last)
		*h = (*h)[:last]
		in.slot = -1
		if i < last {
			h.fix(i)
		}
		return
	case i < 0:
		in.slot = len(*h)
		*h = append(*h, in)
		i = in.slot
	}
	h.fix(i)
}

func (h wakes) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i, j
}

func (h wakes) fix(i int) {
	for i > 0 && h[i].wake < h[(i-1)/2].wake {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		least := i
		for _, c := range [2]int{2*i + 1, 2*i + 2} {
			if c < len(h) && h[c].wake < h[least].wake {
				least = c
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}
