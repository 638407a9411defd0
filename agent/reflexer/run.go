package reflexer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// agentEnded is the result of an act that nobody waited for.
const agentEnded = "the agent ended before it was known"

// Run runs the reflexes until ctx ends; then it waits for the acts that are
// under way, which are told to end, and stores the state.
func (r *Reflexer) Run(ctx context.Context) error {
	defer close(r.done)
	if err := r.restore(); err != nil {
		r.log.Error("the state of reflexes is damaged: their limits begin used up", "error", err)
	}
	keeper := newKeeper(r.journal)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	store := time.NewTimer(0)
	defer store.Stop()
	for ctx.Err() == nil {
		r.repay(ctx)
		r.setTimer(timer)
		if r.touched && !r.storing {
			r.storing = true
			store.Reset(snapshotEvery)
		}
		select {
		case <-ctx.Done():
		case <-r.bell:
			r.answer()
			r.step(ctx)
		case <-r.cfg.Senses.Ready():
			r.step(ctx)
		case e := <-r.ended:
			r.finish(ctx, e)
		case <-timer.C:
			r.step(ctx)
		case <-store.C:
			r.touched, r.storing = false, false
			if data, changed := r.snapshot(); changed && keeper.store(data) {
				r.stored = essence(data)
			}
		}
	}
	r.drain(ctx)
	keeper.close()
	if data, changed := r.snapshot(); changed {
		keeper.writing(data)()
	}
	return r.journal.close()
}

// setTimer asks to be woken when the engine has something to do.
func (r *Reflexer) setTimer(t *time.Timer) {
	wake := min(r.engine.Wake(), r.purseWake())
	if !r.ruled || wake-r.now() > time.Hour {
		t.Reset(time.Hour)
		return
	}
	t.Reset(max(wake-r.now(), 0))
}

// restore takes over what an earlier life of the agent left.
func (r *Reflexer) restore() error {
	state, records, err := r.journal.read()
	if err != nil {
		return errors.Join(err, r.engine.Restore(r.now(), []byte{}, nil))
	}
	if state == nil && records == nil {
		return nil
	}
	r.stored = essence(state)
	return r.engine.Restore(r.now(), state, records)
}

// answer does what was posted.
func (r *Reflexer) answer() {
	r.mu.Lock()
	calls := r.wait
	r.wait = nil
	r.mu.Unlock()
	r.touched = true
	for _, f := range calls {
		f(r.engine, r.now())
		r.note()
	}
}

// step hands the engine what was seen and does what it asks for. Before it has
// rules there is nothing to do: what was seen waits.
func (r *Reflexer) step(ctx context.Context) {
	if !r.ruled {
		return
	}
	r.facts = r.cfg.Senses.Take(r.facts[:0])
	r.touched = true
	firings, _ := r.engine.Step(r.now(), r.facts)
	for _, f := range firings {
		r.fire(ctx, f)
	}
	r.borrow(ctx)
	if r.engine.Wished() && r.cfg.Wish != nil {
		r.cfg.Wish(r.engine.Wants(r.now()))
	}
	r.note()
}

// fire takes one firing from the permit to the act. Nothing stands between the
// two but one plain write, and for what reaches further the disk.
func (r *Reflexer) fire(ctx context.Context, f reflexes.Firing) {
	act, ok := r.engine.Permit(r.now(), f, r.authorize(f, r.cfg.Authority(f)))
	if unleased := r.engine.Unleased(); !ok {
		if unleased && r.cfg.Lease != nil {
			r.cfg.Lease(f)
		}
		return
	}
	order := Order{Act: act, Revives: f.Rung.Revives()}
	order.Facts = slices.Clone(act.Facts) // the engine's own change
	err := r.journal.append(r.engine.TakeRecords())
	r.flights[act.ID] = flight{sensed: act.Sensed, acted: r.now(), facts: order.Facts, tells: act.Tell}
	r.acts.Go(func() {
		said := ""
		if err == nil && act.Durable {
			err = r.journal.sync()
		}
		if err != nil {
			err = fmt.Errorf("not done: its record could not be written: %w", err)
		} else if act.Until > 0 && r.now() >= act.Until {
			err = errors.New("not done: to record it took so long that its token is good no more")
		} else if said, err = r.cfg.Act(ctx, order); ctx.Err() != nil {
			err = fmt.Errorf("%s", agentEnded)
		}
		r.ended <- ended{act.ID, said, err}
	})
}

// finish ends an act.
func (r *Reflexer) finish(ctx context.Context, e ended) {
	detail := e.said
	if e.err != nil {
		detail = e.err.Error()
	}
	r.engine.Done(r.now(), e.act, e.err == nil, detail)
	r.note()
	delete(r.flights, e.act)
	if ctx.Err() == nil {
		r.step(ctx)
	}
}

// drain waits for the acts that are under way.
func (r *Reflexer) drain(ctx context.Context) {
	all := make(chan struct{})
	go func() {
		r.acts.Wait()
		close(all)
	}()
	for {
		select {
		case e := <-r.ended:
			r.finish(ctx, e)
		case <-all:
			return
		}
	}
}

// note journals and tells what the engine has to say.
func (r *Reflexer) note() {
	records := r.engine.TakeRecords()
	if err := r.journal.append(records); err != nil {
		r.log.Warn("record what reflexes did", "error", err)
	}
	for _, rec := range records {
		if _, ours := r.flights[rec.Act]; rec.Kind == reflexes.RecordResult && !ours {
			r.lost = append(r.lost, rec)
		}
	}
	if r.ruled { // else it is not known which version of a rule it was
		for _, rec := range r.lost {
			r.tellLost(rec)
		}
		r.lost = nil
	}
	for _, o := range r.engine.TakeOutcomes() {
		f := r.flights[o.Act]
		if o.Kind == reflexes.Finished {
			o.Sensed, o.Facts = f.sensed, f.facts
		}
		r.cfg.Tell(Told{Outcome: o, Acted: f.acted, Tells: f.tells})
	}
}

// tellLost tells of an act of an earlier life whose result nobody knows.
func (r *Reflexer) tellLost(result reflexes.Record) {
	for _, rec := range r.engine.History("") {
		if rec.Act == result.Act && rec.Kind == reflexes.RecordIntent {
			r.cfg.Tell(Told{Lost: true, Outcome: reflexes.Outcome{
				Kind: reflexes.Finished, Rule: rec.Rule, Target: rec.Target, Action: rec.Action, Act: rec.Act,
				At: result.At, OK: result.OK, Detail: result.Detail, Stage: r.engine.StageOf(rec), Chain: rec.Through(),
			}})
		}
	}
}

// snapshot is the engine's state, and whether it differs from what is stored.
func (r *Reflexer) snapshot() (data []byte, changed bool) {
	if !r.ruled {
		return nil, false // what was restored is not whole before there are rules
	}
	data, err := r.engine.Snapshot()
	if err != nil {
		r.log.Warn("store state of reflexes", "error", err)
		return nil, false
	}
	return data, essence(data) != r.stored
}

// essence is a snapshot without its time.
func essence(state []byte) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(state, &fields) != nil {
		return ""
	}
	delete(fields, "at")
	out, _ := json.Marshal(fields) // of what was just read
	return string(out)
}
