"""`python leash.py PARENT COMMAND...`: the command, which Linux kills as soon as the process PARENT is gone. Elsewhere just the command.

A program of its own, since what it asks of the system must be asked between fork and exec, where a program with threads may do nothing.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before
            sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
