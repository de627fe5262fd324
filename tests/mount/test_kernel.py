# SPDX-License-Identifier: Apache-2.0
"""What the kernel makes of the ways in which a FUSE server may have a file opened: what src/plan/plan.c relies on.

By a server that opens each file as the test says (open_modes.c). Each test is a fact that was measured once;
on another kernel it may be another one, and then plan.c has to be looked at. foldfs itself never comes upon
those that fail: that is what test_opens.py and test_plan.py are for.
"""

import errno
import mmap
import os
import subprocess

from faulty import build
from counting import cached_bytes
from harness import (HERE, ROOT, PAGE, equal, errno_of, fails_with, make_pages, mounts_under, read_file, sync_source, test,
                     until, write_file)
from test_opens import READ, WRITE, Mapping

FILES = ("a", "b", "c", "d")


class Server:
    """Files of one content, opened as open() says."""

    def __init__(self, t, depth=0, how="plain", directory=None):
        self.t = t
        self.content = b"F" + make_pages(t.rng, 16)[1:]
        self.directory = directory or t.make_dir("files")
        for name in FILES:
            write_file(os.path.join(self.directory, name), self.content)
        self.control, self.point = t.path("control"), t.make_dir("open-modes")
        sources = os.path.join(HERE, "open_modes.c"), os.path.join(ROOT, "src", "passthrough.c")
        program = build("open_modes", *sources, flags=(
            "-I" + os.path.join(ROOT, "include"), "-DFUSE_USE_VERSION=318"))
        self.process = subprocess.Popen([program, self.directory, self.control, str(depth), how, self.point])
        t.at_end(self._end)
        until(lambda: mounts_under(self.point), 20 * t.patience, "mounted")

    def open(self, name, words, flags=os.O_RDONLY):
        write_file(self.control, words.encode())
        return os.open(os.path.join(self.point, name), flags)

    def opens(self, name, words, flags=os.O_RDONLY):
        """The errno of an open that is closed at once."""
        return errno_of(lambda: os.close(self.open(name, words, flags)))

    def first_byte(self, fd):
        """F where the kernel reads the file, S where the server was asked."""
        return os.pread(fd, 1, 0)

    def _end(self):
        self.t.run(["umount", self.point])
        equal(self.process.wait(20 * self.t.patience), 0, "status of the server")


@test(transports="none", suite="full")
def who_may_pass_through(t):
    """It takes CAP_SYS_ADMIN, and no write-back cache."""
    for how, code in (("plain", 0), ("powerless", errno.EPERM), ("writeback", errno.EPERM)):
        server = Server(t, how=how)
        equal(server.opens("a", "a"), code, how)
        equal(server.opens("a", ""), 0, how + ", cached")
        t.cleanups.pop()()


@test(transports="none", suite="full")
def depth_of_stacking(t):
    """libfuse adds 1. With 0 the source is no overlayfs, and overlayfs can be stacked on the mount; with 1
    the other way round; 2 switches passthrough off."""
    lower, upper, work, merged = (t.make_dir("below", part) for part in ("lower", "upper", "work", "merged"))
    options = "lowerdir=%s,upperdir=%s,workdir=%s"
    t.run(["mount", "-t", "overlay", "overlay", "-o", options % (lower, upper, work), merged])
    t.at_end(lambda: t.run(["umount", merged]))
    on = [t.make_dir("above", part) for part in ("upper", "work", "merged")]
    refused = 32  # mount(8)
    for depth, plain, stacked, above in ((0, 0, errno.ELOOP, 0), (1, 0, 0, refused),
                                         (2, errno.EPERM, errno.EPERM, 0)):
        for directory, code in ((None, plain), (merged, stacked)):
            server = Server(t, depth=depth, directory=directory)
            what = "depth %d, source on %s" % (depth, "overlayfs" if directory else "a plain file system")
            equal(server.opens("a", "a"), code, what)
            if not directory:
                layers = options % (server.point, on[0], on[1])
                done = t.run(["mount", "-t", "overlay", "overlay", "-o", layers, on[2]], status=None)
                equal(done.returncode, above, "overlayfs on it, " + what)
                if not done.returncode:
                    t.run(["umount", on[2]])
            t.cleanups.pop()()


@test(transports="none", suite="full")
def opens_that_do_not_fit(t):
    """EIO: passthrough with a cache that is kept; passthrough beside cached; another backing file."""
    server = Server(t)
    equal(server.opens("a", "a keep"), errno.EIO, "passthrough with a cache that is kept")
    for first, second, code in (("a", "", errno.EIO), ("a", "keep", errno.EIO), ("", "a", errno.EIO),
                                ("a", "b", errno.EIO), ("a", "a", 0), ("", "keep", 0), ("direct", "", 0),
                                ("", "direct", 0)):
        fd = server.open("a", first)
        equal(server.opens("a", second), code, "%r, then %r" % (first, second))
        os.close(fd)
        equal(server.opens("a", second), 0, "%r alone, after %r" % (second, first))


@test(transports="none", suite="full")
def one_backing_file_for_several(t):
    """Then it alone is in memory, for reads and mappings; and what one stores into it all have."""
    server = Server(t)
    sync_source(server.directory)
    for name in FILES:
        with open(os.path.join(server.directory, name), "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    fds = [server.open(name, "a", os.O_RDWR) for name in FILES]
    for fd in fds:
        equal(os.pread(fd, len(server.content), 0), server.content, "read")
        with mmap.mmap(fd, len(server.content), prot=mmap.PROT_READ) as mapped:
            equal(mapped[:], server.content, "mapped")
    cached = [cached_bytes(os.path.join(server.directory, name)) for name in FILES]
    equal(cached, [len(server.content)] + [0] * (len(FILES) - 1), "bytes of each file in memory")
    mapping = Mapping(fds[1], len(server.content), WRITE, mmap.MAP_SHARED)
    mapping.store(0, b"stored")
    equal([os.pread(fd, 6, 0) for fd in fds], [b"stored"] * len(FILES), "a store by one")
    equal(read_file(os.path.join(server.directory, "a"))[:6], b"stored", "in the backing file")
    equal(read_file(os.path.join(server.directory, "b")), server.content, "the file itself")
    mapping.close()
    for fd in fds:
        os.close(fd)


@test(transports="none", suite="full")
def direct_beside_passthrough(t):
    """Both at once: reads come to the server, mappings go to the backing file. One after the other: both
    work, but the first one cannot be mapped any more."""
    server = Server(t)
    fd = server.open("a", "direct a", os.O_RDWR)
    equal(server.first_byte(fd), b"S", "read")
    with mmap.mmap(fd, len(server.content)) as mapped:
        equal(mapped[:1], b"F", "mapped")
        os.pwrite(fd, b"W", 5)
        equal(mapped[5:6], b"W", "written by way of the server, mapped")
    os.close(fd)
    first = server.open("b", "direct")
    second = server.open("b", "b")
    equal((server.first_byte(first), server.first_byte(second)), (b"S", b"F"), "read by both")
    fails_with(errno.ENODEV, "the first one mapped", lambda: Mapping(first, PAGE, READ, mmap.MAP_SHARED))
    Mapping(second, PAGE, READ, mmap.MAP_SHARED).close()
    os.close(first)
    os.close(second)


@test(transports="none", suite="full")
def mapped_without_a_descriptor(t):
    """A mapping keeps the backing file, not the mount's: after the last close(2) the inode may be opened
    anyhow."""
    server = Server(t)
    fd = server.open("a", "a", os.O_RDWR)
    mapping = Mapping(fd, len(server.content), WRITE, mmap.MAP_SHARED)
    os.close(fd)
    for words in ("", "b", "direct", "a"):
        equal(server.opens("a", words), 0, "opened as %r" % words)
    mapping.store(1, b"x")
    equal(read_file(os.path.join(server.directory, "a"))[1:2], b"x", "the backing file")
    mapping.close()


@test(transports="none", suite="full")
def written_through(t):
    """A write in passthrough is in the backing file at once."""
    server = Server(t)
    fd = server.open("a", "a", os.O_RDWR)
    os.pwrite(fd, b"written", 100)
    equal(read_file(os.path.join(server.directory, "a"))[100:107], b"written", "the backing file")
    os.close(fd)


@test(transports="none", suite="full")
def backing_file_on_a_read_only_view(t):
    """The kernel reopens a backing file as the client asks: on a view that is read-only that fails."""
    server = Server(t, how="view")
    equal(server.opens("a", "a"), 0, "for reading")
    for flags in (os.O_RDWR, os.O_WRONLY):
        equal(server.opens("a", "a", flags), errno.EIO, "for writing")
    fd = server.open("a", "a")
    fails_with(errno.EACCES, "mapped for writing", lambda: Mapping(fd, PAGE, WRITE, mmap.MAP_SHARED))
    os.close(fd)
