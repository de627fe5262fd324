# SPDX-License-Identifier: Apache-2.0
"""Power failures, clients that die or stop, connections that end: nothing that was promised is lost."""

import errno
import mmap
import os
import shutil
import struct

from faulty import FaultySource
from harness import MIB, PAGE, check, equal, fallocate, make_pages, read_file, test, until, write_file

BUDGETS = {"window": [], "direct": ["window=0"]}
# What a client gets whose daemon has gone; the last one for requests on their way by io_uring.
GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ECANCELED)


# ---- power failures ------------------------------------------------------------------------------

class Flushed:
    """A file that is written through the mount, and what a power failure would leave of it."""

    def __init__(self, t, mount, source, name, flags=0):
        self.t = t
        self.name = name
        self.platter = os.path.join(source.durable, name)
        self.path = mount.path(name)
        write_file(self.path, bytes(40 * PAGE))
        sync_directory(mount.point)
        self.fd = os.open(self.path, os.O_RDWR | flags)
        os.fsync(self.fd)
        self.content = bytearray(40 * PAGE)
        equal(read_file(self.platter), bytes(self.content), "%s: flushed at the start" % name)

    def write(self, how=os.pwrite, length=10000, unflushed=True):
        """Write some bytes; UNFLUSHED: they must not be durable yet, or the test would show nothing."""
        at = self.t.rng.randrange(30 * PAGE)
        part = self.t.rng.randbytes(length)
        how(self.fd, part, at)
        self.content[at:at + length] = part
        if unflushed:
            check(read_file(self.platter) != self.content, "%s: durable without a flush" % self.name)

    def is_durable(self, what):
        equal(read_file(self.platter), bytes(self.content), "%s: what %s made durable" % (self.name, what))

    def close(self):
        os.close(self.fd)


def sync_directory(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_with(flag):
    return lambda fd, part, at: os.pwritev(fd, [part], at, flag)


@test(transports="full", variants=BUDGETS)
def flushed_survives_power_loss(t, options):
    """What fsync, fdatasync, msync, O_SYNC, O_DSYNC, RWF_SYNC and RWF_DSYNC promised is there after a
    power failure: foldfs passes on every flush, in time.

    The source loses everything that was not flushed, and nothing else (tests/mount/platter.h).
    """
    source = FaultySource(t, platter=True)
    mount = t.mount(source.point, options)
    for name, flush in (("fsync", os.fsync), ("fdatasync", os.fdatasync)):
        file = Flushed(t, mount, source, name)
        file.write()
        file.write(length=200000)
        flush(file.fd)
        file.is_durable(name)
        file.close()
    for name, flag in (("O_DSYNC", os.O_DSYNC), ("O_SYNC", os.O_SYNC)):
        file = Flushed(t, mount, source, name, flag)
        file.write(unflushed=False)
        file.is_durable("a write with " + name)
        file.write(length=200000, unflushed=False)
        file.is_durable("a large write with " + name)
        file.close()
    for name, flag in (("RWF_DSYNC", os.RWF_DSYNC), ("RWF_SYNC", os.RWF_SYNC)):
        file = Flushed(t, mount, source, name)
        file.write()
        os.fsync(file.fd)
        file.write(write_with(flag), unflushed=False)
        file.is_durable("a write with " + name)
        file.close()
    for name, flag in (("O_APPEND", os.O_APPEND | os.O_DSYNC),):
        file = Flushed(t, mount, source, name, flag)
        os.write(file.fd, b"appended" * 1000)
        file.content += b"appended" * 1000
        file.is_durable("appending with O_DSYNC")
        file.close()


@test(suite="full", transports="full", variants=BUDGETS)
def mapped_and_direct_survive_power_loss(t, options):
    """The same for stores through a mapping, for O_DIRECT, and for changes that are no writes; and a flush
    through one descriptor is one of what all have written."""
    source = FaultySource(t, platter=True)
    mount = t.mount(source.point, options)
    file = Flushed(t, mount, source, "mapped")
    for name, flush in (("msync", lambda mapped: mapped.flush()), ("fsync", lambda _: os.fsync(file.fd))):
        with mmap.mmap(file.fd, 40 * PAGE) as mapped:
            for page in (3, 4, 39):
                mapped[page * PAGE + 5:page * PAGE + 5 + len(name)] = name.encode()
                file.content[page * PAGE + 5:page * PAGE + 5 + len(name)] = name.encode()
            check(read_file(file.platter) != file.content, "mapped stores are durable without a flush")
            flush(mapped)
            file.is_durable(name)
    file.close()

    file = Flushed(t, mount, source, "direct", os.O_DIRECT)
    memory = mmap.mmap(-1, 8 * PAGE)
    for flag in (os.RWF_DSYNC, os.RWF_SYNC):
        memory[:] = t.rng.randbytes(8 * PAGE)
        os.pwritev(file.fd, [memory], 16 * PAGE, flag)
        file.content[16 * PAGE:24 * PAGE] = memory[:]
        file.is_durable("a direct write with flag %d" % flag)
    file.close()

    file = Flushed(t, mount, source, "changed")
    os.ftruncate(file.fd, 35 * PAGE + 7)
    del file.content[35 * PAGE + 7:]
    fallocate(file.fd, 0, 36 * PAGE, PAGE)
    file.content += bytes(37 * PAGE - len(file.content))
    file.write()
    os.fsync(file.fd)
    file.is_durable("fsync after truncation and allocation")
    file.write()
    other = os.open(file.path, os.O_RDONLY)
    os.fdatasync(other)
    os.close(other)
    file.is_durable("fdatasync through another descriptor")
    file.close()


@test(transports="full")
def names_survive_power_loss(t):
    """Names that were flushed with fsync of their directory are there after a power failure: made, linked,
    renamed, replaced, removed; and not before."""
    source = FaultySource(t, platter=True)
    mount = t.mount(source.point)

    def flush_then(names, what):
        check(sorted(os.listdir(source.durable)) != names, "%s: durable without a flush" % what)
        sync_directory(mount.point)
        equal(sorted(os.listdir(source.durable)), names, what)

    with open(mount.path("first"), "wb") as file:
        file.write(b"first content")
        file.flush()
        os.fsync(file.fileno())
    flush_then(["first"], "made")
    equal(read_file(os.path.join(source.durable, "first")), b"first content", "flushed before its name")
    os.link(mount.path("first"), mount.path("linked"))
    flush_then(["first", "linked"], "linked")
    os.mkdir(mount.path("sub"))
    flush_then(["first", "linked", "sub"], "a directory")
    with open(mount.path("new"), "wb") as file:
        file.write(b"new content")
        file.flush()
        os.fsync(file.fileno())
    os.rename(mount.path("new"), mount.path("first"))
    equal(read_file(os.path.join(source.durable, "first")), b"first content", "before the replacement is flushed")
    sync_directory(mount.point)
    equal(read_file(os.path.join(source.durable, "first")), b"new content", "replaced")
    equal(read_file(os.path.join(source.durable, "linked")), b"first content", "its other name")
    os.unlink(mount.path("linked"))
    flush_then(["first", "sub"], "removed")
    os.rename(mount.path("first"), mount.path("sub", "moved"))
    sync_directory(mount.path("sub"))
    sync_directory(mount.point)
    equal(os.listdir(source.durable), ["sub"], "moved away")
    equal(read_file(os.path.join(source.durable, "sub", "moved")), b"new content", "moved")


def flush_for_ever(path, log, flush):
    """Write records, one after the other; note in shared memory what was flushed, after it was."""
    fd = os.open(path, os.O_RDWR)
    try:
        for sequence in range(1, 1 << 30):
            content = struct.pack("<Q", sequence) * 512
            os.pwrite(fd, content, sequence % 16 * PAGE)
            flush(fd)
            struct.pack_into("<Q", log, 0, sequence)
    except OSError as error:
        check(error.errno in GONE, "errno of a write or a flush: %s" % error)


@test(transports="full", timeout=60)
def power_fails_under_load(t):
    """The power fails, and the daemon with it, while four writers flush: every record that was flushed
    before is there, by whatever way."""
    source = FaultySource(t, platter=True)
    mount = t.mount(source.point, ["pool=1M", "window=256K"])
    names = ["a", "b", "c", "d"]
    for name in names:
        write_file(mount.path(name), bytes(16 * PAGE))
    sync_directory(mount.point)
    logs = [mmap.mmap(-1, PAGE) for _ in names]
    flushes = [os.fsync, os.fdatasync, os.fsync, os.fdatasync]
    writers = [t.fork(flush_for_ever, mount.path(name), log, flush)
               for name, log, flush in zip(names, logs, flushes)]
    until(lambda: all(struct.unpack_from("<Q", log)[0] >= t.rng.randrange(20, 80) for log in logs), 30,
          "every writer has flushed some")
    flushed = [struct.unpack_from("<Q", log)[0] for log in logs]
    left = [read_file(os.path.join(source.durable, name)) for name in names]
    mount.kill()
    t.join(writers)
    for name, before, content in zip(names, flushed, left):
        for sequence in range(max(1, before - 15), before + 1):
            at = sequence % 16 * PAGE
            found, = struct.unpack_from("<Q", content, at)
            check(found >= sequence, "%s: record %d was flushed, what is left is %d" % (name, sequence, found))
            # A page that was just being written again may be torn; flushed ones are not.
            check(found > before or content[at:at + PAGE] == struct.pack("<Q", found) * 512,
                  "%s: record %d is not whole" % (name, sequence))


@test(suite="full", transports="full", timeout=60)
def power_fails_on_ext4(t):
    """A real disk: what was flushed through the mount is found by ext4's recovery in an image taken at that
    moment; what was not, is not, so the flush is what has brought it there."""
    source = t.loop_file_system("ext4", 32 * MIB)
    mount = t.mount(source)
    old, new = make_pages(t.rng, 10), make_pages(t.rng, 10)
    for name in ("flushed", "unflushed"):
        write_file(mount.path(name), old)
    t.run(["sync", "-f", source])
    files = {name: os.open(mount.path(name), os.O_RDWR) for name in ("flushed", "unflushed")}
    for fd in files.values():
        os.pwrite(fd, new, 0)
    os.fsync(files["flushed"])
    shutil.copyfile(t.path("loop.img"), t.path("left.img"))
    left = t.make_dir("left")
    t.run(["mount", "-o", "loop", t.path("left.img"), left])
    t.at_end(lambda: t.run(["umount", left]))
    equal(read_file(left + "/flushed"), new, "flushed, after recovery")
    equal(read_file(left + "/unflushed"), old, "not flushed, after recovery")
    for fd in files.values():
        os.close(fd)
    mount.unmount()
