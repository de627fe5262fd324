# SPDX-License-Identifier: Apache-2.0
"""What the tests of content changes are made of: a file with a model, and company.

A Subject is one file that shares all its pages with others, open in every way at once. A Company is what
goes on around it meanwhile: processes that read the same pages in every way and have the kernel drop them
again, so that misses are always in flight, and others that read more than pool and window hold, so that
eviction and trimming never rest.
"""

import ctypes
import errno
import mmap
import os
import random
import struct

from harness import MIB, PAGE, check, equal, make_pages, read_file, write_file
from limits import Limit

LEAF = 64 * PAGE
PAGES = 150  # two leaves of a page map and a bit
TAIL = 100
NOISE = 3 * MIB
MADV_REMOVE, MADV_POPULATE_READ = 9, 22
# A company's mount: pool and window are far smaller than what is read.
TINY = ["pool=1M", "window=256K"]
TINY_DIRECT = ["pool=1M", "window=0"]


def address_of(buffer):
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class Subject:
    """A file of the mount and what it must hold. Open buffered, by O_DIRECT and mapped all the time."""

    def __init__(self, t, mount, source, number, base, in_company=False):
        self.t = t
        self.in_company = in_company
        self.rng = t.rng
        self.mount = mount
        self.source = source
        self.name = "subject%d" % number
        self.path = mount.path(self.name)
        self.behind = os.path.join(source, self.name)
        self.base = base
        self.model = bytearray(base)
        # Complete once it has its name: others look already.
        write_file(self.behind + ".making", base)
        os.rename(self.behind + ".making", self.behind)
        self.buffer = mmap.mmap(-1, 2 * MIB)
        self.fd = os.open(self.path, os.O_RDWR)
        self.direct = os.open(self.path, os.O_RDWR | os.O_DIRECT)
        self.mapped = mmap.mmap(self.fd, 0)
        self.scratch = os.open(t.path("scratch"), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.same("nothing yet")

    def close(self):
        self.mapped.close()
        for fd in (self.fd, self.direct, self.scratch):
            os.close(fd)

    def put(self, offset, part):
        """The model after PART was written at OFFSET."""
        if offset > len(self.model):
            self.model += bytes(offset - len(self.model))
        self.model[offset:offset + len(part)] = part

    def noise(self, length):
        return self.rng.randbytes(length)

    def aligned(self, part):
        """PART in memory that O_DIRECT takes anywhere."""
        self.buffer[:len(part)] = part
        return memoryview(self.buffer)[:len(part)]

    # -- reading in every way

    def by_sendfile(self, fd):
        os.ftruncate(self.scratch, 0)
        os.lseek(self.scratch, 0, os.SEEK_SET)
        done = 0
        while part := os.sendfile(self.scratch, fd, done, MIB):
            done += part
        return os.pread(self.scratch, done + 1, 0)

    def by_splice(self, fd):
        out, into = os.pipe()
        content = b""
        try:
            while part := os.splice(fd, into, 16 * PAGE, offset_src=len(content)):
                content += os.read(out, part)
        finally:
            os.close(out)
            os.close(into)
        return content

    def by_direct(self, fd):
        return self.buffer[:os.preadv(fd, [self.buffer], 0)]

    def by_map(self, fd):
        if not self.model:
            return b""
        with mmap.mmap(fd, len(self.model), prot=mmap.PROT_READ) as mapped:
            return mapped[:]

    def agree(self, read, expected, what, by_cache=True):
        """What read() gives is EXPECTED: at once. But BY_CACHE, in company and where there is a window, after a
        moment: there the kernel's page can be dropped and read again while it is being written (the one exception
        of docs/content-changes.md), and is dropped once more by the window's thread when that is over."""
        may_lag = by_cache and self.in_company and "window=0" not in self.mount.options
        limit = Limit(self.t.patience if may_lag else 0)
        while (found := read()) != expected and not limit.passed():
            pass
        equal(found, expected, what)

    def check_mapped(self, what):
        """The mapping that is there since the beginning, and zeroes behind the end of the file."""
        size = len(self.model)
        shown = min(len(self.mapped), (size + PAGE - 1) // PAGE * PAGE)
        expected = bytes(self.model[:shown])
        self.agree(lambda: self.mapped[:shown], expected + bytes(shown - len(expected)),
                   "the old mapping after " + what)

    def same(self, what, behind=True):
        """Everybody sees the model, however and through whichever descriptor they read."""
        expected = bytes(self.model)
        # First what may not lag: a slot that is wrong may be evicted, and right, a moment later.
        self.agree(lambda: self.by_direct(self.direct), expected, "a read by O_DIRECT after " + what, by_cache=False)
        self.check_mapped(what)
        equal(os.fstat(self.fd).st_size, len(expected), "the size after " + what)
        for read, way in ((lambda: os.pread(self.fd, 2 * MIB, 0), "a read"),
                          (lambda: self.by_sendfile(self.fd), "sendfile"),
                          (lambda: self.by_splice(self.direct), "splice"),
                          (lambda: self.by_map(self.fd), "a new mapping")):
            self.agree(read, expected, way + " after " + what)
        if behind:
            equal(read_file(self.behind), expected, "the source after " + what)

    def same_anew(self, what):
        """The same by a descriptor that was opened just now."""
        self.agree(lambda: read_file(self.path), bytes(self.model), "opened anew after " + what)
        self.same(what)


# ---- company -------------------------------------------------------------------------------------

GONE = (errno.ENOENT, errno.ESTALE, errno.EINVAL, errno.EFAULT)


def glance(fd, sink, rng):
    """Read something in some way, or have the kernel forget it."""
    first = rng.randrange(PAGES)
    pages = rng.choice((1, 1, 4, 40))
    way = rng.randrange(5)
    if way == 0:
        os.sendfile(sink, fd, first * PAGE, pages * PAGE)
    elif way == 1:
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapped:
            # Not by touching it: what is cut meanwhile would be a SIGBUS.
            mapped.madvise(MADV_POPULATE_READ)
    elif way == 2:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    else:
        os.pread(fd, pages * PAGE, first * PAGE)


def onlooker(mount, shared, seed):
    rng = random.Random(seed)
    sink = os.open("/dev/null", os.O_WRONLY)
    while not shared[0]:
        (number,) = struct.unpack_from("<I", shared, 4)
        try:
            fd = os.open(mount.path("subject%d" % number), os.O_RDONLY | rng.choice((0, 0, os.O_DIRECT)))
        except OSError as error:
            check(error.errno in GONE, "an open beside the changes: %s" % error)
            continue
        for _ in range(10):
            try:
                glance(fd, sink, rng)
            except ValueError:
                pass  # an empty file cannot be mapped
            except OSError as error:
                check(error.errno in GONE, "a read beside the changes: %s" % error)
        os.close(fd)


def reader_of_the_rest(mount, contents, shared, seed):
    """Files that nobody changes, more than pool and window hold: each byte is what it was."""
    rng = random.Random(seed)
    fds = {name: os.open(mount.path(name), os.O_RDONLY) for name in contents}
    while not shared[0]:
        name = rng.choice(sorted(contents))
        at, length = rng.randrange(len(contents[name])), rng.choice((1, PAGE, 30 * PAGE))
        equal(os.pread(fds[name], length, at), contents[name][at:at + length], "%s at %d" % (name, at))


class Company:
    """Four processes around the subjects of a mount; `with` ends them."""

    def __init__(self, t, mount, source, base):
        self.t = t
        contents = {"twin": base, "noise": make_pages(t.rng, NOISE // PAGE)}
        for name, content in contents.items():
            write_file(os.path.join(source, name), content)
        self.shared = mmap.mmap(-1, PAGE)
        self.before = mount.status()
        self.mount = mount
        self.children = [t.fork(onlooker, mount, self.shared, t.rng.random()) for _ in range(2)]
        self.children += [t.fork(reader_of_the_rest, mount, contents, self.shared, t.rng.random())
                          for _ in range(2)]

    def watch(self, number):
        """From now on all look at this subject."""
        struct.pack_into("<I", self.shared, 4, number)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.shared[0] = 1
        self.t.join(self.children)
        after = self.mount.status()
        if kind is None:
            for figure in ("evictions", "misses"):
                check(after[figure] > self.before[figure] + 100, "hardly any company: %s went from %d to %d" % (
                    figure, self.before[figure], after[figure]))
            trimmed = [status["window"]["trimmed_bytes"] for status in (self.before, after)]
            check(trimmed[1] > trimmed[0] or not after["window"]["budget_bytes"],
                  "nothing was trimmed: %d, then %d bytes" % tuple(trimmed))
