# SPDX-License-Identifier: Apache-2.0
"""Two processes that open one file: every pair of ways to open it, in each order, in each plan.

Each process does the same to a file of the mount and to a twin of it on a plain file system, and both have to
come out alike: the errno of the open, the bytes that are seen after each change by either, the size. With
coherence=overlay who opened an equal file for reading before anybody changed it sees the old bytes instead.
"""

import ctypes
import errno
import itertools
import mmap
import multiprocessing
import os
import shutil
import subprocess

from harness import (LIBC, PAGE, check, equal, errno_of, fails_with, make_pages, read_file, test, until,
                     write_file)
from plans import explained, plans, released, scan

READ, WRITE = mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE
KINDS = {  # flags of open(2); protection and flags of mmap(2), after which the descriptor is closed
    "read": (os.O_RDONLY, None, None),
    "written": (os.O_WRONLY, None, None),
    "both": (os.O_RDWR, None, None),
    "appended": (os.O_WRONLY | os.O_APPEND, None, None),
    "both, appended": (os.O_RDWR | os.O_APPEND, None, None),
    "direct": (os.O_RDWR | os.O_DIRECT, None, None),
    "direct, read": (os.O_RDONLY | os.O_DIRECT, None, None),
    "emptied": (os.O_RDWR | os.O_TRUNC, None, None),
    "path": (os.O_PATH, None, None),
    "mapped": (os.O_RDWR, WRITE, mmap.MAP_SHARED),
    "mapped, read": (os.O_RDONLY, READ, mmap.MAP_SHARED),
    "mapped, private": (os.O_RDONLY, WRITE, mmap.MAP_PRIVATE),
    "mapped, direct": (os.O_RDWR | os.O_DIRECT, WRITE, mmap.MAP_SHARED),
    "executed": (None, None, None),
}
# In passthrough a mapping keeps no descriptor of the mount open, so the kernel lets the file be executed.
EXECUTED_ANYWAY = ("mapped", "mapped, direct")
# What opens a file without being able to change it.
READERS = ("read", "direct, read", "mapped, read", "mapped, private", "executed")


class Mapping:
    """Memory of a file without a descriptor of it: Python's own mapping keeps one."""

    def __init__(self, fd, length, protection, flags):
        LIBC.mmap.restype = ctypes.c_void_p
        LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
        LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        LIBC.msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self.length = length
        self.address = LIBC.mmap(None, length, protection, flags, fd, 0)
        if self.address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "mmap")

    def bytes(self, length):
        return ctypes.string_at(self.address, min(length, self.length))

    def store(self, at, block):
        ctypes.memmove(self.address + at, block, len(block))

    def sync(self):
        check(LIBC.msync(self.address, self.length, 4) == 0, "msync")  # MS_SYNC

    def close(self):
        LIBC.munmap(self.address, self.length)


def text_of(pid, path):
    """The bytes of a running program that are its file's: its segments that nobody can write to."""
    def text():
        found = b""
        with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb", 0) as memory:
            for line in maps:
                if line.rstrip("\n").endswith(path) and line.split()[1] == "r-xp":
                    first, end = (int(word, 16) for word in line.split()[0].split("-"))
                    memory.seek(first)
                    found += memory.read(end - first)
        return found

    # Popen() returns when descriptors are closed in execve(2), which is before the program is mapped.
    return until(text, 20, "%s is in the maps of process %d" % (path, pid), every=0.001)


class Opened:
    """A file that is open in one way."""

    def __init__(self, path, kind):
        self.path, self.kind = path, kind
        self.flags, protection, flags = KINDS[kind]
        self.fd = self.mapping = self.program = None
        if self.flags is None:
            self.program = subprocess.Popen([path, "1000"])
            return
        self.fd = os.open(path, self.flags)
        if protection:
            try:
                self.mapping = Mapping(self.fd, os.fstat(self.fd).st_size, protection, flags)
            finally:
                os.close(self.fd)
            if flags == mmap.MAP_PRIVATE:
                self.mapping.store(0, b"mine")

    def change(self, at, value):
        """A page of the file, or what is appended, is of that value."""
        if self.kind in READERS or self.kind == "path":
            return
        block = mmap.mmap(-1, PAGE)  # aligned
        block[:] = bytes([value]) * PAGE
        if self.flags & os.O_APPEND:
            os.write(self.fd, block[:100])
        elif not self.mapping:
            os.pwritev(self.fd, [block], at)
        elif os.stat(self.path).st_size >= at + PAGE <= self.mapping.length:
            self.mapping.store(at, block[:])
            self.mapping.sync()

    def look(self, size):
        """What is to be seen of so many bytes."""
        if self.program:
            check(self.program.poll() is None, "the program has ended")
            return text_of(self.program.pid, self.path)
        if self.mapping:
            return self.mapping.bytes(size)[PAGE if self.kind == "mapped, private" else 0:]
        if self.kind == "path":
            return os.fstat(self.fd).st_size
        if self.flags & os.O_ACCMODE == os.O_WRONLY:
            return None
        block = mmap.mmap(-1, (size // PAGE + 2) * PAGE)
        return block[:os.preadv(self.fd, [block], 0)]

    def close(self):
        if self.program:
            self.program.kill()
            self.program.wait()
        elif self.mapping:
            self.mapping.close()
        else:
            os.close(self.fd)


class Opener:
    """In a process of its own: what it opens, it opens in the mount and in the twin."""

    def __init__(self, t):
        self.t = t
        self.here, there = multiprocessing.Pipe()
        self.process = t.fork(self._serve, there)
        there.close()

    def _serve(self, there):
        self.here.close()
        while True:
            try:
                name, *arguments = there.recv()
            except EOFError:
                return
            there.send(getattr(self, "_" + name)(*arguments))

    def ask(self, *words):
        self.here.send(words)
        try:
            return self.here.recv()
        except EOFError:
            self.t.join([self.process])  # fails with what the process failed with
            raise

    def _open(self, kind, twin, mounted, what):
        self.pair = []
        codes = [errno_of(lambda: self.pair.append(Opened(path, kind))) for path in (twin, mounted)]
        equal(codes[1], codes[0], "errno of the open: " + what)
        return not codes[0]

    def _change(self, at, value):
        for each in self.pair:
            each.change(at, value)

    def _look(self, old, what):
        """Like the twin; or, where OLD is given, as that."""
        sizes = [os.stat(each.path).st_size for each in self.pair]
        equal(sizes[1], sizes[0], "size " + what)
        if old is None:
            expected = self.pair[0].look(sizes[0])
            equal(self.pair[1].look(sizes[0]), expected, what)
        elif self.pair[1].program:
            equal(self.pair[1].look(0), self.pair[0].look(0), what)
        else:
            first = PAGE if self.pair[1].kind == "mapped, private" else 0
            equal(self.pair[1].look(len(old)), old[first:], what + ", as it was opened")

    def _close(self):
        for each in self.pair:
            each.close()

    def end(self):
        self.here.close()


class Pair:
    """Two processes on one file, and what each of them must see."""

    def __init__(self, openers, twin, mounted, content, overlay):
        self.openers, self.twin, self.mounted = openers, twin, mounted
        self.content, self.overlay = content, overlay
        self.open = {}  # opener: the old bytes that it goes on seeing, or None
        self.changeable = False

    def enter(self, number, kind, what):
        """Open it; whether that went."""
        if not self.openers[number].ask("open", kind, self.twin, self.mounted, what):
            return
        reader = kind in READERS
        self.open[number] = self.content if reader and self.overlay and not self.changeable else None
        if not reader and kind != "path":
            self.changeable = True

    def change(self, number, at, value):
        if number in self.open:
            self.openers[number].ask("change", at, value)

    def look(self, what):
        for number, old in self.open.items():
            self.openers[number].ask("look", old, what)

    def leave(self, number):
        if self.open.pop(number, self) is not self:
            self.openers[number].ask("close")


def go_through(t, pair, first, second, first_out):
    what = "%s, then %s" % (first, second)
    end = (len(pair.content) // PAGE - 2) * PAGE
    pair.enter(0, first, what)
    pair.look("alone: " + what)
    pair.change(0, end, t.rng.randrange(256))
    pair.enter(1, second, what)
    pair.look("both: " + what)
    for number in (1, 0):
        pair.change(number, end + number * PAGE, t.rng.randrange(256))
        pair.look("changed by %s: %s" % ((first, second)[number], what))
    pair.leave(0 if first_out else 1)
    pair.look("one is closed: " + what)
    pair.leave(1 if first_out else 0)


def executed_anyway(pair, first):
    """A file that is only mapped for writing: natively ETXTBSY, in passthrough it runs."""
    pair.enter(0, first, first)
    fails_with(errno.ETXTBSY, "the twin executed", Opened, pair.twin, "executed")
    running = Opened(pair.mounted, "executed")
    pair.look("executed while it is mapped")
    check(running.look(0), "it runs")
    running.close()
    pair.leave(0)


def program(t):
    """A program that goes on, with pages behind it that may be changed."""
    content = read_file(shutil.which("sleep"))
    return content + bytes(-len(content) % PAGE) + make_pages(t.rng, 2)


PLANS = {
    "own": ["passthrough=*"],
    "own, no window": ["passthrough=*", "window=0"],
    "window": [],
    "no window": ["window=0"],
    "shared": ["ro"],
    "overlay": ["coherence=overlay"],
}


def mount_of_plan(t, plan, source):
    """A mount where a first open for reading of an equal file has that plan."""
    mount = t.mount(source, PLANS[plan])
    kind = {"overlay": "shared", "no window": "window", "own, no window": "own"}.get(plan, plan)

    def has_plan():
        with open(mount.path("first"), "rb"):
            found = plans(mount)[kind]
        released(mount)
        return found

    # A copy for coherence=overlay is made at a first open.
    until(has_plan, 20 * t.patience, "the first open has the plan " + kind)
    return mount


@test(suite="full", timeout=120, transports="each", variants={plan: plan for plan in PLANS})
def two_processes_in_every_order_and_mode(t, plan):
    """Invariant 7. Files that are equal to begin with, one for each pair of ways to open it and order to
    close it."""
    source, twins = t.make_dir("source"), t.tmpfs(name="twins") if plan == "shared" else t.make_dir("twins")
    content = program(t)
    cases = {str(number): case for number, case in enumerate(itertools.product(KINDS, KINDS, (True, False)))}
    for name in ["first", *cases]:
        for directory in (source, twins):
            write_file(os.path.join(directory, name), content)
            os.chmod(os.path.join(directory, name), 0o755)
    if plan in ("shared", "overlay"):
        scan(t, source)
    if plan == "shared":
        t.run(["mount", "-o", "remount,ro", twins])
    mount = mount_of_plan(t, plan, source)
    openers = [Opener(t), Opener(t)]
    for name, (first, second, first_out) in cases.items():
        twin, mounted = os.path.join(twins, name), mount.path(name)
        pair = Pair(openers, twin, mounted, content, plan == "overlay")
        if plan.startswith("own") and first in EXECUTED_ANYWAY and second == "executed":
            executed_anyway(pair, first)
        else:
            go_through(t, pair, first, second, first_out)
        what = "%s, then %s" % (first, second)
        equal(read_file(mounted), read_file(twin), "opened afterwards: " + what)
        equal(read_file(os.path.join(source, name)), read_file(twin), "the source: " + what)
    for opener in openers:
        opener.end()
    t.join([opener.process for opener in openers])


@test(transports="full")
def mapped_when_every_descriptor_is_closed(t):
    """In passthrough a mapping keeps the backing file open, and not the mount's: the last close ends the
    plan, and what is stored later is seen at once all the same, for the next open is served in the same way,
    until nobody has it mapped."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 8)
    write_file(source + "/file", content)
    mount = t.mount(source)
    read_file(mount.path("file"))
    released(mount)
    fd = os.open(mount.path("file"), os.O_RDWR)
    equal(plans(mount)["own"], 1, "passed through")
    mapping = Mapping(fd, len(content), WRITE, mmap.MAP_SHARED)
    mapping.store(0, b"stored")
    os.close(fd)
    released(mount)
    with open(mount.path("file"), "rb", 0) as reader:
        equal(plans(mount)["own"], 1, "passed through, as it is mapped")
        for number in range(3):
            equal(os.pread(reader.fileno(), 6, 0), b"again%d" % number if number else b"stored", "a store")
            mapping.store(0, b"again%d" % (number + 1))
        equal(mapping.bytes(len(content))[6:], content[6:], "the rest")
        why = t.run(t.foldctl_command() + ["explain", mount.path("file")]).stdout
        check("may still be mapped" in why, why)
    released(mount)
    mapping.close()

    def in_the_window():
        with open(mount.path("file"), "rb") as file:
            equal(file.read(), b"again3" + content[6:], "content when it is mapped no more")
            found = plans(mount)["window"]
        released(mount)
        return found

    until(in_the_window, 20 * t.patience, "served as any file, when nobody has it mapped")


@test(variants={"read": os.O_RDONLY, "written": os.O_RDWR})
def no_longer_mapped(t, flags):
    """What was written in passthrough stays in it while it is mapped, and no longer: a file that has grown past
    passthrough_max meanwhile goes to the window at its next open, for reading and for writing."""
    source = t.make_dir("source")
    write_file(source + "/file", make_pages(t.rng, 100))
    scan(t, source)
    mount = t.mount(source, ["passthrough_max=1M"])
    path = mount.path("file")

    def plan_of_open():
        fd = os.open(path, flags)
        plan = explained(t, path)["plan"]
        os.close(fd)
        released(mount)
        return plan

    fd = os.open(path, os.O_RDWR)
    equal(explained(t, path)["plan"], "own passthrough", "plan of a file that shares nothing")
    os.ftruncate(fd, 2 << 20)
    mapping = Mapping(fd, 100 * PAGE, WRITE, mmap.MAP_SHARED)
    os.close(fd)
    released(mount)
    equal(plan_of_open(), "own passthrough", "plan while it is mapped")
    mapping.store(5 * PAGE, b"stored")
    equal(read_file(path)[5 * PAGE:5 * PAGE + 6], b"stored", "seen by who opens it")
    released(mount)
    mapping.close()
    # The kernel lets go of the source file some time after that.
    until(lambda: plan_of_open() == "window", 10, "in the window when it is mapped no longer")


@test(transports="each", variants={"window": [], "direct": ["window=0"], "own passthrough": ["passthrough=*"]})
def times_move_with_synchronised_stores(t, options):
    """A store through a mapping moves mtime once it is synchronised, by msync alone, or by munmap, fsync and close, and
    that shows at once, however long attributes may be kept: of a file looked at before it was opened, while it is
    open, of one just created, by its other name, and with a mapping that is all that is left. Afterwards attributes
    are kept again."""
    source = t.make_dir("source")
    mount = t.mount(source, options + ["attr_timeout=3600", "entry_timeout=3600"])
    one, two = mount.path("one"), mount.path("two")
    write_file(one, bytes(2 * PAGE))
    os.link(one, two)

    def check_moves(path, what, *acts):
        """Each act moves the times that were known before it."""
        for number, act in enumerate(acts):
            os.utime(path, (1, 1))
            equal([int(os.stat(name).st_mtime) for name in (path, two)], [1, 1], "mtime before " + what)
            act()
            for name in (path, two):
                check(os.stat(name).st_mtime > 1, "%s, act %d: mtime of %s is old" % (what, number, name))

    def store(path, at_end, flags=os.O_RDWR):
        fd = os.open(path, flags)
        os.ftruncate(fd, 2 * PAGE)
        area = mmap.mmap(fd, 2 * PAGE)

        def once():
            area[0] ^= 1
            at_end(fd, area)

        return fd, area, once

    fd, area, once = store(one, lambda _, mapped: mapped.flush())
    check_moves(one, "msync", once, once)
    area.close()
    os.close(fd)

    def whole():
        fd, area, once = store(one, lambda *_: None)
        os.utime(one, (1, 1))
        os.stat(one)
        once()
        area.close()
        os.fsync(fd)
        os.close(fd)

    check_moves(one, "munmap, fsync, close", whole, whole)
    fd = os.open(one, os.O_RDWR)
    mapping = Mapping(fd, 2 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED)
    os.close(fd)
    if "passthrough=*" in options:
        released(mount)

    def alone():
        mapping.store(0, t.rng.randbytes(10))
        mapping.sync()

    check_moves(one, "only mapped", alone, alone)
    mapping.close()
    released(mount)
    for _ in range(3):
        os.stat(one)
    os.utime(source + "/one", (2, 2))
    check(os.stat(one).st_mtime != 2, "attributes are kept again")
    os.unlink(two)
    two = mount.path("new")
    fd, area, once = store(two, lambda _, mapped: mapped.flush(), os.O_RDWR | os.O_CREAT)
    check_moves(two, "msync of a new file", once, once)
    area.close()
    os.close(fd)
