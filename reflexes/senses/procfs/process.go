package procfs

import (
	"bytes"
	"fmt"
	"time"
)

// Tick is the unit of times in /proc, the same on every Linux.
const Tick = 10 * time.Millisecond

// Process is what /proc/PID/stat tells of a process.
type Process struct {
	State    byte
	Parent   int
	CPU      time.Duration // in user space and kernel, of the process itself
	Threads  int
	Start    uint64 // in ticks since boot
	Resident uint64 // pages
}

// Running tells whether the process has not ended: a zombie has.
func (p Process) Running() bool { return p.State != 'Z' && p.State != 'X' }

// ParseProcess reads /proc/PID/stat. The name in it may hold anything, so it is
// taken by its last parenthesis.
func ParseProcess(b []byte) (Process, error) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return Process{}, fmt.Errorf("parse stat of process %.40q: no name", b)
	}
	line, _ := cutLine(b[i+1:])
	var p Process
	var user, system uint64
	rest := line
	for field := 3; field <= 24; field++ {
		var word []byte
		word, rest = cutWord(rest)
		if len(word) == 0 {
			return Process{}, fmt.Errorf("parse stat of process: %d fields", field-1)
		}
		to := (*uint64)(nil)
		var small uint64
		switch field {
		case 3:
			p.State = word[0]
			continue
		case 4, 20:
			to = &small
		case 14:
			to = &user
		case 15:
			to = &system
		case 22:
			to = &p.Start
		case 24:
			to = &p.Resident
		default:
			continue
		}
		n, err := number(word)
		if err != nil {
			return Process{}, fmt.Errorf("parse stat of process, field %d, %.40q: %w", field, word, err)
		}
		*to = n
		if small > 1<<31 {
			return Process{}, fmt.Errorf("parse stat of process, field %d, %.40q: %w", field, word, errNumber)
		}
		switch field {
		case 4:
			p.Parent = int(small)
		case 20:
			p.Threads = int(small)
		}
	}
	if user > 1<<48 || system > 1<<48 {
		return Process{}, fmt.Errorf("parse stat of process: %w", errNumber)
	}
	p.CPU = time.Duration(user+system) * Tick
	return p, nil
}
