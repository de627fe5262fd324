# SPDX-License-Identifier: Apache-2.0
"""Pseudo file systems below the source: what a plain user may not do to them he may not do by way of the mount,
where the opener would be the daemon."""

import errno
import json
import os
import signal

from harness import check, equal, errno_of, fails_with, read_file, test, until, write_file
from faulty import FaultySource
from users import USER as ATTACKER, as_user

BELOW = {"proc": "proc", "sys": "sysfs", "cgroup": "cgroup2", "mqueue": "mqueue", "bpf": "bpf",
         "debug": "debugfs", "trace": "tracefs", "pts": "devpts"}


def mount_below(t, source, name, kind, *options):
    point = source + "/" + name
    os.makedirs(point, exist_ok=True)
    result = t.run(["mount", *options, "-t", kind, "none", point], status=None)
    if result.returncode:
        return None
    t.at_end(lambda: t.run(["umount", point]))
    return point


def source_with(t, kinds=BELOW):
    source = t.make_dir("source")
    os.chmod(t.directory, 0o755)
    write_file(source + "/file", b"content")
    found = [name for name, kind in kinds.items() if mount_below(t, source, name, kind)]
    check("proc" in found, "proc cannot be mounted")
    return source, found


@test(transports="each")
def not_served(t):
    """Nobody gets into one, root neither: EXDEV, whether by name or by way of a listing with attributes, which
    shows its name. Other file systems below the source are served."""
    source, found = source_with(t)
    check(mount_below(t, source, "other", "tmpfs"), "tmpfs cannot be mounted")
    write_file(source + "/other/file", b"on another file system")
    mount_below(t, source, "other/proc", "proc")
    mount = t.mount(source)
    equal(sorted(os.listdir(mount.point)), sorted(found + ["file", "other"]), "names")
    with os.scandir(mount.point) as entries:
        for entry in entries:
            equal(errno_of(entry.stat), errno.EXDEV if entry.name in found else 0, entry.name)
    for name in found:
        fails_with(errno.EXDEV, name, os.stat, mount.path(name))
        fails_with(errno.EXDEV, "a listing of " + name, os.listdir, mount.path(name))
    fails_with(errno.EXDEV, "one on a file system that is served", os.stat, mount.path("other/proc"))
    equal(read_file(mount.path("other/file")), b"on another file system", "another file system")
    equal(read_file(mount.path("file")), b"content", "the source's own file")
    # Its number and what was found are not mistaken for another mount's.
    t.run(["umount", source + "/other/proc"])
    t.cleanups.pop()
    equal(os.listdir(mount.path("other/proc")), [], "the directory below, once it is gone")


@test()
def a_file_of_one_is_not_served(t):
    """A single file of proc that is bound into the source is one of proc."""
    source = t.make_dir("source")
    write_file(source + "/bound", b"")
    t.run(["mount", "--bind", "/proc/sys/kernel/hostname", source + "/bound"])
    t.at_end(lambda: t.run(["umount", source + "/bound"]))
    write_file(source + "/plain", b"")
    write_file(t.path("elsewhere"), b"bound from the same file system")
    t.run(["mount", "--bind", t.path("elsewhere"), source + "/plain"])
    t.at_end(lambda: t.run(["umount", source + "/plain"]))
    mount = t.mount(source)
    fails_with(errno.EXDEV, "a file of proc", os.open, mount.path("bound"), os.O_RDONLY)
    equal(read_file(mount.path("plain")), b"bound from the same file system", "another bound file")


def move_into(path, pid):
    fd = os.open(path + "/cgroup.procs", os.O_WRONLY)
    os.write(fd, b"%d" % pid)


@test()
def no_process_of_root_is_moved(t):
    """A cgroup is a plain user's. Root's process cannot be brought into it through the mount, as if root were who
    opened the file: not at all, and as natively with pseudo-filesystems, since the daemon opens it as the caller."""
    source, found = source_with(t, {"proc": "proc", "cgroup": "cgroup2"})
    if "cgroup" not in found:
        t.skip("no cgroup2 here")
    group = source + "/cgroup/foldfs-trust-%d" % os.getpid()
    os.mkdir(group)
    victim = t.fork(signal.pause, may_die_of=signal.SIGKILL)

    def clear():
        os.kill(victim.pid, signal.SIGKILL)
        t.join([victim])
        until(lambda: errno_of(os.rmdir, group) == 0, 10, "the group is empty")

    t.at_end(clear)
    for path in (group, group + "/cgroup.procs"):
        os.chown(path, ATTACKER, ATTACKER)
    as_user(t, ATTACKER, lambda: check(errno_of(move_into, group, victim.pid) in (errno.EACCES, errno.EPERM),
                                       "natively"))
    mount = t.mount(source)
    through = mount.path("cgroup/" + os.path.basename(group))
    as_user(t, ATTACKER, lambda: fails_with(errno.EXDEV, "through the mount", move_into, through, victim.pid))
    equal(read_file(group + "/cgroup.procs"), b"", "processes in the attacker's group")
    mount.unmount()
    asked = t.mount(source, ["pseudo-filesystems"], audit=False)
    as_user(t, ATTACKER, lambda: check(errno_of(move_into, through, victim.pid) in (errno.EACCES, errno.EPERM),
                                       "where it is asked for"))
    equal(read_file(group + "/cgroup.procs"), b"", "processes in the attacker's group")
    asked.unmount()


@test()
def one_file_system(t):
    """-o one-file-system serves nothing that is mounted below the source; its directory is listed."""
    source, found = source_with(t, {"proc": "proc"})
    check(mount_below(t, source, "other", "tmpfs"), "tmpfs cannot be mounted")
    mount = t.mount(source, ["one-file-system"])
    equal(sorted(os.listdir(mount.point)), ["file", "other", "proc"], "names")
    for name in ("other", "proc"):
        fails_with(errno.EXDEV, name, os.stat, mount.path(name))
    equal(read_file(mount.path("file")), b"content", "the source's own file")


@test()
def a_source_that_is_one_is_refused(t):
    """The source itself is a pseudo file system: refused by name, unless that is asked for."""
    point = t.make_dir("mnt")
    result = t.run(t.foldfs_command() + ["/proc", point], status=1)
    check("pseudo file system (proc)" in result.stderr, "how it is refused: " + result.stderr)
    mount = t.mount("/proc", ["pseudo-filesystems"], audit=False)
    check("1" in os.listdir(mount.point), "what is served")


@test()
def a_users_fuse_mount_blocks_nobody(t):
    """A FUSE file system of a plain user that answers nothing, open to all: neither a listing nor a look-up of it by
    way of the mount waits for it."""
    source = t.make_dir("source")
    os.mkdir(source + "/users")
    write_file(source + "/file", b"content")
    device = os.open("/dev/fuse", os.O_RDWR)
    options = "fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other" % (device, ATTACKER, ATTACKER)
    mounted = t.run(["mount", "-i", "-t", "fuse", "-o", options, "none", source + "/users"], status=None,
                    pass_fds=[device])
    if mounted.returncode:
        t.skip("no FUSE mount can be made by hand: " + mounted.stderr)
    t.at_end(lambda: (os.close(device), t.run(["umount", source + "/users"])))
    mount = t.mount(source)

    def use():
        with os.scandir(mount.point) as entries:
            equal(sorted(entry.name for entry in entries), ["file", "users"], "names")
        fails_with(errno.EXDEV, "a look-up", os.stat, mount.path("users"))

    t.join([t.fork(use)], seconds=10)
    equal(read_file(mount.path("file")), b"content", "the source's own file")


@test()
def an_automount_point_is_not_triggered(t):
    """An automount point below the source: nothing is mounted on it by a listing, a look-up or a scan."""
    source = t.make_dir("source")
    os.mkdir(source + "/auto")
    reader, writer = os.pipe()
    # The processes of the automounter's group trigger nothing: that is another one's here.
    other = t.fork(lambda: (os.setpgrp(), signal.pause()), may_die_of=signal.SIGKILL)
    until(lambda: os.getpgid(other.pid) == other.pid, 10, "it has a group of its own")
    options = "fd=%d,pgrp=%d,minproto=5,maxproto=5,direct" % (writer, other.pid)
    mounted = t.run(["mount", "-i", "-t", "autofs", "-o", options, "none", source + "/auto"], status=None,
                    pass_fds=[writer])
    if mounted.returncode:
        t.skip("no autofs here: " + mounted.stderr.strip())
    t.at_end(lambda: t.run(["umount", source + "/auto"]))
    os.close(writer)
    os.set_blocking(reader, False)
    mount = t.mount(source)

    def use():
        with os.scandir(mount.point) as entries:
            equal([entry.name for entry in entries], ["auto"], "names")
        fails_with(errno.EXDEV, "a look-up", os.stat, mount.path("auto"))
        fails_with(errno.EXDEV, "a listing", os.listdir, mount.path("auto"))

    t.join([t.fork(use)], seconds=10)
    t.run(t.foldfs_command() + ["--estimate", source, "--all-file-systems"])
    fails_with(errno.EAGAIN, "a wish to have something mounted", os.read, reader, 1)
    native = t.fork(errno_of, os.listdir, source + "/auto", may_die_of=signal.SIGKILL)
    until(lambda: errno_of(os.read, reader, 1) == 0, 10, "natively a listing triggers it")
    for child in (native, other):
        os.kill(child.pid, signal.SIGKILL)
    t.join([native, other])
    os.close(reader)


@test()
def a_root_fuse_mount_is_served(t):
    """One of root's is a file system like any other."""
    source = t.make_dir("source")
    below = FaultySource(t)
    write_file(below.backing + "/file", b"content")
    os.mkdir(source + "/below")
    t.run(["mount", "--bind", below.point, source + "/below"])
    t.at_end(lambda: t.run(["umount", source + "/below"]))
    mount = t.mount(source)
    equal(read_file(mount.path("below/file")), b"content", "a file of it")


@test()
def a_scan_does_not_enter(t):
    """foldctl scan --all-file-systems reads other file systems, but no pseudo ones."""
    source, _ = source_with(t, {"proc": "proc", "sys": "sysfs"})
    check(mount_below(t, source, "other", "tmpfs"), "tmpfs cannot be mounted")
    write_file(source + "/other/file", b"on another file system")
    result = t.run(t.foldfs_command() + ["--estimate", source, "--all-file-systems", "--json"])
    equal(json.loads(result.stdout)["files"], 2, "files read")
