# SPDX-License-Identifier: Apache-2.0
"""What /proc tells of processes."""

import contextlib
import os
import time


def children_of(pid):
    """(name, pid) of each child that has not ended."""
    found = []
    for child in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open("/proc/%s/stat" % child) as file:
                name, fields = file.read().rsplit(")", 1)
            if int(fields.split()[1]) == pid and fields.split()[0] != "Z":
                found.append((name.split("(", 1)[1], int(child)))
    return found


def daemons_of(pid):
    """Children that are what their parent is: those that serve, and the one that asks the first question."""
    return [child for name, child in children_of(pid)
            if name.startswith("foldfs") and name not in ("foldfs-guardian"[:15], "foldfs-attendant"[:15])]


def threads_of(pid):
    """How many there are; 0 if it has ended."""
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/%d/task" % pid))
    return 0


def age_of(pid):
    """Seconds since the start of a process."""
    with open("/proc/%d/stat" % pid) as file:
        started = int(file.read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def has_ended(pid):
    """Whether a process has; who adopted it may not have looked yet."""
    with contextlib.suppress(OSError):
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    return True
