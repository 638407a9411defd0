//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/pause"
)

// ask asks whoever listens at a copy's port who it is.
func ask(ctx context.Context, cp topology.CopyStatus) (copyReply, error) {
	var r copyReply
	// Each question on its own connection: it must reach who listens now.
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	url := "http://" + hostPort("127.0.0.1", cp.Ports["http"]) + "/healthz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return r, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	return r, json.NewDecoder(resp.Body).Decode(&r)
}

// answers checks that the copy itself answers at its port, as the process that
// the mesh says it is.
func answers(ctx context.Context, cp topology.CopyStatus) error {
	r, err := ask(ctx, cp)
	if err != nil {
		return fmt.Errorf("%s on %s does not answer: %w", cp.ID, cp.Host, err)
	}
	if cp.ID != r.name(cp) || r.Host != cp.Host || r.Pid != cp.Pid {
		return fmt.Errorf("%s on %s is said to be pid %d, but %s on %s, pid %d, answers", cp.ID, cp.Host, cp.Pid, r.Copy, r.Host, r.Pid)
	}
	return nil
}

// name is the copy's name as the mesh writes it: the environment gives either
// the whole or the number.
func (r copyReply) name(cp topology.CopyStatus) string {
	if strings.Contains(r.Copy, "/") {
		return r.Copy
	}
	app, _, _ := strings.Cut(cp.ID, "/")
	return app + "/" + r.Copy
}

// successor asks at the port of a copy that was killed until another process
// answers, and returns its pid.
func successor(ctx context.Context, victim topology.CopyStatus) (int, error) {
	for {
		r, err := ask(ctx, victim)
		if err == nil && r.Pid != victim.Pid && r.name(victim) == victim.ID {
			return r.Pid, nil
		}
		if !pause.For(ctx, 200*time.Microsecond) {
			return 0, fmt.Errorf("no other process answers for %s in time (%w)", victim.ID, err)
		}
	}
}

// process is the process of a copy, told from a later one of the same pid by
// its start time.
type process struct {
	copy  topology.CopyStatus
	start string
}

type processes []process

// processesOn notes the processes of an app's copies on a host.
func processesOn(st topology.AppStatus, host string) (processes, error) {
	var out processes
	for _, cp := range st.Copies {
		if cp.Host != host {
			continue
		}
		start, err := startTime(cp.Pid)
		if err != nil {
			return nil, fmt.Errorf("%s on %s is said to be pid %d: %w", cp.ID, host, cp.Pid, err)
		}
		out = append(out, process{cp, start})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no copy runs on %s: there is nothing to see", host)
	}
	return out, nil
}

// same checks that the very same processes run still, and answer.
func (p processes) same(ctx context.Context) error {
	var errs []error
	for _, one := range p {
		start, err := startTime(one.copy.Pid)
		if err == nil && start != one.start {
			err = errors.New("it is another process now")
		}
		if err == nil {
			err = answers(ctx, one.copy)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s was pid %d: %w", one.copy.ID, one.copy.Pid, err))
		}
	}
	return errors.Join(errs...)
}

// in checks that a status has the same copies with the same pids.
func (p processes) in(st topology.AppStatus) error {
	for _, one := range p {
		found := false
		for _, cp := range st.Copies {
			found = found || cp.ID == one.copy.ID && cp.Host == one.copy.Host && cp.Pid == one.copy.Pid && cp.Ready
		}
		if !found {
			return fmt.Errorf("%s is not ready as pid %d on %s any more", one.copy.ID, one.copy.Pid, one.copy.Host)
		}
	}
	return nil
}

// lines tells which copy is still which process.
func (p processes) lines() []string {
	var out []string
	for _, one := range p {
		out = append(out, fmt.Sprintf("%s on %s is still pid %d", one.copy.ID, one.copy.Host, one.copy.Pid))
	}
	return out
}

// startTime reads when a process was started, in ticks since boot. A zombie has
// ended.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", errors.New("there is no such process")
	}
	// The name in parentheses may hold anything; what follows is in columns.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return "", errors.New("the process has ended")
	}
	return fields[19], nil
}
