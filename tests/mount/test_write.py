# SPDX-License-Identifier: Apache-2.0
"""Writing: acknowledged means in the source; every way of changing a file against a model."""

import errno
import fcntl
import mmap
import os
import random
import signal
import struct
import threading
import time

from counting import cached_bytes
from harness import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, GONE, MIB, PAGE, check, equal, fallocate, make_pages,
                     read_file, sync_source, test, until, write_file)

BUDGETS = {
    "default": [],
    "direct": ["window=0"],
    "small-window": ["window=256K"],
    "tiny-pool": ["pool=1M", "window=256K"],
}

GIB, TIB = 1 << 30, 1 << 40
LIMIT = 3 * MIB
RWF_APPEND = 16
CLOCK_REALTIME_COARSE = 5  # the one that files' times are taken from


class Exerciser:
    """Random operations on one file through the mount, each also on a model in memory."""

    def __init__(self, t, path, source):
        self.rng = t.rng
        self.path = path
        self.source = source
        self.model = bytearray(read_file(source))
        self.fd = os.open(path, os.O_RDWR)
        self.history = []

    def close(self):
        os.close(self.fd)

    def _range(self, limit):
        offset = self.rng.randrange(limit)
        if self.rng.randrange(2):
            offset = offset // PAGE * PAGE
        return offset, self.rng.choice((1, 100, PAGE, PAGE + 1, 40000, 300000))

    def _put(self, offset, part):
        if offset > len(self.model):
            self.model += bytes(offset - len(self.model))
        self.model[offset:offset + len(part)] = part

    def write(self):
        offset, length = self._range(LIMIT)
        part = self.rng.randbytes(length) if self.rng.randrange(4) else bytes(length)
        os.pwrite(self.fd, part, offset)
        self._put(offset, part)
        return "write %d at %d" % (length, offset)

    def read(self):
        offset, length = self._range(LIMIT)
        equal(os.pread(self.fd, length, offset), bytes(self.model[offset:offset + length]),
              "read of %d at %d" % (length, offset))
        return "read"

    def truncate(self):
        size = self.rng.choice((0, self.rng.randrange(LIMIT), self.rng.randrange(LIMIT) // PAGE * PAGE))
        if self.rng.randrange(2):
            os.ftruncate(self.fd, size)
        else:
            os.truncate(self.path, size)
        del self.model[size:]
        self.model += bytes(size - len(self.model))
        return "truncate to %d" % size

    def mapped_store(self):
        if not self.model:
            return "nothing to map"
        with mmap.mmap(self.fd, len(self.model)) as mapped:
            offset = self.rng.randrange(len(self.model))
            part = self.rng.randbytes(self.rng.randrange(1, 20000))[:len(self.model) - offset]
            mapped[offset:offset + len(part)] = part
            self._put(offset, part)
            if self.rng.randrange(2):
                mapped.flush()
        return "mapped store of %d at %d" % (len(part), offset)

    def mapped_read(self):
        if self.model:
            with mmap.mmap(self.fd, len(self.model), prot=mmap.PROT_READ) as mapped:
                offset, length = self._range(len(self.model))
                equal(mapped[offset:offset + length], bytes(self.model[offset:offset + length]),
                      "mapped read of %d at %d" % (length, offset))
        return "mapped read"

    def punch(self):
        offset, length = self._range(LIMIT)
        fallocate(self.fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, length)
        end = min(offset + length, len(self.model))
        self.model[offset:end] = bytes(max(0, end - offset))
        return "punch %d at %d" % (length, offset)

    def zero(self):
        offset, length = self._range(LIMIT)
        fallocate(self.fd, FALLOC_ZERO_RANGE, offset, length)
        self._put(offset, bytes(length))
        return "zero %d at %d" % (length, offset)

    def reopen(self):
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR)
        return "reopen"

    def sync(self):
        os.fsync(self.fd)
        equal(read_file(self.source), bytes(self.model), "the source after fsync")
        return "fsync"

    def copy_range(self):
        offset, length = self._range(LIMIT)
        target = self.rng.randrange(LIMIT)
        part = bytes(self.model[offset:offset + length])
        if not part or abs(target - offset) < length:
            return "nothing to copy"
        done = os.copy_file_range(self.fd, self.fd, len(part), offset, target)
        self._put(target, part[:done])
        return "copy %d from %d to %d" % (done, offset, target)

    def step(self):
        action = self.rng.choice((self.write, self.write, self.write, self.read, self.read, self.read,
                                  self.truncate, self.mapped_store, self.mapped_read, self.punch,
                                  self.zero, self.reopen, self.sync, self.copy_range))
        try:
            self.history.append(action())
            equal(os.fstat(self.fd).st_size, len(self.model), "size after " + self.history[-1])
        except Exception as error:
            raise type(error)(*error.args[:-1], "%s; before it: %s" % (
                error.args[-1] if error.args else "", "; ".join(self.history[-12:])))


@test(timeout=60, transports="each", variants=BUDGETS)
def random_changes_against_a_model(t, options):
    """Hundreds of random operations of every kind on one file; the mount reads as the model at all times,
    the source holds the model after each fsync.

    Invariant 1: nothing is ever only in the pool. Invariant 2: every operation that changes content.
    """
    source = t.make_dir("source")
    write_file(source + "/file", make_pages(t.rng, 200, distinct=40))
    write_file(source + "/clone", read_file(source + "/file"))
    clone = read_file(source + "/clone")
    mount = t.mount(source, options)
    equal(read_file(mount.path("clone")), clone, "the clone")
    exerciser = Exerciser(t, mount.path("file"), source + "/file")
    for _ in range((1200 if t.suite == "full" else 300) // t.scaled(1, 3)):
        exerciser.step()
    exerciser.sync()
    exerciser.close()
    equal(read_file(mount.path("file")), bytes(exerciser.model), "the file at the end")
    equal(read_file(mount.path("clone")), clone, "the clone at the end")
    mount.unmount()
    equal(read_file(source + "/file"), bytes(exerciser.model), "the source at the end")


@test(transports="each", variants={"window": [], "direct": ["window=0"]})
def acknowledged_is_in_the_source(t, options):
    """Invariant 1: when write(2) has returned, a plain read of the source file sees the bytes; so with
    pwritev, O_APPEND, O_SYNC, O_DIRECT, msync and munmap with fsync."""
    source = t.make_dir("source")
    model = bytearray(make_pages(t.rng, 100))
    write_file(source + "/file", model)
    mount = t.mount(source, options)
    behind = os.open(source + "/file", os.O_RDONLY)

    def same(what):
        equal(os.pread(behind, len(model) + 1, 0), bytes(model), "the source after " + what)

    for flags, name in ((0, "write"), (os.O_SYNC, "O_SYNC write"), (os.O_DSYNC, "O_DSYNC write")):
        fd = os.open(mount.path("file"), os.O_RDWR | flags)
        for _ in range(20):
            at = t.rng.randrange(len(model) - 20000)
            part = t.rng.randbytes(t.rng.randrange(1, 20000))
            os.pwrite(fd, part, at)
            model[at:at + len(part)] = part
            same(name)
        os.pwritev(fd, [b"x" * 5000, b"y" * 3000], 12345)
        model[12345:20345] = b"x" * 5000 + b"y" * 3000
        same("pwritev")
        os.close(fd)
    fd = os.open(mount.path("file"), os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"more")
    model += b"more"
    same("O_APPEND write")
    os.close(fd)
    with open(mount.path("file"), "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[5:10] = model[5:10] = b"12345"
        mapped.flush()
        same("msync")
        mapped[PAGE:PAGE + 3] = model[PAGE:PAGE + 3] = b"abc"
        os.fsync(file.fileno())
        same("mapped store and fsync")
    os.close(behind)


@test(transports="full")
def direct_and_mapped_on_one_descriptor(t):
    """A client's O_DIRECT descriptor takes aligned writes, and its mapping's write-back, which comes
    unaligned at the end of the file, does not fail."""
    source = t.make_dir("source")
    model = bytearray(make_pages(t.rng, 20) + t.rng.randbytes(77))
    write_file(source + "/file", model)
    mount = t.mount(source)
    fd = os.open(mount.path("file"), os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, 4 * PAGE)
    buffer[:] = t.rng.randbytes(4 * PAGE)
    equal(os.pwritev(fd, [buffer], 2 * PAGE), 4 * PAGE, "O_DIRECT write")
    model[2 * PAGE:6 * PAGE] = buffer[:]
    with mmap.mmap(fd, len(model)) as mapped:
        mapped[len(model) - 5:] = b"tail!"
        mapped[0:4] = b"head"
        mapped.flush()
    model[-5:], model[0:4] = b"tail!", b"head"
    os.fsync(fd)
    os.close(fd)
    equal(read_file(mount.path("file")), bytes(model), "the mount")
    equal(read_file(source + "/file"), bytes(model), "the source")


@test(transports="full")
def write_only_descriptor(t):
    """Partial pages can be written by a descriptor that may not read."""
    source = t.make_dir("source")
    model = bytearray(make_pages(t.rng, 20))
    write_file(source + "/file", model)
    mount = t.mount(source)
    fd = os.open(mount.path("file"), os.O_WRONLY)
    os.pwrite(fd, b"part", 5 * PAGE + 10)
    os.close(fd)
    model[5 * PAGE + 10:5 * PAGE + 14] = b"part"
    equal(read_file(mount.path("file")), bytes(model), "the mount")
    equal(read_file(source + "/file"), bytes(model), "the source")


def appender(path, flags, number, count):
    """By descriptors with these flags; without O_APPEND each write asks for it by RWF_APPEND."""
    fd = os.open(path, os.O_WRONLY | flags)
    each = 0 if flags & os.O_APPEND else RWF_APPEND
    for record in range(count):
        equal(os.pwritev(fd, [struct.pack("<II", number, record) * 12], 0, each), 96, "appended bytes")
    os.close(fd)


APPENDERS = {
    "window": ([], os.O_APPEND),
    "direct": (["window=0"], os.O_APPEND),
    "own": (["passthrough=*"], os.O_APPEND),
}

OTHER_APPENDERS = {
    "rwf": ([], 0),
    "rwf-direct": (["window=0"], 0),
    "rwf-own": (["passthrough=*"], 0),
    "o-direct": (["passthrough_max=0"], os.O_APPEND | os.O_DIRECT),
    "o-direct-direct": (["window=0", "passthrough_max=0"], os.O_APPEND | os.O_DIRECT),
}


@test(transports="each", timeout=40, variants=APPENDERS)
def appending_at_once(t, how):
    """Four processes append records by O_APPEND: none is lost, torn or out of its writer's order."""
    append_at_once(t, *how)


@test(transports="full", timeout=40, variants=OTHER_APPENDERS)
def appending_otherwise(t, how):
    """So it is by RWF_APPEND, and by O_APPEND with O_DIRECT."""
    append_at_once(t, *how)


def append_at_once(t, options, flags):
    source = t.make_dir("source")
    write_file(source + "/log", b"")
    mount = t.mount(source, options)
    count = t.scaled(500, 100)
    t.join([t.fork(appender, mount.path("log"), flags, number, count) for number in range(4)])
    for where in (mount.path("log"), source + "/log"):
        content = read_file(where)
        equal(len(content), 4 * count * 96, "size of the log at " + where)
        following = [0] * 4
        for at in range(0, len(content), 96):
            number, record = struct.unpack_from("<II", content, at)
            equal(content[at:at + 96], struct.pack("<II", number, record) * 12, "record at %d" % at)
            equal(record, following[number], "order of writer %d" % number)
            following[number] += 1


CELL = 16


def cell_writer(path, flags, owner, owned, seed, rounds):
    """Every second cell of each page is this writer's; what they hold at the end goes to OWNED, shared memory."""
    rng = random.Random(seed)
    fd = os.open(path, os.O_RDWR | flags)
    for _ in range(rounds):
        at = (2 * rng.randrange(len(owned) // CELL // 2) + owner) * CELL
        part = rng.randbytes(CELL)
        equal(os.pwrite(fd, part, at), CELL, "bytes of a cell written")
        owned[at:at + CELL] = part
    os.close(fd)


CELL_WRITERS = {
    # In passthrough O_DIRECT is the source's own, which takes no cells.
    "window": (["passthrough_max=0"], (0, 0)),
    "direct": (["window=0", "passthrough_max=0"], (0, 0)),
    "o-direct": (["passthrough_max=0"], (os.O_DIRECT, os.O_DIRECT)),
    "mixed": (["passthrough_max=0"], (0, os.O_DIRECT)),
    "own": (["passthrough=*"], (0, 0)),
}


@test(transports="full", timeout=40, variants=CELL_WRITERS)
def different_bytes_of_one_page(t, how):
    """Two processes write different bytes of the same few pages, which another file shares: nothing is lost, in
    the source and by every way of reading; the other file keeps its pages."""
    options, flags = how
    source, pages = t.make_dir("source"), 3
    base = make_pages(t.rng, pages)
    for name in ("file", "clone"):
        write_file(source + "/" + name, base)
    mount = t.mount(source, options)
    for name in ("file", "clone"):
        equal(read_file(mount.path(name)), base, name)
    owned = [mmap.mmap(-1, pages * PAGE) for _ in flags]
    for cells in owned:
        cells[:] = base
    t.join([t.fork(cell_writer, mount.path("file"), flags[owner], owner, owned[owner], t.rng.random(),
                   t.scaled(1500, 300)) for owner in range(2)])
    expected = b"".join(owned[at // CELL % 2][at:at + CELL] for at in range(0, len(base), CELL))
    check(all(cells[:] != base for cells in owned), "a writer wrote nothing")
    equal(read_file(source + "/file"), expected, "the source")
    # What the kernel caches of the other file would hide what became of its pages.
    for name, content in (("file", expected), ("clone", base)):
        fd = os.open(mount.path(name), os.O_RDONLY | os.O_DIRECT)
        with mmap.mmap(-1, len(base)) as direct:
            equal(os.preadv(fd, [direct], 0), len(base), "bytes read by O_DIRECT")
            equal(direct[:], content, name + " by O_DIRECT")
        os.close(fd)
    # A page that was dropped and read beside a write shows old bytes for a moment (docs/content-changes.md).
    until(lambda: read_file(mount.path("file")) == expected, 10 * t.patience, "the mount shows both writers' bytes")
    equal(read_file(mount.path("clone")), base, "the file that shared the pages")


def record_writer(path, log, owner, seed):
    """Writes for ever; notes in shared memory what was acknowledged, after it was."""
    rng = random.Random(seed)
    fd = os.open(path, os.O_RDWR)
    pages = len(log) // 16
    mapped = mmap.mmap(fd, pages * PAGE)
    for sequence in range(1, 1 << 30):
        page = rng.randrange(pages)
        struct.pack_into("<Q", log, page * 16, sequence)
        content = struct.pack("<Q", owner << 56 | page << 32 | sequence) * (PAGE // 8)
        try:
            if rng.randrange(5):
                os.pwrite(fd, content, page * PAGE)
            else:
                mapped[page * PAGE:(page + 1) * PAGE] = content
                mapped.flush(page * PAGE, PAGE)
        except OSError as error:
            check(error.errno in GONE, "errno of a write: %s" % error)
            return
        struct.pack_into("<Q", log, page * 16 + 8, sequence)


@test(timeout=60, transports="each", variants={"window": [], "direct": ["window=0"], "tiny-pool": ["pool=1M", "window=256K"]})
def killed_at_any_moment(t, options):
    """kill -9 under load: whatever was acknowledged, by write or msync, is in the source; after a lazy
    unmount a new mount serves everything right.

    Invariant 1: whatever happens to the daemon, the source holds everything.
    """
    source = t.make_dir("source")
    pages = 256
    base = bytes(pages * PAGE)
    for name in "ab":
        write_file(source + "/" + name, base)
    for round_ in range(3 if t.suite == "full" else 1):
        for name in "ab":
            write_file(source + "/" + name, base)
        mount = t.mount(source, options)
        logs = [mmap.mmap(-1, pages * 16) for _ in "ab"]
        # A mapped page that has to be read when nobody answers any more is a SIGBUS.
        writers = [t.fork(record_writer, mount.path(name), logs[owner], owner + 1, t.rng.random(),
                          may_die_of=signal.SIGBUS)
                   for owner, name in enumerate("ab")]
        time.sleep(t.rng.uniform(0.3, 1.5))
        mount.kill()
        t.join(writers)
        contents = []
        for owner, name in enumerate("ab"):
            content = read_file(source + "/" + name)
            contents.append(content)
            equal(len(content), len(base), "size of %s" % name)
            for page in range(pages):
                begun, done = struct.unpack_from("<QQ", logs[owner], page * 16)
                for (word,) in struct.iter_unpack("<Q", content[page * PAGE:(page + 1) * PAGE]):
                    check(done <= word & 0xffffffff <= begun, "page %d of %s holds write %d; %d was "
                          "acknowledged, %d begun" % (page, name, word & 0xffffffff, done, begun))
                    check(word == 0 or word >> 32 == (owner + 1) << 24 | page, "page %d of %s: %#x" % (
                        page, name, word))
        again = t.mount(source, options)
        for name, content in zip("ab", contents):
            equal(read_file(again.path(name)), content, "%s through the new mount" % name)
        again.unmount()


@test(transports="full")
def truncation_clears_the_tail(t):
    """Truncate down in the middle of a page and up again: zeroes, by read and by mmap, also when the page
    was mapped and written beyond the end."""
    source = t.make_dir("source")
    write_file(source + "/file", b"\xff" * (10 * PAGE))
    mount = t.mount(source)
    fd = os.open(mount.path("file"), os.O_RDWR)
    equal(os.pread(fd, 10 * PAGE, 0), b"\xff" * (10 * PAGE), "before")
    os.ftruncate(fd, 5 * PAGE + 10)
    with mmap.mmap(fd, 5 * PAGE + 10) as mapped:
        view = memoryview(mapped)
        equal(bytes(view[5 * PAGE:]), b"\xff" * 10, "the last page, mapped")
        view.release()
    os.ftruncate(fd, 8 * PAGE)
    expected = b"\xff" * (5 * PAGE + 10) + bytes(3 * PAGE - 10)
    equal(os.pread(fd, 10 * PAGE, 0), expected, "after truncating down and up")
    with mmap.mmap(fd, 8 * PAGE, prot=mmap.PROT_READ) as mapped:
        equal(mapped[:], expected, "mapped")
    os.close(fd)
    equal(read_file(source + "/file"), expected, "the source")


@test(transports="full")
def seek_data_and_hole(t):
    """lseek SEEK_DATA and SEEK_HOLE answer as the source does, errors included."""
    source = t.make_dir("source")
    with open(source + "/file", "wb") as file:
        file.truncate(4 * MIB)
        for at in (0, MIB, MIB + 5 * PAGE, 3 * MIB):
            os.pwrite(file.fileno(), b"data", at)
        os.fsync(file.fileno())
    mount = t.mount(source)

    def walk(path):
        fd = os.open(path, os.O_RDONLY)
        found = []
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            for at in list(range(0, 4 * MIB, 300 * 1024)) + [4 * MIB - 1, 4 * MIB, 5 * MIB]:
                try:
                    found.append(os.lseek(fd, at, whence))
                except OSError as error:
                    found.append(-error.errno)
        os.close(fd)
        return found

    equal(walk(mount.path("file")), walk(source + "/file"), "places of data and holes")


@test(transports="full", variants={"window": [], "direct": ["window=0"]})
def file_of_8_tib(t, options):
    """A sparse file of 8 TiB, in whose far parts pages are written, stored, copied, punched and cut off: the source
    has them where they belong, they are shared with a small file, and the map of the rest takes no memory."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 10)
    size = 8 * TIB + 123
    write_file(source + "/twin", content)
    mount = t.mount(source, options)
    equal(read_file(mount.path("twin")), content, "the file that shares its pages")
    fd = os.open(mount.path("file"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        check(error.errno == errno.EFBIG, "errno %d" % error.errno)
        t.skip("the file system of %s has no files of 8 TiB" % source)
    places = {at: content for at in (4 * GIB - 3 * PAGE, TIB - 5 * PAGE, 8 * TIB - 10 * PAGE)}

    def check_all(what):
        for path in (mount.path("file"), source + "/file"):
            with open(path, "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                for at, part in places.items():
                    found = os.pread(file.fileno(), len(part) + 2 * PAGE, at - PAGE)
                    end = max(0, min(PAGE, os.fstat(fd).st_size - at - len(part)))
                    equal(found, bytes(PAGE) + part + bytes(end), "%s: at %d in %s" % (what, at, path))

    for at, part in places.items():
        equal(os.pwrite(fd, part, at), len(part), "bytes written")
    check_all("written")
    with mmap.mmap(fd, 10 * PAGE, offset=8 * TIB - 10 * PAGE) as mapped:
        mapped[3 * PAGE:3 * PAGE + 6] = b"stored"
        mapped.flush()
    places[8 * TIB - 10 * PAGE] = content[:3 * PAGE] + b"stored" + content[3 * PAGE + 6:]
    with open(mount.path("twin"), "rb", buffering=0) as twin:
        equal(os.copy_file_range(twin.fileno(), fd, 10 * PAGE, 0, 5 * TIB), 10 * PAGE, "bytes copied")
    places[5 * TIB] = content
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, TIB - 2 * PAGE, 4 * PAGE)
    places[TIB - 5 * PAGE] = content[:3 * PAGE] + bytes(4 * PAGE) + content[7 * PAGE:]
    check_all("stored, copied and punched")
    equal(os.lseek(fd, 2 * TIB, os.SEEK_DATA), 5 * TIB, "the next data")
    # All but the page that was stored to and the four that were punched; shared after they were answered.
    until(lambda: mount.status()["pages_sharing"] == 4 * 10 - 1 - 4, 10 * t.patience,
          lambda: "35 pages are shared, not %d" % mount.status()["pages_sharing"])
    maps = mount.status()["memory"]["maps_bytes"]
    check(maps < MIB, "memory of maps: %d bytes" % maps)
    os.ftruncate(fd, 5 * TIB + 3 * PAGE + 9)
    os.ftruncate(fd, size)
    places[5 * TIB] = content[:3 * PAGE + 9] + bytes(7 * PAGE - 9)
    places[8 * TIB - 10 * PAGE] = bytes(10 * PAGE)
    check_all("cut and extended")
    os.close(fd)
    equal(os.stat(mount.path("file")).st_size, size, "the size")


@test(transports="full")
def copying_with_copy_file_range(t):
    """copy_file_range between files of the mount, and from the mount to elsewhere, copies right."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 300) + b"end"
    write_file(source + "/from", content)
    mount = t.mount(source)
    for target in (mount.path("to"), mount.path("to")):
        with open(mount.path("from"), "rb") as read, open(target, "w+b") as write:
            done = 0
            while done < len(content):
                part = os.copy_file_range(read.fileno(), write.fileno(), len(content) - done)
                check(part > 0, "copied nothing at %d" % done)
                done += part
        equal(read_file(target), content, "the copy")
    equal(read_file(source + "/to"), content, "the copy in the source")


@test(transports="full")
def times_and_sizes_follow(t):
    """Size, mtime and ctime through the mount are the source's after writes, mapped writes and truncates."""
    source = t.make_dir("source")
    write_file(source + "/file", bytes(10 * PAGE))
    mount = t.mount(source)
    path = mount.path("file")

    def same(what):
        mine, behind = os.stat(path), os.stat(source + "/file")
        for field in ("st_size", "st_mtime_ns", "st_ctime_ns", "st_blocks", "st_mode", "st_nlink"):
            equal(getattr(mine, field), getattr(behind, field), "%s after %s" % (field, what))
        check(mine.st_mtime > 1, "mtime did not move after " + what)
        check(mine.st_ctime_ns > aged.st_ctime_ns, "ctime did not move after " + what)

    def age():
        """A past mtime; the ctime of now, and a clock that has moved on since."""
        os.utime(path, (1, 1))
        before = os.stat(path)
        while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) <= before.st_ctime_ns:
            pass
        return before

    aged = age()
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b"x" * PAGE, 20 * PAGE)
    os.fsync(fd)
    same("write")
    aged = age()
    for way in ("msync", "fsync", "munmap and fsync"):
        with mmap.mmap(fd, PAGE) as mapped:
            mapped[0:1] = b"y"
            if way == "msync":
                mapped.flush()
            elif way == "fsync":
                os.fsync(fd)
            if way != "munmap and fsync":
                same("a mapped store and " + way)
        if way == "munmap and fsync":
            os.fsync(fd)
            same("a mapped store, " + way)
        aged = age()
    os.ftruncate(fd, 3)
    same("truncate")
    os.close(fd)


@test(transports="each", timeout=60, variants={"window": [], "direct": ["window=0"]})
def many_files_written_at_once(t, options):
    """Six processes write files of their own, unaligned and large, fsync and read back."""
    source = t.make_dir("source")
    mount = t.mount(source, options)

    def writer(number, seed):
        rng = random.Random(seed)
        content = bytearray()
        with open(mount.path("file%d" % number), "w+b", buffering=0) as file:
            while len(content) < t.scaled(12, 3) * MIB:
                part = rng.randbytes(rng.choice((1, 4096, 65537, MIB, 1234567)))
                file.write(part)
                content += part
            os.fsync(file.fileno())
        equal(read_file(mount.path("file%d" % number)), bytes(content), "file %d" % number)
        equal(read_file(source + "/file%d" % number), bytes(content), "file %d in the source" % number)

    t.join([t.fork(writer, number, t.rng.random()) for number in range(6)])


@test(transports="full")
def advisory_locks(t):
    """Advisory locks: flock, fcntl and open-file-description locks exclude each other across processes."""
    source = t.make_dir("source")
    write_file(source + "/file", bytes(100))
    mount = t.mount(source)

    def refused(take):
        fd = os.open(mount.path("file"), os.O_RDWR)
        try:
            take(fd)
        except OSError as error:
            check(error.errno in (errno.EAGAIN, errno.EACCES), "errno of a refused lock: %s" % error)
            return
        check(False, "a lock that is held was given a second time")

    holder = os.open(mount.path("file"), os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)
    t.join([t.fork(refused, lambda fd: fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB))])
    fcntl.flock(holder, fcntl.LOCK_UN)
    fcntl.lockf(holder, fcntl.LOCK_EX, 10, 20)
    t.join([t.fork(refused, lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 25))])

    def elsewhere():
        fd = os.open(mount.path("file"), os.O_RDWR)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 40)

    t.join([t.fork(elsewhere)])
    fcntl.lockf(holder, fcntl.LOCK_UN)
    t.join([t.fork(lambda: fcntl.lockf(os.open(mount.path("file"), os.O_RDWR),
                                       fcntl.LOCK_EX | fcntl.LOCK_NB))])
    os.close(holder)


@test(timeout=40, transports="full", variants={"window": [], "direct": ["window=0"]})
def mapped_beside_writes_from_memory_not_there_yet(t, options):
    """One thread maps a file again and again; another writes to it from memory that the kernel has to find first.
    Neither waits for the other for ever."""
    source = t.make_dir("source")
    write_file(source + "/file", bytes(4 * MIB))
    mount = t.mount(source, options)

    def both():
        fd = os.open(mount.path("file"), os.O_RDWR)
        done = threading.Event()

        def write():
            for _ in range(t.scaled(60, 15)):
                # In several requests: for each of them the memory is looked for when the one before is over.
                with mmap.mmap(-1, 4 * MIB) as fresh:
                    equal(os.pwrite(fd, fresh, 0), 4 * MIB, "bytes written")
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        while not done.is_set():
            # Opened anew: the first mapping of a descriptor is the one that waits.
            with open(mount.path("file"), "r+b") as file, mmap.mmap(file.fileno(), 4 * MIB) as view:
                equal(view[0], 0, "the first byte, mapped")
        writer.join()
        os.close(fd)

    t.join([t.fork(both)], seconds=20)


@test(transports="full")
def what_ends_at_the_mount(t):
    """What docs/posix.md says does not reach the source, and what does help: syncfs and fsync, O_DIRECT and own
    passthrough. Where a kernel does more, it is to say so there."""
    source = t.loop_file_system()
    for name in ("file", "asked"):
        write_file(source + "/" + name, bytes(16 * PAGE))
    sync_source(source)
    mount = t.mount(source, ["passthrough=asked"])

    def is_on_disk(marker):
        return marker in read_file(t.path("loop.img"))

    markers = [t.rng.randbytes(PAGE) for _ in range(2)]
    with open(mount.path("file"), "r+b", buffering=0) as file:
        file.write(markers[0])
        sync_source(mount.point)
        check(not is_on_disk(markers[0]), "syncfs of the mount does not flush the source")
        sync_source(source)
        check(is_on_disk(markers[0]), "syncfs of the source does")
        os.pwrite(file.fileno(), markers[1], PAGE)
        os.fsync(file.fileno())
        check(is_on_disk(markers[1]), "and so does fsync")
    block = mmap.mmap(-1, PAGE)
    for name, cached in (("file", PAGE), ("asked", 0)):
        fd = os.open(source + "/" + name, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        equal(cached_bytes(source + "/" + name), 0, name + ": cached before")
        fd = os.open(mount.path(name), os.O_RDWR | os.O_DIRECT)
        equal(os.pwritev(fd, [block], 8 * PAGE), PAGE, name)
        equal(cached_bytes(source + "/" + name), cached, name + ": bytes in the source's cache")
        os.close(fd)
