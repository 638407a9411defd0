package reflexes

import (
	"time"

	"github.com/ganglion-mesh/ganglion/intent/expr"
)

// The variables. Their rows, with what each means, are in the table below.
const (
	_ VarID = iota
	HostCPUBusy
	HostCPUCount
	HostLoad
	HostMemAvail
	HostMemAvailBytes
	HostSwapUsed
	HostPSICPUSome1s
	HostPSICPUSome10s
	HostPSIMemorySome1s
	HostPSIMemorySome10s
	HostPSIMemoryFull1s
	HostPSIMemoryFull10s
	HostPSIIOSome1s
	HostPSIIOSome10s
	HostPSIIOFull1s
	HostPSIIOFull10s
	HostPids
	HostFiles
	HostUptime
	HostOOMCount
	HostOOM10m
	ClockGapSeconds
	ClockGaps
	ClockStepSeconds
	ClockSteps
	PeersAlive
	PeersFailed
	PeersSick
	LeaderKnown
	LeaderSelf
	LeaderSilent
	LeaderChanges
	LeaderChanges10m
	AppCopies
	AppReadyRatio
	AppRunning
	AppReady
	AppRestarts
	AppUptime
	AppMemBytes
	AppMemRatio
	AppCPUCores
	AppCPURatio
	AppPids
	AppFiles
	AppPSICPUSome10s
	AppPSIMemoryFull10s
	AppPSIIOFull10s
	ExitCode
	ExitSignal
	ExitRan
	ExitOOM
	ExitCount
	ExitCount1m
	ExitCount10m
	OOMCount
	OOMCount10m
	CheckFailures
	CheckTimeouts
	LinkUp
	LinkAddresses
	LinkDefault
	LinkDowns
	LinkDowns10m
	LinkErrors
	DiskFree
	DiskFreeBytes
	DiskInodes
	DiskFullIn
	DiskReadOnly
	DiskBusy
	UnitState
	UnitSub
	UnitFailures
	UnitFailures10m
	PeerState
	PeerCPU
	PeerMemory
	PeerDisk
	PeerPressure
	PeerRTT
	PeerFailures
	SenseValue
	SenseText
	SenseOK
	SenseSubject
	SenseCount
	SenseCount1m
)

// table is what the condition compiler, the documentation and the senses share.
// It is only read.
var table = [...]Var{
	HostCPUBusy: {Name: "host.cpu.busy_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/stat", MaxAge: 5 * time.Second,
		Doc: "share of all cores that was busy in the last second"},
	HostCPUCount: {Name: "host.cpu.count", Type: expr.IntType, Unit: "cores", Scope: ScopeHost, Source: "/proc/stat",
		Doc: "cores that are online"},
	HostLoad: {Name: "host.load.per_core", Type: expr.FloatType, Scope: ScopeHost, Source: "/proc/loadavg", MaxAge: 15 * time.Second,
		Doc: "load average of one minute, divided by cores"},
	HostMemAvail: {Name: "host.memory.available_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/meminfo", MaxAge: 2 * time.Second,
		Doc: "memory that can be had without swapping, of all"},
	HostMemAvailBytes: {Name: "host.memory.available_bytes", Type: expr.IntType, Unit: "bytes", Scope: ScopeHost, Source: "/proc/meminfo", MaxAge: 2 * time.Second,
		Doc: "the same in bytes"},
	HostSwapUsed: {Name: "host.swap.used_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/meminfo", MaxAge: 2 * time.Second,
		Doc: "swap that is in use, of all; 0 without swap"},
	HostPSICPUSome1s: {Name: "host.psi.cpu.some_1s", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/pressure/cpu", MaxAge: 1 * time.Second,
		Doc: "share of the last second in which some task waited for a core"},
	HostPSICPUSome10s: {Name: "host.psi.cpu.some_10s", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/pressure/cpu", MaxAge: 2 * time.Second,
		Doc: "share of the last ten seconds in which some task waited for a core"},
	HostPSIMemorySome1s: {Name: "host.psi.memory.some_1s", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/pressure/memory", MaxAge: 1 * time.Second,
		Doc: "share of the last second in which some task waited for memory"},
	HostPSIMemorySome10s: {Name: "host.psi.memory.some_10s", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/pressure/memory", MaxAge: 2 * time.Second,
		Doc: "share of the last ten seconds in which some task waited for memory"},
	HostPSIMemoryFull1s: {Name: "host.psi.memory.full_1s", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/pressure/memory", MaxAge: 1 * time.Second,
		Doc: "share of the last second in which every task waited for memory"},
	HostPSIMemoryFull10s: {Name: "host.psi.memory.full_10s", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/pressure/memory", MaxAge: 2 * time.Second,
		Doc: "share of the last ten seconds in which every task waited for memory"},
	HostPSIIOSome1s: {Name: "host.psi.io.some_1s", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/pressure/io", MaxAge: 1 * time.Second,
		Doc: "share of the last second in which some task waited for a disk"},
	HostPSIIOSome10s: {Name: "host.psi.io.some_10s", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/pressure/io", MaxAge: 2 * time.Second,
		Doc: "share of the last ten seconds in which some task waited for a disk"},
	HostPSIIOFull1s: {Name: "host.psi.io.full_1s", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/pressure/io", MaxAge: 1 * time.Second,
		Doc: "share of the last second in which every task waited for a disk"},
	HostPSIIOFull10s: {Name: "host.psi.io.full_10s", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/pressure/io", MaxAge: 2 * time.Second,
		Doc: "share of the last ten seconds in which every task waited for a disk"},
	HostPids: {Name: "host.pids.used_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/loadavg, pid_max", MaxAge: 15 * time.Second,
		Doc: "processes and threads, of the most that there may be"},
	HostFiles: {Name: "host.files.used_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "/proc/sys/fs/file-nr", MaxAge: 15 * time.Second,
		Doc: "open files, of the most that there may be"},
	HostUptime: {Name: "host.uptime_seconds", Type: expr.FloatType, Unit: "seconds", Scope: ScopeHost, Source: "boot clock", MaxAge: 5 * time.Second,
		Doc: "time since the host booted"},
	HostOOMCount: {Name: "host.oom.count", Type: expr.IntType, Scope: ScopeHost, Source: "/proc/vmstat, kernel log", Edge: true,
		Doc: "processes that the kernel killed for want of memory, on the whole host"},
	HostOOM10m: {Name: "host.oom.count_10m", Type: expr.IntType, Scope: ScopeHost, Source: "engine", Of: HostOOMCount, Window: 10 * time.Minute,
		Doc: "the same within ten minutes"},
	ClockGapSeconds: {Name: "clock.gap_seconds", Type: expr.FloatType, Unit: "seconds", Scope: ScopeHost, Source: "boot clock", With: ClockGaps,
		Doc: "how long the last such pause was"},
	ClockGaps: {Name: "clock.gaps", Type: expr.IntType, Scope: ScopeHost, Source: "boot clock", Edge: true,
		Doc: "times that this host, or the agent on it, did not run for 2 s or longer"},
	ClockStepSeconds: {Name: "clock.step_seconds", Type: expr.FloatType, Unit: "seconds", Scope: ScopeHost, Source: "wall and boot clock", With: ClockSteps,
		Doc: "how far the wall clock was set by the last step; negative: back"},
	ClockSteps: {Name: "clock.steps", Type: expr.IntType, Scope: ScopeHost, Source: "wall and boot clock", Edge: true,
		Doc: "times that the wall clock was set by 2 s or more"},
	PeersAlive: {Name: "peers.alive", Type: expr.IntType, Unit: "hosts", Scope: ScopeHost, Source: "gossip",
		Doc: "hosts that gossip holds for alive, this one among them"},
	PeersFailed: {Name: "peers.failed", Type: expr.IntType, Unit: "hosts", Scope: ScopeHost, Source: "gossip",
		Doc: "hosts that gossip holds for failed"},
	PeersSick: {Name: "peers.sick_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopeHost, Source: "gossip",
		Doc: "hosts of the roster that look unhealthy, of all"},
	LeaderKnown: {Name: "leader.known", Type: expr.BoolType, Scope: ScopeHost, Source: "Raft, gossip",
		Doc: "there is a leader that this host hears of"},
	LeaderSelf: {Name: "leader.self", Type: expr.BoolType, Scope: ScopeHost, Source: "Raft",
		Doc: "this host is the leader"},
	LeaderSilent: {Name: "leader.silent_seconds", Type: expr.FloatType, Unit: "seconds", Scope: ScopeHost, Source: "agent", MaxAge: 5 * time.Second,
		Doc: "time since the leader last answered this host"},
	LeaderChanges: {Name: "leader.changes", Type: expr.IntType, Scope: ScopeHost, Source: "Raft, gossip", Edge: true,
		Doc: "changes of leader that this host has seen"},
	LeaderChanges10m: {Name: "leader.changes_10m", Type: expr.IntType, Scope: ScopeHost, Source: "engine", Of: LeaderChanges, Window: 10 * time.Minute,
		Doc: "the same within ten minutes"},
	AppCopies: {Name: "app.copies", Type: expr.IntType, Unit: "copies", Scope: ScopeApp, Source: "agent",
		Doc: "copies of the app that belong on this host"},
	AppReadyRatio: {Name: "app.ready_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopeApp, Source: "checks",
		Doc: "of them, those that are ready"},
	AppRunning: {Name: "app.running", Type: expr.BoolType, Scope: ScopeCopy, Source: "pidfd, driver",
		Doc: "its process runs"},
	AppReady: {Name: "app.ready", Type: expr.BoolType, Scope: ScopeCopy, Source: "checks",
		Doc: "it runs and passes its checks"},
	AppRestarts: {Name: "app.restarts", Type: expr.IntType, Scope: ScopeCopy, Source: "agent",
		Doc: "restarts within the present placement"},
	AppUptime: {Name: "app.uptime_seconds", Type: expr.FloatType, Unit: "seconds", Scope: ScopeCopy, Source: "agent", MaxAge: 5 * time.Second,
		Doc: "time since its last start; 0 while it does not run"},
	AppMemBytes: {Name: "app.mem_bytes", Type: expr.IntType, Unit: "bytes", Scope: ScopeCopy, Source: "cgroup, else /proc", MaxAge: 2 * time.Second,
		Doc: "memory that it uses"},
	AppMemRatio: {Name: "app.mem_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopeCopy, Source: "cgroup, else /proc", MaxAge: 2 * time.Second,
		Doc: "memory that it uses, of its resources.memory; Unknown without one"},
	AppCPUCores: {Name: "app.cpu_cores", Type: expr.FloatType, Unit: "cores", Scope: ScopeCopy, Source: "cgroup, else /proc", MaxAge: 5 * time.Second,
		Doc: "cores that it used in the last second"},
	AppCPURatio: {Name: "app.cpu_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopeCopy, Source: "cgroup, else /proc", MaxAge: 5 * time.Second,
		Doc: "the same, of its resources.cpu; Unknown without one"},
	AppPids: {Name: "app.pids", Type: expr.IntType, Scope: ScopeCopy, Source: "cgroup, else /proc", MaxAge: 5 * time.Second,
		Doc: "processes and threads of it"},
	AppFiles: {Name: "app.files", Type: expr.IntType, Scope: ScopeCopy, Source: "/proc/PID/fd", MaxAge: 15 * time.Second,
		Doc: "files that its first process has open"},
	AppPSICPUSome10s: {Name: "app.psi.cpu.some_10s", Type: expr.FloatType, Unit: "ratio", Scope: ScopeCopy, Source: "cpu.pressure of its cgroup", MaxAge: 2 * time.Second,
		Doc: "share of the last ten seconds in which some task of it waited for a core"},
	AppPSIMemoryFull10s: {Name: "app.psi.memory.full_10s", Type: expr.FloatType, Unit: "ratio", Scope: ScopeCopy, Source: "memory.pressure of its cgroup", MaxAge: 2 * time.Second,
		Doc: "share of the last ten seconds in which every task of it waited for memory"},
	AppPSIIOFull10s: {Name: "app.psi.io.full_10s", Type: expr.FloatType, Unit: "ratio", Scope: ScopeCopy, Source: "io.pressure of its cgroup", MaxAge: 2 * time.Second,
		Doc: "share of the last ten seconds in which every task of it waited for a disk"},
	ExitCode: {Name: "exit.code", Type: expr.IntType, Scope: ScopeCopy, Source: "pidfd", With: ExitCount,
		Doc: "exit status; -1 after a signal, or where the kernel cannot say"},
	ExitSignal: {Name: "exit.signal", Type: expr.StringType, Scope: ScopeCopy, Source: "pidfd", With: ExitCount,
		Doc: "signal that ended it, as \"SIGKILL\"; \"\" if none did"},
	ExitRan: {Name: "exit.ran_seconds", Type: expr.FloatType, Unit: "seconds", Scope: ScopeCopy, Source: "pidfd", With: ExitCount,
		Doc: "how long it had run"},
	ExitOOM: {Name: "exit.oom", Type: expr.BoolType, Scope: ScopeCopy, Source: "cgroup, kernel log", With: ExitCount,
		Doc: "the kernel killed it for want of memory"},
	ExitCount: {Name: "exit.count", Type: expr.IntType, Scope: ScopeCopy, Source: "pidfd", Edge: true,
		Doc: "times that its process has ended, stops that were asked for among them"},
	ExitCount1m: {Name: "exit.count_1m", Type: expr.IntType, Scope: ScopeCopy, Source: "engine", Of: ExitCount, Window: time.Minute,
		Doc: "ends of its process within a minute, without those that were asked for"},
	ExitCount10m: {Name: "exit.count_10m", Type: expr.IntType, Scope: ScopeCopy, Source: "engine", Of: ExitCount, Window: 10 * time.Minute,
		Doc: "the same within ten minutes"},
	OOMCount: {Name: "oom.count", Type: expr.IntType, Scope: ScopeCopy, Source: "memory.events, memory.oom_control", Edge: true,
		Doc: "processes of it that the kernel killed for want of memory, the first or not"},
	OOMCount10m: {Name: "oom.count_10m", Type: expr.IntType, Scope: ScopeCopy, Source: "engine", Of: OOMCount, Window: 10 * time.Minute,
		Doc: "the same within ten minutes"},
	CheckFailures: {Name: "check.failures", Type: expr.IntType, Scope: ScopeCopy, Source: "checks",
		Doc: "failures in a row of the check that fails longest; 0 when all pass"},
	CheckTimeouts: {Name: "check.timeouts", Type: expr.IntType, Scope: ScopeCopy, Source: "checks",
		Doc: "of them, how many of the last in a row were timeouts"},
	LinkUp: {Name: "link.up", Type: expr.BoolType, Scope: ScopeLink, Source: "rtnetlink",
		Doc: "the link is up and has a carrier"},
	LinkAddresses: {Name: "link.addresses", Type: expr.IntType, Scope: ScopeLink, Source: "rtnetlink",
		Doc: "addresses of global scope on it"},
	LinkDefault: {Name: "link.default_route", Type: expr.BoolType, Scope: ScopeLink, Source: "rtnetlink",
		Doc: "a default route leads through it"},
	LinkDowns: {Name: "link.downs", Type: expr.IntType, Scope: ScopeLink, Source: "rtnetlink", Edge: true,
		Doc: "times that it lost its carrier or was taken down"},
	LinkDowns10m: {Name: "link.downs_10m", Type: expr.IntType, Scope: ScopeLink, Source: "engine", Of: LinkDowns, Window: 10 * time.Minute,
		Doc: "the same within ten minutes"},
	LinkErrors: {Name: "link.errors_per_second", Type: expr.FloatType, Scope: ScopeLink, Source: "/proc/net/dev", MaxAge: 5 * time.Second,
		Doc: "packets in error or dropped, both ways"},
	DiskFree: {Name: "disk.free_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopeDisk, Source: "statfs", MaxAge: 15 * time.Second,
		Doc: "space that is free for ordinary users, of all"},
	DiskFreeBytes: {Name: "disk.free_bytes", Type: expr.IntType, Unit: "bytes", Scope: ScopeDisk, Source: "statfs", MaxAge: 15 * time.Second,
		Doc: "the same in bytes"},
	DiskInodes: {Name: "disk.inodes_free_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopeDisk, Source: "statfs", MaxAge: 15 * time.Second,
		Doc: "free inodes, of all; 1 where there is no limit"},
	DiskFullIn: {Name: "disk.full_in_seconds", Type: expr.FloatType, Unit: "seconds", Scope: ScopeDisk, Source: "statfs", MaxAge: 30 * time.Second,
		Doc: "when it will be full at the pace of the last five minutes; 1e9 if it does not fill"},
	DiskReadOnly: {Name: "disk.read_only", Type: expr.BoolType, Scope: ScopeDisk, Source: "statfs", MaxAge: 15 * time.Second,
		Doc: "it is mounted, or was remounted, read-only"},
	DiskBusy: {Name: "disk.busy_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopeDisk, Source: "/proc/diskstats", MaxAge: 5 * time.Second,
		Doc: "share of the last second in which its device was busy; Unknown without a device"},
	UnitState: {Name: "unit.state", Type: expr.StringType, Scope: ScopeUnit, Source: "systemd",
		Doc: "ActiveState: \"active\", \"activating\", \"failed\", \"inactive\", …"},
	UnitSub: {Name: "unit.sub", Type: expr.StringType, Scope: ScopeUnit, Source: "systemd",
		Doc: "SubState: \"running\", \"dead\", \"auto-restart\", …"},
	UnitFailures: {Name: "unit.failures", Type: expr.IntType, Scope: ScopeUnit, Source: "systemd", Edge: true,
		Doc: "times that it went to failed"},
	UnitFailures10m: {Name: "unit.failures_10m", Type: expr.IntType, Scope: ScopeUnit, Source: "engine", Of: UnitFailures, Window: 10 * time.Minute,
		Doc: "the same within ten minutes"},
	PeerState: {Name: "peer.state", Type: expr.StringType, Scope: ScopePeer, Source: "gossip",
		Doc: "\"alive\", \"suspect\", \"failed\" or \"left\""},
	PeerCPU: {Name: "peer.cpu_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopePeer, Source: "gossip", MaxAge: 3 * time.Minute,
		Doc: "share of its CPU that is in use, as it says itself; of hosts that are alive, as the next three"},
	PeerMemory: {Name: "peer.memory_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopePeer, Source: "gossip", MaxAge: 3 * time.Minute,
		Doc: "share of its memory that is in use"},
	PeerDisk: {Name: "peer.disk_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopePeer, Source: "gossip", MaxAge: 3 * time.Minute,
		Doc: "share of the disk of its data_dir that is in use"},
	PeerPressure: {Name: "peer.pressure_ratio", Type: expr.FloatType, Unit: "ratio", Scope: ScopePeer, Source: "gossip", MaxAge: 3 * time.Minute,
		Doc: "highest of its pressures, of CPU, memory and I/O"},
	PeerRTT: {Name: "peer.rtt_seconds", Type: expr.FloatType, Unit: "seconds", Scope: ScopePeer, Source: "gossip", MaxAge: 5 * time.Minute,
		Doc: "round trip of this host's last probe of it; gossip probes one host in each second or so, all in turn"},
	PeerFailures: {Name: "peer.failures", Type: expr.IntType, Scope: ScopePeer, Source: "gossip", Edge: true,
		Doc: "times that it went to failed"},
	SenseValue: {Name: "sense.value", Type: expr.FloatType, Scope: ScopeSense, Source: "command", MaxAge: 2 * time.Minute,
		Doc: "number that the sense told last"},
	SenseText: {Name: "sense.text", Type: expr.StringType, Scope: ScopeSense, Source: "command", MaxAge: 2 * time.Minute,
		Doc: "word that the sense told last, at most 256 bytes"},
	SenseOK: {Name: "sense.ok", Type: expr.BoolType, Scope: ScopeSense, Source: "command", MaxAge: 2 * time.Minute,
		Doc: "its command ended with status 0"},
	SenseSubject: {Name: "sense.subject", Type: expr.StringType, Scope: ScopeSense, Source: "inotify or NATS", With: SenseCount,
		Doc: "file that changed last, or directory in which something did; of events, what the last was told on, as in app.web.2.unhealthy"},
	SenseCount: {Name: "sense.count", Type: expr.IntType, Scope: ScopeSense, Source: "inotify or NATS", Edge: true,
		Doc: "changes of the watched files, or events that were heard"},
	SenseCount1m: {Name: "sense.count_1m", Type: expr.IntType, Scope: ScopeSense, Source: "engine", Of: SenseCount, Window: time.Minute,
		Doc: "the same within a minute"},
}
