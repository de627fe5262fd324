# SPDX-License-Identifier: Apache-2.0
"""foldctl upgrade: another program takes the place of the one that serves a mount, and clients notice nothing."""

import fcntl
import itertools
import mmap
import os
import shutil
import time

from faulty import build
from harness import HERE, PAGE, check, equal, make_pages, read_file, test, until, write_file
from processes import children_of, daemons_of, has_ended
from programs import FLOCK, OFD, POSIX, WRITE, Program, ends_programs
from test_locks import TAKEN, until_waiting
from test_set import set_words
from test_survive import PRESETS, RELEASE, kill_under_load, kill_worker, survive_mount, worker_of


def upgrade(t, mount, *program, status=0):
    return t.run(t.foldctl_command() + ["upgrade", mount.point, *program], status=status, timeout=150 * t.patience)


def copy_of_program(t, name="new"):
    path = t.path(name)
    shutil.copy(t.foldfs_command()[-1], path)
    return path


def program_of(pid):
    return os.readlink("/proc/%d/exe" % pid)


def counts(mount):
    status = mount.status()
    return status["takeovers"], status["exchanges"]


@test(timeout=60, presets=PRESETS)
@ends_programs
def everything_stays(t):
    """What is open, mapped, locked, listed in part, without a name, and set: as before, ten times in a row, to another
    file each time, with a crash in between. The process is the same one, and runs the new file."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 64)
    for name in ("file", "gone", "lock"):
        write_file(source + "/" + name, content)
    os.mkdir(source + "/directory")
    for name in range(500):
        write_file(source + "/directory/%d" % name, b"")
    mount = survive_mount(t, source, ["pool=64M"])
    set_words(t, mount, "pool=32M")
    keeper = mount.process.pid
    client, waiter, stranger = (Program(t) for _ in range(3))
    locks = [client.open(mount.path("lock")), waiter.open(mount.path("lock")), stranger.open(source + "/lock")]
    for how in (POSIX, OFD, FLOCK):
        equal(client.lock(locks[0], how, WRITE, 0, 10) if how != OFD else client.lock(locks[0], how, WRITE, 20, 10), 0,
              how)
    waiter.send("lock", locks[1], POSIX, WRITE, 0, 5, True)
    until_waiting(mount, 1)
    fd, gone = (os.open(mount.path(name), os.O_RDWR) for name in ("file", "gone"))
    os.unlink(mount.path("gone"))
    mapped = mmap.mmap(fd, len(content))
    model = bytearray(content)
    for number in range(10):
        program = copy_of_program(t, "new-%d" % number)
        with os.scandir(mount.path("directory")) as entries:
            names = [next(entries).name for _ in range(100)]
            said = upgrade(t, mount, program).stdout
            check("is served by foldfs" in said, said)
            names += [entry.name for entry in entries]
        equal(sorted(names, key=int), [str(n) for n in range(500)], "names of a listing that was begun before")
        equal((program_of(keeper), program_of(worker_of(mount))), (program, program), "what runs")
        page = t.rng.randrange(64)
        model[page * PAGE:page * PAGE + 6] = b"stored"
        mapped[page * PAGE:page * PAGE + 6] = b"stored"
        mapped.flush()
        os.pwrite(gone, b"%d" % number, page * PAGE)
        equal(os.pread(gone, 1, page * PAGE), b"%d" % number, "the file without a name")
        equal(os.pread(fd, len(content), 0), bytes(model), "content")
        equal(read_file(source + "/file"), bytes(model), "content in the source")
        equal(stranger.lock(locks[2], POSIX, WRITE, 0, 5), TAKEN, "the range of a process")
        equal(stranger.lock(locks[2], OFD, WRITE, 20, 5), TAKEN, "the range of an open file")
        equal(stranger.lock(locks[2], FLOCK, WRITE), TAKEN, "the whole file")
        check(mount.status()["settings"].startswith("pool=32M,window=4M"), mount.status()["settings"])
        if number == 5:
            kill_worker(mount)
    equal(counts(mount), (1, 10), "deaths and exchanges")
    equal(client.lock(locks[0], POSIX, fcntl.F_UNLCK, 0, 10), 0, "it is unlocked")
    equal(waiter.result(), 0, "the client that has waited all the time")
    mapped.close()
    os.close(fd)
    os.close(gone)


@test(timeout=60, presets=RELEASE)
def nothing_leaks(t):
    """After ten exchanges: as many inodes, handles, descriptors and processes as after the first."""
    source = t.make_dir("source")
    for number in range(200):
        write_file(source + "/%d" % number, b"content")
    mount = survive_mount(t, source, ["entry_timeout=0", "attr_timeout=0"])
    program = copy_of_program(t)

    def used():
        fds = [os.open(mount.path(str(number)), os.O_RDONLY) for number in range(200)]
        upgrade(t, mount, program)
        equal(mount.status()["open_handles"], 200, "open handles")
        for fd in fds:
            os.close(fd)
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("2")
        until(lambda: mount.status()["inodes"] == 1, 20, "nothing is known")
        upgrade(t, mount)
        return len(os.listdir("/proc/%d/fd" % worker_of(mount)))

    first = used()
    until(lambda: len(children_of(mount.process.pid)) == 2, 10, "a worker and the attendant")
    for _ in range(4):
        equal(used(), first, "descriptors")
    until(lambda: len(children_of(mount.process.pid)) == 2, 10, "a worker and the attendant")
    mount.unmount()


@test(timeout=60)
def what_cannot_take_over_is_refused(t):
    """No program, a directory, a text, another program, records of another form, a mount that does not survive: each is
    refused in one sentence, and the mount goes on as it was."""
    source = t.make_dir("source")
    write_file(source + "/file", b"content")
    mount = survive_mount(t, source, environment=wrong(t, "foreign"))
    worker = worker_of(mount)
    for program, said in ((t.path("none"), "cannot open the program"), (source, "is not a file"),
                          (source + "/file", "does not run"), ("/bin/true", "is no foldfs"),
                          ("/bin/cat", "is no foldfs"),
                          (impostor(), "in another form")):
        refused = upgrade(t, mount, program, status=1).stderr
        check(said in refused and refused.count("\n") == 1, refused)
        equal(worker_of(mount), worker, "the process that serves")
    mount.unmount()
    mount = t.mount(source, ["survive=off"], name="other", transport="dev")
    check("was not made with survive=on" in upgrade(t, mount, status=1).stderr, "a mount that does not survive")
    mount.unmount()


def impostor():
    return build("upgrade_to", os.path.join(HERE, "upgrade_to.c"))


def wrong(t, what):
    return {"FOLDFS_REAL": t.foldfs_command()[-1], "FOLDFS_WRONG": what,
            "FOLDFS_DIES_LIBRARY": build("upgrade_to.so", os.path.join(HERE, "upgrade_to.c"),
                                         flags=["-shared", "-fPIC", "-DLIBRARY"])}


@test(timeout=120, presets=("release",), variants={what: what for what in ("exits", "crashes", "dies")})
def a_program_that_does_not_come_up(t, what):
    """It passes for foldfs, and then ends, dies, or has workers that die: the old one goes on, and can be exchanged."""
    source = t.make_dir("source")
    write_file(source + "/file", b"content")
    mount = survive_mount(t, source, environment=wrong(t, what), audit=False)
    mount.expect_log("The old one goes on" if what != "dies" else "The program before goes on")
    mount.expect_log("has died of signal 6")
    mount.expect_log("given up")
    fd = os.open(mount.path("file"), os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    before = program_of(worker_of(mount))
    said = upgrade(t, mount, impostor(), status=1).stderr
    check("is served as before" in said, said)
    equal(os.pread(fd, 10, 0), b"content", "content")
    keeper = parent_of_worker(mount, source)
    equal(program_of(keeper), before, "what runs")
    other = os.open(source + "/file", os.O_RDWR)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise AssertionError("the lock is lost")
    except BlockingIOError:
        os.close(other)
    upgrade(t, mount, copy_of_program(t))
    os.close(fd)
    t.run(["umount", mount.point])
    until(lambda: has_ended(keeper), 20, "the keeper has ended")


def parent_of_worker(mount, source):
    """The keeper, which need not be the process that was started."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = read_file("/proc/%s/cmdline" % pid).split(b"\0")
        except OSError:
            continue
        if source.encode() in words and mount.point.encode() in words:
            if daemons_of(int(pid)):
                found.append(int(pid))
    equal(len(found), 1, "keepers: %s" % found)
    return found[0]


# ---- under load -----------------------------------------------------------------------------------------------------


def exchange_under_load(t, rounds):
    programs = [copy_of_program(t, "new-%d" % number) for number in range(2)]
    turns = itertools.count(1)

    def exchange(t, mount):
        number = next(turns)
        begin = time.monotonic()
        upgrade(t, mount, programs[number % 2])
        pause = time.monotonic() - begin
        if number % 5 == 0:
            kill_worker(mount)
        equal(counts(mount), (number // 5, number), "deaths and exchanges")
        return pause

    kill_under_load(t, rounds, exchange)


@test(timeout=120, presets=RELEASE)
def under_load(t):
    """Writers, mapped stores, changes of names, a walk and locks: no error, nothing lost, ten exchanges and two
    deaths."""
    exchange_under_load(t, t.scaled(10, 5))


@test(suite="full", timeout=600, presets=PRESETS)
def under_load_50_times(t):
    exchange_under_load(t, t.scaled(50, 20))
