# SPDX-License-Identifier: Apache-2.0
"""Rows of the scenario growth: requests for names, and the threads that serve them."""

import json
import os
import shutil
import sys

from . import machine
from .growth_row import Row
from .peers import Foldfs

OPS = 1000  # that are timed
SAMPLES = 3

# DIRECTORY WHAT: makes OPS names that are new, or removes them; prints microseconds for each.
CLIENT = f"""
import os, sys, time
directory = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
began = time.perf_counter()
for number in range({OPS}):
    if sys.argv[2] == "create":
        os.close(os.open("new%06d" % number, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=directory))
    else:
        os.unlink("new%06d" % number, dir_fd=directory)
print((time.perf_counter() - began) * 1e6 / {OPS})
"""


def _fill(directory, first, last):
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(first, last):
            os.close(os.open(f"f{number:08d}", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd))
    finally:
        os.close(fd)


def _each_size(bench, sizes, measure):
    """{size: measure(a served directory with so many names)}; it grows from one size to the next."""
    directory, found, before = os.path.join(bench.cache, "bench", "growth-names"), {}, 0
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    try:
        for size in sizes:
            _fill(directory, before, size)
            before = size
            subject = Foldfs(bench, directory, "dev", pool="64M")
            with bench.started([subject]):
                found[size] = measure(bench, subject)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return found


def _run(bench, subject, what):
    return float(machine.run([sys.executable, "-c", CLIENT, subject.path, what], bench.load_limit_s, subject.abort))


def _time_of(what):
    def measure(bench, subject):
        samples = []
        for _ in range(SAMPLES):
            times = {each: _run(bench, subject, each) for each in ("create", "unlink")}
            samples.append(times[what])
        return samples
    return lambda bench, sizes: _each_size(bench, sizes, measure)


# ---- what is open or waits ----

# DIRECTORY COUNT OPS: so many descriptors are open; microseconds for each open and close of another file.
HOLDER = """
import os, resource, sys, time
directory, count, ops = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100,) * 2)
held = [os.open(directory + "/held%d" % (number % 1000), os.O_RDONLY) for number in range(count)]
began = time.perf_counter()
for _ in range(ops):
    os.close(os.open(directory + "/other", os.O_RDONLY))
print((time.perf_counter() - began) * 1e6 / ops)
"""


def _open_beside(bench, sizes):
    directory, found = os.path.join(bench.cache, "bench", "growth-open"), {}
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    try:
        for name in ["other", *(f"held{number}" for number in range(1000))]:
            with open(os.path.join(directory, name), "wb") as file:
                file.write(name.encode())
        for size in sizes:
            subject = Foldfs(bench, directory, "dev", pool="64M")
            with bench.started([subject]):
                command = [sys.executable, "-c", HOLDER, subject.path, str(size), str(OPS)]
                found[size] = [json.loads(machine.run(command, bench.load_limit_s, subject.abort))
                               for _ in range(SAMPLES)]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return found


NAMES = (5_000, 50_000, 500_000)

ROWS = [
    Row("create and close", "µs", NAMES, "names in the directory", _time_of("create")),
    Row("unlink", "µs", NAMES, "names in the directory", _time_of("unlink")),
    Row("open and close", "µs", (100, 2_000, 16_000), "open files beside", _open_beside),
]
