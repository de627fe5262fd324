# SPDX-License-Identifier: Apache-2.0
"""What the daemon and the processes beside it run with, and what they cannot do."""

import ctypes
import errno
import mmap
import json
import os
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess

from harness import (LIBC, PAGE, ROOT, Failure, Gate, check, equal, errno_of, fails_with, make_pages, read_file, test, until,
                     write_file)
from processes import children_of
from test_program import need_plain_user
from users import NOBODY, USER, as_user, become

HEADER = os.path.join(ROOT, "include", "foldfs", "privileges.h")
# A group that a user has besides.
GROUP = 70005
# Files, more than a daemon with a limit of as many descriptors can hold open.
MANY = 512
PTRACE_ATTACH = 16
SECCOMP_FILTER = "2"


# ---- reading what the kernel says -----------------------------------------------------------------

def status_of(path):
    """The fields of a /proc/PID/status."""
    with open(path + "/status") as lines:
        return dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)


def numbers():
    """Name of each capability -> number, from the kernel's header."""
    with open("/usr/include/linux/capability.h") as header:
        found = re.findall(r"^#define (CAP_[A-Z_]+)\s+(\d+)$", header.read(), re.M)
    return {name: int(number) for name, number in found}


def table():
    """The names in the daemon's table."""
    with open(HEADER) as header:
        return re.findall(r"^\tX\((CAP_[A-Z_]+),", header.read(), re.M)


def mask(names):
    return sum(1 << numbers()[name] for name in names)


def own():
    """What this process could give at most: the machine may withhold some."""
    return int(status_of("/proc/self")["CapPrm"], 16)


def children(daemon):
    """Name -> process number of the processes beside a daemon."""
    return dict(children_of(daemon))


def statuses(pid):
    """The fields of each thread that is there."""
    found = []
    for thread in os.listdir("/proc/%d/task" % pid):
        try:
            found.append(status_of("/proc/%d/task/%s" % (pid, thread)))
        except FileNotFoundError:  # one that only waited for the start
            pass
    return found


def has_only(fields, permitted, bounding, what):
    for key, expected in (("CapPrm", permitted), ("CapBnd", bounding), ("CapInh", 0), ("CapAmb", 0)):
        equal("%x" % int(fields[key], 16), "%x" % expected, "%s: %s" % (what, key))


# ---- what they run with ---------------------------------------------------------------------------

@test(transports="each")
def of_the_daemon(t):
    """Every thread: the capabilities of the table, the same in the bounding set, no_new_privs, a filter; and the
    status says so. No core file, not dumpable."""
    source = t.make_dir("source")
    write_file(source + "/file", make_pages(t.rng, 8))
    mount = t.mount(source, ["scan=background", "watch"] if t.suite == "full" else [])
    read_file(mount.path("file"))
    pid = mount.serving_pid()
    expected = mask(table()) & own()
    threads = statuses(pid)
    check(len(threads) > 5, "the daemon's threads")
    for fields in threads:
        has_only(fields, expected, expected, fields["Name"])
        equal(fields["NoNewPrivs"], "1", "no_new_privs of " + fields["Name"])
        equal(fields["Seccomp"], SECCOMP_FILTER, "seccomp of " + fields["Name"])
    with open("/proc/%d/limits" % pid) as limits:
        check(re.search(r"^Max core file size +0 +0 ", limits.read(), re.M), "no core file")
    said = mount.status()["privileges"]
    names = {name[4:].lower() for name in table() if 1 << numbers()[name] & own()}
    equal(set(said["capabilities"].split()), names, "capabilities, says the status")
    equal(set(said["bounding"].split()), names, "bounding set, says the status")
    equal([said[key] for key in ("no_new_privs", "dumpable", "seccomp", "refused_calls")], ["yes", "no", "on", 0],
          "the rest, says the status")


@test(transports="one")
def of_the_others(t):
    """The guardian has no capability and one file; the attendant can search directories. The guardian is made when
    the bounding set cannot be lowered any more, but it starts no program."""
    mount = t.mount(t.make_dir("source"), ["survive=off"])
    names = {"foldfs-guardian"[:15], "foldfs-attendant"[:15]}

    def ready():
        """Both are there, and have done what they begin with."""
        found = children(mount.process.pid)
        return names <= set(found) and all(status_of("/proc/%d" % found[name])["Seccomp"] == SECCOMP_FILTER and
                                           len(os.listdir("/proc/%d/fd" % found[name])) == 1 for name in names)

    until(ready, 20 * t.patience, lambda: "filtered, with one descriptor: %r" % children(mount.process.pid))
    found = children(mount.process.pid)
    guardian, attendant = found["foldfs-guardian"[:15]], found["foldfs-attendant"[:15]]
    search = mask(["CAP_DAC_READ_SEARCH"])
    daemons = mask(table()) & own()
    for pid, capabilities, bounding, what in ((guardian, 0, daemons, "guardian"),
                                              (attendant, search, search, "attendant")):
        fields = status_of("/proc/%d" % pid)
        has_only(fields, capabilities, bounding, what)
        equal(fields["NoNewPrivs"], "1", what + ": no_new_privs")


@test(transports="none")
def docs_have_the_table(t):
    """docs/privileges.md lists the capabilities of the table, and the one of hidepid."""
    with open(os.path.join(ROOT, "docs", "privileges.md")) as file:
        rows = re.findall(r"^\| `(CAP_[A-Z_]+)` \|", file.read(), re.M)
    equal(sorted(rows), sorted(table() + ["CAP_SYS_PTRACE"]), "rows")


@test(transports="none", presets=("release",))
def unit_of_systemd(t):
    """The unit has the capabilities of the table, nothing that hides the mount in a namespace, and no mistake."""
    path = os.path.join(t.build, "foldfs@.service")
    with open(path) as unit:
        settings = dict(line.strip().split("=", 1) for line in unit if re.match(r"[A-Z]\w+=", line))
    equal(settings["CapabilityBoundingSet"].split(), table(), "capabilities")
    hiding = re.compile("Protect|Private|Root|Bind|MountFlags|.*Paths|.*Directory|DynamicUser|MountAPIVFS|TemporaryFile|"
                        "InaccessiblePaths|User|Group|UMask|SecureBits|RestrictSUIDSGID|RestrictFileSystems")
    equal([name for name in settings if hiding.match(name)], [], "settings that hide the mount or hinder its work")
    if not shutil.which("systemd-analyze"):
        return
    copy = t.path("foldfs@test.service")
    with open(path) as unit, open(copy, "w") as written:
        written.write(re.sub(r"/\S+/bin/(foldfs|foldctl)\b", lambda found: os.path.join(t.build, found[1]), unit.read()))
    result = t.run(["systemd-analyze", "verify", "--man=no", copy])
    equal(result.stderr.strip(), "", "systemd-analyze verify")


@test(transports="one")
def switched_off(t):
    """seccomp=off takes the filter away and nothing else."""
    mount = t.mount(t.make_dir("source"), ["seccomp=off"])
    fields = status_of("/proc/%d" % mount.serving_pid())
    has_only(fields, mask(table()) & own(), mask(table()) & own(), "daemon")
    equal(fields["Seccomp"], "0", "seccomp")
    equal(fields["NoNewPrivs"], "1", "no_new_privs")
    equal(mount.status()["privileges"]["seccomp"], "off", "the status")


# ---- what each is for -----------------------------------------------------------------------------

def succeeds(function, *args):
    return errno_of(function, *args) == 0


def user_makes_a_file(t, mount):
    made = mount.path("by-user")
    try:
        as_user(t, USER, lambda: os.close(os.open(made, os.O_CREAT | os.O_WRONLY, 0o644)))
    except Exception:  # whatever became of it
        return False
    return os.stat(made).st_uid == USER and os.stat(made).st_gid == USER


def knows_more_files_than_descriptors(_, mount):
    """Files are found again by their handle: a descriptor for each that the kernel knows would be too many."""
    return all(succeeds(os.stat, mount.path("many", str(index))) for index in range(MANY))


def nice_values(pid):
    """Of each thread that is there."""
    found = []
    for thread in os.listdir("/proc/%d/task" % pid):
        try:
            found.append(int(read_file("/proc/%d/task/%s/stat" % (pid, thread)).rsplit(b")", 1)[1].split()[16]))
        except FileNotFoundError:
            pass
    return found


def has_a_thread_that_goes_first(_, mount):
    """Each thread sets its own when it begins, which may be a moment after the first answer."""
    try:
        return until(lambda: min(nice_values(mount.serving_pid())) < 0, 2, "a thread of higher priority")
    except Failure:
        return False


def keeps_the_bit(_, mount):
    os.chmod(mount.path("other's"), 0o2755)
    return bool(os.stat(mount.path("other's")).st_mode & stat.S_ISGID)


def oom_score_is_lowered(_, mount):
    return read_file("/proc/%d/oom_score_adj" % mount.serving_pid()).strip() == b"-900"


def sets_a_capability(_, mount):
    value = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
    return succeeds(os.setxattr, mount.path("other's"), "security.capability", value)


def shares_a_users_files(t, mount):
    """Two equal files of a user's, in a read-only mount: one may back the other if nobody has it open for writing."""
    source = t.make_dir(os.path.basename(mount.source) + "-equal")
    for name in ("one", "two"):
        write_file(source + "/" + name, b"equal" * 20000)
        os.chown(source + "/" + name, USER, USER)
    t.run(t.foldctl_command() + ["scan", "--json", "--state=" + t.path("state"), source])
    shared = t.mount(source, ["ro"], name=os.path.basename(source) + "-mnt", audit=False)
    plan = json.loads(t.run(t.foldctl_command() + ["explain", "--json", shared.path("two")]).stdout)["plan"]
    return plan == "shared passthrough"


PROBES = {
    "CAP_CHOWN": lambda t, mount: succeeds(os.chown, mount.path("other's"), 1, 1),
    "CAP_DAC_OVERRIDE": lambda t, mount: succeeds(write_file, mount.path("other's"), b"by root"),
    "CAP_DAC_READ_SEARCH": knows_more_files_than_descriptors,
    "CAP_FOWNER": lambda t, mount: succeeds(os.chmod, mount.path("other's"), 0o600),
    "CAP_FSETID": keeps_the_bit,
    "CAP_LEASE": shares_a_users_files,
    "CAP_MKNOD": lambda t, mount: succeeds(os.mknod, mount.path("device"), stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "CAP_SETFCAP": sets_a_capability,
    "CAP_SETGID": user_makes_a_file,
    "CAP_SETUID": user_makes_a_file,
    "CAP_SYS_ADMIN": None,  # without it root cannot mount
    "CAP_SYS_NICE": has_a_thread_that_goes_first,
    "CAP_SYS_RESOURCE": oom_score_is_lowered,
}


def outcome(t, capability, without):
    """Whether what CAPABILITY is for works, in a mount of a tree of its own."""
    name = "without" if without else "with"
    source = t.make_dir(name + "-source")
    os.chmod(source, 0o777)
    write_file(source + "/other's", b"content")
    os.chown(source + "/other's", USER, USER)
    os.chmod(source + "/other's", 0o400)
    os.mkdir(source + "/many")
    for index in range(MANY):
        write_file(source + "/many/%d" % index, b"")
    wrapper = os.environ.get("FOLDFS_TEST_WRAPPER", "")
    if without:
        os.environ["FOLDFS_TEST_WRAPPER"] = "setpriv --bounding-set=-%s %s" % (capability[4:].lower(), wrapper)
    limit = MANY if capability == "CAP_DAC_READ_SEARCH" else None
    mount = t.mount(source, name=name, audit=False, limit_nofile=limit)
    mount.expect_log("no kernel passthrough|file handles")
    found = PROBES[capability](t, mount)
    os.environ["FOLDFS_TEST_WRAPPER"] = wrapper
    return found


@test(transports="one", variants={name[4:].lower(): name for name in PROBES})
def each_is_needed(t, capability):
    """Without the capability, that fails which it is kept for; so none is kept for nothing."""
    check(set(PROBES) == set(table()), "a probe for each of the table")
    if not 1 << numbers()[capability] & own():
        t.skip("this machine withholds " + capability)
    if capability == "CAP_SYS_ADMIN":
        source, point = t.make_dir("source"), t.make_dir("mnt")
        t.run(["setpriv", "--bounding-set=-sys_admin"] + t.foldfs_command() + [source, point, "-o", "state=" + source],
              status=1)
        return
    check(outcome(t, capability, without=False), "works with it")
    check(not outcome(t, capability, without=True), "works without it, so it is kept for nothing")


@test(transports="one")
def capabilities_follow_the_uid(t):
    """Securebits that a process may be started with, by which a change of uid leaves the capabilities: the daemon
    takes them off, or does not start if they are locked."""
    source, point = t.make_dir("source"), t.make_dir("locked")
    write_file(source + "/file", b"content")
    locked = t.run(["setpriv", "--securebits=+no_setuid_fixup,+no_setuid_fixup_locked"] + t.foldfs_command() +
                   [source, point, "-o", "state=" + source], status=1)
    check("no_setuid_fixup" in locked.stderr, "the message: " + locked.stderr)
    wrapper = os.environ.get("FOLDFS_TEST_WRAPPER", "")
    os.environ["FOLDFS_TEST_WRAPPER"] = "setpriv --securebits=+no_setuid_fixup " + wrapper
    mount = t.mount(source, ["attr_timeout=3600"])
    os.environ["FOLDFS_TEST_WRAPPER"] = wrapper
    os.chown(source + "/file", USER, USER)

    def act():
        os.stat(mount.path("file"))
        told.open()
        go.wait()
        fails_with(errno.EPERM, "chmod", os.chmod, mount.path("file"), 0o666)

    told, go = Gate(), Gate()
    child = t.fork(lambda: (become(USER), act()))
    told.wait(child)
    # The kernel does not know yet: the source is asked.
    os.chown(source + "/file", 0, 0)
    go.open()
    t.join([child])


@test(transports="one")
def proc_hides_processes(t):
    """Where /proc hides processes (hidepid), callers' groups are still seen: CAP_SYS_PTRACE is kept for that."""
    result = t.run(["mount", "-t", "proc", "-o", "hidepid=invisible,gid=%d" % (GROUP + 1), "proc", "/proc"], status=None)
    if result.returncode:
        t.skip("no /proc of its own here: " + result.stderr.strip())
    t.at_end(lambda: t.run(["umount", "/proc"]))
    source = t.make_dir("source")
    os.chown(source, 0, GROUP)
    os.chmod(source, 0o770)
    mount = t.mount(source)
    check("sys_ptrace" in mount.status()["privileges"]["capabilities"].split(), "CAP_SYS_PTRACE is kept")
    as_user(t, USER, lambda: write_file(mount.path("file"), b"by group"), groups=[GROUP])
    equal(os.stat(source + "/file").st_uid, USER, "owner of the file")


# ---- a plain user's daemon ------------------------------------------------------------------------

@test(transports="none", timeout=60)
def of_a_plain_user(t):
    """A plain user's daemon is held to the same, and nobody of his reads its memory. By a signal it unmounts all
    the same, though it cannot start fusermount3 any more, and though somebody is in the mount; what was stored
    through a mapping arrives."""
    need_plain_user(t)
    source, point = t.make_dir("source"), t.make_dir("mnt")
    for path in (source, point, t.make_dir("state")):
        os.chown(path, 65534, 65534)
    mount = t.mount(source, user="nobody", transport="dev", audit=False)
    mount.expect_log("no kernel passthrough, because the daemon has no CAP_SYS_ADMIN")
    pid = mount.serving_pid()
    # Root is refused by the kernel, before there is anybody to answer.
    until(lambda: status_of("/proc/%d" % pid)["Seccomp"] == SECCOMP_FILTER, 10 * t.patience, "the daemon is filtered")
    for fields in statuses(pid):
        equal(fields["CapPrm"].strip("0"), "", "capabilities")
        equal((fields["NoNewPrivs"], fields["Seccomp"]), ("1", SECCOMP_FILTER), "no_new_privs and seccomp")

    def child():
        become(NOBODY)
        fails_with(errno.EACCES, "the daemon's memory", os.open, "/proc/%d/mem" % pid, os.O_RDONLY)
        equal(LIBC.ptrace(PTRACE_ATTACH, pid, None, None), -1, "ptrace")
        equal(ctypes.get_errno(), errno.EPERM, "ptrace")
        fd = os.open(mount.path("file"), os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(fd, PAGE)
        mapped = mmap.mmap(fd, PAGE)
        mapped[:6] = b"stored"
        os.chdir(mount.point)
        os.kill(pid, signal.SIGTERM)
        until(lambda: not mount.is_mounted(), 20, "unmounted")

    t.join([t.fork(child)])
    mount.ended(0)
    equal(read_file(source + "/file")[:6], b"stored", "what was stored through a mapping")


@test(transports="one")
def tells_the_service_manager(t):
    """READY=1 and STOPPING=1 reach a service manager, from under the filter."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(t.path("notify"))
        manager.settimeout(20 * t.patience)
        os.environ["NOTIFY_SOCKET"] = t.path("notify")
        mount = t.mount(t.make_dir("source"), audit=False)
        del os.environ["NOTIFY_SOCKET"]
        check(b"READY=1" in manager.recv(4096), "ready")
        mount.stop()
        check(b"STOPPING=1" in manager.recv(4096), "stopping")


@test(transports="one")
def signals_to_all(t):
    """A signal to the daemon and to all beside it, as a service manager sends it, ends the daemon in order: what was
    stored through a mapping arrives."""
    source = t.make_dir("source")
    write_file(source + "/file", bytes(PAGE))
    mount = t.mount(source, audit=False)
    fd = os.open(mount.path("file"), os.O_RDWR)
    mapped = mmap.mmap(fd, PAGE)
    mapped[:6] = b"stored"
    for pid in list(children(mount.process.pid).values()) + [mount.process.pid]:
        os.kill(pid, signal.SIGTERM)
    mount.ended(0)
    equal(read_file(source + "/file")[:6], b"stored", "what was stored through a mapping")
    mapped.close()
    errno_of(os.close, fd)


@test(transports="one")
def killed_with_its_daemon(t):
    """The attendant ends with the daemon, whoever ends that."""
    mount = t.mount(t.make_dir("source"), audit=False)
    mount.expect_log("does not answer")
    attendant = children(mount.process.pid)["foldfs-attendant"[:15]]
    mount.kill()

    def gone():
        try:
            return status_of("/proc/%d" % attendant)["State"][0] == "Z"
        except OSError:
            return True

    until(gone, 10, "the attendant has gone")


# ---- the program as it was built --------------------------------------------------------------------

def notes(path):
    return subprocess.run(["readelf", "--wide", "--notes", path], capture_output=True, text=True, check=False).stdout


@test(transports="none", presets=("release", "digest8"))
def hardened(t):
    """Position independent, all symbols bound and read-only at the start, stack protected, fortified, and on x86-64
    marked for shadow stacks; with branch tracking where the C library's start files have it."""
    t.need("readelf")
    for program in ("foldfs", "foldctl"):
        path = os.path.join(t.build, program)
        text = subprocess.run(["readelf", "--wide", "--headers", "--dynamic", "--dyn-syms", path], capture_output=True,
                              text=True, check=True).stdout
        for what, pattern in (("PIE", r"Type: +DYN"), ("RELRO", r"GNU_RELRO"), ("BIND_NOW", r"FLAGS_1.*NOW"),
                              ("stack protector", r"__stack_chk_fail"), ("FORTIFY_SOURCE", r"__snprintf_chk"),
                              ("no executable stack", r"GNU_STACK.* RW +0x")):
            check(re.search(pattern, text), "%s: %s" % (program, what))
        if os.uname().machine == "x86_64":
            check("SHSTK" in notes(path), program + ": shadow stacks")
            if "IBT" in c_start_file():
                check("IBT" in notes(path), program + ": branch tracking")


def c_start_file():
    if not shutil.which("gcc"):
        return ""
    path = subprocess.run(["gcc", "-print-file-name=Scrt1.o"], capture_output=True, text=True, check=True).stdout
    return notes(path.strip())


@test(transports="none", presets=("release",))
def every_object_is_protected(t):
    """All that is linked into the programs has the marks, libfuse too: one that had not would take them away."""
    if os.uname().machine != "x86_64":
        t.skip("not x86-64")
    t.need("readelf")
    archives = [os.path.join(t.build, name) for name in os.listdir(t.build) if name.endswith(".a")]
    own_libfuse = os.path.join(ROOT, "build", "deps", "libfuse", "lib", "libfuse3.a")
    for archive in archives + [own_libfuse] * os.path.exists(own_libfuse):
        for part in re.split(r"^File: ", notes(archive), flags=re.M)[1:]:
            check("IBT, SHSTK" in part, "not protected: " + part.splitlines()[0])
