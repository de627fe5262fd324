# SPDX-License-Identifier: Apache-2.0
"""foldctl scan and foldfs --estimate: what is counted, what is kept, and what is called equal."""

import fcntl
import json
import os
import pty
import re
import signal
import subprocess

from counting import PageCount, cached_bytes
from harness import LIBC, MIB, PAGE, check, equal, make_pages, make_tree, read_file, sync_source, test, until, write_file
from images import image_directory

import faulty
from faulty import FaultySource

SYS_IOPRIO_GET = 252 if os.uname().machine == "x86_64" else 31


def scan_command(t, directory, *options):
    return t.foldctl_command() + ["scan", "--json", "--state=" + t.path("state"), directory, *options]


def scan(t, directory, *options, status=0):
    return json.loads(t.run(scan_command(t, directory, *options), timeout=60 * t.patience, status=status).stdout)


def estimate(t, directory, *options):
    return json.loads(t.run(t.foldfs_command() + ["--estimate", "--json", directory, *options],
                            timeout=60 * t.patience).stdout)


def check_counts(found, count, files, what):
    """The figures of a scan against an independent count."""
    expected = count.expected()
    equal(found["files"], files, what + ": files")
    equal(found["zero_pages"], expected["zero_pages"], what + ": zero_pages")
    equal(found["data_pages"], count.nonzero, what + ": data_pages")
    equal(found["unique_pages"], len(count.users), what + ": unique_pages")
    equal(found["equal_pages"], expected["pages_sharing"], what + ": equal_pages")
    equal(found["saved_bytes"], expected["pages_sharing"] * PAGE, what + ": saved_bytes")
    equal((found["pages_share"], found["pages_error"], found["complete"]), (1, 0, True), what + ": exact")


def plan_of(t, path):
    return json.loads(t.run(t.foldctl_command() + ["explain", "--json", path]).stdout)["plan"]


@test(transports="none")
def counts(t):
    """Files of every awkward size, names in several directories, hard links, holes, other file systems
    within: the same figures as an independent count, by both programs, at first and again from what is
    kept; nothing that is known is read again."""
    source = t.make_dir("source")
    tree = make_tree(t.rng, source)
    t.make_dir("source", "sub", "deep")
    write_file(source + "/sub/deep/copy", tree["clone"])
    tree["sub/deep/copy"] = tree["clone"]
    os.link(source + "/sub/deep/copy", source + "/sub/another name")
    os.symlink("/", source + "/root")
    os.mkfifo(source + "/pipe")
    t.tmpfs(name="source/other")
    write_file(source + "/other/file", b"on another file system")
    count = PageCount()
    for content in tree.values():
        count.add(content)
    for found, what in ((estimate(t, source), "estimate"), (scan(t, source), "scan")):
        check_counts(found, count, len(tree), what)
        equal(found["bytes"], sum(len(content) for content in tree.values()), what + ": bytes")
        equal((found["equal_files"], found["equal_files_bytes"]), (1, len(tree["clone"])), what + ": equal files")
        equal((found["changed_files"], found["unreadable_files"], found["known_files"]), (0, 0, 0), what)
        # What is compared is read once more, which an estimate does not do.
        if what == "estimate":
            check(found["read_bytes"] < found["bytes"] - 2 * MIB, "holes were read")
    found = scan(t, source)
    check_counts(found, count, len(tree), "second scan")
    equal((found["known_files"], found["read_bytes"]), (len(tree), 0), "second scan: not read again")
    count.add(b"on another file system")
    check_counts(estimate(t, source, "--all-file-systems"), count, len(tree) + 1, "all file systems")
    text = t.run(t.foldfs_command() + ["--estimate", source]).stdout
    for word in (source, "unique", "equal files", "saved"):
        check(word in text, "the table does not show %r:\n%s" % (word, text))


@test(transports="none")
def short_last_pages(t):
    """A short last page is filled up with zeroes, whatever was read before: not with what another file has there."""
    source = t.make_dir("source")
    page = t.rng.randbytes(PAGE)
    for number in range(40):
        write_file("%s/%d" % (source, number), page if number % 2 else page[:10])
    for found in (estimate(t, source, "--workers=1"), scan(t, source, "--workers=1")):
        equal((found["data_pages"], found["unique_pages"], found["different_files"]), (40, 2, 2), "counted")


@test(suite="full", timeout=120, transports="none", presets=("release",))
def counts_of_real_images(t):
    """Two real images: the figures of the bench's own program, which shares no code with foldfs."""
    program = os.path.join(t.build, "bench", "unique_pages")
    if not os.path.exists(program):
        t.skip("the bench programs are not built")
    source = t.make_dir("source")
    images = [os.path.join(image_directory(), name) for name in ("base.img", "base-clone.img")]
    for image in images:
        target = os.path.join(source, os.path.basename(image))
        write_file(target, b"")
        t.run(["mount", "--bind", image, target])
        t.at_end(lambda target=target: t.run(["umount", target]))
    counted = json.loads(t.run([program] + images, timeout=100).stdout)
    found = estimate(t, source, "--all-file-systems")
    equal(found["files"], 2, "files")
    equal(found["data_pages"], counted["nonzero"], "data_pages")
    equal(found["unique_pages"], counted["unique"], "unique_pages")
    equal(found["zero_pages"], counted["pages"] - counted["nonzero"], "zero_pages")


@test(timeout=60)
def equal_files(t):
    """Equal files, whatever their owners, modes and names, are one class: a read-only mount serves them
    from one file. Files of one size that differ in one byte are not, whatever their digests (a build with
    short digests nominates many of them); neither is a file that somebody has open for writing."""
    source = t.make_dir("source")
    t.make_dir("source", "one", "two")
    content = make_pages(t.rng, 30) + b"tail"
    names = ["a", "one/b", "one/two/c"]
    for name in names:
        write_file(os.path.join(source, name), content)
    os.chown(source + "/one/b", 1000, 1000)
    os.chmod(source + "/one/two/c", 0o444)
    near = bytearray(make_pages(t.rng, 2))
    for number in range(300):
        near[PAGE + 17:PAGE + 19] = number.to_bytes(2, "big")
        write_file("%s/near %d" % (source, number), near)
    last = bytearray(content)
    last[-1] ^= 1
    write_file(source + "/last byte", last)
    write_file(source + "/written", content)
    with open(source + "/written", "r+b"):
        equal(scan(t, source)["compared_files"], 3, "files found equal")
    mount = t.mount(source, ["ro"])
    for name in names:
        equal(plan_of(t, mount.path(name)), "shared passthrough", name)
        equal(read_file(mount.path(name)), content, name)
    for name in ("written", "last byte", "near 0", "near 299"):
        check(plan_of(t, mount.path(name)) != "shared passthrough", name + " is shared")
    for number in range(300):
        near[PAGE + 17:PAGE + 19] = number.to_bytes(2, "big")
        equal(read_file(mount.path("near %d" % number)), bytes(near), "near %d" % number)
    mount.unmount()
    equal(scan(t, source)["compared_files"], 1, "the one that was written to joins them")
    mount = t.mount(source, ["ro"])
    equal(plan_of(t, mount.path("written")), "shared passthrough", "written")


@test(timeout=60)
def changed_between_scans(t):
    """A change of content with the old size and mtime ends what was known; a new one is found; what has
    moved is not read again; what is gone is forgotten."""
    source = t.make_dir("source")
    t.make_dir("source", "old")
    content = make_pages(t.rng, 40)
    made = [source + "/%d" % number for number in range(4)]
    for name in made:
        write_file(name, content)
    # The first of its class is the one that changes: it would back the others.
    for name, new in zip(sorted(made, key=lambda name: os.stat(name).st_ino), ("b", "gone", "a", "old/c")):
        os.rename(name, os.path.join(source, new))
    write_file(source + "/zeroes", bytes(3 * PAGE))
    equal(scan(t, source)["compared_files"], 4, "compared at first")
    write_file(source + "/zeroes", bytes(PAGE) + b"no more" + bytes(2 * PAGE - 7))
    before = os.stat(source + "/b")
    with open(source + "/b", "r+b") as file:
        file.write(b"other")
    os.utime(source + "/b", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.rename(source + "/old", source + "/new")
    os.unlink(source + "/gone")
    found = scan(t, source)
    equal((found["files"], found["known_files"], found["read_bytes"]), (4, 2, len(content) + 3 * PAGE),
          "second scan")
    equal((found["compared_files"], found["unique_pages"]), (0, 42), "what is left of it")
    mount = t.mount(source, ["ro"])
    equal(plan_of(t, mount.path("a")), "shared passthrough", "a")
    equal(plan_of(t, mount.path("new/c")), "shared passthrough", "what was moved")
    equal(plan_of(t, mount.path("b")), "window", "what was changed")
    equal(read_file(mount.path("b")), b"other" + content[5:], "b")
    for name in ("a", "new/c"):
        equal(read_file(mount.path(name)), content, name)
    mount.unmount()


@test(transports="none")
def equal_on_tmpfs(t):
    """On tmpfs no files are called equal: a store into a mapping can leave no trace there."""
    source = t.tmpfs()
    for name in ("a", "b"):
        write_file(source + "/" + name, make_pages(t.rng, 10))
        write_file(source + "/" + name, b"same" * PAGE)
    found = scan(t, source)
    equal((found["files"], found["equal_files"], found["compared_files"]), (2, 1, 0), "counted, but not compared")


@test(transports="none")
def too_young(t):
    """Where times are of whole seconds, what has changed just now is counted but not kept: its stamp may yet be given
    again. A time to come is as young as can be."""
    image, source = t.path("coarse.img"), t.make_dir("coarse")
    with open(image, "wb") as file:
        file.truncate(16 * MIB)
    t.run(["mkfs.ext4", "-q", "-I", "128", image])
    t.run(["mount", "-o", "loop", image, source])
    t.at_end(lambda: t.run(["umount", source]))
    write_file(source + "/file", make_pages(t.rng, 3))
    if os.stat(source + "/file").st_ctime_ns % 10**9:
        t.skip("this ext4 keeps parts of a second with small inodes too")
    os.utime(source + "/file", (2**31 - 1, 2**31 - 1))
    found = scan(t, source)
    equal((found["files"], found["data_pages"], found["unrecorded_files"]), (1, 3, 1), "counted, not kept")
    equal(scan(t, source)["known_files"], 0, "known")


@test(transports="none", timeout=60)
def changed_while_it_is_read(t):
    """A file that changes all the time is counted as that and left out, with no harm to the others."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 20)
    write_file(source + "/still", content)
    write_file(source + "/busy", make_pages(t.rng, 256))
    reader, writer = os.pipe()

    def change():
        os.close(writer)
        os.set_blocking(reader, False)
        with open(source + "/busy", "r+b", buffering=0) as file:
            while True:
                file.seek(0)
                file.write(os.urandom(8))
                try:
                    if not os.read(reader, 1):
                        return
                except BlockingIOError:
                    pass

    child = t.fork(change)
    os.close(reader)
    found = scan(t, source, "--rate=4M")
    os.close(writer)
    t.join([child])
    equal((found["files"], found["changed_files"], found["data_pages"]), (1, 1, 20), "left out")
    found = scan(t, source)
    equal((found["files"], found["known_files"], found["changed_files"]), (2, 1, 0), "once it is still")


@test(suite="full", transports="none")
def damaged_catalogue(t):
    """A damaged catalogue is moved aside with one warning, and the scan is right."""
    source = t.make_dir("source")
    tree = make_tree(t.rng, source)
    scan(t, source)
    directory = os.path.join(t.path("state"), os.listdir(t.path("state"))[0])
    equal(os.stat(directory).st_mode & 0o777, 0o700, "mode of the directory")
    equal(os.stat(directory + "/data.mdb").st_mode & 0o777, 0o600, "mode of the file")
    write_file(directory + "/data.mdb", t.rng.randbytes(100000))
    result = t.run(scan_command(t, source))
    check("moved aside" in result.stderr and result.stderr.count("\n") == 1, "said: " + result.stderr)
    found = json.loads(result.stdout)
    equal((found["files"], found["known_files"], found["recorded"]), (len(tree), 0, True), "begun anew")
    check(os.path.exists(directory + "/data.mdb.aside"), "it is not there any more")
    result = t.run(scan_command(t, source))
    equal((result.stderr, json.loads(result.stdout)["known_files"]), ("", len(tree)), "the next scan")


@test(transports="none", timeout=60)
def two_at_once(t):
    """Two scans of one source at once find the same, and leave one catalogue that knows all of it."""
    source = t.make_dir("source")
    tree = make_tree(t.rng, source)
    for number in range(200):
        write_file("%s/%d" % (source, number), tree["base"][:(1 + number % 3) * PAGE])
    running = [subprocess.Popen(scan_command(t, source), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=t.environment()) for _ in range(2)]
    for process in running:
        out, err = process.communicate(timeout=40 * t.patience)
        equal((process.returncode, err), (0, b""), "status and complaints")
        found = json.loads(out)
        equal((found["files"], found["recorded"], found["complete"]), (len(tree) + 200, True, True), "found")
    found = scan(t, source)
    equal((found["known_files"], found["compared_files"], found["read_bytes"]), (len(tree) + 200, 0, 0),
          "everything is known")


@test(suite="full", transports="none", timeout=60)
def rate(t):
    """With --rate it reads no faster than that."""
    source = t.make_dir("source")
    for number in range(8):
        write_file("%s/%d" % (source, number), make_pages(t.rng, 64))
    found = estimate(t, source, "--rate=2M", "--workers=4")
    # Less the first read of each worker, for which there is nothing to wait for.
    check(found["seconds"] >= (2 * MIB - 4 * 256 * 1024) / (2 * MIB), "2 MiB in %g s" % found["seconds"])
    equal(found["data_pages"], 512, "data_pages")


@test(suite="full", transports="none", timeout=90)
def sampled(t):
    """With less memory than it takes, pages are sampled; the estimate is within five standard errors of
    the truth, of which one in 1.7 million should not be."""
    source = t.make_dir("source")
    common = make_pages(t.rng, 4000)
    write_file(source + "/unique", make_pages(t.rng, 8000))
    write_file(source + "/one", common)
    write_file(source + "/two", common[:3000 * PAGE] + make_pages(t.rng, 1000))
    for found in (estimate(t, source, "--memory=128K"), scan(t, source, "--memory=128K")):
        check(0 < found["pages_share"] <= 0.25, "share: %g" % found["pages_share"])
        check(0 < found["pages_error"] < 1000, "error: %d" % found["pages_error"])
        equal((found["files"], found["data_pages"]), (3, 16000), "what is not sampled")
        check(abs(found["unique_pages"] - 13000) <= 5 * found["pages_error"], "unique: %d ± %d" % (
            found["unique_pages"], found["pages_error"]))
        equal(found["unique_pages"] + found["equal_pages"], 16000, "both")


@test(transports="none", timeout=60)
def interrupted(t):
    """SIGINT ends it soon, and what was read by then is kept."""
    source = t.make_dir("source")
    for number in range(60):
        write_file("%s/%02d" % (source, number), make_pages(t.rng, 16))
    process = subprocess.Popen(scan_command(t, source, "--rate=256K"), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=t.environment())

    def has_read():
        with open("/proc/%d/io" % process.pid) as file:
            return int(file.readline().split()[1]) > 400000

    until(has_read, 30 * t.patience, "a few files are read")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20 * t.patience)
    equal(process.returncode, 1, "status")
    check(b"ended by a signal" in err and err.count(b"\n") == 1, "said: %r" % err)
    found = json.loads(out)
    check(not found["complete"] and 2 <= found["files"] < 60, "found: %r" % found)
    again = scan(t, source)
    equal((again["files"], again["known_files"]), (60, found["files"]), "kept")


def extents_prove(t, kind):
    source = t.loop_file_system(kind, size=400 * MIB)
    content = make_pages(t.rng, 16)
    write_file(source + "/a", content)
    if t.run(["cp", "--reflink=always", source + "/a", source + "/b"], status=None).returncode:
        t.skip("no reflinks on this %s" % kind)
    t.run(["cp", "--reflink=never", source + "/a", source + "/d"])
    names = ["c%d" % number for number in range(200)]
    t.run(["sh", "-c", "for name; do cp --reflink=always a $name; done", "sh"] + names, cwd=source)
    for number, name in enumerate(names):
        with open(os.path.join(source, name), "r+b") as file:
            file.seek(9 * PAGE)
            file.write(number.to_bytes(2, "big"))
    found = scan(t, source)
    check(found["proved_files"] >= 1, "proved: %d" % found["proved_files"])
    equal(found["compared_files"] + found["proved_files"], 3, "a, b and d are equal, and no others")
    mount = t.mount(source, ["ro"], transport="dev")
    for name, shared in (("a", True), ("b", True), ("c0", False), ("c199", False), ("d", True)):
        equal(plan_of(t, mount.path(name)) == "shared passthrough", shared, name)
    equal(read_file(mount.path("c7"))[9 * PAGE:9 * PAGE + 2], b"\0\7", "c7")
    mount.unmount()


@test(transports="none", timeout=60)
def proved_by_extents(t):
    """Reflinked copies on XFS are found equal by their extents, without reading them again; those that
    were written to since are not (a build with short digests nominates many of them)."""
    extents_prove(t, "xfs")


@test(suite="full", transports="none", timeout=60)
def proved_by_extents_on_btrfs(t):
    """The same on btrfs, where small files lie in line with metadata."""
    extents_prove(t, "btrfs")


@test(transports="none", timeout=60)
def leased_by_somebody(t):
    """A file that somebody holds a write lease on is left alone. One of the same number on another file system is not."""
    leased, other = (t.loop_file_system("btrfs", size=200 * MIB, name=name) for name in ("leased", "other"))
    paths = [source + "/sub/file" for source in (leased, other)]
    for source, path in zip((leased, other), paths):
        t.run(["btrfs", "-q", "subvolume", "create", source + "/sub"])
        write_file(path, make_pages(t.rng, 64))
    equal(os.stat(paths[0]).st_ino, os.stat(paths[1]).st_ino, "the inode number")
    with open(paths[0], "r+b") as file:
        fcntl.fcntl(file.fileno(), fcntl.F_SETLEASE, fcntl.F_WRLCK)
        for source, busy in ((leased, 1), (other, 0)):
            equal(scan(t, source + "/sub")["changed_files"], busy, "files of %s that are busy" % source)
        fcntl.fcntl(file.fileno(), fcntl.F_SETLEASE, fcntl.F_UNLCK)
    equal(scan(t, leased + "/sub")["changed_files"], 0, "files that are busy once the lease is given back")


@test(suite="full", transports="none")
def unreadable(t):
    """What a plain user may not read is named once, counted, and the rest is counted right; no root, no
    mount and no catalogue are needed."""
    source = t.make_dir("source")
    os.chmod(t.directory, 0o755)
    t.make_dir("source", "closed")
    write_file(source + "/mine", make_pages(t.rng, 5))
    write_file(source + "/theirs", make_pages(t.rng, 5))
    write_file(source + "/bad\nname", make_pages(t.rng, 5))
    os.chmod(source + "/theirs", 0o600)
    os.chmod(source + "/bad\nname", 0o600)
    os.chmod(source + "/closed", 0o700)
    command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] + t.foldfs_command()
    if t.run(command + ["--version"], status=None).returncode:
        t.skip("a plain user cannot run the program where it is built")
    result = t.run(command + ["--estimate", "--json", source])
    found = json.loads(result.stdout)
    equal((found["files"], found["unreadable_files"], found["data_pages"]), (1, 3, 5), "counted")
    equal(result.stderr.count("\n"), 3, "lines: " + result.stderr)
    for name in ("/theirs", "/bad?name", "/closed"):
        equal(result.stderr.count(source + name + ":"), 1, "%s is named: %s" % (name, result.stderr))


@test(suite="full", timeout=60)
def of_a_mount(t):
    """foldctl scan of a mount scans its source, also without a word from within the mount point; what it
    finds holds at the next open; a directory within the mount is refused, and so is a covered source."""
    source = t.make_dir("source")
    t.make_dir("source", "sub")
    content = make_pages(t.rng, 40)
    for name in ("a", "b"):
        write_file(os.path.join(source, name), content)
    mount = t.mount(source, ["ro"])
    check(plan_of(t, mount.path("a")) != "shared passthrough", "known before")
    result = t.run(t.foldctl_command() + ["scan", "--json", "--state=" + t.path("state")], cwd=mount.point)
    equal((json.loads(result.stdout)["path"], json.loads(result.stdout)["files"]), (source, 2), "scanned")
    equal(scan(t, mount.point)["known_files"], 2, "known")
    for name in ("a", "b"):
        equal(plan_of(t, mount.path(name)), "shared passthrough", name)
        equal(read_file(mount.path(name)), content, name)
    result = t.run(scan_command(t, mount.path("sub")), status=1)
    check("lies in a foldfs mount" in result.stderr, result.stderr)
    mount.unmount()
    covered = t.make_dir("covered")
    write_file(covered + "/file", content)
    mount = t.mount(covered, name="covered")
    result = t.run(scan_command(t, covered), status=1)
    check(result.stderr.count("\n") == 1 and "foldfs mount" in result.stderr, result.stderr)
    mount.unmount()


@test(transports="none")
def a_mount_is_asked_where_its_catalogue_is(t):
    """Without --state the catalogue of a mount that is up is filled, by the mount's name and by its source's; another
    one that --state names is filled as well, and that the mount does not see it is said."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 40)
    for name in ("a", "b"):
        write_file(os.path.join(source, name), content)
    mount = t.mount(source, ["ro"])
    command = t.foldctl_command() + ["scan", "--json"]
    default = "/var/lib/foldfs/" + os.path.basename(mount.status()["state"])
    check(plan_of(t, mount.path("a")) != "shared passthrough", "known before")
    result = t.run(command + ["--state=" + t.path("elsewhere"), mount.point])
    check("does not see" in result.stderr and mount.point in result.stderr, "said: " + result.stderr)
    check(plan_of(t, mount.path("a")) != "shared passthrough", "known from elsewhere")
    for name, known in ((source, 0), (mount.point, 2)):
        result = t.run(command + [name])
        equal((json.loads(result.stdout)["known_files"], result.stderr), (known, ""), "known, by " + name)
        equal(plan_of(t, mount.path("a")), "shared passthrough", "a after a scan of " + name)
    check(not os.path.exists(default), "a catalogue in the default place")
    mount.unmount()


@test(transports="none")
def a_mount_without_a_catalogue_is_not_scanned(t):
    """A scan could tell it nothing: that is said, and nothing is kept in another place."""
    source, state = t.make_dir("source"), t.make_dir("open to all")
    write_file(source + "/file", make_pages(t.rng, 4))
    os.chmod(state, 0o777)
    mount = t.mount(source, ["state=" + state], audit=False)
    equal(mount.status()["state"], "", "where its catalogue is")
    result = t.run(t.foldctl_command() + ["scan", mount.point], status=1)
    check("keeps no catalogue" in result.stderr, result.stderr)
    mount.expect_log("no catalogue of")
    mount.unmount()


@test(timeout=60)
def in_the_background(t):
    """scan=background fills the catalogue while the mount serves; it is cut short by the mount's end."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 40)
    for name in ("a", "b"):
        write_file(os.path.join(source, name), content)
    mount = t.mount(source, ["ro", "scan=background"])
    until(lambda: plan_of(t, mount.path("a")) == "shared passthrough", 20 * t.patience, "a is known")
    until(lambda: mount.status()["memory"]["scan_bytes"] == 0, 20 * t.patience, "the scan's tables are gone")
    equal(read_file(mount.path("b")), content, "b")
    mount.unmount()
    write_file(source + "/large", make_pages(t.rng, 4000))
    mount = t.mount(source, ["scan=background"])
    mount.unmount()
    mount = t.mount(source, ["scan=background"])
    mount.stop()


@test(transports="none")
def told_by_the_status(t):
    """Where the catalogue is kept, and what a scan in the background takes while it waits for its source."""
    source = FaultySource(t)
    write_file(source.backing + "/file", make_pages(t.rng, 10))
    source.set(0, faulty.HANG, faulty.READ)
    mount = t.mount(source.point, ["scan=background"])
    until(lambda: source.applied(0), 20 * t.patience, "the scan reads")
    status = mount.status()
    equal(os.path.dirname(status["state"]), t.path("state"), "where the catalogue is kept")
    check(os.path.exists(status["state"] + "/data.mdb"), "there is none")
    taken = status["memory"]["scan_bytes"]
    check(0 < taken <= 32 * MIB, "the scan takes %d bytes" % taken)
    text = t.run(t.foldctl_command() + ["status", mount.point]).stdout
    check(status["state"] in text and "tables of the scan" in text, text)
    source.clear(0)
    until(lambda: mount.status()["memory"]["scan_bytes"] == 0, 20 * t.patience, "the scan's tables are gone")
    check("tables of the scan" not in t.run(t.foldctl_command() + ["status", mount.point]).stdout, "still told")


@test(suite="full", transports="none")
def wrong_command_lines(t):
    """Each: one sentence that names what is wrong, status 1."""
    source = t.make_dir("source")
    write_file(source + "/file", b"x")
    scans = t.foldctl_command() + ["scan", "--state=" + t.path("state")]
    for arguments, word in ((["--rate=x", source], "--rate"), (["--rate=0", source], "--rate"),
                            (["--memory=1K", source], "--memory"),
                            (["--memory=9000000G", source], "--memory"), (["--workers=0", source], "--workers"),
                            (["--nonsense", source], "--nonsense"), ([source, "more"], "more"),
                            (["/no/such"], "/no/such"), ([source + "/file"], source + "/file")):
        for command in (scans, t.foldfs_command() + ["--estimate"]):
            result = t.run(command + arguments, status=1)
            equal(result.stderr.count("\n"), 1, "lines: " + result.stderr)
            check(word in result.stderr, "%r does not name %r" % (result.stderr, word))
    t.run(t.foldfs_command() + ["--estimate"], status=1)
    t.run(t.foldfs_command() + ["--estimate", "--state=/tmp", source], status=1)
    t.run(t.foldfs_command() + [source, t.make_dir("mnt"), "-o", "scan=later"], status=1)
    result = t.run(t.foldctl_command() + ["scan", "--state=" + source + "/file", source], status=1)
    check("cannot keep a catalogue" in result.stderr, result.stderr)


@test(transports="none", presets=("release",))
def look_ups_read_what_they_need(t):
    """A mount that asks the catalogue of a few files leaves a few pages of it in the kernel's cache, and not the pages
    around them."""
    source = t.make_dir("source")
    for number in range(4000):
        write_file("%s/%04d" % (source, number), number.to_bytes(4, "big") * 300)
    sync_source(source)
    scan(t, source)
    data = t.path("state", os.listdir(t.path("state"))[0], "data.mdb")
    mount = t.mount(source, ["ro"], transport="dev")
    # Closed by the scan, opened by the mount: nothing of it is dirty.
    with open(data, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    # Mapped pages stay: the mount has looked at the first few.
    before = cached_bytes(data)
    for number in range(0, 4000, 400):
        read_file(mount.path("%04d" % number))
    grown = cached_bytes(data) - before
    check(os.path.getsize(data) > MIB, "the catalogue has %d bytes" % os.path.getsize(data))
    check(0 < grown <= 40 * PAGE, "ten look-ups brought %d of %d bytes into the cache" % (grown, os.path.getsize(data)))
    mount.unmount()


def priorities(pid):
    """Of each thread of a process: the policy of its scheduling, and its class of input and output (3 is
    idle)."""
    found = []
    for thread in os.listdir("/proc/%d/task" % pid):
        policy = os.sched_getscheduler(int(thread))
        found.append((policy, LIBC.syscall(SYS_IOPRIO_GET, 1, int(thread)) >> 13))  # IOPRIO_WHO_PROCESS
    return found


@test(transports="none")
def lowest_priority(t):
    """Every thread of a scan, also the first one, is idle to the processor and the disk."""
    source = t.make_dir("source")
    for name in ("one", "other"):
        write_file(os.path.join(source, name), make_pages(t.rng, 2000))
    with subprocess.Popen(scan_command(t, source, "--rate=4K", "--workers=2"), stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, env=t.environment()) as running:
        try:
            # The first one and those that read, and for some time that of the walk.
            until(lambda: len(found := priorities(running.pid)) >= 3 and set(found) == {(os.SCHED_IDLE, 3)},
                  20 * t.patience, lambda: "all threads are idle: %s" % priorities(running.pid))
        finally:
            running.terminate()


@test(suite="full", timeout=120, presets=("release",))
def equal_files_in_parts(t):
    """More equal files than are told of at once are one class all the same: one of them is in memory when all
    have been read through the mount."""
    source = t.make_dir("source")
    content = t.rng.randbytes(10000)
    names = ["%d" % number for number in range(4096 + 500)]
    for name in names:
        write_file(os.path.join(source, name), content)
    sync_source(source)
    found = scan(t, source, "--memory=1M")
    equal((found["compared_files"], found["unrecorded_files"]), (len(names), 0), "found equal, and too young")
    mount = t.mount(source, ["ro"])
    t.run(["sh", "-c", "echo 1 >/proc/sys/vm/drop_caches"])
    for name in names[::50] + names[-1:]:
        equal(read_file(mount.path(name)), content, name)
    cached = [name for name in names if cached_bytes(os.path.join(source, name))]
    check(len(cached) <= 1, "in memory: %s" % cached)


@test(suite="full", timeout=60)
def runs_within_memory(t):
    """Of two files that are equal in every other page, as many runs are kept as there is memory for, and
    right."""
    source = t.make_dir("source")
    one = make_pages(t.rng, 3000)
    other = b"".join(one[at:at + PAGE] if at // PAGE % 2 else t.rng.randbytes(PAGE)
                     for at in range(0, len(one), PAGE))
    write_file(source + "/one", one)
    write_file(source + "/other", other)
    sync_source(source)
    for memory, pages in (("1M", 1500), ("128K", 1024)):
        command = t.foldctl_command() + ["scan", "--json", "--state=" + t.path("state-" + memory)]
        found = json.loads(t.run(command + ["--workers=1", "--memory=" + memory, source]).stdout)
        equal(found["family_pages"], pages, "pages in runs with " + memory)
    mount = t.mount(source, ["state=" + t.path("state-128K")])
    equal(read_file(mount.path("one")), one, "one")
    equal(read_file(mount.path("other")), other, "other")


def anonymous_bytes(pid):
    """0 when the process has ended."""
    with open("/proc/%d/status" % pid) as lines:
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


@test(timeout=60, presets=("release",), transports="none")
def notes_of_small_files_are_small(t):
    """What is told of thousands of small files at a time takes the memory of what is told: with 1 MiB for
    tables, a scan of 10,000 files with one page each never has 32 MiB."""
    source = t.make_dir("source")
    for number in range(10000):
        write_file("%s/%d" % (source, number), t.rng.randbytes(100))
    sync_source(source)
    highest = 0
    with subprocess.Popen(scan_command(t, source, "--memory=1M"), stdout=subprocess.PIPE) as running:
        while running.poll() is None:
            highest = max(highest, anonymous_bytes(running.pid))
        equal(json.load(running.stdout)["files"], 10000, "files")
    check(MIB < highest < 32 * MIB, "anonymous memory was %d KiB at the most" % (highest // 1024))


def plan_when_opened(t, mount, name):
    """The plan of a file that nobody has opened before, while it is open."""
    with open(mount.path(name), "rb"):
        return plan_of(t, mount.path(name))


@test(transports="full", timeout=60)
def plans_at_the_border(t):
    """After a scan the first open knows: a file that shares less than 5 % of its pages, be it by one, and is
    not larger than passthrough_max, be it by one byte, is passed through; the others are not."""
    source = t.make_dir("source")
    library = make_pages(t.rng, 100)
    write_file(source + "/library", library)
    contents, expected = {}, {}
    own = "own passthrough"
    for shared, plan in ((0, own), (19, own), (20, "window"), (21, "window")):
        contents["shares-%d" % shared] = library[:shared * PAGE] + make_pages(t.rng, 400 - shared)
        expected["shares-%d" % shared] = plan
    for size, plan in ((2 * MIB - 1, own), (2 * MIB, own), (2 * MIB + 1, "window")):
        contents["size-%d" % size] = t.rng.randbytes(size)
        expected["size-%d" % size] = plan
    for name, content in contents.items():
        write_file(os.path.join(source, name), content)
    until(lambda: not scan(t, source)["unrecorded_files"], 20 * t.patience, "every stamp is old enough")
    for options in (["passthrough_max=2M"], ["passthrough_max=2M", "ro"]):
        mount = t.mount(source, options, name="mnt-%d" % len(options))
        for name, plan in expected.items():
            equal(plan_when_opened(t, mount, name), plan, "%s with %s" % (name, ",".join(options)))
            equal(read_file(mount.path(name)), contents[name], name)
        mount.unmount()


SHOWN = re.compile(
    r"reading   +\[([#.]{4,24})\] +(\d+) %  (\d+) files, [\d.]+ [KM]iB, [\d.]+ [KM]iB/s, .+ left")


def terminal_of(command, environment):
    """What a program prints on its standard error, a terminal, and its status."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs,
                          env=environment) as process:
        os.close(theirs)
        printed = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # EIO: nobody has it open any more
                break
            if not part:
                break
            printed += part
    os.close(ours)
    return printed.decode(), process.returncode


@test(suite="full", timeout=90, transports="none")
def progress(t):
    """On a terminal a scan shows in one line how far it is: bar, files, bytes, rate, time left; and it wipes
    it out in the end. Elsewhere it says nothing."""
    source = t.make_dir("source")
    for number in range(24):
        write_file("%s/%d" % (source, number), make_pages(t.rng, 128))
    for command in (scan_command(t, source), t.foldfs_command() + ["--estimate", "--json", source]):
        command = command + ["--rate=4M", "--workers=1"]
        printed, status = terminal_of(command, t.environment())
        equal(status, 0, "status; printed: " + printed)
        lines = printed.split("\r\033[K")
        shown = [found for found in map(SHOWN.fullmatch, lines) if found]
        check(len(shown) >= 3, "lines that tell all: %r" % lines)
        parts = [int(found.group(2)) for found in shown]
        equal(parts, sorted(parts), "the parts, which grow")
        for found in shown:
            bar = int(found.group(2)) * len(found.group(1)) / 100
            check(len(found.group(0)) < 80, "it fits into 80 columns: %r" % found.group(0))
            check(abs(found.group(1).count("#") - bar) <= 1, "the bar of %r" % found.group(0))
        check(printed.endswith("\r\033[K"), "the line is wiped out: %r" % printed[-40:])
        check("\n" not in printed, "one line: %r" % printed)
        equal(t.run(command, timeout=60).stderr, "", "said where there is no terminal")
