# SPDX-License-Identifier: Apache-2.0
"""fio writes blocks that carry their own checksum and verifies them, with every way of doing I/O."""

import os
import shutil

from harness import check, equal, read_file, test

ENGINES = {
    "psync": ["--ioengine=psync", "--rw=randwrite", "--bsrange=512-64k"],
    "psync-sequential": ["--ioengine=psync", "--rw=write", "--bs=1m"],
    "psync-mixed": ["--ioengine=psync", "--rw=randrw", "--bs=4k", "--verify_async=1"],
    "psync-unaligned": ["--ioengine=psync", "--rw=randwrite", "--bsrange=1k-48k", "--bs_unaligned"],
    "mmap": ["--ioengine=mmap", "--rw=randwrite", "--bs=4k"],
    "mmap-sequential": ["--ioengine=mmap", "--rw=write", "--bs=16k"],
    "libaio-direct": ["--ioengine=libaio", "--direct=1", "--iodepth=16", "--rw=randwrite", "--bs=4k"],
    "libaio-direct-large": ["--ioengine=libaio", "--direct=1", "--iodepth=4", "--rw=randwrite", "--bs=256k"],
    "io_uring": ["--ioengine=io_uring", "--iodepth=16", "--rw=randwrite", "--bs=8k"],
    "io_uring-direct": ["--ioengine=io_uring", "--direct=1", "--iodepth=16", "--rw=randwrite", "--bs=4k"],
}

BUDGETS = [("window", []), ("direct", ["window=0"]), ("tiny", ["pool=1M", "window=256K"])]


@test(suite="full", timeout=120, transports="each", variants={
    "%s.%s" % (engine, name): (arguments, options)
    for engine, arguments in ENGINES.items() for name, options in BUDGETS
    if name != "tiny" or engine in ("psync", "mmap", "libaio-direct")})
def verify(t, variant):
    """Two jobs write and verify files of their own; then the source's files are verified by fio itself.

    Invariant 1: what fio wrote through the mount is in the source.
    """
    arguments, options = variant
    run_fio(t, arguments, options, t.scaled(12, 4))


@test(timeout=60, transports="full", variants={
    name: arguments for name, arguments in ENGINES.items() if name in ("psync", "mmap", "libaio-direct", "io_uring")})
def verify_quickly(t, arguments):
    """The same with one engine of each kind and less data."""
    run_fio(t, arguments, [], t.scaled(4, 2))


def run_fio(t, arguments, options, size):
    t.need("fio")
    source = t.make_dir("source")
    mount = t.mount(source, options)
    job = ["fio", "--name=job", "--numjobs=2", "--size=%dm" % size, "--fallocate=none", "--verify=crc32c",
           "--verify_fatal=1", "--randrepeat=1", "--randseed=%d" % (t.seed + 1), "--end_fsync=1",
           "--minimal", "--thread", "--verify_state_save=0"] + arguments
    os.makedirs(t.path("fio"), exist_ok=True)
    result = t.run(job + ["--do_verify=1", "--directory=" + mount.point], timeout=100 * t.patience,
                   status=None, cwd=t.path("fio"))
    if "engine" in result.stderr and "not" in result.stderr and result.returncode:
        t.skip("this fio lacks the engine: " + result.stderr.strip().splitlines()[-1])
    check(result.returncode == 0, "fio: status %d: %s%s" % (result.returncode, result.stdout[-500:],
                                                          result.stderr[-2000:]))
    through = {name: read_file(mount.path(name)) for name in sorted(os.listdir(mount.point))}
    mount.unmount()
    equal(sorted(os.listdir(source)), sorted(through), "files in the source")
    for name, content in through.items():
        equal(read_file(os.path.join(source, name)), content, name + ", in the source")
    if "--rw=randrw" in arguments or "--bs_unaligned" in arguments:
        return  # the order of blocks that overlap is known to the run that wrote them only
    shutil.copytree(source, t.path("copy"))
    t.run(job + ["--do_verify=1", "--verify_only", "--directory=" + t.path("copy")],
          timeout=100 * t.patience, cwd=t.path("fio"))
