# SPDX-License-Identifier: Apache-2.0
"""Real images: disk images of Debian machines and their clones, through the mount."""

import hashlib
import os

from counting import PageCount
from harness import MIB, check, equal, make_clone, make_pages, read_file, test, write_file
from images import copy_image, image_directory
from test_sharing import settled

NAMES = ("base", "base-clone", "python3", "python3-clone")


def checksum(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(4 * MIB):
            digest.update(part)
    return digest.hexdigest()


@test(suite="full", timeout=240, transports="each", alone=True)
def whole_images(t):
    """Four real images read whole: the right checksums, and exactly the sharing that an independent count
    of their pages finds; read again they come from the pool."""
    images = image_directory()
    with open(images + "/SHA256SUMS") as sums:
        expected = {line.split()[1]: line.split()[0] for line in sums}
    names = NAMES[:2] if t.sanitized else NAMES
    count = PageCount()
    for name in names:
        count.add_file("%s/%s.img" % (images, name))
    mount = t.mount(images, ["pool=2G", "window=64M"])
    for name in names:
        equal(checksum(mount.path(name + ".img")), expected[name + ".img"], "checksum of " + name)
    status = settled(mount, count.expected())
    equal(status["evictions"], 0, "evictions")
    check(status["pages_sharing"] > 0 and status["zero_pages"] > 0, "images that share nothing")
    taken = status["memory"]["metadata_bytes"] + status["memory"]["index_bytes"]
    check(taken <= 96 * status["frames_used"], "%d bytes of metadata for %d frames" % (taken, status["frames_used"]))
    check(status["memory"]["maps_bytes"] <= 8 * count.nonzero + MIB, "maps take %d bytes for %d pages" % (
        status["memory"]["maps_bytes"], count.nonzero))
    misses = status["misses"]
    equal(checksum(mount.path(names[0] + ".img")), expected[names[0] + ".img"], "checksum, again")
    check(mount.status()["misses"] == misses, "misses in a second read")
    mount.unmount()


@test(suite="full", timeout=200, transports="each", alone=True)
def pool_smaller_than_the_images(t):
    """Two images through a pool of a tenth of their data: the right checksums, the pool within its bound."""
    images = image_directory()
    with open(images + "/SHA256SUMS") as sums:
        expected = {line.split()[1]: line.split()[0] for line in sums}
    mount = t.mount(images, ["pool=24M", "window=8M"])
    for name in NAMES[:2]:
        equal(checksum(mount.path(name + ".img")), expected[name + ".img"], "checksum of " + name)
    status = mount.status()
    check(status["evictions"] > 0, "no eviction")
    check(status["memory"]["pool_bytes"] <= 26 * MIB, "pool_bytes %d" % status["memory"]["pool_bytes"])
    mount.unmount()


def files_of(directory):
    found = {}
    for base, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(base, name)
            if os.path.isfile(path) and not os.path.islink(path):
                found[path[len(directory):]] = checksum(path)
    return found


def loop_mount(t, image, name, options="ro,noload"):
    point = t.make_dir(name)
    result = t.run(["mount", "-o", "loop," + options, image, point], status=None, timeout=60)
    if result.returncode:
        t.skip("no loop mount here: " + result.stderr.strip())
    return point


@test(suite="full", timeout=240, transports="each", alone=True)
def loop_mount_of_an_image(t):
    """`mount -o loop` of an image and of its clone through the mount: every file in them has the checksum
    that it has in the image mounted directly."""
    images = image_directory()
    mount = t.mount(images, ["pool=512M", "window=64M"])
    for name in NAMES[:2]:
        direct = loop_mount(t, "%s/%s.img" % (images, name), name + "-directly")
        expected = files_of(direct)
        t.run(["umount", direct], timeout=60)
        check(len(expected) > 1000, "an image of %d files" % len(expected))
        through = loop_mount(t, mount.path(name + ".img"), name + "-through")
        found = files_of(through)
        t.run(["umount", through], timeout=60)
        equal(sorted(found), sorted(expected), "files of " + name)
        for path, digest in expected.items():
            equal(found[path], digest, name + path)
    mount.unmount()


@test(timeout=60, transports="full")
def loop_mount_and_write(t):
    """A small ext4 image is mounted by a loop device through the mount, written, unmounted: e2fsck finds
    the source's image clean and the files right; its twin is what it was."""
    t.need("mkfs.ext4", "e2fsck")
    source = t.make_dir("source")
    with open(source + "/one.img", "wb") as file:
        file.truncate(24 * MIB)
    t.run(["mkfs.ext4", "-q", "-m", "0", source + "/one.img"])
    copy_image(source + "/one.img", source + "/two.img")
    before = checksum(source + "/two.img")
    mount = t.mount(source)
    read_file(mount.path("two.img"))
    point = loop_mount(t, mount.path("one.img"), "point", "rw")
    contents = {"file%d" % number: make_pages(t.rng, 100) + b"end" for number in range(10)}
    for name, content in contents.items():
        write_file(point + "/" + name, content)
    os.sync() if t.suite == "full" else t.run(["sync", "-f", point])
    for name, content in contents.items():
        equal(read_file(point + "/" + name), content, name)
    t.run(["umount", point], timeout=60)
    mount.unmount()
    t.run(["e2fsck", "-fn", source + "/one.img"])
    point = loop_mount(t, source + "/one.img", "directly")
    for name, content in contents.items():
        equal(read_file(point + "/" + name), content, name + ", directly")
    t.run(["umount", point])
    equal(checksum(source + "/two.img"), before, "the other image")


@test(timeout=60, transports="full", variants={"window": [], "direct": ["window=0"]})
def qcow2_through_the_mount(t, options):
    """A qcow2 made from a raw image through the mount: qemu-img check and compare find it right, there and
    in the source, and after writes with qemu-io too."""
    t.need("qemu-img", "qemu-io")
    source = t.make_dir("source")
    write_file(source + "/disk.raw", make_clone(t.rng, make_pages(t.rng, 2000, distinct=500), 20) + bytes(4 * MIB))
    mount = t.mount(source, options)
    raw, qcow = mount.path("disk.raw"), mount.path("disk.qcow2")
    for cache in ("none", "writeback"):
        t.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-t", cache, "-T", cache, raw, qcow])
        t.run(["qemu-img", "check", qcow])
        t.run(["qemu-img", "compare", "-T", cache, raw, qcow])
    for image, kind in ((qcow, "qcow2"), (raw, "raw")):
        for at in (0, 70000, 65536 * 3 - 512, 5 * MIB):
            t.run(["qemu-io", "-f", kind, "-c", "write -P 0x5a %d 8k" % (at // 512 * 512), "-c", "flush", image])
    t.run(["qemu-img", "compare", raw, qcow])
    t.run(["qemu-img", "check", qcow])
    mount.unmount()
    t.run(["qemu-img", "check", source + "/disk.qcow2"])
    t.run(["qemu-img", "compare", source + "/disk.raw", source + "/disk.qcow2"])


@test(suite="full", timeout=240, transports="full", alone=True)
def qcow2_of_an_image(t):
    """A real image converted to qcow2 in the source: qemu-img check and compare through the mount."""
    t.need("qemu-img")
    images = image_directory()
    source = t.make_dir("source")
    copy_image("%s/%s.img" % (images, NAMES[0]), source + "/disk.img")
    t.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", source + "/disk.img", source + "/disk.qcow2"],
          timeout=120)
    mount = t.mount(source, ["pool=512M", "window=64M"])
    t.run(["qemu-img", "check", mount.path("disk.qcow2")], timeout=120)
    t.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", mount.path("disk.img"), mount.path("disk.qcow2")],
          timeout=120)
    mount.unmount()
