# SPDX-License-Identifier: Apache-2.0
"""The scenario mixed: what misses do to hits.

fio reads and writes (70 to 30) pages that the pool has, at random, 16 at a time, past the kernel's cache;
first alone, then while others read pages that are nowhere yet. The figure is how much longer the slowest
hundredth of its reads takes. passthrough_hp, whose hits are those of the source's page cache, shows what
the machine itself makes of it. Then the rows of beside.py, on a disk that is slow.
"""

import json
import os
import shutil

from . import beside, data, machine
from .peers import Foldfs, PassthroughHp
from .timed import ROUNDS_BESIDE

MIB = 1 << 20
HIT_BYTES = 64 * MIB
LIMIT = 1.5
POINTS = {"p50": "50.000000", "p90": "90.000000", "p99": "99.000000", "p999": "99.900000"}


class Files:
    """A file for the hits and enough others for misses, in one directory on one file system."""

    def __init__(self, bench):
        self.directory = os.path.join(bench.cache, "bench", "mixed")
        _, unique = data.unique_files(bench, 4, 128 * MIB)
        os.makedirs(self.directory, exist_ok=True)
        self.hit = os.path.join(self.directory, "hits.bin")
        self.miss_names = []
        for path in unique:
            name = os.path.basename(path)
            self.miss_names.append(name)
            linked = os.path.join(self.directory, name)
            if not os.path.exists(linked) or not os.path.samefile(linked, path):
                if os.path.exists(linked):
                    os.unlink(linked)
                os.link(path, linked)
        with open(self.hit, "wb") as file:
            for _ in range(HIT_BYTES // MIB):
                file.write(os.urandom(MIB))


def _job(name, paths, seconds, *options):
    return [f"--name={name}", f"--filename={':'.join(paths)}", "--bs=4k", "--time_based", f"--runtime={seconds}",
            "--randrepeat=1", "--group_reporting=1", "--new_group=1", *options]


def _fio(bench, subject, files, seconds, with_misses):
    """Latencies of the reads of the hits in microseconds, and how many there were of each kind a second."""
    hits = [os.path.join(subject.path, os.path.basename(files.hit))]
    command = ["fio", "--output-format=json", "--allow_file_create=0", f"--size={HIT_BYTES}",
               *_job("hits", hits, seconds, "--rw=randrw", "--rwmixread=70", "--ioengine=libaio", "--direct=1",
                     "--iodepth=16")]
    if with_misses:
        paths = [os.path.join(subject.path, name) for name in files.miss_names]
        command += _job("misses", paths, seconds, "--rw=randread", "--ioengine=psync", "--direct=0", "--numjobs=2",
                        f"--size={len(paths) * 128 * MIB}")
    out = machine.run(bench.in_group(command), 60 + 2 * seconds, subject.abort)
    jobs = {job["jobname"]: job for job in json.loads(out[out.index("{"):])["jobs"]}
    reads = jobs["hits"]["read"]
    latency = {name: reads["clat_ns"]["percentile"][point] / 1000 for name, point in POINTS.items()}
    latency["max"] = reads["clat_ns"]["max"] / 1000
    return {"latency": latency, "hits_per_s": reads["iops"],
            "misses_per_s": jobs["misses"]["read"]["iops"] if with_misses else 0}


def _round(bench, subject, files, seconds):
    """(without misses, with misses), each from a server that has just read the hits and nothing else."""
    runs = []
    for with_misses in (False, True):
        machine.drop_caches()
        with bench.started([subject]):
            path = os.path.join(subject.path, os.path.basename(files.hit))
            machine.run([bench.tool("load"), "--block", str(MIB), path], bench.load_limit_s, subject.abort)
            runs.append(_fio(bench, subject, files, seconds, with_misses))
    return runs


def _middle(latencies):
    return {name: sorted(one[name] for one in latencies)[len(latencies) // 2] for name in latencies[0]}


def _judge(bench, subject, rounds):
    """One amount for each point of the distribution; only p99 of foldfs has a limit."""
    without, with_misses = zip(*rounds)
    extra = {"latency_us": _middle([run["latency"] for run in with_misses]),
             "alone_latency_us": _middle([run["latency"] for run in without]),
             "hits_per_s": [run["hits_per_s"] for run in with_misses],
             "misses_per_s": [run["misses_per_s"] for run in with_misses]}
    for point in ("p50", "p99", "p999"):
        shares = [b["latency"][point] / a["latency"][point] for a, b in rounds]
        case = f"{point} of hits while misses run ÷ without"
        if subject.name != "foldfs":
            bench.results.reference("mixed", case, subject.name, subject.transport, "ratio", shares, extra)
        else:
            limit = LIMIT if point == "p99" and _may_defer(bench, subject.transport) else None
            bench.results.amount("mixed", case, subject.transport, "ratio", shares, limit, extra)


def _may_defer(bench, transport):
    """Whether a miss may be answered by another thread than the one that took it."""
    version = bench.results.about["versions"]["libfuse"]
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    return transport == "dev" or numbers >= [3, 19]


def mixed(bench):
    """See the head of this file."""
    if not (machine.is_root() and shutil.which("fio")):
        why = "root" if not machine.is_root() else machine.install(["fio"])
        if why:
            bench.note(f"mixed: needs fio and root: {why}")
            return
    files, seconds = Files(bench), 1 if bench.quick else 3
    rounds = 2 if bench.quick else bench.rounds
    for transport in bench.transports:
        subjects = [Foldfs(bench, files.directory, transport, pool="1G", window="64M")]
        if bench.wants("passthrough_hp"):
            subjects.append(PassthroughHp(bench, files.directory, transport, "direct"))
        taken = {subject.name: [] for subject in subjects}
        for number in range(rounds):
            for subject in subjects if number < ROUNDS_BESIDE else subjects[:1]:
                bench.progress(f"mixed: {subject.name} {transport}, round {number + 1}")
                taken[subject.name].append(_round(bench, subject, files, seconds))
        for subject in subjects:
            _judge(bench, subject, taken[subject.name])
        beside.rows(bench, transport)


SCENARIOS = {"mixed": mixed}
