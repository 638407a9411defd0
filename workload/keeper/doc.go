// Package keeper is the process that keeps the copy of a singleton within its
// lease (promise S4): its parent, apart from the agent, which starts it, restarts
// it and ends it by CLOCK_BOOTTIME, whatever has become of the agent. Run is that
// process; Client speaks to it; Handle is what a driver makes of one.
package keeper
