# SPDX-License-Identifier: Apache-2.0
"""Opening: an inode's plan holds from its first open to its last release, in every order and mode."""

import itertools
import mmap
import os

from harness import PAGE, check, equal, make_pages, read_file, test, write_file

MODES = {
    "read": os.O_RDONLY,
    "write": os.O_WRONLY,
    "both": os.O_RDWR,
    "append": os.O_WRONLY | os.O_APPEND,
    "direct": os.O_RDWR | os.O_DIRECT,
    "mapped": os.O_RDWR,
}


class Client:
    """One open file of one mode, doing to it what the mode allows."""

    def __init__(self, path, mode, model):
        self.mode = mode
        self.model = model
        self.fd = os.open(path, MODES[mode])
        self.map = mmap.mmap(self.fd, len(model)) if mode == "mapped" else None

    def change(self, at, value):
        block = bytes([value]) * PAGE
        if self.mode == "mapped":
            self.map[at:at + PAGE] = block
            self.map.flush()
        elif self.mode == "direct":
            aligned = mmap.mmap(-1, PAGE)
            aligned[:] = block
            os.pwritev(self.fd, [aligned], at)
        elif self.mode in ("write", "both"):
            os.pwrite(self.fd, block, at)
        else:
            return
        self.model[at:at + PAGE] = block

    def look(self, what):
        if self.mode == "mapped":
            equal(bytes(self.map), bytes(self.model), "mapped " + what)
        elif self.mode == "direct":
            aligned = mmap.mmap(-1, len(self.model))
            os.preadv(self.fd, [aligned], 0)
            equal(bytes(aligned), bytes(self.model), "direct " + what)
        elif self.mode in ("read", "both"):
            equal(os.pread(self.fd, len(self.model), 0), bytes(self.model), self.mode + " " + what)

    def close(self):
        if self.map is not None:
            self.map.close()
        os.close(self.fd)


@test(transports="each", variants={"window": [], "direct": ["window=0"]})
def opened_in_every_order_and_mode(t, options):
    """Invariant 7: no open fails for how the file is open elsewhere, and all see one content: each pair of
    modes, in each order of open and close, with a change by either in between."""
    source = t.make_dir("source")
    model = bytearray(make_pages(t.rng, 16))
    write_file(source + "/file", model)
    mount = t.mount(source, options)
    path = mount.path("file")
    value = 0
    for first, second in itertools.product(MODES, repeat=2):
        for first_out in (True, False):
            clients = [Client(path, first, model)]
            clients[0].look("alone")
            clients.append(Client(path, second, model))
            for number, client in enumerate(clients):
                value = (value + 1) % 256
                client.change(number * PAGE, value)
                for other in clients:
                    other.look("of %s and %s" % (first, second))
            clients.pop(0 if first_out else 1).close()
            clients[0].look("after %s and %s" % (first, second))
            clients[0].close()
    equal(read_file(source + "/file"), bytes(model), "the source")
    check(os.path.getsize(path) == len(model), "the size")


@test(transports="full", variants={"window": [], "direct": ["window=0"]})
def every_kind_of_open_beside_every_other(t, options):
    """Opens of one file for reading, writing, O_DIRECT, O_APPEND, mapped and executed, in every order and
    while others are open: none is refused, all read and write the same bytes.

    Invariant 7: a plan holds from an inode's first open to its last release.
    """
    source = t.make_dir("source")
    content = bytearray(make_pages(t.rng, 40))
    write_file(source + "/file", content)
    os.chmod(source + "/file", 0o755)
    mount = t.mount(source, options)
    kinds = (os.O_RDONLY, os.O_RDWR, os.O_WRONLY, os.O_RDONLY | os.O_DIRECT, os.O_RDWR | os.O_DIRECT,
             os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_SYNC)
    aligned = mmap.mmap(-1, PAGE)
    held = []
    for _ in range(t.scaled(150, 40)):
        flags = t.rng.choice(kinds)
        fd = os.open(mount.path("file"), flags)
        page = t.rng.randrange(40)
        mapped = None
        if flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_APPEND:
            aligned[:] = t.rng.randbytes(PAGE)
            equal(os.pwritev(fd, [aligned], page * PAGE), PAGE, "written with flags %#x" % flags)
            content[page * PAGE:(page + 1) * PAGE] = aligned[:]
        if flags & os.O_ACCMODE != os.O_WRONLY:
            equal(os.preadv(fd, [aligned], page * PAGE), PAGE, "read with flags %#x" % flags)
            equal(aligned[:], bytes(content[page * PAGE:(page + 1) * PAGE]), "flags %#x" % flags)
            mapped = mmap.mmap(fd, 40 * PAGE, prot=mmap.PROT_READ)
            equal(mapped[:], bytes(content), "mapped with flags %#x" % flags)
        held.append((fd, mapped))
        if len(held) > 6 or not t.rng.randrange(8):
            t.rng.shuffle(held)
            for fd, mapped in held[:4]:
                os.close(fd)  # a mapping keeps the file open beyond this
                if mapped:
                    equal(mapped[:], bytes(content), "mapped, after close")
                    mapped.close()
            del held[:4]
    for fd, mapped in held:
        os.close(fd)
        if mapped:
            mapped.close()
    equal(read_file(source + "/file"), bytes(content), "the source")
