# SPDX-License-Identifier: Apache-2.0
"""Sharing: counted exactly, never visible, broken by every change of content for one file alone."""

import errno
import mmap
import os
import random
import struct
import time

from counting import PageCount
from harness import (FALLOC_COLLAPSE, FALLOC_INSERT, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, MIB, PAGE, check,
                     check_tree, equal, fallocate, make_clone, make_pages, make_tree, read_file, sync_source, test, until,
                     write_file)
from stamps import stamped, stamps

SHARING = ("pages_shared", "pages_unshared", "pages_sharing", "zero_pages")


def sharing_of(status):
    return {key: status[key] for key in SHARING}


def settled(mount, expected):
    """The status once it shows the sharing that is expected; read-ahead may still be publishing."""
    until(lambda: sharing_of(mount.status()) == expected, 5 * mount.t.patience,
          lambda: "sharing %s, counted independently; foldfs says %s" % (
              expected, sharing_of(mount.status())))
    return mount.status()


@test(transports="full")
def what_is_known_goes_with_the_last_name(t):
    """Files that were read and closed lose their pages when their last name goes, by unlink and by a rename over
    it; as long as there is another name nothing is read again."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 50)
    for name in ("removed", "replaced", "kept", "stays"):
        write_file(os.path.join(source, name), content[10 * PAGE:] if name == "stays" else t.rng.randbytes(50 * PAGE))
    os.link(source + "/kept", source + "/kept-too")
    sync_source(source)
    # Without a window nothing but the daemon knows the files.
    mount = t.mount(source, ["window=0"])

    def unshared(pages):
        settled(mount, {"pages_shared": 0, "pages_unshared": pages, "pages_sharing": 0, "zero_pages": 0})

    for name in ("removed", "replaced", "kept", "stays"):
        read_file(mount.path(name))
    unshared(190)
    os.unlink(mount.path("removed"))
    unshared(140)
    os.rename(mount.path("stays"), mount.path("replaced"))
    unshared(90)
    before = mount.status()["misses"]
    os.rename(mount.path("replaced"), mount.path("kept"))
    equal(read_file(mount.path("kept-too")), read_file(source + "/kept-too"), "the other name")
    equal(read_file(mount.path("kept")), content[10 * PAGE:], "what replaced the first name")
    equal(mount.status()["misses"], before, "misses")
    os.unlink(mount.path("kept-too"))
    os.unlink(mount.path("kept"))
    unshared(0)


@test(timeout=40, transports="each", variants={"window": [], "direct": ["window=0"]})
def counts_equal_an_independent_count(t, options):
    """After everything was read: frames are the distinct non-zero pages, what is saved is the rest.

    Invariant 4: with the 8-bit digest of the digest8 build nearly every look-up collides and the counts
    are the same.
    """
    source = t.make_dir("source")
    tree = make_tree(t.rng, source)
    count = PageCount()
    for content in tree.values():
        count.add(content)
    mount = t.mount(source, options)
    check_tree(mount.point, tree, "mount")
    status = settled(mount, count.expected())
    equal(status["frames_used"], len(count.users), "frames_used")
    equal(status["evictions"], 0, "evictions")
    saved = (status["pages_sharing"] + status["zero_pages"]) * PAGE
    check(saved * 0.8 <= status["general_profit"] <= saved, "general_profit is %d of %d saved" % (
        status["general_profit"], saved))
    if t.preset == "digest8":
        check(status["digest_collisions"] > 0, "an 8-bit digest without a collision")
    else:
        equal(status["digest_collisions"], 0, "digest_collisions")
    check_tree(mount.point, tree, "mount, again")
    equal(sharing_of(mount.status()), count.expected(), "sharing after a second pass")


@test(timeout=40, transports="full")
def counts_follow_removal_and_close(t):
    """Maps outlive close; a removed file gives its uses back once its map goes."""
    source = t.make_dir("source")
    base = make_pages(t.rng, 500)
    for name in "abc":
        write_file(source + "/" + name, base)
    mount = t.mount(source)
    for name in "abc":
        read_file(mount.path(name))
    settled(mount, {"pages_shared": 500, "pages_unshared": 0, "pages_sharing": 1000, "zero_pages": 0})
    os.unlink(mount.path("c"))
    equal(read_file(mount.path("a")), base, "a")
    equal(read_file(mount.path("b")), base, "b")
    status = mount.status()
    check(500 <= status["pages_sharing"] <= 1000, "pages_sharing is %d" % status["pages_sharing"])


@test(timeout=40, transports="each", variants={"window": [], "direct": ["window=0"]})
def same_pages_at_the_same_time(t, options):
    """Eight processes read clones of one file at once: every content is pooled once only."""
    source = t.make_dir("source")
    base = make_pages(t.rng, 2000)
    count = PageCount()
    clones = [make_clone(t.rng, base, 50) for _ in range(8)]
    for number, content in enumerate(clones):
        write_file("%s/%d" % (source, number), content)
        count.add(content)
    sync_source(source)
    mount = t.mount(source, options)

    def reader(number):
        equal(read_file(mount.path(str(number))), clones[number], "clone %d" % number)

    t.join([t.fork(reader, number) for number in range(8)])
    settled(mount, count.expected())


# ---- every change of content breaks sharing for its own file alone -------------------------------

BASE_PAGES = 300


def change_write(t, mount, source, model):
    with open(mount.path("a"), "r+b") as file:
        os.pwrite(file.fileno(), b"A" * 5000, 10 * PAGE + 100)
    model[10 * PAGE + 100:10 * PAGE + 5100] = b"A" * 5000


def change_whole_pages(t, mount, source, model):
    part = t.rng.randbytes(20 * PAGE)
    with open(mount.path("a"), "r+b") as file:
        os.pwrite(file.fileno(), part, 30 * PAGE)
    model[30 * PAGE:50 * PAGE] = part


def change_to_zero(t, mount, source, model):
    with open(mount.path("a"), "r+b") as file:
        os.pwrite(file.fileno(), bytes(8 * PAGE), 30 * PAGE)
    model[30 * PAGE:38 * PAGE] = bytes(8 * PAGE)


def change_mapped(t, mount, source, model):
    with open(mount.path("a"), "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[77777:77783] = b"mapped"
        mapped.flush()
    model[77777:77783] = b"mapped"


def change_truncate(t, mount, source, model):
    os.truncate(mount.path("a"), 100 * PAGE + 17)
    del model[100 * PAGE + 17:]


def change_extend(t, mount, source, model):
    os.truncate(mount.path("a"), 100 * PAGE + 17)
    os.truncate(mount.path("a"), 200 * PAGE + 5)
    del model[100 * PAGE + 17:]
    model += bytes(200 * PAGE + 5 - len(model))


def change_ftruncate(t, mount, source, model):
    with open(mount.path("a"), "r+b") as file:
        os.ftruncate(file.fileno(), 50 * PAGE + 1)
    del model[50 * PAGE + 1:]


def change_open_truncating(t, mount, source, model):
    with open(mount.path("a"), "wb") as file:
        file.write(b"short")
    model[:] = b"short"


def change_append(t, mount, source, model):
    with open(mount.path("a"), "ab") as file:
        file.write(b"appended" * 1000)
    model += b"appended" * 1000


def fallocate_like_source(t, mount, source, mode, offset, length):
    """The mode on the mount if the file system beneath has it; a mode that FUSE lacks must say so."""
    write_file(source + "/probe", bytes(64 * PAGE))
    with open(source + "/probe", "r+b") as probe:
        try:
            fallocate(probe.fileno(), mode, 0, 4 * PAGE)
        except OSError as error:
            t.skip("the source has no fallocate mode %d: %s" % (mode, error))
    with open(mount.path("a"), "r+b") as file:
        fallocate(file.fileno(), mode, offset, length)


def change_punch_hole(t, mount, source, model):
    fallocate_like_source(t, mount, source, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 20 * PAGE + 300, 9 * PAGE)
    model[20 * PAGE + 300:29 * PAGE + 300] = bytes(9 * PAGE)


def change_zero_range(t, mount, source, model):
    fallocate_like_source(t, mount, source, FALLOC_ZERO_RANGE, 290 * PAGE + 5, 30 * PAGE)
    del model[290 * PAGE + 5:]
    model += bytes(30 * PAGE)


def change_allocate_extending(t, mount, source, model):
    fallocate_like_source(t, mount, source, 0, 299 * PAGE, 10 * PAGE)
    model += bytes(9 * PAGE)


def change_collapse_range(t, mount, source, model):
    try:
        fallocate_like_source(t, mount, source, FALLOC_COLLAPSE, 16 * PAGE, 4 * PAGE)
    except OSError as error:
        equal(error.errno, errno.EOPNOTSUPP, "errno of collapse range")
        return
    del model[16 * PAGE:20 * PAGE]


def change_insert_range(t, mount, source, model):
    try:
        fallocate_like_source(t, mount, source, FALLOC_INSERT, 16 * PAGE, 4 * PAGE)
    except OSError as error:
        equal(error.errno, errno.EOPNOTSUPP, "errno of insert range")
        return
    model[16 * PAGE:16 * PAGE] = bytes(4 * PAGE)


def change_copy_file_range(t, mount, source, model):
    part = t.rng.randbytes(12 * PAGE)
    write_file(mount.path("other"), part)
    with open(mount.path("other"), "rb") as read, open(mount.path("a"), "r+b") as file:
        done = 0
        while done < len(part):
            copied = os.copy_file_range(read.fileno(), file.fileno(), len(part) - done, done,
                                        40 * PAGE + 8 + done)
            check(copied > 0, "copy_file_range copied nothing")
            done += copied
    model[40 * PAGE + 8:52 * PAGE + 8] = part


def change_behind_the_mount(t, mount, source, model):
    part = t.rng.randbytes(3 * PAGE)
    with open(source + "/a", "r+b") as file:
        os.pwrite(file.fileno(), part, 60 * PAGE)
        model[60 * PAGE:63 * PAGE] = part
        os.fsync(file.fileno())


def change_replace_behind_the_mount(t, mount, source, model):
    model[:] = t.rng.randbytes(120 * PAGE + 9)
    write_file(source + "/new", model)
    os.rename(source + "/new", source + "/a")
    time.sleep(1.2)  # the kernel may trust a name for as long as entry_timeout says


CHANGES = {name.removeprefix("change_"): function
           for name, function in list(globals().items()) if name.startswith("change_")}


@test(timeout=40, transports="full", variants=CHANGES)
def broken_for_one_file_alone(t, change):
    """Two files share all pages; one is changed. It has the new content, the other the old, by read, by
    mmap and in the source.

    Invariant 2: every operation that changes content goes through the one choke point.
    """
    source = t.make_dir("source")
    base = make_pages(t.rng, BASE_PAGES)
    for name in "ab":
        write_file(source + "/" + name, base)
    sync_source(source)
    mount = t.mount(source)
    for name in "ab":
        equal(read_file(mount.path(name)), base, name)
    settled(mount, {"pages_shared": BASE_PAGES, "pages_unshared": 0, "pages_sharing": BASE_PAGES,
                    "zero_pages": 0})
    model = bytearray(base)
    change(t, mount, source, model)
    for _ in range(2):
        equal(read_file(mount.path("a")), bytes(model), "the changed file")
        equal(read_file(mount.path("b")), base, "the other file")
    with open(mount.path("a"), "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        equal(mapped[:], bytes(model), "the changed file, mapped")
    check(mount.status()["pages_sharing"] <= BASE_PAGES, "more is shared than before")
    mount.unmount()
    equal(read_file(source + "/a"), bytes(model), "the changed file in the source")
    equal(read_file(source + "/b"), base, "the other file in the source")


@test(timeout=40, transports="each")
def a_write_costs_one_page(t):
    """One page written in one of two equal files: one frame more, one use less, one break."""
    source = t.make_dir("source")
    base = make_pages(t.rng, 400)
    for name in "ab":
        write_file(source + "/" + name, base)
    mount = t.mount(source)
    for name in "ab":
        read_file(mount.path(name))
    settled(mount, {"pages_shared": 400, "pages_unshared": 0, "pages_sharing": 400, "zero_pages": 0})
    before = mount.status()
    with open(mount.path("a"), "r+b") as file:
        os.pwrite(file.fileno(), t.rng.randbytes(PAGE), 7 * PAGE)
    after = settled(mount, {"pages_shared": 399, "pages_unshared": 2, "pages_sharing": 399,
                            "zero_pages": 0})
    equal(after["breaks"] - before["breaks"], 1, "breaks")


# ---- two writers, four readers, a shadow model ---------------------------------------------------

WORD = struct.Struct("<Q")


def page_of(owner, page, sequence):
    """What both files began with is their write 0."""
    return stamped(page, sequence << 1 | owner if sequence else 0)


class Shadow:
    """For each page of each file, in memory all processes share: the last write that began, and the last
    one that was acknowledged. What a reader sees must lie between the two."""

    def __init__(self, files, pages):
        self.pages = pages
        self.memory = mmap.mmap(-1, files * pages * 16)

    def _at(self, owner, page, which):
        return ((owner * self.pages + page) * 2 + which) * 8

    def begun(self, owner, page):
        return WORD.unpack_from(self.memory, self._at(owner, page, 0))[0]

    def done(self, owner, page):
        return WORD.unpack_from(self.memory, self._at(owner, page, 1))[0]

    def begin(self, owner, page, sequence):
        WORD.pack_into(self.memory, self._at(owner, page, 0), sequence)

    def end(self, owner, page, sequence):
        WORD.pack_into(self.memory, self._at(owner, page, 1), sequence)


def shadow_writer(mount, shadow, owner, seed, seconds):
    rng = random.Random(seed)
    fd = os.open(mount.path("ab"[owner]), os.O_RDWR)
    mapped = mmap.mmap(fd, 0)
    sequence = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sequence += 1
        first = rng.randrange(shadow.pages)
        count = min(rng.choice((1, 1, 1, 2, 7)), shadow.pages - first)
        for page in range(first, first + count):
            shadow.begin(owner, page, sequence)
        content = b"".join(page_of(owner, page, sequence) for page in range(first, first + count))
        if rng.randrange(4):
            os.pwrite(fd, content, first * PAGE)
        else:
            mapped[first * PAGE:(first + count) * PAGE] = content
            mapped.flush(first * PAGE, count * PAGE)
        for page in range(first, first + count):
            shadow.end(owner, page, sequence)
    mapped.close()
    os.close(fd)


def shadow_reader(mount, shadow, seed, seconds, by_map):
    rng = random.Random(seed)
    descriptors = [os.open(mount.path(name), os.O_RDONLY) for name in "ab"]
    maps = [mmap.mmap(fd, 0, prot=mmap.PROT_READ) for fd in descriptors]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        owner = rng.randrange(2)
        page = rng.randrange(shadow.pages)
        earliest = shadow.done(owner, page)
        if by_map:
            content = maps[owner][page * PAGE:(page + 1) * PAGE]
        else:
            content = os.pread(descriptors[owner], PAGE, page * PAGE)
        latest = shadow.begun(owner, page)
        for which, write in stamps(content):
            if write is None:
                check(earliest < latest, "page %d of file %d is torn, and nobody wrote" % (page, owner))
                continue
            whose, sequence = write & 1 if write else owner, write >> 1
            check((whose, which) == (owner, page) and earliest <= sequence <= latest,
                  "page %d of file %d has page %d of file %d, write %d; writes %d to %d were possible"
                  % (page, owner, which, whose, sequence, earliest, latest))


@test(timeout=60, transports="each", variants={
    "default": [], "direct": ["window=0"], "small": ["window=256K"], "tiny-pool": ["pool=1M", "window=256K"]})
def two_writers_four_readers(t, options):
    """Two files that share all pages, each with a writer (write and mapped stores), read by four readers
    (two by mmap) against a shadow model: no stale page, no page of the other file.

    Invariant 2 and 3: a stale fill is never published, a slot is never seen half changed.
    """
    source = t.make_dir("source")
    pages = 512
    base = b"".join(page_of(0, page, 0) for page in range(pages))
    for name in "ab":
        write_file(source + "/" + name, base)
    mount = t.mount(source, options)
    for name in "ab":
        equal(read_file(mount.path(name)), base, name)
    shadow = Shadow(2, pages)
    seconds = 6 if t.suite == "full" else 2
    writers = [t.fork(shadow_writer, mount, shadow, owner, t.rng.random(), seconds) for owner in (0, 1)]
    readers = [t.fork(shadow_reader, mount, shadow, t.rng.random(), seconds, by_map)
               for by_map in (0, 1, 0, 1)]
    t.join(writers + readers)

    def last(owner):
        return b"".join(page_of(owner, page, shadow.done(owner, page)) for page in range(pages))

    for owner in (0, 1):
        equal(read_file(mount.path("ab"[owner])), last(owner), "file %d at the end" % owner)
    mount.unmount()
    for owner in (0, 1):
        equal(read_file(source + "/" + "ab"[owner]), last(owner), "file %d in the source" % owner)


@test(timeout=60, transports="full")
def evicted_and_shared_again(t):
    """A pool of a quarter of the data: evictions are counted, gauges agree with each other, all reads right."""
    source = t.make_dir("source")
    base = make_pages(t.rng, 2048)
    contents = [make_clone(t.rng, base, 100) for _ in range(3)]
    for number, content in enumerate(contents):
        write_file("%s/%d" % (source, number), content)
    sync_source(source)
    mount = t.mount(source, ["pool=2M", "window=1M"])
    for _ in range(3):
        for number, content in enumerate(contents):
            equal(read_file(mount.path(str(number))), content, "clone %d" % number)
    status = mount.status()
    check(status["evictions"] > 0, "no eviction")
    equal(status["frames_total"], 2 * MIB // PAGE, "frames_total")
    check(status["frames_used"] <= status["frames_total"], "frames_used %(frames_used)d" % status)
    equal(status["pages_shared"] + status["pages_unshared"], status["frames_used"],
          "shared and unshared frames together")
