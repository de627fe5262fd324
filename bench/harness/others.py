# SPDX-License-Identifier: Apache-2.0
"""Peers that come from Debian or with the kernel: other FUSE servers, overlayfs, file systems on a disk of
their own that share blocks. Each with the defaults that Debian gives it, unless it says otherwise here.
"""

import os
import shutil
import subprocess
import time

from . import machine
from .machine import BenchError
from .peers import Mount, mount_device

GIB = 1 << 30
ZFS_POOL = "foldfs-bench"


class Bindfs(Mount):
    """MODE cached, or direct: every read comes to the server."""

    def __init__(self, bench, source, mode="cached"):
        direct = ["-o", "direct_io"] if mode == "direct" else []
        super().__init__(bench, "bindfs", "dev", ["bindfs", "-f", *direct, source, "{}"])


class Mergerfs(Mount):
    """MODE cached, or direct: every read comes to the server."""

    def __init__(self, bench, source, mode="cached"):
        direct = ["-o", "cache.files=off"] if mode == "direct" else []
        super().__init__(bench, "mergerfs", "dev", ["mergerfs", "-f", *direct, source, "{}"])


class FuseOverlayfs(Mount):
    """With nothing on top: read only."""

    def __init__(self, bench, source):
        super().__init__(bench, "fuse-overlayfs", "dev", ["fuse-overlayfs", "-f", "-o", f"lowerdir={source}", "{}"])


class KernelMount:
    """A file system of the kernel over what is there, mounted by one command."""

    transport = None
    uid = 0

    def __init__(self, bench, name, command):
        self.bench = bench
        self.name = name
        self.path = os.path.join(bench.work, f"{name}-{bench.next_number()}")
        self.command = [self.path if word == "{}" else word for word in command]

    def start(self):
        os.makedirs(self.path, exist_ok=True)
        machine.run(self.command, 60)
        self.bench.mounted.append(self)

    def stop(self):
        if self not in self.bench.mounted:
            return
        machine.run(["umount", self.path], 120)
        self.bench.mounted.remove(self)

    def abort(self):
        """Nothing waits for a server here."""


class Overlayfs(KernelMount):
    """With an empty layer on top, as containers have it."""

    def __init__(self, bench, source):
        super().__init__(bench, "overlayfs", [])
        layers = [f"{self.path}.{name}" for name in ("upper", "work")]
        for layer in layers:
            os.makedirs(layer)
        self.command = ["mount", "-t", "overlay", "overlay", "-o",
                        f"lowerdir={source},upperdir={layers[0]},workdir={layers[1]}", self.path]


class LoopDisk(KernelMount):
    """A file system in a file, by a loop device with direct I/O: its blocks are cached once."""

    MAKE = {"xfs": ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}

    def __init__(self, bench, name, system, image, read_only=False):
        super().__init__(bench, name, [])
        self.system = system
        self.image = image
        self.read_only = read_only
        self.device = None

    def make(self, size):
        """A new, empty file system of SIZE bytes, most of it a hole."""
        with open(self.image, "wb") as file:
            file.truncate(size)
        machine.run([*self.MAKE[self.system], self.image], 120)

    def start(self):
        flags = ["--read-only"] if self.read_only else []
        find = ["losetup", "--find", "--show", "--direct-io=on", *flags, self.image]
        self.device = machine.run(find, 60).strip()
        options = ["-o", "ro"] if self.read_only else []
        self.command = ["mount", "-t", self.system, *options, self.device, self.path]
        try:
            super().start()
        except BaseException:
            self._detach()
            raise

    def stop(self):
        super().stop()
        self._detach()

    def _detach(self):
        if self.device:
            subprocess.run(["losetup", "--detach", self.device], timeout=60, check=False, capture_output=True)
            self.device = None

    def disks(self):
        """What a throttle has to hold: the loop device, whose reads its users are charged for."""
        device = os.stat(self.device).st_rdev
        return [f"{os.major(device)}:{os.minor(device)}"]


def erofs(bench, source, image):
    """What mkfs.erofs makes of SOURCE, with equal chunks of a page stored once, in IMAGE; made if it is not there."""
    if not os.path.exists(image):
        bench.progress(f"erofs: making {image}")
        machine.run(["mkfs.erofs", "--quiet", "--chunksize=4096", image + ".new", source], 900)
        os.rename(image + ".new", image)
    return LoopDisk(bench, "erofs", "erofs", image, read_only=True)


class ZfsFuse(Mount):
    """zfs-fuse with a pool in a file and dedup on. Its own cache (the ARC) takes at most ARC_BYTES."""

    def __init__(self, bench, image, arc_bytes):
        self.image = image
        arc = min(max(arc_bytes >> 20, 16), 16384)
        super().__init__(bench, "zfs-fuse", "dev", ["zfs-fuse", "--no-daemon", "--max-arc-size", str(arc)])

    def make(self, size):
        """A new, empty pool of SIZE bytes, mounted; to be followed by stop()."""
        with open(self.image, "wb") as file:
            file.truncate(size)
        self._serve()
        machine.run(["zpool", "create", "-o", "cachefile=none", "-O", "dedup=on", "-m", self.path, ZFS_POOL, self.image],
                    60, self._end)
        self._mounted()

    def start(self):
        self._serve()
        machine.run(["zpool", "import", "-o", "cachefile=none", "-d", os.path.dirname(self.image), ZFS_POOL], 60,
                    self._end)
        machine.run(["zfs", "set", f"mountpoint={self.path}", ZFS_POOL], 60, self._end)
        self._mounted()

    def _serve(self):
        """The server, ready to be asked."""
        os.makedirs(self.path, exist_ok=True)
        self.bench.mounted.append(self)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.bench.in_group(self.command), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True)
        deadline = time.monotonic() + 20
        while subprocess.run(["zpool", "list"], capture_output=True, timeout=20, check=False).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"zfs-fuse does not serve: {self.last_words()}")
            time.sleep(0.05)

    def _mounted(self):
        self.minor = mount_device(self.path)
        if self.minor is None:
            raise BenchError(f"zfs-fuse did not mount its pool: {self.last_words()}")

    def stop(self):
        if self not in self.bench.mounted:
            return
        done = subprocess.run(["zpool", "export", ZFS_POOL], capture_output=True, timeout=120, check=False)
        if done.returncode and self.minor is not None:
            self.bench.note(f"zfs-fuse: zpool export: {done.stderr.decode().strip()}")
            self.abort()
            subprocess.run(["umount", "-l", self.path], capture_output=True, timeout=60, check=False)
        self._end()
        self.bench.mounted.remove(self)
        self.minor = None

    def _end(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)


# ---- whether they run here ----------------------------------------------------------------------

def _empty_disk(bench, name, system):
    disk = LoopDisk(bench, name, system, os.path.join(bench.work, f"{name}.img"))
    disk.make(GIB)
    return disk


def _empty_pool(bench):
    if subprocess.run(["zpool", "list"], capture_output=True, timeout=20, check=False).returncode == 0:
        raise BenchError("another zfs-fuse runs already")
    image = os.path.join(bench.work, "zfs-trial", "disk.img")
    os.makedirs(os.path.dirname(image))
    pool = ZfsFuse(bench, image, 1 << 24)
    try:
        pool.make(GIB)
    finally:
        pool.stop()
    return pool


TRIALS = {
    "bindfs": lambda bench, source: Bindfs(bench, source),
    "mergerfs": lambda bench, source: Mergerfs(bench, source),
    "fuse-overlayfs": lambda bench, source: FuseOverlayfs(bench, source),
    "overlayfs": lambda bench, source: Overlayfs(bench, source),
    "reflink-xfs": lambda bench, _: _empty_disk(bench, "reflink-xfs", "xfs"),
    "reflink-btrfs": lambda bench, _: _empty_disk(bench, "reflink-btrfs", "btrfs"),
    "zfs-fuse": lambda bench, _: _empty_pool(bench),
    "erofs": lambda bench, source: erofs(bench, source, os.path.join(bench.work, "trial.erofs")),
}


def trial(bench, name):
    """Mount and unmount it once. BenchError, in its own words, if it can't."""
    source = os.path.join(bench.work, f"trial-{name}")
    os.makedirs(source)
    with open(os.path.join(source, "file"), "wb") as file:
        file.write(b"x" * 8192)
    subject = TRIALS[name](bench, source)
    with bench.started([subject]):
        machine.run(["ls", "--", subject.path], 20, subject.abort)
    shutil.rmtree(source)
