package intent

import (
	"math"
	"path"
	"slices"
	"strings"
)

// signals are the ones a copy can be stopped with.
var signals = []string{
	"SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGABRT", "SIGWINCH", "SIGCONT", "SIGKILL",
}

// Signals returns the names of the signals that a declaration may ask for.
func Signals() []string { return slices.Clone(signals) }

// check judges a as it will be stored, with its defaults; what only the written
// form shows, several kinds at once, is judged before they are filled.
func (a App) check(f field) {
	f.at("name").failIf(CheckName(a.Name))
	a.checkKind(f)
	a = a.WithDefaults()
	a.Run.check(f.at("run"), a.Ports)
	checkPorts(f.at("ports"), a.Ports)
	a.Resources.check(f.at("resources"))
	a.Place.check(f.at("place"))
	checks := f.at("checks")
	if len(a.Checks) > MaxChecks {
		checks.fail("%d checks; at most %d are allowed", len(a.Checks), MaxChecks)
		return
	}
	for i, c := range a.Checks {
		c.check(checks.item(i), a)
	}
	a.checkLife(f)
	checkReflexes(f.at("reflexes"), a.Reflexes)
}

func (a App) checkKind(f field) {
	set := ""
	kind := func(is bool, name string) {
		switch {
		case !is:
		case set == "":
			set = name
		default:
			f.at(name).fail("%s and %s exclude each other; keep one of count, per_host, singleton, schedule and once", set, name)
		}
	}
	kind(a.Count != nil, "count")
	kind(a.PerHost, "per_host")
	kind(a.Singleton, "singleton")
	kind(a.Schedule != "", "schedule")
	kind(a.Once, "once")
	if a.Count != nil && (*a.Count < 0 || *a.Count > MaxCopies) {
		f.at("count").fail("%d is not a number of copies from 0 to %d", *a.Count, MaxCopies)
	}
	if a.Schedule != "" {
		f.at("schedule").failIf(checkSchedule(a.Schedule))
	}
}

func (r Run) check(f field, ports map[string]Port) {
	checkCommand(f.at("command"), r.Command, r.Artifact != "", ports)
	r.checkArtifact(f)
	r.checkEnv(f.at("env"), ports)
	if r.User != "" && !userForm.MatchString(r.User) {
		f.at("user").fail("%s is not the name or number of a user", quote(r.User))
	}
	dir := f.at("dir")
	dir.text(r.Dir, MaxText)
	switch {
	case r.Dir == "" || path.IsAbs(r.Dir):
	case r.Artifact == "":
		dir.fail("%s is inside the package, but there is no run.artifact; use an absolute path", quote(r.Dir))
	case !local(r.Dir):
		dir.fail("%s leaves the package", quote(r.Dir))
	}
}

func (r Run) checkArtifact(f field) {
	artifact, digest := f.at("artifact"), f.at("digest")
	artifact.text(r.Artifact, MaxText)
	remote := strings.HasPrefix(r.Artifact, "https://")
	switch {
	case strings.HasPrefix(r.Artifact, "sha256:") && !digestForm.MatchString(r.Artifact):
		artifact.fail("%s is not sha256: and 64 hex digits", quote(r.Artifact))
	case strings.Contains(r.Artifact, "://") && !remote:
		artifact.fail("%s: only https:// is fetched; besides it there are a local path and sha256:…", quote(r.Artifact))
	case remote && r.Digest == "":
		artifact.fail("%s needs run.digest, the sha256:… of what it serves", quote(r.Artifact))
	case remote:
		checkAddress(artifact, r.Artifact)
	}
	switch {
	case r.Digest == "":
	case !remote:
		digest.fail("run.digest is for an https:// artifact")
	case !digestForm.MatchString(r.Digest):
		digest.fail("%s is not sha256: and 64 hex digits", quote(r.Digest))
	}
}

func (r Run) checkEnv(f field, ports map[string]Port) {
	if len(r.Env) > MaxEnv {
		f.fail("%d variables; at most %d are allowed", len(r.Env), MaxEnv)
		return
	}
	for _, name := range sortedKeys(r.Env) {
		switch {
		case len(name) > MaxEnvName || !envForm.MatchString(name):
			f.key(name).fail("%s is not the name of an environment variable", quote(name))
			continue
		case strings.HasPrefix(name, "GANGLION_") || strings.HasPrefix(name, "PORT_") || name == "STATE_DIR":
			f.key(name).fail("%s is set by the agent; choose another name", quote(name))
		}
		f.key(name).filled(r.Env[name], ports)
	}
}

// checkCommand judges an argv. Its first word is an absolute path, a path
// inside the package, or a bare name that is looked up in the plain PATH that
// copies get.
func checkCommand(f field, argv []string, packaged bool, ports map[string]Port) {
	switch {
	case len(argv) == 0 || argv[0] == "":
		f.fail("a command is required: the program, then its arguments, as a list")
		return
	case len(argv) > MaxArgv:
		f.fail("%d words; at most %d are allowed", len(argv), MaxArgv)
		return
	}
	program := argv[0]
	switch {
	case path.IsAbs(program) || !strings.Contains(program, "/"):
	case !packaged:
		f.item(0).fail("%s is inside the package, but there is no run.artifact; use an absolute path, or a bare name to look up in PATH", quote(program))
	case !local(program):
		f.item(0).fail("%s leaves the package", quote(program))
	}
	for i, word := range argv {
		f.item(i).filled(word, ports)
	}
}

// local reports whether a relative path stays inside the directory it starts in.
func local(p string) bool {
	clean := path.Clean(p)
	return clean != ".." && !strings.HasPrefix(clean, "../")
}

func checkPorts(f field, ports map[string]Port) {
	if len(ports) > MaxPorts {
		f.fail("%d ports; at most %d are allowed", len(ports), MaxPorts)
		return
	}
	owner := make(map[int]string)
	for _, name := range sortedKeys(ports) {
		if err := CheckName(name); err != nil {
			f.key(name).fail("%v", err)
			continue
		}
		p, static := ports[name].Static, f.key(name).at("static")
		switch {
		case p == 0:
		case p < 1 || p > math.MaxUint16:
			static.fail("%d is not a port from 1 to 65535", p)
		case owner[p] != "":
			static.fail("%d is the port %s already", p, quote(owner[p]))
		default:
			owner[p] = name
		}
	}
}

func (r Resources) check(f field) {
	if !(r.CPU >= 0 && r.CPU <= 4096) { // also refuses NaN
		f.at("cpu").fail("%v is not a number of cores from 0 to 4096", r.CPU)
	}
	if r.Memory != 0 && r.Memory < MiB {
		f.at("memory").fail("%v is less than 1MiB; write a unit, as in 256MiB", r.Memory)
	}
}

func (p Place) check(f field) {
	rules := func(f field, list []string) {
		if len(list) > MaxRules {
			f.fail("%d expressions; at most %d are allowed", len(list), MaxRules)
			return
		}
		for i, e := range list {
			f.item(i).expression(e)
		}
	}
	rules(f.at("require"), p.Require)
	rules(f.at("prefer"), p.Prefer)
	if p.Spread != "" && !labelForm.MatchString(p.Spread) {
		f.at("spread").fail("%s is not the name of a label", quote(p.Spread))
	}
}

// checkLife judges how an app is kept, changed and stopped.
func (a App) checkLife(f field) {
	f.at("restart.limit").count(a.Restart.Limit, 1, 10000)
	f.at("restart.window").span(a.Restart.Window)
	f.at("restart.backoff_max").span(a.Restart.BackoffMax)
	f.at("update.strategy").word(a.Update.Strategy, StrategyRolling, StrategyBlueGreen)
	if a.Update.Strategy == StrategyBlueGreen && a.PerHost {
		for _, name := range sortedKeys(a.Ports) {
			if p := a.Ports[name].Static; p != 0 {
				f.at("update.strategy").fail("blue-green runs two copies on every host, and port %s can be had only once; leave out static, or use rolling", quote(name))
				break
			}
		}
	}
	f.at("update.parallel").count(a.Update.Parallel, 1, MaxCopies)
	f.at("update.canary").count(a.Update.Canary, 0, MaxCopies)
	f.at("update.healthy_for").span(a.Update.HealthyFor)
	f.at("update.deadline").span(a.Update.Deadline)
	if a.Update.Deadline <= a.Update.HealthyFor && a.Update.Deadline > 0 {
		f.at("update.deadline").fail("%v leaves no time to be healthy for %v; make it longer than update.healthy_for", a.Update.Deadline, a.Update.HealthyFor)
	}
	if a.Update.OnFailure != "" {
		f.at("update.on_failure").word(a.Update.OnFailure, OnFailureRollback, OnFailureHold, OnFailureForward)
	}
	f.at("disconnect.policy").word(a.Disconnect.Policy, DisconnectReplace, DisconnectKeep)
	f.at("disconnect.grace").span(a.Disconnect.Grace)
	f.at("stop.signal").word(a.Stop.Signal, signals...)
	f.at("stop.grace").span(a.Stop.Grace)
}
