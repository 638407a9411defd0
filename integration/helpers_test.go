package integration

// helpers are what the test binary does instead of testing when a rig's host
// runs it with GANGLION_TEST_HELPER set.
var helpers = map[string]func(){}
