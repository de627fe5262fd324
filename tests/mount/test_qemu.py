# SPDX-License-Identifier: Apache-2.0
"""Whole machines: a Debian and its clone, booted side by side by QEMU from images on the mount."""

import hashlib
import os
import re
import subprocess
import time

from harness import check, equal, test
from images import boot_directory, copy_image
from limits import Limit

# How each machine's disk is opened.
DISKS = {
    "none": "cache=none,aio=native",
    "writeback": "cache=writeback,aio=threads",
    "io_uring": "cache=none,aio=io_uring",
}


class Machine:
    """A QEMU with the image as its disk; its self-test writes, verifies, reports and powers off."""

    def __init__(self, t, image, seed, disk):
        boot = boot_directory()
        self.t = t
        self.seed = seed
        self.console = t.path("console-%d" % seed)
        acceleration = "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "tcg,thread=single"
        command = ["qemu-system-x86_64", "-accel", acceleration, "-m", "384", "-nographic", "-no-reboot",
                   "-nodefaults", "-serial", "file:" + self.console, "-monitor", "none", "-net", "none",
                   "-kernel", boot + "/vmlinuz", "-initrd", boot + "/initrd.img",
                   "-append", "root=/dev/vda rw console=ttyS0 quiet foldfs.selftest=%d" % seed,
                   "-drive", "file=%s,format=raw,if=virtio,%s" % (image, disk)]
        self.log = open(t.path("qemu-%d" % seed), "wb")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def finish(self, seconds):
        """Wait until it has powered off; the checksum that it reports of what it wrote."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
            status = "none: not off after %d s" % seconds
        self.log.close()
        with open(self.console, errors="replace") as console:
            text = console.read()
        with open(self.t.path("qemu-%d" % self.seed), errors="replace") as log:
            messages = log.read()
        found = re.search(r"FOLDFS-SELFTEST (\w+) ?(.*)", text)
        check(found and found.group(1) == "OK", "the machine's self-test: %s; status of QEMU: %s; %s\n%s" % (
            found.group(0) if found else "no report", status, messages, text[-1500:]))
        equal(status, 0, "exit status of QEMU")
        return found.group(2).strip()


def check_image(t, image, seed, reported):
    """After power-off, in the source: a clean file system that has what the machine says it wrote."""
    t.run(["e2fsck", "-fn", image], timeout=120)
    data = t.path("data-%d" % seed)
    t.run(["debugfs", "-R", "dump /var/lib/foldfs-selftest/data " + data, image], timeout=60)
    with open(data, "rb") as file:
        content = file.read()
    equal(hashlib.sha256(content).hexdigest(), reported, "checksum of what machine %d wrote" % seed)
    check(content.startswith(b"%d0000000\n%d0000001\n" % (seed, seed)), "machine %d wrote %r" % (
        seed, content[:30]))


@test(suite="full", timeout=300, transports="each", alone=True)
def two_machines(t):
    """A Debian with cache=none and its clone with cache=writeback boot at once from the mount, read-write:
    both pass their self-test, both images are clean and right in the source, and they shared pages."""
    t.need("qemu-system-x86_64", "e2fsck", "debugfs")
    source = t.make_dir("source")
    for name in ("one.img", "two.img"):
        copy_image(boot_directory() + "/root.img", source + "/" + name)
    mount = t.mount(source, ["pool=512M", "window=64M"])
    machines = [Machine(t, mount.path("one.img"), 11, DISKS["none"]),
                Machine(t, mount.path("two.img"), 22, DISKS["writeback"])]
    most_shared = 0
    limit = Limit(t.limit - 60)
    while any(machine.process.poll() is None for machine in machines) and not limit.passed():
        most_shared = max(most_shared, mount.status()["pages_sharing"])
        time.sleep(1)
    hashes = [machine.finish(10) for machine in machines]
    check(most_shared > 1000, "at most %d pages were shared" % most_shared)
    mount.unmount()
    for name, machine, reported in zip(("one.img", "two.img"), machines, hashes):
        check_image(t, source + "/" + name, machine.seed, reported)
