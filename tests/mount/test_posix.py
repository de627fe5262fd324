# SPDX-License-Identifier: Apache-2.0
"""POSIX behaviour as a whole: the probe of tests/posix against the source file system, overlayfs on the
mount, objects that go behind it, mount options."""

import concurrent.futures
import errno
import os
import re
import socket
import stat
import subprocess
import sys

from harness import (MIB, ROOT, check, equal, errno_of, fails_with, libc_call, make_pages, mounts_under, read_file,
                     renameat2, test, write_file)

sys.path.insert(0, os.path.join(ROOT, "tests", "posix"))

import differences
from faulty import FaultySource

# libfuse's defaults are nosuid and nodev; the probe makes devices and set-id programs.
PRIVILEGED = ["suid", "dev"]
# One client asks, and digests have no part in it: threads and short digests would show nothing more.
PROBED = ("release", "debug", "asan")


# ---- the probe ----------------------------------------------------------------------------------

def answers(t, directory, level, topics):
    """What the probe prints of a directory; it must come to its end."""
    program = os.path.join(t.build, "tests", "posix", "posix_probe")
    done = subprocess.run([program] + level + [directory] + topics, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, errors="surrogateescape", check=False)
    check(done.returncode == 0 and not done.stderr, "the probe in %s: status %d, %s" % (
        directory, done.returncode, done.stderr))
    return differences.parse(done.stdout)


def compare(t, native, source, options, level, besides=(), topics=(), least=5000):
    """Run the probe on both at once; returns the rows of the document. BESIDES: labels that may differ, too. TOPICS:
    only these, which ask LEAST questions."""
    rows = differences.documented()
    mount = t.mount(source, PRIVILEGED + options)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        expected, found = threads.map(lambda directory: answers(t, directory, level, list(topics)),
                                      (native, mount.point))
    mount.unmount()
    check(len(expected) > least, "the probe asked %d questions only" % len(expected))
    unexpected = [line for line in differences.compare(expected, found, rows)
                  if not line.startswith(tuple(besides) or "\0")]
    check(not unexpected, "%d of %d answers differ from the source's, and docs/posix.md does not say so:\n%s" % (
        len(unexpected), len(expected), "\n".join(unexpected[:60])))
    return rows


def is_ordinary_ext4(t, directory):
    result = t.run(["findmnt", "-n", "-o", "FSTYPE,OPTIONS", "-T", directory], status=None).stdout
    return result.startswith("ext4") and "relatime" in result


@test(timeout=180, presets=PROBED)
def as_the_source(t):
    """The mount answers each of the probe's questions (in the quick suite: a sample) as a directory of the
    source does. What docs/posix.md says that it differs, does: no row is out of date."""
    source, whole = t.make_dir("source"), t.suite == "full"
    rows = compare(t, t.make_dir("native"), source, [], [] if whole else ["-b"])
    if whole and is_ordinary_ext4(t, source):
        old = [row.lines for row in rows if not row.used and not row.depends]
        check(not old, "docs/posix.md says of these that they differ; they do not: " + ", ".join(old))


@test(suite="full", timeout=90, presets=PROBED)
def as_the_source_without_window(t):
    """A sample of the questions with direct I/O."""
    compare(t, t.make_dir("native"), t.make_dir("source"), ["window=0"], ["-b"])


@test(suite="full", timeout=90, presets=PROBED)
def as_the_source_in_passthrough(t):
    """A sample of the questions, of files that the kernel serves by itself. Of these docs/plans.md says one
    thing more: the kernel's passthrough keeps O_APPEND as it was at open."""
    compare(t, t.make_dir("native"), t.make_dir("source"), ["passthrough=*"], ["-b"], ["io.append.switched-"])


@test(suite="full", timeout=120, presets=PROBED)
def as_the_source_on_xfs(t):
    """All questions but those of device numbers, which XFS has fewer of, with the source on XFS. Its xattrs have up to
    64 KiB and its ACLs more entries than FUSE takes; what else differs there, docs/posix.md says below its table."""
    t.loop_file_system("xfs", 320 * MIB)
    topics = ("access sticky create directory statx io map lock chmod chown set-id rename link unlink open path size time "
              "xattr acl").split()
    users = ("owner", "member", "primary", "other")
    compare(t, t.make_dir("loop", "native"), t.make_dir("loop", "mounted"), [], [] if t.suite == "full" else ["-b"],
            ["acl.entries.", "io.request.clone:", "size.truncate.empty.0:"] +
            ["size.by.%s.6777.5:" % user for user in users], topics)


@test(suite="full", timeout=300, presets=("release",), transports="full")
def large_directories(t):
    """Directories of 100,000 entries: read, sought in, read while they change, emptied while they are read."""
    compare(t, t.make_dir("native"), t.make_dir("source"), [], ["-l"], topics=["directory"], least=50)


# ---- overlayfs ----------------------------------------------------------------------------------

@test(transports="full", timeout=60)
def times_of_a_file_that_keeps_its_size(t):
    """XFS tells truncate(2) from ftruncate(2) and O_TRUNC: which times move on the mount is what moves there."""
    t.loop_file_system("xfs", 320 * MIB)
    native, mounted = t.make_dir("loop", "native"), t.make_dir("loop", "mounted")
    mount = t.mount(mounted, ["attr_timeout=0"])

    def moved(directory, content, act):
        path = os.path.join(directory, "file")
        with open(path, "wb") as file:
            file.write(content)
        os.utime(path, (5, 5))
        before = os.stat(path)
        with open(path, "r+b") as file:
            act(path, file)
        after = os.stat(path)
        return before.st_mtime_ns != after.st_mtime_ns, before.st_ctime_ns != after.st_ctime_ns

    acts = {
        "truncate": lambda path, file: os.truncate(path, 7),
        "ftruncate": lambda path, file: file.truncate(7),
        "truncate to another size": lambda path, file: os.truncate(path, 8),
    }
    for name, act in acts.items():
        equal(moved(mount.point, b"content", act), moved(native, b"content", act), name)
    empty = lambda path, file: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    equal(moved(mount.point, b"", empty), moved(native, b"", empty), "O_TRUNC of an empty file")


def make_lower(base, content):
    """A lower layer with something of everything."""
    os.makedirs(base + "/dir/sub")
    os.makedirs(base + "/gone-dir/sub")
    os.makedirs(base + "/replaced-dir")
    os.makedirs(base + "/moved-dir/deep")
    for name in ("file", "gone", "renamed", "dir/one", "dir/sub/two", "gone-dir/x", "replaced-dir/old",
                 "moved-dir/deep/three", "changed", "owned", "linked", "over", "attributes"):
        write_file(base + "/" + name, name.encode())
    write_file(base + "/large", content)
    os.link(base + "/linked", base + "/linked-2")
    os.symlink("file", base + "/symlink")
    os.mkfifo(base + "/fifo")
    os.chown(base + "/owned", 1234, 2345)
    os.chmod(base + "/owned", 0o4750)
    os.setxattr(base + "/attributes", "user.colour", b"blue")


def bind_socket(directory, name):
    with socket.socket(socket.AF_UNIX) as unix:
        here = os.open(".", os.O_PATH)
        os.chdir(directory)
        unix.bind(name)
        os.fchdir(here)
        os.close(here)


def named_temporary_file(base):
    fd = os.open(base, os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(fd, b"was temporary")
    libc_call("linkat", -100, b"/proc/self/fd/%d" % fd, -100, os.fsencode(base + "/temporary"), 0x400)
    os.close(fd)


def append(path, content):
    with open(path, "ab") as file:
        file.write(content)


def change_merged(base):
    """Everything that makes overlayfs do something of its own in the upper layer; the errnos of it."""
    def overwrite_large():
        fd = os.open(base + "/large", os.O_RDWR)
        os.pwrite(fd, b"copied up", 50000)
        os.fsync(fd)
        os.close(fd)

    def replace_directory():
        os.unlink(base + "/replaced-dir/old")
        os.rmdir(base + "/replaced-dir")
        os.mkdir(base + "/replaced-dir")
        write_file(base + "/replaced-dir/new", b"new")

    def remove_tree():
        os.unlink(base + "/gone-dir/x")
        os.rmdir(base + "/gone-dir/sub")
        os.rmdir(base + "/gone-dir")

    steps = [
        lambda: append(base + "/file", b" and more"), overwrite_large, lambda: os.unlink(base + "/gone"),
        remove_tree, replace_directory, lambda: os.rename(base + "/renamed", base + "/dir/renamed"),
        lambda: os.rename(base + "/moved-dir", base + "/dir/moved-dir"),
        lambda: os.rename(base + "/dir/sub", base + "/sub-out"),
        lambda: renameat2(base + "/changed", base + "/over", 2), lambda: renameat2(base + "/file", base + "/over", 1),
        lambda: renameat2(base + "/dir", base + "/fifo", 2), lambda: os.chmod(base + "/owned", 0o640),
        lambda: os.chown(base + "/symlink", 77, 78, follow_symlinks=False), lambda: append(base + "/linked", b"!"),
        lambda: os.link(base + "/file", base + "/file-2"), lambda: os.setxattr(base + "/attributes", "user.size", b"3"),
        lambda: os.removexattr(base + "/attributes", "user.colour"), lambda: named_temporary_file(base),
        lambda: bind_socket(base, "socket"), lambda: os.mknod(base + "/device", 0o600 | stat.S_IFCHR, os.makedev(1, 3)),
        lambda: os.mknod(base + "/whiteout", 0o600 | stat.S_IFCHR, 0), lambda: os.truncate(base + "/over", 2),
        lambda: os.mkdir(base + "/gone"), lambda: os.rmdir(base + "/fifo"), lambda: os.symlink("x", base + "/new-link"),
        lambda: os.utime(base + "/over", ns=(123456789012345678, 876543210987654321)),
    ]
    return [errno_of(step) for step in steps]


def tree(base, attributes="user."):
    """Path -> everything about it that must be equal. overlayfs marks copies with where they come from,
    which takes file handles and is not compared."""
    found = {}
    for directory, names, files in os.walk(base):
        for name in names + files:
            path = os.path.join(directory, name)
            info = os.lstat(path)
            content = read_file(path) if stat.S_ISREG(info.st_mode) else \
                os.readlink(path) if stat.S_ISLNK(info.st_mode) else None
            xattrs = {} if stat.S_ISLNK(info.st_mode) else {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False) if key.startswith(attributes)
                and not re.search(r"overlay\.(origin|impure|uuid|nlink)$", key)}
            size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
            found[path[len(base):]] = (info.st_mode, info.st_uid, info.st_gid, size, info.st_rdev, content, xattrs)
    return found


class Overlay:
    def __init__(self, t, lower, upper, merged, options):
        self.t, self.merged = t, merged
        self.layers = "lowerdir=%s,upperdir=%s/upper,workdir=%s/work" % (lower, upper, upper)
        self.options = options

    def mount(self):
        self.t.run(["mount", "-t", "overlay", "overlay", "-o", ",".join([self.layers] + self.options), self.merged])

    def unmount(self):
        """If it is mounted."""
        if mounts_under(self.merged):
            self.t.run(["umount", self.merged])


def kernel_complaints(t):
    """What the kernel has said of upper layers that lack something overlayfs would like to have."""
    text = t.run(["dmesg"], status=None).stdout
    return [line for line in text.splitlines()
            if "overlayfs" in line and re.search("upper fs|d_type|RENAME_WHITEOUT|tmpfile", line)
            and "file handles" not in line and "missing" not in line]


def equal_trees(found, expected, what):
    for path in sorted(set(found) | set(expected)):
        equal(found.get(path), expected.get(path), "%s: %s" % (what, path))


@test(timeout=60, transports="full", variants={"trusted": ["redirect_dir=on"], "user": ["userxattr"],
                                               "volatile": ["volatile", "redirect_dir=nofollow"]})
def overlay_in_full(t, options):
    """overlayfs with upper and work on the mount does all that it does with them on the source: copy-up,
    whiteouts, opaque and redirected directories, exchanges, temporary files; the same after a remount."""
    lower, native, source = (t.make_dir(name) for name in ("lower", "native", "source"))
    make_lower(lower, make_pages(t.rng, 60))
    for base in (native, source):
        for name in ("upper", "work"):
            os.mkdir(base + "/" + name)
    complaints = kernel_complaints(t)
    mount = t.mount(source, PRIVILEGED)
    plain = Overlay(t, lower, native, t.make_dir("merged-native"), options)
    ours = Overlay(t, lower, mount.point, t.make_dir("merged"), options)
    try:
        for overlay in (plain, ours):
            overlay.mount()
        equal(change_merged(ours.merged), change_merged(plain.merged), "errnos of the changes")
        expected = tree(plain.merged)
        equal_trees(tree(ours.merged), expected, "merged")
    finally:
        for overlay in (plain, ours):
            overlay.unmount()
    mount.unmount()
    equal([line for line in kernel_complaints(t) if line not in complaints], [], "the kernel's complaints")
    equal_trees(tree(source + "/upper", ("user.", "trusted.")), tree(native + "/upper", ("user.", "trusted.")),
                "upper layer in the source")
    if "volatile" in options:
        return
    again = t.mount(source, PRIVILEGED)
    ours.mount()
    try:
        equal_trees(tree(ours.merged), expected, "merged, after a remount")
    finally:
        ours.unmount()
    again.unmount()


@test(transports="full")
def overlay_and_hard_links(t):
    """A file of an overlayfs whose upper layer is on the mount loses one of its names. Natively the other name stays. Here
    it answers ESTALE if the lost one was looked up first, for as long as overlayfs has the inode: docs/posix.md. By
    its content nothing is lost, and a kernel that does better fails nothing here."""
    source, lower, merged = t.make_dir("source"), t.make_dir("lower"), t.make_dir("merged")
    for name in ("upper", "work"):
        os.mkdir(source + "/" + name)
    mount = t.mount(source, PRIVILEGED)
    overlay = Overlay(t, lower, mount.point, merged, [])
    t.at_end(overlay.unmount)
    for order, codes in (("first second", (0,)), ("second first", (0, errno.ESTALE))):
        overlay.mount()
        write_file(merged + "/first", b"content")
        os.link(merged + "/first", merged + "/second")
        overlay.unmount()
        overlay.mount()
        for name in order.split():
            os.stat(merged + "/" + name)
        os.unlink(merged + "/second")
        code = errno_of(os.stat, merged + "/first")
        check(code in codes, "%s: errno %d" % (order, code))
        equal(read_file(mount.path("upper/first")), b"content", "the name in the upper layer")
        write_file("/proc/sys/vm/drop_caches", b"2")
        equal(read_file(merged + "/first"), b"content", "once overlayfs has forgotten it, " + order)
        os.unlink(merged + "/first")
        overlay.unmount()


# ---- objects that go behind the mount -----------------------------------------------------------

@test(transports="full", timeout=60)
def inode_numbers_that_are_given_again(t):
    """Files known to the kernel are removed behind the mount, and others get their inode numbers: an old
    name gives what it was or an error, never another file; a new name gives the new file."""
    source = t.make_dir("source")
    names = ["%03d" % number for number in range(300)]
    for name in names:
        write_file(source + "/old-" + name, b"old " + name.encode())
    # So few descriptors that most inodes have a file handle only.
    mount = t.mount(source, ["attr_timeout=600", "entry_timeout=600"], limit_nofile=256)
    numbers = {os.stat(mount.path("old-" + name)).st_ino for name in names}
    held = os.open(mount.path("old-000"), os.O_RDONLY)
    for name in names:
        os.unlink(source + "/old-" + name)
    for name in names:
        write_file(source + "/new-" + name, b"new " + name.encode())
    again = sum(os.stat(source + "/new-" + name).st_ino in numbers for name in names)
    equal(os.pread(held, 100, 0), b"old 000", "a file that was held open")
    outcomes = set()
    for name in names:
        try:
            content = read_file(mount.path("old-" + name))
            equal(content, b"old " + name.encode(), "content of a removed name")
            outcomes.add("old")
        except OSError as error:
            check(error.errno in (errno.ENOENT, errno.ESTALE), "errno %s" % errno.errorcode[error.errno])
            outcomes.add("error")
        equal(read_file(mount.path("new-" + name)), b"new " + name.encode(), "content of a new name")
    os.close(held)
    check(again == 0 or "error" in outcomes, "no handle went stale, though %d inode numbers came again" % again)


@test(transports="full", variants={"window": ["passthrough_max=0"], "passthrough": ["passthrough=*"]})
def inode_numbers_that_nobody_holds(t, options):
    """A source that gives the number of a removed file away although foldfs has a descriptor of it, as a network
    file system may: the new file can be read, written and looked at."""
    t.loop_file_system(name="backing")  # where nobody else makes files
    source = FaultySource(t)
    write_file(source.backing + "/old", b"old")
    number = os.stat(source.backing + "/old").st_ino
    mount = t.mount(source.point, options + ["attr_timeout=0", "entry_timeout=0"])
    held = os.open(mount.path("old"), os.O_PATH)  # so that the kernel does not forget it
    os.unlink(mount.path("old"))
    again = 0
    for turn in range(10):
        # Made by way of the mount and behind it.
        name = "new-%d" % turn
        write_file((source.backing + "/" if turn % 2 else mount.path("")) + name, name.encode())
        equal(os.stat(mount.path(name)).st_size, len(name), "size of a new file")
        equal(read_file(mount.path(name)), name.encode(), "a new file")
        with open(mount.path(name), "ab") as file:
            file.write(b"more")
        equal(read_file(source.backing + "/" + name), name.encode() + b"more", "a new file in the source")
        again += os.stat(source.backing + "/" + name).st_ino == number
    os.close(held)
    check(again, "the file system did not give the number away again")


@test(transports="full")
def removed_and_replaced_behind(t):
    """Once a name's time is over, what stands behind it now is seen: another file, another type, nothing;
    what is held open stays what it was."""
    source = t.make_dir("source")
    for name in ("file", "dir-to-be", "gone", "moved"):
        write_file(source + "/" + name, name.encode())
    os.mkdir(source + "/file-to-be")
    mount = t.mount(source, ["attr_timeout=0", "entry_timeout=0"])
    descriptors = {name: os.open(mount.path(name), os.O_RDWR) for name in ("file", "dir-to-be", "gone", "moved")}
    directory = os.open(mount.path("file-to-be"), os.O_RDONLY)
    write_file(source + "/other", b"another file")
    os.rename(source + "/other", source + "/file")
    for name in ("dir-to-be", "gone"):
        os.unlink(source + "/" + name)
    os.mkdir(source + "/dir-to-be")
    os.rmdir(source + "/file-to-be")
    write_file(source + "/file-to-be", b"a file")
    os.rename(source + "/moved", source + "/dir-to-be/moved")
    equal(read_file(mount.path("file")), b"another file", "replaced file")
    check(stat.S_ISDIR(os.stat(mount.path("dir-to-be")).st_mode), "a file that became a directory")
    equal(read_file(mount.path("file-to-be")), b"a file", "a directory that became a file")
    fails_with(errno.ENOENT, "a removed file", os.stat, mount.path("gone"))
    fails_with(errno.ENOENT, "a moved file, by its old name", os.stat, mount.path("moved"))
    equal(read_file(mount.path("dir-to-be/moved")), b"moved", "a moved file")
    for name, fd in descriptors.items():
        equal(os.pread(fd, 100, 0), name.encode(), "held open: " + name)
        equal(os.fstat(fd).st_nlink, 1 if name == "moved" else 0, "links of what is held open: " + name)
        os.pwrite(fd, b"W", 0)
        os.close(fd)
    equal(read_file(source + "/dir-to-be/moved"), b"Woved", "written where it moved to")
    equal(os.listdir(directory), [], "a directory that is gone")
    fails_with(errno.ENOENT, "a file in a directory that is gone", os.open, "x", os.O_CREAT | os.O_WRONLY,
               dir_fd=directory)
    os.close(directory)


# ---- mount options ------------------------------------------------------------------------------

@test(transports="none", variants={
    "fstab": ["defaults", "auto", "nofail", "_netdev", "user", "comment=backup", "x-systemd.requires=network.target",
              "x-gvfs-hide", "X-mount.mkdir"],
    "times": ["relatime", "noatime", "nodiratime", "lazytime"],
    "restrictions": ["nosuid", "nodev", "noexec", "sync", "dirsync"],
    "names": ["fsname=the name", "subtype=mine"],
    "one_word": ["rw,exec,suid,dev,noauto,strictatime,norelatime,iversion,loud,silent,nomand,nonempty"]})
def options_that_are_common(t, words):
    """Each common option is taken, and a mount in the background says nothing on either output."""
    source, point = t.make_dir("source"), t.make_dir("mnt")
    write_file(source + "/file", b"content")
    command = t.foldfs_command() + [source, point, "-o", "pool=16M,transport=dev"]
    for word in words:
        command += ["-o", word]
    result = t.run(command, timeout=20 * t.patience)
    equal(result.stdout + result.stderr, "", "output of a successful mount")
    with open("/proc/self/mountinfo") as table:
        line = next(line for line in table if line.split()[4] == point)
    try:
        equal(read_file(point + "/file"), b"content", "content")
        for word in ("nosuid", "nodev", "noexec", "noatime", "nodiratime"):
            check(word not in words or word in line.split()[5].split(","), "%s is not in force: %s" % (word, line))
        names = [word.partition("=")[2] for word in words if word.startswith(("fsname=", "subtype="))]
        check(not names or " - fuse.mine the\\040name " in line, "the user's names: " + line)
        equal(mounts_under(point)[-1][2], "fuse.mine" if names else "fuse.foldfs", "type of the mount")
        t.run(t.foldctl_command() + ["audit", "--idle", point], timeout=70 * t.patience)
    finally:
        t.run(["umount", point])
