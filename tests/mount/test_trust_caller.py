# SPDX-License-Identifier: Apache-2.0
"""As the caller, not as root: what a user may do through the mount is what the source says at that moment.

The kernel checks callers against attributes that it may keep for long: every mount here keeps them for an hour, the
attacker has it learn them, and root changes the source behind the mount. What is tried then is tried as the attacker,
on the source as well, and has to come to the same.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import resource
import signal
import stat
import struct
import threading

from harness import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, LIBC, MIB, PAGE, Gate, check, equal,
                     errno_of, fallocate, libc_call, read_file, test, until, write_file)
from sweep import SOURCE, mount_faulty
from test_identity import CAPABILITY_VERSION, GROUP, in_user_namespace, result_of
from test_privileges import status_of
from test_program import AS_NOBODY, need_plain_user, unmount_as_nobody
from users import NOBODY, OTHER, USER, as_user, become

OLD = ["attr_timeout=3600", "entry_timeout=3600"]
CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_SYS_ADMIN = 1, 3, 21
# chown, dac_override, dac_read_search, fowner, fsetid, linux_immutable, sys_resource, mknod, setfcap, mac_override
OF_FILES = sum(1 << number for number in (0, 1, 2, 3, 4, 9, 24, 27, 31, 32))
# Of the daemon's threads, for which it is stopped.
SAMPLES = 10
PRIO_PROCESS, PR_SET_KEEPCAPS = 0, 8
SET_ID = 0o4755
FILE_CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 7, 0, 0, 0)


class Attacker:
    """A user's process: it looks first, and acts when it is told to."""

    def __init__(self, t, uid, look, act):
        self.t = t
        ready, tell_ready = os.pipe()
        wait, self.go = os.pipe()

        def child():
            become(uid, umask=0)
            state = look()
            os.write(tell_ready, b"x")
            os.read(wait, 1)
            act(state)

        self.child = t.fork(child)
        os.close(tell_ready)
        check(os.read(ready, 1) == b"x", "the attacker has looked")
        for fd in (ready, wait):
            os.close(fd)

    def act(self):
        os.write(self.go, b"x")
        os.close(self.go)
        self.t.join([self.child])


def opened(path, flags):
    os.close(os.open(path, flags))


def set_xattr(path):
    os.setxattr(path, "user.x", b"x")


# Everything that is done to a file by name: each is refused to who is not its owner.
DEEDS = {
    "chmod": lambda path: os.chmod(path, 0o666),
    "chgrp": lambda path: os.chown(path, -1, USER),
    "times": lambda path: os.utime(path, (1, 1)),
    "now": os.utime,
    "truncate": lambda path: os.truncate(path, 1),
    "truncate to nothing": lambda path: os.truncate(path, 0),
    "open for reading": lambda path: opened(path, os.O_RDONLY),
    "open for writing": lambda path: opened(path, os.O_WRONLY),
    "open and truncate": lambda path: opened(path, os.O_RDWR | os.O_TRUNC),
    "setxattr": set_xattr,
    "removexattr": lambda path: os.removexattr(path, "user.mine"),
    "getxattr": lambda path: os.getxattr(path, "user.mine"),
}


@test(transports="each", variants=DEEDS)
def the_former_owner(t, deed):
    """Root takes a user's file over in the source; the kernel still believes that it is the user's."""
    source = t.make_dir("source")
    for name in ("taken", "native"):
        write_file(source + "/" + name, b"content")
        os.setxattr(source + "/" + name, "user.mine", b"x")
        os.chown(source + "/" + name, USER, USER)
        os.chmod(source + "/" + name, 0o644)
    mount = t.mount(source, OLD)

    def act(_):
        expected = errno_of(deed, source + "/native")
        check(expected in (errno.EACCES, errno.EPERM), "natively refused: %d" % expected)
        equal(errno_of(deed, mount.path("taken")), expected, "errno")

    attacker = Attacker(t, USER, lambda: os.stat(mount.path("taken")), act)
    for name in ("taken", "native"):
        os.chown(source + "/" + name, 0, 0)
        os.chmod(source + "/" + name, 0o600)
    before = os.stat(source + "/taken")
    attacker.act()
    after = os.stat(source + "/taken")
    equal(read_file(source + "/taken"), b"content", "the file in the source")
    equal((after.st_mode, after.st_uid, after.st_gid, after.st_mtime_ns), (
        before.st_mode, before.st_uid, before.st_gid, before.st_mtime_ns), "its attributes")
    equal(os.listxattr(source + "/taken"), ["user.mine"], "its xattrs")


@test(transports="each")
def the_former_owner_of_a_directory(t):
    """The same of a directory: nothing is listed, made, renamed or removed in it any more."""
    source = t.make_dir("source")
    directory = source + "/taken"
    os.mkdir(directory)
    write_file(directory + "/file", b"content")
    os.chown(directory, USER, USER)
    mount = t.mount(source, OLD)
    inside = mount.path("taken")
    deeds = (lambda: os.listdir(inside),
             lambda: write_file(inside + "/new", b""),
             lambda: os.mkdir(inside + "/new"),
             lambda: os.mknod(inside + "/new", stat.S_IFIFO | 0o600),
             lambda: os.symlink("x", inside + "/new"),
             lambda: os.rename(inside + "/file", inside + "/other"),
             lambda: os.unlink(inside + "/file"))

    def act(_):
        for number, deed in enumerate(deeds):
            equal(errno_of(deed), errno.EACCES, "deed %d" % number)

    def look():
        os.stat(inside)
        os.stat(inside + "/file")

    attacker = Attacker(t, USER, look, act)
    os.chown(directory, 0, 0)
    os.chmod(directory, 0o700)
    attacker.act()
    equal(os.listdir(directory), ["file"], "what is in it")


@test(transports="each", variants={"unlink": os.unlink, "rename": lambda path: os.rename(path, path + "2")})
def a_name_in_a_sticky_directory(t, deed):
    """The name that the kernel knows as the attacker's is another user's by now."""
    source = t.make_dir("source")
    os.mkdir(source + "/sticky")
    os.chmod(source + "/sticky", 0o1777)
    write_file(source + "/sticky/x", b"")
    os.chown(source + "/sticky/x", USER, USER)
    mount = t.mount(source, OLD)
    attacker = Attacker(t, USER, lambda: os.stat(mount.path("sticky/x")),
                        lambda _: equal(errno_of(deed, mount.path("sticky/x")), errno.EPERM, "errno"))
    os.unlink(source + "/sticky/x")
    write_file(source + "/sticky/x", b"of the other user")
    os.chown(source + "/sticky/x", OTHER, OTHER)
    attacker.act()
    equal(os.listdir(source + "/sticky"), ["x"], "what is in the directory")


@test(transports="each", timeout=60)
def nothing_is_undone_by_a_chown_of_nothing(t):
    """chown(path, -1, -1) is anybody's, and comes as a request that sets nothing: it brings no mode back that was
    taken away meanwhile."""
    source = t.make_dir("source")
    write_file(source + "/file", b"secret")
    os.chmod(source + "/file", 0o644)
    mount = t.mount(source, ["attr_timeout=0"])
    ready = Gate()

    def loop():
        become(USER, umask=0)
        ready.open()
        while True:
            errno_of(os.chown, mount.path("file"), -1, -1)

    children = [t.fork(loop) for _ in range(2)]
    for _ in children:
        ready.wait(*children)
    undone = 0
    for _ in range(t.scaled(1500, 300)):
        os.chmod(source + "/file", 0o600)
        # The request that may bring it back is under way now; one that was sent after this is answered after it.
        os.chown(mount.path("file"), -1, -1)
        os.chown(mount.path("file"), -1, -1)
        undone += stat.S_IMODE(os.stat(source + "/file").st_mode) != 0o600
        os.chmod(source + "/file", 0o644)
    for child in children:
        os.kill(child.pid, 9)
        os.waitpid(child.pid, 0)
        os.close(child.reader)
    equal(undone, 0, "modes that came back")


@test(transports="each", variants={"window": [], "own passthrough": ["passthrough=*"]})
def rights_given_while_a_user_writes(t, options):
    """A file gets a set-id bit or a capability, in the source, while a user has it open for writing: it is gone
    with the next write, as on any file system."""
    source = t.make_dir("source")
    mount = t.mount(source, options)
    for kind, reader in (("set-user-ID", False), ("capability", False), ("set-user-ID", True), ("capability", True)):
        path = source + "/" + kind
        write_file(path, t.rng.randbytes(65536))
        os.chmod(path, 0o777)
        # Who has it open first must not lend his rights to who writes then.
        held = os.open(mount.path(kind), os.O_RDONLY) if reader else -1
        attacker = Attacker(t, USER, lambda: os.open(mount.path(kind), os.O_RDWR),
                            lambda fd: os.pwrite(fd, b"evil", 0))
        if kind == "capability":
            os.setxattr(path, "security.capability", FILE_CAPABILITY)
        else:
            os.chmod(path, 0o4777)
        attacker.act()
        equal(stat.S_IMODE(os.stat(path).st_mode), 0o777, "the mode")
        check("security.capability" not in os.listxattr(path), "the capability is gone")
        equal(read_file(path)[:4], b"evil", "the content")
        if reader:
            os.close(held)


# Each change of content that a descriptor allows.
CHANGES = {
    "write": lambda fd: os.pwrite(fd, b"evil", 10),
    "append": lambda fd: os.pwrite(fd, b"evil", 8 * PAGE),
    "truncate": lambda fd: os.ftruncate(fd, PAGE),
    "extend": lambda fd: os.ftruncate(fd, 9 * PAGE),
    "allocate": lambda fd: fallocate(fd, 0, 8 * PAGE, PAGE),
    "zero range": lambda fd: fallocate(fd, FALLOC_ZERO_RANGE, PAGE, PAGE),
    "zero range within": lambda fd: fallocate(fd, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, 10, 100),
    "punch": lambda fd: fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, PAGE, PAGE),
    "copy": lambda fd: os.copy_file_range(fd, fd, PAGE, 0, 4 * PAGE),
}


def give_rights(path):
    write_file(path, bytes(range(256)) * (8 * PAGE // 256))
    os.chown(path, 0, 0)
    os.chmod(path, 0o777)


@test(transports="each", variants={"window": [], "direct": ["window=0"], "own passthrough": ["passthrough=*"]})
def set_id_bits_go_with_every_change(t, options):
    """What a user who is not the owner changes in any way loses set-id bits and capabilities, as natively; whether they
    were there before he opened it, or came while he had it open."""
    source = t.make_dir("source")
    mount = t.mount(source, options + ["attr_timeout=0", "entry_timeout=0"])
    for name, change in CHANGES.items():
        for opens_first in (False, True):
            left = []
            for place in (source, mount.point):
                path, shown = source + "/file", place + "/file"
                give_rights(path)

                def grant(file=path):
                    os.chmod(file, 0o6777)
                    os.setxattr(file, "security.capability", FILE_CAPABILITY)

                if not opens_first:
                    grant()
                attacker = Attacker(t, USER, lambda file=shown: os.open(file, os.O_RDWR), change)
                if opens_first:
                    grant()
                attacker.act()
                left.append((oct(os.stat(path).st_mode), os.listxattr(path), read_file(path)))
                os.unlink(path)
            equal(left[1], left[0], "%s, opened %s: mode, xattrs, content" % (
                name, "before" if opens_first else "after"))
            equal(left[1][0], oct(stat.S_IFREG | 0o777), "the mode, after " + name)


@test(transports="none", timeout=120, variants={"window": [], "own passthrough": ["passthrough=*"]})
def set_id_bits_that_cannot_be_taken_fail_the_change(t, options):
    """Each call of the daemon to its source fails once while a user changes a set-id file: either he hears of it, or
    the bits are gone."""
    source = t.make_dir("source")
    mount, faults = mount_faulty(t, source, options + ["attr_timeout=0", "entry_timeout=0"], transport="dev")
    mount.expect_log(".")
    path, reached = source + "/file", 0
    for name in ("write", "truncate", "zero range", "zero range within", "punch", "copy"):
        for nth in range(1, 40):
            result = t.path("result")
            give_rights(path)

            def act(fd, change=CHANGES[name], count=nth):
                faults.arm(SOURCE, count, errno.EIO)
                code = errno_of(change, fd)
                write_file(result, b"%d %d" % (code, faults.applied()))
                faults.disarm()

            os.close(os.open(result, os.O_CREAT | os.O_WRONLY, 0o666))
            os.chmod(result, 0o666)
            attacker = Attacker(t, USER, lambda: os.open(mount.path("file"), os.O_RDWR), act)
            os.chmod(path, 0o6777)
            attacker.act()
            code, applied = map(int, read_file(result).split())
            check(code in (0, errno.EIO), "%s, call %d: errno %d" % (name, nth, code))
            check(code or stat.S_IMODE(os.stat(path).st_mode) == 0o777, "%s, call %d: done, and the mode is %o" % (
                name, nth, os.stat(path).st_mode))
            os.unlink(path)
            reached += applied
            if not applied:
                break
    check(reached >= 6, "calls that failed: %d" % reached)


def use_reserve(path):
    """Root's, where there are no other blocks: each call does all of it."""
    os.mkdir(path)
    with open(path + "/file", "w+b", buffering=0) as file:
        equal(file.write(bytes(MIB // 2)), MIB // 2, "bytes written at once")
        os.posix_fallocate(file.fileno(), MIB // 2, MIB // 2)
        file.truncate(MIB + 8 * PAGE)
        with mmap.mmap(file.fileno(), MIB + 8 * PAGE) as area:
            area[MIB:] = b"m" * (8 * PAGE)
            area.flush()
        os.fsync(file.fileno())
    equal(os.stat(path + "/file").st_blocks * 512 >= MIB + 8 * PAGE, True, "all blocks are there")
    os.symlink("x" * 1000, path + "/link")


@test(transports="each", variants={"window": [], "own passthrough": ["passthrough=*"]})
def reserved_blocks_are_roots(t, options):
    """A user's writes, of every kind, end where they end natively: at the blocks that are reserved for root."""
    source = t.loop_file_system("ext4", 24 * MIB)
    t.run(["tune2fs", "-m", "20", t.path("loop.img")], status=None)
    t.run(["mount", "-o", "remount", source], status=None)
    os.chmod(source, 0o777)
    reserved = os.statvfs(source)
    reserved = (reserved.f_bfree - reserved.f_bavail) * reserved.f_frsize
    check(reserved > MIB, "there are reserved blocks: %d bytes" % reserved)
    mount = t.mount(source, options)

    def fill():
        # Root has it open already, for reading.
        fd = os.open(mount.path("file"), os.O_RDWR)
        size = 0
        for step in (MIB, 4096):
            while not errno_of(os.pwrite, fd, bytes(step), size):
                size += step
        equal(errno_of(os.pwrite, fd, bytes(step), size), errno.ENOSPC, "errno of a write")
        equal(errno_of(os.posix_fallocate, fd, size, MIB), errno.ENOSPC, "errno of fallocate")
        equal(errno_of(os.copy_file_range, fd, fd, MIB, 0, size), errno.ENOSPC, "errno of copy_file_range")
        os.fsync(fd)

    write_file(source + "/file", b"")
    os.chown(source + "/file", USER, USER)
    held = os.open(mount.path("file"), os.O_RDONLY)
    as_user(t, USER, fill, umask=0)
    os.close(held)
    left = os.statvfs(source)
    check(left.f_bfree * left.f_frsize >= reserved * 0.9, "%d bytes of %d reserved ones are left" % (
        left.f_bfree * left.f_frsize, reserved))
    if not options:
        use_reserve(mount.path("of root"))


def grown(path, size):
    """Whether a file can be made larger than SIZE, in each way that there is: the errno of each."""
    with open(path, "w+b", buffering=0) as file, open(path + ".2", "w+b", buffering=0) as other:
        other.write(bytes(PAGE))
        found = [errno_of(os.pwrite, file.fileno(), b"x", size), errno_of(os.ftruncate, file.fileno(), size + 1),
                 errno_of(os.posix_fallocate, file.fileno(), size, 1), errno_of(os.truncate, path, size + 1),
                 errno_of(os.copy_file_range, other.fileno(), file.fileno(), 1, 0, size)]
    os.unlink(path)
    os.unlink(path + ".2")
    return found


@contextlib.contextmanager
def daemons_run_by(*wrapper):
    """Mounts are made by these words."""
    before = os.environ.get("FOLDFS_TEST_WRAPPER", "")
    os.environ["FOLDFS_TEST_WRAPPER"] = " ".join([*wrapper, before])
    try:
        yield
    finally:
        os.environ["FOLDFS_TEST_WRAPPER"] = before


@test(transports="full", variants={"window": [], "direct": ["window=0"], "own passthrough": ["passthrough=*"]})
def limits_of_file_sizes_are_each_clients(t, options):
    """A limit (ulimit -f) that foldfs was started with is nobody's; a client's own holds for him, in each plan."""
    t.need("prlimit")
    source = t.make_dir("source")
    os.chmod(source, 0o777)
    with daemons_run_by("prlimit", "--fsize=%d:" % MIB):
        mount = t.mount(source, options)
    path = mount.path("file")

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
        equal(grown(path, MIB), [errno.EFBIG] * 5, "beyond a client's own limit")

    equal(grown(path, MIB), [0] * 5, "beyond the daemon's")
    as_user(t, USER, limited)
    equal(grown(path, MIB), [0] * 5, "and again")


@test(transports="none")
def limits_that_cannot_be_raised_are_refused(t):
    """A plain user whose limit of file sizes is a hard one mounts read-only, or hears why not."""
    need_plain_user(t)
    source, point = t.make_dir("source"), t.make_dir("mnt")
    os.chmod(t.directory, 0o1777)
    for path in (source, point):
        os.chown(path, NOBODY, NOBODY)
    with daemons_run_by("prlimit", "--fsize=%d" % (64 * MIB)):
        result = t.run(AS_NOBODY + t.foldfs_command() + [source, point, "-o", "pool=16M"], status=1)
        check("ulimit -f" in result.stderr and result.stderr.count("\n") == 1, "said: " + result.stderr)
        mount = t.mount(source, ["ro"], user="nobody", transport="dev")
    mount.expect_log("no kernel passthrough, because the daemon has no CAP_SYS_ADMIN")
    unmount_as_nobody(t, mount)


@test(transports="full")
def supplementary_groups_count(t):
    """What a file's group may do, its supplementary members may do, and nobody else; a group that may less than
    others is held to that."""
    source = t.make_dir("source")
    for name, mode in (("readable", 0o640), ("writable", 0o660), ("for others", 0o604)):
        write_file(source + "/" + name, b"content")
        os.chown(source + "/" + name, 0, GROUP)
        os.chmod(source + "/" + name, mode)
    mount = t.mount(source)
    names = ("readable", "writable", "for others")

    def compare(base, member):
        found = [[result_of(opened, "%s/%s" % (base, name), flags) for flags in (os.O_RDONLY, os.O_RDWR)]
                 for name in names]
        refused = ["EACCES"] * 2
        expected = [[None, "EACCES"], [None] * 2, refused] if member else [refused, refused, [None, "EACCES"]]
        equal(found, expected, "in " + base)

    for groups in ((), (GROUP,)):
        for base in (source, mount.point):
            as_user(t, USER, compare, base, bool(groups), groups=groups, umask=0)


@test(transports="full")
def programs_that_are_not_readable_run(t):
    """Execution asks for no right to read."""
    source = t.make_dir("source")
    for name, mode in (("program", 0o711), ("of nobody", 0o700)):
        write_file(source + "/" + name, read_file("/bin/true"))
        os.chmod(source + "/" + name, mode)
    mount = t.mount(source)

    def run(name):
        pid = os.fork()
        if not pid:
            try:
                os.execv(mount.path(name), [name])
            except OSError as error:
                os._exit(error.errno)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def user():
        equal(run("program"), 0, "status of the program")
        equal(run("of nobody"), errno.EACCES, "errno of the other")
        equal(errno_of(opened, mount.path("program"), os.O_RDONLY), errno.EACCES, "errno of reading it")

    as_user(t, USER, user, umask=0)


# ---- capabilities --------------------------------------------------------------------------------

def set_capabilities(bits):
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    low, high = bits & 0xffffffff, bits >> 32
    libc_call("capset", header, (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0))


def with_capabilities(t, uid, capabilities, function):
    """Run it as that user, with just these."""
    def child():
        libc_call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0)
        become(uid, umask=0)
        set_capabilities(sum(1 << capability for capability in capabilities))
        function()

    t.join([t.fork(child)])


@test(transports="each")
def capabilities_of_users(t):
    """A user with CAP_DAC_OVERRIDE, or CAP_FOWNER, may what that is for, and no more."""
    source = t.make_dir("source")
    write_file(source + "/file", b"content")
    os.chmod(source + "/file", 0o600)
    mount = t.mount(source)

    def override():
        for base in (source, mount.point):
            equal(read_file(base + "/file"), b"content", "read with CAP_DAC_OVERRIDE")
            equal(errno_of(os.chmod, base + "/file", 0o666), errno.EPERM, "chmod with CAP_DAC_OVERRIDE")

    def owner():
        for base in (source, mount.point):
            equal(errno_of(opened, base + "/file", os.O_RDONLY), errno.EACCES, "open with CAP_FOWNER")
            equal(errno_of(os.chmod, base + "/file", 0o600), 0, "chmod with CAP_FOWNER")

    with_capabilities(t, USER, [CAP_DAC_OVERRIDE], override)
    with_capabilities(t, USER, [CAP_FOWNER], owner)


@test(transports="full")
def trusted_names_are_for_administrators(t):
    """trusted.* is seen by callers with CAP_SYS_ADMIN, whatever their uid."""
    source = t.make_dir("source")
    write_file(source + "/file", b"")
    os.setxattr(source + "/file", "user.x", b"x")
    os.setxattr(source + "/file", "trusted.x", b"x")
    mount = t.mount(source)

    def seen(expected):
        for base in (source, mount.point):
            equal(sorted(os.listxattr(base + "/file")), expected, "names in " + base)

    seen(["trusted.x", "user.x"])
    with_capabilities(t, 0, [CAP_DAC_OVERRIDE], lambda: seen(["user.x"]))
    with_capabilities(t, USER, [CAP_SYS_ADMIN, CAP_DAC_OVERRIDE], lambda: seen(["trusted.x", "user.x"]))
    as_user(t, USER, seen, ["user.x"], umask=0)


@test(transports="full")
def system_xattrs_are_not_set_for_users(t):
    """What is not an ACL is set as the caller: the answer is the source's."""
    source = t.make_dir("source")
    write_file(source + "/file", b"")
    mount = t.mount(source)

    def user():
        for name in ("system.x", "system.nfs4_acl", "system.posix_acl_access", "security.x", "trusted.x"):
            found, expected = (result_of(os.setxattr, base + "/file", name, b"x") for base in (mount.point, source))
            equal(found, expected, name)

    as_user(t, USER, user, umask=0)


@test(transports="each")
def roots_of_user_namespaces(t):
    """Root of a user namespace may with objects that are mapped there what root may, and nothing with others."""
    source = t.make_dir("source")
    os.mkdir(source + "/sticky")
    os.chown(source + "/sticky", USER + 5, USER + 5)
    os.chmod(source + "/sticky", 0o1777)
    for name, uid in (("mapped", USER + 5), ("foreign", 0), ("sticky/mapped", USER + 6), ("sticky/foreign", 0)):
        write_file(source + "/" + name, b"content")
        os.chown(source + "/" + name, uid, uid)
        os.chmod(source + "/" + name, 0o600)
    os.chmod(source + "/foreign", 0o4755)
    mount = t.mount(source)

    def inside():
        for base in (mount.point, source):
            equal(read_file(base + "/mapped"), b"content", "what is mapped is read")
            equal(errno_of(os.chmod, base + "/mapped", 0o640), 0, "its mode is changed")
            equal(errno_of(os.chown, base + "/mapped", 7, 7), 0, "its owner, too")
            equal(errno_of(os.chmod, base + "/foreign", 0o777), errno.EPERM, "the mode of what is not mapped")
            equal(errno_of(opened, base + "/foreign", os.O_WRONLY), errno.EACCES, "writing to it")
            equal(errno_of(os.unlink, base + "/sticky/foreign"), errno.EPERM, "its removal")
            equal(errno_of(os.rename, base + "/sticky/foreign", base + "/sticky/x"), errno.EPERM, "another name")
            check(errno_of(os.link, base + "/foreign", base + "/sticky/link") in (errno.EPERM, 0),
                  "a hard link is protected, or nothing is")
        equal(errno_of(os.unlink, mount.path("sticky/mapped")), 0, "the removal of what is mapped")

    in_user_namespace(t, USER, USER, [], inside)
    protected = read_file("/proc/sys/fs/protected_hardlinks").strip() == b"1"
    equal(os.path.lexists(source + "/sticky/link"), not protected, "there is a link of it")


@test(transports="one")
def links_of_what_a_group_may_write(t):
    """fs.protected_hardlinks asks whether the file may be written to: by the caller's supplementary groups, too."""
    source = t.make_dir("source")
    os.chmod(source, 0o777)
    write_file(source + "/file", b"content")
    os.chown(source + "/file", OTHER, GROUP)
    os.chmod(source + "/file", 0o660)
    mount = t.mount(source)

    def link(base, name):
        return result_of(os.link, base + "/file", base + "/" + name)

    for who, groups in (("member", [GROUP]), ("stranger", [])):
        def compare(who=who, groups=groups):
            equal(link(mount.point, "by foldfs " + who), link(source, who), "errno of a link by a " + who)

        as_user(t, USER, compare, groups=groups)


# ---- the daemon itself ---------------------------------------------------------------------------

def rights_of_threads(pid):
    """(file-system uid, capabilities that count on a file system) of each thread, all of them stopped for that: /proc
    looks for the two one after the other."""
    directory = "/proc/%d/task" % pid
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: all(status_of(directory + "/" + task)["State"][0] in "TZ" for task in os.listdir(directory)), 20,
              "all threads are stopped")
        fields = [status_of(directory + "/" + task) for task in os.listdir(directory)]
    finally:
        os.kill(pid, signal.SIGCONT)
    return [(int(f["Uid"].split()[3]), int(f["CapEff"], 16) & OF_FILES) for f in fields]


@test(transports="each", timeout=120)
def threads_lent_to_a_user(t):
    """While all threads are lent to a user, others are served as ever: root and a third find, by look-ups that the
    kernel has not made yet, what that user may not; and no thread that is his has a right over files."""
    names = range(t.scaled(300, 60))
    source = t.make_dir("source")
    for uid in (0, USER, OTHER):
        directory = "%s/%d" % (source, uid)
        os.makedirs(directory)
        for name in names:
            write_file("%s/%d" % (directory, name), b"content")
            os.chown("%s/%d" % (directory, name), uid, uid)
            os.chmod("%s/%d" % (directory, name), 0o600)
        os.chown(directory, uid, uid)
        os.chmod(directory, 0o700)
    mount = t.mount(source)
    end = t.path("end")

    def use(path):
        os.chmod(path, 0o640)
        opened(path, os.O_RDONLY)
        opened(path, os.O_RDWR)
        os.chmod(path, 0o600)

    def user(uid, again):
        become(uid)
        while True:
            for name in names:
                use(mount.path(str(uid), str(name)))
            if not again or os.path.exists(end):
                return

    busy = t.fork(user, USER, True)
    seen = set()
    for uid in (0, OTHER):
        other = t.fork(user, uid, False)
        for _ in range(SAMPLES):
            seen.update(rights_of_threads(mount.serving_pid()))
        t.join([other])
    write_file(end, b"")
    t.join([busy], 60)
    check(any(fsuid == USER for fsuid, _ in seen), "threads were lent")
    equal([(fsuid, hex(rights)) for fsuid, rights in seen if fsuid and rights], [], "rights over files of lent threads")


@test(transports="each", timeout=60)
def a_lent_thread_is_nobodys(t):
    """While a thread writes for a user, that user can neither signal it, change its priority, nor see into it."""
    source = t.make_dir("source")
    write_file(source + "/file", bytes(MIB))
    os.chown(source + "/file", USER, USER)
    mount = t.mount(source)
    end = threading.Event()

    def attack():
        become(USER, umask=0)
        fd = os.open(mount.path("file"), os.O_RDWR)

        def write():
            while not end.is_set():
                os.pwrite(fd, b"x" * 8192, 0)

        writer = threading.Thread(target=write)
        writer.start()
        pid = mount.serving_pid()
        try:
            for _ in range(300):
                for task in os.listdir("/proc/%d/task" % pid):
                    check(LIBC.setpriority(PRIO_PROCESS, int(task), 19) < 0, "priority of thread " + task)
                    equal(errno_of(os.sched_setaffinity, int(task), {0}), errno.EPERM, "processors of thread " + task)
                    equal(errno_of(os.kill, int(task), 0), errno.EPERM, "signal to thread " + task)
                    equal(errno_of(os.readlink, "/proc/%d/exe" % int(task)), errno.EACCES, "program of thread " + task)
        finally:
            end.set()
            writer.join()

    t.join([t.fork(attack)])


@test(transports="each", timeout=60)
def many_identities_on_few_threads(t):
    """Writes and changes of mode of several users by turns, with requests of the daemon's own between them: what each
    makes is its own, and nobody does anything with another's rights."""
    source = t.make_dir("source")
    os.chmod(source, 0o1777)
    mount = t.mount(source)

    def user(uid):
        become(uid, umask=0)
        directory = mount.path("%d-directory" % uid)
        os.mkdir(directory)
        for number in range(t.scaled(150, 40)):
            path = mount.path("%d-%d" % (uid, number))
            fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            os.pwrite(fd, b"%d" % uid, 0)
            equal(os.fstat(fd).st_uid, uid, "the owner")
            os.ftruncate(fd, 3)
            os.close(fd)
            # Of nothing whose content is known: so it is done as who the thread is already.
            for mode in (0o750, 0o700) * 3:
                os.chmod(directory, mode)
                os.utime(directory, (number, number))
            equal(os.stat(directory).st_mode & 0o777, 0o700, "the mode")
            other = mount.path("%d-%d" % (USER + (uid - USER + 1) % 4, number))
            check(errno_of(opened, other, os.O_RDONLY) in (errno.EACCES, errno.ENOENT), "another's file is closed")
            if number % 3 == 0:
                os.unlink(path)

    t.join([t.fork(user, USER + n) for n in range(4)], 120)
    for name in os.listdir(source):
        equal(os.stat(source + "/" + name).st_uid, int(name.split("-")[0]), "owner of " + name)
    until(lambda: mount.status()["inodes"] >= 1, 10, "the status answers")
