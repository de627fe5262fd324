# SPDX-License-Identifier: Apache-2.0
"""Pages every word of which says which page it is and by which write.

A page that is read while it is written is a mixture, and an interrupt may end a copy within a word (CI saw
the low byte of write 223 below the second one of write 269, which reads as write 479). So a word has its
number twice, the second time inverted and in other bytes: what is torn is known as such.
"""

import struct

from harness import PAGE

WORD = struct.Struct("<Q")
LAST = (1 << 24) - 1


def stamped(page, write):
    """Page `page`, 16 bits, of write `write`, 0 to LAST."""
    return WORD.pack(page << 48 | (write ^ LAST) << 24 | write) * (PAGE // WORD.size)


def stamps(content):
    """Page and write of each word of the content; the write is None where the word is torn."""
    for (word,) in WORD.iter_unpack(content):
        write = word & LAST
        yield word >> 48, write if word >> 24 & LAST == write ^ LAST else None
