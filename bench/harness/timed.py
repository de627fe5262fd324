# SPDX-License-Identifier: Apache-2.0
"""The scenarios that are judged by time: hot, pool, cold, write, unique.

Each takes turns between foldfs and its peers (A B A B ...) on the same files in the same state, and
judges the median of the ratios of neighbouring runs.
"""

import json
import os
import re
import shutil

from . import data, machine, others
from .peers import Foldfs, FoldfsForUser, Native, NullFuse, PassthroughHp, catalogue_of, scan

KIB, MIB = 1 << 10, 1 << 20

HOT_LIMIT = 0.97
POOL_LIMIT = 0.96
POOL_PASSTHROUGH_LIMIT = 1.0
COLD_LIMIT = 0.97
COLD_HASHING_LIMIT = 0.05
COLD_KNOWN_LIMIT = 1.0
WRITE_LIMIT = 0.95
USER_LIMIT = 0.95  # of what root gets
UNIQUE_LIMIT = 0.95
# Of those without a limit, and of 16 images each time.
ROUNDS_BESIDE = 2
KNOWN_ROUNDS = 3

# What hashes and compares, by the names of the functions: of xxhash, of ours around it, of the C library.
HASHING = re.compile(r"^(XXH|hash_index_digest|page_store_digest|fold_page_is_zero|match_page|_*memcmp|_*bcmp)")


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
        command = [bench.tool("load"), *self.arguments, "--uid", str(served.uid), "--seed", str(seed), *paths]
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
        taken = self.work.run(self.bench, subject, self.names, seed)
        self.runs.setdefault(key, []).append(taken)

    def all_rounds(self, subjects, beside=()):
        """Those BESIDE have no limit to be held to, and take part in the first rounds only."""
        for seed in range(1, self.bench.rounds + 1):
            for subject in [*subjects, *(beside if seed <= ROUNDS_BESIDE else ())]:
                self.take(subject, seed)

    def values(self, key):
        return [run[self.work.metric] for run in self.runs[key]]

    def latencies(self, key):
        """Medians over the rounds of each latency figure."""
        rounds = [run["latency_us"] for run in self.runs[key] if "latency_us" in run]
        middle = len(rounds) // 2
        return {name: sorted(one[name] for one in rounds)[middle]
                for name in (rounds[0] if rounds else {})}

    def judge(self, transport, peer, peer_transport, limit, state, ours="foldfs", more=None):
        """Add foldfs (or what is named OURS) on TRANSPORT against a peer to the results, if both ran."""
        case = self.work.case if ours == "foldfs" else f"{self.work.case}, {ours}"
        ours, theirs = (ours, transport), (peer, peer_transport)
        if ours not in self.runs or theirs not in self.runs:
            return
        latency, peer_latency = self.latencies(ours), self.latencies(theirs)
        extra = {"state": state, "latency_us": latency, "peer_latency_us": peer_latency, **(more or {})}
        if latency and latency["p50"]:
            extra["ratio_p50"] = peer_latency["p50"] / latency["p50"]
        self.bench.results.ratio(
            self.scenario, case, transport, self.work.metric, self.values(ours), peer,
            self.values(theirs), limit, extra)
        if self.work.compare_sums and not any(name.startswith("null_fuse") for name in (ours[0], peer)):
            self._same_bytes(case, ours, theirs, transport)

    def _same_bytes(self, case, ours, theirs, transport):
        for a, b in zip(self.runs[ours], self.runs[theirs]):
            if a["sum"] != b["sum"]:
                self.bench.results.failure(self.scenario, case, transport,
                                           f"other bytes than {theirs[0]}")
                return


OTHERS = {"bindfs": others.Bindfs, "mergerfs": others.Mergerfs, "fuse-overlayfs": others.FuseOverlayfs,
          "overlayfs": others.Overlayfs}


def other_peers(bench, source, names, *mode):
    """Those of NAMES that take part in this run, to stand beside without a limit; none in a quick run."""
    return [OTHERS[name](bench, source, *mode) for name in names if not bench.quick and bench.wants(name)]


def judge_others(bench, turns, subjects, state):
    """foldfs on the last transport against each of other_peers()."""
    for subject in subjects:
        turns.judge(bench.transports[-1], subject.name, subject.transport, None, state)


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
    beside = other_peers(bench, images.directory, OTHERS)

    def warm_again(subject):
        """Whatever another program did to the caches meanwhile."""
        warm(bench, subject, names, **where)

    with bench.started(subjects + beside):
        _fill_caches(bench, subjects + beside, warm_again)
        for count in (1, 4) if bench.quick else (1, 2, 4):
            for work in _hot_works(count, where):
                turns = Turns(bench, "hot", work, names, warm_again)
                with_others = beside if count == 1 and "mmap" not in work.case else []
                turns.all_rounds(subjects, with_others)
                for transport in bench.transports:
                    turns.judge(transport, "native", None, HOT_LIMIT, state)
                    turns.judge(transport, "null_fuse", floor, None, state)
                judge_others(bench, turns, with_others, state)


def _fill_caches(bench, subjects, fill):
    """A cached page is read as fast as its memory lies: pages of 4 KiB that are neighbours in a file and in memory
    are up to a third faster than scattered ones. So each subject fills its cache from memory that is in order."""
    if machine.is_root():
        machine.drop_caches()
    for subject in subjects:
        machine.compact_memory()
        fill(subject)


def _hot_works(count, where):
    return [
        Work(f"4 KiB random, {readers(count)}", "read", "rand", 4 * KIB, count, 200000, **where),
        Work(f"128 KiB sequential, {readers(count)}", "read", "seq", 128 * KIB, count, 30000,
             **where),
        Work(f"1 MiB sequential, {readers(count)}", "read", "seq", MIB, count, 4000, **where),
        Work(f"mmap, 4 KiB random, {readers(count)}", "mmap", "rand", 4 * KIB, count, 1000000,
             **where),
        Work(f"mmap anew for each pass, {readers(count)}", "mmap", "rand", 4 * KIB, count, 250000,
             remap=True, **where),
    ]


def pool(bench):
    """A set that fits the pool, not the window: null_fuse on the same transport against foldfs, and
    passthrough_hp, whose pool is the source's page cache. Beside them, for comparison, null_fuse with
    as much memory to read from as the set has, passthrough_hp with its defaults, and others."""
    images, span = bench.images(), 64 * MIB
    names = images.pairs(4)
    where = {"offset": data.densest_offset(bench, images.paths(names), span), "span": span}
    for window, label in (("0", "direct I/O"), ("16M", "window of 16 MiB")):
        for transport in bench.transports:
            subjects = [Foldfs(bench, images.directory, transport, pool="1G", window=window)]
            subjects += _pool_peers(bench, images, names, span, transport, window)
            with bench.started(subjects):
                for subject in subjects:
                    warm(bench, subject, names, **where)
                _pool_reads(bench, subjects, names, where, label, transport)


def _pool_peers(bench, images, names, span, transport, window):
    """passthrough_hp stands for what its mode is; its name is its own with that mode."""
    paths, subjects = images.paths(names), []
    if bench.wants("null_fuse"):
        subjects.append(NullFuse(bench, paths, transport, window=window))
    if bench.wants("null_fuse_memory") and not bench.quick:
        subjects.append(NullFuse(bench, paths, transport, len(names) * span, window=window))
    if window == "0" and bench.wants("passthrough_hp"):
        subjects.append(_named(PassthroughHp(bench, images.directory, transport, "direct"),
                               "passthrough_hp direct"))
        if not bench.quick:
            subjects.append(_named(PassthroughHp(bench, images.directory, transport, "passthrough"),
                                   "passthrough_hp by default"))
    if window == "0" and transport == bench.transports[-1]:
        subjects += other_peers(bench, images.directory, ("bindfs", "mergerfs"), "direct")
    return subjects


def _named(subject, name):
    subject.name = name
    return subject


# Peers of `pool` on the same transport, and their limits.
POOL_PEERS = {"null_fuse": POOL_LIMIT, "null_fuse_memory": None,
              "passthrough_hp direct": POOL_PASSTHROUGH_LIMIT, "passthrough_hp by default": None}


def _pool_reads(bench, subjects, names, where, label, transport):
    state = "warm, set within the pool"

    def source_again(subject):
        """Their pool is the source's page cache, which foldfs empties of what it reads."""
        if not subject.name.startswith(("foldfs", "null_fuse")):
            warm(bench, Native(bench.images().directory), names, **where)

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
            turns = Turns(bench, "pool", work, names, source_again)
            turns.all_rounds([each for each in subjects if each.name not in OTHERS],
                             [each for each in subjects if each.name in OTHERS])
            for peer, limit in POOL_PEERS.items():
                turns.judge(transport, peer, transport, limit, state)
            judge_others(bench, turns, [each for each in subjects if each.name in OTHERS], state)


def _cold_once(bench, turns, subject, seed, paths):
    """Everything from nothing: caches dropped, the server fresh, its pool empty."""
    if machine.is_root():
        machine.drop_caches()
    else:
        machine.drop_files(paths)
    with bench.started([subject]):
        turns.take(subject, seed)


def cold(bench):
    """The first read of whole images: passthrough_hp on the same transport against foldfs, and others beside it.
    Then what hashing takes of it, and the first read of clones whose pages the catalogue knows."""
    images = bench.images()
    names = images.originals[:2] if bench.quick else images.originals[:4]
    paths = images.paths(names)
    subjects = [Native(images.directory)] if bench.wants("native") else []
    for transport in bench.transports:
        subjects.append(Foldfs(bench, images.directory, transport, pool="4G", window="256M"))
        if bench.wants("passthrough_hp"):
            subjects.append(PassthroughHp(bench, images.directory, transport, "cached"))
    beside = other_peers(bench, images.directory, OTHERS)
    turns = Turns(bench, "cold", Work("whole images, 1 MiB sequential, 1 reader"), names)
    _cold_rounds(bench, turns, subjects, paths, beside)
    for transport in bench.transports:
        turns.judge(transport, "passthrough_hp", transport, COLD_LIMIT, "cold")
        turns.judge(transport, "native", None, None, "cold")
    judge_others(bench, turns, beside, "cold")
    for transport in bench.transports:
        _cold_hashing(bench, images, names, transport)
    _cold_known(bench)


def _cold_rounds(bench, turns, subjects, paths, beside=(), rounds=None):
    for seed in range(1, (rounds or bench.rounds) + 1):
        for subject in [*subjects, *(beside if seed <= ROUNDS_BESIDE else ())]:
            _cold_once(bench, turns, subject, seed, paths)


def _cold_hashing(bench, images, names, transport):
    """The share of the CPU time of foldfs and of its reader in which it hashes or compares, by perf."""
    if not (shutil.which("perf") and machine.is_root()):
        bench.note("cold: no share of hashing, which takes perf (linux-perf) and root")
        return
    bench.progress(f"cold: where the CPU time goes, {transport}")
    subject = Foldfs(bench, images.directory, transport, pool="4G", window="256M")
    found = os.path.join(bench.work, f"perf-{transport}.data")
    machine.drop_caches()
    with bench.started([subject]):
        paths = [os.path.join(subject.path, name) for name in names]
        record = ["perf", "record", "-q", "-a", "-e", "cpu-clock", "-F", "1999", "-o", found, "--"]
        machine.run([*record, bench.tool("load"), "--block", str(MIB), *paths], bench.load_limit_s, subject.abort)
        server = str(subject.serving_pid())
    total = hashing = 0
    for line in machine.run(["perf", "script", "-i", found, "-F", "comm,pid,ip,sym,dso"], 120).splitlines():
        words = line.split()
        # COMMAND PID ADDRESS SYMBOL (FILE); a command's name may have spaces.
        if len(words) < 5 or (words[-4] != server and words[0] != "load"):
            continue
        total += 1
        hashing += bool(HASHING.match(words[-2])) or "libxxhash" in words[-1]
    os.unlink(found)
    if total < 100:
        bench.note(f"cold: perf took only {total} samples of foldfs and its reader")
        return
    bench.results.amount("cold", "share of the CPU time in which pages are hashed and compared", transport, "share",
                         [hashing / total], COLD_HASHING_LIMIT, {"cpu_samples": total})


def _cold_known(bench):
    """The first read of clones of an image, most of whose pages foldfs knows when it comes to them."""
    if not bench.wants("native"):
        return
    count = 4 if bench.quick else 16
    directory = data.clones(bench, data.boot_image(bench), 16)
    names = data.clone_names(count)
    state = catalogue_of(bench, directory)
    subjects = [Native(directory)] + [Foldfs(bench, directory, transport, pool="2G", window="256M", state=state)
                                      for transport in bench.transports]
    turns = Turns(bench, "cold", Work(f"{count} clones after a scan, 1 MiB sequential, 1 reader"), names)
    _cold_rounds(bench, turns, subjects, [os.path.join(directory, name) for name in names],
                 rounds=min(KNOWN_ROUNDS, bench.rounds))
    for transport in bench.transports:
        turns.judge(transport, "native", None, COLD_KNOWN_LIMIT, "cold, catalogue filled by foldctl scan")


def unique(bench):
    """Files that share nothing, as foldctl scan has found: native against foldfs, first read, hot, written. The
    kernel serves them; passthrough_hp, whose reads it serves too, stands beside."""
    span = 64 * MIB if bench.quick else 128 * MIB
    directory, paths = data.unique_files(bench, 4, span)
    names = [os.path.basename(path) for path in paths]
    state = os.path.join(bench.work, "unique.state")
    scan(bench, directory, state)
    native = [Native(directory)] if bench.wants("native") else []
    subjects = native + [Foldfs(bench, directory, transport, pool="1G", window="1G", state=state)
                         for transport in bench.transports] + _unique_floor(bench, directory)
    turns = Turns(bench, "unique", Work("first read, 1 MiB sequential, 1 reader"), names)
    _cold_rounds(bench, turns, subjects, paths)
    _judge_unique(bench, turns, "cold, after a scan")

    with bench.started(subjects):
        for work in (Work("hot, 4 KiB random, 1 reader", "read", "rand", 4 * KIB, 1, 200000),
                     Work("hot, 1 MiB sequential, 1 reader", "read", "seq", MIB, 1, 4000)):
            turns = Turns(bench, "unique", work, names,
                          lambda subject: warm(bench, subject, names))
            turns.all_rounds(subjects)
            _judge_unique(bench, turns, "warm, after a scan")
    _unique_writes(bench, paths[0])


def _unique_floor(bench, directory):
    return ([PassthroughHp(bench, directory, bench.transports[-1], "passthrough")]
            if bench.wants("passthrough_hp") else [])


def _judge_unique(bench, turns, state):
    for transport in bench.transports:
        turns.judge(transport, "native", None, UNIQUE_LIMIT, state)
        turns.judge(transport, "passthrough_hp", transport, None, state)
    turns.judge(bench.transports[-1], "native", None, None, state, ours="passthrough_hp")


def _unique_writes(bench, path):
    """Writes to a copy of such a file, always in the same place, which the kernel passes through."""
    directory = os.path.join(bench.cache, "bench", "unique-written")
    target = os.path.join(directory, os.path.basename(path))
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    try:
        data.copy_file(path, target)
        native = [Native(directory)] if bench.wants("native") else []
        subjects = native + [Foldfs(bench, directory, transport, pool="1G", window="1G", passthrough="*")
                             for transport in bench.transports] + _unique_floor(bench, directory)
        names = [os.path.basename(target)]

        def written_out(subject):
            """What others left to be written is on the disk, and the file is in memory."""
            os.sync()
            warm(bench, subject, names)

        with bench.started(subjects):
            for work in _unique_write_works():
                turns = Turns(bench, "unique", work, names, written_out)
                turns.all_rounds(subjects)
                _judge_unique(bench, turns, "warm, passthrough")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _unique_write_works():
    return [
        Work("write, 4 KiB random", "write", "rand", 4 * KIB, 1, 200000),
        Work("write, 4 KiB random, fsync after each", "write", "rand", 4 * KIB, 1, 300, sync="each"),
        Work("write, 1 MiB sequential", "write", "seq", MIB, 1),
        Work("write, 1 MiB sequential, fsync at the end", "write", "seq", MIB, 1, sync="end"),
    ]


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
        subjects += [kind(bench, scratch.directory, transport, pool="1G", window="128M")
                     for kind in (Foldfs, FoldfsForUser)]
        if bench.wants("passthrough_hp"):
            subjects.append(PassthroughHp(bench, scratch.directory, transport, "writethrough"))
    beside = other_peers(bench, scratch.directory, ("bindfs", "mergerfs"))
    names = [os.path.basename(scratch.target)]
    both = names + [os.path.basename(scratch.twin)]
    works = [work for work in _write_works(half) if not (bench.quick and "private" in work.case)]
    all_turns = [Turns(bench, "write", work, names) for work in works]
    for seed in range(1, bench.rounds + 1):
        for subject in subjects + (beside if seed <= ROUNDS_BESIDE else []):
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
            turns.judge(transport, "foldfs", transport, USER_LIMIT, "warm, a fresh copy in each round",
                        ours="as a user")
        judge_others(bench, turns, beside, "warm, a fresh copy in each round")


SCENARIOS = {"hot": hot, "pool": pool, "cold": cold, "write": write, "unique": unique}
