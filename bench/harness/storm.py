# SPDX-License-Identifier: Apache-2.0
"""The scenario storm: clones of one machine boot at the same time where memory is short.

Each clone is read and written by a thread of its own in the order in which a booting machine did that to its disk
(bench/data/boot-rw.trace, made by bench/record_trace), and then once more by a trace of reads alone (boot.trace).
Client and server are in one memory cgroup, whose limit is a quarter of what the clones' traces touch; then once more
with the disk throttled by the block cgroup to what a common cloud volume gives. "first" begins with all caches
empty; "again" follows at once, as machines that restart do.

Clones that are written are everybody's own: foldfs has others than its peers have, for what changes a file behind
a mount ends what is known of it. All have been booted before, by the same replay, and are scanned after that, once:
what foldfs still knows in the rounds that follow is what outlives writes and mounts. What is written differs between
clones and between boots, and is the same on every storage, so what is read can be compared.
"""

import json
import os

from . import data, machine, others
from .groups import Group
from .machine import BenchError
from .peers import Foldfs, Native, NullFuse, catalogue_of, scan
from .timed import Turns

MIB, GIB = 1 << 20, 1 << 30
DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data")
CLONES = 16
MEMORY_SHARE = 4
THROTTLE = (3000, 125_000_000)  # reads and bytes a second
THROTTLED_ROUNDS = 3
QUICK_PEERS = ("native",)
# What a peer gets of the memory that the others have: with less zfs-fuse is ended by the kernel.
MEMORY_FACTOR = {"zfs-fuse": 4}
PEER = "peer"  # a user of clones that are written

LIMITS = {"native": 2.0, "reflink-xfs": 2.0, "reflink-btrfs": 2.0, "zfs-fuse": 3.0}
THROTTLED_LIMITS = {"native": 8.0, "reflink-xfs": 8.0, "reflink-btrfs": 8.0}


class Trace:
    """What a booting machine asked of its disk (bench/record_trace has the format)."""

    def __init__(self, name, suffix):
        self.path = os.path.join(DATA, name)
        self.suffix = suffix  # of the rows' names
        self.writes = False
        pages = set()
        with open(self.path, encoding="ascii") as lines:
            for line in lines:
                if not line.startswith("#"):
                    self.writes |= line.startswith("w")
                    first, count = map(int, line.removeprefix("w").split())
                    pages.update(range(first, first + count))
        self.bytes = len(pages) * data.PAGE  # each page once


def traces():
    return Trace("boot-rw.trace", ""), Trace("boot.trace", ", reads alone")


def boot(bench, trace, paths, seed, abort=None):
    """The trace once on each of PATHS, all at the same time; what is written depends on SEED."""
    command = [bench.tool("load"), "--trace", trace.path, "--seed", str(seed), *paths]
    return json.loads(machine.run(bench.in_group(command), 300, abort))


class Boots:
    """Work for Turns: every clone's trace once. TURN: which of the boots that follow each other it is."""

    metric = "bytes_per_s"
    compare_sums = True

    def __init__(self, trace, case, turn):
        self.trace = trace
        self.case = case + trace.suffix
        self.turn = turn

    def run(self, bench, served, names, seed):
        paths = [os.path.join(served.path, name) for name in names]
        return boot(bench, self.trace, paths, 2 * seed + self.turn, served.abort)


class Storage:
    """Clones on one kind of storage; USERS have a directory of clones each, or all have the same (None)."""

    def __init__(self, bench, name, make, users=None):
        self.bench = bench
        self.name = name
        self.below = make()  # a subject; its path is the directory of the clones, or of the users
        self.users = users

    def directory(self, user):
        return os.path.join(self.below.path, user) if self.users else self.below.path

    def served(self):
        """The clones as they are, without foldfs: a server of its own, or the mounted disk, which is mounted ahead
        of the group's making, as a throttle has to name its device."""
        if isinstance(self.below, (others.LoopDisk, Native)):
            plain = Native(self.directory(PEER))
            plain.name = self.name
            return plain
        return self.below

    def disks(self):
        if hasattr(self.below, "disks"):
            return self.below.disks()
        image = getattr(self.below, "image", None)
        disk = machine.disk_of(os.path.dirname(image) if image else self.below.path)
        if disk is None:
            raise BenchError(f"{self.name}: its disk cannot be throttled")
        return [disk]


def _native_clones(bench, image, users):
    """Copies on the file system of the cache."""
    if not users:
        return Native(data.clones(bench, image, CLONES))
    path = os.path.join(bench.cache, "bench", f"clones-{data.clones_key(image)}-written")
    for user in users:
        data.make_clones(bench, os.path.join(path, user), image, CLONES)
    return Native(path)


def _loop_clones(bench, name, system, image, users):
    """Clones by reflink on a file system of their own, made once."""
    key = data.clones_key(image, ",".join(users or []))
    path = os.path.join(bench.cache, "bench", f"clones-{key}.{system}")
    disk = others.LoopDisk(bench, name, system, path + ".new")
    if not os.path.exists(path):
        disk.make(4 * GIB)
        with bench.started([disk]):
            for user in users or [""]:
                data.make_clones(bench, os.path.join(disk.path, user), image, CLONES, reflink=True)
        os.rename(path + ".new", path)
    disk.image = path
    return disk


def _zfs_clones(bench, image, arc_bytes):
    path = os.path.join(bench.cache, "bench", f"clones-{data.clones_key(image)}.zfs", "disk.img")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    done = path + ".done"
    pool = others.ZfsFuse(bench, path, GIB)
    if not os.path.exists(done):
        try:
            pool.make(8 * GIB)
            data.make_clones(bench, pool.path, image, CLONES)
        finally:
            pool.stop()
        with open(done, "wb"):
            pass
    return others.ZfsFuse(bench, path, arc_bytes)


class Storm:
    """One run of the scenario by one trace: the storages and the subjects over them."""

    def __init__(self, bench, trace):
        self.bench = bench
        self.trace = trace
        self.names = data.clone_names(CLONES)
        self.touched = trace.bytes * len(self.names)
        self.limit = self.touched // MEMORY_SHARE
        self.window = self.limit // 16 // MIB * MIB
        self.pool = self.limit * 11 // 20 // MIB * MIB
        image = data.boot_image(bench)
        users = [PEER, *bench.transports] if trace.writes else None
        kinds = {"native": lambda: _native_clones(bench, image, users),
                 "reflink-xfs": lambda: _loop_clones(bench, "reflink-xfs", "xfs", image, users),
                 "reflink-btrfs": lambda: _loop_clones(bench, "reflink-btrfs", "btrfs", image, users)}
        if not trace.writes:
            kinds["zfs-fuse"] = lambda: _zfs_clones(bench, image, self.limit // 2)
        self.storages = {}
        for name, make in kinds.items():
            if not (bench.quick and name not in QUICK_PEERS) and bench.wants(name):
                try:
                    self.storages[name] = Storage(bench, name, make, users)
                except BenchError as error:
                    bench.peers.cannot(name, str(error))

    def boot_all(self):
        """Every clone that is written is as after the same boot."""
        for storage in self.storages.values() if self.trace.writes else ():
            with self.bench.started([storage.below]):
                for user in storage.users:
                    self.bench.progress(f"storm: {storage.name}, clones of {user} boot once before")
                    boot(self.bench, self.trace, [os.path.join(storage.directory(user), name) for name in self.names], 0)

    def scan(self, name, transport):
        """What the catalogue knows of the clones on a storage, as a user would let it know before."""
        storage = self.storages[name]
        if name == "native" and not self.trace.writes:
            return catalogue_of(self.bench, storage.below.path)
        state = os.path.join(self.bench.work, f"storm-{name}-{transport}{'-written' if self.trace.writes else ''}.state")
        with self.bench.started([storage.below]):
            scan(self.bench, storage.directory(transport), state)
        return state

    def foldfs(self, name, transport, state):
        """What serves the clones on a storage that is mounted, in the memory that all have."""
        options = {"pool": self.pool, "window": self.window,
                   "maps": 16 * MIB, "state": state}
        served = Foldfs(self.bench, self.storages[name].directory(transport), transport, **options)
        served.name = "foldfs" if name == "native" else f"foldfs over {name}"
        return served

    def floor(self, transport):
        """A server that reads nothing and has nothing to look up, with the same window."""
        paths = [os.path.join(self.storages["native"].directory(PEER), name) for name in self.names]
        return NullFuse(self.bench, paths, transport, window=self.window)


def _once(bench, storm, turns, storage, served, seed, throttle):
    """From nothing, in a group of its own: the first boots, then the same again."""
    with bench.started([] if served is storage.below else [storage.below]):
        machine.drop_caches()
        group = Group(f"foldfs-storm-{os.getpid()}-{bench.next_number()}",
                      storm.limit * MEMORY_FACTOR.get(served.name, 1),
                      (storage.disks(), *throttle) if throttle else None)
        bench.group = group
        try:
            with bench.started([served]):
                for each in turns:
                    each.take(served, seed)
        except BenchError as error:
            killed = group.killed()
            raise BenchError(f"{error}; the kernel ended {killed} processes for want of memory" if killed
                             else str(error)) from None
        finally:
            bench.group = None
            group.remove()


def _entries(bench, storm, transports, over):
    """(storage, a function that makes what serves it): the peers by themselves, foldfs over some of them."""
    storm.boot_all()
    entries = [(storage, storage.served) for storage in storm.storages.values()]
    for name in over:
        if name in storm.storages:
            for transport in transports if name == "native" else transports[-1:]:
                state = storm.scan(name, transport)
                entries.append((storm.storages[name], lambda name=name, transport=transport, state=state:
                                storm.foldfs(name, transport, state)))
    return entries


def _rounds(bench, storm, entries, turns, rounds, throttle):
    """A peer that fails is out, once and for all; foldfs that fails is a failure."""
    out = set()
    for seed in range(1, rounds + 1):
        for number, (storage, make) in enumerate(entries):
            if number in out:
                continue
            subject = None
            try:
                subject = make()
                _once(bench, storm, turns, storage, subject, seed, throttle)
            except BenchError as error:
                out.add(number)
                if subject is not None and subject.name.startswith("foldfs"):
                    bench.results.failure("storm", f"{turns[0].work.case}, {subject.name}", subject.transport, str(error))
                elif any(name == storage.name for each in turns for name, _ in each.runs):
                    bench.note(f"storm: {storage.name} fell out{' when throttled' if throttle else ''}: {error}")
                else:
                    bench.peers.cannot(storage.name, f"not in this memory: {error}")


def _judge(bench, storm, turns, limits, state):
    """foldfs over copies against each peer, and over reflink clones against them; and what no FUSE server exceeds,
    against native."""
    extra = {"memory_limit": storm.limit, "touched_bytes": storm.touched, "clones": len(storm.names)}
    for each in turns:
        for ours, transport in [key for key in each.runs if key[0].startswith("foldfs")]:
            for (peer, peer_transport) in [key for key in each.runs if not key[0].startswith("foldfs")]:
                if (ours == "foldfs over reflink-xfs" and peer == "native") or (
                        peer == "null_fuse" and transport != peer_transport):
                    continue
                each.judge(transport, peer, peer_transport, limits.get(peer), state, ours=ours, more=extra)
        for ours, transport in [key for key in each.runs if key[0] == "null_fuse"]:
            each.judge(transport, "native", None, None, state, ours=ours, more=extra)


def _run(bench, trace):
    """All rows of one trace."""
    run = Storm(bench, trace)
    over = [name for name in ("native", "reflink-xfs") if name in run.storages]
    memory = (f"{run.limit / MIB:.0f} MiB of memory, of it pool {run.pool / MIB:.0f} and window {run.window / MIB:.0f}, "
              f"{'reads and writes' if trace.writes else 'reads alone'}")
    for throttle, limits, rounds in ((None, LIMITS, bench.rounds), (THROTTLE, THROTTLED_LIMITS, THROTTLED_ROUNDS)):
        disk = "disk throttled" if throttle else "raw disk"
        transports = bench.transports[-1:] if throttle else bench.transports
        entries = _entries(bench, run, transports, over)
        if throttle:
            entries = [entry for entry in entries if entry[0].name != "zfs-fuse"]
        elif "native" in run.storages and bench.wants("null_fuse") and not trace.writes:
            entries.append((run.storages["native"], lambda: run.floor(transports[-1])))
        turns = [Turns(bench, "storm", Boots(trace, f"{len(run.names)} clones boot {when}, {disk}", turn), run.names)
                 for turn, when in enumerate(("first",) if throttle else ("first", "again"))]
        rounds = 1 if bench.quick else rounds
        _rounds(bench, run, entries, turns, rounds, throttle)
        _judge(bench, run, turns, limits, memory)


def storm(bench):
    """See the head of this file."""
    if not machine.is_root():
        bench.note("storm: needs root, for its cgroups")
        return
    for trace in traces():
        _run(bench, trace)


SCENARIOS = {"storm": storm}
