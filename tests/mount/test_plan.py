# SPDX-License-Identifier: Apache-2.0
"""Opening: an inode's plan holds from its first open to its last release, in every order and mode."""

import errno
import itertools
import mmap
import os
import re

from counting import cached_bytes
from harness import (MIB, PAGE, check, equal, fails_with, fallocate, make_pages, read_file, sync_source, test, until,
                     write_file)
from plans import explained, plans, released, turned_out_unique
from users import as_user

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2

MODES = {
    "read": os.O_RDONLY,
    "write": os.O_WRONLY,
    "both": os.O_RDWR,
    "append": os.O_WRONLY | os.O_APPEND,
    "direct": os.O_RDWR | os.O_DIRECT,
    "mapped": os.O_RDWR,
}


class Client:
    """One open file of one mode, doing to it what the mode allows."""

    def __init__(self, path, mode, model):
        self.mode = mode
        self.model = model
        self.fd = os.open(path, MODES[mode])
        self.map = mmap.mmap(self.fd, len(model)) if mode == "mapped" else None

    def change(self, at, value):
        block = bytes([value]) * PAGE
        if self.mode == "mapped":
            self.map[at:at + PAGE] = block
            self.map.flush()
        elif self.mode == "direct":
            aligned = mmap.mmap(-1, PAGE)
            aligned[:] = block
            os.pwritev(self.fd, [aligned], at)
        elif self.mode in ("write", "both"):
            os.pwrite(self.fd, block, at)
        else:
            return
        self.model[at:at + PAGE] = block

    def look(self, what):
        if self.mode == "mapped":
            equal(bytes(self.map), bytes(self.model), "mapped " + what)
        elif self.mode == "direct":
            aligned = mmap.mmap(-1, len(self.model))
            os.preadv(self.fd, [aligned], 0)
            equal(bytes(aligned), bytes(self.model), "direct " + what)
        elif self.mode in ("read", "both"):
            equal(os.pread(self.fd, len(self.model), 0), bytes(self.model), self.mode + " " + what)

    def close(self):
        if self.map is not None:
            self.map.close()
        os.close(self.fd)


@test(transports="each", variants={"window": [], "direct": ["window=0"]})
def opened_in_every_order_and_mode(t, options):
    """Invariant 7: no open fails for how the file is open elsewhere, and all see one content: each pair of
    modes, in each order of open and close, with a change by either in between."""
    source = t.make_dir("source")
    model = bytearray(make_pages(t.rng, 16))
    write_file(source + "/file", model)
    mount = t.mount(source, options)
    path = mount.path("file")
    value = 0
    for first, second in itertools.product(MODES, repeat=2):
        for first_out in (True, False):
            clients = [Client(path, first, model)]
            clients[0].look("alone")
            clients.append(Client(path, second, model))
            for number, client in enumerate(clients):
                value = (value + 1) % 256
                client.change(number * PAGE, value)
                for other in clients:
                    other.look("of %s and %s" % (first, second))
            clients.pop(0 if first_out else 1).close()
            clients[0].look("after %s and %s" % (first, second))
            clients[0].close()
    equal(read_file(source + "/file"), bytes(model), "the source")
    check(os.path.getsize(path) == len(model), "the size")


@test(transports="full", variants={"window": [], "direct": ["window=0"]})
def every_kind_of_open_beside_every_other(t, options):
    """Opens of one file for reading, writing, O_DIRECT, O_APPEND, mapped and executed, in every order and
    while others are open: none is refused, all read and write the same bytes.

    Invariant 7: a plan holds from an inode's first open to its last release.
    """
    source = t.make_dir("source")
    content = bytearray(make_pages(t.rng, 40))
    write_file(source + "/file", content)
    os.chmod(source + "/file", 0o755)
    mount = t.mount(source, options)
    kinds = (os.O_RDONLY, os.O_RDWR, os.O_WRONLY, os.O_RDONLY | os.O_DIRECT, os.O_RDWR | os.O_DIRECT,
             os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_SYNC)
    aligned = mmap.mmap(-1, PAGE)
    held = []
    for _ in range(t.scaled(150, 40)):
        flags = t.rng.choice(kinds)
        fd = os.open(mount.path("file"), flags)
        page = t.rng.randrange(40)
        mapped = None
        if flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_APPEND:
            aligned[:] = t.rng.randbytes(PAGE)
            equal(os.pwritev(fd, [aligned], page * PAGE), PAGE, "written with flags %#x" % flags)
            content[page * PAGE:(page + 1) * PAGE] = aligned[:]
        if flags & os.O_ACCMODE != os.O_WRONLY:
            equal(os.preadv(fd, [aligned], page * PAGE), PAGE, "read with flags %#x" % flags)
            equal(aligned[:], bytes(content[page * PAGE:(page + 1) * PAGE]), "flags %#x" % flags)
            mapped = mmap.mmap(fd, 40 * PAGE, prot=mmap.PROT_READ)
            equal(mapped[:], bytes(content), "mapped with flags %#x" % flags)
        held.append((fd, mapped))
        if len(held) > 6 or not t.rng.randrange(8):
            t.rng.shuffle(held)
            for fd, mapped in held[:4]:
                os.close(fd)  # a mapping keeps the file open beyond this
                if mapped:
                    equal(mapped[:], bytes(content), "mapped, after close")
                    mapped.close()
            del held[:4]
    for fd, mapped in held:
        os.close(fd)
        if mapped:
            mapped.close()
    equal(read_file(source + "/file"), bytes(content), "the source")


# ---- passthrough --------------------------------------------------------------------------------

@test(transports="each", variants={"asked": ["passthrough=f*"], "without a window": ["passthrough=f*", "window=0"]})
def passthrough_in_every_order_and_mode(t, options):
    """The same of a file that the kernel serves by itself: each pair of modes, in each order."""
    opened_in_every_order_and_mode(t, options)


@test(transports="full", variants={"asked": ["passthrough=/file"], "without a window": ["passthrough=f*", "window=0"]})
def passthrough_beside_every_other_kind(t, options):
    """The same with every kind of open, held and mapped at random."""
    every_kind_of_open_beside_every_other(t, options)


@test(transports="full")
def unique_file_is_served_by_the_kernel(t):
    """A file that was read whole and shares nothing is passed through from its next first open on; one that
    shares, one that is too large and one that was not read are not."""
    source = t.make_dir("source")
    shared = make_pages(t.rng, 100)
    contents = {"unique": make_pages(t.rng, 100), "one": shared, "two": shared[PAGE:] + shared[:PAGE],
                "large": make_pages(t.rng, 300), "unread": make_pages(t.rng, 100)}
    for name, content in contents.items():
        write_file(source + "/" + name, content)
    mount = t.mount(source, ["passthrough_max=1M"])
    turned_out_unique(mount, "unique", "one", "two", "large")
    for name, own in (("unique", 1), ("one", 0), ("two", 0), ("large", 0), ("unread", 0)):
        before = mount.status()
        with open(mount.path(name), "rb") as file:
            equal(plans(mount)["own"], own, "files passed through, with %s open" % name)
            equal(file.read(), contents[name], name)
        after = mount.status()
        if own:
            equal(after["hits"] + after["misses"], before["hits"] + before["misses"],
                  "pages that the daemon answered")
        released(mount)


@test(transports="full")
def plan_holds_until_the_last_release(t):
    """Whatever a file turns out to be while it is open, and whatever is closed but mapped: its plan stays,
    and no open fails."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 64)
    write_file(source + "/file", content)
    mount = t.mount(source)
    first = os.open(mount.path("file"), os.O_RDONLY)
    equal(os.pread(first, len(content), 0), content, "the first")
    second = os.open(mount.path("file"), os.O_RDWR)
    equal(plans(mount)["own"], 0, "passed through while the window holds it")
    os.close(first)
    os.pwrite(second, b"x", 0)
    content = b"x" + content[1:]
    os.close(second)
    turned_out_unique(mount, "file")
    third = os.open(mount.path("file"), os.O_RDWR)
    equal(plans(mount)["own"], 1, "passed through")
    mapped = mmap.mmap(third, len(content))
    os.close(third)
    equal(plans(mount)["own"], 1, "passed through while it is mapped")
    with open(mount.path("file"), "r+b") as file:
        file.write(b"y")
        file.flush()
        equal(mapped[:1], b"y", "a write, in the mapping")
        mapped[1:2] = b"z"
        file.seek(0)
        equal(file.read(2), b"yz", "a store, in a read")
    mapped.close()
    released(mount)
    equal(read_file(mount.path("file")), b"yz" + content[2:], "through the window again")
    equal(read_file(source + "/file"), b"yz" + content[2:], "the source")


@test(transports="each")
def nothing_stale_after_passthrough(t):
    """What was written while the daemon was out of the way is what the window shows next, also where the
    kernel had cached the file before, and in what the pool knew of it."""
    source = t.make_dir("source")
    content = bytearray(make_pages(t.rng, 50))
    write_file(source + "/file", content)
    mount = t.mount(source)
    for number in range(t.scaled(20, 5)):
        turned_out_unique(mount, "file")
        fd = os.open(mount.path("file"), os.O_RDWR)
        equal(plans(mount)["own"], 1, "passed through")
        at = t.rng.randrange(len(content) - 9000)
        change = t.rng.randbytes(t.rng.randrange(1, 9000))
        content[at:at + len(change)] = change
        equal(os.pwrite(fd, change, at), len(change), "written")
        if number % 3 == 0:
            del content[-100:]
            os.ftruncate(fd, len(content))
        if number % 3 == 1:
            tail = t.rng.randbytes(4000)
            content += tail
            os.pwrite(fd, tail, len(content) - len(tail))
        equal(os.fstat(fd).st_size, len(content), "size while open")
        os.close(fd)
        released(mount)
        equal(read_file(mount.path("file")), bytes(content), "through the window")
    equal(read_file(source + "/file"), bytes(content), "the source")


@test(transports="full")
def every_change_in_passthrough(t):
    """fallocate, truncate, copy_file_range, fsync and seeking on a file that the kernel serves go to the
    source and are seen by reads and mappings at once."""
    source = t.make_dir("source")
    content = bytearray(make_pages(t.rng, 40))
    write_file(source + "/file", content)
    other = make_pages(t.rng, 10)
    write_file(source + "/other", other)
    mount = t.mount(source, ["passthrough=file"])
    fd = os.open(mount.path("file"), os.O_RDWR)
    equal(plans(mount)["own"], 1, "passed through")
    mapped = mmap.mmap(fd, len(content))
    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5 * PAGE + 100, 3 * PAGE)
    content[5 * PAGE + 100:8 * PAGE + 100] = bytes(3 * PAGE)
    equal(bytes(mapped), bytes(content), "mapped, after a punch")
    with open(mount.path("other"), "rb") as file:
        equal(os.copy_file_range(file.fileno(), fd, 2 * PAGE, 0, 20 * PAGE), 2 * PAGE, "copied in")
    content[20 * PAGE:22 * PAGE] = other[:2 * PAGE]
    equal(os.pread(fd, len(content), 0), bytes(content), "read, after a copy")
    with open(mount.path("other"), "r+b") as file:
        equal(os.copy_file_range(fd, file.fileno(), PAGE, 0, PAGE), PAGE, "copied out")
        equal(os.pread(file.fileno(), 3 * PAGE, 0),
              other[:PAGE] + bytes(content[:PAGE]) + other[2 * PAGE:3 * PAGE], "other")
    os.fsync(fd)
    mapped.close()
    os.truncate(mount.path("file"), 30 * PAGE + 7)
    os.ftruncate(fd, 40 * PAGE)
    content[30 * PAGE + 7:] = bytes(len(content) - 30 * PAGE - 7)
    equal(os.pread(fd, len(content), 0), bytes(content), "read, after truncates")
    equal(os.lseek(fd, 0, os.SEEK_DATA), 0, "SEEK_DATA")
    os.close(fd)
    equal(read_file(source + "/file"), bytes(content), "the source")


@test(transports="full")
def passthrough_leaves_nothing_behind(t):
    """Files that were read and mapped in passthrough take no memory of maps and of the window's notes: a tree
    of containers may have a hundred thousand. What a change needs that comes by way of the daemon is made then."""
    source = t.make_dir("source")
    contents = {str(number): t.rng.randbytes(t.rng.randrange(1, 3 * PAGE)) for number in range(100)}
    for name, content in contents.items():
        write_file(source + "/" + name, content)
    mount = t.mount(source, ["passthrough=*"])
    before = mount.status()["memory"]
    for name, content in contents.items():
        with open(mount.path(name), "r+b") as file:
            if name == "50":
                check(plans(mount)["own"] and not plans(mount)["window"], "passed through")
            equal(file.read(), content, name)
            with mmap.mmap(file.fileno(), 0) as mapped:
                equal(mapped[:], content, name + ", mapped")
    released(mount)
    after = mount.status()["memory"]
    for part in ("maps_bytes", "notes_bytes"):
        equal(after[part], before[part], part)
    with open(mount.path("1"), "r+b") as file:
        fallocate(file.fileno(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 10)
        equal(file.read(), bytes(10) + contents["1"][10:], "after a change by way of the daemon")


@test(transports="full")
def nothing_stale_of_a_forgotten_file(t):
    """What the kernel caches of a file is not kept at an open if what was known of the file was dropped since,
    to keep the maps within their budget: nobody could tell whether it was changed behind the mount."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 2)
    write_file(source + "/file", content)
    for number in range(600):
        write_file(source + "/%d" % number, b"x" * (number + 1))
    mount = t.mount(source, ["maps=64K"])
    equal(read_file(mount.path("file")), content, "content")
    for number in range(600):
        equal(read_file(mount.path(str(number))), b"x" * (number + 1), "another file")
    content = content[::-1]
    write_file(source + "/file", content)
    equal(read_file(mount.path("file")), content, "changed behind the mount, and opened after that")


@test(transports="full")
def globs(t):
    """passthrough=GLOB: without a slash for the last name, with one for the path below the source; may be
    given more than once; also for a file that is created."""
    source = t.make_dir("source")
    t.make_dir("source", "var", "log", "sub")
    names = {"a.log": True, "var/log/b.log": True, "var/lib": False, "var/log/x": True, "var/x": False, "c.logs": False,
             "var/log/sub/x": False}
    mount = t.mount(source, ["passthrough=*.log", "passthrough=/var/log/*"])
    for name, own in names.items():
        with open(mount.path(name), "w+b") as file:
            equal(plans(mount)["own"], int(own), "passed through, with %s created" % name)
            file.write(b"content of " + name.encode())
        released(mount)
        with open(mount.path(name), "rb") as file:
            equal(plans(mount)["own"], int(own), "passed through, with %s open" % name)
            equal(file.read(), b"content of " + name.encode(), name)
        released(mount)


@test(transports="full")
def passthrough_keeps_one_copy(t):
    """A file that is passed through is cached once: as the source file's pages, none as the mount's; and
    closing it, or fsync, drops nothing."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 512)
    write_file(source + "/file", content)
    sync_source(source)
    mount = t.mount(source, ["passthrough=file"])
    with open(mount.path("file"), "r+b") as file:
        equal(file.read(), content, "content")
        os.pwrite(file.fileno(), b"x", 0)
        os.fsync(file.fileno())
    check(cached_bytes(source + "/file") >= len(content), "the source's pages: %d" %
          cached_bytes(source + "/file"))
    equal(mount.status()["window"]["bytes"], 0, "the window")


@test(transports="full")
def overlayfs_on_passthrough(t):
    """overlayfs can be stacked on the mount while files of it are passed through."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 50)
    write_file(source + "/file", content)
    mount = t.mount(source, ["passthrough=*"])
    upper, work, merged = (t.make_dir(name) for name in ("upper", "work", "merged"))
    t.run(["mount", "-t", "overlay", "overlay", "-o",
           "lowerdir=%s,upperdir=%s,workdir=%s" % (mount.point, upper, work), merged])
    with open(merged + "/file", "rb") as file:
        equal(file.read(), content, "through overlayfs")
        equal(plans(mount)["own"], 1, "passed through below it")
    with open(merged + "/file", "r+b") as file:
        file.write(b"upper")
    equal(read_file(merged + "/file"), b"upper" + content[5:], "copied up")
    equal(read_file(source + "/file"), content, "the source")
    t.run(["umount", merged])


@test(transports="full")
def source_on_overlayfs(t):
    """A source on overlayfs: without source-stacked no passthrough, said once, everything right; with it
    passthrough, and overlayfs is refused on the mount."""
    lower, upper, work, merged = (t.make_dir(name) for name in ("lower", "upper", "work", "merged"))
    content = make_pages(t.rng, 50)
    write_file(lower + "/file", content)
    t.run(["mount", "-t", "overlay", "overlay", "-o",
           "lowerdir=%s,upperdir=%s,workdir=%s" % (lower, upper, work), merged])
    t.at_end(lambda: t.run(["umount", merged]))
    for options, own in ((["passthrough=*"], 0), (["passthrough=*", "source-stacked"], 1)):
        mount = t.mount(merged, options, name="mnt%d" % own)
        if not own:
            mount.expect_log("With -o source-stacked it is")
        for _ in range(2):
            with open(mount.path("file"), "r+b") as file:
                equal(plans(mount)["own"], own, "passed through with " + ",".join(options))
                equal(file.read(), content, "content")
                file.seek(0)
                file.write(b"w%d" % own)
                content = b"w%d" % own + content[2:]
            released(mount)
        if own:
            upper2, work2, merged2 = (t.make_dir(name) for name in ("upper2", "work2", "merged2"))
            t.run(["mount", "-t", "overlay", "overlay", "-o", "lowerdir=%s,upperdir=%s,workdir=%s" % (
                mount.point, upper2, work2), merged2], status=32)
        else:
            equal(len([line for line in mount.log_text().splitlines() if "passthrough" in line]), 1,
                  "lines of the log about it")
        mount.unmount()


@test(transports="full")
def source_on_overlayfs_on_overlayfs(t):
    """That is stacked too often even with source-stacked: said once, everything right; and not that source-stacked
    would help."""
    lower, upper, work, middle, upper2, work2, merged = (
        t.make_dir(name) for name in ("lower", "upper", "work", "middle", "upper2", "work2", "merged"))
    content = make_pages(t.rng, 50)
    write_file(lower + "/file", content)
    for layers in ((lower, upper, work, middle), (middle, upper2, work2, merged)):
        t.run(["mount", "-t", "overlay", "overlay", "-o", "lowerdir=%s,upperdir=%s,workdir=%s" % layers[:3], layers[3]])
        t.at_end(lambda point=layers[3]: t.run(["umount", point]))
    write_file(merged + "/new", content)
    mount = t.mount(merged, ["passthrough=*", "source-stacked"])
    mount.expect_log("file systems are stacked twice below the mount: every file( there)? is served from the window")
    for name in ("file", "new", "file"):
        with open(mount.path(name), "r+b") as file:
            equal(plans(mount)["own"], 0, "passed through")
            equal(file.read(), content, "content")
        released(mount)
    lines = [line for line in mount.log_text().splitlines() if "passthrough" in line]
    check(1 <= len(lines) <= 2 and len(set(lines)) == len(lines), "lines of the log about it: %s" % lines)
    check(not any("With -o source-stacked" in line for line in lines), "advice that was followed: %s" % lines)


@test(transports="full")
def explain(t):
    """foldctl explain says the plan that a file has, or would get, and why; asking changes neither."""
    source = t.make_dir("source")
    shared = make_pages(t.rng, 40)
    contents = {"unread": make_pages(t.rng, 40), "unique": make_pages(t.rng, 40), "one": shared, "two": shared,
                "large": make_pages(t.rng, 300), "asked": b"x", "empty": b""}
    for name, content in contents.items():
        write_file(source + "/" + name, content)
    mount = t.mount(source, ["passthrough=asked", "passthrough_max=1M"])
    turned_out_unique(mount, "unique", "one", "two", "large")
    for name, plan, reason in (("unread", "window", "not enough of it was known"), ("unique", "own passthrough", "next to nothing"),
                               ("one", "window", "shares pages"), ("large", "window", "larger than"),
                               ("asked", "own passthrough", "names it"), ("empty", "window", "empty")):
        for opened in (False, True, False):
            fd = os.open(mount.path(name), os.O_RDONLY) if opened else -1
            found = explained(t, mount.path(name))
            equal((found["plan"], found["open"]), (plan, opened), name)
            check(reason in found["reason"], "%s: %s" % (name, found["reason"]))
            if opened:
                os.close(fd)
                released(mount)
    with open(mount.path("unread"), "rb") as file:
        equal(file.read(), contents["unread"], "unread, read")
        found = explained(t, mount.path("unread"))
        equal((found["plan"], found["open"]), ("window", True), "the plan of who has it open, once more is known")
        check("not enough of it was known" in found["reason"], found["reason"])
    released(mount)
    equal(explained(t, mount.path("unread"))["plan"], "own passthrough", "the plan of the next one")
    text = t.run(t.foldctl_command() + ["explain", mount.path("unique")]).stdout
    check("unique: own passthrough, once it is opened, because it shares next to nothing." in text, text)
    equal(t.run(t.foldctl_command() + ["explain", source + "/unique"]).stdout, text, "of the file in the source")
    for path in (mount.point, t.path("log-0"), mount.path("none")):
        result = t.run(t.foldctl_command() + ["explain", path], status=1)
        check(result.stderr.startswith("foldctl: ") and result.stderr.count("\n") == 1, result.stderr)


@test(transports="each")
def explain_counts_pages(t):
    """foldctl explain says how much of a file is in the pool, shared, and zero: of a part of it before anything is
    known of the whole, exactly of what was read to its end, and nothing of what was not read."""
    source = t.make_dir("source")
    large, own = t.rng.randbytes(32 * MIB), make_pages(t.rng, 10)
    small = make_pages(t.rng, 20) + bytes(7 * PAGE)
    for name, content in (("a", large), ("b", large), ("c", own + small), ("d", small), ("unread", small)):
        write_file(source + "/" + name, content)
    mount = t.mount(source)

    def counts(name):
        found = explained(t, mount.path(name))
        return tuple(found[kind + "_pages"] for kind in ("pool", "shared", "zero"))

    for name in ("a", "b"):
        with open(mount.path(name), "rb", buffering=0) as file:
            equal(file.read(MIB), large[:MIB], name)
    for name in ("a", "b"):
        pool, shared, zero = counts(name)
        check(256 <= shared <= pool < 4096 and zero == 0, "%s: %r" % (name, (pool, shared, zero)))
        check("not enough of it was known" in explained(t, mount.path(name))["reason"], name)
        text = t.run(t.foldctl_command() + ["explain", mount.path(name)]).stdout
        check(re.search(r"MiB of it are in the pool. .* MiB of that are shared", text), text)
    for name in ("c", "d"):
        read_file(mount.path(name))
    for name, expected in (("c", (30, 20, 7)), ("d", (20, 20, 7)), ("unread", (0, 0, 0))):
        until(lambda n=name, e=expected: counts(n) == e, 10 * t.patience,
              lambda n=name, e=expected: "%s: %r, expected %r" % (n, counts(n), e))


@test(transports="full")
def set_id_bits_in_passthrough(t):
    """A write takes set-id bits away whatever the plan: nobody keeps or gets a set-id program that others can
    write to."""
    source = t.make_dir("source")
    for name in ("writer", "reader-first", "open-before", "unpacked"):
        write_file(source + "/" + name, b"program")
        os.chmod(source + "/" + name, 0o666 if name in ("open-before", "unpacked") else 0o4777)
    mount = t.mount(source, ["passthrough=*", "suid"])

    def mode(name):
        return os.stat(mount.path(name)).st_mode & 0o7777

    def write(name):
        fd = os.open(mount.path(name), os.O_WRONLY)
        os.write(fd, b"X")
        os.close(fd)

    as_user(t, 1000, lambda: write("writer"))
    equal(mode("writer"), 0o777, "written by somebody else")
    reader = os.open(mount.path("reader-first"), os.O_RDONLY)
    equal(plans(mount)["own"], 1, "passed through")
    mapped = mmap.mmap(reader, 7, prot=mmap.PROT_READ)
    as_user(t, 1000, lambda: write("reader-first"))
    equal(mode("reader-first"), 0o777, "written while somebody reads it")
    equal((os.pread(reader, 7, 0), mapped[:7]), (b"Xrogram", b"Xrogram"), "what that one sees")
    equal(read_file(mount.path("reader-first")), b"Xrogram", "what the next one sees")

    def gives_bits_to_an_open_one():
        fd = os.open(mount.path("open-before"), os.O_RDWR)
        equal(plans(mount)["own"], 2, "passed through")
        t.join([t.fork(os.chmod, mount.path("open-before"), 0o6777)])
        equal(mode("open-before"), 0o777, "set-id bits while another writes")
        os.close(fd)

    gives_bits_to_an_open_one()
    fd = os.open(mount.path("unpacked"), os.O_WRONLY)
    os.write(fd, b"program")
    os.fchmod(fd, 0o4777)
    as_user(t, 1000, lambda: fails_with(errno.ETXTBSY, "one more writer", os.open, mount.path("unpacked"), os.O_WRONLY))
    os.fchmod(fd, 0o4755)
    os.close(fd)
    equal(mode("unpacked"), 0o4755, "set by the one that writes")
    mapped.close()
    os.close(reader)
    released(mount)
