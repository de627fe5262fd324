# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the daemon at random moments, under every kind of change; `tests/crash/run --rounds N`.

Each changer has a file of its own and a log in shared memory: before a change it notes what it is about
to make (`begun`), after the acknowledgement the same (`done`). Whatever the moment, the source then
has each change that was acknowledged; the one that was under way may have happened or not.
"""

import collections
import mmap
import os
import random
import signal
import struct
import time

from harness import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, PAGE, check, equal, fallocate, make_pages,
                     read_file, test, write_file)
from results import record_result
from test_write import GONE, record_writer

ROUNDS = int(os.environ.get("FOLDFS_CRASH_ROUNDS", "0"))
PAGES = 128
RECORD = 96
KINDS = {"a": "written or stored", "b": "written or stored", "appended": "appended", "sized": "resized",
         "copied": "copied or punched"}
# The last two are trimmed all the time: a thread of the daemon then often waits for a page of a client.
OPTIONS = ([], ["window=0"], ["pool=1M", "window=0"], ["pool=1M", "window=256K"], ["pool=1M", "window=256K"])


def until_gone(path, flags, change):
    """Call CHANGE(fd, number) for 1, 2, ... until the daemon is gone."""
    try:
        fd = os.open(path, flags)
        for number in range(1, 1 << 30):
            change(fd, number)
    except OSError as error:
        check(error.errno in GONE, "errno of a change: %s" % error)


class Records:
    """pwrite and mmap with msync, whole pages."""

    def __init__(self, source, owner):
        self.path, self.owner = source, owner
        self.log = mmap.mmap(-1, PAGES * 16)
        write_file(source, bytes(PAGES * PAGE))

    def work(self, path, seed):
        try:
            record_writer(path, self.log, self.owner, seed)
        except OSError as error:  # of its open: later ones it sees to
            check(error.errno in GONE, "errno of an open: %s" % error)

    def verify(self):
        content = read_file(self.path)
        equal(len(content), PAGES * PAGE, "size of " + self.path)
        for page in range(PAGES):
            begun, done = struct.unpack_from("<QQ", self.log, page * 16)
            for (word,) in struct.iter_unpack("<Q", content[page * PAGE:(page + 1) * PAGE]):
                check(done <= word & 0xffffffff <= begun, "page %d of %s holds write %d; %d was acknowledged, "
                      "%d begun" % (page, self.path, word & 0xffffffff, done, begun))
                check(word == 0 or word >> 32 == self.owner << 24 | page, "page %d: %#x" % (page, word))

    def acknowledged(self):
        return max(struct.unpack_from("<Q", self.log, page * 16 + 8)[0] for page in range(PAGES))


class Appended:
    """O_APPEND."""

    def __init__(self, source, owner):
        self.path = source
        self.log = mmap.mmap(-1, PAGE)
        write_file(source, b"")

    def work(self, path, seed):
        def append(fd, number):
            struct.pack_into("<Q", self.log, 0, number)
            record = struct.pack("<Q", number) * (RECORD // 8)
            while record:  # short where the daemon was killed between two pages
                record = record[os.write(fd, record):]
            struct.pack_into("<Q", self.log, 8, number)
        until_gone(path, os.O_WRONLY | os.O_APPEND, append)

    def verify(self):
        begun, done = struct.unpack_from("<QQ", self.log)
        content = read_file(self.path)
        check(done * RECORD <= len(content) <= begun * RECORD, "%d bytes; %d records were acknowledged" % (
            len(content), done))
        wanted = b"".join(struct.pack("<Q", number) * (RECORD // 8) for number in range(1, begun + 1))
        equal(content, wanted[:len(content)], "what was appended")

    def acknowledged(self):
        return struct.unpack_from("<Q", self.log, 8)[0]


class Sized:
    """truncate down and up, fallocate that extends; behind the first page all is zeroes."""

    def __init__(self, source, owner):
        self.path = source
        self.log = mmap.mmap(-1, PAGE)
        write_file(source, b"\xff" * PAGE)
        struct.pack_into("<QQ", self.log, 0, PAGE, PAGE)

    def work(self, path, seed):
        rng = random.Random(seed)

        def resize(fd, number):
            old, = struct.unpack_from("<Q", self.log, 8)
            size = rng.randrange(PAGE, PAGES * PAGE)
            struct.pack_into("<Q", self.log, 0, size)
            if size > old and rng.randrange(2):
                fallocate(fd, 0, old, size - old)
            else:
                os.ftruncate(fd, size)
            struct.pack_into("<QQ", self.log, 8, size, number)
        until_gone(path, os.O_RDWR, resize)

    def verify(self):
        sizes = struct.unpack_from("<QQ", self.log)
        content = read_file(self.path)
        check(len(content) in sizes, "size %d; %d was acknowledged, %d begun" % (
            len(content), sizes[1], sizes[0]))
        equal(content, b"\xff" * PAGE + bytes(len(content) - PAGE), "content of what was resized")

    def acknowledged(self):
        return struct.unpack_from("<Q", self.log, 16)[0]


class Copied:
    """copy_file_range from another file, and holes punched."""

    def __init__(self, source, owner):
        self.path = source
        self.log = mmap.mmap(-1, PAGES * 16 + 8)
        self.master = make_pages(random.Random(owner), 32)
        write_file(source + ".master", self.master)
        write_file(source, bytes(PAGES * PAGE))

    def work(self, path, seed):
        rng = random.Random(seed)
        master = None

        def copy(fd, number):
            nonlocal master
            if master is None:
                master = os.open(path + ".master", os.O_RDONLY)
            page, origin = rng.randrange(PAGES), rng.randrange(33)
            struct.pack_into("<Q", self.log, page * 16, origin)
            if origin:
                os.copy_file_range(master, fd, PAGE, (origin - 1) * PAGE, page * PAGE)
            else:
                fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, page * PAGE, PAGE)
            struct.pack_into("<Q", self.log, page * 16 + 8, origin)
            struct.pack_into("<Q", self.log, PAGES * 16, number)
        until_gone(path, os.O_RDWR, copy)

    def origin(self, number):
        return self.master[(number - 1) * PAGE:number * PAGE] if number else bytes(PAGE)

    def verify(self):
        content = read_file(self.path)
        equal(len(content), PAGES * PAGE, "size of " + self.path)
        for page in range(PAGES):
            found = content[page * PAGE:(page + 1) * PAGE]
            begun, done = struct.unpack_from("<QQ", self.log, page * 16)
            check(found in (self.origin(begun), self.origin(done)),
                  "page %d is neither copy %d, which was acknowledged, nor %d" % (page, done, begun))

    def acknowledged(self):
        return struct.unpack_from("<Q", self.log, PAGES * 16)[0]


def one_round(t, source):
    """How many changes of each kind were acknowledged."""
    options = t.rng.choice(OPTIONS)
    kinds = {"a": Records, "b": Records, "appended": Appended, "sized": Sized, "copied": Copied}
    changers = {name: kind(os.path.join(source, name), owner + 1)
                for owner, (name, kind) in enumerate(kinds.items())}
    mount = t.mount(source, options)
    # A mapped page that has to be read when nobody answers any more is a SIGBUS.
    children = [t.fork(changer.work, mount.path(name), t.rng.random(), may_die_of=signal.SIGBUS)
                for name, changer in changers.items()]
    # Not synchronisation: the moment of the crash is to be any.
    time.sleep(t.rng.uniform(0.02, 0.8))
    mount.kill()
    t.join(children)
    for changer in changers.values():
        changer.verify()
    again = t.mount(source, options)
    for name in os.listdir(source):
        equal(read_file(again.path(name)), read_file(os.path.join(source, name)), name + " through a new mount")
    again.unmount()
    t.mounts.clear()
    return {name: changer.acknowledged() for name, changer in changers.items()}


@test(timeout=60 + 10 * ROUNDS)
def killed_again_and_again(t):
    """kill -9 under writes, appends, mapped stores, truncation, allocation and copies: what was
    acknowledged is in the source; after a lazy unmount a new mount has it all, and audits clean.

    Invariant 1: whatever happens to the daemon, the source holds everything.
    """
    source = t.make_dir("source")
    rounds = ROUNDS or (3 if t.suite == "full" else 1)
    acknowledged = collections.Counter()
    for _ in range(rounds):
        for name, count in one_round(t, source).items():
            acknowledged[KINDS[name]] += count
    record_result(t, rounds=rounds, acknowledged=acknowledged)
    return "%d rounds" % rounds if ROUNDS else None
