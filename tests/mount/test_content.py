# SPDX-License-Identifier: Apache-2.0
"""Every path that changes a file's content: docs/content-changes.md has a row for each function here.

Each row changes a file that shares all its pages with others. After each step the file is read in every
way (read, O_DIRECT, sendfile, splice, a mapping as old as the test, a new one), through descriptors that were
open before, and the source is read behind the mount; all must be the model. `change` runs a row by itself, in
the window and with direct I/O; `in_company` runs all rows one after the other while other processes read the
same pages, evict, trim and miss all the time.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import struct

import harness
from company import (LEAF, MADV_REMOVE, MIB, PAGES, TAIL, TINY, TINY_DIRECT, Company, Subject, address_of)
from counting import cached_bytes_of
from faulty import HANG, READ, WRITE, FaultySource
from harness import (FALLOC_COLLAPSE, FALLOC_INSERT, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE,
                     PAGE, RENAME_EXCHANGE, check, equal, errno_of, fails_with, fallocate, libc_call,
                     make_pages, read_file, renameat2, test, write_file)
from rings import row_io_uring, row_io_uring_linked, row_io_uring_sizes, row_io_uring_splice

FALLOC_UNSHARE = 64
RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_NOWAIT, RWF_APPEND, RWF_NOAPPEND = 1, 2, 4, 8, 16, 32
RWF_ATOMIC, RWF_DONTCACHE = 64, 128
FICLONE, FICLONERANGE, FIDEDUPERANGE = 0x40049409, 0x4020940d, 0xc0189436
FS_IOC_RESVSP64, FS_IOC_UNRESVSP64, FS_IOC_ZERO_RANGE = 0x4030582a, 0x4030582b, 0x40305839
AT_SYMLINK_FOLLOW = 0x400


# ---- write(2) and its kin ------------------------------------------------------------------------

def row_write(s):
    """Every alignment and size; across pages and leaves; zeroes; what is there already; past the end."""
    for offset, length in ((0, 1), (PAGE - 1, 2), (3 * PAGE, PAGE), (5 * PAGE + 7, 3 * PAGE),
                           (LEAF - 100, 200), (LEAF - 3 * PAGE, 6 * PAGE), (2 * LEAF - 1, 1),
                           (10 * PAGE, 20 * PAGE), (40 * PAGE + 1, 16 * PAGE + 5)):
        part = s.noise(length)
        equal(os.pwrite(s.fd, part, offset), length, "bytes written")
        s.put(offset, part)
    s.same("writes of every size")
    os.pwrite(s.fd, bytes(4 * PAGE), 70 * PAGE + 9)
    s.put(70 * PAGE + 9, bytes(4 * PAGE))
    os.pwrite(s.fd, bytes(s.model[90 * PAGE:93 * PAGE]), 90 * PAGE)
    s.same("writes of zeroes and of what was there")
    end = len(s.model)
    for offset in (end, end + 5 * PAGE + 3, end + 70 * PAGE):
        part = s.noise(300)
        os.pwrite(s.fd, part, offset)
        s.put(offset, part)
    s.same_anew("writes past the end")


def row_append(s):
    """O_APPEND by two descriptors in turn, beside one that writes elsewhere."""
    fds = [os.open(s.path, os.O_WRONLY | os.O_APPEND) for _ in range(2)]
    for step in range(6):
        part = s.noise(1 + 1500 * step)
        os.write(fds[step % 2], part)
        s.put(len(s.model), part)
        os.pwrite(s.fd, b"beside", step * PAGE)
        s.put(step * PAGE, b"beside")
    s.same("appends")
    for fd in fds:
        os.close(fd)


def row_direct(s):
    """O_DIRECT: aligned, not aligned, past the end, over pages that the kernel caches and maps."""
    for offset, length in ((0, PAGE), (LEAF - PAGE, 2 * PAGE), (9 * PAGE + 512, 512), (20 * PAGE + 3, 5000),
                           ((PAGES + 1) * PAGE, PAGE)):
        part = s.noise(length)
        equal(os.pwritev(s.direct, [s.aligned(part)], offset), length, "bytes written by O_DIRECT")
        s.put(offset, part)
        s.check_mapped("a write by O_DIRECT")
    s.same("writes by O_DIRECT")


def refuse_flags(*fds):
    """The flags of one call that the kernel's FUSE has not: refused whatever is asked, and nothing is done."""
    buffer = mmap.mmap(-1, PAGE)
    for flags in (RWF_NOWAIT, RWF_ATOMIC, RWF_DONTCACHE):
        for fd in fds:
            for call, more in ((os.pwritev, 0), (os.pwritev, RWF_APPEND), (os.pwritev, RWF_DSYNC), (os.preadv, 0)):
                fails_with(errno.EOPNOTSUPP, "%s with flag %#x" % (call.__name__, flags | more), call, fd, [buffer],
                           8 * PAGE, flags | more)


def row_vectors_and_flags(s):
    """writev, pwritev2 and its flags; a flag that is refused has changed nothing."""
    os.lseek(s.fd, 3 * PAGE - 5, os.SEEK_SET)
    parts = [s.noise(7), s.noise(PAGE), s.noise(1)]
    os.writev(s.fd, parts)
    s.put(3 * PAGE - 5, b"".join(parts))
    for flags in (RWF_DSYNC, RWF_SYNC, RWF_HIPRI, RWF_NOAPPEND):
        parts = [s.noise(PAGE), s.noise(100)]
        os.pwritev(s.fd, parts, 30 * PAGE, flags)
        s.put(30 * PAGE, b"".join(parts))
    part = s.noise(PAGE + 9)
    os.pwritev(s.fd, [part], 0, RWF_APPEND)
    s.put(len(s.model), part)
    s.same("vectors and flags")
    refuse_flags(s.fd, s.direct)
    s.same("flags that are refused")


# ---- mappings ------------------------------------------------------------------------------------

def store(s, mapped, offset, part):
    mapped[offset:offset + len(part)] = part
    s.put(offset, part)


def row_mapped_store(s):
    """MAP_SHARED: seen by all at once, in the source after msync, and after munmap and fsync."""
    for page in range(0, PAGES, 7):
        store(s, s.mapped, page * PAGE + 11, s.noise(50))
    store(s, s.mapped, LEAF - 30, s.noise(60))
    s.same("stores", behind=False)
    s.mapped.flush()
    s.same("stores and msync")
    with mmap.mmap(s.direct, 0) as other:
        store(s, other, 33 * PAGE, s.noise(5 * PAGE))
        s.check_mapped("a store through another mapping")
        other.flush(32 * PAGE, 7 * PAGE)
        s.same("a range of msync")
        store(s, other, 2 * PAGE, s.noise(PAGE))
    os.fsync(s.fd)
    s.same_anew("stores, munmap and fsync")


def row_mapped_and_written(s):
    """Stores and writes of both kinds to the same pages, by turns, no write-back in between."""
    for step in range(8):
        page = 5 + 9 * step
        store(s, s.mapped, page * PAGE, s.noise(100))
        part = s.noise(200)
        fd = (s.fd, s.direct)[step % 2]
        os.pwritev(fd, [s.aligned(part)], page * PAGE + 1000)
        s.put(page * PAGE + 1000, part)
        s.agree(lambda: s.mapped[page * PAGE + 1000:page * PAGE + 1200], part, "a write below a mapping")
        store(s, s.mapped, page * PAGE + 3000, s.noise(100))
    s.same("stores and writes by turns", behind=False)
    s.mapped.flush()
    s.same("stores and writes by turns, and msync")


def row_mapped_by_who_ends(s):
    """Stores of a process that ends without msync or munmap are not lost."""
    part = s.noise(2 * PAGE)

    def stores():
        mapped = mmap.mmap(os.open(s.path, os.O_RDWR), 0)
        mapped[50 * PAGE + 1:52 * PAGE + 1] = part

    s.t.join([s.t.fork(stores)])
    s.put(50 * PAGE + 1, part)
    s.same("stores of a process that ended", behind=False)
    os.fsync(s.fd)
    s.same("stores of a process that ended, and fsync")


def row_mapped_by_the_kernel(s):
    """read(2) into a mapping of the file: the kernel stores for the client. (From a file that it caches: a
    direct read holds the page itself, and loses when the page is dropped meanwhile.)"""
    source = os.open(os.path.join(s.source, "twin"), os.O_RDONLY)
    view = memoryview(s.mapped)
    part = view[20 * PAGE:24 * PAGE]
    equal(os.preadv(source, [part], 100 * PAGE + 5), 4 * PAGE, "bytes read into the mapping")
    s.put(20 * PAGE, s.base[100 * PAGE + 5:104 * PAGE + 5])
    part.release()
    view.release()
    os.close(source)
    s.same("a read into the mapping", behind=False)
    s.mapped.flush()
    s.same("a read into the mapping, and msync")


def row_mapped_private(s):
    """MAP_PRIVATE changes nothing, and keeps what it stored when the file changes."""
    with mmap.mmap(s.fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mine:
        mine[10 * PAGE:12 * PAGE] = b"p" * (2 * PAGE)
        mine[0:3] = b"own"
        s.same("private stores")
        os.pwrite(s.fd, b"w" * PAGE, 10 * PAGE)
        s.put(10 * PAGE, b"w" * PAGE)
        equal(mine[10 * PAGE:12 * PAGE], b"p" * (2 * PAGE), "what was stored privately")
    s.same("a write below private stores")


def row_madvise_remove(s):
    """madvise(MADV_REMOVE) of a shared mapping punches a hole."""
    s.mapped.madvise(MADV_REMOVE, 30 * PAGE, 50 * PAGE)
    s.put(30 * PAGE, bytes(50 * PAGE))
    s.same("MADV_REMOVE")


# ---- sizes and holes -----------------------------------------------------------------------------

def resize(s, size, by_path=False):
    if by_path:
        os.truncate(s.path, size)
    else:
        os.ftruncate(s.fd, size)
    del s.model[size:]
    s.model += bytes(size - len(s.model))


def row_truncate(s):
    """Down into a page, up, down and up at once, to the same size, to nothing; by path and descriptor."""
    resize(s, 100 * PAGE + 17)
    s.same("truncating down")
    resize(s, 100 * PAGE + 17, by_path=True)
    s.same("truncating to the same size")
    resize(s, 120 * PAGE + 5, by_path=True)
    s.same("truncating up")
    os.pwrite(s.fd, b"\xff" * (20 * PAGE), 60 * PAGE)
    s.put(60 * PAGE, b"\xff" * (20 * PAGE))
    resize(s, LEAF + 10)
    resize(s, PAGES * PAGE)
    s.same_anew("truncating down and up")
    resize(s, 0)
    s.same("truncating to nothing")
    resize(s, 3 * PAGE)
    s.same("truncating up from nothing")


def row_truncate_with_stores(s):
    """What was stored behind the new end before, also within the last page, never comes back."""
    store(s, s.mapped, 100 * PAGE, b"\xee" * (2 * PAGE))
    resize(s, 100 * PAGE + 40)
    resize(s, 103 * PAGE)
    equal(os.pread(s.fd, 40, 100 * PAGE), b"\xee" * 40, "before the cut")
    equal(os.pread(s.fd, 2 * PAGE, 101 * PAGE), bytes(2 * PAGE), "pages behind the cut")
    s.put(100 * PAGE + 40, bytes(3 * PAGE - 40))
    s.same("cutting a page that was stored to", behind=False)
    os.fsync(s.fd)
    s.same("cutting a page that was stored to, and fsync")


def row_open_truncating(s):
    """O_TRUNC, while others have it open and mapped. What was there does not come back in a gap."""
    fd = os.open(s.path, os.O_RDWR | os.O_TRUNC)
    s.model.clear()
    s.same("O_TRUNC")
    part = s.noise(70 * PAGE + 1)
    os.pwrite(fd, part, 20 * PAGE + 5)
    s.put(20 * PAGE + 5, part)
    os.close(fd)
    s.same_anew("O_TRUNC and a write")


def row_fallocate(s):
    """Each mode that FUSE has: reserve, extend, punch, zero, both with and without the size kept."""
    size = len(s.model)
    fallocate(s.fd, FALLOC_KEEP_SIZE, size, 10 * PAGE)
    s.same("a reservation behind the end")
    fallocate(s.fd, 0, size - 10, 3 * PAGE)
    s.put(size, bytes(3 * PAGE - 10))
    s.same("an extension")
    fallocate(s.fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 20 * PAGE + 300, 9 * PAGE)
    s.put(20 * PAGE + 300, bytes(9 * PAGE))
    fallocate(s.direct, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, LEAF - 5, 10)
    s.put(LEAF - 5, bytes(10))
    s.same("holes")
    fallocate(s.fd, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, 90 * PAGE + 1, 5 * PAGE)
    s.put(90 * PAGE + 1, bytes(5 * PAGE))
    fallocate(s.fd, FALLOC_ZERO_RANGE, len(s.model) - 100, 2 * PAGE)
    s.put(len(s.model) - 100, bytes(2 * PAGE))
    s.same("zeroed ranges")


def row_fallocate_refused(s):
    """Collapse, insert and unshare: FUSE has none of them; refused, and nothing is changed."""
    for mode in (FALLOC_COLLAPSE, FALLOC_INSERT, FALLOC_UNSHARE, FALLOC_PUNCH_HOLE):
        fails_with(errno.EOPNOTSUPP, "fallocate mode %d" % mode, fallocate, s.fd, mode, 16 * PAGE, 4 * PAGE)
    s.same("modes that are refused")


def row_space_ioctls(s):
    """The old XFS ioctls that the kernel turns into fallocate: reserve, unreserve, zero."""
    def space(command, start, length):
        fcntl.ioctl(s.fd, command, struct.pack("=hhxxxxqqiI16x", 0, os.SEEK_SET, start, length, 0, 0))

    space(FS_IOC_RESVSP64, len(s.model), PAGE)
    s.same("FS_IOC_RESVSP64")
    for command, page in ((FS_IOC_UNRESVSP64, 10), (FS_IOC_ZERO_RANGE, 50)):
        space(command, page * PAGE + 3, 2 * PAGE)
        s.put(page * PAGE + 3, bytes(2 * PAGE))
    s.same("FS_IOC_UNRESVSP64 and FS_IOC_ZERO_RANGE")


# ---- from file to file ---------------------------------------------------------------------------

def copy_all(fd_in, at_in, fd_out, at_out, length):
    done = 0
    while done < length:
        part = os.copy_file_range(fd_in, fd_out, length - done, at_in + done, at_out + done)
        check(part > 0, "copy_file_range copied nothing")
        done += part


def row_copy_file_range(s):
    """From another file, within the file, what was just stored through a mapping, past the end; overlapping
    is refused."""
    twin = os.open(s.mount.path("twin"), os.O_RDONLY)
    copy_all(twin, 3 * PAGE + 1, s.fd, 40 * PAGE + 8, 30 * PAGE)
    s.put(40 * PAGE + 8, s.base[3 * PAGE + 1:33 * PAGE + 1])
    s.same("a copy from another file")
    copy_all(s.fd, 0, s.fd, 100 * PAGE, 20 * PAGE)
    s.put(100 * PAGE, bytes(s.model[:20 * PAGE]))
    store(s, s.mapped, 2 * PAGE, s.noise(PAGE))
    copy_all(s.fd, 2 * PAGE, s.direct, len(s.model) + PAGE, PAGE)
    s.put(len(s.model) + PAGE, bytes(s.model[2 * PAGE:3 * PAGE]))
    s.mapped.flush()
    s.same_anew("copies within the file")
    fails_with(errno.EINVAL, "an overlapping copy", os.copy_file_range, s.fd, s.fd, 4 * PAGE, 0, 2 * PAGE)
    s.same("a copy that is refused")
    os.close(twin)


def row_splice_in(s):
    """sendfile, splice and vmsplice into the file."""
    twin = os.open(s.mount.path("twin"), os.O_RDONLY)
    os.lseek(s.fd, 10 * PAGE + 50, os.SEEK_SET)
    done = 0
    while done < 20 * PAGE:
        part = os.sendfile(s.fd, twin, 77 * PAGE + done, 20 * PAGE - done)
        check(part > 0, "sendfile sent nothing")
        done += part
    s.put(10 * PAGE + 50, s.base[77 * PAGE:97 * PAGE])
    s.same("sendfile into the file")
    out, into = os.pipe()
    for fd, offset in ((s.fd, 40 * PAGE), (s.direct, LEAF - PAGE // 2)):
        part = s.noise(2 * PAGE)
        os.write(into, part)
        equal(os.splice(out, fd, len(part), offset_dst=offset), len(part), "bytes spliced")
        s.put(offset, part)
    s.same("splice into the file")
    part = s.noise(3 * PAGE)
    iovec = struct.pack("QQ", harness.ctypes.addressof(harness.ctypes.c_char.from_buffer(
        s.aligned(part))), len(part))
    libc_call("vmsplice", into, iovec, harness.ctypes.c_ulong(1), 0)
    done = 0
    while done < len(part):
        done += os.splice(out, s.fd, len(part) - done, offset_dst=80 * PAGE + done)
    s.put(80 * PAGE, part)
    s.same("vmsplice and splice into the file")
    for fd in (out, into, twin):
        os.close(fd)


def row_clone_and_dedupe(s):
    """FICLONE, FICLONERANGE and FIDEDUPERANGE are refused as by a file system that has none of them."""
    twin = os.open(s.mount.path("twin"), os.O_RDWR)
    fails_with(errno.EOPNOTSUPP, "FICLONE", fcntl.ioctl, s.fd, FICLONE, twin)
    fails_with(errno.EOPNOTSUPP, "FICLONERANGE", fcntl.ioctl, s.fd, FICLONERANGE,
               struct.pack("qQQQ", twin, 0, PAGE, PAGE))
    request = bytearray(struct.pack("QQHHI", 0, PAGE, 1, 0, 0) + struct.pack("qQQiI", s.fd, 0, 0, 0, 0))
    code = errno_of(fcntl.ioctl, twin, FIDEDUPERANGE, request)
    status = struct.unpack_from("qQQiI", request, 24)[3]
    check(code == errno.EOPNOTSUPP or code == 0 and status in (-errno.EOPNOTSUPP, -errno.EINVAL),
          "FIDEDUPERANGE: errno %d, status %d" % (code, status))
    os.close(twin)
    s.same("ioctls that are refused")


# ---- names ---------------------------------------------------------------------------------------

def row_hard_links(s):
    """Changed through one name, read through another: one file."""
    os.link(s.path, s.path + ".link")
    other = os.open(s.path + ".link", os.O_RDWR)
    for step, fd in enumerate((other, s.fd, other)):
        part = s.noise(PAGE + 5)
        os.pwrite(fd, part, step * 20 * PAGE)
        s.put(step * 20 * PAGE, part)
        s.agree(lambda: os.pread(other, MIB, 0), bytes(s.model), "through the other name")
    s.same("writes through two names")
    os.truncate(s.path + ".link", 70 * PAGE + 1)
    del s.model[70 * PAGE + 1:]
    s.same("a truncate through the other name")
    s.agree(lambda: read_file(s.path + ".link"), bytes(s.model), "the other name, opened anew")
    os.close(other)


def detached(s):
    """The subject has another name behind the mount, or none: what is open still is the model."""
    s.same("the loss of its name", behind=False)
    os.pwrite(s.fd, b"after the name", 5 * PAGE)
    s.put(5 * PAGE, b"after the name")
    store(s, s.mapped, 9 * PAGE, s.noise(PAGE))
    resize(s, 90 * PAGE + 3)
    s.same("changes after the loss of its name", behind=False)


def row_rename_over(s):
    """Another file takes its name: who has it open keeps it, who opens the name gets the other."""
    other = s.noise(20 * PAGE)
    write_file(s.path + ".new", other)
    os.rename(s.path + ".new", s.path)
    equal(read_file(s.path), other, "the file that took the name")
    detached(s)
    equal(read_file(s.path), other, "the file that took the name, later")
    equal(read_file(s.behind), other, "the same in the source")


def row_exchange(s):
    """RENAME_EXCHANGE: both names mean the other file, what is open stays what it was."""
    other = s.noise(20 * PAGE)
    write_file(s.path + ".new", other)
    fd = os.open(s.path + ".new", os.O_RDONLY)
    renameat2(s.path, s.path + ".new", RENAME_EXCHANGE)
    detached(s)
    os.fsync(s.fd)
    equal(read_file(s.path), other, "the name of the subject")
    equal(os.pread(fd, MIB, 0), other, "the other file, open")
    equal(read_file(s.path + ".new"), bytes(s.model), "the subject by its new name")
    equal(read_file(s.behind + ".new"), bytes(s.model), "the same in the source")
    os.close(fd)


def row_unlink(s):
    """Unlinked while open and mapped; a new file of that name is another one."""
    os.unlink(s.path)
    detached(s)
    write_file(s.path, b"new")
    detached(s)
    equal(read_file(s.path), b"new", "a new file of that name")


def row_tmpfile(s):
    """O_TMPFILE, written, mapped, then linked to a name."""
    fd = os.open(os.path.dirname(s.path), os.O_TMPFILE | os.O_RDWR, 0o600)
    content = bytearray(s.base[:30 * PAGE])
    os.write(fd, content)
    with mmap.mmap(fd, 0) as mapped:
        content[PAGE:PAGE + 4] = mapped[PAGE:PAGE + 4] = b"temp"
        equal(os.pread(fd, MIB, 0), bytes(content), "a file without a name")
        libc_call("linkat", -100, b"/proc/self/fd/%d" % fd, -100, os.fsencode(s.path + ".named"), AT_SYMLINK_FOLLOW)
        content[2 * PAGE:2 * PAGE + 5] = mapped[2 * PAGE:2 * PAGE + 5] = b"named"
        mapped.flush()
    equal(read_file(s.path + ".named"), bytes(content), "by its name")
    equal(read_file(s.behind + ".named"), bytes(content), "in the source")
    os.close(fd)
    s.same("another file's making")


# ---- behind the mount ----------------------------------------------------------------------------

def row_behind(s):
    """Changed behind the mount: an open shows it, and from then on every older descriptor does."""
    part = s.noise(3 * PAGE + 7)
    with open(s.behind, "r+b") as file:
        os.pwrite(file.fileno(), part, 60 * PAGE + 1)
    s.put(60 * PAGE + 1, part)
    equal(read_file(s.path), bytes(s.model), "opened after a change behind the mount")
    s.same("a change behind the mount that an open found")
    part = s.noise(PAGE)
    with open(s.behind, "r+b") as file:
        os.pwrite(file.fileno(), part, 100 * PAGE)
    s.put(100 * PAGE, part)
    os.pwrite(s.fd, b"mine", 3)
    s.put(3, b"mine")
    harness.until(lambda: os.pread(s.fd, PAGE, 100 * PAGE) == part and s.by_sendfile(s.direct) == s.model
                  and s.mapped[:] == s.model, 10 * s.t.patience, "all is seen after a write through the mount")
    s.same("a change behind the mount that a write found")


ROWS = {name.removeprefix("row_"): function
        for name, function in list(globals().items()) if name.startswith("row_")}


def base_of(t):
    return make_pages(t.rng, PAGES) + t.rng.randbytes(TAIL)


def run_row(t, mount, source, number, base, row, in_company=False):
    subject = Subject(t, mount, source, number, base, in_company)
    row(subject)
    subject.close()
    equal(read_file(mount.path("twin")), base, "the file that shared its pages")


@test(suite="full", variants=ROWS)
def change(t, row):
    """One row by itself, in the window and with direct I/O, each page shared with another file."""
    for number, options in enumerate(([], ["window=0"])):
        source = t.make_dir("source%d" % number)
        base = base_of(t)
        write_file(source + "/twin", base)
        mount = t.mount(source, options, name="mnt%d" % number)
        equal(read_file(mount.path("twin")), base, "the file that shares its pages")
        run_row(t, mount, source, 0, base, row)


# What each row finds missing: bugs of tests/torture/planted.c, each of which takes away some of what handles
# the row's change.
WRITES = ("lost_break", "lost_zero", "lost_source_write")
STORES = ("lost_write_back",)
FINDS = {
    "write": WRITES + ("one_page_too_few", "missed_stream", "written_in_place"),
    "append": WRITES[:1],
    "direct": WRITES[:1],
    "vectors_and_flags": WRITES[:1],
    "io_uring": WRITES[:1],
    "io_uring_linked": WRITES[:1],
    "io_uring_sizes": ("missed_fallocate", "missed_truncate"),
    "io_uring_splice": WRITES[:1],
    "mapped_store": STORES,
    "mapped_and_written": STORES,
    "mapped_by_who_ends": STORES,
    "mapped_by_the_kernel": STORES,
    "madvise_remove": ("missed_fallocate",),
    "truncate": ("missed_truncate", "cut_page_kept"),
    "truncate_with_stores": ("missed_truncate",),
    "open_truncating": ("forgotten_open_trunc",),
    "fallocate": ("missed_fallocate",),
    "space_ioctls": ("missed_fallocate",),
    "copy_file_range": ("missed_copy",),
    "splice_in": WRITES[:1],
    "hard_links": WRITES[:1],
    "rename_over": WRITES[:1],
    "exchange": WRITES[:1],
    "unlink": WRITES[:1],
    "tmpfile": WRITES[:1],
    "behind": ("foreign_change_unseen", "stale_window"),
}
# Nothing handles these, for nothing may change.
CHANGES_NOTHING = {"mapped_private", "fallocate_refused", "clone_and_dedupe"}


@test(suite="full", presets=("release",), timeout=90, variants={name: name for name in FINDS})
def without_its_handling(t, name):
    """A row fails if what handles its change is missing."""
    equal(set(ROWS) - CHANGES_NOTHING, set(FINDS), "rows with a bug to find")
    check(not harness.finds(t, None, change, ROWS[name]), "it passes without a bug")
    missed = [bug for bug in FINDS[name] if not harness.finds(t, bug, change, ROWS[name])]
    check(not missed, "not found: " + ", ".join(missed))


@test(suite="full", presets=("release",), timeout=90, variants={
    "lost_break": "write", "missed_fallocate": "fallocate", "missed_copy": "copy_file_range"})
def without_its_handling_in_company(t, name):
    """Nor does company hide it: what is evicted or trimmed meanwhile may have been put right by then."""
    bug = next(bug for bug in ("lost_break", "missed_fallocate", "missed_copy") if bug in FINDS[name])

    def row_in_company(t, options):
        source = t.make_dir("source")
        base = base_of(t)
        mount = t.mount(source, options, name="mnt")
        with Company(t, mount, source, base) as company:
            company.watch(0)
            run_row(t, mount, source, 0, base, ROWS[name], in_company=True)

    for options in (TINY, TINY_DIRECT):
        # Which pages are in the pool as they are changed is a matter of chance.
        check(any(harness.finds(t, bug, row_in_company, options) for _ in range(4)),
              "%s is not found with %s" % (bug, options))


@test(timeout=60, transports="full", variants={"window": TINY, "direct": TINY_DIRECT})
def in_company(t, options):
    """All rows in turn (under a sanitizer some, by the seed), while others read the same pages in every way
    and more than pool and window hold: evictions, trimming and misses in flight at every step."""
    source = t.make_dir("source")
    base = base_of(t)
    mount = t.mount(source, options)
    with Company(t, mount, source, base) as company:
        for number, (name, row) in enumerate(t.rng.sample(list(ROWS.items()), t.scaled(len(ROWS), 5))):
            company.watch(number)
            try:
                run_row(t, mount, source, number, base, row, in_company=True)
            except harness.Failure as failure:
                raise harness.Failure("row %s: %s" % (name, failure)) from None


@test(transports="full", variants={"window": ["passthrough=*"], "direct": ["passthrough=*", "window=0"]})
def flags_refused_in_passthrough(t, options):
    """In passthrough the kernel refuses them too, also where the source file has them."""
    source = t.make_dir("source")
    base = base_of(t)
    write_file(source + "/file", base)
    mount = t.mount(source, options)
    fds = [os.open(mount.path("file"), os.O_RDWR | flags) for flags in (0, os.O_DIRECT)]
    equal(mount.status()["plans"]["own"], 1, "files in passthrough")
    refuse_flags(*fds)
    equal(os.pread(fds[0], 2 * MIB, 0), base, "the file")
    equal(read_file(source + "/file"), base, "the source")
    for fd in fds:
        os.close(fd)


class Aio:
    """One asynchronous request of Linux's own kind (io_submit) at a time, of one page."""

    SETUP, DESTROY, GETEVENTS, SUBMIT = 206, 207, 208, 209
    PWRITE = 1

    def __init__(self):
        self.buffer = mmap.mmap(-1, PAGE)
        self.block = ctypes.create_string_buffer(64)
        self.context = ctypes.c_ulong(0)
        libc_call("syscall", self.SETUP, 1, ctypes.byref(self.context))

    def write(self, fd, content, offset):
        """Begin to write."""
        self.buffer[:] = content
        struct.pack_into("<QIIHhIQQqQII", self.block, 0, 0, 0, 0, self.PWRITE, 0, fd, address_of(self.buffer),
                         PAGE, offset, 0, 0, 0)
        blocks = (ctypes.c_void_p * 1)(ctypes.addressof(self.block))
        libc_call("syscall", self.SUBMIT, self.context, ctypes.c_long(1), blocks)

    def end(self):
        """Wait for it: its result."""
        event = ctypes.create_string_buffer(32)
        libc_call("syscall", self.GETEVENTS, self.context, ctypes.c_long(1), ctypes.c_long(1), event, None)
        return struct.unpack_from("<q", event, 16)[0]

    def close(self):
        libc_call("syscall", self.DESTROY, self.context)


@test(timeout=40, transports="full", variants={
    "window": ([], os.O_DIRECT), "direct": (["window=0"], os.O_DIRECT), "direct and not asked for": (["window=0"], 0)})
def read_beside_a_direct_write(t, how):
    """What is read beside an asynchronous direct write may be old, but not once the write has ended: a store
    into a page that was would be written back with it, over what was written.
    """
    if len(os.sched_getaffinity(0)) < 2:
        raise harness.Skip("two processors are needed: a ring serves one request of each at a time")
    processors = os.sched_getaffinity(0)
    first, second = sorted(processors)[:2]
    options, flags = how
    hanging = FaultySource(t)
    base = base_of(t)
    write_file(hanging.backing + "/file", base)
    mount = t.mount(hanging.point, options)
    direct = os.open(mount.path("file"), os.O_RDWR | flags)
    fd = os.open(mount.path("file"), os.O_RDWR)
    equal(os.pread(fd, MIB, 0), base, "before")
    view = mmap.mmap(fd, len(base))
    view.madvise(mmap.MADV_RANDOM)
    aio = Aio()
    for page in range(10, 30):
        at = page * PAGE
        new = t.rng.randbytes(PAGE)
        hanging.set(0, HANG, WRITE, at, at + PAGE - 1)
        os.sched_setaffinity(0, {first})
        aio.write(direct, new, at)
        harness.until(lambda: hanging.applied(0), 10 * t.patience, "the write hangs")
        os.sched_setaffinity(0, {second})
        equal(view[at:at + PAGE], base[at:at + PAGE], "page %d, mapped, while it is being written" % page)
        os.sched_setaffinity(0, processors)
        hanging.clear(0)
        equal(aio.end(), PAGE, "the write")
        view[at] = new[0] ^ 1
        equal(view[at + 1:at + PAGE], new[1:], "page %d, mapped, once it is written" % page)
        view.flush(at, PAGE)
        equal(read_file(hanging.backing + "/file")[at:at + PAGE], bytes([new[0] ^ 1]) + new[1:],
              "page %d in the source" % page)
    aio.close()
    view.close()
    os.close(fd)
    os.close(direct)


@test(timeout=40, transports="full")
def dropped_while_being_written(t):
    """The kernel has copied a client's bytes into its page but not sent the WRITE yet, when the window drops
    the page and a reader brings it back as it was: once the write has returned the reader's old page is gone, and
    nobody can store into it, which would be written back over what was written.

    The write is held up half way by a buffer whose second page comes from a file system that hangs.
    """
    hanging = FaultySource(t)
    write_file(hanging.backing + "/buffer", b"n" * (4 * PAGE))
    source = t.make_dir("source")
    base = base_of(t)
    for name in ("file", "twin"):
        write_file(source + "/" + name, base)
    noise = make_pages(t.rng, 800)
    write_file(source + "/noise", noise)
    mount = t.mount(source, ["window=256K"])
    fd = os.open(mount.path("file"), os.O_RDWR)
    equal(os.pread(fd, MIB, 0), base, "before")
    with open(hanging.point + "/buffer", "rb") as file:
        buffer = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    buffer.madvise(mmap.MADV_RANDOM)
    equal(buffer[PAGE:PAGE + 1], b"n", "the first page of the buffer")

    def is_within_budget():
        window = mount.status()["window"]
        return window["bytes"] <= window["budget_bytes"]

    def is_cached():
        """In the kernel's cache and on the window's list, which only stands once nothing is being dropped."""
        harness.until(is_within_budget, 10 * t.patience, "the window is within its budget")
        equal(os.pread(fd, PAGE, 10 * PAGE), base[10 * PAGE:11 * PAGE], "the page, cached")
        harness.until(is_within_budget, 10 * t.patience, "the window is within its budget")
        return cached_bytes_of(fd, 11 * PAGE) > cached_bytes_of(fd, 10 * PAGE)

    def write_and_store():
        equal(os.pwrite(fd, memoryview(buffer)[PAGE:3 * PAGE], 10 * PAGE), 2 * PAGE, "bytes written")
        view[10 * PAGE] = ord("s")
        equal(view[10 * PAGE:12 * PAGE], b"s" + b"n" * (2 * PAGE - 1), "mapped, once it is written")
        view.flush()

    view = mmap.mmap(fd, len(base))
    view.madvise(mmap.MADV_RANDOM)
    harness.until(is_cached, 10 * t.patience, "the page stays cached")
    hanging.set(0, HANG, READ, 2 * PAGE, 3 * PAGE - 1)
    writer = t.fork(write_and_store)
    harness.until(lambda: hanging.applied(0), 10 * t.patience, "the write hangs half way")

    def dropped():
        equal(read_file(mount.path("noise")), noise, "what pushes the page out")
        return os.pread(fd, PAGE, 10 * PAGE) == base[10 * PAGE:11 * PAGE]

    harness.until(dropped, 10 * t.patience, "the page is dropped and read as it was")
    hanging.clear(0)
    t.join([writer])
    expected = b"s" + b"n" * (2 * PAGE - 1)
    equal(os.pread(fd, 2 * PAGE, 10 * PAGE), expected, "what was written and stored is read")
    equal(read_file(source + "/file")[10 * PAGE:12 * PAGE], expected, "the source")
    view.close()
    buffer.close()
    os.close(fd)
