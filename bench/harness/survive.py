# SPDX-License-Identifier: Apache-2.0
"""The scenario survive: what it costs that a mount outlives the process that serves it, and how long the pause is.

"survive=off" is the peer: the same program, on the same files, without a keeper. What a request does that must not be
done twice is noted before it is answered, so requests for names are measured, and small reads from the pool and small
writes. The pause: with PAUSE_FILES files known and as many open, the process is killed, and a request waits for the next.
"""

import os
import shutil
import signal
import time

from . import machine
from .metadata import DAY, Names
from .peers import Foldfs
from .timed import KIB, MIB, Turns, Work

FILES = 10_000
QUICK_FILES = 2_000
ROUNDS = 9
LIMIT = 0.97
BLOCK = 64 * MIB
PAUSE_FILES = 1_000
PAUSES = 9

NAMES = (("create", "create", 1), ("stat, first", "stat", 1), ("open", "open", 1), ("chmod", "chmod", 1),
         ("list", "list", 1), ("unlink", "unlink", 1))


class FoldfsAlone(Foldfs):
    """foldfs without a keeper."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, survive="off", **options)
        self.name = "survive=off"


def _works(quick):
    count = 20_000 if quick else 200_000
    return ((Work("read from the pool, 4 KiB random", order="rand", block=4 * KIB, ops=count, span=BLOCK), "read"),
            (Work("write, 4 KiB random", op="write", order="rand", block=4 * KIB, ops=count // 4, span=BLOCK), "written"))


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
    count = QUICK_FILES if bench.quick else FILES
    for name in ("read", "written"):
        with open(os.path.join(directory, name), "wb") as file:
            file.write(os.urandom(BLOCK))
    names = [Turns(bench, "survive", Names(case, op, passes, count), ["files"]) for case, op, passes in NAMES]
    content = [Turns(bench, "survive", work, [name]) for work, name in _works(bench.quick)]
    where = dict(pool="256M", window="1M", passthrough_max="0", attr_timeout=DAY, entry_timeout=DAY)
    subjects = [kind(bench, directory, "dev", **where) for kind in (Foldfs, FoldfsAlone)]
    for seed in range(1, (3 if bench.quick else ROUNDS) + 1):
        # Whoever comes first in one round comes second in the next.
        for subject in subjects[::1 if seed % 2 else -1]:
            _round(bench, names, content, subject, directory, seed)
    for turns in names + content:
        turns.judge("dev", "survive=off", "dev", LIMIT, f"{ROUNDS} rounds, in turns")


def _round(bench, names, content, subject, directory, seed):
    os.mkdir(os.path.join(directory, "files"))
    try:
        with bench.started([subject]):
            for turns in names:
                if turns.work.cold:
                    machine.drop_caches()
                turns.take(subject, seed)
            Work("warm", span=BLOCK).run(bench, subject, ["read"], 1)
            for turns in content:
                os.sync()
                turns.take(subject, seed)
    finally:
        shutil.rmtree(os.path.join(directory, "files"))


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
