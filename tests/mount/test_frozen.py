# SPDX-License-Identifier: Apache-2.0
"""A source that is frozen (fsfreeze: snapshots of LVM and of clouds, guest agents) makes all wait that change it. Who
reads is served meanwhile, on /dev/fuse, however many wait and for whatever."""

import ctypes
import fcntl
import mmap
import os

from harness import (MIB, PAGE, abort_fuse_under, check, equal, errno_of, fallocate, libc_call, make_pages, read_file,
                     test, until, write_file)
from test_trust_others import MANY, Crowd
from users import OTHER, USER, become

MS_SYNC = 4
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878


class Frozen:
    """A file system of its own that is frozen until thaw()."""

    def __init__(self, t, point):
        self.fd = os.open(point, os.O_RDONLY)
        try:
            fcntl.ioctl(self.fd, FIFREEZE, 0)
        except OSError as error:
            os.close(self.fd)
            t.skip("a file system cannot be frozen here: %s" % error)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.thaw()

    def thaw(self):
        if self.fd is not None:
            fcntl.ioctl(self.fd, FITHAW, 0)
            os.close(self.fd)
            self.fd = None


def at(path, flags, function):
    fd = os.open(path, flags, 0o644)
    try:
        return function(fd)
    finally:
        os.close(fd)


def store_mapped(fd):
    mapped = mmap.mmap(fd, PAGE)
    mapped[:6] = b"stored"
    # mmap.flush() would keep all other threads of Python waiting.
    libc_call("msync", ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(mapped))), ctypes.c_size_t(PAGE),
              MS_SYNC)


def copy(directory):
    at(directory + "/file", os.O_RDONLY,
       lambda source: at(directory + "/other", os.O_WRONLY, lambda fd: os.copy_file_range(source, fd, PAGE)))


# What waits for a frozen source: each gets a directory with "file", "other" and the empty directory "empty".
KINDS = {
    "write": lambda d: at(d + "/file", os.O_WRONLY, lambda fd: os.pwrite(fd, b"written", 0)),
    "mapped": lambda d: at(d + "/file", os.O_RDWR, store_mapped),
    "append": lambda d: at(d + "/file", os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"written")),
    "truncate": lambda d: os.truncate(d + "/file", 3),
    "open with O_TRUNC": lambda d: at(d + "/file", os.O_WRONLY | os.O_TRUNC, id),
    "fallocate": lambda d: at(d + "/file", os.O_WRONLY, lambda fd: fallocate(fd, 0, 0, MIB)),
    "copy_file_range": copy,
    "create": lambda d: at(d + "/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, id),
    "O_TMPFILE": lambda d: at(d, os.O_WRONLY | os.O_TMPFILE, id),
    "mkdir": lambda d: os.mkdir(d + "/new"),
    "mknod": lambda d: os.mkfifo(d + "/new"),
    "symlink": lambda d: os.symlink("file", d + "/new"),
    "link": lambda d: os.link(d + "/file", d + "/new"),
    "unlink": lambda d: os.unlink(d + "/file"),
    "rmdir": lambda d: os.rmdir(d + "/empty"),
    "rename": lambda d: os.rename(d + "/file", d + "/new"),
    "chmod": lambda d: os.chmod(d + "/file", 0o600),
    "chown": lambda d: os.chown(d + "/file", -1, USER),
    "utime": lambda d: os.utime(d + "/file", (1, 1)),
    "setxattr": lambda d: os.setxattr(d + "/file", "user.new", b"value"),
    "removexattr": lambda d: os.removexattr(d + "/file", "user.old"),
}


def make_source(t, source):
    """Directories 0, 1, 2 … of USER's, and one for those who read."""
    for number in range(MANY):
        directory = "%s/%d" % (source, number)
        os.makedirs(directory + "/empty")
        for name in ("file", "other"):
            write_file(directory + "/" + name, make_pages(t.rng, 2))
            os.chown(directory + "/" + name, USER, USER)
        os.setxattr(directory + "/file", "user.old", b"value")
        os.chown(directory + "/empty", USER, USER)
        os.chown(directory, USER, USER)
    os.mkdir(source + "/others")
    os.symlink("shared", source + "/others/link")
    for name in ("shared", "seen by nobody yet"):
        write_file(source + "/others/" + name, make_pages(t.rng, 300))


def read_everything(mount):
    """One of everything that changes nothing, as whoever calls."""
    others = mount.path("others")
    equal(sorted(os.listdir(others)), ["link", "seen by nobody yet", "shared"], "a listing")
    for name in ("shared", "seen by nobody yet"):
        equal(len(read_file(others + "/" + name)), 300 * PAGE, "what is read")
    equal(os.readlink(others + "/link"), "shared", "a link")
    check(os.access(others + "/shared", os.R_OK), "access")
    check(errno_of(os.stat, others + "/none"), "a name that is not there")
    equal(os.listxattr(others + "/shared"), [], "extended attributes")
    check(os.statvfs(mount.point).f_blocks, "statfs")
    with open(others + "/shared", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        equal(len(bytes(mapped)), 300 * PAGE, "what is read through a mapping")
    # Also of what others wait to change.
    for number in range(MANY):
        check(os.stat(mount.path(str(number))).st_mode, "a directory")


@test(timeout=120, variants={kind: kind for kind in KINDS})
def who_waits_holds_nobody_up(t, kind):
    """More than a dozen threads' worth of one kind of request wait for the frozen source: everybody else, root and
    another user, is served, and all of it is done when the source is thawed."""
    source = t.loop_file_system()
    make_source(t, source)
    mount = t.mount(source, transport="dev")
    os.listdir(mount.point)
    with Frozen(t, source):
        calls = [lambda d=mount.path(str(number)): KINDS[kind](d) for number in range(MANY)]
        crowd = Crowd(t, USER, calls)
        until(lambda: mount.status()["serving"]["handled"] >= MANY, 60, "all of them wait")

        def as_other():
            become(OTHER)
            read_everything(mount)

        t.join([t.fork(as_other), t.fork(read_everything, mount)], 60)
        equal(crowd.ended(), 0, "requests that did not wait")
    crowd.join()
    equal(set(crowd.errors[:MANY]), {255}, "how they ended")


@test(timeout=120)
def root_holds_nobody_up(t):
    """More requests of root's wait than there are threads for: other users are served all the same."""
    source = t.loop_file_system()
    make_source(t, source)
    names = ["of-root-%d" % number for number in range(300)]
    for name in names:
        write_file(source + "/" + name, b"")
    mount = t.mount(source, transport="dev")
    os.listdir(mount.point)
    with Frozen(t, source):
        crowd = Crowd(t, 0, [lambda path=mount.path(name): os.chmod(path, 0o640) for name in names])
        until(lambda: mount.status()["serving"]["parked"] > 0, 60, "requests are parked")

        def as_other():
            become(OTHER)
            read_everything(mount)

        t.join([t.fork(as_other)], 60)
        equal(crowd.ended(), 0, "requests that did not wait")
    crowd.join()
    equal(set(crowd.errors[:crowd.count]), {255}, "how they ended")


@test(timeout=120, variants={"aborted": True, "unmounted lazily": False})
def its_end_does_not_wait(t, aborted):
    """Writes wait for a frozen source. Who has the connection aborted, or takes the mount away, does not wait with
    them: after an abort the clients have their error at once; the place can be mounted anew, and is read there,
    while the old daemon still waits for the source. When that is thawed, the daemon ends."""
    source = t.loop_file_system()
    make_source(t, source)
    mount = t.mount(source, transport="dev")
    os.listdir(mount.point)
    with Frozen(t, source):
        crowd = Crowd(t, USER, [lambda d=mount.path(str(number)): KINDS["write"](d) for number in range(MANY)])
        until(lambda: mount.status()["serving"]["handled"] >= MANY, 60, "all of them wait")
        if aborted:
            abort_fuse_under(mount.point)
            until(lambda: crowd.ended() == MANY, 20, "clients that still wait after the abort")
        t.run(["umount"] + ["-l"] * (not aborted) + [mount.point], timeout=20)
        check(not mount.is_mounted(), "still mounted")
        again = t.mount(source, transport="dev")
        t.join([t.fork(read_everything, again)], 60)
        check(mount.process.poll() is None, "its requests are done")
    crowd.join()
    again.unmount()
    mount.process.wait(60)
