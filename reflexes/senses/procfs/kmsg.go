package procfs

import (
	"bytes"
	"errors"
	"fmt"
)

// Record is one message of the kernel log.
type Record struct {
	Priority uint64 // severity, and facility times 8
	Seq      uint64 // rises by one from message to message
	Text     []byte // first line; part of what was parsed
}

// FromKernel tells a message of the kernel from one that a program has written.
func (r Record) FromKernel() bool { return r.Priority < 8 }

// MaxRecord is more than the kernel ever says in one read of /dev/kmsg.
const MaxRecord = 8 << 10

// ParseRecord reads what one read of /dev/kmsg returns:
// "priority,seq,time,flags[,…];text", then lines about the device.
func ParseRecord(b []byte) (Record, error) {
	head, text, ok := bytes.Cut(b, []byte{';'})
	if !ok || len(b) > MaxRecord {
		return Record{}, errors.New("parse kernel message: no text")
	}
	var r Record
	var err1, err2 error
	prio, rest, _ := bytes.Cut(head, []byte{','})
	seq, _, _ := bytes.Cut(rest, []byte{','})
	r.Priority, err1 = number(prio)
	r.Seq, err2 = number(seq)
	if err := errors.Join(err1, err2); err != nil {
		return Record{}, fmt.Errorf("parse kernel message %.40q: %w", head, err)
	}
	r.Text, _ = cutLine(text)
	return r, nil
}

// Kill is one process that the kernel ended, or is about to, for want of memory.
type Kill struct {
	PID   int
	Name  []byte // of the program; part of what was parsed, empty if not said
	Group []byte // its control group, likewise
	Memcg bool   // the limit of a group was reached, not that of the host
	Done  bool   // it was killed, rather than chosen
}

// ParseKill tells whether the text of a kernel message is about a kill for want
// of memory. For each, kernels since 5.0 write two: the victim's choice, with
// its group, and then the deed; older ones write only the latter.
func ParseKill(text []byte) (Kill, bool) {
	if rest, ok := bytes.CutPrefix(text, []byte("oom-kill:")); ok {
		return parseChoice(rest)
	}
	const killed = "illed process " // also "Killed" at the beginning of the text
	i := bytes.Index(text, []byte(killed))
	if i < 1 || i > 64 || text[i-1] != 'K' {
		return Kill{}, false
	}
	word, rest := cutWord(text[i+len(killed):])
	pid, err := number(bytes.TrimRight(word, ","))
	if err != nil || pid == 0 || pid > 1<<31-1 {
		return Kill{}, false
	}
	k := Kill{PID: int(pid), Memcg: bytes.HasPrefix(text, []byte("Memory cgroup")), Done: true}
	if len(rest) > 1 && rest[0] == ' ' && rest[1] == '(' {
		if end := bytes.LastIndexByte(rest, ')'); end > 1 {
			k.Name = rest[2:end]
		}
	}
	return k, true
}

// parseChoice reads "constraint=…,nodemask=…,oom_memcg=/a,task_memcg=/a/b,task=name,pid=1,uid=0".
// Names may hold commas and equals signs: the pid is taken from the end, and the
// group from between its key and that of the name.
func parseChoice(b []byte) (Kill, bool) {
	k := Kill{Memcg: bytes.HasPrefix(b, []byte("constraint=CONSTRAINT_MEMCG"))}
	i := bytes.LastIndex(b, []byte(",pid="))
	if i < 0 {
		return Kill{}, false
	}
	word, _, _ := bytes.Cut(b[i+len(",pid="):], []byte{','})
	pid, err := number(word)
	if err != nil || pid == 0 || pid > 1<<31-1 {
		return Kill{}, false
	}
	k.PID = int(pid)
	b = b[:i]
	_, after, ok := bytes.Cut(b, []byte(",task_memcg="))
	if !ok {
		return k, true
	}
	if j := bytes.Index(after, []byte(",task=")); j >= 0 {
		k.Group, k.Name = after[:j], after[j+len(",task="):]
	}
	return k, true
}
