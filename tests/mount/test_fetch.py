# SPDX-License-Identifier: Apache-2.0
"""Reads that wait for the source without a thread each: many clients that miss, on file systems where that is done."""

import os
import random
import threading

from harness import MIB, PAGE, equal, make_pages, read_file, sync_source, test, until, write_file
from rings import ring_for

FILE_SYSTEMS = {"ext4": "ext4", "xfs": "xfs", "btrfs": "btrfs"}
PAGES = 2000
TAIL = 1234  # bytes in the last page of each file


def need_rings(t):
    ring = ring_for(())
    if not ring or tuple(map(int, os.uname().release.split(".")[:2])) < (6, 1):
        t.skip("no io_uring for the daemon here")
    ring.close()


def read_and_compare(mount, files, seed, count, wrong):
    """COUNT reads of a few pages each, of which some go past the end."""
    rng = random.Random(seed)
    descriptors = {name: os.open(mount.path(name), os.O_RDONLY) for name in files}
    for _ in range(count):
        name = rng.choice(sorted(files))
        at, length = rng.randrange(len(files[name])), rng.choice((1, PAGE, 3 * PAGE + 7, 40 * PAGE))
        if os.pread(descriptors[name], length, at) != files[name][at:at + length]:
            wrong.append("%d bytes of %s at %d" % (length, name, at))
    for fd in descriptors.values():
        os.close(fd)


def crowd(t, mount, files, clients, count):
    """CLIENTS at a time, as threads, which wait beside each other."""
    wrong = []
    threads = [threading.Thread(target=read_and_compare, args=(mount, files, t.rng.random(), count, wrong))
               for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(wrong, [], "reads that gave something else")


@test(transports="none", variants=FILE_SYSTEMS, timeout=60)
def many_clients_that_miss(t, kind):
    """Their reads are read for them by io_uring, and every byte is right: pools and windows that hold next to nothing,
    requests with holes of pages that are there, ends of files, and a writer beside them."""
    need_rings(t)
    source = t.loop_file_system(kind, size=400 * MIB)
    files = {"file%d" % number: make_pages(t.rng, PAGES) + t.rng.randbytes(TAIL) for number in range(3)}
    for name, content in files.items():
        write_file(os.path.join(source, name), content)
    written = t.rng.randbytes(64 * PAGE)
    write_file(source + "/written", bytes(64 * PAGE))
    sync_source(source)
    mount = t.mount(source, ["pool=1M", "window=1M", "passthrough_max=0"], transport="dev")

    def write():
        with open(mount.path("written"), "r+b", buffering=0) as file:
            for at in range(0, len(written), PAGE):
                file.seek(at)
                file.write(written[at:at + PAGE])
                os.fsync(file.fileno())

    def crowds():
        crowd(t, mount, files, 40, t.scaled(40, 10))
        return mount.status()["serving"]["fetched"]

    writer = t.fork(write)
    until(crowds, 30 * t.patience, "some reads waited without a thread")
    t.join([writer])
    crowd(t, mount, {"written": written}, 8, 20)
    equal(mount.status()["serving"]["fetching"], 0, "reads under way")
    mount.unmount()
    equal(read_file(source + "/written"), written, "what was written")


@test(transports="none", timeout=60)
def where_the_source_waits_in_the_call(t):
    """On a file system whose reads io_uring could only leave to threads, each waits in a thread of the daemon's."""
    source = t.tmpfs()
    files = {"file": make_pages(t.rng, PAGES)}
    write_file(source + "/file", files["file"])
    mount = t.mount(source, ["pool=1M", "window=1M", "passthrough_max=0"], transport="dev")
    crowd(t, mount, files, 20, 20)
    equal(mount.status()["serving"]["fetched"], 0, "reads by io_uring")
    mount.unmount()
