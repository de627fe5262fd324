# SPDX-License-Identifier: Apache-2.0
"""The scenario growth: costs for one operation that must not grow with what there is of something.

Windows, pools, maps, open files and mounts are made small, medium and as large as the memory allows. A part of
the product has a module growth_PART.py with a list ROWS (see growth_row.py). Each row is judged by its dearest size,
beside its smallest. What can be counted (calls, walks, acquisitions) is counted; times are of this machine.
"""

import statistics

from . import growth_engine, growth_guests, growth_map, growth_pool, machine
from .machine import BenchError

QUICK_SIZES = 2

# Whose ROWS are measured; a new module is added here.
MODULES = (
    growth_map,
    growth_pool,
    growth_engine,
    growth_guests,
)


def _text(size):
    return f"{size:,}" if isinstance(size, int) else size


def _sizes_of(bench, row):
    """Those that fit this run and this machine."""
    room = machine.meminfo()["MemAvailable"] - (1 << 30)
    sizes = row.sizes[:QUICK_SIZES] if bench.quick else row.sizes
    fitting = [size for size in sizes if row.needs(size) <= room]
    if len(fitting) < len(sizes):
        bench.note(f"growth: not enough memory for {row.name} with more than {_text(fitting[-1])} {row.of}"
                   if fitting else f"growth: not enough memory for {row.name}")
    return fitting


def flatness(costs):
    """How many times the cost at the smallest size the dearest is; COSTS are medians in the order of sizes."""
    first, dearest = costs[0], max(costs)
    if not first:
        return 1.0 if not dearest else float(1 + dearest)
    return dearest / first


def _tell(bench, row, measured):
    extra = {"row": row.name, "of": row.of}
    costs = []
    for size, found in measured.items():
        samples = found if isinstance(found, list) else [found]
        costs.append(statistics.median(samples))
        bench.results.amount("growth", f"{row.name}, {_text(size)} {row.of}", None, row.unit, samples, None,
                             {**extra, "size": size})
    sizes = [_text(size) for size in measured]
    if len(costs) > 1:
        bench.results.amount("growth", f"{row.name}: from {sizes[0]} to {sizes[-1]} {row.of}", None, "ratio",
                             [flatness(costs)], row.limit, extra)


def growth(bench):
    """See the head of this file."""
    for row in (row for module in MODULES for row in module.ROWS):
        bench.progress(f"growth: {row.name}")
        try:
            _tell(bench, row, row.measure(bench, _sizes_of(bench, row)))
        except (BenchError, OSError) as error:
            bench.results.failure("growth", row.name, None, str(error))


SCENARIOS = {"growth": growth}
