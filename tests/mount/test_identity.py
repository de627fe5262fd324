# SPDX-License-Identifier: Apache-2.0
"""Whose a request is: callers of many groups, threads with credentials of their own, other namespaces.

Who has a file's group as a supplementary one keeps set-gid bits that others lose, whoever owns the file. FUSE
does not say who that is: the daemon asks /proc for the groups of the thread that calls.
"""

import ctypes
import errno
import os
import stat
import threading

from harness import LIBC, Gate, equal, libc_call, test, until, write_file
from processes import has_ended

FIRST_GROUP = 70001
GROUP = FIRST_GROUP + 119  # of what is made and read here: the 120th of its members' supplementary ones
SETRESUID, SETGROUPS, SETRESGID, EXIT = 117, 116, 119, 60
CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
CAP_FSETID, CAPABILITY_VERSION = 4, 0x20080522


def prepare(base):
    """What deeds() wants: a set-gid directory of GROUP for its members, one for all, files."""
    for name, mode in (("members", 0o2770), ("all", 0o2777)):
        os.makedirs(base + "/" + name)
        os.chown(base + "/" + name, 0, GROUP)
        os.chmod(base + "/" + name, mode)
    for name, mode in (("readable", 0o040), ("written", 0o2666)):
        write_file(base + "/" + name, b"content")
        os.chown(base + "/" + name, 0, GROUP)
        os.chmod(base + "/" + name, mode)


def result_of(function, *args):
    """Name of the errno, or what the function returned."""
    try:
        return function(*args)
    except OSError as error:
        return errno.errorcode[error.errno]


def look(path):
    info = os.lstat(path)
    return oct(info.st_mode), info.st_uid, info.st_gid


def made_file(path, mode):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    return look(path)


def made_directory(path):
    os.mkdir(path, 0o775)
    return look(path)


def made_node(path, mode):
    os.mknod(path, mode | stat.S_IFREG)
    return look(path)


def made_temporary(directory, mode):
    fd = os.open(directory, os.O_TMPFILE | os.O_RDWR, mode)
    info = os.fstat(fd)
    os.close(fd)
    return oct(info.st_mode), info.st_uid, info.st_gid


def changed_mode(path, mode):
    os.chmod(path, mode)
    return look(path)


def changed_group(path, gid):
    os.chown(path, -1, gid)
    return look(path)


def written(path):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"x")
    os.close(fd)
    return look(path)[0]


def content_of(path):
    fd = os.open(path, os.O_RDONLY)
    content = os.read(fd, 100)
    os.close(fd)
    return content


def deeds(base, who):
    """What comes out of everything that depends on the caller's groups; WHO is part of the names."""
    mine = "%s/all/%s-mine" % (base, who)
    return {
        "open": result_of(made_file, "%s/all/%s-file" % (base, who), 0o2775),
        "open among members": result_of(made_file, "%s/members/%s-file" % (base, who), 0o2775),
        "mkdir": result_of(made_directory, "%s/all/%s-directory" % (base, who)),
        "mknod": result_of(made_node, "%s/all/%s-node" % (base, who), 0o2775),
        "O_TMPFILE": result_of(made_temporary, base + "/all", 0o2775),
        "own file": result_of(made_file, mine, 0o644),
        "chown to the group": result_of(changed_group, mine, GROUP),
        "chmod": result_of(changed_mode, mine, 0o2755),
        "read": result_of(content_of, base + "/readable"),
        "write": result_of(written, base + "/written"),
    }


def check_deeds(found, uid, member, what):
    """The least that must be so, whatever the source file system says."""
    bit = 0o2000 if member else 0
    owner = (uid, GROUP)
    expected = {
        "open": (oct(stat.S_IFREG | bit | 0o775),) + owner,
        "open among members": (oct(stat.S_IFREG | 0o2775),) + owner if member else "EACCES",
        "mkdir": (oct(stat.S_IFDIR | 0o2775),) + owner,
        "mknod": (oct(stat.S_IFREG | bit | 0o775),) + owner,
        "O_TMPFILE": (oct(stat.S_IFREG | bit | 0o775),) + owner,
        "own file": (oct(stat.S_IFREG | 0o644),) + owner,
        "chown to the group": (oct(stat.S_IFREG | 0o644),) + owner,
        "chmod": (oct(stat.S_IFREG | bit | 0o755),) + owner,
        "read": b"content" if member else "EACCES",
        "write": oct(stat.S_IFREG | bit | 0o666),
    }
    for name, value in expected.items():
        equal(found[name], value, "%s: %s" % (what, name))


def both(t, places=1):
    """A plain directory and a mount, each with that many places that are prepared alike."""
    native, source = t.make_dir("native"), t.make_dir("source")
    for base in (native, source):
        for number in range(places):
            prepare("%s/%d" % (base, number))
    return native, t.mount(source)


def act_in_both(native, mount, place, uid, member, who):
    """Do what depends on the groups in that place of both."""
    expected, found = (deeds("%s/%d" % (base, place), str(uid)) for base in (native, mount.point))
    equal(found, expected, who + ": as on the source")
    check_deeds(found, uid, member, who)


# ---- many groups ---------------------------------------------------------------------------------

@test(transports="full", variants={"150": 150, "300": 300})
def many_groups(t, count):
    """A caller of that many supplementary groups, of which one matters; and one who lacks just that."""
    native, mount = both(t)
    groups = list(range(FIRST_GROUP, FIRST_GROUP + count))

    def act(groups, member, uid):
        os.setgroups(groups)
        os.setresgid(5000, 5000, 5000)
        os.setresuid(uid, uid, uid)
        os.umask(0)
        act_in_both(native, mount, 0, uid, member, "%d groups" % len(groups))

    t.join([t.fork(act, groups, True, 1234)])
    t.join([t.fork(act, [group for group in groups if group != GROUP], False, 1235)])


# ---- threads -------------------------------------------------------------------------------------

def become(uid, gid, groups):
    """Another effective identity, of this thread alone, whatever it has now."""
    libc_call("syscall", SETRESUID, -1, 0, -1)
    libc_call("syscall", SETGROUPS, len(groups), (ctypes.c_uint32 * len(groups))(*groups))
    libc_call("syscall", SETRESGID, -1, gid, -1)
    libc_call("syscall", SETRESUID, -1, uid, -1)


def act_as(native, mount, place, uid, member):
    become(uid, uid + 1, [uid + 2] * 100 + ([GROUP] if member else []))
    act_in_both(native, mount, place, uid, member, "user %d" % uid)


def in_threads(functions):
    """Run them at once, a thread each; the first error of one is the caller's."""
    errors = []
    together = threading.Barrier(len(functions))

    def run(function):
        together.wait()
        try:
            function()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@test(transports="each")
def threads_are_who_they_are(t):
    """Eight threads of one process of root's, each of which is somebody else: every second one is in the
    group, and each turns into somebody who is not, or is, between two calls."""
    native, mount = both(t, 16)

    def thread(number):
        act_as(native, mount, number, 2000 + 10 * number, number % 2 == 0)
        act_as(native, mount, 8 + number, 3000 + 10 * number, number % 2 == 1)

    def process():
        os.setgroups([])
        os.umask(0)
        in_threads([lambda number=number: thread(number) for number in range(8)])

    t.join([t.fork(process)])


@test(transports="full")
def threads_that_outlive_the_first(t):
    """A thread whose process has lost its first one, and so shows no groups in its own /proc entry."""
    native, mount = both(t)

    def process():
        os.umask(0)

        def thread():
            status = 1
            try:
                until(lambda: has_ended(os.getpid()), 10, "the first thread has ended")
                act_as(native, mount, 0, 1234, True)
                status = 0
            finally:
                os._exit(status)

        threading.Thread(target=thread).start()
        LIBC.syscall(EXIT, 0)

    t.join([t.fork(process)])


# ---- other namespaces ----------------------------------------------------------------------------

def in_user_namespace(t, uid, gid, groups, function):
    """Run it as root of a user namespace of that user's, whose ids are those from uid and gid on."""
    probe = t.run(["setpriv", "--reuid=%d" % uid, "--regid=%d" % gid, "--clear-groups", "unshare", "--user", "true"],
                  status=None)
    if probe.returncode:
        t.skip("no user namespaces here: " + probe.stderr.strip())
    made, mapped = Gate(), Gate()

    def inside():
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        libc_call("unshare", CLONE_NEWUSER)
        made.open()
        mapped.wait()
        os.umask(0)
        function()

    child = t.fork(inside)
    made.wait(child)
    for name, first in (("uid_map", uid), ("gid_map", gid)):
        with open("/proc/%d/%s" % (child.pid, name), "w") as file:
            file.write("0 %d 1000\n" % first)
    mapped.open()
    t.join([child])
    made.close()
    mapped.close()


def in_pid_namespace(t, function, enter=None):
    """Run it in a new pid namespace, or in that which ENTER, a descriptor, stands for."""
    def outside():
        if enter is None:
            libc_call("unshare", CLONE_NEWPID)
        else:
            libc_call("setns", enter, CLONE_NEWPID)
        t.join([t.fork(function)])

    t.join([t.fork(outside)])


@test(transports="full")
def callers_in_a_user_namespace(t):
    """Root of a user namespace is the user that it is outside, in that user's groups."""
    native, mount = both(t)

    def inside():
        expected, found = (deeds(base + "/0", "x") for base in (native, mount.point))
        equal(found, expected, "as on the source")
        equal(found["read"], b"content", "read as a member")

    in_user_namespace(t, 1234, 2345, [GROUP], inside)
    for name in ("all/x-file", "members/x-file", "all/x-node"):
        equal(look(mount.source + "/0/" + name), (oct(stat.S_IFREG | 0o2775), 1234, GROUP), name)


@test(transports="full")
def capabilities_do_not_come_with_a_request(t):
    """What docs/posix.md says of CAP_FSETID, with which who is not in a file's group keeps its set-gid bit:
    the root of a user namespace has no use of it; who is root but lacks it does not get it."""
    native, mount = both(t, 2)
    kept = oct(stat.S_IFREG | 0o2775), oct(stat.S_IFREG | 0o2666)
    lost = oct(stat.S_IFREG | 0o775), oct(stat.S_IFREG | 0o666)
    for base in (native, mount.source):
        for name in ("all", "written"):  # within the reach of the namespace's root
            os.chown("%s/0/%s" % (base, name), 1240, GROUP)
            os.chmod("%s/0/%s" % (base, name), 0o2777 if name == "all" else 0o2666)

    def made_and_written(base):
        return made_file(base + "/all/x", 0o2775)[0], written(base + "/written")

    def root_of_a_namespace():
        equal(made_and_written(native + "/0"), kept, "on the source, with it")
        equal(made_and_written(mount.point + "/0"), lost, "on the mount, with it")

    def root_without():
        capabilities = (ctypes.c_uint32 * 6)()
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
        libc_call("capget", header, capabilities)
        capabilities[0] &= ~(1 << CAP_FSETID)
        libc_call("capset", header, capabilities)
        os.setgroups([])
        os.umask(0)
        for base in (native, mount.point):
            equal(made_and_written(base + "/1"), lost, "without it in " + base)

    in_user_namespace(t, 1234, FIRST_GROUP, [], root_of_a_namespace)
    t.join([t.fork(root_without)])


@test(transports="full")
def callers_in_a_pid_namespace(t):
    """Who is in a pid namespace below the daemon's has his groups."""
    native, mount = both(t)

    def inside():
        os.umask(0)
        act_as(native, mount, 0, 1234, True)

    in_pid_namespace(t, inside)


# The address sanitizer's search for leaks finds its way by /proc as well.
@test(transports="full", presets=("release", "debug", "digest8"))
def daemon_in_a_pid_namespace(t):
    """A daemon in a pid namespace that does not see the caller, or whose /proc is another namespace's: where
    the daemon acts for him, the caller has no other groups, and never those of who has that number there."""
    foldfs = t.foldfs_command()
    t.foldfs_command = lambda: ["unshare", "--pid", "--fork", "--kill-child"] + foldfs
    _, mount = both(t, 2)
    base = mount.point
    parent = mount.process.pid
    with open("/proc/%d/task/%d/children" % (parent, parent)) as file:
        namespace = os.open("/proc/%s/ns/pid" % file.read().split()[0], os.O_RDONLY)

    def outside():
        os.umask(0)
        become(1234, 2345, [GROUP])
        found = deeds(base + "/0", "x")
        for name in ("open", "open among members", "mknod", "O_TMPFILE"):
            equal(found[name], (oct(stat.S_IFREG | 0o775), 1234, GROUP), name + " of a member")
        equal(found["read"], b"content", "what the kernel decides for a member")

    def member():
        os.setgroups([GROUP])
        told.open()
        asked.wait()

    def inside():
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(namesake.pid - 1))
        t.join([t.fork(of_the_same_number)])

    def of_the_same_number():
        equal(os.getpid(), namesake.pid, "the number in the daemon's namespace")
        os.umask(0)
        become(1234, 2345, [])
        check_deeds(deeds(base + "/1", "x"), 1234, False, "who is no member")

    t.join([t.fork(outside)])
    told, asked = Gate(), Gate()
    namesake = t.fork(member)
    told.wait(namesake)
    in_pid_namespace(t, inside, namespace)
    asked.open()
    t.join([namesake])
    told.close()
    asked.close()
    os.close(namespace)
