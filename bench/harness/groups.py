# SPDX-License-Identifier: Apache-2.0
"""Control groups: what client and server take together, and what they may take.

Works with both versions of cgroups, also where some controllers are of one and some of the other. A
process that is started by wrap() is in the group from its first instruction, and so is all that the
kernel charges to it: its memory, and the cache of the files that it is the first to read.
"""

import os

from .machine import BenchError

ROOT = "/sys/fs/cgroup"


def _write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _is_version_2():
    return os.path.exists(os.path.join(ROOT, "cgroup.controllers"))


def _parent(controller):
    """(version, directory) to make groups of a controller in. The controllers of version 2 have one tree."""
    old = {"memory": "memory", "io": "blkio"}[controller]
    if os.path.isdir(os.path.join(ROOT, old)) and not _is_version_2():
        return 1, os.path.join(ROOT, old)
    if _is_version_2():
        try:
            _write(os.path.join(ROOT, "cgroup.subtree_control"), f"+{controller}\n")
        except OSError:
            pass
        return 2, ROOT
    return None, None


class Group:
    """A group of its own. LIMIT: bytes of memory. THROTTLE: (disks, reads a second, bytes a second),
    and as many writes a second if True comes after that. What is
    only counted may be missing here; a limit that cannot be set is a BenchError."""

    def __init__(self, name, limit=None, throttle=None):
        self.directories = []
        self.memory = self._make("memory", name)
        try:
            if limit is not None:
                self._limit(limit)
            if throttle is not None:
                self._throttle(self._make("io", name), *throttle)
        except BaseException:
            self.remove()
            raise

    def _make(self, controller, name):
        """(version, directory), or None where there is no such controller."""
        version, parent = _parent(controller)
        if version is None:
            return None
        path = os.path.join(parent, name)
        marks = {("memory", 1): "memory.usage_in_bytes", ("memory", 2): "memory.current",
                 ("io", 1): "blkio.throttle.read_bps_device", ("io", 2): "io.max"}
        try:
            if path not in self.directories:
                os.mkdir(path)
                self.directories.append(path)
        except OSError:
            return None
        return (version, path) if os.path.exists(os.path.join(path, marks[controller, version])) else None

    def _limit(self, limit):
        if not self.memory:
            raise BenchError("there is no memory cgroup here")
        version, path = self.memory
        try:
            _write(os.path.join(path, "memory.limit_in_bytes" if version == 1 else "memory.max"), f"{limit}\n")
            if version == 2 and os.path.exists(os.path.join(path, "memory.swap.max")):
                _write(os.path.join(path, "memory.swap.max"), "0\n")
        except OSError as error:
            raise BenchError(f"the memory cgroup takes no limit: {error.strerror}") from None

    @staticmethod
    def _throttle(group, disks, reads, rate, writes_too=False):
        if not group:
            raise BenchError("there is no block cgroup here")
        version, path = group
        try:
            for disk in disks:
                if version == 1:
                    _write(os.path.join(path, "blkio.throttle.read_iops_device"), f"{disk} {reads}\n")
                    _write(os.path.join(path, "blkio.throttle.read_bps_device"), f"{disk} {rate}\n")
                    if writes_too:
                        _write(os.path.join(path, "blkio.throttle.write_iops_device"), f"{disk} {reads}\n")
                else:
                    _write(os.path.join(path, "io.max"), 
                           f"{disk} riops={reads} rbps={rate}{f' wiops={reads}' if writes_too else ''}\n")
        except OSError as error:
            raise BenchError(f"the block cgroup does not throttle {', '.join(disks)}: {error.strerror}") from None

    def wrap(self, command):
        """COMMAND as one that joins the group first."""
        if not self.directories:
            return command
        join = 'for each in $0; do echo $$ >"$each/cgroup.procs" || exit; done; exec "$@"'
        return ["sh", "-c", join, " ".join(self.directories), *command]

    def usage(self):
        """Bytes charged to the group, or None where there is none."""
        if not self.memory:
            return None
        version, path = self.memory
        name = "memory.usage_in_bytes" if version == 1 else "memory.current"
        with open(os.path.join(path, name), encoding="ascii") as file:
            return int(file.read())

    def parts(self):
        """What the usage consists of: anonymous memory, cached files, the kernel's own."""
        if not self.memory:
            return {}
        version, path = self.memory
        figures = {}
        with open(os.path.join(path, "memory.stat"), encoding="ascii") as lines:
            for line in lines:
                name, value = line.split()
                figures[name] = int(value)
        if version == 2:
            return {name: figures[name] for name in ("anon", "file", "kernel") if name in figures}
        with open(os.path.join(path, "memory.kmem.usage_in_bytes"), encoding="ascii") as file:
            own = int(file.read())
        return {"anon": figures["rss"], "file": figures["cache"], "kernel": own}

    def killed(self):
        """How many processes the kernel ended because the memory did not suffice."""
        if not self.memory:
            return 0
        version, path = self.memory
        with open(os.path.join(path, "memory.oom_control" if version == 1 else "memory.events"),
                  encoding="ascii") as lines:
            for line in lines:
                name, value = line.split()
                if name == "oom_kill":
                    return int(value)
        return 0

    def remove(self):
        for path in self.directories:
            try:
                os.rmdir(path)
            except OSError:
                pass
        self.directories, self.memory = [], None
