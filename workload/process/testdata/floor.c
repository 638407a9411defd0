/* The floor of the restart benchmark: wait for the child, vfork, exec, nothing
 * else. It starts argv[1] again until it is killed, and kills it then. */
#include <errno.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
	if (argc != 2)
		return 2;
	for (;;) {
		pid_t pid = vfork();
		if (pid < 0)
			return 1;
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			execv(argv[1], argv + 1);
			_exit(127);
		}
		while (waitpid(pid, 0, 0) < 0 && errno == EINTR)
			;
	}
}
