# SPDX-License-Identifier: Apache-2.0
"""Rows of the scenario growth: the window, the pool, its end, the daemon's memory."""

import contextlib
import os
import random
import shutil
import threading
import time

from . import peers
from .growth_row import Row

MIB = 1 << 20
PAGE = 4096
READERS = 3
SECONDS = 4


@contextlib.contextmanager
def _mounted(bench, source, **options):
    mount = peers.Foldfs(bench, source, "dev", passthrough_max="0", **options)
    mount.start()
    try:
        yield mount
    finally:
        mount.stop()


def _source(bench):
    path = os.path.join(bench.work, f"growth-{bench.next_number()}")
    os.makedirs(path)
    return path


def _write_pages(path, mebibytes, kind):
    """A file in which no page is equal to another one."""
    block = bytearray(os.urandom(MIB))
    with open(path, "wb") as file:
        for number in range(mebibytes):
            for page in range(0, MIB, PAGE):
                block[page:page + 16] = (kind << 96 | number << 32 | page).to_bytes(16, "little")
            file.write(block)


def _read_all(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(MIB):
            pass


def _in_threads(work, count):
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# ---- trimming ----

def _random_reads(path, size, seconds):
    """Readers of single pages anywhere in the file, each a process: how many reads there were."""
    pipes = []
    for reader in range(READERS):
        receive, send = os.pipe()
        if not os.fork():
            file, rng, done = os.open(path, os.O_RDONLY), random.Random(), 0
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                os.pread(file, PAGE, rng.randrange(size // PAGE) * PAGE)
                done += 1
            os.write(send, b"%d" % done)
            os._exit(0)
        os.close(send)
        pipes.append(receive)
    total = 0
    for receive in pipes:
        total += int(os.read(receive, 20))
        os.close(receive)
        os.wait()
    return total


def trim(bench, sizes):
    """Microseconds for a read past the window's budget, of one sparse file of 1 TiB: a region for nearly each page."""
    source, found = _source(bench), {}
    with open(source + "/disk", "wb") as file:
        file.truncate(1 << 40)
    for size in sizes:
        with _mounted(bench, source, pool="64M", window=size) as mount:
            budget, path = int(size[:-1]) * MIB, mount.path + "/disk"
            while mount.status()["window"]["trimmed_bytes"] < budget // 64:
                _random_reads(path, 1 << 40, 1)
            found[size] = [SECONDS * 1e6 / _random_reads(path, 1 << 40, SECONDS) for _ in range(bench.rounds)]
    return found


# ---- eviction and the end ----

def evict(bench, sizes):
    """Pages that found no frame in the first eviction of a full pool whose every page is in use."""
    found = {}
    for size in sizes:
        source = _source(bench)
        _write_pages(source + "/used", size, 1)
        _write_pages(source + "/new", size // 4, 2)
        with _mounted(bench, source, pool=f"{size}M", window="16M") as mount:
            for _ in range(4):
                _read_all(mount.path + "/used")
            before = mount.status()["bypassed"]
            _read_all(mount.path + "/new")
            found[size] = (mount.status()["bypassed"] - before) / (size // 4)
        shutil.rmtree(source)
    return found


def end(bench, sizes):
    """Milliseconds from the umount to the process's end, with a full pool."""
    found = {}
    for size in sizes:
        source, samples = _source(bench), []
        _write_pages(source + "/file", size, 1)
        for _ in range(bench.rounds):
            with _mounted(bench, source, pool=f"{size + 64}M", window="16M") as mount:
                _read_all(mount.path + "/file")
                begun = time.monotonic()
            samples.append((time.monotonic() - begun) * 1e3)
        found[size] = samples
        shutil.rmtree(source)
    return found


# ---- memory ----

def memory(bench, sizes):
    """MiB that the daemon has and does not count after so many files were made and removed; up to 16 it may have: stacks,
    and what the heap's threads keep, which does not depend on how many files there were."""
    found = {}

    for size in sizes:
        with _mounted(bench, _source(bench), pool="64M", window="16M") as mount:
            def make(number, top=mount.path, count=size // 8):
                os.mkdir(f"{top}/{number}")
                for name in range(count):
                    with open(f"{top}/{number}/{name}", "wb") as file:
                        file.write(b"%d" % name)

            _in_threads(make, 8)
            for number in range(8):
                shutil.rmtree(f"{mount.path}/{number}")
            time.sleep(5)  # what is given back is, once a second
            figures = mount.status()["memory"]
            found[size] = max(16 * MIB, figures["resident_bytes"] - figures["total_bytes"]) / MIB
    return found


ROWS = [
    Row("a read for which another page is trimmed", "µs", ("16M", "128M", "1024M"), "window", trim,
        lambda size: 2 * int(size[:-1]) * MIB),
    Row("first eviction where all is in use", "pages bypassed for each MiB", (128, 512, 4096), "MiB of pool", evict,
        lambda size: 3 * size * MIB),
    Row("the end of a mount", "ms", (128, 512, 4096), "MiB of pool", end, lambda size: 3 * size * MIB, 4),
    Row("memory that nobody counts", "MiB", (10_000, 40_000, 320_000), "files made and removed", memory),
]
