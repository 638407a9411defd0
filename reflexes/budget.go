package reflexes

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limit is so many acts within so long: in no window of Per more than N.
type Limit struct {
	N   int
	Per time.Duration
}

// ParseLimit reads "3/10m".
func ParseLimit(s string) (Limit, error) {
	n, per, ok := strings.Cut(s, "/")
	l := Limit{}
	var err error
	if l.N, err = strconv.Atoi(n); err == nil && ok {
		l.Per, err = time.ParseDuration(per)
	}
	switch {
	case err != nil || !ok || l.N < 1 || l.Per <= 0:
		return Limit{}, fmt.Errorf("limit %.30q: want one such as 3/10m, three in ten minutes", s)
	case l.N > maxLimit:
		return Limit{}, fmt.Errorf("limit %.30q: allows %d acts; at most %d", s, l.N, maxLimit)
	}
	return l, nil
}

// String prints the limit as ParseLimit reads it.
func (l Limit) String() string {
	per := l.Per.String()
	if strings.HasSuffix(per, "m0s") {
		per = strings.TrimSuffix(per, "0s")
	}
	if strings.HasSuffix(per, "h0m") {
		per = strings.TrimSuffix(per, "0m")
	}
	return fmt.Sprintf("%d/%s", l.N, per)
}

// spends are the times of acts under a limit, oldest first, at most N of them:
// a window that slides. A bucket that refills would allow twice N in a window.
type spends struct {
	at []Boot
}

// next tells when an act is within the limit, which is now or earlier if it is
// already.
func (s *spends) next(l Limit) Boot {
	if len(s.at) < l.N {
		return 0
	}
	return s.at[len(s.at)-l.N] + l.Per
}

// spend counts an act. It does not ask whether it is within the limit: what has
// happened has happened.
func (s *spends) spend(l Limit, now Boot) {
	if cap(s.at) == 0 {
		s.at = make([]Boot, 0, l.N)
	}
	if n := len(s.at) - l.N + 1; n > 0 {
		s.at = append(s.at[:0], s.at[n:]...)
	}
	s.at = append(s.at, now)
}

// left is how many acts are within the limit at now.
func (s *spends) left(l Limit, now Boot) int {
	n := l.N
	for _, at := range s.at {
		if now-at < l.Per {
			n--
		}
	}
	return max(n, 0)
}

// restored takes over what was spent in another life of the agent. After a boot
// nobody knows how long ago it was: it counts as spent just now.
func (s *spends) restored(at []Boot, sameBoot bool, l Limit, now Boot) {
	s.at = s.at[:0]
	for _, t := range at {
		if !sameBoot || t > now {
			t = now
		}
		s.spend(l, t)
	}
	slices.Sort(s.at)
}

// exhaust spends all that is left.
func (s *spends) exhaust(l Limit, now Boot) {
	for range l.N {
		s.spend(l, now)
	}
}
