# SPDX-License-Identifier: Apache-2.0
"""The scenario survive: what it costs that a mount outlives the process that serves it, and how long the pause is.

"survive=off" is the peer: the same program, on the same files, without a keeper. What a request does that must not be
done twice is noted before it is answered, so requests for names are measured, and small reads from the pool and small
writes. The pause: with PAUSE_FILES files known and as many open, the process is killed, and a request waits for the
next.
"""

import os
import shutil
import signal
import time

from . import machine
from .metadata import Names
from .peers import Foldfs
from .timed import KIB, MIB, Turns, Work

FILES = 1_000
ROUNDS = 25
QUICK_ROUNDS = 3
LIMIT = 0.97
BLOCK = 64 * MIB
PAUSE_FILES = 1_000
PAUSES = 9

# Name, what is done, how often.
NAMES = (("create", "create", 1), ("stat", "stat", 8), ("open", "open", 4), ("chmod", "chmod", 4), ("unlink", "unlink", 1))


class OwnNames(Names):
    """Each mount works in a directory of its own, a new one in each round."""

    def run(self, bench, served, names, seed):
        return super().run(bench, served, [_directory(served, names[0], seed)], seed)


def _directory(served, name, seed):
    return f"{name}-{served.name}-{seed}"


class FoldfsAlone(Foldfs):
    """foldfs without a keeper."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, survive="off", **options)
        self.name = "survive=off"


def _works():
    return ((Work("read from the pool, 4 KiB random", order="rand", block=4 * KIB, ops=20_000, span=BLOCK), "read"),
            (Work("write, 4 KiB random", op="write", order="rand", block=4 * KIB, ops=8_000, span=BLOCK), "written"))


def survive(bench):
    """See the head of this file."""
    if not machine.is_root():
        bench.note("survive: needs root, to drop the caches")
        return
    if "dev" not in bench.transports:
        bench.note("survive: needs the transport dev")
        return
    directory = os.path.join(bench.cache, "bench", "survive")
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    try:
        _measure(bench, directory)
        _pauses(bench, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _measure(bench, directory):
    for name in ("read", "written"):
        with open(os.path.join(directory, name), "wb") as file:
            file.write(os.urandom(BLOCK))
    names = [Turns(bench, "survive", OwnNames(case, op, passes, FILES), ["files"])
             for case, op, passes in NAMES]
    content = [Turns(bench, "survive", work, [name]) for work, name in _works()]
    where = dict(pool="256M", window="1M", passthrough_max="0", attr_timeout="0", entry_timeout="0")
    subjects = [kind(bench, directory, "dev", **where) for kind in (Foldfs, FoldfsAlone)]
    rounds = QUICK_ROUNDS if bench.quick else ROUNDS
    # Both are mounted all the time, and the turns are short: what else the machine does meets both.
    with bench.started(subjects):
        for subject in subjects:
            Work("warm", span=BLOCK).run(bench, subject, ["read"], 1)
        for seed in range(1, rounds + 1):
            # Whoever comes first in one round comes second in the next.
            _round(names, content, subjects[::1 if seed % 2 else -1], directory, seed)
    for turns in names + content:
        turns.judge("dev", "survive=off", "dev", LIMIT, f"{rounds} rounds, in turns")


def _round(names, content, subjects, directory, seed):
    made = [os.path.join(directory, _directory(subject, "files", seed)) for subject in subjects]
    for path in made:
        os.mkdir(path)
    for turns in names + content:
        for subject in subjects:
            turns.take(subject, seed)
    for path in made:
        shutil.rmtree(path)


def _pauses(bench, directory):
    for number in range(PAUSE_FILES):
        for name in (f"known-{number}", f"asked-{number}"):
            with open(os.path.join(directory, name), "wb"):
                pass
    mount = Foldfs(bench, directory, "dev", pool="256M")
    taken = []
    with bench.started([mount]):
        held = [os.open(os.path.join(mount.path, f"known-{number}"), os.O_RDONLY) for number in range(PAUSE_FILES)]
        try:
            for number in range(3 if bench.quick else PAUSES):
                # One that dies within a second of its start counts as one that always does.
                time.sleep(1.1)
                worker = mount.serving_pid()
                begun = time.monotonic()
                os.kill(worker, signal.SIGKILL)
                # The kernel knows nothing of this name.
                machine.run(["stat", "--", os.path.join(mount.path, f"asked-{number}")], 60, mount.abort)
                taken.append((time.monotonic() - begun) * 1000)
        finally:
            for fd in held:
                os.close(fd)
    bench.results.amount("survive", f"pause, {PAUSE_FILES:,} files open", "dev", "ms", taken)


SCENARIOS = {"survive": survive}
