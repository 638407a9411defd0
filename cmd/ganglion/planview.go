package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// printPreview shows a plan. What is left on the hosts is told where hosts were
// asked about, of those that are concerned, or of all.
func (c *cli) printPreview(p topology.Preview, hosts, all bool) {
	if len(p.Changes) > 0 || !tells(p.Rest) && p.Held == "" {
		c.printChanges(p.Changes)
	}
	c.printStaged(p.Staged, "would be", "")
	if len(p.Refused) > 0 {
		t := newTable("REFUSED", "WHY")
		for _, r := range p.Refused {
			t.row(r.App, oneLine(r.Reason))
		}
		c.printTable(t)
	}
	c.printRest(p.Rest, hosts, all)
	if t := singletonTable(p.Singletons); (hosts || all) && len(t.rows) > 0 {
		c.printTable(t)
	}
	if p.Held != "" {
		fmt.Fprintln(c.out, "held: "+oneLine(p.Held))
	}
	if p.IfRemoved == nil {
		return
	}
	fmt.Fprintln(c.out, "nothing would move by itself; if those hosts were removed from the mesh:")
	if !tells(*p.IfRemoved) {
		fmt.Fprintln(c.out, "nothing would move")
	}
	c.printRest(*p.IfRemoved, hosts, all)
}

// singletonTable tells how long singletons may be down.
func singletonTable(list []topology.Failover) *table {
	t := newTable("SINGLETON", "DOWN IF ITS HOST IS LOST", "AND THE LEADER WITH IT")
	for _, f := range list {
		at := func(ms int64) string { return "at most " + (time.Duration(ms) * time.Millisecond).String() }
		t.row(f.App, at(f.WindowMS), at(f.WindowMS+f.LeaderMS))
	}
	return t
}

// tells tells whether a plan is any different from the present.
func tells(o topology.Rest) bool {
	return len(o.Moves)+len(o.Unplaced)+len(o.Placed)+len(o.Ended)+len(o.Down) > 0
}

func (c *cli) printRest(o topology.Rest, hosts, all bool) {
	moves := movesTable(o.Moves)
	placed := newTable("NEW", "ON")
	for _, x := range o.Placed {
		placed.row(x.Copy.String(), x.Host)
	}
	ended := newTable("ENDS", "ON")
	for _, x := range o.Ended {
		ended.row(x.Copy.String(), x.Host)
	}
	unplaced := newTable("NO PLACE FOR", "WHY")
	for _, u := range o.Unplaced {
		unplaced.row(u.Copy.String(), oneLine(u.Reason))
	}
	down := newTable("DOWN", "ON", "WHY")
	for _, d := range o.Down {
		down.row(d.Copy.String(), d.Host, oneLine(d.Reason))
	}
	tables := []*table{moves, placed, ended, unplaced, down}
	if hosts || all {
		tables = append(tables, capacityTable(o.Capacity, all))
	}
	for _, t := range tables {
		if len(t.rows) > 0 {
			c.printTable(t)
		}
	}
	if o.Steps > 0 && !o.Converged {
		fmt.Fprintf(c.out, "the mesh did not come to rest within %d decisions: this is only how far it came\n", o.Steps)
	} else if o.Steps > 0 && !o.Paced {
		fmt.Fprintln(c.out, "so large a change was rehearsed all at once: what competes for the same room may end otherwise")
	}
}

// movesTable tells which copies go where. Where one begins before the other ends it
// goes on under another name, which is shown if there is any.
func movesTable(list []topology.Move) *table {
	if !slices.ContainsFunc(list, func(m topology.Move) bool { return m.As != nil }) {
		t := newTable("MOVES", "FROM", "TO", "WHY")
		for _, m := range list {
			t.row(m.Copy.String(), m.From, m.To, oneLine(m.Reason))
		}
		return t
	}
	t := newTable("MOVES", "FROM", "TO", "AS", "WHY")
	for _, m := range list {
		as := m.Copy
		if m.As != nil {
			as = *m.As
		}
		t.row(m.Copy.String(), m.From, m.To, as.String(), oneLine(m.Reason))
	}
	return t
}

// capacityTable tells what would be left on the hosts.
func capacityTable(list []topology.Capacity, all bool) *table {
	t := newTable("HOST", "STATE", "COPIES", "FREE CPU", "FREE MEMORY", "FREE PORTS")
	for _, x := range list {
		if !all && x.State == topology.CapacityUp && x.Copies == x.Before {
			continue
		}
		copies := strconv.Itoa(x.Copies)
		if x.Copies != x.Before {
			copies = fmt.Sprintf("%d → %d", x.Before, x.Copies)
		}
		t.row(x.Host, x.State, copies,
			fmt.Sprintf("%.4g of %.4g", x.CPUFree, x.CPU), fmt.Sprintf("%s of %s", gib(x.MemoryFree), gib(x.Memory)),
			fmt.Sprintf("%d of %d", x.PortsFree, x.Ports))
	}
	return t
}

// gib prints bytes as people count memory.
func gib(n int64) string { return fmt.Sprintf("%.1fGiB", float64(n)/(1<<30)) }
