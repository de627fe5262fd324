# SPDX-License-Identifier: Apache-2.0
"""Each call of a takeover fails once: another process tries again, and clients notice nothing but the pause."""

import errno
import fcntl
import os
import signal

from harness import check, equal, errno_of, read_file, test, until, write_file
from sweep import ALLOCATION, OPEN, OPEN_PATH, SOURCE, THREAD, faulty
from test_survive import TAKES_OVER, survive_mount, worker_of

KINDS = {
    "ENOMEM": (ALLOCATION | THREAD, errno.ENOMEM),
    "EMFILE": (OPEN | OPEN_PATH, errno.EMFILE),
    "EIO": (SOURCE, errno.EIO),
}
FILES = 20


class Round:
    """One mount, one death, one fault."""

    def __init__(self, t, source, faults, number):
        self.faults = faults
        self.mount = survive_mount(t, source, ["passthrough_max=0", "pool=8M"], name="mnt-%d" % number, audit=False)
        # What a process that cannot take over says of it, or does without.
        for line in (TAKES_OVER, "another process tries to take over", "cannot (take over|set up|make|start|restrict)",
                     "no catalogue", "not enough memory", "there is no control socket", "ended: Cannot allocate"):
            self.mount.expect_log(line)
        self.fds = [os.open(self.mount.path(str(file)), os.O_RDWR) for file in range(FILES)]
        fcntl.flock(self.fds[0], fcntl.LOCK_EX)

    def die(self, kind, nth):
        """Whether the fault was met."""
        classes, code = kind
        worker = until(lambda: worker_of(self.mount), 10, "there is a worker")
        self.faults.arm(classes, nth, code)
        os.kill(worker, signal.SIGKILL)
        # Of the request itself the fault may be told.
        answer = errno_of(os.stat, self.mount.path("not-there"))
        met = self.faults.applied() > 0
        self.faults.disarm()
        check(answer in (errno.ENOENT, code, errno.ENFILE),
              "the answer of a name: %s" % errno.errorcode.get(answer, answer))
        return met

    def check_served(self, source):
        for number, fd in enumerate(self.fds):
            equal(os.pread(fd, 100, 0), b"content %d" % number, "content of an open file")
        other = os.open(source + "/0", os.O_RDWR)
        equal(errno_of(fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB), errno.EAGAIN, "the lock in the source")
        os.close(other)
        write_file(self.mount.path("made"), b"made")
        equal(read_file(source + "/made"), b"made", "what was written")

    def end(self):
        for fd in self.fds:
            os.close(fd)
        self.mount.unmount()


def each_call_fails(t, kind, stride):
    source = t.make_dir("source")
    for number in range(FILES):
        write_file("%s/%d" % (source, number), b"content %d" % number)
    faults = faulty(t)
    nth, number = 1 + t.rng.randrange(stride), 0
    while True:
        one = Round(t, source, faults, number)
        met = one.die(KINDS[kind], nth)
        one.check_served(source)
        one.end()
        if not met:
            break
        nth += stride
        number += 1
    check(number, "calls that fail")
    print("%d faults of up to %d calls" % (number, nth))


@test(timeout=120, variants={kind: kind for kind in KINDS})
def each_call_fails_once(t, kind):
    each_call_fails(t, kind, {"ENOMEM": 40, "EMFILE": 7, "EIO": 7}[kind])


@test(suite="full", timeout=1800, variants={kind: kind for kind in KINDS})
def each_call_fails_once_every_one(t, kind):
    each_call_fails(t, kind, 1)
