# SPDX-License-Identifier: Apache-2.0
"""Pages that a scan found equal: read once for all files that have them, and never wrong."""

import json
import mmap
import os
import subprocess
import sys

from harness import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, MIB, PAGE, check, equal, fallocate, read_file, sync_source, test,
                     until, write_file)

PAGES = 1024


def scan(t, directory, *options):
    command = t.foldctl_command() + ["scan", "--json", "--state=" + t.path("state"), directory, *options]
    return json.loads(t.run(command, timeout=60 * t.patience).stdout)


def changed(t, content, pages):
    """CONTENT with other bytes in PAGES."""
    result = bytearray(content)
    for page in pages:
        result[page * PAGE:(page + 1) * PAGE] = t.rng.randbytes(PAGE)
    return bytes(result)


def founder_of(source, names):
    """Whom the others are compared with: the first in the catalogue's order."""
    return min(names, key=lambda name: os.stat(os.path.join(source, name)).st_ino.to_bytes(8, "little"))


def members(content, founder):
    """The pages with content that CONTENT has in common with FOUNDER at the same places."""
    return {at // PAGE for at in range(0, min(len(content), len(founder)), PAGE)
            if content[at:at + PAGE] == founder[at:at + PAGE] and any(content[at:at + PAGE])
            and (len(content) == len(founder) or at + PAGE <= min(len(content), len(founder)))}


def make_clones(t, source, count):
    """A file with holes, data and zeroes, and clones of it that have lived on: contents by name."""
    content = t.rng.randbytes(PAGES // 2 * PAGE) + bytes(PAGES // 8 * PAGE) + t.rng.randbytes(PAGES * 3 // 8 * PAGE)
    files = {"clone0": content}
    for number in range(1, count):
        files["clone%d" % number] = changed(t, content, t.rng.sample(range(PAGES), 40))
    for name, bytes_ in files.items():
        write_file(os.path.join(source, name), bytes_)
    sync_source(source)
    return files


def adopted(mount):
    return mount.status()["adopted"]


def explained(t, mount, name):
    return json.loads(t.run(t.foldctl_command() + ["explain", "--json", mount.path(name)]).stdout)


def known_pages(t, mount, name):
    return explained(t, mount, name)["known_pages"]


def read_pages(mount):
    """Pages that were read from the source."""
    status = mount.status()
    return status["misses"] + status["readahead"]


@test(transports="each")
def clones_are_read_once(t):
    """After a scan only what a clone has of its own is read, exactly that; without one, all of it. What the last one
    would adopt is audited before it does."""
    source = t.make_dir("source")
    files = make_clones(t, source, 4)
    found = scan(t, source)
    base = files["clone0"]
    for counted in (found, scan(t, source)):
        equal(counted["recorded"], True, "recorded")
    equal(found["family_files"], 3, "files that have pages in common with the first")
    mount = t.mount(source, ["ro", "window=0", "passthrough_max=0"])
    founder, told, expected = files[founder_of(source, files)], set(), 0
    last = max(files)
    for name in sorted(files):
        before = read_pages(mount)
        pages = members(files[name], founder)
        if name == last:
            with open(mount.path(name), "rb"):
                equal(mount.audit()["checks"]["families"]["checked"], len(pages & told), "pages to adopt, audited")
        equal(read_file(mount.path(name)), files[name], name)
        expected += len(pages & told)
        equal(adopted(mount), expected, "adopted after " + name)
        # Zeroes are no content, and are asked of the source.
        data = sum(1 for at in range(0, len(base), PAGE) if any(files[name][at:at + PAGE]))
        own = data - len(pages & told)
        # A reader and read-ahead may read a few of them both.
        check(own <= read_pages(mount) - before <= own + PAGES - data + 64, "%s: %d pages read, it has %d of its own" % (
            name, read_pages(mount) - before, own))
        told |= pages
    check(expected > 2 * PAGES, "adopted: %d" % expected)
    mount.unmount()


@test()
def what_the_scan_keeps_is_what_is_equal(t):
    """Clones, clones of clones, longer and shorter ones, the same content elsewhere, small files: what is adopted
    is what an independent comparison finds, and the bytes are right."""
    source = t.make_dir("source")
    base = t.rng.randbytes(PAGES * PAGE + 700)
    files = {
        "a": base,
        "clone": changed(t, base, t.rng.sample(range(PAGES), 30)),
        "longer": changed(t, base, (5, 6)) + t.rng.randbytes(300 * PAGE + 9),
        "shorter": changed(t, base, (700, 20))[:800 * PAGE + 77],
        "tail": base[:-1] + bytes([base[-1] ^ 1]),
        "shifted": t.rng.randbytes(PAGE) + base,
        "small": base[:60 * PAGE],  # not worth it
        "other": t.rng.randbytes(PAGES * PAGE),
    }
    for name, content in files.items():
        write_file(os.path.join(source, name), content)
    sync_source(source)
    found = scan(t, source)
    # A file that equals another one as a whole is served by it, and tells nothing.
    equal(found["equal_files"], 0, "files that are equal as wholes")
    alike = ("a", "clone", "longer", "shorter", "tail")
    equal(found["family_files"], len(alike) - 1, "files that are like another")
    equal(scan(t, source)["family_files"], 0, "not compared again")
    mount = t.mount(source, ["ro", "passthrough_max=0"], transport="dev")
    founder, told, expected = files[founder_of(source, alike)], set(), 0
    for name in sorted(files):
        equal(read_file(mount.path(name)), files[name], name)
        if name in alike:
            pages = members(files[name], founder)
            expected += len(pages & told)
            told |= pages
        equal(adopted(mount), expected, "adopted after " + name)
    mount.unmount()


@test(transports="each", timeout=60)
def changes_are_never_undone(t):
    """Writes, stores through a mapping, truncation and holes in one clone, with a pool that holds a quarter of the files
    and a window that holds nothing: what was changed stays so, and the other clones stay what they are."""
    source = t.make_dir("source")
    files = make_clones(t, source, 3)
    scan(t, source)
    mount = t.mount(source, ["pool=3M", "window=256K"])
    model = bytearray(files["clone1"])

    def compare(what):
        for name in ("clone0", "clone1", "clone2"):
            equal(read_file(mount.path(name)), bytes(model) if name == "clone1" else files[name], "%s: %s" % (what, name))

    compare("at first")
    pages = known_pages(t, mount, "clone1")
    check(pages > PAGES // 2, "explain knows of %d pages" % pages)
    check(adopted(mount) > 0, "nothing was adopted")
    with open(mount.path("clone1"), "r+b", buffering=0) as file:
        for _ in range(30):
            at, length = t.rng.randrange(len(model) - 9000), t.rng.randrange(1, 9000)
            model[at:at + length] = t.rng.randbytes(length)
            os.pwrite(file.fileno(), model[at:at + length], at)
        compare("after writes")
        with mmap.mmap(file.fileno(), 0) as mapped:
            for _ in range(30):
                at = t.rng.randrange(len(model))
                mapped[at] = model[at] = t.rng.randrange(256)
            mapped.flush()
        compare("after stores")
        fallocate(file.fileno(), FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 100 * PAGE + 5, 20 * PAGE)
        model[100 * PAGE + 5:120 * PAGE + 5] = bytes(20 * PAGE)
        compare("after a hole")
        os.ftruncate(file.fileno(), 500 * PAGE + 3)
        os.ftruncate(file.fileno(), len(model))
        model[500 * PAGE + 3:] = bytes(len(model) - 500 * PAGE - 3)
        compare("after it was cut")
    compare("after close")
    check(0 < known_pages(t, mount, "clone1") < pages, "explain knows of %d pages of clone1, %d at first" % (
        known_pages(t, mount, "clone1"), pages))
    equal(known_pages(t, mount, "clone2") > PAGES // 2, True, "explain: clone2")
    equal(read_file(source + "/clone1"), bytes(model), "the source")
    mount.unmount()


@test(transports="each")
def changes_behind_the_mount_are_its_files_alone(t):
    """Another process changes one clone in the source: it is seen at the next open, and what that file holds now is no
    other clone's content; nor is anything adopted for it that it has no more."""
    source = t.make_dir("source")
    files = make_clones(t, source, 3)
    scan(t, source)
    mount = t.mount(source, ["window=0"])
    with open(mount.path("clone1"), "rb", buffering=0) as early:
        # The first to be read from now on is the changed one: nobody may learn from it.
        for name in ("clone0", "clone1"):
            files[name] = changed(t, files[name], range(0, PAGES, 3))
            with open(os.path.join(source, name), "r+b", buffering=0) as file:
                file.write(files[name])
        equal(read_file(mount.path("clone0")), files["clone0"], "clone0, changed")
        equal(os.pread(early.fileno(), MIB, 0), files["clone1"][:MIB], "clone1, opened before it was changed")
        equal(read_file(mount.path("clone2")), files["clone2"], "clone2")
        equal(read_file(mount.path("clone1")), files["clone1"], "clone1, changed")
    equal(adopted(mount), 0, "adopted")
    mount.unmount()
    found = scan(t, source)
    equal((found["known_files"], found["family_files"]), (1, 2), "scanned again")
    mount = t.mount(source, ["ro", "passthrough_max=0"], name="again")
    for name, content in files.items():
        equal(read_file(mount.path(name)), content, name + ", after the second scan")
    check(adopted(mount) > PAGES, "adopted after the second scan: %d" % adopted(mount))
    mount.unmount()


READER = """
import os, sys
print(flush=True)
sys.stdin.read(1)
for path in sys.argv[1:]:
    with open(path, "rb", buffering=0) as file:
        at = 0
        while piece := os.pread(file.fileno(), 1 << 17, at):
            at += len(piece)
"""


@test(transports="each")
def at_the_same_time_each_page_is_read_for_one(t):
    """Eight readers of eight clones at once, in the same order: the source is read for one of them."""
    source = t.make_dir("source")
    base = t.rng.randbytes(PAGES * PAGE)
    names = ["clone%d" % number for number in range(8)]
    for name in names:
        write_file(os.path.join(source, name), changed(t, base, (0,)))
    sync_source(source)
    scan(t, source)
    mount = t.mount(source, ["ro", "window=0", "passthrough_max=0"])
    readers = [subprocess.Popen([sys.executable, "-c", READER, mount.path(name)], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE) for name in names]
    for reader in readers:
        reader.stdout.readline()
    for reader in readers:
        reader.stdin.write(b"x")
        reader.stdin.close()
    for reader in readers:
        equal(reader.wait(30 * t.patience), 0, "a reader")
        reader.stdout.close()
    until(lambda: read_pages(mount) + adopted(mount) >= PAGES * 8, 5 * t.patience, "everything was read")
    # Two that are at different places of the same pages may both read some of them.
    check(read_pages(mount) < 2 * PAGES + 8, "%d pages were read of %d" % (read_pages(mount), PAGES))
    mount.unmount()


def proved_by_extents(t, kind):
    source = t.loop_file_system(kind, size=400 * MIB)
    base = t.rng.randbytes(PAGES * PAGE)
    write_file(source + "/a", base)
    if t.run(["cp", "--reflink=always", source + "/a", source + "/b"], status=None).returncode:
        t.skip("no reflinks on this %s" % kind)
    with open(source + "/b", "r+b") as file:
        file.seek(300 * PAGE + 10)
        file.write(b"of its own")
    sync_source(source)
    scan(t, source)
    found = scan(t, source)
    equal((found["known_files"], found["read_bytes"]), (2, 0), "what is known is not read again")
    # The first step has to read both; what comes after reads a block or two around what differs.
    os.unlink(t.path("state", os.listdir(t.path("state"))[0], "data.mdb"))
    found = scan(t, source)
    equal(found["family_files"], 1, "in a family")
    check(found["read_bytes"] <= 2 * PAGES * PAGE + MIB, "%d bytes were read" % found["read_bytes"])
    mount = t.mount(source, ["ro", "passthrough_max=0"], transport="dev")
    equal(read_file(mount.path("a")), base, "a")
    with open(source + "/b", "rb") as file:
        equal(read_file(mount.path("b")), file.read(), "b")
    equal(adopted(mount), PAGES - 1, "adopted")
    mount.unmount()


@test(transports="none", suite="full")
def clones_by_reflink_on_xfs_are_not_read(t):
    """Clones by reflink are proved equal by their extents."""
    proved_by_extents(t, "xfs")


@test(transports="none", suite="full")
def clones_by_reflink_on_btrfs_are_not_read(t):
    """Clones by reflink are proved equal by their extents."""
    proved_by_extents(t, "btrfs")


@test(transports="none")
def a_file_that_is_written_to_joins_nothing(t):
    """Somebody has a clone open for writing while it is compared: nothing is kept of it."""
    source = t.make_dir("source")
    files = make_clones(t, source, 2)
    with open(source + "/clone1", "r+b"):
        equal(scan(t, source)["family_files"], 0, "while it is open for writing")
    equal(scan(t, source)["family_files"], 1, "afterwards")
    mount = t.mount(source, ["ro", "passthrough_max=0"], transport="dev")
    for name, content in files.items():
        equal(read_file(mount.path(name)), content, name)
    mount.unmount()
