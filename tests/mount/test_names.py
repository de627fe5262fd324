# SPDX-License-Identifier: Apache-2.0
"""The POSIX side: names, attributes, identities, directories; compared with the source file system."""

import ctypes
import errno
import os
import random
import re
import shutil
import socket
import stat
import time

from harness import (LIBC, MIB, PAGE, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, check, equal, errno_of,
                     fails_with, libc_call, make_pages, read_file, renameat2, test, until, write_file)
from users import NOBODY, as_user


def same_attributes(path, behind, what):
    mine, other = os.lstat(path), os.lstat(behind)
    for field in ("st_mode", "st_uid", "st_gid", "st_size", "st_nlink", "st_mtime_ns", "st_rdev"):
        equal(getattr(mine, field), getattr(other, field), "%s: %s" % (what, field))


@test(transports="full")
def created_as_the_caller(t):
    """Every kind of object is made with the caller's uid, gid and umask, and so are O_TMPFILE files."""
    source = t.make_dir("source")
    os.chmod(source, 0o777)
    mount = t.mount(source)

    def make():
        os.close(os.open(mount.path("file"), os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(mount.path("dir"), 0o777)
        os.symlink("target", mount.path("link"))
        os.mkfifo(mount.path("fifo"), 0o666)
        with socket.socket(socket.AF_UNIX) as unix:
            os.chdir(mount.point)
            unix.bind("socket")
        fd = os.open(mount.path("."), os.O_TMPFILE | os.O_RDWR, 0o666)
        equal((os.fstat(fd).st_uid, os.fstat(fd).st_gid), (1234, 2345), "owner of an O_TMPFILE file")
        equal(os.fstat(fd).st_mode & 0o777, 0o640, "mode of an O_TMPFILE file")
        os.close(fd)

    as_user(t, 1234, make, gid=2345, umask=0o027)
    for name, mode in (("file", 0o640), ("dir", 0o750), ("fifo", 0o640), ("link", 0o777), ("socket", 0o750)):
        info = os.lstat(source + "/" + name)
        equal((info.st_uid, info.st_gid), (1234, 2345), "owner of " + name)
        equal(stat.S_IMODE(info.st_mode), mode, "mode of " + name)
        same_attributes(mount.path(name), source + "/" + name, name)


@test(transports="full")
def set_gid_directory_and_groups(t):
    """In a set-gid directory new objects have its group; a supplementary group gives access."""
    source = t.make_dir("source")
    os.mkdir(source + "/shared")
    os.chown(source + "/shared", 0, 4000)
    os.chmod(source + "/shared", 0o2770)
    mount = t.mount(source)

    def make():
        os.close(os.open(mount.path("shared/file"), os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(mount.path("shared/dir"), 0o777)

    as_user(t, 1234, make, gid=2345, groups=[4000])
    equal(os.stat(source + "/shared/file").st_gid, 4000, "group of a file")
    info = os.stat(source + "/shared/dir")
    equal(info.st_gid, 4000, "group of a directory")
    check(info.st_mode & stat.S_ISGID, "a directory made in a set-gid directory is set-gid")
    as_user(t, 1234, lambda: fails_with(errno.EACCES, "without the group", os.mkdir, mount.path("shared/no")), gid=2345)


@test(transports="full")
def default_acl(t):
    """A default ACL reaches what is made beneath it, the umask does not; ACLs can be set and read through
    the mount and decide access."""
    t.need("setfacl", "getfacl")
    source = t.make_dir("source")
    os.mkdir(source + "/dir")
    os.chmod(source + "/dir", 0o777)
    mount = t.mount(source)
    t.run(["setfacl", "-d", "-m", "u:%d:rwx,g::r-x,o::---" % 1111, mount.path("dir")])

    def make():
        os.close(os.open(mount.path("dir/file"), os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(mount.path("dir/sub"), 0o777)

    as_user(t, 1234, make, gid=2345, umask=0o077)
    for name in ("dir", "dir/file", "dir/sub"):
        mine = t.run(["getfacl", "-p", "-n", "--omit-header", mount.path(name)]).stdout
        behind = t.run(["getfacl", "-p", "-n", "--omit-header", source + "/" + name]).stdout
        equal(mine, behind, "ACL of " + name)
    acl = t.run(["getfacl", "-p", "-n", "--omit-header", source + "/dir/file"]).stdout
    check("user:1111:rwx" in acl, "the default ACL did not reach the file: " + acl)
    write_file(source + "/locked", b"x")
    os.chmod(source + "/locked", 0o600)
    as_user(t, NOBODY, lambda: fails_with(errno.EACCES, "before", os.open, mount.path("locked"), os.O_RDONLY))
    t.run(["setfacl", "-m", "u:%d:r" % NOBODY, mount.path("locked")])
    as_user(t, NOBODY, lambda: os.open(mount.path("locked"), os.O_RDONLY))


@test(transports="full")
def permissions_hold(t):
    """What a caller may not do on the source, it may not do on the mount: EACCES and EPERM as there."""
    source = t.make_dir("source")
    write_file(source + "/mine", b"x")
    os.mkdir(source + "/sticky")
    os.chmod(source + "/sticky", 0o1777)
    write_file(source + "/sticky/roots", b"x")
    os.mkdir(source + "/closed")
    os.chmod(source + "/closed", 0o700)
    write_file(source + "/closed/file", b"x")
    mount = t.mount(source)

    def attempts(base):
        return [
            errno_of(os.open, base + "/mine", os.O_RDWR), errno_of(os.unlink, base + "/mine"),
            errno_of(os.mkdir, base + "/new"), errno_of(os.stat, base + "/closed/file"),
            errno_of(os.listdir, base + "/closed"), errno_of(os.unlink, base + "/sticky/roots"),
            errno_of(os.rename, base + "/sticky/roots", base + "/sticky/x"), errno_of(os.chmod, base + "/mine", 0o777),
            errno_of(os.chown, base + "/mine", NOBODY, NOBODY), errno_of(os.utime, base + "/mine", (1, 1)),
            errno_of(os.truncate, base + "/mine", 0), errno_of(os.setxattr, base + "/mine", "user.x", b"1"),
            errno_of(os.setxattr, base + "/mine", "trusted.x", b"1"), errno_of(os.link, base + "/mine", base + "/sticky/l"),
            errno_of(os.mknod, base + "/sticky/dev", 0o600 | stat.S_IFBLK, 0), errno_of(os.rmdir, base + "/closed"),
        ]

    def compare():
        equal(attempts(mount.point), attempts(source), "errnos, mount and source")

    as_user(t, NOBODY, compare)


@test(transports="full")
def set_id_bits_are_cleared(t):
    """chown and a write by another user clear set-uid and set-gid, as on the source."""
    source = t.make_dir("source")
    mount = t.mount(source)
    for name, action in (("chown", lambda path: os.chown(path, NOBODY, NOBODY)),
                         ("write", lambda path: as_user(t, NOBODY, lambda: write_once(path))),
                         ("truncate", lambda path: as_user(t, NOBODY, lambda: os.truncate(path, 1)))):
        results = []
        for base in (source, mount.point):
            path = "%s/%s-%s" % (base, name, "m" if base == mount.point else "s")
            write_file(path, b"program")
            os.chmod(path, 0o6777)
            action(path)
            results.append(oct(os.stat(path).st_mode))
        equal(results[1], results[0], "mode after " + name)


def write_once(path):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"x")
    os.close(fd)


@test(transports="full")
def rename_and_its_flags(t):
    """rename replaces; NOREPLACE, EXCHANGE and WHITEOUT do what they do on the source; errors are the same."""
    source = t.make_dir("source")
    mount = t.mount(source)
    results = []
    for base in (source + "/a", mount.path("b")):
        os.mkdir(base)
        write_file(base + "/one", b"1")
        write_file(base + "/two", b"2")
        os.makedirs(base + "/dir/sub")
        os.mkdir(base + "/empty")
        found = [
            errno_of(renameat2, base + "/one", base + "/two", RENAME_NOREPLACE),
            errno_of(renameat2, base + "/one", base + "/three", RENAME_NOREPLACE),
            errno_of(renameat2, base + "/three", base + "/two", RENAME_EXCHANGE),
            read_file(base + "/three"), read_file(base + "/two"),
            errno_of(renameat2, base + "/three", base + "/none", RENAME_EXCHANGE),
            errno_of(renameat2, base + "/dir", base + "/two", RENAME_EXCHANGE), os.listdir(base + "/two"),
            errno_of(os.rename, base + "/two", base + "/empty"), errno_of(os.rename, base + "/empty", base + "/empty/in"),
            errno_of(os.rename, base + "/three", base + "/empty"), errno_of(os.rename, base + "/nothing", base + "/x"),
            errno_of(renameat2, base + "/three", base + "/five", RENAME_WHITEOUT),
            sorted(os.listdir(base)), sorted(os.listdir(base + "/empty")),
        ]
        if os.path.lexists(base + "/three"):
            info = os.lstat(base + "/three")
            found.append((stat.S_IFMT(info.st_mode), info.st_rdev))
        results.append(found)
    equal(results[1], results[0], "results on the mount")


@test(transports="full")
def open_over_rename_and_unlink(t):
    """Open files live on without their name and keep their content under rename over them."""
    source = t.make_dir("source")
    old, new = make_pages(t.rng, 20), make_pages(t.rng, 30)
    mount = t.mount(source)
    write_file(mount.path("file"), old)
    fd = os.open(mount.path("file"), os.O_RDWR)
    write_file(mount.path("new"), new)
    os.rename(mount.path("new"), mount.path("file"))
    equal(os.pread(fd, len(old), 0), old, "the old file")
    equal(os.fstat(fd).st_nlink, 0, "links of the old file")
    equal(read_file(mount.path("file")), new, "the new file")
    os.ftruncate(fd, 5)
    os.fchmod(fd, 0o600)
    os.pwrite(fd, b"on", 3)
    equal(os.pread(fd, 10, 0), old[:3] + b"on", "the old file, changed")
    other = os.open(mount.path("file"), os.O_RDONLY)
    os.unlink(mount.path("file"))
    equal(os.pread(other, len(new), 0), new, "an unlinked file")
    equal(os.listdir(source), [], "the source")
    os.close(fd)
    os.close(other)


@test(transports="full")
def temporary_files(t):
    """O_TMPFILE: written, read and given a name by link."""
    source = t.make_dir("source")
    mount = t.mount(source)
    content = make_pages(t.rng, 40)
    fd = os.open(mount.point, os.O_TMPFILE | os.O_RDWR, 0o644)
    equal(os.listdir(mount.point), [], "names")
    os.write(fd, content)
    equal(os.pread(fd, len(content), 0), content, "content")
    libc_call("linkat", -100, b"/proc/self/fd/%d" % fd, -100, os.fsencode(mount.path("named")), 0x400)
    os.close(fd)
    equal(read_file(mount.path("named")), content, "content by name")
    equal(read_file(source + "/named"), content, "content in the source")
    fd = os.open(mount.point, os.O_TMPFILE | os.O_EXCL | os.O_WRONLY, 0o644)
    check(errno_of(libc_call, "linkat", -100, b"/proc/self/fd/%d" % fd, -100, os.fsencode(mount.path("no")), 0x400),
          "an O_EXCL temporary file was given a name")
    os.close(fd)


@test(transports="full")
def targets_are_kept_from_the_second_reading_on(t):
    """The kernel keeps a symbolic link's target in a page of its own. Who goes through a tree once leaves no such
    page behind; a link that is read again has one, within the window."""
    source = t.make_dir("source")
    os.symlink("target", source + "/link")
    mount = t.mount(source, ["entry_timeout=3600", "attr_timeout=3600", "debug"])
    mount.expect_log(".")  # every request
    path = mount.path("link")

    def requests():
        equal(os.readlink(path), "target", "readlink")
        return mount.log_text().count("opcode: READLINK")

    equal(requests(), 1, "requests for the first reading")
    equal(mount.status()["window"]["bytes"], 0, "cached after the first reading")
    until(lambda: requests() == 2, 10 * t.patience, "the first target was dropped")
    for _ in range(20):
        equal(requests(), 2, "requests for the next readings")
    equal(mount.status()["window"]["bytes"], PAGE, "cached after the second reading")
    os.unlink(path)
    os.symlink("another", path)
    equal(os.readlink(path), "another", "another link's target")
    until(lambda: mount.status()["window"]["bytes"] == 0, 10 * t.patience, "forgotten with its inode")


@test(transports="full")
def links_and_special_files(t):
    """Hard links are one file under two names; symbolic links, devices and fifos are as they were made."""
    source = t.make_dir("source")
    mount = t.mount(source)
    write_file(mount.path("one"), b"one")
    os.link(mount.path("one"), mount.path("two"))
    equal(os.stat(mount.path("one")).st_ino, os.stat(mount.path("two")).st_ino, "inode numbers")
    equal(os.stat(mount.path("one")).st_nlink, 2, "links")
    write_file(mount.path("two"), b"changed")
    equal(read_file(mount.path("one")), b"changed", "through the other name")
    os.unlink(mount.path("one"))
    equal(os.stat(mount.path("two")).st_nlink, 1, "links after unlink")
    for target in ("a", "x" * 4000, "/absolute", "../up", "odd \n name \xff"):
        os.symlink(target, mount.path("link"))
        equal(os.readlink(mount.path("link")), target, "readlink")
        equal(os.lstat(mount.path("link")).st_size, len(os.fsencode(target)), "size of a link")
        os.unlink(mount.path("link"))
    os.mknod(mount.path("device"), 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    equal(os.stat(source + "/device").st_rdev, os.makedev(1, 5), "device number")
    os.mkfifo(mount.path("fifo"))
    pid = os.fork()
    if pid == 0:
        write_file(mount.path("fifo"), b"through a fifo")
        os._exit(0)
    equal(read_file(mount.path("fifo")), b"through a fifo", "fifo")
    os.waitpid(pid, 0)
    for name in ("device", "fifo", "two"):
        same_attributes(mount.path(name), source + "/" + name, name)


@test(transports="full")
def extended_attributes(t):
    """Set, get, list and remove, with their flags, sizes and errors, compared with the source."""
    source = t.make_dir("source")
    mount = t.mount(source)
    results = []
    for base in (source + "/s", mount.path("m")):
        write_file(base, b"x")
        found = [
            errno_of(os.setxattr, base, "user.a", b"1"), os.getxattr(base, "user.a"),
            errno_of(os.setxattr, base, "user.a", b"2", os.XATTR_CREATE),
            errno_of(os.setxattr, base, "user.none", b"2", os.XATTR_REPLACE),
            errno_of(os.setxattr, base, "user.a", b"two", os.XATTR_REPLACE), os.getxattr(base, "user.a"),
            errno_of(os.setxattr, base, "user.empty", b""), os.getxattr(base, "user.empty"),
            errno_of(os.setxattr, base, "user.big", b"b" * 3000), os.getxattr(base, "user.big"),
            errno_of(os.setxattr, base, "user.huge", b"b" * 70000),
            errno_of(os.setxattr, base, "user." + "n" * 300, b"1"), errno_of(os.setxattr, base, "trusted.t", b"t"),
            errno_of(os.setxattr, base, "nonsense.x", b"1"), errno_of(os.getxattr, base, "user.none"),
            errno_of(os.removexattr, base, "user.none"), errno_of(os.removexattr, base, "user.a"),
            sorted(name for name in os.listxattr(base) if name.startswith(("user.", "trusted."))),
        ]
        results.append(found)
    equal(results[1], results[0], "results on the mount")
    buffer = ctypes.create_string_buffer(10)
    equal(LIBC.getxattr(os.fsencode(mount.path("m")), b"user.big", buffer, 10), -1, "a buffer that is too small")
    equal(ctypes.get_errno(), errno.ERANGE, "errno of a buffer that is too small")
    equal(LIBC.getxattr(os.fsencode(mount.path("m")), b"user.big", None, 0), 3000, "size asked for")


@test(transports="full")
def times_and_owners(t):
    """utimensat to the nanosecond, UTIME_OMIT, touch, chown, chmod; ctime moves; all is the source's."""
    source = t.make_dir("source")
    mount = t.mount(source)
    path, behind = mount.path("file"), source + "/file"
    write_file(path, b"x")
    for times in ((1, 2), (1234567890123456789, 987654321098765432), (4000000000 * 10**9 + 7, 5)):
        os.utime(path, ns=times)
        info = os.stat(behind)
        equal((info.st_atime_ns, info.st_mtime_ns), times, "times in the source")
        info = os.stat(path)
        equal((info.st_atime_ns, info.st_mtime_ns), times, "times on the mount")
    before = os.stat(path).st_ctime_ns
    time.sleep(0.02)
    os.chmod(path, 0o4751)
    check(os.stat(path).st_ctime_ns > before, "ctime did not move")
    os.chown(path, 5, -1)
    os.chown(path, -1, 6)
    os.symlink("file", mount.path("link"))
    os.lchown(mount.path("link"), 7, 8)
    os.utime(mount.path("link"), (9, 10), follow_symlinks=False)
    fd = os.open(path, os.O_RDWR)
    os.fchmod(fd, 0o600)
    os.utime(fd, (11, 12))
    os.close(fd)
    for name in ("file", "link"):
        same_attributes(mount.path(name), source + "/" + name, name)
    info = t.run(["stat", "-c", "%W", path]).stdout
    equal(info, t.run(["stat", "-c", "%W", behind]).stdout, "birth time")


@test(transports="full")
def file_system_figures(t):
    """statfs is the source's."""
    source = t.make_dir("source")
    mount = t.mount(source)
    mine, behind = os.statvfs(mount.point), os.statvfs(source)
    for field in ("f_bsize", "f_frsize", "f_blocks", "f_files", "f_namemax"):
        equal(getattr(mine, field), getattr(behind, field), field)


@test(transports="full")
def awkward_names(t):
    """Names of 255 bytes, with spaces, newlines and bytes that are no UTF-8; 256 bytes are too long;
    a path as deep as PATH_MAX allows."""
    source = t.make_dir("source")
    mount = t.mount(source)
    names = [b"n" * 255, b" ", b"new\nline", bytes(range(0x80, 0xff)), b"-rf", b"a\\b", b"..."]
    for name in names:
        with open(os.fsencode(mount.point) + b"/" + name, "wb") as file:
            file.write(name)
    equal(sorted(os.listdir(os.fsencode(mount.point))), sorted(names), "names")
    equal(sorted(os.listdir(os.fsencode(source))), sorted(names), "names in the source")
    fails_with(errno.ENAMETOOLONG, "a name of 256 bytes", os.mkdir, mount.path("n" * 256))
    os.chdir(mount.point)
    for _ in range(60):
        os.mkdir("d" * 50)
        os.chdir("d" * 50)
    write_file("bottom", b"deep")
    os.chdir("/")
    equal(read_file(source + ("/" + "d" * 50) * 60 + "/bottom"), b"deep", "at the bottom")
    shutil.rmtree(mount.path("d" * 50))


@test(transports="full", timeout=60)
def large_directory(t):
    """A directory of 10,000 entries: read whole, by seek and while it changes; no entry twice, none lost."""
    count = t.scaled(10000, 3000)
    source = t.make_dir("source")
    os.mkdir(source + "/dir")
    for number in range(count):
        os.close(os.open("%s/dir/entry-%06d" % (source, number), os.O_CREAT | os.O_WRONLY))
    mount = t.mount(source)
    names = os.listdir(mount.path("dir"))
    equal(len(names), count, "entries")
    equal(set(names), {"entry-%06d" % number for number in range(count)}, "names")
    with os.scandir(mount.path("dir")) as entries:  # readdirplus
        sizes = {entry.name: (entry.stat().st_size, entry.inode(), entry.is_file()) for entry in entries}
    equal(len(sizes), count, "entries with attributes")
    for name in t.rng.sample(names, 50):
        info = os.stat(source + "/dir/" + name)
        equal(sizes[name], (info.st_size, info.st_ino, True), name)
    seen = []
    with os.scandir(mount.path("dir")) as entries:
        for entry in entries:
            seen.append(entry.name)
            if len(seen) % 2:
                os.unlink(mount.path("dir", entry.name))
    equal(len(seen), len(set(seen)), "an entry was given twice")
    equal(len(seen), count, "entries while half of them are removed")
    equal(sorted(os.listdir(mount.path("dir"))), sorted(os.listdir(source + "/dir")), "what is left")


@test(transports="full", timeout=60)
def many_inodes_few_descriptors(t):
    """A tree of 20,000 files under a limit of 1024 descriptors: all are known to the kernel at once, and
    each can be read and written."""
    count = t.scaled(20000, 4000)
    source = t.make_dir("source")
    for directory in range(20):
        os.mkdir("%s/%02d" % (source, directory))
        for number in range(count // 20):
            fd = os.open("%s/%02d/%05d" % (source, directory, number), os.O_CREAT | os.O_WRONLY)
            os.write(fd, b"%d/%d" % (directory, number))
            os.close(fd)
    mount = t.mount(source, ["entry_timeout=600", "attr_timeout=600"], limit_nofile=1024)
    handles = {}
    for directory in range(20):
        for number in range(count // 20):
            info = os.stat(mount.path("%02d/%05d" % (directory, number)))
            handles[directory, number] = info.st_ino
    equal(len(set(handles.values())), count, "inode numbers")
    for directory, number in t.rng.sample(sorted(handles), 2000):
        equal(read_file(mount.path("%02d/%05d" % (directory, number))), b"%d/%d" % (directory, number), "content")
    for directory, number in t.rng.sample(sorted(handles), 200):
        write_file(mount.path("%02d/%05d" % (directory, number)), b"new")
        equal(read_file("%s/%02d/%05d" % (source, directory, number)), b"new", "written")
    descriptors = len(os.listdir("/proc/%d/fd" % mount.serving_pid()))
    with open("/proc/%d/limits" % mount.serving_pid()) as limits:
        allowed = next(int(line.split()[3]) for line in limits if line.startswith("Max open files"))
    check(descriptors < allowed, "%d descriptors of %d" % (descriptors, allowed))


@test(transports="full")
def directories_while_open(t):
    """A directory that is removed while open lists nothing; rewinding shows what is new; fsync of a
    directory works."""
    source = t.make_dir("source")
    mount = t.mount(source)
    os.mkdir(mount.path("dir"))
    fd = os.open(mount.path("dir"), os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    equal(os.listdir(fd), [], "empty")
    write_file(mount.path("dir/new"), b"x")
    equal(os.listdir(fd), ["new"], "after a rewind")
    os.unlink(mount.path("dir/new"))
    os.rmdir(mount.path("dir"))
    equal(os.listdir(fd), [], "removed")
    equal(errno_of(os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=fd), errno.ENOENT, "create in a removed directory")
    os.close(fd)
    fails_with(errno.ENOTEMPTY, "rmdir", not_empty_then_rmdir, mount.path("full"))
    fails_with(errno.ENOTDIR, "rmdir of a file", os.rmdir, mount.path("full/file"))
    fails_with(errno.EISDIR, "unlink of a directory", os.unlink, mount.path("full"))


def not_empty_then_rmdir(path):
    os.mkdir(path)
    write_file(path + "/file", b"")
    os.rmdir(path)


class Twin:
    """The same random operation on a native directory and on the mount; results and trees must agree."""

    NAMES = ["a", "b", "c", "d"]

    def __init__(self, rng, native, mounted):
        self.rng = rng
        self.bases = (native, mounted)

    def path(self):
        return "/".join(self.rng.choice(self.NAMES) for _ in range(self.rng.choice((1, 1, 2, 2, 3))))

    def both(self, function, *paths):
        results = []
        for base in self.bases:
            try:
                results.append((0, function(*[base + "/" + path for path in paths])))
            except OSError as error:
                results.append((error.errno, None))
        return results

    def step(self):
        rng = self.rng
        one, two = self.path(), self.path()
        mode = rng.choice((0o644, 0o600, 0o755, 0o444))
        content = rng.randbytes(rng.choice((0, 1, 5000, 20000)))
        size = rng.choice((0, 3, 5000, 100000))
        actions = [
            ("create", lambda p: os.close(os.open(p, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)), one),
            ("write", lambda p: write_file(p, content), one), ("read", read_file, one),
            ("append", lambda p: append(p, content), one), ("mkdir", lambda p: os.mkdir(p, mode), one),
            ("mkdir", lambda p: os.mkdir(p, 0o755), one), ("rmdir", os.rmdir, one), ("unlink", os.unlink, one),
            ("rename", os.rename, one, two), ("link", os.link, one, two),
            ("symlink", lambda p: os.symlink(two, p), one), ("readlink", os.readlink, one),
            ("truncate", lambda p: os.truncate(p, size), one), ("chmod", lambda p: os.chmod(p, mode), one),
            ("chown", lambda p: os.chown(p, 1, 2, follow_symlinks=False), one),
            ("utime", lambda p: os.utime(p, (3, 4)), one), ("list", lambda p: sorted(os.listdir(p)), one),
            ("setxattr", lambda p: os.setxattr(p, "user.x", content[:100]), one),
            ("getxattr", lambda p: os.getxattr(p, "user.x"), one),
            ("exchange", lambda p, q: renameat2(p, q, RENAME_EXCHANGE), one, two),
            ("noreplace", lambda p, q: renameat2(p, q, RENAME_NOREPLACE), one, two),
            ("mkfifo", os.mkfifo, one) if rng.randrange(10) == 0 else ("stat", short_stat, one),
            ("access", lambda p: os.access(p, os.X_OK), one), ("stat", short_stat, one),
        ]
        name, function, *paths = rng.choice(actions)
        if name in ("write", "read", "append") and any(
                os.path.lexists(base + "/" + paths[0]) and not os.path.isfile(base + "/" + paths[0])
                and not os.path.isdir(base + "/" + paths[0]) for base in self.bases):
            return name  # a fifo would wait for its other end
        native, mounted = self.both(function, *paths)
        equal(mounted, native, "%s %s" % (name, paths))
        return name

    def tree(self, base):
        found = {}
        for directory, names, files in os.walk(base):
            for name in names + files:
                path = os.path.join(directory, name)
                info = os.lstat(path)
                content = read_file(path) if stat.S_ISREG(info.st_mode) else \
                    os.readlink(path) if stat.S_ISLNK(info.st_mode) else None
                size = info.st_size if not stat.S_ISDIR(info.st_mode) else 0
                found[path[len(base):]] = (info.st_mode, info.st_uid, info.st_gid, info.st_nlink, size, content)
        return found


def append(path, content):
    with open(path, "ab") as file:
        file.write(content)


def short_stat(path):
    info = os.lstat(path)
    return info.st_mode, info.st_uid, info.st_nlink, 0 if stat.S_ISDIR(info.st_mode) else info.st_size


@test(timeout=60, transports="full")
def random_operations_against_native(t):
    """Thousands of random operations on names, on a native directory and on the mount: each with the same
    result or errno, and the same tree at the end, on the mount and in the source."""
    source, native = t.make_dir("source"), t.make_dir("native")
    mount = t.mount(source)
    twin = Twin(t.rng, native, mount.point)
    for _ in range((6000 if t.suite == "full" else 2000) // t.scaled(1, 3)):
        twin.step()
    expected = twin.tree(native)
    equal(twin.tree(mount.point), expected, "the tree on the mount")
    mount.unmount()
    equal(twin.tree(source), expected, "the tree in the source")


def busy_in_tree(base, seed, seconds):
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    expected = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.EINVAL,
                errno.ELOOP, errno.EBUSY, errno.ESTALE, errno.EPERM}
    while time.monotonic() < end:
        one = "%s/%s" % (base, "/".join(rng.choice("abc") for _ in range(rng.randrange(1, 4))))
        two = "%s/%s" % (base, "/".join(rng.choice("abc") for _ in range(rng.randrange(1, 4))))
        action = rng.choice((lambda: os.mkdir(one), lambda: write_file(one, b"x" * 5000), lambda: os.rename(one, two),
                             lambda: os.unlink(one), lambda: os.rmdir(one), lambda: os.listdir(one),
                             lambda: read_file(one), lambda: os.link(one, two), lambda: os.stat(one)))
        code = errno_of(action)
        check(code in expected | {0}, "errno %s" % errno.errorcode.get(code, code))


@test(timeout=60, transports="full")
def names_changed_at_once(t):
    """Six processes create, rename, link and remove the same few names: no error that a native file system
    would not give, and mount and source agree afterwards."""
    source = t.make_dir("source")
    mount = t.mount(source)
    t.join([t.fork(busy_in_tree, mount.point, t.rng.random(), 5 if t.suite == "full" else 2) for _ in range(6)])
    twin = Twin(t.rng, source, mount.point)
    equal(twin.tree(mount.point), twin.tree(source), "the tree")
    mount.unmount()


@test(transports="full")
def overlay_on_top(t):
    """overlayfs over the mount as its lower directory, its upper one elsewhere: reads, copy-up, whiteouts."""
    source, upper, work, merged = (t.make_dir(name) for name in ("source", "upper", "work", "merged"))
    content = make_pages(t.rng, 300)
    write_file(source + "/file", content)
    write_file(source + "/gone", b"x")
    mount = t.mount(source)
    t.run(["mount", "-t", "overlay", "overlay", "-o", "lowerdir=%s,upperdir=%s,workdir=%s" % (mount.point, upper, work),
           merged])
    equal(read_file(merged + "/file"), content, "content")
    with open(merged + "/file", "r+b") as file:
        file.write(b"copied up")
    os.unlink(merged + "/gone")
    equal(sorted(os.listdir(merged)), ["file"], "names")
    equal(read_file(merged + "/file"), b"copied up" + content[9:], "after copy-up")
    equal(read_file(mount.path("file")), content, "the lower file")
    t.run(["umount", merged])
    mount.unmount()


@test(transports="full")
def overlay_with_the_mount_as_upper(t):
    """overlayfs with the mount as its upper directory, which needs whiteouts, trusted xattrs, O_TMPFILE and
    rename flags."""
    source, lower, merged = (t.make_dir(name) for name in ("source", "lower", "merged"))
    for name in ("upper", "work"):
        os.mkdir(source + "/" + name)
    write_file(lower + "/file", b"lower")
    write_file(lower + "/gone", b"x")
    mount = t.mount(source)
    result = t.run(["mount", "-t", "overlay", "overlay", "-o", "lowerdir=%s,upperdir=%s,workdir=%s" % (
        lower, mount.path("upper"), mount.path("work")), merged], status=None)
    check(result.returncode == 0, "mount of the overlay: " + result.stderr)
    try:
        with open(merged + "/file", "ab") as file:
            file.write(b" and upper")
        os.unlink(merged + "/gone")
        os.mkdir(merged + "/dir")
        os.rename(merged + "/file", merged + "/dir/moved")
        equal(os.listdir(merged), ["dir"], "names")
        equal(read_file(merged + "/dir/moved"), b"lower and upper", "content")
    finally:
        t.run(["umount", merged])
    equal(read_file(source + "/upper/dir/moved"), b"lower and upper", "the source")
    mount.unmount()


# ---- what the kernel keeps ----------------------------------------------------------------------

LONG = ["entry_timeout=3600", "attr_timeout=3600"]


@test(transports="full")
def names_that_are_not_there(t):
    """The kernel keeps that there is no such name: in a read-only mount for entry_timeout, else not, unless
    negative_timeout says so; with watch, a name that appears is seen all the same."""
    for number, (options, seen) in enumerate(((["ro"], False), (["ro", "negative_timeout=0"], True), ([], True),
                                              (["negative_timeout=3600"], False))):
        source = t.make_dir("source%d" % number)
        mount = t.mount(source, LONG + options, name="mnt%d" % number)
        check(not os.path.exists(mount.path("new")), "there before it was made")
        write_file(source + "/new", b"behind")
        equal(os.path.exists(mount.path("new")), seen, "a name made behind a mount with " + ",".join(options))
        if "ro" not in options:
            check(not os.path.exists(mount.path("own")), "there before it was made")
            write_file(mount.path("own"), b"by way of the mount")
            equal(read_file(mount.path("own")), b"by way of the mount", "a name made by way of the mount")
        mount.unmount()
    source = t.make_dir("watched")
    mount = t.mount(source, LONG + ["ro", "watch"], name="watching")
    check(not os.path.exists(mount.path("new")), "there before it was made")
    write_file(source + "/new", b"behind")
    until(lambda: os.path.exists(mount.path("new")), 10 * t.patience, "a name made behind a mount with watch is seen")


@test(transports="full", variants={"ro": ["ro"], "rw": []})
def lists_that_are_kept(t, options):
    """The kernel may keep lists of directories where it may keep names; whatever is made and removed, behind
    the mount or by way of it, and whoever is in the middle of a list: a list that is begun afterwards is right."""
    source = t.make_dir("source")
    for number in range(300):
        write_file(source + "/start-%d-%s" % (number, "x" * 100), b"")
    mount = t.mount(source, LONG + options)
    readers = []

    def listed(what):
        os.statvfs(mount.point)  # what comes after the releases of earlier lists
        equal(sorted(os.listdir(mount.point)), sorted(os.listdir(source)), what)

    for number in range(t.scaled(300, 100)):
        in_company = number // 20 % 2
        change = t.rng.randrange(4)
        root = mount.point if change == 0 and not options else source
        if change == 1:
            os.unlink(os.path.join(root, t.rng.choice(os.listdir(source))))
        elif change < 3:
            write_file("%s/new-%d" % (root, number), b"")
        if in_company and t.rng.randrange(3) == 0:
            readers.append(os.scandir(mount.point))
            for _ in range(t.rng.randrange(400)):
                next(readers[-1], None)
        if len(readers) > 3 or not in_company:
            for reader in readers:
                if t.rng.randrange(2):
                    list(reader)  # to the end, over the changes since
                reader.close()
            readers.clear()
        for _ in range(3):
            listed("the list after change %d" % number)
    for reader in readers:
        reader.close()


@test(transports="each")
def what_the_kernel_asks_again(t):
    """Where names and attributes may be kept, using files again that are passed through asks the daemon to
    open them and nothing else: no look-up, also of what is not there, no attributes, no list, no flush."""
    source = t.make_dir("source", "sub")
    for name in ("one", "two"):
        write_file(source + "/" + name, b"content of " + name.encode())
    os.symlink("one", source + "/link")
    mount = t.mount(os.path.dirname(source), LONG + ["ro", "passthrough=*", "debug"])
    mount.expect_log(".")  # every request

    def asked():
        mark = len(mount.log_text())
        for name in ("one", "two", "link"):
            os.stat(mount.path("sub", name))
            check(not os.path.exists(mount.path("sub", name + ".none")), "there is no such name")
            equal(read_file(mount.path("sub", name))[:7], b"content", name)
        equal(os.readlink(mount.path("sub", "link")), "one", "link")
        equal(len(os.listdir(mount.path("sub"))), 3, "names")
        until(lambda: mount.log_text()[mark:].count("opcode: RELEASE (") == 3, 10 * t.patience, "all released")
        return set(re.findall(r"opcode: (\w+)", mount.log_text()[mark:]))

    # IOCTL: Python asks whether it is a terminal, and the kernel does not remember the answer.
    # Not at once where times are coarse: a directory that was changed a moment ago may be changed unseen.
    until(lambda: asked() <= {"OPEN", "RELEASE", "OPENDIR", "RELEASEDIR", "IOCTL"}, 10 * t.patience,
          lambda: "nothing else is asked; it is %r" % asked())


@test(transports="each")
def lists_are_kept_from_the_second_on(t):
    """A list takes memory in the kernel, so it is not kept for who goes through a tree once; who lists a directory again
    has it kept, and the daemon is not asked from then on."""
    source = t.make_dir("source", "sub")
    for number in range(50):
        write_file("%s/%d" % (source, number), b"")
    mount = t.mount(os.path.dirname(source), LONG + ["ro", "debug"])
    mount.expect_log(".")  # every request

    def asked():
        mark = len(mount.log_text())
        equal(sorted(os.listdir(mount.path("sub"))), sorted(os.listdir(source)), "the list")
        # The next one is not to meet this one open.
        until(lambda: "opcode: RELEASEDIR" in mount.log_text()[mark:], 10 * t.patience, "released")
        return mount.log_text()[mark:].count("opcode: READDIR")

    for times in ("first", "second"):
        check(asked() > 0, "%s: a list was kept" % times)
    # Not at once where times are coarse.
    until(lambda: asked() == 0, 10 * t.patience, "it is kept")


@test(transports="one", variants={"idle": [], "watch": ["watch"]})
def what_is_removed_behind_the_mount_keeps_no_blocks(t, options):
    """Somebody has only looked at a file through the mount, and the kernel knows it still, when another removes it in
    the source: its blocks are free at once with the watch, else when it was not used for a while. What is open
    through the mount stays readable."""
    source = t.loop_file_system("ext4", 64 * MIB)
    content = make_pages(t.rng, MIB // PAGE)
    for name in ("looked at", "open"):
        write_file(source + "/" + name, content * 8)
    os.sync()
    # Without the watch the kernel may take what it knows for an hour.
    mount = t.mount(source, options + ["entry_timeout=3600", "attr_timeout=3600"])
    os.stat(mount.path("looked at"))
    fd = os.open(mount.path("open"), os.O_RDONLY)

    def free():
        found = os.statvfs(source)
        return found.f_bfree * found.f_frsize

    before = free()
    os.unlink(source + "/looked at")
    os.unlink(source + "/open")
    until(lambda: free() - before >= 8 * MIB, 60 * t.patience, lambda: "%d bytes are free" % (free() - before))
    equal(os.pread(fd, len(content), MIB), content, "what is open")
    equal(os.fstat(fd).st_size, 8 * MIB, "its size")
    os.close(fd)
    until(lambda: free() - before >= 16 * MIB, 60 * t.patience, lambda: "%d bytes are free" % (free() - before))
