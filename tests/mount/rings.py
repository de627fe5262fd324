# SPDX-License-Identifier: Apache-2.0
"""io_uring without a library: a ring with registered buffers and files, and the rows of test_content.py that
change a file by it."""

import ctypes
import errno
import mmap
import os
import struct

from company import LEAF, PAGES, address_of
from harness import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, LIBC, PAGE, check, equal,
                     errno_of)


class Ring:
    """A ring with one registered buffer and a table of registered files."""

    SETUP, ENTER, REGISTER = 425, 426, 427
    REGISTER_BUFFERS, REGISTER_FILES = 0, 2
    FSYNC, READ_FIXED, WRITE_FIXED, FALLOCATE, READ, WRITE, SPLICE, FTRUNCATE = 3, 4, 5, 17, 22, 23, 30, 55
    FIXED_FILE, LINK = 1, 4  # flags of a request
    SPLICE_IN_FIXED = 1 << 31
    OFFSET_SQES = 0x10000000
    ENTRIES = 8

    def __init__(self, size, files=()):
        parameters = (ctypes.c_uint32 * 30)()
        self.fd = self._call(self.SETUP, self.ENTRIES, ctypes.byref(parameters))
        self.sq_tail, self.sq_mask, self.sq_array = parameters[11], parameters[12], parameters[16]
        self.cq_head, self.cq_mask, self.cqes = parameters[20], parameters[22], parameters[25]
        self.ring = mmap.mmap(self.fd, max(self.sq_array + 4 * parameters[0], self.cqes + 16 * parameters[1]))
        self.sqes = mmap.mmap(self.fd, 64 * parameters[0], offset=self.OFFSET_SQES)
        self.buffer = mmap.mmap(-1, size)
        iovec = (ctypes.c_uint64 * 2)(address_of(self.buffer), size)
        self._call(self.REGISTER, self.fd, self.REGISTER_BUFFERS, ctypes.byref(iovec), 1)
        self.files = list(files)
        if files:
            table = (ctypes.c_int32 * len(files))(*files)
            self._call(self.REGISTER, self.fd, self.REGISTER_FILES, ctypes.byref(table), len(files))

    @staticmethod
    def _call(*args):
        result = LIBC.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in args))
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def _u32(self, at):
        return struct.unpack_from("<I", self.ring, at)[0]

    def request(self, operation, fd, offset=0, address=None, length=0, flags=0, other=0):
        """One for operate(): of the table where FD is registered, else by the descriptor. ADDRESS: that of the
        buffer unless it is given. FLAGS: the operation's own; OTHER: the descriptor that SPLICE reads."""
        fixed = self.FIXED_FILE if fd in self.files else 0
        address = address_of(self.buffer) if address is None else address
        return [operation, fixed, self.files.index(fd) if fixed else fd, offset & (1 << 64) - 1,
                address & (1 << 64) - 1, length, flags, other]

    def operate(self, *requests):
        """Their results, in order, once all are there. They are linked: each begins when the one before is
        done, and is cancelled if that has failed or done less than it was to."""
        tail = self._u32(self.sq_tail)
        for number, (operation, fixed, fd, offset, address, length, flags, other) in enumerate(requests):
            link = self.LINK if number + 1 < len(requests) else 0
            struct.pack_into("<BBHiQQIIQHHi16x", self.sqes, 64 * number, operation, fixed | link, 0, fd,
                             offset, address, length, flags, number, 0, 0, other)
            place = (tail + number) & self._u32(self.sq_mask)
            struct.pack_into("<I", self.ring, self.sq_array + 4 * place, number)
        struct.pack_into("<I", self.ring, self.sq_tail, tail + len(requests))
        self._call(self.ENTER, self.fd, len(requests), len(requests), 1, None, 0)
        results = [None] * len(requests)
        for _ in requests:
            head = self._u32(self.cq_head)
            place = head & self._u32(self.cq_mask)
            number, result, _ = struct.unpack_from("<QiI", self.ring, self.cqes + 16 * place)
            struct.pack_into("<I", self.ring, self.cq_head, head + 1)
            results[number] = result
        return results

    def do(self, operation, *args, **kwargs):
        """One request's result; a negative one is an OSError."""
        result, = self.operate(self.request(operation, *args, **kwargs))
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def write(self, fd, part, offset):
        self.buffer[:len(part)] = part
        return self.do(self.WRITE_FIXED, fd, offset, length=len(part))

    def read(self, fd, length, offset):
        return self.buffer[:self.do(self.READ_FIXED, fd, offset, length=length)]

    def close(self):
        os.close(self.fd)


def ring_for(files):
    """A ring with these files registered; None where the kernel lets nobody have one."""
    try:
        return Ring(64 * PAGE, files)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM, errno.ENOMEM):
            return None
        raise


def row_io_uring(s):
    """io_uring with a registered buffer, buffered and by O_DIRECT, reads and writes; files by their
    descriptors and registered."""
    for files in ([], [s.direct, s.fd]):
        ring = ring_for(files)
        if not ring:
            return
        for fd, offset, length in ((s.fd, 5, 2 * PAGE), (s.direct, 12 * PAGE, 40 * PAGE),
                                   (s.fd, LEAF - 9, 20)):
            part = s.noise(length)
            equal(ring.write(fd, part, offset), length, "bytes written by io_uring")
            s.put(offset, part)
            s.agree(lambda: ring.read(s.fd, length, offset), part, "read back by io_uring")
            s.agree(lambda: ring.read(s.direct, length, offset), part, "read back by io_uring and O_DIRECT")
        ring.close()
        s.same("io_uring")


def row_io_uring_linked(s):
    """Requests of one chain on registered files: written, flushed and read back; written twice; and one that
    is cancelled because what it follows has failed."""
    ring = ring_for([s.fd, s.direct])
    if not ring:
        return
    for fd, offset in ((s.fd, 7 * PAGE + 1), (s.direct, 50 * PAGE)):
        part = s.noise(2 * PAGE)
        ring.buffer[:4 * PAGE] = part + bytes(2 * PAGE)
        behind = address_of(ring.buffer) + 2 * PAGE
        equal(ring.operate(ring.request(ring.WRITE_FIXED, fd, offset, length=len(part)),
                           ring.request(ring.FSYNC, fd, address=0),
                           ring.request(ring.READ_FIXED, s.fd, offset, behind, len(part))),
              [len(part), 0, len(part)], "a write, a flush and a read")
        s.put(offset, part)
        s.agree(lambda: ring.read(s.fd, len(part), offset), part, "what the chain wrote, read by io_uring")
        s.same("a chain of io_uring")
    part = s.noise(3 * PAGE)
    ring.buffer[:len(part)] = part
    equal(ring.operate(ring.request(ring.WRITE, s.fd, 100 * PAGE + 3, length=len(part)),
                       ring.request(ring.WRITE_FIXED, s.direct, 101 * PAGE, length=PAGE)), [len(part), PAGE],
          "two writes of which the second is over the first")
    s.put(100 * PAGE + 3, part)
    s.put(101 * PAGE, part[:PAGE])
    s.same("two writes in a chain")
    failed, cancelled = ring.operate(ring.request(ring.WRITE_FIXED, s.fd, -2, length=PAGE),
                                     ring.request(ring.WRITE_FIXED, s.fd, 3 * PAGE, length=PAGE))
    check(failed < 0, "a write at an impossible offset")
    equal(cancelled, -errno.ECANCELED, "the write behind one that failed")
    s.same("a chain that broke")
    ring.close()


def row_io_uring_sizes(s):
    """fallocate and, where io_uring has it, ftruncate by io_uring, on registered files."""
    ring = ring_for([s.fd, s.direct])
    if not ring:
        return
    for fd, mode, page in ((s.fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 20),
                           (s.direct, FALLOC_ZERO_RANGE, 70)):
        ring.do(ring.FALLOCATE, fd, page * PAGE + 9, 2 * PAGE, mode)
        s.put(page * PAGE + 9, bytes(2 * PAGE))
    s.same("a hole and a zeroed range by io_uring")
    ring.do(ring.FALLOCATE, s.fd, len(s.model), 3 * PAGE)
    s.put(len(s.model), bytes(3 * PAGE))
    s.same("an extension by io_uring")
    for size in (LEAF + 5, PAGES * PAGE):
        code = errno_of(ring.do, ring.FTRUNCATE, s.fd, size, 0)
        if code == errno.EINVAL:  # before Linux 6.9
            break
        equal(code, 0, "errno of a truncation by io_uring")
        del s.model[size:]
        s.put(len(s.model), bytes(size - len(s.model)))
        s.same("a truncation by io_uring")
    ring.close()


def row_io_uring_splice(s):
    """splice by io_uring, from a registered file of the mount into a pipe and on into another one."""
    twin = os.open(s.mount.path("twin"), os.O_RDONLY)
    out, into = os.pipe()
    ring = ring_for([s.fd, s.direct, twin])
    if not ring:
        return
    for fd, offset in ((s.fd, 30 * PAGE + 11), (s.direct, 90 * PAGE)):
        done = 0
        while done < 5 * PAGE:
            part = ring.do(ring.SPLICE, into, -1, 77 * PAGE + done, 5 * PAGE - done, ring.SPLICE_IN_FIXED, 2)
            while part:
                moved = ring.do(ring.SPLICE, fd, offset + done, -1, part, 0, out)
                check(moved > 0, "a splice of nothing")
                done, part = done + moved, part - moved
        s.put(offset, s.base[77 * PAGE:82 * PAGE])
        s.same("splices by io_uring")
    ring.close()
    for fd in (out, into, twin):
        os.close(fd)
