# SPDX-License-Identifier: Apache-2.0
"""The scenarios that are judged by time: hot, pool, cold, write, unique.

Each takes turns between foldfs and its peers (A B A B ...) on the same files in the same state, and
judges the median of the ratios of neighbouring runs.
"""

import json
import os

from . import data, machine
from .peers import Foldfs, Native, NullFuse, PassthroughHp

KIB, MIB = 1 << 10, 1 << 20

HOT_LIMIT = 0.90
POOL_LIMIT = 0.90
COLD_LIMIT = 0.90
WRITE_LIMIT = 0.85
UNIQUE_LIMIT = 0.95


class Work:
    """One fixed amount of work for the load program, and its name in the results."""

    def __init__(self, case, op="read", order="seq", block=MIB, threads=1, ops=0, **more):
        self.case = case
        self.metric = "ops_per_s" if block < 64 * KIB else "bytes_per_s"
        self.compare_sums = op != "write"
        self.arguments = ["--op", op, "--order", order, "--block", str(block), "--threads",
                          str(threads), "--ops", str(ops)]
        for key, value in more.items():
            self.arguments += [f"--{key}"] if value is True else [f"--{key}", str(value)]

    def run(self, bench, served, names, seed):
        paths = [os.path.join(served.path, name) for name in names]
        command = [bench.tool("load"), *self.arguments, "--seed", str(seed), *paths]
        return json.loads(machine.run(bench.in_group(command), bench.load_limit_s, served.abort))


def readers(count):
    return f"{count} reader" + ("s" if count > 1 else "")


class Turns:
    """The runs of one piece of work, by subject, taken in turns."""

    def __init__(self, bench, scenario, work, names, before=None):
        self.bench = bench
        self.scenario = scenario
        self.work = work
        self.names = names
        self.before = before  # called with the subject ahead of each run
        self.runs = {}

    def take(self, subject, seed):
        if self.before:
            self.before(subject)
        key = (subject.name, subject.transport)
        self.bench.progress(f"{self.scenario}: {self.work.case}, {subject.name}"
                            f"{' ' + subject.transport if subject.transport else ''}, round {seed}")
        self.runs.setdefault(key, []).append(self.work.run(self.bench, subject, self.names, seed))

    def all_rounds(self, subjects):
        for seed in range(1, self.bench.rounds + 1):
            for subject in subjects:
                self.take(subject, seed)

    def values(self, key):
        return [run[self.work.metric] for run in self.runs[key]]

    def latencies(self, key):
        """Medians over the rounds of each latency figure."""
        rounds = [run["latency_us"] for run in self.runs[key] if "latency_us" in run]
        middle = len(rounds) // 2
        return {name: sorted(one[name] for one in rounds)[middle]
                for name in (rounds[0] if rounds else {})}

    def judge(self, transport, peer, peer_transport, limit, state):
        """Add foldfs on TRANSPORT against a peer to the results, if both ran."""
        ours, theirs = ("foldfs", transport), (peer, peer_transport)
        if ours not in self.runs or theirs not in self.runs:
            return
        latency, peer_latency = self.latencies(ours), self.latencies(theirs)
        extra = {"state": state, "latency_us": latency, "peer_latency_us": peer_latency}
        if latency and latency["p50"]:
            extra["ratio_p50"] = peer_latency["p50"] / latency["p50"]
        self.bench.results.ratio(
            self.scenario, self.work.case, transport, self.work.metric, self.values(ours), peer,
            self.values(theirs), limit, extra)
        if self.work.compare_sums and not peer.startswith("null_fuse"):
            self._same_bytes(ours, theirs, transport)

    def _same_bytes(self, ours, theirs, transport):
        for a, b in zip(self.runs[ours], self.runs[theirs]):
            if a["sum"] != b["sum"]:
                self.bench.results.failure(self.scenario, self.work.case, transport,
                                           f"other bytes than {theirs[0]}")
                return


def warm(bench, served, names, **where):
    """Read the set once."""
    Work("warm", **where).run(bench, served, names, 1)


def hot(bench):
    """A set that fits the window, read again and again: native against foldfs. The null server in
    cached mode shows what the kernel's FUSE cache itself can do, without any server's help."""
    images, span = bench.images(), 64 * MIB
    names = images.pairs(2)
    offset = data.densest_offset(bench, images.paths(names), span)
    where = {"offset": offset, "span": span}
    subjects = [Native(images.directory)] if bench.wants("native") else []
    subjects += [Foldfs(bench, images.directory, transport, pool="1G", window="512M")
                 for transport in bench.transports]
    state = "warm, set within the window"
    floor = bench.transports[-1]
    if bench.wants("null_fuse"):
        subjects.append(NullFuse(bench, images.paths(names), floor, window="512M"))

    def warm_again(subject):
        """Whatever another program did to the caches meanwhile."""
        warm(bench, subject, names, **where)

    with bench.started(subjects):
        for count in (1, 4) if bench.quick else (1, 2, 4):
            works = [
                Work(f"4 KiB random, {readers(count)}", "read", "rand", 4 * KIB, count, 200000,
                     **where),
                Work(f"128 KiB sequential, {readers(count)}", "read", "seq", 128 * KIB, count,
                     30000, **where),
                Work(f"1 MiB sequential, {readers(count)}", "read", "seq", MIB, count, 4000,
                     **where),
                Work(f"mmap, 4 KiB random, {readers(count)}", "mmap", "rand", 4 * KIB, count,
                     1000000, **where),
                Work(f"mmap anew for each pass, {readers(count)}", "mmap", "rand", 4 * KIB, count,
                     250000, remap=True, **where),
            ]
            for work in works:
                turns = Turns(bench, "hot", work, names, warm_again)
                turns.all_rounds(subjects)
                for transport in bench.transports:
                    turns.judge(transport, "native", None, HOT_LIMIT, state)
                    turns.judge(transport, "null_fuse", floor, None, state)


def pool(bench):
    """A set that fits the pool, not the window: null_fuse on the same transport against foldfs.
    Beside it, for comparison, null_fuse with as much memory to read from as the set has."""
    images, span = bench.images(), 64 * MIB
    names = images.pairs(4)
    where = {"offset": data.densest_offset(bench, images.paths(names), span), "span": span}
    for window, label in (("0", "direct I/O"), ("16M", "window of 16 MiB")):
        for transport in bench.transports:
            subjects = [Foldfs(bench, images.directory, transport, pool="1G", window=window)]
            if bench.wants("null_fuse"):
                paths, memory = images.paths(names), len(names) * span
                subjects.append(NullFuse(bench, paths, transport, window=window))
                if not bench.quick:
                    subjects.append(NullFuse(bench, paths, transport, memory, window=window))
            with bench.started(subjects):
                for subject in subjects:
                    warm(bench, subject, names, **where)
                _pool_reads(bench, subjects, names, where, label, transport)


def _pool_reads(bench, subjects, names, where, label, transport):
    for count in (1, 4):
        works = [
            Work(f"{label}, 4 KiB random, {readers(count)}", "read", "rand", 4 * KIB, count,
                 20000, **where),
            Work(f"{label}, 128 KiB sequential, {readers(count)}", "read", "seq", 128 * KIB, count,
                 6000, **where),
            Work(f"{label}, 1 MiB sequential, {readers(count)}", "read", "seq", MIB, count, 1000,
                 **where),
        ]
        for work in works:
            turns = Turns(bench, "pool", work, names)
            turns.all_rounds(subjects)
            for peer, limit in (("null_fuse", POOL_LIMIT), ("null_fuse_memory", None)):
                turns.judge(transport, peer, transport, limit, "warm, set within the pool")


def _cold_once(bench, turns, subject, seed, paths):
    """Everything from nothing: caches dropped, the server fresh, its pool empty."""
    if machine.is_root():
        machine.drop_caches()
    else:
        machine.drop_files(paths)
    with bench.started([subject]):
        turns.take(subject, seed)


def cold(bench):
    """The first read of whole images: passthrough_hp on the same transport against foldfs."""
    images = bench.images()
    names = images.originals[:2] if bench.quick else images.originals[:4]
    paths = images.paths(names)
    subjects = [Native(images.directory)] if bench.wants("native") else []
    for transport in bench.transports:
        subjects.append(Foldfs(bench, images.directory, transport, pool="4G", window="256M"))
        if bench.wants("passthrough_hp"):
            subjects.append(PassthroughHp(bench, images.directory, transport, "cached"))
    work = Work("whole images, 1 MiB sequential, 1 reader")
    turns = Turns(bench, "cold", work, names)
    for seed in range(1, bench.rounds + 1):
        for subject in subjects:
            _cold_once(bench, turns, subject, seed, paths)
    for transport in bench.transports:
        turns.judge(transport, "passthrough_hp", transport, COLD_LIMIT, "cold")
        turns.judge(transport, "native", None, None, "cold")


def unique(bench):
    """Files that share nothing: native against foldfs, first read and hot."""
    span = 64 * MIB if bench.quick else 128 * MIB
    directory, paths = data.unique_files(bench, 4, span)
    names = [os.path.basename(path) for path in paths]
    native = [Native(directory)] if bench.wants("native") else []
    subjects = native + [Foldfs(bench, directory, transport, pool="1G", window="1G")
                         for transport in bench.transports]
    turns = Turns(bench, "unique", Work("first read, 1 MiB sequential, 1 reader"), names)
    for seed in range(1, bench.rounds + 1):
        for subject in subjects:
            _cold_once(bench, turns, subject, seed, paths)
    for transport in bench.transports:
        turns.judge(transport, "native", None, UNIQUE_LIMIT, "cold")

    with bench.started(subjects):
        for work in (Work("hot, 4 KiB random, 1 reader", "read", "rand", 4 * KIB, 1, 200000),
                     Work("hot, 1 MiB sequential, 1 reader", "read", "seq", MIB, 1, 4000)):
            turns = Turns(bench, "unique", work, names,
                          lambda subject: warm(bench, subject, names))
            turns.all_rounds(subjects)
            for transport in bench.transports:
                turns.judge(transport, "native", None, UNIQUE_LIMIT, "warm, set within the window")


def _write_works(half):
    """In the order in which they run on one fresh copy: what shares pages is written first."""
    low, high = {"offset": 0, "span": half}, {"offset": half, "span": half}
    return [
        Work("4 KiB random, shared pages", "write", "rand", 4 * KIB, 1, 20000, **low),
        Work("4 KiB random, private pages", "write", "rand", 4 * KIB, 1, 20000, **low),
        Work("4 KiB random, fsync after each", "write", "rand", 4 * KIB, 1, 300, sync="each",
             **low),
        Work("1 MiB sequential, shared pages", "write", "seq", MIB, 1, **high),
        Work("1 MiB sequential, private pages", "write", "seq", MIB, 1, **high),
        Work("1 MiB sequential, fsync at the end", "write", "seq", MIB, 1, sync="end", **high),
    ]


def write(bench):
    """Writes to a scratch copy: passthrough_hp without its write-back cache against foldfs."""
    images, half = bench.images(), 128 * MIB
    image = images.paths(images.originals[:1])[0]
    offset = data.densest_offset(bench, [image], 2 * half)
    scratch = data.Scratch(bench, image, offset, 2 * half)
    try:
        _write_rounds(bench, scratch, half)
    finally:
        scratch.remove()


def _write_rounds(bench, scratch, half):
    subjects = [Native(scratch.directory)] if bench.wants("native") else []
    for transport in bench.transports:
        subjects.append(Foldfs(bench, scratch.directory, transport, pool="1G", window="128M"))
        if bench.wants("passthrough_hp"):
            subjects.append(PassthroughHp(bench, scratch.directory, transport, "writethrough"))
    names = [os.path.basename(scratch.target)]
    both = names + [os.path.basename(scratch.twin)]
    works = [work for work in _write_works(half) if not (bench.quick and "private" in work.case)]
    all_turns = [Turns(bench, "write", work, names) for work in works]
    for seed in range(1, bench.rounds + 1):
        for subject in subjects:
            scratch.restore()
            machine.drop_files([scratch.target, scratch.twin])
            with bench.started([subject]):
                warm(bench, subject, both)
                for turns in all_turns:
                    os.sync()
                    turns.take(subject, seed)
            os.sync()
    for turns in all_turns:
        for transport in bench.transports:
            turns.judge(transport, "passthrough_hp", transport, WRITE_LIMIT,
                        "warm, a fresh copy in each round")
            turns.judge(transport, "native", None, None, "warm, a fresh copy in each round")


SCENARIOS = {"hot": hot, "pool": pool, "cold": cold, "write": write, "unique": unique}
