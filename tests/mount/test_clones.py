# SPDX-License-Identifier: Apache-2.0
"""Clones by reflink, found at their open by their places on the disk: read once, and never wrong."""

import fcntl
import os
import struct
import subprocess
import sys

from harness import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, MIB, PAGE, check, equal, fallocate, read_file, sync_source, test,
                     until, write_file)
from test_family import adopted, changed, explained, known_pages, read_pages, scan
from users import OTHER, USER

PAGES = 1024
KINDS = {"xfs": "xfs", "btrfs": "btrfs"}


def file_system(t, kind):
    """A source that has reflinks, and a file on it with its content."""
    source = t.loop_file_system(kind, size=400 * MIB)
    content = t.rng.randbytes(PAGES * PAGE)
    write_file(source + "/template", content)
    if clone(t, source, "template", "probe", status=None).returncode:
        t.skip("no reflinks on this %s" % kind)
    os.unlink(source + "/probe")
    return source, content


def clone(t, source, of, name, status=0):
    return t.run(["cp", "--reflink=always", os.path.join(source, of), os.path.join(source, name)], status=status)


def found(mount):
    return mount.status()["clones_found"]


def change(path, content, at, piece):
    """PIECE at byte AT of the file and of its CONTENT, which is returned."""
    with open(path, "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), piece, at)
    return content[:at] + piece + content[at + len(piece):]


def find(mount, name):
    """Open a file until it is found to be a clone: btrfs may be just about to say so (clones.c)."""
    before = found(mount)

    def is_found():
        with open(mount.path(name), "rb"):
            return found(mount) > before

    until(is_found, 10, "%s was found to be a clone" % name)


def read_clone(t, mount, name, content, what):
    """As read_whole(), of one that is to be found."""
    find(mount, name)
    return read_whole(t, mount, name, content, what)


def read_whole(t, mount, name, content, what):
    """Read a file of which nothing is in the pool as its own, until all of it is. Returned is what tells how many pages
    came from the source since then, and how many were adopted."""
    before = read_pages(mount), adopted(mount)

    def resident():
        plan = explained(t, mount, name)
        return plan["pool_pages"] + plan["zero_pages"]

    equal(read_file(mount.path(name)), content, "%s: %s" % (what, name))
    # What a request has read is in the pool after its reader has it; counted it is after that.
    pages = -(-len(content) // PAGE)
    until(lambda: resident() == pages, 10, lambda: "%s: %d of %d pages are in the pool" % (name, resident(), pages))
    return lambda: (read_pages(mount) - before[0], adopted(mount) - before[1])


def adopts_all_but(counts, own, what):
    """All of its pages but OWN were adopted, and nothing else was read: at most twice, by its reader and ahead of it."""
    until(lambda: counts()[1] == PAGES - own, 10, lambda: "%s: pages read and adopted: %r" % (what, counts()))
    check(counts()[0] <= 2 * own, "%s: %d pages read" % (what, counts()[0]))


@test(transports="none", variants=KINDS)
def clone_of_what_is_known_is_not_read(t, kind):
    """A clone made while its template is in the pool, without any scan: not one page of it is read, and of a second
    one that has pages of its own only these."""
    source, content = file_system(t, kind)
    mount = t.mount(source, ["window=0", "passthrough_max=0", "state=" + t.path("no scan")], transport="dev")
    equal(read_whole(t, mount, "template", content, "first")()[1], 0, "pages adopted for the first")
    equal(found(mount), 0, "clones, before there is one")
    clone(t, source, "template", "one")
    adopts_all_but(read_clone(t, mount, "one", content, "cloned"), 0, "cloned")
    clone(t, source, "one", "two")
    other = change(source + "/two", content, 300 * PAGE + 10, b"of its own")
    adopts_all_but(read_clone(t, mount, "two", other, "cloned and changed"), 1, "cloned and changed")
    equal(found(mount), 2, "clones")
    equal(known_pages(t, mount, "two"), PAGES - 1, "explain knows of them")
    mount.unmount()


@test(transports="none", variants=KINDS)
def clones_of_what_nobody_opened_are_read_once(t, kind):
    """Two clones whose template nobody opened: what they have in common is read for the first of them."""
    source, content = file_system(t, kind)
    contents = {}
    for number in range(3):
        clone(t, source, "template", "clone%d" % number)
        contents["clone%d" % number] = change(source + "/clone%d" % number, content, number * 70 * PAGE, b"its own")
    mount = t.mount(source, ["window=0", "passthrough_max=0"], transport="dev")
    equal(read_whole(t, mount, "clone0", contents["clone0"], "the first")()[1], 0, "pages adopted for the first")
    for name in ("clone1", "clone2"):
        # It has a page of its own, and so has whichever of the others it was compared with.
        counts = read_clone(t, mount, name, contents[name], "another")
        until(lambda: PAGES - 3 <= counts()[1] <= PAGES - 2, 10, lambda: "%s: pages read and adopted: %r" % (name, counts()))
        check(counts()[0] <= 2 * 3, "%s: %d pages read" % (name, counts()[0]))
    mount.unmount()


@test(transports="none", variants=KINDS)
def clones_that_are_written(t, kind):
    """Template and clones are written through the mount, before, after and between opens: every byte is right, what is
    still shared is found, and what was changed is not adopted."""
    source, content = file_system(t, kind)
    mount = t.mount(source, ["passthrough_max=0", "window=256K"], transport="dev")
    model = {"template": content}

    def write(name, pages):
        with open(mount.path(name), "r+b", buffering=0) as file:
            for page in pages:
                piece = t.rng.randbytes(PAGE)
                os.pwrite(file.fileno(), piece, page * PAGE)
                model[name] = model[name][:page * PAGE] + piece + model[name][(page + 1) * PAGE:]

    def compare(what):
        for name, expected in model.items():
            equal(read_file(mount.path(name)), expected, "%s: %s" % (what, name))
            equal(read_file(os.path.join(source, name)), expected, "%s: %s in the source" % (what, name))

    write("template", range(0, 40))
    compare("written before")
    for round_ in range(3):
        name = "clone%d" % round_
        clone(t, source, "template", name)
        model[name] = model["template"]
        # The template is written after it was cloned, and before the clone is looked at.
        write("template", range(100 + round_ * 10, 105 + round_ * 10))
        compare("after clone %d" % round_)
        write(name, t.rng.sample(range(PAGES), 20))
        compare("after writes to clone %d" % round_)
    check(found(mount) >= 1, "no clone was found")
    mount.unmount()


@test(transports="none", variants=KINDS)
def clones_that_lose_their_blocks(t, kind):
    """Holes, a shorter file, and blocks that others got: what is not in the same place is not believed to be equal."""
    source, content = file_system(t, kind)
    mount = t.mount(source, ["window=0", "passthrough_max=0"], transport="dev")
    read_whole(t, mount, "template", content, "first")
    clone(t, source, "template", "holes")
    with open(source + "/holes", "r+b", buffering=0) as file:
        fallocate(file.fileno(), FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 100 * PAGE + 5, 20 * PAGE)
    holes = content[:100 * PAGE + 5] + bytes(20 * PAGE) + content[120 * PAGE + 5:]
    adopts_all_but(read_clone(t, mount, "holes", holes, "a clone with a hole"), 21, "a clone with a hole")
    clone(t, source, "template", "short")
    os.truncate(source + "/short", 500 * PAGE + 3)
    # The template and it end at different bytes of that page. It may have learnt from the clone with the hole.
    counts = read_clone(t, mount, "short", content[:500 * PAGE + 3], "a shorter clone")
    until(lambda: counts()[1] in (500, 500 - 21), 10, lambda: "a shorter clone: read and adopted: %r" % (counts(),))
    check(counts()[0] <= 2 * 22, "%d pages of a shorter clone were read" % counts()[0])
    # The template's blocks become free, but for those that its clones have, and others get them.
    os.unlink(source + "/short")
    os.unlink(source + "/holes")
    os.truncate(source + "/template", 0)
    sync_source(source)
    new = t.rng.randbytes(PAGES * PAGE)
    write_file(source + "/new", new)
    sync_source(source)
    clone(t, source, "new", "newer")
    write_file(source + "/template", new[:MIB] + bytes(MIB))
    clone(t, source, "new", "template2")
    for name, expected in (("template", new[:MIB] + bytes(MIB)), ("new", new), ("newer", new), ("template2", new)):
        read_whole(t, mount, name, expected, "after blocks were used again")
    mount.unmount()


@test(transports="none", variants=KINDS)
def clone_shuffled_behind_the_mount(t, kind):
    """Blocks of a clone are cloned to other places of it: the disk's places are the same, their offsets are not."""
    source, content = file_system(t, kind)
    mount = t.mount(source, ["window=0", "passthrough_max=0"], transport="dev")
    read_whole(t, mount, "template", content, "first")
    clone(t, source, "template", "moved")
    # FICLONERANGE (linux/fs.h): source descriptor, source offset, length, offset.
    with open(source + "/template", "rb") as old, open(source + "/moved", "r+b") as new:
        fcntl.ioctl(new, 0x4020940d, struct.pack("=qQQQ", old.fileno(), 200 * PAGE, 64 * PAGE, 600 * PAGE))
    moved = content[:600 * PAGE] + content[200 * PAGE:264 * PAGE] + content[664 * PAGE:]
    adopts_all_but(read_clone(t, mount, "moved", moved, "shuffled"), 64, "shuffled")
    mount.unmount()


@test(transports="none", variants=KINDS)
def whose_word_counts_among_clones(t, kind):
    """A user's file speaks for files of his own and for nobody else's; root's speaks for all."""
    source, content = file_system(t, kind)
    for name, uid in (("his", USER), ("his too", USER), ("another's", OTHER), ("another's too", OTHER)):
        clone(t, source, "template", name)
        os.chown(os.path.join(source, name), uid, uid)
        os.chmod(os.path.join(source, name), 0o644)
    mount = t.mount(source, ["window=0", "passthrough_max=0"], transport="dev")
    for name in ("his", "another's"):
        equal(read_whole(t, mount, name, content, "a user's")()[1], 0, "adopted for " + name)
    equal(found(mount), 0, "clones, of two users")
    for name in ("his too", "another's too"):
        adopts_all_but(read_clone(t, mount, name, content, "a user's"), 0, name)
    mount.unmount()
    mount = t.mount(source, ["window=0", "passthrough_max=0", "state=" + t.path("no scan")], name="again", transport="dev")
    read_whole(t, mount, "template", content, "root's")
    for name in ("his", "another's"):
        adopts_all_but(read_clone(t, mount, name, content, "of root's"), 0, name)
    mount.unmount()


@test(transports="none", variants=KINDS)
def clone_that_somebody_writes_to_behind_the_mount(t, kind):
    """While somebody has one of the two open for writing in the source, nothing is believed of them; afterwards it is."""
    source, content = file_system(t, kind)
    mount = t.mount(source, ["window=0", "passthrough_max=0"], transport="dev")
    read_whole(t, mount, "template", content, "first")
    clone(t, source, "template", "one")
    for name in ("template", "one"):
        with open(os.path.join(source, name), "r+b"):
            equal(read_file(mount.path("one")), content, "while %s is open for writing" % name)
            equal((found(mount), adopted(mount)), (0, 0), "clones, and pages adopted, while %s is" % name)
    find(mount, "one")
    mount.unmount()


@test(transports="none", variants=KINDS)
def clone_of_a_scanned_file(t, kind):
    """A clone made after the scan joins the family that the scan found, with what its template has of it."""
    source, content = file_system(t, kind)
    write_file(source + "/copy", changed(t, content, range(0, PAGES, 8)))
    sync_source(source)
    result = scan(t, source)
    check(result["family_files"] == 1, "the scan found no family: %r" % result)
    mount = t.mount(source, ["window=0", "passthrough_max=0"], transport="dev")
    read_whole(t, mount, "template", content, "scanned")
    clone(t, source, "template", "late")
    counts = read_clone(t, mount, "late", content, "cloned after the scan")
    until(lambda: counts()[1] > PAGES // 2, 10, lambda: "pages read and adopted: %r; clones: %d" % (counts(), found(mount)))
    mount.unmount()


WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
print(flush=True)
number = 0
while number < 4000:
    os.pwrite(fd, number.to_bytes(8, "little") * 512, number % 64 * 4096)
    number += 1
"""


@test(transports="none", variants=KINDS)
def clones_made_while_the_template_is_written(t, kind):
    """A writer on the mount changes the template all the time, and clones are made and opened beside it: each clone is,
    through the mount, what it is in the source."""
    source, _ = file_system(t, kind)
    mount = t.mount(source, ["passthrough_max=0", "window=0"], transport="dev")
    mount.expect_log("opened behind the mount")  # by who makes the clones
    with subprocess.Popen([sys.executable, "-c", WRITER, mount.path("template")], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        number = 0
        while writer.poll() is None or number < 3:
            name = "clone%d" % (number % 50)
            if os.path.exists(mount.path(name)):
                os.unlink(mount.path(name))
            clone(t, source, "template", name)
            equal(read_file(mount.path(name)), read_file(os.path.join(source, name)), name)
            number += 1
        equal(writer.wait(), 0, "the writer")
    mount.unmount()
