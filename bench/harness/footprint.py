# SPDX-License-Identifier: Apache-2.0
"""The scenario footprint: what the whole system loses, and what foldfs says of it.

Memory is MemTotal - MemFree, before and after, caches dropped at the start. Beside it stand the
parts, as the kernel counts them, which must add up to it within 5 %; and foldfs's own figures. What
others take for the same files is taken once, after foldfs.
"""

import os

from . import data, machine, others
from .groups import Group
from .machine import BenchError
from .peers import Foldfs, Native, PassthroughHp
from .timed import Work

MIB, GIB = 1 << 20, 1 << 30
WINDOW = 64 * MIB
SLACK = 32 * MIB
UNIQUE_SHARE = 1.05
PARTS_SHARE = 0.05
ROUNDS = 2  # what is allocated is the same each time, but for threads that happen to run
PEER_IMAGES = 8  # what others take grows with every image
QUICK_PEERS = ("overlayfs",)
QUICK_COMPARED = 2  # files whose every byte is compared
FRAME_BYTES_LIMIT = 80
MAP_BYTES_LIMIT = 8
# A hole of 1 GiB has 262,144 pages. The map may keep some nodes where fills met out of order, but
# less than a byte for four pages.
HOLE_BYTES = 1 << 30
HOLE_MAP_LIMIT = 64 << 10

# The kernel's figures that do not overlap. (Cached holds shared memory.)
PARTS = ("AnonPages", "Cached", "Buffers", "Slab", "PageTables", "KernelStack", "Percpu")


def used(view):
    return view["MemTotal"] - view["MemFree"]


def parts_of(before, after):
    """What each of the kernel's figures grew by."""
    return {name: after[name] - before[name] for name in PARTS if name in after}


class Measure:
    """Memory since a moment at which every cache was dropped: of the whole system, and of the
    cgroup in which client and server run from now on until close()."""

    def __init__(self, bench):
        self.bench = bench
        bench.group = Group(f"foldfs-bench-{os.getpid()}-{bench.next_number()}")
        os.sync()
        for _ in range(3):
            machine.drop_caches()
        self.start, self.still = machine.settle()

    def take(self):
        view, still = machine.settle()
        if not (still and self.still):
            self.bench.note("footprint: free memory did not stand still; is something else running?")
        parts = parts_of(self.start, view)
        return {"used": used(view) - used(self.start), "parts": parts,
                "parts_sum": sum(parts.values()), "group": self.bench.group.usage(),
                "group_parts": self.bench.group.parts()}

    def close(self):
        self.bench.group.remove()
        self.bench.group = None


def _read(bench, subject, names):
    bench.progress(f"footprint: reading {len(names)} files, {subject.name} "
                   f"{subject.transport or ''}")
    Work("read").run(bench, subject, names, 1)


def _steps(bench, count):
    """After how many files the memory is measured."""
    return [n for n in ((1,) if bench.quick else (1, 2, 4, 8, 16)) if n < count] + [count]


def _grow(bench, subject, names, with_status):
    """Read more and more of the files; the measure after each step, by number of files."""
    measure = Measure(bench)
    taken, done = {}, 0
    try:
        with bench.started([subject]):
            for count in _steps(bench, len(names)):
                _read(bench, subject, names[done:count])
                done = count
                taken[count] = measure.take()
                if with_status:
                    taken[count]["status"] = subject.status()
                    taken[count]["rss"], taken[count]["daemon"] = subject.anonymous_bytes()
    finally:
        measure.close()
    return taken


def _peers(bench, images):
    """What others take for the same files: memory after each step, once each."""
    transport = bench.transports[-1]
    source = images.directory
    kept = os.path.join(bench.cache, "bench", f"images-{data.key_of(images.paths())}")
    made = {
        "overlayfs": lambda: others.Overlayfs(bench, source),
        "bindfs": lambda: others.Bindfs(bench, source),
        "mergerfs": lambda: others.Mergerfs(bench, source),
        "fuse-overlayfs": lambda: others.FuseOverlayfs(bench, source),
        "passthrough_hp": lambda: PassthroughHp(bench, source, transport, "cached"),
        "erofs": lambda: others.erofs(bench, source, kept + ".erofs"),
        "reflink-xfs": lambda: _reflink_disk(bench, images, kept + ".xfs"),
    }
    for name, make in made.items():
        if (bench.quick and name not in QUICK_PEERS) or not bench.wants(name):
            continue
        try:
            subject = make()
            taken = _grow(bench, subject, images.names[:PEER_IMAGES], False)
        except BenchError as error:
            bench.peers.cannot(name, str(error))
            continue
        for count, measured in taken.items():
            bench.results.reference("footprint", f"{count} images, memory of the whole system", name, subject.transport,
                                    "bytes", [measured["used"]], {"images": count, "parts": measured["parts"]})


def _reflink_disk(bench, images, path):
    disk = others.LoopDisk(bench, "reflink-xfs", "xfs", path)
    if not os.path.exists(path):
        disk.make(len(images.names) * GIB)
    with bench.started([disk]):
        data.reflink_images(bench, images, disk.path)
    return disk


def footprint(bench):
    """All images read whole; then with a pool that is smaller than they are."""
    if not machine.is_root():
        bench.note("footprint: needs root, to drop the caches")
        return
    images = bench.images()
    if not bench.quick:
        images = data.more_images(bench, images)
    counts = {n: data.count_pages(bench, images.paths(images.names[:n]), 64 * MIB)
              for n in _steps(bench, len(images.names))}
    rounds = 1 if bench.quick else ROUNDS
    runs = {transport: [] for transport in bench.transports}
    native = []
    for number in range(rounds):
        if number == 0 and bench.wants("native"):
            native.append(_grow(bench, Native(images.directory), images.names, False))
        for transport, list_of in runs.items():
            subject = Foldfs(bench, images.directory, transport, pool="4G", window=WINDOW)
            list_of.append(_grow(bench, subject, images.names, True))
    _native_references(bench, native)
    for transport, list_of in runs.items():
        _judge(bench, transport, list_of, native, counts)
        _metadata(bench, transport, list_of, counts)
    for transport in bench.transports[:1] if bench.quick else bench.transports:
        _small_pool(bench, images, transport, counts[len(images.names)])
    _hole(bench)
    _peers(bench, images)


def _native_references(bench, runs):
    for count in runs[0] if runs else ():
        bench.results.reference("footprint", f"{count} images, memory of the whole system", "native", None, "bytes",
                                [run[count]["used"] for run in runs], {"images": count})


def _judge(bench, transport, runs, native, counts):
    for count, pages in counts.items():
        unique = pages["unique"] * data.PAGE
        last = runs[-1][count]
        extra = {"images": count, "unique_bytes": unique, "nonzero_bytes": pages["nonzero"] * data.PAGE,
                 "window_bytes": WINDOW, "parts": last["parts"],
                 "group_parts": last["group_parts"], "daemon_rss": last["rss"],
                 "status": last["status"]}
        limit = UNIQUE_SHARE * unique + WINDOW + SLACK
        for key, of in (("used", "the whole system"), ("group", "the cgroup")):
            samples = [run[count][key] for run in runs]
            if None in samples:
                continue
            beside = {"native_samples": [run[count][key] for run in native]} if native else {}
            bench.results.amount("footprint", f"{count} images, memory of {of}", transport,
                                 "bytes", samples, limit, {**extra, **beside})
    last = max(counts)
    off = [abs(run[last]["parts_sum"] / run[last]["used"] - 1) for run in runs]
    bench.results.amount("footprint", "parts against the whole: difference", transport, "share",
                         off, PARTS_SHARE)
    said = [abs(run[last]["status"]["memory"]["total_bytes"] / run[last]["daemon"] - 1)
            for run in runs]
    bench.results.amount("footprint", "foldfs's own count against the daemon's memory: difference",
                         transport, "share", said, PARTS_SHARE)


def _metadata(bench, transport, runs, counts):
    """Metadata from the status, over frames in use and over pages counted independently."""
    last = max(counts)
    states = [run[last]["status"] for run in runs]
    frame = []
    for state in states:
        memory, frames = state["memory"], state["frames_used"]
        frame.append((memory["metadata_bytes"] + memory["index_bytes"]) / frames)
    bench.results.amount("footprint", "metadata and index for each frame", transport, "bytes",
                         frame, FRAME_BYTES_LIMIT)
    maps = [state["memory"]["maps_bytes"] / counts[last]["nonzero"] for state in states]
    bench.results.amount("footprint", "maps for each page that is not zero", transport, "bytes",
                         maps, MAP_BYTES_LIMIT)


def _small_pool(bench, images, transport, pages):
    """A pool of a quarter of what is unique: bounded, and every byte right."""
    size = max(pages["unique"] * data.PAGE // 4 // MIB, 16) * MIB
    window = 32 * MIB
    subject = Foldfs(bench, images.directory, transport, pool=size, window=window)
    measure = Measure(bench)
    case = "pool of a quarter of the unique pages"
    try:
        _small_pool_run(bench, images, measure, subject, case, size, window)
    finally:
        measure.close()
    bench.results.amount("footprint", f"{case}, files that read wrong", transport, "files", [0], 0)


def _small_pool_run(bench, images, measure, subject, case, size, window):
    transport = subject.transport
    with bench.started([subject]):
        _read(bench, subject, images.names)
        taken = measure.take()
        status = subject.status()
        for key, of in (("used", "the whole system"), ("group", "the cgroup")):
            if taken[key] is not None:
                bench.results.amount("footprint", f"{case}, memory of {of}", transport, "bytes",
                                     [taken[key]], 1.05 * size + window + SLACK,
                                     {"parts": taken["parts"], "group_parts": taken["group_parts"],
                                      "status": status})
        compared = images.names[:QUICK_COMPARED] if bench.quick else images.names
        for name, path in zip(compared, images.paths(compared)):
            bench.progress(f"footprint: {case}: comparing {name}, {transport}")
            machine.run(["cmp", "--", path, os.path.join(subject.path, name)],
                        bench.load_limit_s, subject.abort)


def _hole(bench):
    """A file that is one hole costs the maps nothing and takes no frame."""
    directory = os.path.join(bench.work, "hole")
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "hole"), "wb") as file:
        file.truncate(HOLE_BYTES)
    for transport in bench.transports[:1]:
        subject = Foldfs(bench, directory, transport, pool="64M", window=32 * MIB)
        with bench.started([subject]):
            before = subject.status()
            _read(bench, subject, ["hole"])
            machine.settle()  # what is not used any more is freed a moment later
            after = subject.status()
        grown = after["memory"]["maps_bytes"] - before["memory"]["maps_bytes"]
        bench.results.amount("footprint", "maps of 1 GiB of zeroes", transport, "bytes", [grown],
                             HOLE_MAP_LIMIT)
        bench.results.amount("footprint", "frames of 1 GiB of zeroes", transport, "frames",
                             [after["frames_used"]], 0)


SCENARIOS = {"footprint": footprint}
