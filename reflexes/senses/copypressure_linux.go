package senses

import (
	"context"
	"errors"
	"fmt"

	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

// CopyPressure tells how much of the time a copy's tasks wait for a core, for
// memory, or for a disk. It knows it of copies that have a control group of
// version 2 for themselves, with or without controllers.
type CopyPressure struct{ cfg CopiesConfig }

// NewCopyPressure returns the sense of the pressure of copies.
func NewCopyPressure(cfg CopiesConfig) (*CopyPressure, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up the sense of the pressure of copies: %w", err)
	}
	return &CopyPressure{cfg: cfg}, nil
}

// Name implements Sense.
func (p *CopyPressure) Name() string { return "copy-pressure" }

var copyPressureVars = []reflexes.VarID{reflexes.AppPSICPUSome10s, reflexes.AppPSIMemoryFull10s, reflexes.AppPSIIOFull10s}

// Vars implements Sense.
func (p *CopyPressure) Vars() []reflexes.VarID { return copyPressureVars }

// Run implements Sense.
func (p *CopyPressure) Run(ctx context.Context, emit Emit) error {
	track, err := newTracker(p.cfg, p.open, copyPressureVars)
	if err != nil {
		return err
	}
	defer track.close()
	return every(ctx, p.cfg.Now, p.cfg.Interval, func() error {
		track.facts = track.facts[:0]
		track.refresh()
		for _, c := range track.copies {
			if c.files == nil {
				continue
			}
			facts, err := c.files.look()
			track.facts = append(track.facts, facts...)
			if err != nil {
				track.drop(c)
			}
		}
		emit(track.facts)
		return nil
	})
}

var errNoGroup = errors.New("no control group of its own")

// open opens the pressure of one copy.
func (p *CopyPressure) open(c Copy, d groupDirs) (*gauge, error) {
	if d.v2 == "" {
		return nil, errNoGroup
	}
	g := &gauge{now: p.cfg.Now, refresh: p.cfg.Interval}
	t := reflexes.CopyTarget(c.ID)
	for _, f := range []struct {
		name       string
		some, full reflexes.VarID
	}{
		{"cpu", reflexes.AppPSICPUSome10s, 0},
		{"memory", 0, reflexes.AppPSIMemoryFull10s},
		{"io", 0, reflexes.AppPSIIOFull10s},
	} {
		file, err := procfs.Open(d.v2+"/"+f.name+".pressure", 256)
		if err != nil {
			g.close()
			return nil, err
		}
		g.add(file, t, p.cfg.Interval, 0, f.some, 0, f.full)
	}
	return g, nil
}
