package procfs

import (
	"path/filepath"
	"slices"
	"strings"
)

// Hierarchy is one hierarchy of control groups as it is mounted here.
type Hierarchy struct {
	Controllers []string // of version 1; nil for version 2
	Root        string   // which group is seen at Point; "/" unless in a container
	Point       string
}

// V2 tells whether it is the hierarchy of version 2.
func (h Hierarchy) V2() bool { return h.Controllers == nil }

// Dir is the directory of a group, given its path as /proc/PID/cgroup says it. It
// is false if the group cannot be seen in this mount.
func (h Hierarchy) Dir(group string) (string, bool) {
	rel, err := filepath.Rel(h.Root, group)
	if err != nil || !filepath.IsLocal(rel) {
		return "", false
	}
	return filepath.Join(h.Point, rel), true
}

// ParseHierarchies reads /proc/self/mountinfo. Where a hierarchy is mounted more
// than once, the first is taken.
func ParseHierarchies(mountinfo string) []Hierarchy {
	var hs []Hierarchy
	seen := map[string]bool{}
	for _, m := range ParseMounts(mountinfo) {
		h := Hierarchy{Root: m.Root, Point: m.Point}
		switch m.Type {
		case "cgroup":
			h.Controllers = strings.Split(m.Options, ",")
		case "cgroup2":
		default:
			continue
		}
		key := "2"
		if !h.V2() {
			key = strings.Join(h.Controllers, ",")
		}
		if !seen[key] {
			seen[key] = true
			hs = append(hs, h)
		}
	}
	return hs
}

// Mount is one line of mountinfo.
type Mount struct {
	Device      string // major:minor
	Root, Point string
	Type        string // of the file system
	Source      string
	Options     string // of the file system, not of the mount
	ReadOnly    bool
}

// ParseMounts reads /proc/PID/mountinfo, leaving out lines it does not
// understand.
func ParseMounts(mountinfo string) []Mount {
	var ms []Mount
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 3 {
			continue
		}
		ms = append(ms, Mount{
			Device: l[2], Root: unescape(l[3]), Point: unescape(l[4]),
			Type: r[0], Source: unescape(r[1]), Options: r[2],
			ReadOnly: slices.Contains(strings.Split(l[5], ","), "ro"),
		})
	}
	return ms
}

// unescape undoes the kernel's octal escapes of blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }

// Groups is /proc/PID/cgroup: the paths of the groups that a process is in.
type Groups struct {
	v2 string
	v1 map[string]string // by controller
}

// ParseGroups reads /proc/PID/cgroup.
func ParseGroups(s string) Groups {
	g := Groups{v1: map[string]string{}}
	for line := range strings.Lines(s) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			continue
		}
		if f[0] == "0" && f[1] == "" {
			g.v2 = f[2]
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			g.v1[c] = f[2]
		}
	}
	return g
}

// V2 is the path in the hierarchy of version 2, empty if there is none.
func (g Groups) V2() string { return g.v2 }

// V1 is the path in the hierarchy of version 1 that has a controller, empty if
// none has.
func (g Groups) V1(controller string) string { return g.v1[controller] }
