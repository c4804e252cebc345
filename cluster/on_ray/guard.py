"""`python guard.py LEADER FOLDER`: when its standard input ends, since whoever started it is gone, the session of LEADER and FOLDER go too.

Of Ray's processes two outlive a head that was killed by more than a minute. This one is a program without Ray, which costs 10 MB.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

GONE_SECONDS = 5.0  # until the system has cleared away who was killed


def end(leader: int) -> None:
    """Kill the processes of a session, and return once they are gone."""
    until = time.monotonic() + GONE_SECONDS
    while (processes := session(leader)) and time.monotonic() < until:
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


def session(leader: int) -> set[int]:
    """The processes of a session, where /proc tells them."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            if int(stat.read_text().rpartition(")")[2].split()[3]) == leader:
                found.add(int(stat.parent.name))
    return found


if __name__ == "__main__":
    sys.stdin.read()
    end(int(sys.argv[1]))
    shutil.rmtree(sys.argv[2], ignore_errors=True)
