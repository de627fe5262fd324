# SPDX-License-Identifier: Apache-2.0
"""Files that are equal as a whole: one backing file for all, as long as they are, and coherent as was asked for."""

import ctypes
import errno
import itertools
import mmap
import os
import shutil
import subprocess

from counting import cached_bytes
from harness import LIBC, PAGE, check, equal, errno_of, fails_with, read_file, sync_source, test, until, write_file
from plans import EQUAL, MODES_OF_EQUAL, equal_files, plans, released, scan
from test_plan import MODES, Client


@test(transports="full", timeout=60)
def equal_files_are_one_in_memory(t):
    """In a read-only mount, after a scan, equal files have one backing file: one copy in memory for read and mmap,
    each with its own attributes; and nobody can store into it."""
    source, content = equal_files(t)
    mount = t.mount(source, ["ro"])
    sync_source(source)
    t.run(["sh", "-c", "echo 1 >/proc/sys/vm/drop_caches"])
    fds = {name: os.open(mount.path(name), os.O_RDONLY) for name in EQUAL + ("nearly",)}
    equal(plans(mount)["shared"], len(EQUAL), "files that share their backing file")
    maps = {}
    for number, (name, fd) in enumerate(fds.items()):
        maps[name] = mmap.mmap(fd, len(content), prot=mmap.PROT_READ)
        expected = read_file(source + "/nearly") if name == "nearly" else content
        equal(os.pread(fd, len(content), 0), expected, name)
        equal(maps[name][:], expected, name + ", mapped")
        if name != "nearly":
            found = os.fstat(fd)
            uid, mode = MODES_OF_EQUAL[name]
            equal((found.st_mode & 0o777, found.st_uid, found.st_mtime_ns), (mode, uid, 10 ** 18 + number),
                  "attributes of " + name)
        equal(make_writable(mount.path(name)), errno.EACCES, "a mapping of %s made writable" % name)
    for fd in fds.values():
        reopened = errno_of(os.open, "/proc/self/fd/%d" % fd, os.O_RDWR)
        equal(reopened, errno.EROFS, "opened anew for writing")
    cached = [name for name in EQUAL if cached_bytes(source + "/" + name)]
    check(len(cached) <= 2, "of the source's equal files these are in memory: %s" % cached)
    for mapped in maps.values():
        mapped.close()
    for fd in fds.values():
        os.close(fd)
    released(mount)


def make_writable(path):
    """errno of mprotect(2), making the mapping of a file writable."""
    with open("/proc/self/maps") as maps:
        lines = [line for line in maps if line.rstrip("\n").endswith(path)]
    LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    failed = LIBC.mprotect(int(lines[0].split("-")[0], 16), PAGE, mmap.PROT_READ | mmap.PROT_WRITE)
    return ctypes.get_errno() if failed else 0


@test(transports="full", timeout=60)
def equal_files_are_told_by_the_status(t):
    """What the kernel need not cache of equal files: each counts once, however often it is opened, and still after all
    are closed and forgotten."""
    source, content = equal_files(t)
    mount = t.mount(source, ["ro"])
    equal(mount.status()["equal"], {"files": 0, "backing_files": 0, "saved_bytes": 0}, "before")
    for round_ in range(3):
        for number, name in enumerate(EQUAL):
            equal(read_file(mount.path(name)), content, name)
            found = mount.status()["equal"]
            files = len(EQUAL) if round_ else number + 1
            check(1 <= found["backing_files"] <= 2, "backing files: %r" % found)
            equal((found["files"], found["saved_bytes"]), (files, (files - found["backing_files"]) * len(content)),
                  "counted after %s, round %d" % (name, round_))
        released(mount)
        write_file("/proc/sys/vm/drop_caches", b"2")
    text = t.run(t.foldctl_command() + ["status", mount.point]).stdout
    check("equal files that the kernel caches once" in text, text)


@test(transports="full", timeout=60)
def equal_files_that_change_behind(t):
    """A record holds for the stamp that it was made under: an equal file that is replaced or changed is served as
    it is from its next first open on, also the one that backs the others."""
    source, content = equal_files(t)
    mount = t.mount(source, ["ro", "attr_timeout=0", "entry_timeout=0"])
    for name in EQUAL:
        with open(mount.path(name), "rb") as file:
            equal(plans(mount)["shared"], 1, "shared")
            equal(file.read(), content, name)
        released(mount)
        new = t.rng.randbytes(len(content))
        with open(source + "/" + name, "r+b") as file:
            file.write(new)
        equal(read_file(mount.path(name)), new, name + ", changed")
        for other in EQUAL[EQUAL.index(name) + 1:]:
            equal(read_file(mount.path(other)), content, "%s, after %s was changed" % (other, name))
        released(mount)


@test(transports="full", timeout=60)
def equal_file_that_changes_while_it_is_open(t):
    """Seen at the next open at the latest, also when somebody has the file open all the time; and that one
    keeps what it opened."""
    source, content = equal_files(t)
    for options in (["ro"], ["coherence=overlay"]):
        mount = t.mount(source, options + ["attr_timeout=0", "entry_timeout=0"], name=options[0][:2])

        def is_shared():
            fd = os.open(mount.path("d"), os.O_RDONLY)
            if not plans(mount)["shared"]:
                os.close(fd)
                released(mount)
                return None
            return [fd]

        keeper, = until(is_shared, 20, "shared")
        new = t.rng.randbytes(len(content))
        with open(source + "/d", "r+b") as file:
            file.write(new)
        for _ in range(2):
            equal(read_file(mount.path("d")), new, "opened after a change behind the mount")
        equal(plans(mount)["shared"], 1, "the one that was open before still shares")
        os.close(keeper)
        released(mount)
        equal(read_file(mount.path("d")), new, "opened when nobody has it open")
        write_file(source + "/d", content)
        scan(t, source)


@test(transports="each", timeout=60)
def coherence_overlay(t):
    """coherence=overlay: who has an equal file open or mapped keeps what it opened; who opens it afterwards sees
    every write, and so does the source; the other equal files never change."""
    source, content = equal_files(t)
    mount = t.mount(source, ["coherence=overlay"])

    def is_shared():
        with open(mount.path("a"), "rb") as file:
            equal(file.read(), content, "a")
            if plans(mount)["shared"]:
                return True
        released(mount)
        return False

    until(is_shared, 20, "a copy is kept of what the files hold")
    released(mount)
    readers = {name: os.open(mount.path(name), os.O_RDONLY) for name in EQUAL}
    equal(plans(mount)["shared"], len(EQUAL), "files that share their backing file")
    maps = {name: mmap.mmap(fd, len(content), prot=mmap.PROT_READ) for name, fd in readers.items()}
    written = os.open(mount.path("a"), os.O_RDWR)
    equal(os.fstat(written).st_ino, os.fstat(readers["a"]).st_ino, "inode number")
    os.pwrite(written, b"changed", 5000)
    os.truncate(mount.path("b"), 100)
    os.close(os.open(mount.path("sub/c"), os.O_RDONLY | os.O_TRUNC))
    new = {"a": content[:5000] + b"changed" + content[5007:], "b": content[:100], "sub/c": b"", "d": content}
    for name, fd in readers.items():
        equal(os.pread(fd, len(content), 0), content, name + ", by who had it open")
        equal(maps[name][:], content, name + ", by who had it mapped")
        equal(read_file(mount.path(name)), new[name], name + ", opened afterwards")
        equal(read_file(source + "/" + name), new[name], name + " in the source")
    later = os.open(mount.path("a"), os.O_RDONLY)
    mapped = mmap.mmap(later, len(content), prot=mmap.PROT_READ)
    os.pwrite(written, b"again", 0)
    equal((os.pread(later, 5, 0), mapped[:5]), (b"again", b"again"), "a write, by who opened since")
    equal(os.pread(readers["a"], 5, 0), content[:5], "the same by who had it open before")
    mapped.close()
    for each in maps.values():
        each.close()
    for fd in list(readers.values()) + [written, later]:
        os.close(fd)
    released(mount)
    equal(read_file(mount.path("a")), b"again" + new["a"][5:], "a, in the end")
    mount.unmount()
    again = t.mount(source, ["coherence=overlay"], name="again")
    with open(again.path("d"), "rb") as file:
        equal(file.read(), content, "d, in a new mount")
        equal(plans(again)["shared"], 1, "shared at once: the copy was kept")


@test(transports="full", timeout=60)
def coherence_overlay_of_a_running_program(t):
    """coherence=overlay: a program that is being executed cannot be written, as natively; afterwards it can, and its
    equals stay what they are."""
    source, names = t.make_dir("source"), ("one", "other")
    content = read_file(shutil.which("sleep"))
    for name in names:
        write_file(os.path.join(source, name), content)
        os.chmod(os.path.join(source, name), 0o755)
    scan(t, source)
    mount = t.mount(source, ["coherence=overlay"])

    def starts_shared():
        running = subprocess.Popen([mount.path("one"), "1000"])
        if plans(mount)["shared"]:
            return running
        running.kill()
        running.wait()
        released(mount)
        return None

    running = until(starts_shared, 20, "it runs from the copy that is kept")
    try:
        for what, call, *arguments in (("opened", os.open, os.O_RDWR), ("emptied", os.open, os.O_WRONLY | os.O_TRUNC),
                                       ("truncated", os.truncate, 100)):
            fails_with(errno.ETXTBSY, what, call, mount.path("one"), *arguments)
    finally:
        running.kill()
        running.wait()
    released(mount)
    with open(mount.path("one"), "r+b") as file:
        file.write(b"no program any more")
    equal(read_file(mount.path("one"))[:19], b"no program any more", "written when it had ended")
    equal(read_file(mount.path("other")), content, "its equal")


@test(transports="full", timeout=60)
def coherence_overlay_in_every_order_and_mode(t):
    """Equal files, opened in every order and mode, with readers that come and go: no open fails, and who writes sees
    what it wrote."""
    source, content = equal_files(t, 16)
    mount = t.mount(source, ["coherence=overlay"])
    for _ in range(3):
        read_file(mount.path("a"))
        released(mount)
    for name in EQUAL:
        model = bytearray(content)
        for first, second in itertools.product(MODES, repeat=2):
            keeper = os.open(mount.path("d" if name != "d" else "a"), os.O_RDONLY)
            clients = [Client(mount.path(name), first, model)]
            clients.append(Client(mount.path(name), second, model))
            if first != "read" or second == "read":
                for number, client in enumerate(clients):
                    client.change(number * PAGE, t.rng.randrange(256))
                    for other in clients:
                        other.look("%s of %s and %s" % (name, first, second))
            for client in clients:
                client.close()
            os.close(keeper)
        equal(read_file(source + "/" + name), bytes(model), name + " in the source")
