# SPDX-License-Identifier: Apache-2.0
"""Whole machines that write to their disks: what their images have in common is read once, whoever writes."""

import os
import subprocess
import time

from harness import MIB, PAGE, check, equal, sync_source, test
from images import boot_directory, copy_image
from limits import Limit
from test_family import read_pages, scan

CLONES = ("clone1.img", "clone2.img", "clone3.img")
# Of what one machine alone reads of its disk.
MOST = 1.4
# For an emulated machine beside two others.
BOOT_SECONDS = 900


class Guest:
    """A QEMU that boots from IMAGE, read-write, and powers off."""

    def __init__(self, t, image, number):
        boot = boot_directory()
        self.console = t.path("console-%d" % number)
        self.errors = t.path("qemu-%d" % number)
        # Emulated everywhere: what is counted does not depend on it, and a nested KVM may be slower. Where the host is busy
        # the emulated timer may come too late for the check that the kernel makes of it.
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=single", "-m", "256", "-nographic", "-no-reboot",
                   "-nodefaults", "-serial", "file:" + self.console, "-monitor", "none", "-net", "none",
                   "-kernel", boot + "/vmlinuz", "-initrd", boot + "/initrd.img",
                   "-append", "root=/dev/vda rw console=ttyS0 quiet no_timer_check systemd.unit=poweroff.target",
                   "-drive", "file=%s,format=raw,if=virtio,cache=none,aio=threads" % image]
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)

    def finish(self, limit):
        while self.process.poll() is None and not limit.passed():
            time.sleep(0.5)
        if self.process.poll() is None:
            self.process.kill()
        status = self.process.wait(20)
        with open(self.errors, errors="replace") as errors, open(self.console, errors="replace") as console:
            equal(status, 0, "status of QEMU: %s\n%s" % (errors.read()[-500:], console.read()[-500:]))


def boot(t, mount, names):
    """Boot NAMES at the same time; pages that were read from the source meanwhile."""
    before, written = read_pages(mount), mount.status()["breaks"]
    limit = Limit(BOOT_SECONDS)
    for guest in [Guest(t, mount.path(name), number) for number, name in enumerate(names)]:
        guest.finish(limit)
    check(mount.status()["breaks"] > written, "the machines wrote to nothing that was in the pool")
    return read_pages(mount) - before


def read_alone(t, source, image):
    """What a machine reads that has no clones: from a mount that knows of nothing."""
    copy_image(image, source + "/alone.img")
    mount = t.mount(source, ["pool=1G", "window=128M", "state=" + t.path("no scan")], name="alone")
    pages = boot(t, mount, ["alone.img"])
    mount.unmount()
    os.unlink(source + "/alone.img")
    return pages


def mark(path, number):
    """A few pages of its own, as machines have."""
    with open(path, "r+b") as file:
        os.pwrite(file.fileno(), b"clone %d" % number, 900 * MIB + number * 2 * PAGE)


def judge(alone, together, what):
    check(together <= MOST * alone, "%s: three machines read %d pages, one alone %d: %.2f times as many" % (
        what, together, alone, together / alone))


@test(suite="full", timeout=3000, transports="one", presets=("release",), alone=True)
def clones_after_a_scan(t):
    """Three clones boot at once and write to their disks: after a scan they read hardly more than one that is alone; and
    so they do after an orderly unmount and a new mount, without another scan."""
    t.need("qemu-system-x86_64")
    image = boot_directory() + "/root.img"
    source = t.make_dir("source")
    alone = read_alone(t, source, image)
    for number, name in enumerate(CLONES):
        copy_image(image, os.path.join(source, name))
        mark(os.path.join(source, name), number)
    sync_source(source)
    scan(t, source)
    for what in ("after a scan", "after an orderly end"):
        mount = t.mount(source, ["pool=1G", "window=128M"], name=what.replace(" ", "-"))
        together = boot(t, mount, CLONES)
        print("%s: %d pages read, one alone %d" % (what, together, alone))
        mount.unmount()
        judge(alone, together, what)


@test(suite="full", timeout=2000, transports="one", presets=("release",), alone=True)
def clones_by_reflink_without_a_scan(t):
    """Three clones by reflink, made on XFS after the mount, boot at once and write to their disks: without any scan they
    read hardly more than one that is alone."""
    t.need("qemu-system-x86_64")
    source = t.loop_file_system("xfs", size=3 << 30)
    image = boot_directory() + "/root.img"
    alone = read_alone(t, source, image)
    copy_image(image, source + "/template.img")
    mount = t.mount(source, ["pool=1G", "window=128M"])
    for name in CLONES:
        t.run(["cp", "--reflink=always", source + "/template.img", os.path.join(source, name)])
    together = boot(t, mount, CLONES)
    print("by reflink: %d pages read, one alone %d" % (together, alone))
    equal(mount.status()["clones_found"], 2, "clones that were found")
    mount.unmount()
    judge(alone, together, "by reflink")
