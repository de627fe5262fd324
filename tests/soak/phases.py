# SPDX-License-Identifier: Apache-2.0
"""What a soak does in turn: torture, a mix of verified writes, a crash."""

import glob
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import harness
import limits
from harness import MIB, PAGE, ROOT, Failure, check, equal
from standing import Shared

TORTURE = os.path.join(ROOT, "tests", "torture", "run")
TORTURE_SUMS = ("operations", "bytes_read", "bytes_written", "pages_read_beside_changes", "pages_outrun",
                "breaks", "merges", "evictions", "fills_discarded", "hits", "misses", "bypassed")
VERIFY = ("crc32c", "sha256", "sha1", "xxhash", "md5")
# Engine, what it can do: sizes of blocks, and whether it goes with O_DIRECT.
ENGINES = {
    "psync": (("--bs=4k", "--bsrange=512-64k", "--bs=1m", "--bsrange=4k-256k"), False),
    "pvsync2": (("--bs=4k", "--bs=16k", "--bs=256k"), True),
    "libaio": (("--bs=4k", "--bs=16k", "--bs=256k"), True),
    "io_uring": (("--bs=4k", "--bs=8k", "--bs=128k"), True),
    "mmap": (("--bs=4k", "--bs=16k", "--bs=64k"), False),
}


# ---- torture ------------------------------------------------------------------------------------

def torture(soak, seconds):
    """tests/torture/run on mounts of its own. Its figures are added to ours."""
    seed = soak.rng.randrange(1 << 31)
    script = os.path.join(soak.directory, "torture-%d.script" % seed)
    command = [sys.executable, TORTURE, "--preset", soak.arguments.preset, "--build", soak.arguments.build,
               "--transport", soak.arguments.transport, "--seed", str(seed), "--seconds", "%g" % seconds,
               "--script", script, "--json"]
    log = os.path.join(soak.directory, "torture.log")
    status, output = run_torture(soak, command, log, seconds + 1800 * soak.t.patience)
    try:
        result = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise Failure("torture, seed %d: status %d, no result: %s%s" % (
            seed, status, output[-1000:], harness.read_file(log)[-4000:].decode(errors="replace")))
    soak.totals["torture_rounds"] += result["rounds"]
    for name in TORTURE_SUMS:
        soak.totals[name] += result.get(name, 0)
    if result["outcome"] == "ok" and status == 0:
        soak.totals["audits"] += 0 if result.get("notes") else result["rounds"]
        os.unlink(log)
        return
    soak.again = "tests/torture/run --preset %s --seed %s" % (
        soak.arguments.preset, result.get("config", {}).get("seed", seed))
    raise Failure("torture, seed %d: %s: %s" % (seed, result["outcome"], result.get("failure")))


def run_torture(soak, command, log, seconds):
    """(status, output). If it is ended early, its daemons end with it: they are of its process group."""
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file, text=True,
                                   env=dict(os.environ, FOLDFS_TEST_DIR=soak.directory), start_new_session=True)
    try:
        output, _ = limits.communicate(process, seconds)
        return process.returncode, output
    except BaseException:
        for number in (signal.SIGINT, signal.SIGKILL):
            harness.problem_of(lambda: os.killpg(process.pid, number))
            harness.problem_of(lambda: process.wait(30))
        raise


# ---- mixes --------------------------------------------------------------------------------------

def fio_command(soak, jobs):
    """One mix. Half of each file is written, in place of pages that it shares with the bystanders."""
    rng = soak.rng
    engine = rng.choice(sorted(ENGINES))
    blocks, may_direct = ENGINES[engine]
    block = rng.choice(blocks)
    direct = may_direct and rng.random() < 0.5
    size = len(soak.standing.base)
    command = ["fio", "--name=mix", "--numjobs=%d" % jobs, "--filename_format=mix-$jobnum",
               "--directory=" + soak.standing.mount.point, "--size=%d" % size, "--io_size=%d" % (size // 2),
               "--ioengine=" + engine, block, "--direct=%d" % direct, "--fallocate=none",
               "--rw=" + rng.choice(("randwrite", "randrw", "write")),
               "--verify=" + rng.choice(VERIFY), "--verify_fatal=1", "--do_verify=1",
               "--verify_state_save=0", "--randrepeat=1", "--randseed=%d" % (rng.randrange(1 << 30) + 1),
               "--end_fsync=1", "--output-format=json"]
    if engine in ("libaio", "io_uring"):
        command.append("--iodepth=%d" % rng.choice((4, 16)))
    if "range" not in block and rng.random() < 0.5:
        command.append("--verify_backlog=%d" % rng.choice((16, 64)))
    if rng.random() < 0.5:
        command.append("--thread")
    if rng.random() < 0.3:
        command.append("--fsync=32")
    return command


def mix(soak):
    """fio writes and verifies; beside it the bystanders are read and the mount is audited."""
    standing, jobs = soak.standing, soak.rng.randint(2, 3)
    standing.make_clones(["mix-%d" % job for job in range(jobs)])
    command = fio_command(soak, jobs)
    stop, reads = Shared(1), Shared(1)
    reader = soak.t.fork(standing.read_bystanders, soak.rng.random(), stop, reads)
    problems = []
    try:
        result = run_fio(soak, command)
    except Failure as failure:
        problems.append(str(failure))
    finally:
        stop[0] = 1
    problems += harness.problem_of(lambda: soak.t.join([reader]))
    check(not problems, "\n".join(problems))
    for job in result["jobs"]:
        soak.totals["fio_bytes_read"] += job["read"]["io_bytes"]
        soak.totals["fio_bytes_written"] += job["write"]["io_bytes"]
        soak.totals["fio_operations"] += job["read"]["total_ios"] + job["write"]["total_ios"]
    soak.totals["fio_runs"] += 1
    soak.totals["bystander_reads"] += reads[0]
    standing.check_files()
    for job in range(jobs):
        os.unlink(standing.mount.path("mix-%d" % job))
    standing.memory.settle()


def run_fio(soak, command):
    """Watch the mount until fio has ended. Returns what fio reports."""
    work = soak.t.make_dir("fio")
    out, err = os.path.join(work, "out"), os.path.join(work, "err")
    limit = limits.Limit(900 * soak.t.patience)
    with open(out, "w") as stdout, open(err, "w") as stderr:
        fio = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd=work,
                               start_new_session=True)
    try:
        while fio.poll() is None:
            soak.standing.watch()
            if soak.rng.random() < 0.1:
                soak.standing.replace()
            check(not limit.passed(), "fio hangs; threads of foldfs:\n" +
                  harness.thread_states(soak.standing.mount.serving_pid()))
            time.sleep(0.2)
        with open(out) as stdout, open(err) as stderr:
            report, complaints = stdout.read(), stderr.read()
        check(fio.returncode == 0, "status %d: %s%s" % (fio.returncode, complaints[-3000:], report[-500:]))
        return json.loads(report[report.index("{"):])
    except (Failure, ValueError) as failure:
        raise Failure("%s: %s" % (shlex.join(command), failure))
    finally:
        if fio.poll() is None:
            os.killpg(fio.pid, signal.SIGKILL)
            harness.abort_fuse_under(soak.standing.mount.point)
            fio.wait(60)
        for left in glob.glob(os.path.join(work, "*.state")):
            os.unlink(left)


# ---- crashes ------------------------------------------------------------------------------------

WRITERS = 3
BLOCK = 3 * PAGE + 1000
RING = 400  # blocks of a writer's file


def block_of(writer, number):
    return hashlib.blake2b(b"%d %d" % (writer, number), digest_size=50).digest() * (BLOCK // 50)


def write_until_killed(path, writer, acknowledged):
    """Block after block, round the file again and again; what was acknowledged is counted."""
    length = len(block_of(0, 0))
    try:
        fd = os.open(path, os.O_RDWR)
        number = 0
        while True:
            at = number % RING * length
            done = os.pwrite(fd, block_of(writer, number), at)
            if done < length:
                # The daemon went away within this write; else there is no reason for it.
                os.pwrite(fd, block_of(writer, number)[done:], at + done)
                raise Failure("%s: %d bytes of %d were written" % (path, done, length))
            number += 1
            acknowledged[writer] = number
    except OSError:
        return  # the daemon is gone


def check_acknowledged(path, writer, count):
    """The last COUNT blocks are there, but where the one that was under way has been or may have been."""
    length = len(block_of(0, 0))
    with open(path, "rb") as file:
        for number in range(max(0, count - RING + 1), count):
            file.seek(number % RING * length)
            equal(file.read(length), block_of(writer, number), "%s: acknowledged block %d" % (path, number))


def crash(soak):
    """kill -9 while files are written; every acknowledged byte must be in the source, and seen again."""
    standing = soak.standing
    names = ["crash-%d" % writer for writer in range(WRITERS)]
    standing.make_clones(names)
    acknowledged = Shared(WRITERS)
    writers = [soak.t.fork(write_until_killed, standing.mount.path(name), writer, acknowledged)
               for writer, name in enumerate(names)]
    wanted = soak.rng.randrange(1, soak.t.scaled(4000, 400))
    try:
        harness.until(lambda: sum(acknowledged[w] for w in range(WRITERS)) >= wanted,
                      120 * soak.t.patience, "%d writes acknowledged" % wanted, every=0.001)
    finally:
        standing.kill()
        soak.t.join(writers)
    for writer, name in enumerate(names):
        check_acknowledged(os.path.join(standing.source, name), writer, acknowledged[writer])
        soak.totals["acknowledged_writes"] += acknowledged[writer]
    standing.start()
    standing.check_files()
    standing.audit()
    for name in names:
        os.unlink(standing.mount.path(name))
