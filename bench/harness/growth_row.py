# SPDX-License-Identifier: Apache-2.0
"""A row of the scenario growth."""

import dataclasses
import typing

FLAT_LIMIT = 1.25


@dataclasses.dataclass(frozen=True)
class Row:
    """One cost. measure(bench, sizes) gives {size: cost of one operation, or a list of samples of it} for those of
    SIZES that it could make, in their order; a BenchError fails this row alone."""

    name: str  # the operation, "for" and what it is done to, without the size
    unit: str  # of the cost: "ns", "bytes", or any words, as "system calls"
    sizes: tuple  # the smallest first: numbers, or texts as "16M"
    of: str  # what there is as many of, as "pages of the map"
    measure: typing.Callable
    needs: typing.Callable = lambda size: 0  # bytes of memory while SIZE is measured
    limit: float = FLAT_LIMIT
