# SPDX-License-Identifier: Apache-2.0
"""Rows of the scenario mixed: nobody waits behind another's miss.

The source's disk does 500 reads and 500 writes a second. One client reads a file that the pool has, past the kernel's cache,
and stats and opens another, a thousand times a second each, beside 1, 8 and 100 others that wait for the disk: by
misses, or by a write and an fsync. The figure is how much longer the slowest hundredth of each takes than with
nobody beside. Once with all of them root's, once with all of them one user's, who has a share of the threads.

Then 256 readers that miss: their rate against that of the slow disk itself (256 direct reads at a time), and on the
disk as it is against that of null_fuse, which reads nothing, or of the disk, whichever is less; passthrough_hp, which
must read as foldfs does, shows how much of that a FUSE server gets.
"""

import contextlib
import json
import os
import shutil

from . import data, machine
from .groups import Group
from .machine import BenchError
from .peers import USER, Foldfs, FoldfsForUser, Native, NullFuse, PassthroughHp

MIB = 1 << 20
HIT_BYTES, SMALL_BYTES, SYNC_BYTES = 16 * MIB, 4096, MIB
READS, BYTES = 500, 125_000_000  # a second, of the throttled disk
COUNTS = (1, 8, 100)
READERS = 256
LIMIT = 2.0
RATE_LIMIT = 0.8
PROBES = ("hit", "stat", "open")


class Files:
    """What beside.c reads and writes."""

    def __init__(self, bench):
        self.directory = os.path.join(bench.cache, "bench", "beside")
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory)
        _, unique = data.unique_files(bench, 4, 128 * MIB)
        self.misses = [os.path.join(self.directory, f"miss-{number}") for number in range(len(unique))]
        for path, linked in zip(unique, self.misses):
            os.link(path, linked)
        self._write("hits", HIT_BYTES)
        self._write("small", SMALL_BYTES)
        for number in range(max(COUNTS)):
            self._write(f"sync-{number}", SYNC_BYTES)
        os.sync()

    def _write(self, name, length):
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.write(os.urandom(length))
        os.chown(path, USER, USER)


def _run(bench, subject, seconds, *options):
    command = [bench.tool("beside"), *options, *(["-u", str(subject.uid)] if subject.uid else []),
               *(["-n"] if isinstance(subject, Native) else []), subject.path, str(seconds)]
    return json.loads(machine.run(bench.in_group(command), 60 + 2 * seconds, subject.abort))


def _ways(bench):
    """(what is beside, options of beside.c) of each row."""
    counts = COUNTS[-1:] if bench.quick else COUNTS
    return [(f"{count} {what}", (option, str(count))) for option, what in (("-m", "missers"), ("-f", "fsyncers"))
            for count in counts]


@contextlib.contextmanager
def _started(bench, subject, files, throttled):
    """SUBJECT from nothing, its disk slow for it and for its clients or not."""
    machine.drop_caches()
    throttle = ([machine.disk_of(files.directory)], READS, BYTES, True)
    bench.group = Group(f"foldfs-beside-{os.getpid()}-{bench.next_number()}", throttle=throttle) if throttled else None
    try:
        with bench.started([subject]):
            yield
    finally:
        if bench.group:
            bench.group.remove()
        bench.group = None


def _throttled(bench, subject, files, seconds):
    """{what is beside: (without, with)}, from one server that has just read the hits and nothing else."""
    with _started(bench, subject, files, True):
        machine.run([bench.tool("load"), "--block", str(MIB), os.path.join(subject.path, "hits")],
                    bench.load_limit_s, subject.abort)
        return {what: (_run(bench, subject, seconds), _run(bench, subject, seconds, *options))
                for what, options in _ways(bench)}


def _judge(bench, subject, what, runs, limited):
    for probe in PROBES:
        shares = [beside[probe]["p99"] / alone[probe]["p99"] for alone, beside in runs]
        whose = " as a user" if subject.uid else ""
        case = f"p99 of {probe}{whose} beside {what} ÷ without"
        extra = {"latency_us": [beside[probe] for _, beside in runs], "alone_latency_us": [alone[probe] for alone, _ in runs],
                 "beside_per_s": [run["misses_per_s"] + run["fsyncs_per_s"] for _, run in runs]}
        if isinstance(subject, Native):
            bench.results.reference("mixed", case, subject.name, subject.transport, "ratio", shares, extra)
        else:
            bench.results.amount("mixed", case, subject.transport, "ratio", shares, LIMIT if limited else None, extra)


def _latencies(bench, files, transport, rounds, seconds):
    options = {"pool": "1G", "window": "64M", "passthrough_max": 0}
    subjects = [kind(bench, files.directory, transport, **options) for kind in (Foldfs, FoldfsForUser)]
    if bench.wants("native") and not bench.quick:
        subjects.append(Native(files.directory))
    taken = [[] for _ in subjects]
    for number in range(rounds):
        for subject, runs in zip(subjects, taken):
            bench.progress(f"mixed: {subject.name} {transport} on a throttled disk, round {number + 1}")
            runs.append(_throttled(bench, subject, files, seconds))
    for subject, runs in zip(subjects, taken):
        for what, _ in _ways(bench):
            _judge(bench, subject, what, [run[what] for run in runs], transport == "dev")


def _missing(bench, subject, files, seconds, throttled):
    with _started(bench, subject, files, throttled):
        return _run(bench, subject, seconds, "-p", "-m", str(READERS))["misses_per_s"]


def _rates(bench, files, transport, rounds, seconds, throttled):
    """A pool that holds an eighth of what there is to be read."""
    subjects = {"foldfs": Foldfs(bench, files.directory, transport, pool="64M", window="64M", passthrough_max=0),
                "native": Native(files.directory)}
    if not throttled:
        subjects["null_fuse"] = NullFuse(bench, files.misses, transport, window="64M")
        if bench.wants("passthrough_hp"):
            subjects["passthrough_hp"] = PassthroughHp(bench, files.directory, transport, "direct")
    rates = {name: [] for name in subjects}
    for number in range(rounds):
        for name, subject in subjects.items():
            bench.progress(f"mixed: {READERS} readers that miss, {name} {transport}, round {number + 1}")
            rates[name].append(_missing(bench, subject, files, seconds, throttled))
    _judge_rates(bench, transport, rates, throttled)


def _judge_rates(bench, transport, rates, throttled):
    case = f"{READERS} readers that miss, disk {'throttled' if throttled else 'raw'}"
    limit = RATE_LIMIT if transport == "dev" else None
    if throttled:
        bench.results.ratio("mixed", case, transport, "reads_per_s", rates["foldfs"], "native", rates["native"], limit)
        return
    least = [min(pair) for pair in zip(rates["null_fuse"], rates["native"])]
    bench.results.ratio("mixed", case, transport, "reads_per_s", rates["foldfs"], "null_fuse or native", least, limit,
                        {"null_fuse_per_s": rates["null_fuse"], "native_per_s": rates["native"]})
    if "passthrough_hp" in rates:
        bench.results.ratio("mixed", case, transport, "reads_per_s", rates["foldfs"], "passthrough_hp",
                            rates["passthrough_hp"])


def rows(bench, transport):
    """See the head of this file."""
    files = Files(bench)
    rounds, seconds = 2 if bench.quick else bench.rounds, 1 if bench.quick else 3
    try:
        if machine.disk_of(files.directory) is None:
            raise BenchError("mixed: the disk cannot be throttled here")
        _latencies(bench, files, transport, min(rounds, 3), seconds)
        _rates(bench, files, transport, min(rounds, 3), seconds, True)
        _rates(bench, files, transport, rounds, seconds, False)
    finally:
        shutil.rmtree(files.directory, ignore_errors=True)
