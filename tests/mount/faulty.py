# SPDX-License-Identifier: Apache-2.0
"""A source that fails on demand or loses what was not flushed: faulty_source.c and platter.c, built on
first use and mounted beneath a test."""

import fcntl
import mmap
import os
import struct
import subprocess

from harness import HERE, ROOT, Skip, abort_fuse_under, mounts_under, until

RECORD = struct.Struct("<IIQQII32s")
FAULTS = 16
ERROR, HANG = 1, 2
(READ, WRITE, FSYNC, GETATTR, OPEN, CREATE, TRUNCATE, FALLOCATE, RENAME, UNLINK, READDIR,
 FLUSH) = (1 << bit for bit in range(12))
EVERYWHERE = (1 << 64) - 1


def build(name, *sources, flags=()):
    """The program of that name, built if it is not there or older than its sources, headers included."""
    directory = os.path.join(ROOT, "build", "tests-mount")
    program = os.path.join(directory, name)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(program) and os.path.getmtime(program) > max(
                map(os.path.getmtime, sources)):
            return program
        path = os.path.join(ROOT, "build", "deps", "libfuse", "lib", "pkgconfig")
        environment = dict(os.environ, PKG_CONFIG_PATH=path + ":" + os.environ.get("PKG_CONFIG_PATH", ""))
        found = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3 >= 3.18"], env=environment,
                               capture_output=True, text=True)
        if found.returncode:
            raise Skip(name + " needs libfuse's development files: " + found.stderr.strip())
        subprocess.run(["cc", "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror",
                        "-pthread", *flags] + [source for source in sources if source.endswith(".c")] +
                       ["-o", program + ".new"] + found.stdout.split(), check=True)
        os.rename(program + ".new", program)
    return program


def faulty_source():
    names = ("faulty_source.c", "platter.c", "platter.h")
    return build("faulty_source", *(os.path.join(HERE, name) for name in names))


class FaultySource:
    """Mounted at t.path("faulty") over t.path("backing"); faults are set while it runs. With a platter,
    `durable` is at any moment what a power failure at this moment would leave."""

    def __init__(self, t, platter=False):
        self.t = t
        self.backing = t.make_dir("backing")
        self.point = t.make_dir("faulty")
        self.durable = t.path("platter", "tree")
        control = t.path("faults")
        self.log = open(t.path("faulty-log"), "w")
        self.process = subprocess.Popen(
            [faulty_source(), self.backing, control, t.make_dir("platter") if platter else "", self.point, "-f", "-o",
             "allow_other,default_permissions,fsname=faulty,max_threads=512,max_idle_threads=64"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        until(lambda: mounts_under(self.point) and os.path.exists(control), 20, "the faulty source mounted")
        with open(control, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), RECORD.size * FAULTS)
        t.at_end(self._unmount)

    def set(self, index, kind, calls, first=0, last=EVERYWHERE, error=0, under=""):
        at = index * RECORD.size
        self.clear(index)
        RECORD.pack_into(self.memory, at, 0, calls, first, last, error, 0, under.encode())
        struct.pack_into("<I", self.memory, at, kind)

    def clear(self, index):
        struct.pack_into("<I", self.memory, index * RECORD.size, 0)

    def applied(self, index):
        return RECORD.unpack_from(self.memory, index * RECORD.size)[5]

    def _unmount(self):
        for index in range(FAULTS):
            self.clear(index)
        result = subprocess.run(["umount", self.point], timeout=30, capture_output=True, text=True)
        if result.returncode:
            abort_fuse_under(self.point)
            subprocess.run(["umount", "-l", self.point], timeout=30)
            self.process.kill()
        self.process.wait(20)
        self.log.close()
        if result.returncode:
            raise OSError("the faulty source is still in use: " + result.stderr)
