# SPDX-License-Identifier: Apache-2.0
"""Rows of the scenario growth: maps, the table of files, fills."""

import contextlib
import json
import os
import random
import shutil
import sys

from . import machine
from .growth_row import Row
from .peers import Foldfs

MIB = 1 << 20
PAGE = 4096
SLOW_MS = 10  # what a read of a slowed source takes longer


class SlowFoldfs(Foldfs):
    """foldfs on a source whose reads take SLOW_MS longer, however many are under way."""

    def __init__(self, bench, source, **options):
        super().__init__(bench, source, "dev", **options)
        preload = f"LD_PRELOAD={bench.tool('slow_source.so')}"
        self.command = ["env", preload, f"SLOW_US={SLOW_MS * 1000}", *self.command]


@contextlib.contextmanager
def _directory(bench, name):
    """On a disk, for what is too large for the work directory."""
    path = os.path.join(bench.cache, "bench", f"growth-{name}")
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _client(bench, mount, program, *arguments):
    """What PROGRAM prints as JSON; it is the one that touches the mount."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return json.loads(machine.run(command, 600, mount.abort))


# ---- writes beside fills ----

# PATH GIB READS: single pages of the first 4 MiB are read while another thread writes pages anywhere behind them.
BESIDE = f"""
import os, random, sys, threading
path, gib, reads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fd, page, stop, written = os.open(path, os.O_RDWR), {PAGE}, threading.Event(), 0
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
def write():
    global written
    places = random.Random(2)
    while not stop.is_set():
        os.pwrite(fd, b"w" * page, places.randrange((4 << 20) // page, (gib << 30) // page) * page)
        written += 1
writer = threading.Thread(target=write)
writer.start()
for at in random.Random(3).sample(range((4 << 20) // page), reads):
    os.pread(fd, page, at * page)
stop.set()
writer.join()
print(written)
"""
FILLS = 500


def discarded(bench, sizes):
    """Fills discarded, of a hundred, beside a writer of other pages of the file, none of them resident."""
    found = {}
    with _directory(bench, "discard") as source:
        for size in sizes:
            with open(f"{source}/disk{size}", "wb") as file:
                file.write(os.urandom(4 * MIB))
                file.truncate(size << 30)
            mount = SlowFoldfs(bench, source, pool="64M", window="16M", passthrough_max="0")
            with bench.started([mount]):
                _client(bench, mount, BESIDE, f"{mount.path}/disk{size}", size, FILLS)
                found[size] = mount.status()["fills_discarded"] * 100 / FILLS
            os.unlink(f"{source}/disk{size}")
    return found


# ---- the table of files ----

# DIRECTORY OPEN CLOSED: opens and reads so many files and keeps them, then more of them that it closes again:
# microseconds for each of the last half of these.
BESIDE_OPEN = f"""
import os, sys, time
directory, kept, closed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def read(number):
    fd = os.open("%s/%d/%d" % (directory, number // 1000, number), os.O_RDONLY)
    os.pread(fd, {PAGE}, 0)
    return fd
fds = [read(number) for number in range(kept)]
for number in range(kept, kept + closed // 2):
    os.close(read(number))
began = time.perf_counter()
for number in range(kept + closed // 2, kept + closed):
    os.close(read(number))
print((time.perf_counter() - began) * 1e6 / (closed - closed // 2))
"""


def _closed_files(kept):
    """How many are closed beside KEPT open ones: twice what the maps have memory for, as below."""
    return 2 * kept + 4000


def trimming(bench, sizes):
    """Microseconds for a file that is opened, read and closed, beside so many open ones, where the maps' memory is
    full and each one costs another its place."""
    machine.raise_file_limit()
    found = {}
    with _directory(bench, "files") as source:
        for number in range(max(sizes) + _closed_files(max(sizes))):
            if not number % 1000:
                os.mkdir(f"{source}/{number // 1000}")
            with open(f"{source}/{number // 1000}/{number}", "wb") as file:
                file.write(b"%d" % number)
        for size in sizes:
            # A file and its map take some 0.8 KiB.
            maps = (size + _closed_files(size) // 2) * 800
            mount = Foldfs(bench, source, "dev", pool="256M", window="16M", passthrough_max="0", maps=maps)
            with bench.started([mount]):
                found[size] = [_client(bench, mount, BESIDE_OPEN, mount.path, size, _closed_files(size))]
    return found


def same_inode(bench, sizes):
    """Times as long as in the table of as many files of one device a look-up takes in that of files of one inode
    number, each on its own device. Snapshots of btrfs are such files; to make 8,000 of them takes an hour, so the
    table itself is asked (bench/scale.c)."""
    def look_up(what, size):
        return json.loads(machine.run([bench.tool("scale"), what, str(size), "1000000"], 300))["look_up_ns"]

    found = {}
    for size in sizes:
        pairs = [(look_up("snapshots", size), look_up("files", size)) for _ in range(bench.rounds)]
        # The least of each: what else runs takes the processor's cache away.
        found[size] = min(pair[0] for pair in pairs) / min(pair[1] for pair in pairs)
    return found


# ---- forgetting ----

# SERVED SOURCE PAGES: reads a file whole, has it touched in the source, and opens it twice at once, which is where
# that is found; milliseconds until both are open.
FORGET = f"""
import os, sys, threading, time
served, source = sys.argv[1], sys.argv[2]
held = os.open(served, os.O_RDONLY)
at = 0
while True:
    part = len(os.pread(held, {MIB}, at))
    if not part:
        break
    at += part
os.utime(source)
opens = [threading.Thread(target=lambda: os.close(os.open(served, os.O_RDONLY))) for _ in range(2)]
began = time.perf_counter()
for each in opens:
    each.start()
for each in opens:
    each.join()
print((time.perf_counter() - began) * 1e3)
"""


def _write_shuffled(path, first, last):
    """MiB FIRST to LAST of a file whose pages are of a few kinds in no order: the map has a slot for each."""
    kinds, order = [os.urandom(PAGE) for _ in range(512)], random.Random(1)
    with open(path, "ab") as file:
        for _ in range(first, last):
            file.write(b"".join(order.choices(kinds, k=MIB // PAGE)))


def forgetting(bench, sizes):
    """Milliseconds for two opens at once of a file that was touched in the source, of which so much was known."""
    found, before = {}, 0
    with _directory(bench, "forget") as source:
        for size in sizes:
            _write_shuffled(source + "/disk", before << 10, size << 10)
            before = size
            mount = Foldfs(bench, source, "dev", pool="64M", window="16M", maps="256M", passthrough_max="0")
            with bench.started([mount]):
                # The least: meanwhile another thread takes apart what was known, on the same processors.
                found[size] = min(_client(bench, mount, FORGET, mount.path + "/disk", source + "/disk")
                                  for _ in range(bench.rounds))
    return found


# ---- uses ----

# HOT ONCE: uses the pages of HOT again and again, then reads ONCE in requests of 32 pages, of which each but the
# last was read before, one by one; at last HOT again. Prints what the counters are to be asked for.
ONE_MISS = f"""
import os, random, sys
hot, once, page = sys.argv[1], sys.argv[2], {PAGE}
def opened(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    return fd, os.fstat(fd).st_size
def shuffled(size, step):
    places = list(range(0, size, step))
    random.Random(4).shuffle(places)
    return places
fd, size = opened(hot)
for _ in range(4 if sys.argv[3] == "before" else 1):
    for at in shuffled(size, 32 * page):
        os.pread(fd, 32 * page, at)
if sys.argv[3] == "before":
    fd, size = opened(once)
    for at in shuffled(size, 32 * page):
        for number in range(31):
            os.pread(fd, page, at + number * page)
        os.pread(fd, 32 * page, at)
print(0)
"""
HOT_MIB = 32


def uses(bench, sizes):
    """Pages of a hundred that a hot set has lost after so much was read once, in requests that each miss one page:
    these are one use of what they hit, and promote nothing."""
    source, found = os.path.join(bench.work, f"growth-{bench.next_number()}"), {}
    os.makedirs(source)
    with open(source + "/hot", "wb") as file:
        file.write(os.urandom(HOT_MIB * MIB))
    for size in sizes:
        with open(source + "/once", "wb") as file:
            for _ in range(size):
                file.write(os.urandom(MIB))
        mount = Foldfs(bench, source, "dev", pool="64M", window="0", passthrough_max="0")
        with bench.started([mount]):
            _client(bench, mount, ONE_MISS, mount.path + "/hot", mount.path + "/once", "before")
            missed = mount.status()["misses"]
            _client(bench, mount, ONE_MISS, mount.path + "/hot", mount.path + "/once", "after")
            found[size] = (mount.status()["misses"] - missed) * 100 / (HOT_MIB * MIB // PAGE)
    shutil.rmtree(source)
    return found


# ---- streams ----

# DIRECTORY COUNT: reads so many files from their beginnings to their ends, all at once; seconds.
STREAMS = f"""
import os, sys, threading, time
def read(number):
    fd, at = os.open("%s/stream%02d" % (sys.argv[1], number), os.O_RDONLY), 0
    while True:
        part = len(os.pread(fd, {128 << 10}, at))
        if not part:
            break
        at += part
readers = [threading.Thread(target=read, args=(number,)) for number in range(int(sys.argv[2]))]
began = time.perf_counter()
for reader in readers:
    reader.start()
for reader in readers:
    reader.join()
print(time.perf_counter() - began)
"""
STREAM_MIB = 32
WORKERS = 2
READ_KIB, CHUNK_KIB = 128, 512  # of a reader, and of a worker who reads ahead


def streams(bench, sizes):
    """Times as long as it takes where each reader and each worker always waits for the source."""
    source, found = os.path.join(bench.work, f"growth-{bench.next_number()}"), {}
    os.makedirs(source)
    for number in range(max(sizes)):
        with open(f"{source}/stream{number:02d}", "wb") as file:
            for _ in range(STREAM_MIB):
                file.write(os.urandom(MIB))
    for size in sizes:
        mount = SlowFoldfs(bench, source, pool="1G", window="0", passthrough_max="0")
        with bench.started([mount]):
            took = _client(bench, mount, STREAMS, mount.path, size)
        at_once = size * READ_KIB + WORKERS * CHUNK_KIB
        found[size] = took / (size * STREAM_MIB * 1024 / at_once * SLOW_MS / 1e3)
    shutil.rmtree(source)
    return found


ROWS = [
    Row("fills discarded beside a writer of other pages", "of 100", (1, 16, 1024), "GiB of the file", discarded),
    Row("open, read and close of a file that takes another's place", "µs", (160, 1_600, 16_000), "open files beside", trimming),
    Row("look-up of a file among those of its inode number", "times that of others", (80, 800, 8_000), "devices", same_inode),
    Row("opens of a file that was touched in the source", "ms", (1, 4, 12), "GiB known of it", forgetting),
    Row("what a hot set lost to what was read once, with a miss in each request", "of 100 pages", (16, 256, 1_024), "MiB read once", uses),
    # Two workers cannot be everywhere in time: where all read at once, a stream comes to what it is to be read ahead
    # for before they do, and their reads get shorter. Alone each stream would take 5 to 9 times as long.
    Row("streams with two workers that read ahead", "times the shortest time", (1, 4, 16), "streams at once", streams,
        limit=1.5),
]
