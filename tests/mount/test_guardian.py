# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed while its trimming thread waits, inside the kernel, for a page that is written back to a
source that does not answer."""

import errno
import mmap
import os

import faulty
from faulty import FaultySource
from processes import children_of, has_ended
from harness import PAGE, equal, errno_of, fails_as_gone, fails_with, make_pages, test, thread_states, until, write_file


def guardians(daemon):
    """Process numbers of a daemon's guardians: its children of that name."""
    return [pid for name, pid in children_of(daemon) if name == "foldfs-guardian"[:15]]


@test(timeout=60)
def killed_while_trimming_waits(t):
    """kill -9 ends the mount for its clients also then: what waits for the source fails, as does every other.

    The trimming thread waits for a page that is being written back, to a source that hangs."""
    source = FaultySource(t)
    content = make_pages(t.rng, 1024)
    write_file(source.backing + "/file", content)
    mount = t.mount(source.point, ["window=1M", "survive=off"], transport="dev")
    mount.expect_log("does not answer")
    fd = os.open(mount.path("file"), os.O_RDWR)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    mapped = mmap.mmap(fd, 6 * PAGE)
    mapped[5 * PAGE:5 * PAGE + 6] = b"stored"
    source.set(0, faulty.HANG, faulty.WRITE, 5 * PAGE, 6 * PAGE - 1)

    def hang():
        fails_as_gone("the msync that hangs", mapped.flush)

    stuck = t.fork(hang)
    until(lambda: source.applied(0) > 0, 10, "the write hangs")
    # More than the window holds: the region with the page that hangs is the oldest.
    pages = list(range(64, 1024))
    t.rng.shuffle(pages)
    for page in pages:
        equal(os.pread(fd, PAGE, page * PAGE), content[page * PAGE:(page + 1) * PAGE], "page %d" % page)
    until(lambda: "invalidate_inode_pages" in thread_states(mount.process.pid), 10,
          lambda: "the trimming thread waits for the page:\n" + thread_states(mount.process.pid))
    guardian, = until(lambda: guardians(mount.process.pid), 10, "there is a guardian")
    mount.process.kill()
    try:
        t.join([stuck], seconds=20)
        until(lambda: has_ended(guardian), 10, "the guardian has gone")
    finally:
        source.clear(0)
    mount.process.wait(20)
    fails_with(errno.ENOTCONN, "another open", os.open, mount.path("file"), os.O_RDONLY)
    mapped.close()
    errno_of(os.close, fd)
    t.run(["umount", "-l", mount.point])


@test()
def ends_with_the_daemon(t):
    """The guardian ends with the daemon, whoever ends it."""
    directory = t.make_dir("source")
    for end in (lambda mount: mount.unmount(), lambda mount: mount.stop(), lambda mount: mount.kill()):
        mount = t.mount(directory, ["survive=off"])
        guardian, = until(lambda: guardians(mount.process.pid), 10, "there is a guardian")
        equal(errno_of(os.kill, guardian, 2), 0, "^C at the guardian")
        end(mount)
        until(lambda: has_ended(guardian), 10, "the guardian has gone")
