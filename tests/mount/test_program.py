# SPDX-License-Identifier: Apache-2.0
"""The program: command line, ways of mounting, ways of ending, users, status."""

import errno
import json
import mmap
import os
import re
import signal
import subprocess
import time

from harness import (GONE, MIB, PAGE, ROOT, Gate, check, equal, fails_with, make_pages, mounts_under, read_file,
                     socket_identity, socket_of, test, until, write_file)
from users import NOBODY, as_user

KEYS = {
    "version", "source", "mountpoint", "transport", "uptime_s", "frame_bytes", "frames_total",
    "frames_used", "pages_shared", "pages_sharing", "pages_unshared", "zero_pages", "general_profit",
    "hits", "misses", "fills_discarded", "merges", "digest_collisions", "breaks", "evictions",
    "bypassed", "window", "memory", "privileges",
}
WINDOW_KEYS = {"budget_bytes", "bytes", "trimmed_bytes"}
PRIVILEGES_KEYS = {"capabilities", "bounding", "no_new_privs", "dumpable", "seccomp", "refused_calls"}
MEMORY_KEYS = {"pool_bytes", "maps_bytes", "index_bytes", "transport_bytes", "total_bytes"}


def refused(t, arguments, *words):
    """The command must fail with status 1 and one clear sentence that has all the words."""
    result = t.run(t.foldfs_command() + arguments, status=1, timeout=15)
    lines = result.stderr.strip().splitlines()
    check(len(lines) == 1 and len(lines[0]) < 900, "%s: one sentence, not %r" % (arguments, result.stderr))
    for word in words:
        check(word in lines[0], "%s: %r does not name %r" % (arguments, lines[0], word))
    equal(result.stdout, "", "standard output of a refused command")


@test(timeout=60, transports="none")
def wrong_command_lines(t):
    """Each wrong command line: one sentence that names what is wrong, status 1, nothing mounted."""
    source, point = t.make_dir("source"), t.make_dir("mnt")
    write_file(source + "/file", b"content")
    refused(t, [])
    refused(t, [source])
    refused(t, [source, point, "third"], "third")
    refused(t, ["/no/such/directory", point], "/no/such/directory")
    refused(t, [source + "/file", point], source + "/file", "directory")
    refused(t, [source, t.path("nowhere")], t.path("nowhere"))
    refused(t, [source, source + "/file"], source + "/file")
    refused(t, ["", point])
    refused(t, [source, ""])
    refused(t, ["--nonsense", source, point], "--nonsense")
    refused(t, [source, point, "-o", "nonsense"], "nonsense")
    refused(t, [source, point, "-o", "pool=64M,nonsense=3"], "nonsense")
    for size in ("", "x", "-1", "+1M", "1X", "1MM", "1.5G", "101%", "99999999999T", " 1M", "0x10", "1M ",
                 "18446744073709551616", "0"):
        refused(t, [source, point, "-o", "pool=" + size], "pool")
    for size in ("x", "-1", "101%"):
        refused(t, [source, point, "-o", "window=" + size], "window")
        refused(t, [source, point, "-o", "maps=" + size], "maps")
    for sizes in ("window=99999G", "window=100%", "maps=100%", "pool=60%,maps=50%", "pool=2T"):
        refused(t, [source, point, "-o", sizes], "more than all of the memory")
    refused(t, [source, point, "-o", "pool"], "pool")
    refused(t, [source, point, "-o", "transport=pigeon"], "pigeon")
    refused(t, [source, point, "-o", "attr_timeout=soon"], "attr_timeout")
    equal(mounts_under(point), [], "mounts")


@test(transports="none")
def mount_points_that_would_loop(t):
    """It refuses a mount point inside its own source, however named, and one that is busy; a mount over
    its own source is taken, as it does not loop, and serves it."""
    source = t.make_dir("source")
    inner = t.make_dir("source", "inner", "deep")
    write_file(source + "/file", b"content")
    refused(t, [source, inner], inner, "loop")
    os.symlink(source, t.path("link"))
    refused(t, [t.path("link"), inner], "loop")
    refused(t, [source, t.path("link") + "/inner/deep"], "loop")
    t.make_dir("bound")
    t.run(["mount", "--bind", source, t.path("bound")])
    refused(t, [t.path("bound"), inner], "loop")
    t.run(["umount", t.path("bound")])
    mount = t.mount(source)
    refused(t, [source, mount.point], mount.point, "busy")
    second = t.make_dir("source", "inner", "second")
    refused(t, [mount.point, second], "loop")
    mount.unmount()


@test(transports="full")
def mount_over_its_own_source(t):
    """The source is covered by its own mount and served through it."""
    source = t.make_dir("mnt")
    content = make_pages(t.rng, 30)
    write_file(source + "/file", content)
    mount = t.mount(source)
    equal(read_file(mount.path("file")), content, "content")
    with open(mount.path("file"), "r+b") as file:
        file.write(b"changed")
    equal(mount.status()["source"], source, "source in the status")
    mount.unmount()
    equal(read_file(source + "/file"), b"changed" + content[7:], "the source afterwards")


@test(transports="none")
def help_and_version(t):
    """-h and -V print on standard output, end with 0 and mount nothing."""
    for flag in ("-h", "--help"):
        text = t.run(t.foldfs_command() + [flag]).stdout
        for word in ("SOURCE", "MOUNTPOINT", "pool=", "window=", "maps=", "transport="):
            check(word in text, "%s does not mention %s" % (flag, word))
    for words in (["--help"], ["-h"], ["scan", "--help"], ["status", "-h"]):
        text = t.run(t.foldctl_command() + words).stdout
        for word in ("list [--json]", "status MOUNTPOINT", "audit", "explain FILE", "--rate=", "figures"):
            check(word in text, "foldctl %s does not mention %s" % (" ".join(words), word))
    for flag in ("-V", "--version"):
        check(t.run(t.foldfs_command() + [flag]).stdout.startswith("foldfs "), flag)


@test(transports="each")
def status_keys(t):
    """foldctl status --json has every documented key, of the right type; the status for people has the
    main figures."""
    source = t.make_dir("source")
    write_file(source + "/file", make_pages(t.rng, 100))
    mount = t.mount(source, ["pool=32M", "window=4M"])
    read_file(mount.path("file"))
    status = mount.status()
    for keys, found, what in ((KEYS, status, "status"), (WINDOW_KEYS, status["window"], "window"),
                              (MEMORY_KEYS, status["memory"], "memory"),
                              (PRIVILEGES_KEYS, status["privileges"], "privileges")):
        check(keys <= set(found), "%s lacks %s" % (what, sorted(keys - set(found))))
        for key, value in found.items():
            kinds = str if key in ("version", "source", "mountpoint", "settings", "transport", "state", "passthrough", "survive") or \
                what == "privileges" and key != "refused_calls" else \
                dict if key in ("window", "memory", "plans", "privileges", "watch", "serving", "equal", "leases",
                             "locks") else int
            check(isinstance(value, kinds), "%s.%s is %r" % (what, key, value))
    equal(status["passthrough"], "", "why there is no passthrough")
    equal(status["source"], source, "source")
    equal(status["mountpoint"], mount.point, "mountpoint")
    equal(status["transport"], t.transport, "transport")
    equal(status["locks"], {"where": "mount" if t.transport == "io_uring" else "source", "held": 0, "waiting": 0}, "locks")
    equal(status["frame_bytes"], PAGE, "frame_bytes")
    equal(status["frames_total"], 32 * MIB // PAGE, "frames_total")
    equal(status["window"]["budget_bytes"], 4 * MIB, "window.budget_bytes")
    text = t.run(t.foldctl_command() + ["status", mount.point]).stdout
    for word in (source, mount.point, t.transport):
        check(word in text, "foldctl status does not show %r:\n%s" % (word, text))
    equal(t.run(t.foldctl_command() + ["status", "--json", mount.point + "/"]).returncode, 0,
          "a path with a slash at its end")


@test(transports="none")
def foldctl_on_what_is_no_mount(t):
    """foldctl on a plain directory, on nothing, with wrong words: one sentence, status 1."""
    for arguments in (["status"], ["status", t.directory], ["status", "/no/such"], ["dance", t.directory],
                      ["status", "--xml", t.directory], ["status", "/proc"]):
        result = t.run(t.foldctl_command() + arguments, status=1)
        check(0 < len(result.stderr.strip().splitlines()) <= 2, "%s: %r" % (arguments, result.stderr))


@test(transports="none")
def mounts_are_found_by_what_they_serve(t):
    """foldctl status and audit of a file of the mount, and of its source, which means no mount of another user's."""
    source = t.make_dir("source")
    write_file(source + "/file", make_pages(t.rng, 4))
    mount = t.mount(source)

    def found(path):
        return json.loads(t.run(t.foldctl_command() + ["status", "--json", path]).stdout)["mountpoint"]

    for path in (mount.point, mount.path("file"), source, source + "/../source"):
        equal(found(path), mount.point, "the mount of " + path)
    t.run(t.foldctl_command() + ["audit", source])
    for path in (source + "/file", mount.path("none")):
        check(t.run(t.foldctl_command() + ["status", path], status=1).stderr.count("\n") == 1, path)
    os.chmod(t.directory, 0o1777)
    as_user(t, NOBODY, lambda: t.run(t.foldctl_command() + ["status", source], status=1))
    mount.unmount()
    t.run(t.foldctl_command() + ["status", source], status=1)


def in_demonstration(t, commands):
    """What bash commands print that know the functions of the demonstrations in scripts/run."""
    known = "set -eu; cd '%s'; . scripts/group.sh; eval \"$(sed -n '%s' scripts/run)\"; " % (
        ROOT, "/^row()/p; /^mib()/p; /^print_table() {/,/^}/p; /^whose_memory() {/,/^}/p")
    return t.run(["bash", "-c", known + commands], timeout=60).stdout


@test(transports="none")
def demonstration_adds_up(t):
    """The table of scripts/run: zeroes apart from what is shared, parts that are no larger than the whole, sums."""
    printed = in_demonstration(t, """figure() { [[ $1 == zero_pages ]] && echo 256000 || echo 104857600; }
        memory_part() { [[ $1 == anon ]] && echo 104857600 || echo 209715200; }
        group=somewhere; print_table 2147483648 2097152000 524288000""")
    found = {label.strip(): int(size) for label, size in re.findall(r"^ +(.+?) +(-?\d+) MiB$", printed, re.M)}
    equal(found["pages of zeroes, and holes"] + found["data"], found["read, in all"], "read")
    parts = [found[name] for name in ("foldfs itself", "the kernel's cache (window: 100 MiB)", "what else the kernel keeps")]
    equal((sum(parts), min(parts) >= 0), (found["memory taken now"], True), "parts of the memory: %r" % parts)
    saved = found["saved by not keeping zeroes"] + found["saved by sharing (50 % of the data)"]
    equal(saved, found["memory that a plain page cache takes"] - found["memory taken now"], "saved")


@test(transports="none")
def demonstration_measures_its_own(t):
    """What scripts/run measures is taken by what it runs, and by nobody else; nothing of it is left."""
    write_file(t.path("64M"), bytes(64 * MIB))
    printed = in_demonstration(t, """group_make; [[ -n $group ]] || { echo none; exit; }
        before=$(memory_taken); cat '%s' >'%s'; echo $(memory_since "$before")
        in_group python3 -c 'import os; open("%s", "wb").write(os.urandom(48 << 20))'; echo $(memory_since "$before")
        kept=$group; group_leave; [[ ! -e $kept ]] && echo gone""" % (t.path("64M"), t.path("copy"), t.path("own"))).split()
    if printed == ["none"]:
        t.skip("there is no memory cgroup here")
    others, own, gone = int(printed[0]), int(printed[1]), printed[2]
    check(others < 8 * MIB, "others took %d bytes" % others)
    check(48 * MIB <= own < 96 * MIB, "its own are %d bytes" % own)
    equal(gone, "gone", "the group")


@test(transports="none", variants={"K": ("pool=2048K", 512), "M": ("pool=3M", 768), "plain": ("pool=1048576", 256),
                                   "percent": ("pool=1%", None), "G": ("pool=1G", 262144)})
def sizes(t, value):
    """Sizes with K, M, G and % come out as they were meant."""
    option, frames = value
    source = t.make_dir("source")
    mount = t.mount(source, [option], transport="dev")
    found = mount.status()["frames_total"]
    if frames is None:
        memory = os.sysconf("SC_PHYS_PAGES")
        check(abs(found - memory / 100) <= 2, "1%% of %d pages came out as %d" % (memory, found))
    else:
        equal(found, frames, "frames_total")
    mount.unmount()


@test(transports="each", variants={"umount": None, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGHUP": signal.SIGHUP})
def ends_in_order(t, number):
    """umount(8) and signals end it with status 0, the mount and the socket gone, mapped stores written back.

    Invariant 1: what clients stored through mmap is in the source afterwards.
    """
    source = t.make_dir("source")
    write_file(source + "/file", bytes(50 * PAGE))
    mount = t.mount(source)
    path = socket_of(mount)
    made = socket_identity(path)
    check(made, "no control socket")
    read_file(mount.path("file"))
    t.run(["python3", "-c", "import mmap,sys\nwith open(sys.argv[1],'r+b') as f:\n"
           " m=mmap.mmap(f.fileno(),0); m[5*4096:5*4096+6]=b'mapped'\n m.close()", mount.path("file")])
    mount.unmount() if number is None else mount.stop(number)
    check(socket_identity(path) != made, "the control socket is still there")
    equal(read_file(source + "/file")[5 * PAGE:5 * PAGE + 6], b"mapped", "a mapped store")


@test(transports="each", variants={"window": "window=1G", "direct I/O": "window=0"})
def signal_while_much_is_mapped(t, window):
    """Tens of MiB that were stored through mappings which are still there are in the source after a signal: the
    daemon answers until the last page was written back."""
    source = t.make_dir("source")
    count, pages = 4, t.scaled(2000, 500)
    for number in range(count):
        write_file("%s/%d" % (source, number), bytes(pages * PAGE))
    mount = t.mount(source, [window])
    stored = Gate()

    def client(number):
        fd = os.open(mount.path(str(number)), os.O_RDWR)
        mapped = mmap.mmap(fd, pages * PAGE)
        os.close(fd)
        for page in range(pages):
            mapped[page * PAGE:page * PAGE + 8] = b"%08d" % page
        stored.open()
        signal.pause()

    clients = [t.fork(client, number) for number in range(count)]
    for _ in clients:
        stored.wait(*clients)
    mount.stop(signal.SIGTERM)
    for client in clients:
        os.kill(client.pid, signal.SIGKILL)
        os.waitpid(client.pid, 0)
        os.close(client.reader)
    for number in range(count):
        content = read_file("%s/%d" % (source, number))
        lost = sum(content[page * PAGE:page * PAGE + 8] != b"%08d" % page for page in range(pages))
        equal(lost, 0, "pages of file %d that are not in the source" % number)


@test(transports="each")
def signal_under_load(t):
    """SIGTERM while readers and writers are at work: an end with status 0, clients get errors, no hang,
    and what was acknowledged is in the source."""
    source = t.make_dir("source")
    write_file(source + "/file", bytes(500 * PAGE))
    mount = t.mount(source)

    def client(page):
        written = 0
        fd = os.open(mount.path("file"), os.O_RDWR)
        try:
            for written in range(1, 1 << 30):
                os.pwrite(fd, b"%08d" % written, page * PAGE)
                os.pread(fd, 100 * PAGE, 0)
        except OSError as error:
            check(error.errno in GONE, "errno: %s" % error)
        found = int(read_file(source + "/file")[page * PAGE:page * PAGE + 8])
        check(found >= written - 1, "write %d was acknowledged, the source has %d" % (written - 1, found))

    clients = [t.fork(client, page) for page in (0, 10, 499)]
    time.sleep(0.5)
    mount.stop(signal.SIGTERM)
    t.join(clients)


@test(transports="full")
def busy_unmount_is_refused(t):
    """umount of a mount in use says busy and changes nothing; after close it works."""
    source = t.make_dir("source")
    write_file(source + "/file", b"content")
    mount = t.mount(source)
    fd = os.open(mount.path("file"), os.O_RDONLY)
    check(t.run(["umount", mount.point], status=None).returncode != 0, "umount of a busy mount worked")
    equal(os.pread(fd, 7, 0), b"content", "content after a refused umount")
    os.close(fd)
    mount.unmount()


@test(transports="full")
def background(t):
    """Without -f the command returns 0 once the mount answers, holds on to no descriptor of the caller,
    and umount ends the daemon."""
    source, point = t.make_dir("source"), t.make_dir("mnt")
    write_file(source + "/file", b"content")
    command = t.foldfs_command() + [source, point, "-o", "pool=16M,transport=" + t.transport]
    result = t.run(command, timeout=20 * t.patience)  # its pipes close only if the daemon let go of them
    equal(result.stdout + result.stderr, "", "output of a successful mount")
    equal(read_file(point + "/file"), b"content", "content, at once")
    t.run(t.foldctl_command() + ["audit", "--idle", point], timeout=70 * t.patience)
    daemon = daemon_of(t, point)
    t.run(["umount", point])
    until(lambda: not os.path.exists("/proc/%d" % daemon) or state_of(daemon) == "Z", 10 * t.patience,
          "the daemon has ended")


def state_of(pid):
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def daemon_of(t, point):
    for entry in os.listdir("/proc"):
        try:
            with open("/proc/%s/cmdline" % entry, "rb") as file:
                words = file.read().split(b"\0")
            if os.fsencode(point) in words and words[0].endswith(b"foldfs"):
                return int(entry)
        except (OSError, ValueError):
            pass
    raise AssertionError("no daemon for " + point)


def install_for_mount(t):
    """Have mount(8) find foldfs by its type. It looks in the standard places only; in this test's own mount namespace
    ours is one of them."""
    if not os.path.exists("/sbin/mount.fuse3") and not os.path.exists("/sbin/mount.fuse"):
        t.skip("mount.fuse3 is not installed")
    programs = t.make_dir("bin")
    with open(programs + "/foldfs", "w") as script:
        script.write("#!/bin/sh\nexec %s \"$@\"\n" % " ".join(t.foldfs_command()))
    os.chmod(programs + "/foldfs", 0o755)
    t.run(["mount", "--bind", programs, "/usr/local/sbin"])
    t.at_end(lambda: t.run(["umount", "/usr/local/sbin"]))


@test(transports="none")
def mount_type_and_fstab(t):
    """`mount -t fuse.foldfs` and an fstab line, through mount(8) and mount.fuse3, with generic words."""
    source, point = t.make_dir("source"), t.make_dir("mnt")
    write_file(source + "/file", b"content")
    install_for_mount(t)
    options = "rw,nodev,nosuid,relatime,noauto,nofail,x-systemd.automount,_netdev,pool=16M,window=2M"
    fstab = t.path("fstab")
    write_file(fstab, ("%s %s fuse.foldfs %s 0 0\n" % (source, point, options)).encode())
    for command in (["mount", "-t", "fuse.foldfs", "-o", "pool=16M,window=2M,nodev", source, point],
                    ["mount", "--fstab", fstab, point]):
        t.run(command)
        equal(read_file(point + "/file"), b"content", "content")
        equal([kind for _, _, kind in mounts_under(point)], ["fuse.foldfs"], "type of the mount")
        status = json.loads(t.run(t.foldctl_command() + ["status", "--json", point]).stdout)
        equal(status["window"]["budget_bytes"], 2 * MIB, "an option given by mount(8)")
        t.run(t.foldctl_command() + ["audit", "--idle", point], timeout=70 * t.patience)
        daemon = daemon_of(t, point)
        t.run(["umount", point])
        until(lambda: state_of(daemon) == "Z", 10 * t.patience, "the daemon has ended")


@test(transports="none")
def read_only_and_names(t):
    """-o ro refuses writes; fsname= and subtype= of the user are the mount's."""
    source = t.make_dir("source")
    write_file(source + "/file", b"content")
    mount = t.mount(source, ["ro", "fsname=mine", "subtype=special"], transport="dev")
    equal(mounts_under(mount.point)[-1][2], "fuse.special", "type")
    with open("/proc/self/mounts") as table:
        check(any(line.split()[:2] == ["mine", mount.point] for line in table), "fsname")
    fails_with(errno.EROFS, "open for writing", os.open, mount.path("file"), os.O_RDWR)
    fails_with(errno.EROFS, "create", os.open, mount.path("new"), os.O_CREAT | os.O_WRONLY)
    equal(read_file(mount.path("file")), b"content", "content")
    mount.unmount()


@test(transports="full")
def two_mounts_of_one_source(t):
    """Two mounts of one source: each serves it, and a change through one is seen at an open in the other."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 100)
    write_file(source + "/file", content)
    first = t.mount(source, ["attr_timeout=0"], name="first")
    second = t.mount(source, ["attr_timeout=0"], name="second")
    second.expect_log("another foldfs mount serves")
    for mount in (first, second):
        equal(read_file(mount.path("file")), content, "content")
    with open(first.path("file"), "r+b") as file:
        os.pwrite(file.fileno(), b"changed", 50 * PAGE)
    equal(read_file(second.path("file"))[50 * PAGE:50 * PAGE + 7], b"changed", "seen in the other")
    check(first.status()["mountpoint"] != second.status()["mountpoint"], "one socket for two mounts")


@test(transports="full", timeout=40)
def mount_on_a_mount(t):
    """A foldfs whose source is another foldfs's mount serves the same bytes."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 500)
    write_file(source + "/file", content)
    lower = t.mount(source, name="lower")
    upper = t.mount(lower.point, name="upper")
    upper.expect_log("no kernel passthrough, because the source is on a stacked file system")
    equal(read_file(upper.path("file")), content, "content")
    with open(upper.path("file"), "r+b") as file:
        os.pwrite(file.fileno(), b"through both", 100)
        os.fsync(file.fileno())
    equal(read_file(source + "/file")[100:112], b"through both", "a write through both")
    upper.unmount()
    lower.unmount()


def device_for_everybody(t):
    """In this test's own mount namespace /dev/fuse is a node that everybody may open."""
    node = t.path("fuse-node")
    info = os.stat("/dev/fuse")
    os.mknod(node, 0o666 | 0o020000, info.st_rdev)
    os.chmod(node, 0o666)
    t.run(["mount", "--bind", node, "/dev/fuse"])
    t.at_end(lambda: t.run(["umount", "/dev/fuse"]))
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        t.skip("device nodes cannot be opened in %s: %s" % (t.directory, error))


AS_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


def runtime_directory(t):
    """In this test's own mount namespace nobody has a runtime directory, as after a login."""
    os.makedirs("/run/user", exist_ok=True)
    t.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run/user"])
    t.at_end(lambda: t.run(["umount", "/run/user"]))
    os.mkdir("/run/user/65534", 0o700)
    os.chown("/run/user/65534", 65534, 65534)


def need_plain_user(t):
    """What a plain user's mount needs is there, or the test is skipped."""
    t.need("fusermount3", "setpriv")
    if not os.path.exists("/etc/mtab"):
        t.skip("fusermount3 needs /etc/mtab")
    if t.run(AS_NOBODY + t.foldctl_command() + ["--version"], status=None).returncode:
        t.skip("a plain user cannot run the program where it is built")
    device_for_everybody(t)
    runtime_directory(t)


def unmount_as_nobody(t, mount):
    """Whose mount may still be asked its first question, and is busy so long. Root is refused by it also before it
    serves, so the user waits for that."""
    as_user(t, NOBODY, os.stat, mount.point)
    until(lambda: t.run(AS_NOBODY + ["fusermount3", "-u", mount.point], status=None).returncode == 0,
          10 * t.patience, "unmounted " + mount.point)
    mount.ended(0)


@test(transports="none", timeout=60)
def plain_user(t):
    """A plain user mounts through fusermount3, reads, writes, asks for the status and unmounts; root can
    ask too, and nobody else gets in."""
    need_plain_user(t)
    source, point = t.make_dir("source"), t.make_dir("mnt")
    content = make_pages(t.rng, 200)
    write_file(source + "/file", content)
    for path in (source, source + "/file", point):
        os.chown(path, 65534, 65534)
    write_file(source + "/secret", b"root's own")
    os.chmod(source + "/secret", 0o600)
    os.chmod(t.directory, 0o1777)  # the state
    mount = t.mount(source, ["fsname=mine", "subtype=special"], user="nobody", transport="dev")
    mount.expect_log("no kernel passthrough, because the daemon has no CAP_SYS_ADMIN")
    equal(mounts_under(mount.point)[-1][2], "fuse.special", "type")
    with open("/proc/self/mounts") as table:
        check(any(line.split()[:2] == ["mine", mount.point] for line in table), "fsname")

    def works():
        equal(read_file(mount.path("file")), content, "content")
        with open(mount.path("file"), "r+b") as file:
            os.pwrite(file.fileno(), b"mine", 10)
        write_file(mount.path("new"), b"new")
        equal(os.stat(mount.path("new")).st_uid, 65534, "owner of a new file")
        fails_with(errno.EACCES, "root's file", os.open, mount.path("secret"), os.O_RDONLY)
        text = subprocess.run(t.foldctl_command() + ["status", "--json", mount.point], capture_output=True,
                              env=t.environment(), check=True).stdout
        equal(json.loads(text)["mountpoint"], mount.point, "status for the owner")

    as_user(t, NOBODY, works)
    equal(mount.status()["mountpoint"], mount.point, "status for root")
    result = t.run(t.foldctl_command() + ["scan", mount.point], status=1)
    check("scan it as that user" in result.stderr, "a scan by root: " + result.stderr)
    equal(read_file(source + "/file")[10:14], b"mine", "a write, in the source")

    def other_user():
        os.setgroups([])
        os.setgid(1)
        os.setuid(1)
        fails_with(errno.EACCES, "another user", os.listdir, mount.point)

    t.join([t.fork(other_user)])
    as_user(t, NOBODY, lambda: subprocess.run(["fusermount3", "-u", mount.point], check=True))
    mount.ended(0)


@test(transports="none", variants={"passthrough": "passthrough=*", "copies": "coherence=overlay"})
def what_a_plain_user_asks_for_in_vain(t, option):
    """Kernel passthrough takes CAP_SYS_ADMIN: who asks for it without is told when he mounts, and by the status; who did
    not ask is not bothered."""
    need_plain_user(t)
    source, point = t.make_dir("source"), t.make_dir("mnt")
    os.chmod(t.directory, 0o1777)
    for path in (source, point):
        os.chown(path, NOBODY, NOBODY)
    for asked, said in ((option, True), ("passthrough_max=1M", False)):
        mount = t.mount(source, [asked], user="nobody", transport="dev")
        mount.expect_log("no kernel passthrough, because the daemon has no CAP_SYS_ADMIN")
        as_user(t, NOBODY, os.stat, mount.point)
        if said:
            mount.expect_log("the option %s.* has no effect" % asked.split("=")[0])
        equal("has no effect" in mount.log_text(), said, "said: " + mount.log_text())
        status = t.run(AS_NOBODY + t.foldctl_command() + ["status", point]).stdout
        check("no kernel passthrough, because the daemon has no CAP_SYS_ADMIN" in status, status)
        unmount_as_nobody(t, mount)


@test(transports="none", timeout=40)
def crashed_mount_is_replaced(t):
    """After a kill -9 the dead mount is told from a live one: a new mount there is refused until a lazy unmount,
    then works; the stale socket is no obstacle."""
    source = t.make_dir("source")
    write_file(source + "/file", b"content")
    mount = t.mount(source, transport="dev")
    mount.process.kill()
    mount.process.wait(20)
    refused(t, [source, mount.point], "a dead mount", mount.point)
    result = t.run(t.foldctl_command() + ["status", mount.point], status=1, timeout=10)
    check(result.stderr.strip(), "foldctl says nothing of a dead mount")
    t.run(["umount", "-l", mount.point])
    again = t.mount(source, transport="dev")
    equal(read_file(again.path("file")), b"content", "content")
    again.unmount()


@test(transports="none", timeout=60)
def scan_of_a_plain_user(t):
    """A plain user's scan is known to that user's mounts; a place that others may write to is not believed."""
    need_plain_user(t)
    source, state, point = t.make_dir("source"), t.make_dir("state"), t.make_dir("mnt")
    content = t.rng.randbytes(2 * MIB)
    files = {"one": content, "other": content[:MIB] + b"another" + content[MIB + 7:]}
    for name, bytes_ in files.items():
        write_file(os.path.join(source, name), bytes_)
    for path in (source, state, point, *(os.path.join(source, name) for name in files)):
        os.chown(path, 65534, 65534)
    t.run(AS_NOBODY + t.foldctl_command() + ["scan", "--state=" + state, source], timeout=60 * t.patience)
    (catalogue,) = (entry.path for entry in os.scandir(state))
    for mode, known in ((0o700, True), (0o777, False)):
        os.chmod(catalogue, mode)
        mount = t.mount(source, ["state=" + state], user="nobody", transport="dev")
        mount.expect_log("no kernel passthrough, because the daemon has no CAP_SYS_ADMIN")
        if not known:
            mount.expect_log("no catalogue of .* is kept: .*: others may write to it")
        for name, expected in files.items():
            as_user(t, NOBODY, lambda: equal(read_file(mount.path(name)), expected, name))
        equal(mount.status()["adopted"] > 0, known, "whether it knew of the scan, with mode %o" % mode)
        mount.unmount()
