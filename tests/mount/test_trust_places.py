# SPDX-License-Identifier: Apache-2.0
"""Places that somebody else might take: the control socket's, the state directory, programs that the daemon starts."""

import mmap
import os
import signal
import stat
import subprocess

from harness import PAGE, check, equal, errno_of, read_file, test, until, write_file
from test_program import AS_NOBODY, need_plain_user
from users import NOBODY, OTHER as ATTACKER, as_user

NO_PASSTHROUGH = "no kernel passthrough, because the daemon has no CAP_SYS_ADMIN"


def nobodys(t, *names):
    """Directories of nobody's, where the way to them is open."""
    os.chmod(t.directory, 0o1777)
    paths = [t.make_dir(name) for name in names]
    for path in paths:
        os.chown(path, NOBODY, NOBODY)
    return paths


def without_runtime_directory(t):
    need_plain_user(t)
    os.rmdir("/run/user/65534")


def home_by_environment(t, home):
    os.environ["XDG_STATE_HOME"] = home
    return home + "/foldfs/.control"


def home_by_list_of_users(t, home):
    """In this test's own mount namespace."""
    with open("/etc/passwd") as users:
        lines = [line.split(":") for line in users]
    for fields in lines:
        if fields[2] == str(NOBODY):
            fields[5] = home
    write_file(t.path("passwd"), "".join(":".join(fields) for fields in lines).encode())
    os.chmod(t.path("passwd"), 0o644)
    t.run(["mount", "--bind", t.path("passwd"), "/etc/passwd"])
    t.at_end(lambda: t.run(["umount", "/etc/passwd"]))
    os.environ.pop("XDG_STATE_HOME", None)
    return home + "/.local/state/foldfs/.control"


def own_tmp(t):
    """A /tmp of this test's own; what is to be run stays where it is, there perhaps."""
    build = os.open(t.build, os.O_PATH)
    t.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/tmp"])
    t.at_end(lambda: t.run(["umount", "/tmp"]))
    if not os.path.exists(t.build):
        os.makedirs(t.build)
        t.run(["mount", "-c", "--bind", "/proc/%d/fd/%d" % (os.getpid(), build), t.build])
        t.at_end(lambda: t.run(["umount", t.build]))
    os.close(build)


@test(transports="none", timeout=60, variants={"environment": home_by_environment, "users": home_by_list_of_users})
def a_squatter_keeps_nobody_from_mounting(t, find_home):
    """A stranger makes /tmp/foldfs-UID of a user who has no runtime directory, and whatever else he can: that user
    mounts, and asks for the status, by a socket in a directory that is nobody else's."""
    without_runtime_directory(t)
    source, point, home = nobodys(t, "source", "mnt", "home")
    squatted = "/tmp/foldfs-%d" % NOBODY
    own_tmp(t)
    as_user(t, ATTACKER, os.mkdir, squatted)
    place = find_home(t, home)
    mount = t.mount(source, user="nobody", transport="dev", audit=False)
    mount.expect_log(NO_PASSTHROUGH)
    # Root is refused by a plain user's mount, also before it serves: the user is answered.
    as_user(t, NOBODY, os.stat, point)
    (name,) = os.listdir(place)
    equal(stat.S_IMODE(os.stat(place).st_mode), 0o700, "mode of the socket's directory")
    equal(stat.S_IMODE(os.stat(place + "/" + name).st_mode), 0o600, "mode of the socket")
    equal(os.listdir(squatted), [], "what is in the squatter's directory")

    def ask(expected):
        done = subprocess.run(t.foldctl_command() + ["status", point], capture_output=True, env=t.environment(),
                              check=False)
        equal(done.returncode, expected, "foldctl's status")

    as_user(t, NOBODY, ask, 0)
    as_user(t, ATTACKER, ask, 1)
    if find_home is home_by_list_of_users:
        os.environ.pop("HOME", None)  # root finds it by whose mount it is
        ask(0)
    mount.stop()
    equal(os.listdir(place), [], "the socket, after the end")


@test(transports="none", timeout=60)
def without_any_place_there_is_no_socket(t):
    """A user who has no place of his own mounts without a control socket, and is told."""
    without_runtime_directory(t)
    source, point, open_to_all = nobodys(t, "source", "mnt", "open")
    write_file(source + "/file", b"content")
    os.chmod(open_to_all, 0o777)
    os.environ["XDG_RUNTIME_DIR"] = open_to_all
    mount = t.mount(source, user="nobody", transport="dev", audit=False)
    mount.expect_log(NO_PASSTHROUGH)
    mount.expect_log("there is no control socket")
    as_user(t, NOBODY, lambda: equal(read_file(point + "/file"), b"content", "content"))
    equal(os.listdir(open_to_all), [], "what is made where others may write")
    result = t.run(AS_NOBODY + t.foldctl_command() + ["status", point], status=1)
    check("nobody answers" in result.stderr, "foldctl says: " + result.stderr)
    mount.stop()


def one_in(directory):
    (entry,) = os.scandir(directory)
    return entry.path


@test()
def the_state_is_used_where_it_was_found(t):
    """While a mount is up another directory is put in the place of its state: nothing goes there."""
    source = t.make_dir("source")
    write_file(source + "/file", b"content")
    mount = t.mount(source)
    before = one_in(t.path("state"))
    moved = t.path("moved")
    os.rename(before, moved)
    os.mkdir(before)
    check(not os.path.exists(moved + "/clean"), "it is closed while it is used")
    mount.unmount()
    equal(os.listdir(before), [], "what is in the other directory")
    check(os.path.exists(moved + "/clean"), "it is closed in order")


@test()
def a_state_that_others_may_replace_is_not_believed(t):
    """Others may write to what leads to the state directory: no catalogue is kept, and the mount says why. In a
    sticky directory they cannot rename it; a link that one of them has put there is not followed."""
    source, parent = t.make_dir("source"), t.make_dir("parent")
    os.mkdir(parent + "/real", 0o700)

    def mounts(state, believed):
        mount = t.mount(source, ["state=" + state], audit=believed)
        if not believed:
            mount.expect_log("no catalogue of .* is kept: .*: others may write to it")
        equal(mount.status()["state"] != "", believed, "whether a state is kept in " + state)
        mount.unmount()

    os.chmod(parent, 0o777)
    mounts(parent + "/real", False)
    os.chmod(parent, 0o1777)
    mounts(parent + "/real", True)
    as_user(t, ATTACKER, os.symlink, "real", parent + "/link")
    mounts(parent + "/link", False)


@test()
def copies_are_not_kept_elsewhere(t):
    """objects/ in the state directory is a link to another place: no copies are kept."""
    source, elsewhere = t.make_dir("source"), t.make_dir("elsewhere")
    write_file(source + "/file", b"content")
    mount = t.mount(source)
    mount.unmount()
    os.symlink(elsewhere, one_in(t.path("state")) + "/objects")
    again = t.mount(source, ["coherence=overlay"])
    again.expect_log("coherence=overlay shares nothing: cannot keep copies in .*/objects")
    equal(read_file(again.path("file")), b"content", "content")
    again.unmount()
    check("cannot keep copies" in again.log_text(), "nothing is said of it: " + again.log_text())


@test(transports="full")
def no_program_is_searched(t):
    """At the end by a signal, what a client has stored through a mapping that it still has reaches the source; no
    program called sync is searched in PATH for that."""
    source, programs = t.make_dir("source"), t.make_dir("programs")
    write_file(source + "/file", bytes(4 * PAGE))
    write_file(programs + "/sync", b"#!/bin/sh\n: >%s\n" % t.path("was-run").encode())
    os.chmod(programs + "/sync", 0o755)
    os.environ["PATH"] = programs + ":" + os.environ["PATH"]
    mount = t.mount(source)
    fd = os.open(mount.path("file"), os.O_RDWR)
    mapped = mmap.mmap(fd, 4 * PAGE)
    mapped[PAGE:PAGE + 6] = b"stored"
    mount.audited = False
    mount.process.send_signal(signal.SIGTERM)
    until(lambda: mount.process.poll() is not None, 30 * t.patience, "foldfs has ended")
    equal(mount.process.returncode, 0, "exit status")
    equal(read_file(source + "/file")[PAGE:PAGE + 6], b"stored", "what was stored through the mapping")
    check(not os.path.exists(t.path("was-run")), "a program of PATH was run")
    mapped.close()
    errno_of(os.close, fd)
