# SPDX-License-Identifier: Apache-2.0
"""Mounts come and go: others unmount, move, cover and abort them, and mount something else at their place, while a
daemon is still at its end. It takes away its own mount and nothing else."""

import errno
import mmap
import os
import signal
import subprocess

import faulty
from faulty import FaultySource
from test_program import AS_NOBODY, daemon_of, install_for_mount, need_plain_user, state_of
from harness import (PAGE, abort_fuse_under, check, equal, errno_of, fails_as_gone, fails_with, libc_call, make_pages,
                     mounts_under, read_file, test, until, write_file)

DEAD = "the connection was aborted: the mount on .* stays, dead"
# The daemon's own first question may still be under way.
ABORTED = "(^fuse: reading device|does not answer): (Software caused connection abort|Transport endpoint is not connected)[.]?$"


def is_tmpfs(point):
    return [kind for where, _, kind in mounts_under(point) if where == point] == ["tmpfs"]


class Successor:
    """What is mounted at once at the place that a foldfs has just left: a foldfs or another file system."""

    def __init__(self, t, kind, source, point):
        self.t, self.point = t, point
        self.mount = None
        if kind == "foldfs":
            self.mount = t.mount(source, ["pool=16M", "state=" + t.path("successors-state")], audit=False)
        else:
            t.run(["mount", "-t", "tmpfs", "none", point])
        write_file(point + "/data", b"precious")

    def check_that_it_stays(self):
        equal(len(mounts_under(self.point)), 1, "mounts at the place")
        equal(read_file(self.point + "/data"), b"precious", "content of the successor")
        if self.mount:
            equal(self.mount.process.poll(), None, "status of the successor")
            equal(self.mount.status()["mountpoint"], self.point, "who answers foldctl")

    def end(self):
        if self.mount:
            self.mount.unmount()
        else:
            self.t.run(["umount", self.point])


def stop_all(pid):
    os.kill(pid, signal.SIGSTOP)
    until(lambda: all(line.split(")")[-1].split()[0] == "T" for line in stats_of(pid)), 10, "all threads are stopped")


def stats_of(pid):
    for thread in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/stat" % (pid, thread)) as file:
            yield file.read()


def follow_a_stopped_one(t, kind, source, number, **how):
    """One round; whether the successor had the device number of the old mount."""
    old = t.mount(source, audit=False, **how)
    old.expect_log("no kernel passthrough|no control socket")
    device = mounts_under(old.point)[0][1]
    old.until_asked()
    stopped = old.serving_pid()
    stop_all(stopped)
    # Not by umount(8), which may ask the mount something first.
    libc_call("umount2", os.fsencode(old.point), 0)
    new = Successor(t, kind, source, old.point)
    same = mounts_under(old.point)[0][1] == device
    if number:
        old.process.send_signal(number)
    os.kill(stopped, signal.SIGCONT)
    old.ended(0)
    new.check_that_it_stays()
    new.end()
    return same


@test(timeout=60, transports="each",
      variants={kind + how: (kind, number) for kind in ("foldfs", "tmpfs")
                for how, number in (("", None), (", SIGTERM", signal.SIGTERM))})
def followed_while_it_is_stopped(t, value):
    """A daemon that was stopped when its mount was unmounted finds, when it goes on, another mount at the path of
    its own, with the device number of its own. That one stays, also if the old daemon is told to end besides."""
    kind, number = value
    source = t.make_dir("source")
    # Whoever else mounts something meanwhile may get the number.
    for _ in range(20):
        if follow_a_stopped_one(t, kind, source, number):
            return
    t.skip("others mount too much here: the device number was never given out again to the next one")


@test(timeout=60)
def followed_where_there_is_no_fusectl(t):
    """The same, of a plain user's daemon that has no file of its connection to tell its own mount by. (Linux 6.8)"""
    need_plain_user(t)
    if [int(part) for part in os.uname().release.split(".")[:2]] < [6, 8]:
        t.skip("Linux has unique mount ids since 6.8")
    if os.path.ismount("/sys/fs/fuse/connections"):
        t.run(["umount", "/sys/fs/fuse/connections"])
        t.at_end(lambda: t.run(["mount", "-t", "fusectl", "none", "/sys/fs/fuse/connections"]))
    source = t.make_dir("source")
    os.chown(source, 65534, 65534)
    os.chown(t.make_dir("mnt"), 65534, 65534)
    os.chmod(t.directory, 0o1777)
    for _ in range(20):
        if follow_a_stopped_one(t, "foldfs", source, None, user="nobody"):
            return
    t.skip("others mount too much here: the device number was never given out again to the next one")


@test(suite="full", timeout=600, transports="full",
      variants={kind + load: (kind, load) for kind in ("foldfs", "tmpfs") for load in ("", ", load")})
def followed_at_once(t, value):
    """Many rounds of mounting, unmounting and mounting at the same place at once: each newcomer stays."""
    kind, load = value
    source = t.make_dir("source")
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(3 * bool(load))]
    try:
        for number in range(t.scaled(300, 30)):
            old = t.mount(source, ["pool=16M"], audit=False)
            write_file(old.path("file"), b"%d" % number)
            until(lambda: not subprocess.run(["umount", old.point], check=False, stderr=subprocess.DEVNULL).returncode,
                  10 * t.patience, "unmounted")
            new = Successor(t, kind, source, old.point)
            old.ended(0)
            new.check_that_it_stays()
            new.end()
            t.mounts.clear()
    finally:
        for process in busy:
            process.kill()
            process.wait()


@test(timeout=60)
def covered_by_another_mount(t):
    """Something is mounted over a foldfs, whose daemon is told to end: what is on top stays, and that the foldfs
    below could not be taken away is said, by a line and the status."""
    source = t.make_dir("source")
    mount = t.mount(source, audit=False)
    t.run(["mount", "-t", "tmpfs", "none", mount.point])
    write_file(mount.path("data"), b"precious")
    mount.expect_log("cannot be taken away: the mount on .* stays, dead")
    mount.process.send_signal(signal.SIGTERM)
    mount.ended(1)
    equal(read_file(mount.path("data")), b"precious", "what is on top")
    t.run(["umount", mount.point])
    fails_as_gone("what is below", os.listdir, mount.point)
    t.run(["umount", mount.point])


@test(timeout=60, transports="each", variants={"abort": None, "umount -f of a bind mount": "umount"})
def an_aborted_mount_stays_dead(t, how):
    """Whoever aborts the connection leaves a dead mount: clients get errors and do not go on in the bare directory
    below. The daemon says so, in one line, and its status is not 0."""
    source = t.make_dir("source")
    os.mkdir(source + "/part")
    mount = t.mount(source)
    bind = t.make_dir("bind")
    mount.expect_log(ABORTED)
    mount.expect_log(DEAD)
    if how:
        t.run(["mount", "--bind", mount.path("part"), bind])
        t.run(["umount", "-f", bind])
    else:
        abort_fuse_under(mount.point)
    mount.ended(1)
    equal(mount.log_text().count("stays, dead"), 1, "lines that say it")
    check(mount.is_mounted(), "the dead mount is gone")
    fails_as_gone("a write", write_file, mount.path("lost"), b"data")
    t.run(["umount", mount.point])
    equal(os.listdir(mount.point), [], "what is below")


@test(timeout=60, transports="each")
def a_forced_unmount_is_an_unmount(t):
    """umount -f of a mount that nobody uses aborts it and takes it away: status 0, nothing to be said."""
    mount = t.mount(t.make_dir("source"))
    mount.expect_log(ABORTED)
    mount.audit_at_end()
    until(lambda: not t.run(["umount", "-f", mount.point], status=None).returncode or not mount.is_mounted(), 10,
          "unmounted")
    until(lambda: mount.process.poll() is not None, 30 * t.patience, "ended")
    check(not mount.is_mounted(), "it is still there")


@test(timeout=60, transports="each")
def moved_and_ended(t):
    """A mount that was moved is written back and taken away where it is now when its daemon is told to end, what is
    at its old place stays, and the status says where it is."""
    source = t.make_dir("source")
    write_file(source + "/file", bytes(PAGE))
    mount = t.mount(source)
    old, new = mount.point, t.make_dir("moved")
    t.run(["mount", "--move", old, new])
    t.run(["mount", "-t", "tmpfs", "none", old])
    mount.point = new
    equal(mount.status()["mountpoint"], new, "mountpoint in the status")
    fd = os.open(mount.path("file"), os.O_RDWR)
    with mmap.mmap(fd, PAGE) as mapped:
        mapped[:6] = b"stored"
        mount.stop()
    fails_as_gone("a close afterwards", os.close, fd)
    equal(read_file(source + "/file")[:6], b"stored", "a store through a mapping")
    check(is_tmpfs(old), "what is at the old place is gone")
    t.run(["umount", old])


@test(timeout=60)
def status_of_a_bind_mount(t):
    """When the mount is gone and a bind mount of a part is left, the status of that names it; when both are there,
    it names the mount."""
    source = t.make_dir("source")
    os.mkdir(source + "/part")
    mount = t.mount(source)
    bind = t.make_dir("bind")
    t.run(["mount", "--bind", mount.path("part"), bind])
    point, mount.point = mount.point, bind
    equal(mount.status()["mountpoint"], point, "mountpoint while the mount is there")
    t.run(["umount", "-l", point])
    equal(mount.status()["mountpoint"], bind, "mountpoint when the bind mount is left")
    mount.unmount()


@test(timeout=60, transports="each")
def the_source_is_free_at_once(t):
    """The source can be unmounted as soon as the mount is, long before the daemon has taken down all that it has: here
    its catalogue, whose end hangs."""
    place = FaultySource(t)
    source = t.loop_file_system()
    write_file(source + "/file", make_pages(t.rng, 10))
    mount = t.mount(source, ["state=" + place.point], audit=False)
    check(mount.status()["state"], "there is no catalogue")
    for name in ("file", "none"):
        errno_of(read_file, mount.path(name))
    place.set(0, faulty.HANG, faulty.CREATE)
    try:
        t.run(["umount", mount.point])
        until(lambda: place.applied(0), 20, "the daemon is at its catalogue")
        t.run(["umount", source])
        equal(mount.process.poll(), None, "status of the daemon")
    finally:
        place.clear(0)
    mount.ended(0)
    t.run(["mount", "-o", "loop", t.path("loop.img"), source])


# ---- over a dead mount --------------------------------------------------------------------------

def foldfs(t, source, point, *options, status=0, user=()):
    """Run it in the background; what it says on stderr."""
    words = ["pool=16M", "transport=dev", "state=" + t.path("state")] + list(options)
    return t.run(list(user) + t.foldfs_command() + [source, point, "-o", ",".join(words)], status=status).stderr


def end_in_background(t, point, user=()):
    daemon = daemon_of(t, point)
    t.run(list(user) + (["fusermount3", "-u", point] if user else ["umount", point]))
    until(lambda: state_of(daemon) == "Z", 20 * t.patience, "the daemon has ended")


@test(timeout=60)
def over_a_dead_mount(t):
    """foldfs says that a mount is dead, and what to do; with -o replace it takes that away, and mounts."""
    source = t.make_dir("source")
    write_file(source + "/file", b"content")
    mount = t.mount(source, audit=False)
    mount._end()
    said = foldfs(t, source, mount.point, status=1)
    check("a dead mount" in said and "umount " + mount.point in said and "-o replace" in said, "said: " + said)
    fails_as_gone("the dead mount", os.listdir, mount.point)
    equal(foldfs(t, source, mount.point, "replace"), "", "said with -o replace")
    equal(len(mounts_under(mount.point)), 1, "mounts at the place")
    equal(read_file(mount.path("file")), b"content", "content")
    end_in_background(t, mount.point)


@test(timeout=60)
def over_a_dead_mount_as_a_plain_user(t):
    """A plain user takes a dead mount of theirs away, by way of fusermount3, and sees the same sentence."""
    need_plain_user(t)
    source, point = t.make_dir("source"), t.make_dir("mnt")
    for path in (source, point):
        os.chown(path, 65534, 65534)
    os.chmod(t.directory, 0o1777)
    mount = t.mount(source, user="nobody", transport="dev", audit=False)
    mount.expect_log(".")
    mount._end()
    said = foldfs(t, source, point, status=1, user=AS_NOBODY)
    check("a dead mount" in said and "fusermount3 -u" in said, "said: " + said)
    said = foldfs(t, source, point, status=1)
    check("a dead mount" in said, "said to root: " + said)
    foldfs(t, source, point, "replace", user=AS_NOBODY)
    equal(len(mounts_under(point)), 1, "mounts at the place")
    end_in_background(t, point, user=AS_NOBODY)


@test(timeout=60)
def only_what_is_dead_is_replaced(t):
    """-o replace takes away no mount that lives, nor one that does not answer, nor one that is no FUSE mount."""
    source = t.make_dir("source")
    mount = t.mount(source)
    said = foldfs(t, source, mount.point, "replace", status=1)
    check("busy" in said and "a dead mount" not in said, "said of one that lives: " + said)
    mount.until_asked()
    stopped = mount.serving_pid()
    stop_all(stopped)
    said = foldfs(t, source, mount.point, "replace", status=1)
    check("does not answer" in said, "said of one that is stopped: " + said)
    os.kill(stopped, signal.SIGCONT)
    mount.unmount()
    t.run(["mount", "-t", "tmpfs", "none", mount.point])
    check("busy" in foldfs(t, source, mount.point, "replace", status=1), "of a tmpfs")
    check(is_tmpfs(mount.point), "the tmpfs is gone")
    t.run(["umount", mount.point])


# ---- remount ------------------------------------------------------------------------------------

def flags_of(point):
    """Of the mount and of its file system, as the kernel lists them."""
    with open("/proc/self/mountinfo") as info:
        for line in info:
            left, _, right = line.partition(" - ")
            if left.split()[4] == point:
                return set(left.split()[5].split(",")), set(right.split()[2].split(","))
    return None


@test(timeout=60)
def remounted_read_only_and_back(t):
    """-o remount,ro and back: files are refused and taken as the kernel does it, and every other flag stays."""
    source = t.make_dir("source")
    mount = t.mount(source, ["nosuid", "noatime", "dirsync"])
    before = flags_of(mount.point)
    command = t.foldfs_command() + [source, mount.point, "-o"]
    t.run(command + ["remount,ro"])
    fails_with(errno.EROFS, "a new file", write_file, mount.path("new"), b"content")
    equal(flags_of(mount.point), tuple(flags - {"rw"} | {"ro"} for flags in before), "flags while read-only")
    # As mount(8) of util-linux 2.41 calls it.
    t.run(command + ["rw,nosuid,noatime,dirsync,user_id=0,group_id=0,default_permissions,allow_other,remount"])
    write_file(mount.path("new"), b"content")
    equal(flags_of(mount.point), before, "flags afterwards")
    fd = os.open(mount.path("new"), os.O_WRONLY)
    said = t.run(command + ["remount,ro"], status=1).stderr
    check("open for writing" in said, "said while a file is open for writing: " + said)
    os.close(fd)
    t.run(command + ["remount,noexec"])
    check("noexec" in flags_of(mount.point)[0], "noexec")
    t.run(t.foldfs_command() + [source, source, "-o", "remount,ro"], status=1)


@test(timeout=60)
def remounted_by_mount(t):
    """The same by mount(8), which runs mount.fuse3."""
    source, point = t.make_dir("source"), t.make_dir("mnt")
    install_for_mount(t)
    t.run(["mount", "-t", "fuse.foldfs", "-o", "nosuid,transport=dev,pool=16M,state=" + t.path("state"), source, point])
    before = flags_of(point)
    t.run(["mount", "-o", "remount,ro", point])
    fails_with(errno.EROFS, "a new file", write_file, point + "/new", b"content")
    t.run(["mount", "-o", "remount,rw", point])
    write_file(point + "/new", b"content")
    equal(flags_of(point), before, "flags afterwards")
    end_in_background(t, point)


@test(timeout=60)
def what_was_mounted_read_only_stays_so(t):
    """The daemon of a mount that was made with ro takes no writes, also when the kernel is told to: its files may
    share what backs them."""
    source = t.make_dir("source")
    write_file(source + "/file", b"content")
    mount = t.mount(source, ["ro"])
    t.run(t.foldfs_command() + [source, mount.point, "-o", "remount,rw"])
    check("rw" in flags_of(mount.point)[1], "the kernel takes writes")
    fails_with(errno.EROFS, "an open for writing", os.open, mount.path("file"), os.O_WRONLY)
    fails_with(errno.EROFS, "a new file", write_file, mount.path("new"), b"content")
    equal(read_file(mount.path("file")), b"content", "content")


# ---- words --------------------------------------------------------------------------------------

@test(timeout=60, transports="none")
def values_as_arguments_of_their_own(t):
    """`foldctl scan --state DIR` is `--state=DIR`, and so with the others; an option without its value is refused."""
    source, state = t.make_dir("source"), t.make_dir("state")
    write_file(source + "/file", make_pages(t.rng, 100))
    t.run(t.foldctl_command() + ["scan", "--state", state, "--rate", "100M", "--memory", "64M", "--workers", "1", source])
    check(os.listdir(state), "there is no catalogue in the directory")
    said = t.run(t.foldctl_command() + ["scan", source, "--state"], status=1).stderr
    check("'--state'" in said, "said: " + said)
    mount = t.mount(source, transport="dev")
    t.run(t.foldctl_command() + ["audit", "--idle", "--timeout", "60", mount.point], timeout=70 * t.patience)
    mount.unmount()
