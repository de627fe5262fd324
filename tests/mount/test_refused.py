# SPDX-License-Identifier: Apache-2.0
"""Who is answered with ESTALE, for readers share the inode's backing file, comes again and is served."""

import contextlib
import mmap
import os

from harness import check, equal, make_pages, read_file, test, until, write_file
from plans import plans, released, scan

FILES = 100  # more than the daemon remembers to have refused, so that what it forgets is tried too


@contextlib.contextmanager
def held_shared(mount):
    """Every file is open for reading, in shared passthrough."""
    fds = []

    def close():
        while fds:
            os.close(fds.pop())

    def are_shared():
        close()
        fds.extend(os.open(mount.path(str(number)), os.O_RDONLY) for number in range(FILES))
        return plans(mount)["shared"] == FILES

    until(are_shared, 20 * mount.t.patience, "all are shared")
    try:
        yield
    finally:
        close()


def mount_of_equals(t):
    source = t.make_dir("source")
    content = make_pages(t.rng, 4)
    for number in range(FILES):
        write_file(source + "/%d" % number, content)
        os.link(source + "/%d" % number, source + "/%d.second" % number)
    scan(t, source)
    return t.mount(source, ["coherence=overlay"]), content


@test(suite="full", transports="each", timeout=60)
def while_readers_come_and_go(t):
    """The kernel asks twice: no reader may have made the file's next inode a shared one in between."""
    mount, content = mount_of_equals(t)
    at = mmap.mmap(-1, mmap.PAGESIZE)

    def read():
        while at[0] < FILES:
            os.close(os.open(mount.path(str(min(at[0], FILES - 1))), os.O_RDONLY))

    with held_shared(mount):
        pass  # so what backs them is there
    released(mount)
    readers = [t.fork(read) for _ in range(3)]
    try:
        for number in range(FILES):
            at[0] = number
            name = mount.path(str(number))
            # It is shared when the writer comes.
            with open(name, "rb") as keeper:
                with open(name, "r+b") if number % 2 else open(os.open(name, os.O_RDONLY | os.O_TRUNC), "rb"):
                    pass
                equal(keeper.read(), content, "what was opened before")
    finally:
        at[0] = FILES
        t.join(readers)


@test(suite="full", timeout=60)
def by_another_name(t):
    """An old inode that the kernel knows by a second name does not lead to one that readers have by then."""
    mount, content = mount_of_equals(t)
    for number in range(FILES):
        os.stat(mount.path("%d.second" % number))
    with held_shared(mount):
        for number in range(FILES):
            os.close(os.open(mount.path(str(number)), os.O_RDWR))
        # The second inodes: readers share them again where the daemon has forgotten the writer.
        until(lambda: not plans(mount)["window"], 10, "the writers' opens are released")
        again = [os.open(mount.path(str(number)), os.O_RDONLY) for number in range(FILES)]
        check(plans(mount)["shared"] > FILES, "some are shared twice: %s" % plans(mount))
        for number in range(FILES):
            with open(mount.path("%d.second" % number), "r+b") as file:
                file.write(b"changed")
            equal(read_file(mount.path(str(number))), b"changed" + content[7:], "file %d" % number)
            found = os.pread(again[number], 7, 0)
            check(found in (content[:7], b"changed"), "file %d, opened before: %r" % (number, found))
        for fd in again:
            os.close(fd)
