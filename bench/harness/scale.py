# SPDX-License-Identifier: Apache-2.0
"""The scenario scale: what a frame costs in the index and a page in a map, at 10^6, 10^7 and 10^8 of them.

bench/scale.c fills the product's own index and map. Bytes are counted, look-ups are timed, and their
instructions are counted by the processor where it does that for this machine, else by callgrind, which is too
slow for the largest size. Whether look-ups stay as cheap is judged by instructions: the time also shows how
far away the machine's memory is.
"""

import json
import re
import shutil

from . import machine

SIZES = (10**6, 10**7, 10**8)
QUICK_SIZES = (10**5, 10**6)
CALLGRIND_SIZES = (10**5, 10**6, 10**7)
LOOK_UPS = 2_000_000
CALLGRIND_LOOK_UPS = 20_000
FRAME_BYTES_LIMIT = 80
MAP_BYTES_LIMIT = 8
FLAT_LIMIT = 1.25

WHAT = {
    "index": ("frames", "metadata and index for each of {} frames", FRAME_BYTES_LIMIT),
    "stream": ("pages", "map for each of {} pages of a stream", MAP_BYTES_LIMIT),
    "scattered": ("pages", "map for each of {} pages that share frames at random", MAP_BYTES_LIMIT),
}
# A frame's bytes in memory while it runs, with room.
NEEDS = {"index": 100, "stream": 2, "scattered": 12}


def _power(count):
    return f"10^{len(str(count)) - 1}"


def _run(bench, what, count):
    bench.progress(f"scale: {what}, {_power(count)}")
    return json.loads(machine.run([bench.tool("scale"), what, str(count), str(LOOK_UPS)], 900))


def _callgrind(bench, what, count):
    """Instructions of one look-up, or None where callgrind cannot say."""
    bench.progress(f"scale: {what}, {_power(count)}, callgrind")
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={bench.work}/callgrind.%p",
               bench.tool("scale"), what, str(count), str(CALLGRIND_LOOK_UPS)]
    try:
        found = re.search(r"Collected\s*:\s*(\d+)", machine.run([*command], 900, merge=True))
    except machine.BenchError as error:
        bench.note(f"scale: {error}")
        return None
    return int(found.group(1)) / CALLGRIND_LOOK_UPS if found and int(found.group(1)) else None


def _bytes(bench, what, taken):
    _, case, limit = WHAT[what]
    for count, figures in taken.items():
        bench.results.amount("scale", case.format(_power(count)), None, "bytes", [figures["bytes_each"]], limit,
                             {"count": count, "what": what})
        bench.results.amount("scale", f"one look-up among {_power(count)} {WHAT[what][0]} ({what})", None, "ns",
                             [figures["look_up_ns"]], None,
                             {"count": count, "what": what, "build_ns_each": figures["build_ns_each"]})


def _instructions(bench, what, taken):
    """By size; empty where nothing counts them."""
    counted = {count: figures["look_up_instructions"] for count, figures in taken.items()
               if figures["look_up_instructions"] is not None}
    if counted:
        return counted, "the processor"
    if not shutil.which("valgrind") and machine.install(["valgrind"]):
        bench.note("scale: no instructions: this machine counts none, and valgrind is not to be had")
        return {}, ""
    sizes = CALLGRIND_SIZES[:2] if bench.quick else CALLGRIND_SIZES
    counted = {count: _callgrind(bench, what, count) for count in sizes}
    return {count: value for count, value in counted.items() if value}, "callgrind"


def scale(bench):
    """See the head of this file."""
    for what in WHAT:
        taken = {}
        for count in QUICK_SIZES if bench.quick else SIZES:
            if machine.meminfo()["MemAvailable"] < count * NEEDS[what] + (1 << 30):
                bench.note(f"scale: not enough memory for {_power(count)} ({what})")
                continue
            taken[count] = _run(bench, what, count)
        _bytes(bench, what, taken)
        counted, by = _instructions(bench, what, taken)
        for count, value in counted.items():
            bench.results.amount("scale", f"instructions of one look-up among {_power(count)} ({what})", None,
                                 "instructions", [value], None, {"count": count, "what": what, "counted_by": by})
        if len(counted) > 1:
            low, high = min(counted), max(counted)
            bench.results.amount("scale", f"instructions of a look-up ({what}), {_power(high)} ÷ {_power(low)}", None,
                                 "ratio", [counted[high] / counted[low]], FLAT_LIMIT, {"counted_by": by})


SCENARIOS = {"scale": scale}
