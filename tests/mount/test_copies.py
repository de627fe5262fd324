# SPDX-License-Identifier: Apache-2.0
"""What backs equal files: one of them, or, with coherence=overlay, a copy that is kept of what they hold."""

import glob
import os

from harness import equal, make_pages, read_file, test, until, write_file
from plans import EQUAL, equal_files, explained, plans, released, scan


def copies(t):
    return glob.glob(t.path("state", "*", "objects", "*"))


@test(transports="full")
def explain_keeps_no_copy(t):
    """With coherence=overlay the first open of an equal file has a copy kept of it. To ask for its plan does
    not."""
    source, content = equal_files(t)
    mount = t.mount(source, ["coherence=overlay"])
    for name in EQUAL:
        explained(t, mount.path(name))
    # Copies are made one after the other by one thread: this one comes last.
    write_file(source + "/marker", content + b"longer")
    write_file(source + "/other", content + b"longer")
    scan(t, source)
    read_file(mount.path("marker"))
    released(mount)
    until(lambda: copies(t), 10 * t.patience, "a copy is kept of what was opened")
    equal(len(copies(t)), 1, "copies")


def opened_shared(mount, name, content):
    """Open a file, which must have the content, until that comes from a kept copy; whether it did."""
    with open(mount.path(name), "rb") as file:
        equal(file.read(), content, name)
        shared = plans(mount)["shared"]
    released(mount)
    return shared


def put_byte(path):
    """Another first byte, with what can be done to hide it."""
    before = os.stat(path)
    with open(path, "r+b", 0) as file:
        byte = file.read(1)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 255]), 0)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@test(transports="full", timeout=60)
def changed_copy_is_not_served(t):
    """A copy that anybody has changed, if only in a byte, is not served from the next first open on, in this
    mount and the next one: it is made anew, which the log says."""
    source, content = equal_files(t)
    for life in ("changed while it is mounted", "changed between mounts"):
        mount = t.mount(source, ["coherence=overlay"], name=life.split()[1])
        mount.expect_log("was changed by somebody: it is made anew")
        if life == "changed while it is mounted":
            until(lambda: opened_shared(mount, "a", content), 20 * t.patience, "shared")
            (copy,) = copies(t)
            put_byte(copy)
        for name in EQUAL:
            opened_shared(mount, name, content)
        until(lambda: opened_shared(mount, "b", content), 20 * t.patience, "shared again, " + life)
        equal(mount.log_text().count("it is made anew"), 1, "lines of the log: " + life)
        (copy,) = copies(t)
        equal(read_file(copy), content, "the copy, " + life)
        mount.unmount()
        put_byte(copy)


@test(suite="full", timeout=60)
def equal_files_of_which_most_have_changed(t):
    """Any file of a class that still is what it was backs the others, whichever have changed; of those that
    are tried at an open (16) one has to be, until a scan has taken the changed ones out."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 10)
    names = [str(number) for number in range(40)]
    for name in names:
        write_file(os.path.join(source, name), content)
    scan(t, source)

    def share(count):
        mount = t.mount(source, ["ro"], name="mnt-%d" % count)
        fds = [os.open(mount.path(name), os.O_RDONLY) for name in names[-count:]]
        equal(plans(mount)["shared"], count, "files that share their backing file")
        for fd in fds:
            equal(os.pread(fd, len(content), 0), content, "content")
            os.close(fd)
        mount.unmount()

    for name in names[:15]:
        write_file(os.path.join(source, name), b"changed")
    share(25)
    for name in names[15:-2]:
        os.unlink(os.path.join(source, name))
    scan(t, source)
    share(2)
