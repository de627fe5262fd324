# SPDX-License-Identifier: Apache-2.0
"""Attributes of files (chattr) that the source enforces when a file is opened or changed."""

import errno
import fcntl
import json
import mmap
import os

from harness import PAGE, equal, errno_of, fails_with, read_file, test, write_file
from users import USER, as_user

PLANS = {"window": ["passthrough_max=0"], "direct": ["passthrough_max=0,window=0"], "passthrough": ["passthrough=*"]}


def marked(t, attribute):
    """A source on ext4 with one file, writable for all, that has an attribute."""
    source = t.loop_file_system("ext4")
    write_file(source + "/file", b"first\n")
    os.chmod(source, 0o777)
    os.chmod(source + "/file", 0o666)
    t.run(["chattr", "+" + attribute, source + "/file"])
    t.at_end(lambda: t.run(["chattr", "-" + attribute, source + "/file"]))
    return source


def what_may_be_done(path):
    """The errno of each way to change a file of another user's, or to open it for a change."""
    def opened(flags, then=lambda fd: None):
        def attempt():
            fd = os.open(path, flags)
            try:
                then(fd)
            finally:
                os.close(fd)
        return errno_of(attempt)

    append = os.O_WRONLY | os.O_APPEND
    return {
        "write": opened(os.O_WRONLY),
        "read and write": opened(os.O_RDWR),
        "append": opened(append, lambda fd: os.write(fd, b"appended\n")),
        "read and append": opened(os.O_RDWR | os.O_APPEND, lambda fd: os.write(fd, b"once more\n")),
        "append and cut": opened(append | os.O_TRUNC),
        "cut": errno_of(os.truncate, path, 1),
        "cut what is open": opened(append, lambda fd: os.ftruncate(fd, 1)),
        "allocate": opened(append, lambda fd: os.posix_fallocate(fd, 0, PAGE)),
        "link": errno_of(os.link, path, path + "-link"),
        "unlink": errno_of(os.unlink, path),
        "rename": errno_of(os.rename, path, path + "-new"),
        "mode": errno_of(os.chmod, path, 0o600),
        "times": errno_of(os.utime, path, (1, 1)),
        "touch": errno_of(os.utime, path),
    }


@test(timeout=60, variants={"%s.%s" % (attribute, plan): (attribute, PLANS[plan])
                            for attribute in "ai" for plan in PLANS})
def what_the_source_refuses(t, how):
    """chattr +a and +i: what may be done to the file is what may be done in the source, by root and by others."""
    attribute, options = how
    source = marked(t, attribute)
    mount = t.mount(source, options)
    for user in (0, USER):
        found = []
        for top in (source, mount.point):
            def ask():
                write_file(t.path("answer"), json.dumps(what_may_be_done(top + "/file")).encode())
            write_file(t.path("answer"), b"")
            os.chmod(t.path("answer"), 0o666)
            as_user(t, user, ask)
            found.append(json.loads(read_file(t.path("answer"))))
            equal(read_file(mount.point + "/file"), read_file(source + "/file"), "content")
        equal(found[1], found[0], "errno of each by user %d" % user)


@test(timeout=60, variants=PLANS)
def appending_beside_others(t, options):
    """Appended to an append-only file in turn by the mount and behind it: nothing is lost, and all of it is shown."""
    source = marked(t, "a")
    mount = t.mount(source, options)
    expected = read_file(source + "/file")
    with open(mount.point + "/file", "rb") as reader, open(mount.point + "/file", "ab", 0) as inside, \
            open(source + "/file", "ab", 0) as behind:
        for number in range(200):
            line = b"%d: " % number + t.rng.randbytes(t.rng.choice((3, 300, 5000))) + b"\n"
            (behind if number % 5 == 4 else inside).write(line)
            expected += line
            if number % 7 == 0:
                reader.seek(0)
                reader.read()
    equal(read_file(source + "/file"), expected, "in the source")
    equal(read_file(mount.point + "/file"), expected, "by the mount")


@test(timeout=60, variants=PLANS)
def stores_do_not_get_by(t, options):
    """A mapping, and a descriptor whose O_APPEND is taken away, change nothing that is there."""
    source = marked(t, "a")
    mount = t.mount(source, options)
    fd = os.open(mount.point + "/file", os.O_RDWR | os.O_APPEND)
    reader = os.open(mount.point + "/file", os.O_RDONLY)
    with_error = mmap.mmap(fd, 6) if options != PLANS["direct"] else None
    if with_error:
        with_error[:5] = b"store"
        fails_with(errno.EPERM, "msync", with_error.flush)
        with_error.close()
    equal(read_file(source + "/file"), b"first\n", "the source after a store")
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    os.pwrite(fd, b"write\n", 0)
    os.close(fd)
    os.close(reader)
    equal(read_file(source + "/file"), b"first\nwrite\n", "the source after a write within")
    equal(read_file(mount.point + "/file"), b"first\nwrite\n", "the mount after a write within")
