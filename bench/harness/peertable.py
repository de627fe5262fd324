# SPDX-License-Identifier: Apache-2.0
"""The table of peers: what each is, what it needs, and whether it can run here.

A peer is looked at when the first scenario asks for it: its packages are installed if they are missing,
and it is mounted once for a trial. What came out of it, its version or the reason why not, goes into the
results, so that a report can say it.
"""

import dataclasses
import os
import shutil
import subprocess

from . import machine, others
from .machine import BenchError
from .report import NOT_ASKED


@dataclasses.dataclass(frozen=True)
class Peer:
    """One of the table. PROGRAMS come from PACKAGES; SYSTEM is a file system that the kernel must have."""

    name: str
    what: str
    packages: tuple = ()
    programs: tuple = ()
    system: str = ""
    needs_root: bool = False


TABLE = (
    Peer("native", "the same files where they are, in the kernel's page cache"),
    Peer("null_fuse", "answers every read from one constant buffer: no FUSE server can be faster"),
    Peer("null_fuse_memory", "the same with as much memory to read from as the set has"),
    Peer("passthrough_hp", "libfuse's own example, built with the libfuse that foldfs is linked to"),
    Peer("bindfs", "FUSE, one thread", ("bindfs",), ("bindfs",), needs_root=True),
    Peer("mergerfs", "FUSE, a union of directories; here of one", ("mergerfs",), ("mergerfs",), needs_root=True),
    Peer("fuse-overlayfs", "FUSE, what containers without root use", ("fuse-overlayfs",), ("fuse-overlayfs",),
         needs_root=True),
    Peer("overlayfs", "the kernel's, what containers use", system="overlay", needs_root=True),
    Peer("reflink-xfs", "XFS on a loop device, clones by cp --reflink", ("xfsprogs",), ("mkfs.xfs",), "xfs",
         needs_root=True),
    Peer("reflink-btrfs", "btrfs on a loop device, clones by cp --reflink", ("btrfs-progs",), ("mkfs.btrfs",), "btrfs",
         needs_root=True),
    Peer("zfs-fuse", "ZFS by FUSE with dedup on, its pool in a file", ("zfs-fuse",), ("zfs-fuse", "zpool", "zfs"),
         needs_root=True),
    Peer("erofs", "an image by mkfs.erofs, equal chunks of 4 KiB stored once", ("erofs-utils",), ("mkfs.erofs",), "erofs",
         needs_root=True),
)
NAMES = tuple(peer.name for peer in TABLE)


def _has_system(name):
    def known():
        with open("/proc/filesystems", encoding="ascii") as lines:
            return any(line.split()[-1] == name for line in lines)
    if not known() and shutil.which("modprobe"):
        subprocess.run(["modprobe", name], capture_output=True, timeout=20, check=False)
    return known()


def _package_version(package):
    shown = machine.output_of("dpkg-query", "-W", "-f", "${Version}", package)
    return f"{package} {shown}" if shown else ""


class Peers:
    """Which of the table take part in this run, and what is known of them."""

    def __init__(self, bench, wanted):
        self.bench = bench
        self.wanted = wanted
        self.known = {}  # by name: None, or why it cannot run

    def can(self, name):
        """Whether the run wants this peer and it runs here."""
        if name not in self.wanted:
            return False
        if name not in self.known:
            peer = next(peer for peer in TABLE if peer.name == name)
            self.known[name] = self._why_not(peer)
            if self.known[name]:
                self.bench.say(f"{name} can't run here: {self.known[name]}")
        return self.known[name] is None

    def cannot(self, name, why):
        """It was thought to run, and does not."""
        self.known[name] = why
        self.bench.say(f"{name} can't run here: {why}")

    def _why_not(self, peer):
        if peer.needs_root and not machine.is_root():
            return "needs root"
        missing = [program for program in peer.programs if not shutil.which(program)]
        if missing:
            self.bench.progress(f"installing {', '.join(peer.packages)}")
            why = machine.install(peer.packages)
            if why:
                return why
        if peer.name in ("null_fuse", "null_fuse_memory", "passthrough_hp"):
            path = self.bench.tool(peer.name.removesuffix("_memory"))
            return None if os.access(path, os.X_OK) else f"{os.path.basename(path)} is not built (scripts/build)"
        if peer.system and not _has_system(peer.system):
            return f"this kernel has no {peer.system}"
        if peer.name in others.TRIALS:
            try:
                others.trial(self.bench, peer.name)
            except (BenchError, OSError, subprocess.SubprocessError) as error:
                return str(error)
        return None

    def document(self):
        """For the result file: every peer of the table that was asked for."""
        return [{"name": peer.name, "what": peer.what,
                 "version": " ".join(filter(None, (_package_version(name) for name in peer.packages))),
                 "used": peer.name in self.known and self.known[peer.name] is None,
                 "reason": self.known.get(peer.name, NOT_ASKED)}
                for peer in TABLE if peer.name in self.wanted]
