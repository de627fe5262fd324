# SPDX-License-Identifier: Apache-2.0
"""Files that are written to go on telling their clones what they hold, as long as it is known that nobody else has
them open; and no longer."""

import errno
import os
import signal

from harness import MIB, PAGE, check, equal, fails_with, read_file, sync_source, test, until, write_file
from test_family import PAGES, adopted, changed, members, founder_of, make_clones, scan
from users import OTHER, as_user

OPTIONS = ["window=0", "passthrough_max=0"]


def leases(mount):
    return mount.status()["leases"]


def write_page(t, fd, model, page):
    """Other bytes in PAGE of the file open as FD, and in MODEL."""
    model[page * PAGE:(page + 1) * PAGE] = t.rng.randbytes(PAGE)
    equal(os.pwrite(fd, model[page * PAGE:(page + 1) * PAGE], page * PAGE), PAGE, "written")


def opened(mount, names, flags=os.O_RDWR):
    return {name: os.open(mount.path(name), flags) for name in names}


def close_all(fds):
    for fd in fds.values():
        os.close(fd)


def content_of(fd):
    pieces, at = [], 0
    while piece := os.pread(fd, MIB, at):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def guests_write(t, source):
    """Each clone is written to before anything is read: what they have in common is read for one of them."""
    files = make_clones(t, source, 4)
    scan(t, source)
    mount = t.mount(source, OPTIONS, transport="dev")
    fds, models = opened(mount, files), {name: bytearray(files[name]) for name in files}
    equal(leases(mount)["held"], 4, "leases")
    told, expected = set(), 0
    for number, name in enumerate(sorted(files)):
        write_page(t, fds[name], models[name], 10 + number)
    founder = files[founder_of(source, files)]
    for number, name in enumerate(sorted(files)):
        equal(content_of(fds[name]), bytes(models[name]), name)
        mine = members(files[name], founder) - {10 + number}
        expected += len(mine & told)
        equal(adopted(mount), expected, "adopted after " + name)
        told |= mine
    check(expected > 2 * PAGES, "adopted: %d" % expected)
    # The audit reads by the descriptions that there are.
    mount.audit()
    equal(leases(mount), {"held": 4, "broken": 0}, "leases after the audit")
    close_all(fds)
    until(lambda: leases(mount)["held"] == 0, 5 * t.patience, "leases given back")
    mount.unmount()


@test()
def a_written_file_tells_what_it_did_not_change(t):
    """On the file system of the tests."""
    guests_write(t, t.make_dir("source"))


@test()
def on_ext4(t):
    """The same."""
    guests_write(t, t.loop_file_system("ext4", size=128 * MIB))


@test()
def on_xfs(t):
    """The same."""
    guests_write(t, t.loop_file_system("xfs", size=400 * MIB))


@test()
def who_opens_it_in_the_source_ends_the_proof(t):
    """The file is opened in the source, to be read or to be written, at once, and is changed there beside our own
    changes: no clone gets a byte of that."""
    source = t.make_dir("source")
    files = make_clones(t, source, 3)
    scan(t, source)
    mount = t.mount(source, OPTIONS)
    fds, models = opened(mount, files), {name: bytearray(files[name]) for name in files}
    for name in files:
        write_page(t, fds[name], models[name], 10)
    equal(leases(mount), {"held": 3, "broken": 0}, "leases")
    os.close(os.open(source + "/clone2", os.O_RDONLY))
    equal(leases(mount), {"held": 2, "broken": 1}, "leases, one was opened for reading")
    # Who does not wait is refused once, and the lease is given back all the same.
    try:
        os.close(os.open(source + "/clone1", os.O_RDWR | os.O_NONBLOCK))
    except OSError as error:
        equal(error.errno, errno.EAGAIN, "an open that does not wait")
    until(lambda: leases(mount) == {"held": 1, "broken": 2}, 5 * t.patience, "the lease given back")
    with open(source + "/clone0", "r+b", buffering=0) as behind:
        equal(leases(mount), {"held": 0, "broken": 3}, "leases, all were opened")
        foreign = t.rng.randbytes(300 * PAGE)
        os.pwrite(behind.fileno(), foreign, 20 * PAGE)
        models["clone0"][20 * PAGE:320 * PAGE] = foreign
        # Now our own change is the last one: the stamp is ours.
        write_page(t, fds["clone0"], models["clone0"], 11)
        equal(content_of(fds["clone0"]), bytes(models["clone0"]), "clone0")
    for name in ("clone1", "clone2"):
        equal(content_of(fds[name]), bytes(models[name]), name)
    equal(adopted(mount), 0, "adopted")
    mount.expect_log("opened behind the mount")
    close_all(fds)
    mount.unmount()


@test()
def a_lease_that_was_taken_away_proves_nothing(t):
    """The daemon stands still for longer than the kernel waits for a lease to be given back; somebody writes to the
    file meanwhile. It is the kernel that is asked, not what the daemon was told."""
    source = t.make_dir("source")
    files = make_clones(t, source, 2)
    scan(t, source)
    mount = t.mount(source, OPTIONS)
    fds, models = opened(mount, files), {name: bytearray(files[name]) for name in files}
    for name in files:
        write_page(t, fds[name], models[name], 10)
    with open("/proc/sys/fs/lease-break-time", "r+") as patience:
        before = patience.read()
        t.at_end(lambda: write_file("/proc/sys/fs/lease-break-time", before.encode()))
        patience.seek(0)
        patience.write("1\n")
    mount.process.send_signal(signal.SIGSTOP)
    try:
        with open(source + "/clone0", "r+b", buffering=0) as behind:
            foreign = t.rng.randbytes(300 * PAGE)
            os.pwrite(behind.fileno(), foreign, 20 * PAGE)
            models["clone0"][20 * PAGE:320 * PAGE] = foreign
    finally:
        mount.process.send_signal(signal.SIGCONT)
    equal(content_of(fds["clone0"]), bytes(models["clone0"]), "clone0")
    equal(content_of(fds["clone1"]), bytes(models["clone1"]), "clone1")
    equal(adopted(mount), 0, "adopted")
    mount.expect_log("opened behind the mount")
    close_all(fds)
    mount.unmount()


@test()
def a_second_open_through_the_mount_ends_nothing(t):
    """It gets the description that there is, if the source says that its user may; who may not changes nothing. With
    other flags it gets its own, and the proof has ended."""
    source = t.make_dir("source")
    os.chmod(t.directory, 0o755)
    files = make_clones(t, source, 2)
    os.chmod(source + "/clone0", 0o600)
    os.chmod(source, 0o755)
    scan(t, source)
    mount = t.mount(source, OPTIONS + ["allow_other"])
    fds, models = opened(mount, files), {name: bytearray(files[name]) for name in files}
    write_page(t, fds["clone0"], models["clone0"], 10)
    as_user(t, OTHER, fails_with, errno.EACCES, "a user's open", os.open, mount.path("clone0"), os.O_RDONLY)
    as_user(t, OTHER, fails_with, errno.EACCES, "a user's open", os.open, mount.path("clone1"), os.O_RDWR)
    as_user(t, OTHER, lambda: equal(read_file(mount.path("clone1")), files["clone1"], "by a user"))
    equal(read_file(mount.path("clone0")), bytes(models["clone0"]), "clone0 by a second open")
    second = os.open(mount.path("clone0"), os.O_RDWR)
    os.close(fds["clone0"])
    write_page(t, second, models["clone0"], 11)
    equal(os.fsync(second), None, "flushed")
    os.truncate(mount.path("clone0"), 900 * PAGE)
    os.ftruncate(second, PAGES * PAGE)
    models["clone0"][900 * PAGE:] = bytes((PAGES - 900) * PAGE)
    equal(leases(mount), {"held": 2, "broken": 0}, "leases")
    equal(content_of(fds["clone1"]), files["clone1"], "clone1")
    fds["clone0"] = os.open(mount.path("clone0"), os.O_RDWR | os.O_SYNC)
    equal(leases(mount), {"held": 1, "broken": 0}, "leases with another description")
    equal(content_of(second), bytes(models["clone0"]), "clone0")
    os.close(second)
    close_all(fds)
    mount.unmount()


@test()
def the_last_of_several_descriptions_is_proven(t):
    """As QEMU opens an image: to be read, then to be written, and the first one is closed."""
    source = t.make_dir("source")
    files = make_clones(t, source, 2)
    scan(t, source)
    mount = t.mount(source, OPTIONS)
    first = opened(mount, files, os.O_RDONLY)
    fds = opened(mount, files)
    equal(leases(mount)["held"], 0, "leases while there are two")
    close_all(first)
    until(lambda: leases(mount)["held"] == 2, 5 * t.patience, "leases on what is left")
    models = {name: bytearray(files[name]) for name in files}
    for name in files:
        write_page(t, fds[name], models[name], 10)
    for name in files:
        equal(content_of(fds[name]), bytes(models[name]), name)
    check(adopted(mount) > PAGES // 2, "adopted: %d" % adopted(mount))
    close_all(fds)
    mount.unmount()
