# SPDX-License-Identifier: Apache-2.0
"""The scenario containers: copies and variants of a real tree in a read-only mount, after a scan.

What the whole system loses when all of it has been read and mapped, against one copy on the plain file
system; how long containers take to start, beside the plain file system and overlayfs; and what an open
and a hot read cost where the kernel serves the file by itself.
"""

import concurrent.futures
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time

from . import machine
from .footprint import Measure
from .machine import BenchError
from .peers import Foldfs, Native, PassthroughHp, scan
from .timed import KIB, MIB, Turns, Work, readers

COPIES_SHARE = 1.05
VARIANTS_SHARE = 1.10
START_LIMIT = 1 / 1.10
OPEN_LIMIT = 1 / 1.15
HOT_LIMIT = 0.95
OWN_FILES = 3
STARTS, QUICK_STARTS = 16, 4
MEMORY_ROUNDS = 2  # they differ by less than a hundredth
SCAN_BUDGETS = (1 * MIB, 64 * MIB)

# What the starts run: nearly nothing, and what loads many libraries.
PROGRAMS = {
    "true": ["true"],
    "python": ["python3", "-c", "import ctypes, sqlite3, ssl, json, decimal, lzma, bz2, asyncio, email"],
}

# Reads every file below the directories and touches each of its pages by a mapping.
READ_AND_MAP = """
import mmap, os, stat, sys
for root in sys.argv[1:]:
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            if not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            with open(path, "rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass
                if os.fstat(file.fileno()).st_size:
                    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
                        for at in range(0, len(mapped), 4096):
                            mapped[at]
"""

# Looks at every name below the directories, and at no content.
LOOK_AT_NAMES = """
import os, sys
for root in sys.argv[1:]:
    for directory, _, names in os.walk(root):
        for name in names:
            os.lstat(os.path.join(directory, name))
"""

# Opens and closes one file again and again; prints how often a second.
OPENS = """
import json, os, sys, time
path, count = sys.argv[1], int(sys.argv[2])
began = time.monotonic()
for _ in range(count):
    os.close(os.open(path, os.O_RDONLY))
print(json.dumps({"ops_per_s": count / (time.monotonic() - began)}))
"""


class Copies:
    """COUNT copies of a tree, and what the catalogue knows of them; kept between runs."""

    def __init__(self, bench, count):
        self.bench = bench
        self.directory = os.path.join(bench.cache, "bench", "containers", "trees")
        self.state = os.path.join(bench.cache, "bench", "containers", "state")
        self.names = [f"{number:02}" for number in range(count)]
        os.makedirs(self.directory, exist_ok=True)
        tree = os.path.join(_trees(bench), "python3")
        # What a run broke off has left. More copies than this run needs are another run's.
        for name in os.listdir(self.directory):
            if not name.isdigit():
                shutil.rmtree(os.path.join(self.directory, name))
        for path in self.paths():
            if not os.path.isdir(path):
                bench.progress(f"containers: copying a tree to {path}")
                subprocess.run(["cp", "-a", "--reflink=auto", tree, path + ".new"], check=True, timeout=600)
                os.rename(path + ".new", path)

    def paths(self, names=None):
        return [os.path.join(self.directory, name) for name in names or self.names]

    def count_files(self):
        """Names of all copies, directories among them."""
        return sum(1 + len(files) for path in self.paths() for _, _, files in os.walk(path))

    def scan(self):
        scan(self.bench, self.directory, self.state)

    def mount(self, transport):
        """As the README mounts trees: nothing in them changes, so the kernel may keep names and attributes."""
        return Foldfs(self.bench, self.directory, transport, ro=True, suid=True, dev=True, pool="1G", window="64M",
                      state=self.state, attr_timeout=3600, entry_timeout=3600)

    @contextlib.contextmanager
    def as_variants(self):
        """Each copy with a few files of its own; afterwards they are copies again."""
        own = [os.path.join(path, "srv", f"own-{number}") for path in self.paths() for number in range(OWN_FILES)]
        try:
            for path in own:
                with open(path, "wb") as file:
                    file.write(os.urandom(200 * KIB))
            yield len(own) * 200 * KIB
        finally:
            for path in own:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)


def _trees(bench):
    bench.progress("looking for the trees (scripts/images --trees)")
    script = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "scripts", "images")
    done = subprocess.run([script, "--trees"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise BenchError("scripts/images --trees could not make the trees")
    return done.stdout.strip().splitlines()[-1]


# ---- memory -------------------------------------------------------------------------------------

def _go_through(bench, subject, names, program):
    """As many trees at a time as there are processors: what is measured is what is left when all is done."""
    bench.progress(f"containers: going through {len(names)} trees, {subject.name}")
    paths = [os.path.join(subject.path, name) for name in names]
    shares = [share for share in (paths[number::os.cpu_count()] for number in range(os.cpu_count())) if share]
    with concurrent.futures.ThreadPoolExecutor(len(shares)) as threads:
        for done in [threads.submit(machine.run, bench.in_group([sys.executable, "-c", program, *share]), 1200,
                                    subject.abort) for share in shares]:
            done.result()


def _memory_of(bench, subjects, names, program=READ_AND_MAP):
    """What the system has lost when PROGRAM went through the trees of the last of SUBJECTS."""
    measure = Measure(bench)
    try:
        with bench.started(subjects):
            _go_through(bench, subjects[-1], names, program)
            taken = measure.take()
            machine.drop_names()
            taken["used_without_names"] = measure.take()["used"]
            return taken
    finally:
        measure.close()


def _memory_of_names(bench, copies, transport):
    """The floor: what names and inodes of all copies take by themselves, nothing of them read; of foldfs, and of
    others that have all copies."""
    case = f"names and inodes of {len(copies.names)} copies, memory of the whole system"
    native = Native(copies.directory)
    floors = [[copies.mount(transport)]]
    if bench.wants("native"):
        floors.append([native])
    if bench.wants("overlayfs"):
        floors.append([native, Stacked(bench, native, copies.names)])
    if bench.wants("passthrough_hp"):
        # It keeps a descriptor for each file, and answers EBADF when it gets no more.
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if allowed < copies.count_files() + 1000:
            bench.note(f"containers: passthrough_hp may open {allowed} files, which are fewer than the copies have")
        else:
            floors.append([PassthroughHp(bench, copies.directory, transport, "passthrough")])
    for subjects in floors:
        taken = _memory_of(bench, subjects, copies.names, LOOK_AT_NAMES)
        extra = {"parts": taken["parts"], "without_names": taken["used_without_names"], "group": taken["group"],
                 "group_parts": taken["group_parts"]}
        subject = subjects[-1]
        if taken["used"] <= 0:
            bench.results.failure("containers", f"{case}, {subject.name}", transport,
                                  "something else gave memory back meanwhile")
        elif subject.name == "foldfs":
            bench.results.amount("containers", case, transport, "bytes", [taken["used"]], None, extra)
        else:
            bench.results.reference("containers", case, subject.name, subject.transport, "bytes", [taken["used"]], extra)


def _memory(bench, copies, transport):
    """Whole-system memory of all copies, then of all variants, against one copy on the plain file system. Beside
    it the part of it that is file contents and the daemon, without what the kernel keeps for each name and inode; and
    the whole system once more when the kernel has given names and inodes back, as it does when memory is short."""
    count = len(copies.names)
    rounds = 1 if bench.quick else MEMORY_ROUNDS
    one = [_memory_of(bench, [Native(copies.directory)], copies.names[:1]) for _ in range(rounds)]
    copies.scan()
    if not bench.quick:
        _memory_of_names(bench, copies, transport)
    taken = [_memory_of(bench, [copies.mount(transport)], copies.names) for _ in range(rounds)]
    _judge_memory(bench, transport, f"{count} copies", one, taken, COPIES_SHARE, 0)
    with copies.as_variants() as own_bytes:
        copies.scan()
        taken = [_memory_of(bench, [copies.mount(transport)], copies.names) for _ in range(rounds)]
    _judge_memory(bench, transport, f"{count} variants", one, taken, VARIANTS_SHARE, own_bytes)


def _contents(taken):
    """Buffers are not in it: that is where ext4 has the blocks of inodes and directories, which are names' as Slab is."""
    return sum(taken["parts"][name] for name in ("Cached", "AnonPages"))


def _judge_memory(bench, transport, case, one, taken, limit, own_bytes):
    for of, figure in (("the whole system", lambda each: each["used"]), ("contents and daemon", _contents),
                       ("the whole system, names given back", lambda each: each["used_without_names"])):
        if min(figure(each) for each in one + taken) <= 0:
            bench.results.failure("containers", f"{case}, memory of {of}", transport,
                                  "something else gave memory back meanwhile")
            continue
        shares = [figure(many) / (figure(single) + own_bytes) for single, many in zip(one, taken)]
        bench.results.amount("containers", f"{case} ÷ unique files once, memory of {of}", transport, "ratio", shares, limit,
                             {"bytes_samples": [figure(each) for each in taken], "own_bytes": own_bytes,
                              "one_samples": [figure(each) for each in one], "parts": taken[-1]["parts"],
                              "one_parts": one[-1]["parts"], "group_samples": [each["group"] for each in taken],
                              "one_group_samples": [each["group"] for each in one],
                              "group_parts": taken[-1]["group_parts"], "one_group_parts": one[-1]["group_parts"]})


# ---- memory of a scan ---------------------------------------------------------------------------

def _anonymous_bytes(pid):
    """None when the process has ended."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * KIB
    return None


def _scan_memory(bench, copies):
    """What a first scan of all copies takes beside its budget: anonymous memory, looked at again and again."""
    for budget in SCAN_BUDGETS:
        bench.progress(f"containers: foldctl scan --memory={budget >> 20}M")
        command = [bench.tool("foldctl"), "scan", "--json", f"--memory={budget >> 20}M",
                   f"--state={os.path.join(bench.work, f'scan-{budget}.state')}", copies.directory]
        highest = 0
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as scanning:
            while scanning.poll() is None:
                highest = max(highest, _anonymous_bytes(scanning.pid) or 0)
                time.sleep(0.01)
            if scanning.returncode:
                raise BenchError(f"foldctl scan: status {scanning.returncode}: {scanning.stderr.read().strip()}")
        bench.results.amount("containers", f"scan of {len(copies.names)} copies with --memory={budget >> 20}M, "
                             "its anonymous memory at the most", None, "bytes", [highest], None)


# ---- starts -------------------------------------------------------------------------------------

def _settings(root, arguments):
    """runc's own example with another root and program, without a terminal."""
    example = machine.run(["sh", "-c", 'd=$(mktemp -d) && cd "$d" && runc spec && cat config.json; rm -rf "$d"'], 30)
    given = json.loads(example)
    given["process"].update(terminal=False, args=arguments)
    given["root"] = {"path": root, "readonly": True}
    return given


class Stacked:
    """overlayfs over each tree of another subject."""

    def __init__(self, bench, below, names):
        self.bench = bench
        self.below = below
        self.names = names
        self.name = "overlayfs" if below.name == "native" else "overlayfs over foldfs"
        self.transport = below.transport
        self.path = os.path.join(bench.work, f"overlay-{bench.next_number()}")
        self.mounted = []

    def start(self):
        for name in self.names:
            upper, work, point = (os.path.join(self.path + suffix, name) for suffix in (".upper", ".work", ""))
            for directory in (upper, work, point):
                os.makedirs(directory)
            options = f"lowerdir={os.path.join(self.below.path, name)},upperdir={upper},workdir={work}"
            machine.run(["mount", "-t", "overlay", "overlay", "-o", options, point], 20, self.abort)
            self.mounted.append(point)

    def stop(self):
        while self.mounted:
            machine.run(["umount", self.mounted.pop()], 20, self.abort)

    def abort(self):
        self.below.abort()


def _bundle(bench, root, program):
    bundle = os.path.join(bench.work, f"bundle-{bench.next_number()}")
    os.makedirs(bundle)
    with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8") as file:
        json.dump(_settings(root, PROGRAMS[program]), file)
    return bundle


def _run_together(bench, subject, bundles):
    """A container of each bundle, started at the same time; until the last has ended."""
    running = [subprocess.Popen(["runc", "--root", os.path.join(bench.work, "runc"), "run", "--bundle", bundle,
                                 f"foldfs-bench-{os.getpid()}-{os.path.basename(bundle)}"], stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for bundle in bundles]
    try:
        for process in running:
            _, errors = process.communicate(timeout=bench.load_limit_s)
            if process.returncode:
                raise BenchError(f"runc: status {process.returncode}: {errors.strip()}")
    except subprocess.TimeoutExpired:
        subject.abort()
        raise BenchError(f"containers had no end after {bench.load_limit_s} s") from None
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait(20)


def _start_all(bench, subject, names, program, round_number):
    """Containers a second, when one on each of the trees is started at the same time and runs to its end; as often
    one after the other as it takes for STARTS of them: one by itself takes 15 ms, or twice that."""
    bundles = [_bundle(bench, os.path.join(subject.path, name), program) for name in names]
    bench.progress(f"containers: {len(names)} starts of {program}, {subject.name}, round {round_number}")
    times = max((QUICK_STARTS if bench.quick else STARTS) // len(names), 1)
    began = time.monotonic()
    for _ in range(times):
        _run_together(bench, subject, bundles)
    taken = time.monotonic() - began
    for bundle in bundles:
        shutil.rmtree(bundle)
    return times * len(names) / taken


def _starts(bench, copies, transport):
    if not shutil.which("runc"):
        bench.note("containers: no starts, as runc is not installed")
        return
    native, ours = Native(copies.directory), copies.mount(transport)
    subjects = [native, ours, Stacked(bench, native, copies.names), Stacked(bench, ours, copies.names)]
    with bench.started(subjects):
        for program in PROGRAMS:
            for count in [number for number in (1, 4, 16) if number <= len(copies.names)]:
                names = copies.names[:count]
                values = {subject.name: [] for subject in subjects}
                for subject in subjects:
                    _start_all(bench, subject, names, program, 0)  # warm from here on
                for round_number in range(1, bench.rounds + 1):
                    for subject in subjects:
                        values[subject.name].append(_start_all(bench, subject, names, program, round_number))
                _judge_starts(bench, f"{count} starts of {program}", transport, values)


def _judge_starts(bench, case, transport, values):
    for ours, peer, limit in (("foldfs", "native", START_LIMIT), ("overlayfs over foldfs", "overlayfs", START_LIMIT),
                              ("foldfs", "overlayfs", None)):
        label = case if ours == "foldfs" else f"{case}, {ours}"
        bench.results.ratio("containers", label, transport, "starts_per_s", values[ours], peer, values[peer], limit,
                            {"state": "warm"})


# ---- opens and hot reads ------------------------------------------------------------------------

class Opens:
    """Work for Turns: open and close of the first of the names."""

    case = "open and close of a small file"
    metric = "ops_per_s"
    compare_sums = False

    def run(self, bench, served, names, _seed):
        command = [sys.executable, "-c", OPENS, os.path.join(served.path, names[0]), "20000"]
        return json.loads(machine.run(command, bench.load_limit_s, served.abort))


def _opens(bench, copies, transport):
    if not bench.wants("passthrough_hp"):
        return
    subjects = [copies.mount(transport), PassthroughHp(bench, copies.directory, transport, "passthrough")]
    turns = Turns(bench, "containers", Opens(), [f"{copies.names[0]}/etc/debian_version"])
    with bench.started(subjects):
        turns.all_rounds(subjects)
    turns.judge(transport, "passthrough_hp", transport, OPEN_LIMIT, "warm, equal files, passthrough")


def _largest(copies, count):
    """The largest files of a tree, which all copies have."""
    root, found = copies.paths()[0], []
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                found.append((os.path.getsize(path), os.path.relpath(path, copies.directory)))
    return [name for _, name in sorted(found)[-count:]]


def _hot(bench, copies, transport):
    if not bench.wants("native"):
        return
    names = _largest(copies, 4)
    span = min(os.path.getsize(path) for path in copies.paths(names)) // MIB * MIB
    where = {"offset": 0, "span": span}
    subjects = [Native(copies.directory), copies.mount(transport)]
    with bench.started(subjects):
        for count in (1,) if bench.quick else (1, 2):
            for work in (
                Work(f"hot, 4 KiB random, {readers(count)}", "read", "rand", 4 * KIB, count, 200000, **where),
                Work(f"hot, 128 KiB sequential, {readers(count)}", "read", "seq", 128 * KIB, count, 30000, **where),
                Work(f"hot, 1 MiB sequential, {readers(count)}", "read", "seq", MIB, count, 4000, **where),
                Work(f"hot, mmap, 4 KiB random, {readers(count)}", "mmap", "rand", 4 * KIB, count, 1000000, **where),
            ):
                turns = Turns(bench, "containers", work, names,
                              lambda subject: Work("warm", **where).run(bench, subject, names, 1))
                turns.all_rounds(subjects)
                turns.judge(transport, "native", None, HOT_LIMIT, "warm, equal files, passthrough")


def containers(bench):
    """Copies of a tree in a read-only mount. The transport hardly matters, as the kernel serves the files: the
    last one of those asked for is taken."""
    if not machine.is_root():
        bench.note("containers: needs root, to drop the caches and to run containers")
        return
    transport = bench.transports[-1]
    copies = Copies(bench, 2 if bench.quick else 16)
    _memory(bench, copies, transport)
    copies.scan()
    if not bench.quick:
        _scan_memory(bench, copies)
    _starts(bench, copies, transport)
    _opens(bench, copies, transport)
    _hot(bench, copies, transport)


SCENARIOS = {"containers": containers}
