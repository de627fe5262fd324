# SPDX-License-Identifier: Apache-2.0
"""Directories that change while their lists are read, a few entries at a time."""

import ctypes
import os
import struct

from harness import check, equal, libc_call, test, until, write_file

SYS_GETDENTS64 = 217 if os.uname().machine == "x86_64" else 61


class ListReader:
    """A directory that is read by getdents64, a few entries at a time."""

    SIZE = 4096

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.names = []
        self.after = {}  # name: where the list goes on behind it

    def some(self):
        """Read on; False at the end."""
        buffer = ctypes.create_string_buffer(self.SIZE)
        length = libc_call("syscall", SYS_GETDENTS64, self.fd, buffer, self.SIZE)
        at = 0
        while at < length:
            _, position, size = struct.unpack_from("=QqH", buffer, at)
            name = buffer.raw[at + 19:at + size].split(b"\0", 1)[0].decode()
            at += size
            if name not in (".", ".."):
                self.names.append(name)
                self.after[name] = position
        return length > 0

    def rest(self):
        while self.some():
            pass
        os.close(self.fd)
        return self.names


def same_names(found, expected, what):
    equal([name[:3] for name in found], [name[:3] for name in expected], what)


@test(transports="full", variants={"ro": ["ro"], "rw": []})
def changed_in_the_middle(t, options):
    """A directory changes while a reader is in the middle of it and the daemon has read on for that reader. The
    reader has each entry that was not touched once; who begins after the change has nothing of before, also when
    the other one has read on to the end; going back shows the same again."""
    source = t.make_dir("source")
    for number in range(200):  # no more than the daemon reads at once
        write_file("%s/%03d-%s" % (source, number, "x" * 100), b"")
    mount = t.mount(source, ["entry_timeout=3600", "attr_timeout=3600"] + options + ["debug"])
    mount.expect_log(".")  # every request
    os.listdir(mount.point)  # lists are kept from the second on
    until(lambda: "opcode: RELEASEDIR" in mount.log_text(), 10 * t.patience, "released")
    before = ListReader(source).rest()
    # Both are open before the kernel's list is begun: the second one completes what the first one has begun, so that
    # the list can be begun anew under the first one's hand. (Where the source's times are too coarse for lists to be
    # kept at once, there is no list to be spoilt.)
    first, second = ListReader(mount.point), ListReader(mount.point)
    first.some()
    check(0 < len(first.names) < 100, "the first has read %d names" % len(first.names))
    same_names(first.names, before[:len(first.names)], "the beginning")
    second.some()
    last = len(second.names) - 1
    second.some()
    os.lseek(second.fd, second.after[second.names[last]], os.SEEK_SET)
    del second.names[last + 1:]
    same_names(second.rest(), before, "gone back in the middle")

    root = source if options else mount.point
    gone = before[-3:-1]
    for name in gone:
        os.unlink(os.path.join(root, name))
    write_file(os.path.join(root, "new"), b"")
    third = ListReader(mount.point)
    while len(third.names) <= len(first.names):
        third.some()
    untouched = [name for name in before if name not in gone]
    same_names([name for name in first.rest() if name in untouched], untouched, "who was in the middle")
    now = ListReader(source).rest()
    same_names(third.rest(), now, "who has begun after the change")
    same_names(ListReader(mount.point).rest(), now, "who comes last")


@test(transports="each")
def opened_while_it_is_open(t):
    """Who opens a directory that somebody has open is answered by the daemon: the answer that drops an older list may
    be under way to the other one still. Alone again, the kernel answers."""
    source = t.make_dir("source")
    for number in range(20):
        write_file("%s/%03d" % (source, number), b"")
    os.utime(source, (1, 1))
    mount = t.mount(source, ["ro", "entry_timeout=3600", "attr_timeout=3600", "debug"])
    mount.expect_log(".")  # every request

    def asked():
        return mount.log_text().count("opcode: READDIR")

    def release():
        until(lambda: mount.log_text().count("opcode: RELEASEDIR") == mount.log_text().count("opcode: OPENDIR"),
              10 * t.patience, "released")

    def listed(expected_asks, what):
        before = asked()
        same_names(sorted(os.listdir(mount.point)), sorted(os.listdir(source)), what)
        equal(asked() > before, expected_asks, what + ": the daemon was asked")

    for _ in range(2):
        os.listdir(mount.point)
        release()
    listed(False, "kept")
    release()
    fd = os.open(mount.point, os.O_RDONLY | os.O_DIRECTORY)
    listed(True, "while it is open")
    os.close(fd)
    release()
    listed(False, "alone again")
    release()
