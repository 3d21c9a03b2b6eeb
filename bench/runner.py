"""Run a command and print its cost as JSON. A separate small process: a child's peak memory starts at its parent's.

Usage: runner.py TIMEOUT CGROUP-OR-DASH COMMAND...
"""

import json
import os
import signal
import sys
import time


def run_command(timeout: float, cgroup: str, command: list[str]) -> dict[str, object]:
    """Return wall and CPU seconds, the largest process's peak RSS in bytes, the exit status (negative: a signal)."""
    begun = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if cgroup != "-":
                with open(os.path.join(cgroup, "cgroup.procs"), "w") as procs:  # noqa: PTH118, PTH123  fewer imports
                    procs.write("0")
            os.execvp(command[0], command)
        finally:
            os._exit(127)

    def kill(*_: object) -> None:
        os.killpg(pid, signal.SIGKILL)

    for each in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
        signal.signal(each, kill)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - begun
    signal.setitimer(signal.ITIMER_REAL, 0)
    return {
        "wall": wall,
        "user": used.ru_utime,
        "system": used.ru_stime,
        "rss": used.ru_maxrss * 1024,
        "status": os.waitstatus_to_exitcode(status),
    }


if __name__ == "__main__":
    print(json.dumps(run_command(float(sys.argv[1]), sys.argv[2], sys.argv[3:])))
