# SPDX-License-Identifier: Apache-2.0
"""Counts that do not rest on what foldfs says: pages of files that are equal, and what the kernel has in its cache."""

import ctypes
import hashlib
import mmap
import os

from harness import LIBC, MIB, PAGE, ZERO_PAGE, pages_of


class PageCount:
    """An independent count of the pages of files: what sharing must come out at."""

    def __init__(self):
        self.zero = 0
        self.nonzero = 0
        self.users = {}

    def add(self, content):
        for page in pages_of(content):
            if page == ZERO_PAGE:
                self.zero += 1
            else:
                self.nonzero += 1
                digest = hashlib.blake2b(page, digest_size=16).digest()
                self.users[digest] = self.users.get(digest, 0) + 1

    def add_file(self, path):
        with open(path, "rb") as file:
            while True:
                part = file.read(4 * MIB)
                if not part:
                    break
                self.add(part)

    def expected(self):
        shared = sum(1 for users in self.users.values() if users > 1)
        return {
            "pages_shared": shared,
            "pages_unshared": len(self.users) - shared,
            "pages_sharing": self.nonzero - len(self.users),
            "zero_pages": self.zero,
        }


def cached_bytes(path):
    """Bytes of a file that are in the kernel's page cache (0 where it cannot be told)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        if not size:
            return 0
        return cached_bytes_of(fd, size)
    finally:
        os.close(fd)


def cached_bytes_of(fd, size):
    LIBC.mmap.restype = ctypes.c_void_p
    LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                          ctypes.c_int, ctypes.c_long]
    LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    address = LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap for mincore")
    pages = (size + PAGE - 1) // PAGE
    vector = (ctypes.c_ubyte * pages)()
    try:
        if LIBC.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), vector) != 0:
            raise OSError(ctypes.get_errno(), "mincore")
    finally:
        LIBC.munmap(address, size)
    return sum(byte & 1 for byte in vector) * PAGE
