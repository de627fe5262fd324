# SPDX-License-Identifier: Apache-2.0
"""The scenario sharing: memory and speed over the share of equal pages.

Synthetic files, of whose pages 0 to 100 % are the same in all of them, spread evenly. For each share: the
memory of the whole system after all were read, and the speed of the first read and of reads from the pool,
beside the plain file system.
"""

from . import data, machine
from .footprint import SLACK, UNIQUE_SHARE, Measure
from .machine import BenchError
from .peers import Foldfs, Native
from .timed import KIB, MIB, Turns, Work, warm

SHARES = (0, 25, 50, 75, 90, 100)
QUICK_SHARES = (0, 50, 100)
FILES = 8
FILE_BYTES = 64 * MIB
QUICK_FILE_BYTES = 32 * MIB
WINDOW = 32 * MIB
ROUNDS, QUICK_ROUNDS = 3, 1
MEMORY_OF = {"used": "the whole system", "group": "the cgroup"}


def _memory(bench, subject, names):
    measure = Measure(bench)
    try:
        with bench.started([subject]):
            warm(bench, subject, names)
            return measure.take()
    finally:
        measure.close()


def _footprint(bench, percent, directory, names, size):
    transport = bench.transports[-1]
    unique = data.shared_unique_bytes(percent, len(names), size)
    extra = {"percent": percent, "unique_bytes": unique, "bytes": len(names) * size}
    taken = _memory(bench, Foldfs(bench, directory, transport, pool="1G", window=WINDOW), names)
    plain = _memory(bench, Native(directory), names) if bench.wants("native") else {}
    for key, of in MEMORY_OF.items():
        case = f"{percent} % equal pages, memory of {of}"
        if taken[key] is not None:
            bench.results.amount("sharing", case, transport, "bytes", [taken[key]],
                                 UNIQUE_SHARE * unique + WINDOW + SLACK, extra)
        if plain.get(key) is not None:
            bench.results.reference("sharing", case, "native", None, "bytes", [plain[key]], extra)


def _first_read(bench, percent, directory, names):
    """From nothing, in turns."""
    turns = Turns(bench, "sharing", Work(f"{percent} % equal pages, first read, 1 MiB sequential"), names)
    subjects = [Native(directory)] + [Foldfs(bench, directory, transport, pool="1G", window=WINDOW)
                                      for transport in bench.transports]
    for seed in range(1, (QUICK_ROUNDS if bench.quick else ROUNDS) + 1):
        for subject in subjects:
            machine.drop_caches()
            with bench.started([subject]):
                turns.take(subject, seed)
    for transport in bench.transports:
        turns.judge(transport, "native", None, None, "cold", more={"percent": percent})


def _from_pool(bench, percent, directory, names):
    """With no window: every read is answered by the pool."""
    subjects = [Native(directory)] + [Foldfs(bench, directory, transport, pool="1G", window="0")
                                      for transport in bench.transports]
    work = Work(f"{percent} % equal pages, pool, 128 KiB sequential", "read", "seq", 128 * KIB, 1, 4000)
    with bench.started(subjects):
        for subject in subjects:
            warm(bench, subject, names)
        turns = Turns(bench, "sharing", work, names)
        for seed in range(1, (QUICK_ROUNDS if bench.quick else ROUNDS) + 1):
            for subject in subjects:
                turns.take(subject, seed)
    for transport in bench.transports:
        turns.judge(transport, "native", None, None, "warm, window=0", more={"percent": percent})


def sharing(bench):
    """See the head of this file."""
    if not machine.is_root():
        raise BenchError("needs root, to drop the caches")
    size = QUICK_FILE_BYTES if bench.quick else FILE_BYTES
    for percent in QUICK_SHARES if bench.quick else SHARES:
        directory, names = data.shared_files(bench, percent, FILES, size)
        _footprint(bench, percent, directory, names, size)
        if bench.wants("native"):
            _first_read(bench, percent, directory, names)
            _from_pool(bench, percent, directory, names)


SCENARIOS = {"sharing": sharing}
