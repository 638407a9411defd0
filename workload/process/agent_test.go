//go:build linux

package process

const roleVar = "GANGLION_TEST_ROLE"

func play(string) int { return 0 }
