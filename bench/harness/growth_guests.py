# SPDX-License-Identifier: Apache-2.0
"""Rows of the scenario growth: clones that are written to. All of it is counted."""

import os
import random
import shutil
import threading

from .growth_row import Row
from .peers import Foldfs, scan
from .timed import MIB

PAGE = 4096
CONTENT = 16 * MIB
CLONES = 6


def _clones(bench, count, size):
    """COUNT sparse files of SIZE bytes that have all but a page in common, and what a scan says of them."""
    source = os.path.join(bench.work, f"guests-{bench.next_number()}")
    os.makedirs(source)
    content = random.Random(1).randbytes(CONTENT)
    for number in range(count):
        with open(os.path.join(source, f"clone{number:02d}"), "wb") as file:
            file.write(content)
            file.truncate(size)
            file.seek(PAGE * 5 * number)
            file.write(b"%16d" % number)
    state = source + ".state"
    scan(bench, source, state)
    return source, state


def _with_clones(bench, count, size, options, measure):
    """MEASURE(source, mount, fds) with all clones open for writing, and a page of each written."""
    source, state = _clones(bench, count, size)
    mount = Foldfs(bench, source, "dev", window="0", state=state, passthrough_max=0, **options)
    try:
        with bench.started([mount]):
            fds = [os.open(os.path.join(mount.path, name), os.O_RDWR) for name in sorted(os.listdir(source))]
            try:
                for fd in fds:
                    os.pwrite(fd, b"x" * PAGE, CONTENT // 2)
                return measure(source, mount, fds)
            finally:
                for fd in fds:
                    os.close(fd)
    finally:
        shutil.rmtree(source)
        shutil.rmtree(state, ignore_errors=True)


def _read_all(fds):
    for at in range(0, CONTENT, MIB):
        for fd in fds:
            os.pread(fd, MIB, at)


def _missed_again(_source, mount, fds):
    _read_all(fds)
    before = mount.status()["misses"]
    _read_all(fds)
    return mount.status()["misses"] - before


def cuts(bench, sizes):
    """Pages missed in a second pass over what fits into the pool: maps must have room beside cuts."""
    return {size: _with_clones(bench, CLONES, size << 30, {"pool": "512M"}, _missed_again) for size in sizes}


def _in_step(fds):
    step = threading.Barrier(len(fds))

    def read(fd):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for at in range(0, CONTENT // 2, MIB):
            step.wait()
            os.pread(fd, 16 * PAGE, at)

    readers = [threading.Thread(target=read, args=(fd,)) for fd in fds]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()


def _read_from_source(_source, mount, fds):
    _in_step(fds)
    status = mount.status()
    return (status["misses"] + status["readahead"]) / (CONTENT // 2 // MIB * 16)


def readers(bench, sizes):
    """Pages read from the source for each page that all clones read at once."""
    return {count: _with_clones(bench, count, CONTENT, {"pool": "512M"}, _read_from_source) for count in sizes}


def _waits(source, mount, fds):
    for name in os.listdir(source):
        # Opened in the source: from now on they have nothing to tell each other.
        os.close(os.open(os.path.join(source, name), os.O_RDONLY))
    _in_step(fds)
    return mount.status()["adopt_waits"]


def convoy(bench, sizes):
    """Times that a reader waited for another, of whom none can tell what he reads."""
    return {count: _with_clones(bench, count, CONTENT, {"pool": "512M"}, _waits) for count in sizes}


ROWS = [
    Row("misses of a second pass over 6 clones with a written page", "pages", (1, 16, 128), "GiB for each clone", cuts),
    Row("pages read for one page of clones that are written to and read in step", "pages", (3, 6, 12), "clones", readers),
    Row("waits of clones that can tell each other nothing, read in step", "waits", (3, 6, 12), "clones", convoy),
]
