package consensus

func runChild() {}

const childEnv = "GANGLION_CONSENSUS_TEST_CHILD"
