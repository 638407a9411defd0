package workloadtest

import "strconv"

// Programs are what the suite runs, in the words of a driver.
type Programs struct {
	Sleep    []string           // runs until a signal ends it
	Stubborn []string           // the same, but heeds no SIGTERM
	Ready    []string           // a check: succeeds once Stubborn has started to be stubborn
	Exit     func(int) []string // ends at once with a status; as a check too
	Environ  []string           // a check: prints its environment, a variable a line
	Flood    []string           // a check: prints more than 4 KiB
	Remember []string           // a check: leaves something in STATE_DIR
	Recall   []string           // a check: succeeds if that is still there
	Missing  []string           // does not exist
}

// ShellPrograms are those of a driver that runs real processes on a host with
// /bin/sh.
func ShellPrograms() Programs {
	sh := func(script string) []string { return []string{"/bin/sh", "-c", script} }
	return Programs{
		Sleep:    []string{"sleep", "1000"},
		Stubborn: sh(`trap "" TERM; : >"$STATE_DIR/stubborn"; exec sleep 1000`),
		Ready:    sh(`test -e "$STATE_DIR/stubborn"`),
		Exit:     func(code int) []string { return sh("exit " + strconv.Itoa(code)) },
		Environ:  []string{"/usr/bin/env"},
		Flood:    sh(`i=0; while [ $i -lt 2000 ]; do echo "line $i"; i=$((i+1)); done`),
		Remember: sh(`echo 1 >"$STATE_DIR/memory"`),
		Recall:   sh(`test -e "$STATE_DIR/memory"`),
		Missing:  []string{"/no/such/program"},
	}
}

// Programs of the in-memory driver.
const (
	progSleep    = "sleep"
	progStubborn = "stubborn"
	progReady    = "ready"
	progExit     = "exit"
	progEnviron  = "environ"
	progFlood    = "flood"
	progRemember = "remember"
	progRecall   = "recall"
)

var programs = []string{progSleep, progStubborn, progReady, progExit, progEnviron, progFlood, progRemember, progRecall}

// MemoryPrograms are those of the in-memory driver.
func MemoryPrograms() Programs {
	return Programs{
		Sleep: []string{progSleep}, Stubborn: []string{progStubborn}, Ready: []string{progReady},
		Exit:    func(code int) []string { return []string{progExit, strconv.Itoa(code)} },
		Environ: []string{progEnviron}, Flood: []string{progFlood},
		Remember: []string{progRemember}, Recall: []string{progRecall},
		Missing: []string{"missing"},
	}
}
