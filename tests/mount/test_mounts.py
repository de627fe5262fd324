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
from harness import (PAGE, abort_fuse_under, check, equal, errno_of, fails_with, libc_call, make_pages,
                     mounts_under, read_file, test, until, write_file)

DEAD = "the connection was aborted: the mount on .* stays, dead"
ABORTED = "^fuse: reading device: Software caused connection abort$"


def is_tmpfs(point):
    return [kind for where, _, kind in mounts_under(point) if where == point] == ["tmpfs"]


class Successor:
    """What is mounted at once at the place that a foldfs has just left: a foldfs or another file system."""

    def __init__(self, t, kind, source, point):
        self.t, self.point = t, point
        self.mount = t.mount(source, ["pool=16M"], audit=False) if kind == "foldfs" else None
        if not self.mount:
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


def follow_a_stopped_one(t, kind, source, number):
    """One round; whether the successor had the device number of the old mount."""
    old = t.mount(source, audit=False)
    device = mounts_under(old.point)[0][1]
    stop_all(old.process.pid)
    # Not by umount(8), which may ask the mount something first. Busy: its first question is being answered.
    until(lambda: errno_of(libc_call, "umount2", os.fsencode(old.point), 0) == 0, 10, "unmounted")
    new = Successor(t, kind, source, old.point)
    same = mounts_under(old.point)[0][1] == device
    if number:
        old.process.send_signal(number)
    old.process.send_signal(signal.SIGCONT)
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
    fails_with(errno.ENOTCONN, "what is below", os.listdir, mount.point)
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
    fails_with(errno.ENOTCONN, "a write", write_file, mount.path("lost"), b"data")
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
    equal(errno_of(os.close, fd), errno.ENOTCONN, "a close afterwards")
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
