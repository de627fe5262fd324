# SPDX-License-Identifier: Apache-2.0
"""The machine: its memory, its caches, what it is, and commands that cannot hang the run."""

import atexit
import contextlib
import fcntl
import os
import platform
import resource
import shutil
import subprocess
import time

URING_SWITCH = "/sys/module/fuse/parameters/enable_uring"
URING_NOTE = "/run/foldfs-io_uring"
FUSECTL = "/sys/fs/fuse/connections"


class BenchError(Exception):
    """One scenario cannot go on; the others can."""


def free_pages_of_processors():
    """Bytes of free pages in the processors' own lists (pagesets), from /proc/zoneinfo."""
    with open("/proc/zoneinfo", encoding="ascii") as lines:
        pages = sum(int(line.split()[1]) for line in lines if line.strip().startswith("count:"))
    return pages * os.sysconf("SC_PAGE_SIZE")


def meminfo():
    """Every figure of /proc/meminfo that is in kB, in bytes. To MemFree come the free pages that the kernel
    keeps in lists of each processor: it does not count them, and after much reading they are hundreds of MiB."""
    figures = {}
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            words = line.replace(":", " ").split()
            if len(words) == 3 and words[2] == "kB":
                figures[words[0]] = int(words[1]) * 1024
    figures["MemFree"] += free_pages_of_processors()
    return figures


def compact_memory():
    """Have the kernel move what is free together, where it lets us."""
    with contextlib.suppress(OSError), open("/proc/sys/vm/compact_memory", "w", encoding="ascii") as switch:
        switch.write("1\n")


def raise_file_limit():
    """Some peers keep a descriptor for each file that they were asked of. What this process may have, its children
    may; no server here is held back by less than root's own limit."""
    with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
        most = int(file.read())
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def is_root():
    return os.geteuid() == 0


def drop_caches():
    """Write back what is dirty and drop every cache of the kernel. Root only."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as switch:
        switch.write("3\n")


def drop_names():
    """Have the kernel give back the names and inodes that it keeps and nobody uses; the pages of files stay. Root
    only. Twice: what a FUSE daemon gives up when it is told of the first is dropped by the second."""
    for _ in range(2):
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as switch:
            switch.write("2\n")
        settle()


def drop_files(paths):
    """Drop these files from the page cache of the file system they are on."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def settle(limit_s=6.0, tolerance=1 << 20):
    """Wait until the free memory stands still; return the last view of it and whether it did."""
    deadline = time.monotonic() + limit_s
    views = []
    while time.monotonic() < deadline:
        time.sleep(0.3)
        views.append(meminfo())
        last = [view["MemFree"] for view in views[-4:]]
        if len(last) == 4 and max(last) - min(last) <= tolerance:
            return views[-1], True
    return views[-1], False


def cpu_times():
    with open("/proc/stat", encoding="ascii") as lines:
        return [int(word) for word in lines.readline().split()[1:9]]


def stolen_share(before, after):
    """The part of the CPU time between two cpu_times() that the host gave to others."""
    total = sum(after) - sum(before)
    return (after[7] - before[7]) / total if total else 0.0


@contextlib.contextmanager
def _uring_alone():
    """While no other run borrows the switch or gives it back."""
    guard = os.open(os.path.dirname(URING_SWITCH), os.O_RDONLY)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
    finally:
        os.close(guard)


def _locked_by_nobody_else(switch):
    try:
        fcntl.flock(switch, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _set_uring(value):
    with open(URING_SWITCH, "w", encoding="ascii") as file:
        file.write(value + "\n")


def _give_uring_back(switch):
    """The last run that has it puts the switch back: see scripts/lib.sh."""
    with _uring_alone(), switch:
        fcntl.flock(switch, fcntl.LOCK_UN)
        if _locked_by_nobody_else(switch):
            _set_uring("N")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(URING_NOTE)


def _borrow_uring():
    switch = open(URING_SWITCH, encoding="ascii")  # locked until the end
    if _locked_by_nobody_else(switch) and switch.read().strip() == "Y" and not os.path.exists(URING_NOTE):
        switch.close()
        return
    fcntl.flock(switch, fcntl.LOCK_SH)
    with open(URING_NOTE, "w", encoding="ascii"):
        pass
    _set_uring("Y")
    atexit.register(_give_uring_back, switch)


def enable_uring():
    """Let FUSE use io_uring until the end of this process. None, or why it cannot."""
    try:
        os.stat(URING_SWITCH)
        with _uring_alone():
            _borrow_uring()
        return None
    except FileNotFoundError:
        return "this kernel has no FUSE over io_uring (Linux 6.14 has)"
    except OSError as error:
        return f"{URING_SWITCH} is N and cannot be set: {error.strerror}"


def output_of(*command, limit_s=20):
    """The first line a command prints, or an empty string."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else ""


def describe():
    """What the figures were taken on."""
    model = platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = meminfo()["MemTotal"] / (1 << 30)
    virtual = output_of("systemd-detect-virt")
    where = f", {virtual}" if virtual not in ("", "none") else ""
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB{where}"


def kernel():
    return platform.release()


def run(command, limit_s, on_timeout=None, merge=False):
    """Run a command to its end and return what it prints, with its messages if MERGE. BenchError if it
    fails or takes longer than LIMIT_S; then on_timeout() is called first, to free it from a mount that
    hangs."""
    errors_to = subprocess.STDOUT if merge else subprocess.PIPE
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors_to, text=True,
                          stdin=subprocess.DEVNULL) as process:
        try:
            out, errors = process.communicate(timeout=limit_s)
        except BaseException as error:
            if on_timeout:
                on_timeout()
            process.kill()
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                pass
            if isinstance(error, subprocess.TimeoutExpired):
                raise BenchError(f"no end after {limit_s:.0f} s: {' '.join(command)}") from None
            raise
    if process.returncode:
        said = (errors or out).strip().splitlines()
        raise BenchError(f"{os.path.basename(command[0])}: status {process.returncode}"
                         f"{': ' + said[-1] if said else ''}")
    return out


def disk_of(path):
    """The disk that PATH is on, as "major:minor", or None: cgroups throttle whole disks."""
    device = os.stat(path).st_dev
    found = f"{os.major(device)}:{os.minor(device)}"
    system = f"/sys/dev/block/{found}"
    if not os.path.isdir(system):
        return None
    if os.path.exists(os.path.join(system, "partition")):
        with open(os.path.join(os.path.realpath(system), "..", "dev"), encoding="ascii") as file:
            return file.read().strip()
    return found


def install(packages):
    """Install Debian packages that are missing. None, or why they could not be."""
    if shutil.which("dpkg-query") is None:
        return f"not a Debian: install {', '.join(packages)} by hand"
    library = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "lib.sh")
    done = subprocess.run(["bash", "-c", '. "$0" && install_packages "$@"', library, *packages], text=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=900, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return said[-1] if said else f"could not install {', '.join(packages)}"
    return None
