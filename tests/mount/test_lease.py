# SPDX-License-Identifier: Apache-2.0
"""Files that are written to go on telling their clones what they hold, as long as it is known that nobody else has
them open; and no longer."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time

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


def close_dead(fds):
    """Of a mount that has ended: close(2) has nobody to ask. Which error it is depends on who came first: the end of
    the last descriptor, or the guardian, who aborts the connection."""
    for fd in fds.values():
        try:
            os.close(fd)
        except OSError as error:
            check(error.errno in (errno.ENOTCONN, errno.ECONNABORTED), "close: errno %d" % error.errno)
        else:
            check(False, "close of a file of a mount that has ended")


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


@test(variants={"foldctl": [], "the daemon": ["scan=background"]})
def a_scan_passes_them_over(t, options):
    """What clients have open for writing no scan opens: it says so, and the proof goes on."""
    source = t.make_dir("source")
    files = make_clones(t, source, 3)
    scan(t, source)
    mount = t.mount(source, OPTIONS + options)
    fds, models = opened(mount, files), {name: bytearray(files[name]) for name in files}
    for name in files:
        write_page(t, fds[name], models[name], 10)
    result = t.run(t.foldctl_command() + ["scan", mount.point, "--json"], timeout=60 * t.patience)
    found = json.loads(result.stdout)
    equal((found["changed_files"], found["unreadable_files"]), (3, 0), "files left out, and failures")
    equal(leases(mount), {"held": 3, "broken": 0}, "leases")
    close_all(fds)
    mount.unmount()


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
    os.kill(mount.serving_pid(), signal.SIGSTOP)
    try:
        with open(source + "/clone0", "r+b", buffering=0) as behind:
            foreign = t.rng.randbytes(300 * PAGE)
            os.pwrite(behind.fileno(), foreign, 20 * PAGE)
            models["clone0"][20 * PAGE:320 * PAGE] = foreign
    finally:
        os.kill(mount.serving_pid(), signal.SIGCONT)
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


# DIRECTORY FLAGS: opens and closes all that is in it, again and again.
OPENER = """
import os, sys
for _ in range(300):
    for name in os.listdir(sys.argv[1]):
        os.close(os.open(os.path.join(sys.argv[1], name), int(sys.argv[2])))
"""


@test(timeout=60)
def opened_at_the_same_time_by_clients_alone(t):
    """Clients open the same files at once, to be read, written, truncated and explained: nobody was behind the mount,
    so no lease is broken. Of the last one that is open the kin is proven, or was joined."""
    source = t.make_dir("source")
    files = make_clones(t, source, 3)
    scan(t, source)
    mount = t.mount(source, OPTIONS, transport="dev")
    openers = [subprocess.Popen([sys.executable, "-c", OPENER, mount.point, str(flags)])
               for flags in (os.O_RDWR, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDONLY)]
    while any(opener.poll() is None for opener in openers):
        t.run(t.foldctl_command() + ["explain", mount.path("clone0")], timeout=60 * t.patience)
    equal([opener.wait() for opener in openers], [0] * 4, "status of who opened them")
    until(lambda: leases(mount)["held"] == 0, 5 * t.patience, "leases given back")
    equal(leases(mount)["broken"], 0, "leases that others broke")
    fds = opened(mount, files)
    equal(leases(mount), {"held": 3, "broken": 0}, "leases of those that are open now")
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


def used_by_all(t, mount, models, number):
    """Each clone is opened, written to in another place, read, and closed. Returns the pages that were adopted."""
    before = adopted(mount)
    fds = opened(mount, models)
    equal(leases(mount)["held"], len(models), "leases, round %d" % number)
    for place, name in enumerate(models):
        write_page(t, fds[name], models[name], 20 * number + place)
    for name in models:
        equal(content_of(fds[name]), bytes(models[name]), "%s, round %d" % (name, number))
    close_all(fds)
    until(lambda: leases(mount)["held"] == 0, 5 * t.patience, "leases given back")
    return adopted(mount) - before


@test(timeout=60)
def what_is_kin_stays_so_over_ten_mounts(t):
    """And within one, over closes: less what each changed. Nothing is scanned again."""
    source = t.make_dir("source")
    files = make_clones(t, source, 3)
    scan(t, source)
    models = {name: bytearray(files[name]) for name in files}
    least = len(members(files["clone1"], files["clone0"])) + len(members(files["clone2"], files["clone0"])) - 80
    for number in range(10):
        mount = t.mount(source, OPTIONS, name="mnt-%d" % number)
        got = used_by_all(t, mount, models, number)
        check(got >= least - 60 * (number + 1), "adopted in mount %d: %d of %d" % (number, got, least))
        if number % 3 == 0:
            # All is resident now, so nothing need be adopted; but that it could be is audited.
            used_by_all(t, mount, models, number)
        mount.unmount()
    for name in files:
        equal(read_file(os.path.join(source, name)), bytes(models[name]), name + ", the source")


@test()
def what_is_kin_outlives_an_end_by_signal(t):
    """The files are still open when the daemon is told to end."""
    source = t.make_dir("source")
    files = make_clones(t, source, 2)
    scan(t, source)
    models = {name: bytearray(files[name]) for name in files}
    mount = t.mount(source, OPTIONS)
    fds = opened(mount, files)
    for name in files:
        write_page(t, fds[name], models[name], 10)
    mount.stop()
    close_dead(fds)
    mount = t.mount(source, OPTIONS, name="again")
    check(used_by_all(t, mount, models, 1) > PAGES // 2, "adopted in the next mount")
    mount.unmount()


@test()
def what_was_written_is_kin_no_more_after_a_crash(t):
    """Nobody knows what the last changes were: until the next scan it is not."""
    source = t.make_dir("source")
    files = make_clones(t, source, 2)
    scan(t, source)
    models = {name: bytearray(files[name]) for name in files}
    mount = t.mount(source, OPTIONS + ["survive=off"])
    fds = opened(mount, files)
    for name in files:
        write_page(t, fds[name], models[name], 10)
    mount.kill()
    close_dead(fds)
    mount = t.mount(source, OPTIONS, name="again")
    fds = opened(mount, files)
    equal(leases(mount)["held"], 0, "leases")
    for name in files:
        equal(content_of(fds[name]), bytes(models[name]), name)
    equal(adopted(mount), 0, "adopted")
    close_all(fds)
    mount.unmount()
    sync_source(source)
    scan(t, source)
    mount = t.mount(source, OPTIONS, name="scanned")
    check(used_by_all(t, mount, models, 1) > PAGES // 2, "adopted after a scan")
    mount.unmount()


@test()
def who_changed_it_behind_the_mount_ended_what_is_kept(t):
    """The lease is lost before the last close, and the file was changed beside our own changes: nothing is kept."""
    source = t.make_dir("source")
    files = make_clones(t, source, 2)
    scan(t, source)
    models = {name: bytearray(files[name]) for name in files}
    mount = t.mount(source, OPTIONS)
    fds = opened(mount, files)
    for name in files:
        write_page(t, fds[name], models[name], 10)
    with open(source + "/clone0", "r+b", buffering=0) as behind:
        foreign = t.rng.randbytes(300 * PAGE)
        os.pwrite(behind.fileno(), foreign, 20 * PAGE)
        models["clone0"][20 * PAGE:320 * PAGE] = foreign
        write_page(t, fds["clone0"], models["clone0"], 11)
    mount.expect_log("opened behind the mount")
    close_all(fds)
    mount.unmount()
    mount = t.mount(source, OPTIONS, name="again")
    fds = opened(mount, files)
    equal(leases(mount)["held"], 1, "leases: clone1 alone is kin")
    for name in files:
        equal(content_of(fds[name]), bytes(models[name]), name)
    equal(adopted(mount), 0, "adopted")
    close_all(fds)
    mount.unmount()


@test()
def changed_beside_our_own_changes(t):
    """Somebody writes to the file in the source while we write to it, so that no stamp tells the two apart: what he
    wrote is that file's alone."""
    source = t.make_dir("source")
    files = make_clones(t, source, 6)
    last = max(files)
    scan(t, source)
    write_file(source + "/other", t.rng.randbytes(16 * MIB))
    mount = t.mount(source, OPTIONS)
    fds = opened(mount, files)

    def copy(name, begun):
        with open(mount.path("other"), "rb") as other:
            for turn in range(4):
                # One change of ours each, and a long one.
                os.copy_file_range(other.fileno(), fds[name], 16 * MIB, 0, 16 * MIB)
                begun.set()

    for name in sorted(files)[:-1]:
        begun = threading.Event()
        writer = threading.Thread(target=copy, args=(name, begun))
        with open(os.path.join(source, name), "r+b", buffering=0) as behind:
            writer.start()
            begun.wait()
            time.sleep(t.rng.random() * 0.005)
            os.pwrite(behind.fileno(), t.rng.randbytes(100 * PAGE), 20 * PAGE)
            writer.join()
        equal(content_of(fds[name]), read_file(os.path.join(source, name)), name)
    equal(content_of(fds[last]), files[last], last)
    mount.expect_log("opened behind the mount")
    close_all(fds)
    mount.unmount()


@test(timeout=60)
def a_young_stamp_is_not_kept(t):
    """Where times are whole seconds a file may be changed after its last close, and have the stamp that it had then."""
    source = t.loop_file_system("ext4", size=128 * MIB, how=("-I", "128"))
    base = t.rng.randbytes(PAGES * PAGE)
    models = {name: bytearray(changed(t, base, (page,))) for page, name in enumerate(("clone0", "clone1"), 900)}

    def scanned():
        for name, content in models.items():
            write_file(os.path.join(source, name), content)
        sync_source(source)
        written = time.time()
        until(lambda: time.time() > written + 3, 10, "files are old enough to be scanned")
        scan(t, source)

    for attempt in range(5):
        scanned()
        mount = t.mount(source, OPTIONS, name="first-%d" % attempt)
        fds = opened(mount, models)
        equal(leases(mount)["held"], 2, "leases")
        until(lambda: time.time() % 1 < 0.2, 3, "a second begins")
        for name in models:
            write_page(t, fds[name], models[name], 10)
        close_all(fds)
        until(lambda: leases(mount)["held"] == 0, 5 * t.patience, "leases given back")
        before = os.stat(source + "/clone0")
        with open(source + "/clone0", "r+b", buffering=0) as behind:
            models["clone0"][20 * PAGE:320 * PAGE] = t.rng.randbytes(300 * PAGE)
            os.pwrite(behind.fileno(), models["clone0"][20 * PAGE:320 * PAGE], 20 * PAGE)
        after = os.stat(source + "/clone0")
        mount.unmount()
        if (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns):
            break
    else:
        t.skip("no two changes within a second")
    # In time such a stamp is like any other.
    until(lambda: time.time() > after.st_mtime + 4, 10, "the stamp is old")
    mount = t.mount(source, OPTIONS, name="again")
    fds = opened(mount, models)
    for name in models:
        equal(content_of(fds[name]), bytes(models[name]), name)
    equal(adopted(mount), 0, "adopted")
    close_all(fds)
    mount.unmount()
