# SPDX-License-Identifier: Apache-2.0
"""How much memory foldfs takes it that there is."""

import hashlib
import json
import os
import shutil
import threading

from harness import MIB, PAGE, Child, check, equal, test, until
from limits import Limit

LIMIT = 200 * MIB


def memory_group(t, limit):
    """A cgroup with that much memory, of whichever version has the controller: its path."""
    for top, control in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = "%s/foldfs-test-%d" % (top, os.getpid())
        try:
            os.mkdir(group)
        except OSError:
            continue
        t.at_end(lambda: os.rmdir(group))
        try:
            with open(group + "/" + control, "w") as file:
                file.write(str(limit))
            return group
        except OSError:
            pass
    t.skip("no cgroup with a limit of memory can be made here")


def run_within(t, group, command):
    """Run a program from a process in the cgroup: what it leaves running stays there."""
    def body():
        with open(group + "/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
        t.run(command)
    Child(body, (), None).join(Limit(60 * t.patience))


def is_empty(group):
    with open(group + "/cgroup.procs") as file:
        return not file.read()


@test(timeout=120, transports="none", presets=("release", "debug"))
def sizes_fit_the_limit_of_a_cgroup(t):
    """The default pool, and %, where a cgroup (here the daemon's parent group) has less memory than the machine. A
    file of twice the limit is read, and the daemon lives. (A sanitizer takes more memory than there is.)"""
    inner = memory_group(t, LIMIT) + "/inner"
    os.mkdir(inner)
    t.at_end(lambda: os.rmdir(inner))
    source, point = t.make_dir("source"), t.make_dir("mnt")
    digest = hashlib.blake2b()
    with open(source + "/file", "wb") as file:
        for _ in range(2 * LIMIT // MIB):
            part = t.rng.randbytes(MIB)
            digest.update(part)
            file.write(part)
    for pool, expected in ((), LIMIT // 4), (("-o", "pool=50%"), LIMIT // 2):
        run_within(t, inner, t.foldfs_command() + [
            source, point, "-o", "state=%s,passthrough_max=0" % t.path("state"), *pool])
        status = json.loads(t.run(t.foldctl_command() + ["status", "--json", point]).stdout)
        found = status["frames_total"] * PAGE
        check(abs(found - expected) <= MIB, "the pool is %d bytes, not %d" % (found, expected))
        with open(point + "/file", "rb") as file:
            equal(hashlib.file_digest(file, hashlib.blake2b).digest(), digest.digest(), "the file")
        t.run(["umount", point])
        until(lambda: is_empty(inner), 20, "the daemon has ended")


def uncounted(mount):
    """How much more, or less, the daemon has in memory than it counts."""
    return abs(mount.daemon_memory() - mount.status()["memory"]["total_bytes"])


def make_and_close(path, count):
    os.mkdir(path)
    for number in range(count):
        with open("%s/%d" % (path, number), "wb") as file:
            file.write(b"%d" % number)


@test(timeout=400, alone=True, suite="full", presets=("release",))
def what_is_freed_goes_back(t):
    """Invariant 6: what the daemon has in memory is what it counts, but for 16 MiB: with many files, known and open
    at once by threads of their own, and after all of them are gone."""
    mount = t.mount(t.make_dir("source"), ["pool=64M", "window=16M"])
    threads = [threading.Thread(target=make_and_close, args=(mount.path("d%d" % number), 5000))
               for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: uncounted(mount) <= 16 * MIB, 30 * t.patience, "as much in memory as is counted, with 40,000 files", 0.5)
    for number in range(8):
        shutil.rmtree(mount.path("d%d" % number))
    until(lambda: uncounted(mount) <= 16 * MIB, 30 * t.patience, "as much in memory as is counted, without them", 0.5)
