package senses

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/ganglion-mesh/ganglion/pid1"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// needSystemd skips where PID 1 is not systemd; integration/nspawn runs these
// tests on a host where it is.
func needSystemd(t testing.TB) {
	t.Helper()
	needRoot(t)
	if b, _ := os.ReadFile("/proc/1/comm"); strings.TrimSpace(string(b)) != "systemd" {
		skip(t, "systemd as PID 1")
	}
}

func systemd(t testing.TB, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
}

// unit starts a unit that does what a shell script says until the test ends.
func unit(t testing.TB, name, text string, options ...string) {
	t.Helper()
	argv := append([]string{"systemd-run", "--quiet", "--unit=" + name}, options...)
	systemd(t, append(argv, "/bin/sh", "-c", text)...)
	t.Cleanup(func() {
		_ = exec.Command("systemctl", "stop", name).Run()
		_ = exec.Command("systemctl", "reset-failed", name).Run()
	})
}

func newUnits(t testing.TB) *Units {
	t.Helper()
	return must[*Units](t)(NewUnits(UnitsConfig{Now: bootNow, Relist: time.Second}))
}

// TestUnits goes through the life of a unit of the real systemd.
func TestUnits(t *testing.T) {
	needSystemd(t)
	const name = "senses-life.service"
	sense := newUnits(t)
	e := listen(t, sense)
	e.waitFor(reflexes.UnitState, "-.mount", is(reflexes.Text("active")))
	unit(t, name, "exec sleep 1000")
	e.waitFor(reflexes.UnitState, name, is(reflexes.Text("active")))
	e.waitFor(reflexes.UnitSub, name, is(reflexes.Text("running")))
	e.waitFor(reflexes.UnitFailures, name, is(reflexes.Int(0)))
	systemd(t, "systemctl", "kill", "-s", "KILL", name)
	e.waitFor(reflexes.UnitFailures, name, is(reflexes.Int(1)))
	e.waitFor(reflexes.UnitState, name, is(reflexes.Text("failed")))
	systemd(t, "systemctl", "daemon-reload")
	systemd(t, "systemctl", "reset-failed", name)
	e.waitFor(reflexes.UnitState, name, unknown)
	e.stop()

	// While nobody listens another one fails that was known.
	e = listen(t, sense)
	const second = "senses-second.service"
	unit(t, second, "exec sleep 1000")
	e.waitFor(reflexes.UnitState, second, is(reflexes.Text("active")))
	e.stop()
	systemd(t, "systemctl", "kill", "-s", "KILL", second)
	eventually(t, "its failure", func() bool { return exec.Command("systemctl", "is-failed", "-q", second).Run() == nil })
	e = listen(t, sense)
	e.waitFor(reflexes.UnitFailures, second, is(reflexes.Int(1)))
}

// TestUnitsStorm has many units fail at once: each failure is told.
func TestUnitsStorm(t *testing.T) {
	needSystemd(t)
	e := listen(t, newUnits(t))
	e.waitFor(reflexes.UnitState, "-.mount", known)
	const n = 15
	name := func(i int) string { return fmt.Sprintf("senses-storm-%d.service", i) }
	for i := range n {
		unit(t, name(i), "exit 3", "--no-block")
	}
	for i := range n {
		e.waitFor(reflexes.UnitFailures, name(i), is(reflexes.Int(1)))
	}
}

// TestUnitsAfterSystemdItself is executed anew, and drops all connections: the
// sense fails, is run again and knows what happened.
func TestUnitsAfterSystemdItself(t *testing.T) {
	needSystemd(t)
	const name = "senses-reexec.service"
	s := must[*Set](t)(New(Config{Senses: []Sense{newUnits(t)}, Now: bootNow}))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	s.NeedFor(nil, []reflexes.VarID{reflexes.UnitState})
	target := reflexes.Target{Scope: reflexes.ScopeUnit, Name: name}
	knows := func(id reflexes.VarID, v reflexes.Value) func() bool {
		return func() bool {
			for _, f := range s.Known() {
				if f.Var == id && f.Target == target {
					return f.Value == v
				}
			}
			return false
		}
	}
	unit(t, name, "exec sleep 1000")
	eventually(t, "the unit is known", knows(reflexes.UnitState, reflexes.Text("active")))
	systemd(t, "systemctl", "daemon-reexec")
	systemd(t, "systemctl", "kill", "-s", "KILL", name)
	eventually(t, "its failure is known", knows(reflexes.UnitFailures, reflexes.Int(1)))
	eventually(t, "its state is known", knows(reflexes.UnitState, reflexes.Text("failed")))
}

func TestUnitsWithoutSystemd(t *testing.T) {
	u := must[*Units](t)(NewUnits(UnitsConfig{Now: bootNow, Socket: t.TempDir() + "/private"}))
	err := u.Run(t.Context(), func([]reflexes.Fact) { t.Error("told something") })
	if err == nil || !strings.Contains(err.Error(), "PID 1 is not systemd") {
		t.Error(err)
	}
}

// TestUnitsFailureIsCountedOnce: a unit fails, and is started anew, while all are
// listed.
func TestUnitsFailureIsCountedOnce(t *testing.T) {
	p := newFakePID1(t)
	e := listen(t, must[*Units](t)(NewUnits(UnitsConfig{Now: bootNow, Socket: p.socket})))
	defer e.stop() // before the connection ends
	p.answer("Ping")
	p.answer("ListUnits", []unitRow{row("web.service", "active")})
	e.waitFor(reflexes.UnitState, "web.service", is(reflexes.Text("active")))
	p.signal(pid1.Manager, pid1.OfManager, "UnitRemoved", "old.service", pid1.Manager)
	p.receive("ListUnits")
	p.changed("web_2eservice", "deactivating")
	p.changed("web_2eservice", "failed")
	p.reply([]unitRow{row("web.service", "failed")})
	p.changed("web_2eservice", "activating")
	p.changed("end_2eservice", "failed")
	e.waitFor(reflexes.UnitFailures, "end.service", is(reflexes.Int(1)))
	if n, _ := last(e.all(), reflexes.UnitFailures, "web.service"); n != reflexes.Int(1) {
		t.Errorf("it failed once: %v were counted", n)
	}
	if state, _ := last(e.all(), reflexes.UnitState, "web.service"); state != reflexes.Text("activating") {
		t.Errorf("its state is %v", state)
	}
}

func row(name, active string) unitRow {
	return unitRow{Name: name, Load: "loaded", Active: active, Sub: active, Path: "/", JobPath: "/"}
}

// fakePID1 says what a test has it say to the one who connects.
type fakePID1 struct {
	t      *testing.T
	socket string
	conn   chan net.Conn // once somebody was let in
	c      net.Conn
	r      *bufio.Reader
	asked  *dbus.Message // what was received last
}

func newFakePID1(t *testing.T) *fakePID1 {
	t.Helper()
	p := &fakePID1{t: t, socket: filepath.Join(t.TempDir(), "private"), conn: make(chan net.Conn, 1)}
	l, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err == nil {
			p.conn <- c
		}
	}()
	return p
}

// greet lets in who has connected.
func (p *fakePID1) greet() {
	p.t.Helper()
	p.c = <-p.conn
	p.t.Cleanup(func() { p.c.Close() })
	p.r = bufio.NewReader(p.c)
	for _, answer := range []string{"REJECTED EXTERNAL", "OK 0123456789abcdef0123456789abcdef", "ERROR", ""} {
		if _, err := p.r.ReadString('\n'); err != nil {
			p.t.Fatal(err)
		}
		if answer != "" {
			fmt.Fprintf(p.c, "%s\r\n", answer)
		}
	}
}

// receive waits for a call of a method.
func (p *fakePID1) receive(method string) {
	p.t.Helper()
	if p.c == nil {
		p.greet()
	}
	for {
		m, err := dbus.DecodeMessage(p.r)
		if err != nil {
			p.t.Fatal(err)
		}
		if p.asked = m; m.Headers[dbus.FieldMember].Value() == method {
			return
		}
	}
}

func (p *fakePID1) reply(body ...any) {
	p.t.Helper()
	p.send(dbus.TypeMethodReply, map[dbus.HeaderField]any{dbus.FieldReplySerial: p.asked.Serial()}, body)
}

func (p *fakePID1) answer(method string, body ...any) {
	p.t.Helper()
	p.receive(method)
	p.reply(body...)
}

func (p *fakePID1) signal(path dbus.ObjectPath, iface, member string, body ...any) {
	p.t.Helper()
	p.send(dbus.TypeSignal, map[dbus.HeaderField]any{dbus.FieldPath: path, dbus.FieldInterface: strings.TrimSuffix(iface, "."), dbus.FieldMember: member}, body)
}

// changed says that a unit is in a state.
func (p *fakePID1) changed(unit, active string) {
	p.t.Helper()
	props := map[string]dbus.Variant{"ActiveState": dbus.MakeVariant(active), "SubState": dbus.MakeVariant(active)}
	p.signal(unitPath+dbus.ObjectPath(unit), pid1.Properties, "PropertiesChanged", pid1.Unit, props, []string{})
}

func (p *fakePID1) send(kind dbus.Type, headers map[dbus.HeaderField]any, body []any) {
	p.t.Helper()
	m := &dbus.Message{Type: kind, Headers: map[dbus.HeaderField]dbus.Variant{}, Body: body}
	for field, value := range headers {
		m.Headers[field] = dbus.MakeVariant(value)
	}
	if len(body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
	}
	if err := m.EncodeTo(p.c, binary.LittleEndian); err != nil {
		p.t.Fatal(err)
	}
}
