# SPDX-License-Identifier: Apache-2.0
"""What the mount tests are written with: mounts, waiting, checking, and the way out of a hung mount.

Each test is a function with the decorator @test. The runner calls it in a process of its own, in a
mount namespace of its own, with a Test object. Whatever happens there, nothing of it is left: see
runner.py. A test fails by an exception; check(), equal() and Test.skip() raise the right ones.
"""

import copy
import ctypes
import errno
import json
import os
import random
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback

from limits import Limit, communicate
from processes import daemons_of, has_ended, threads_of

PAGE = 4096
MIB = 1 << 20
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CACHE = os.environ.get("FOLDFS_CACHE", "/var/cache/foldfs")
LIBC = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE = 0x4000, 1 << 18


class Failure(Exception):
    """The code under test did not do what it must."""


class Skip(Exception):
    """This machine cannot run the test; the message says why."""


# ---- declaring tests ----------------------------------------------------------------------------

TESTS = []


class Declared:
    def __init__(self, function, suite, timeout, transports, variants, presets, alone):
        self.function = function
        self.module = function.__module__.removeprefix("test_")
        self.suite = suite
        self.timeout = timeout
        self.transports = transports
        self.variants = variants
        self.presets = presets
        self.alone = alone


def test(suite="quick", timeout=30, transports="one", variants=None, presets=None, alone=False):
    """Declare a test.

    suite: "quick" tests belong to both suites, "full" ones to the full suite only.
    timeout: seconds in a release build, enforced from outside (sanitizer builds get more).
    transports: "each": once for every transport asked for; "full": that in the full suite, in the quick
    one by the first of them; "one": once, by the first of them; "none": the test chooses.
    variants: name -> value, one test for each, the value given as second argument.
    presets: the builds it has a meaning in; None: all.
    alone: no other test runs beside it.
    """
    def declare(function):
        TESTS.append(Declared(function, suite, timeout, transports, variants, presets, alone))
        return function
    return declare


# ---- checking -----------------------------------------------------------------------------------

def check(condition, message):
    if not condition:
        raise Failure(message)


def brief(value):
    if isinstance(value, (bytes, bytearray)) and len(value) > 48:
        return "%d bytes %r…" % (len(value), bytes(value[:32]))
    return repr(value)


def equal(found, expected, what):
    if found == expected:
        return
    text = "%s: found %s, expected %s" % (what, brief(found), brief(expected))
    if isinstance(found, (bytes, bytearray)) and isinstance(expected, (bytes, bytearray)):
        text += "; " + first_difference(found, expected)
    raise Failure(text)


def first_difference(a, b):
    for at in range(0, min(len(a), len(b)), PAGE):
        if a[at:at + PAGE] != b[at:at + PAGE]:
            for i in range(at, min(at + PAGE, len(a), len(b))):
                if a[i] != b[i]:
                    return "first difference at byte %d (page %d): %r / %r" % (
                        i, i // PAGE, bytes(a[i:i + 16]), bytes(b[i:i + 16]))
    return "equal up to byte %d, then one ends" % min(len(a), len(b))


def errno_of(function, *args, **kwargs):
    """The errno that a call fails with; 0 if it succeeds."""
    try:
        function(*args, **kwargs)
    except OSError as error:
        return error.errno
    return 0


def fails_with(code, what, function, *args, **kwargs):
    found = errno_of(function, *args, **kwargs)
    if found != code:
        raise Failure("%s: errno %s, expected %s" % (
            what, errno.errorcode.get(found, found), errno.errorcode.get(code, code)))


# What a client gets whose daemon has gone. A connection by io_uring may end a little after its daemon has: what is asked
# until then is aborted or cancelled, not refused.
GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ECANCELED)


def fails_as_gone(what, function, *args):
    found = errno_of(function, *args)
    check(found in GONE, "%s: errno %s" % (what, errno.errorcode.get(found, found)))


def until(condition, seconds, what, every=0.02):
    """Wait until condition() is true and return what it returned."""
    limit = Limit(seconds)
    while True:
        value = condition()
        if value:
            return value
        if limit.passed():
            raise Failure("after %g s still not so: %s" % (seconds, what() if callable(what) else what))
        time.sleep(every)


# ---- system calls that Python lacks -------------------------------------------------------------

def libc_call(name, *args):
    result = getattr(LIBC, name)(*args)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, "%s: %s" % (name, os.strerror(code)))
    return result


def unshare_mounts():
    libc_call("unshare", CLONE_NEWNS)
    libc_call("mount", b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)


def fallocate(fd, mode, offset, length):
    libc_call("fallocate64", fd, mode, ctypes.c_long(offset), ctypes.c_long(length))


def renameat2(old, new, flags):
    libc_call("renameat2", -100, os.fsencode(old), -100, os.fsencode(new), ctypes.c_uint(flags))


FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_COLLAPSE = 1, 2, 8
FALLOC_ZERO_RANGE, FALLOC_INSERT = 16, 32
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4


# ---- mounts -------------------------------------------------------------------------------------

def unescape(text):
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), text)


def mounts_under(directory, pid="self"):
    """(mountpoint, device minor, type) of what is mounted at or under a directory, newest last."""
    found = []
    try:
        with open("/proc/%s/mountinfo" % pid) as info:
            for line in info:
                left, _, right = line.partition(" - ")
                fields = left.split()
                point = unescape(fields[4])
                if point == directory or point.startswith(directory + "/"):
                    found.append((point, int(fields[2].split(":")[1]), right.split()[0]))
    except OSError:
        pass
    return found


def abort_fuse_under(directory, pid="self"):
    """End the FUSE connections mounted there: every process that hangs in one goes on with an error."""
    for found in mounts_under(directory, pid):
        if not found[2].startswith("fuse"):
            continue
        try:
            with open("/sys/fs/fuse/connections/%d/abort" % found[1], "w") as file:
                # An open file stays with its connection; the number may have been another mount's by then.
                if found in mounts_under(directory, pid):
                    file.write("1")
        except OSError:
            pass


def socket_of(mount):
    """The control socket of a root's mount, named by its device number."""
    return "/run/foldfs/0:%d.sock" % next(
        minor for point, minor, _ in mounts_under(mount.point) if point == mount.point)


def socket_identity(path):
    """Tells one socket from another of the same name: device numbers are given out again at once."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return None
    return info.st_ino, info.st_ctime_ns


SANITIZERS = ("asan", "tsan")
SUPPRESSIONS = (os.path.join(HERE, "lsan.supp"), os.path.join(ROOT, "tests", "tsan.supp"))
# Within a test's directory: what sanitizers report.
REPORTS = "reports"


def sanitizer_environment(log, suppressions):
    """What is set already stays; reports go to files of the test, which then fails."""
    wanted = {
        "ASAN_OPTIONS": "log_path=%s:exitcode=99:detect_leaks=1" % log,
        "UBSAN_OPTIONS": "log_path=%s:print_stacktrace=1:halt_on_error=1" % log,
        "TSAN_OPTIONS": "log_path=%s:exitcode=99:second_deadlock_stack=1:history_size=4" % log,
    }
    wanted["LSAN_OPTIONS"] = "print_suppressions=0:suppressions=" + suppressions[0]
    wanted["TSAN_OPTIONS"] += ":suppressions=" + suppressions[1]
    return {name: ":".join(filter(None, (os.environ.get(name), options))) for name, options in wanted.items()}


class Mount:
    """A foldfs of the build under test, in the foreground, over a source directory; with a bug of
    tests/torture/planted.c if one is named."""

    def __init__(self, t, source, point, options, user=None, limit_nofile=None, audit=True, bug=None,
                 environment=None):
        self.t = t
        self.source = source
        self.point = point
        self.options = list(options)
        self.log = t.path("log-%d" % len(t.mounts))
        self.expected_log = []
        self.audited = audit  # at its end: see audit()
        self.all_readable = True  # False: the test has its source fail
        command, environment = t.foldfs_command(), dict(t.environment(), **(environment or {}))
        if bug:
            command[-1] = os.path.join(t.build, "tests", "torture", "foldfs-planted")
            environment["FOLDFS_PLANTED"] = bug
        command += [source, point, "-f"]
        for option in self.options:
            command += ["-o", option]
        if limit_nofile:
            # Without the capability root cannot raise its limit again.
            command = ["prlimit", "--nofile=%d" % limit_nofile, "setpriv",
                       "--bounding-set=-sys_resource"] + command
        if user:
            command = ["setpriv", "--reuid=%s" % user, "--regid=nogroup", "--clear-groups"] + command
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=environment, cwd="/")
        t.mounts.append(self)
        until(self._is_up, 20 * t.patience, lambda: "mounted; its log: " + self.log_text())

    def _is_up(self):
        if self.process.poll() is not None:
            raise Failure("foldfs ended with status %s at the start: %s" % (
                self.process.returncode, self.log_text()))
        if not any(point == self.point and kind.startswith("fuse")
                   for point, _, kind in mounts_under(self.point)):
            return False
        # The first answer: it serves. (A plain user's mount is closed to root.)
        return errno_of(os.stat, self.point) in (0, errno.EACCES)

    def log_text(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def expect_log(self, pattern):
        """Log lines that match are part of this test."""
        self.expected_log.append(re.compile(pattern))

    def path(self, *names):
        return os.path.join(self.point, *names)

    def status(self):
        result = self.t.run(self.t.foldctl_command() + ["status", "--json", self.point],
                            timeout=60 * self.t.patience)
        return json.loads(result.stdout)

    def audit(self, idle=True):
        """What the daemon holds is what the source has, and all counts agree; the report. idle: nobody uses
        the mount, so there is nothing under way that could excuse a difference."""
        command = self.t.foldctl_command() + ["audit", "--json", "--timeout=%d" % (60 * self.t.patience)]
        result = self.t.run(command + (["--idle"] if idle else []) + [self.point],
                            timeout=70 * self.t.patience, status=None)
        check(result.returncode == 0, "audit of %s: status %d\n%s%s" % (
            self.point, result.returncode, result.stdout[-6000:], result.stderr))
        report = json.loads(result.stdout)
        if idle:
            self._check_compared(report)
        return report

    def _check_compared(self, report):
        """An audit that compared nothing is none. What it cannot find has lost its name, behind the mount or with
        its last user still under way; what it cannot read must be the test's doing."""
        check(not report["files_unreadable"] or not self.all_readable,
              "the audit could not read %d files" % report["files_unreadable"])
        left_out = sum(report["files_" + why] for why in ("unreadable", "unreachable", "changed_behind"))
        if not left_out and self.status()["frames_used"]:
            check(report["checks"]["slots"]["checked"], "the audit compared nothing, but frames are in use")

    def audit_at_end(self, idle=True):
        """Every mount that a test started is audited before its end, but for those that the test broke on
        purpose, and says so: t.mount(..., audit=False), or mount.audited = False."""
        if self.audited and self.process.poll() is None and self.is_mounted():
            self.audit(idle)

    def is_mounted(self):
        return any(point == self.point for point, _, _ in mounts_under(self.point))

    def unmount(self):
        """umount(8); the daemon must end with status 0 and have logged nothing unexpected. With -f the
        child that asks the mount its first question may still be at it: until then the mount is busy."""
        self.audit_at_end()

        def unmounted():
            done = subprocess.run(["umount", self.point], timeout=30 * self.t.patience, check=False,
                                  stderr=subprocess.PIPE, text=True)
            check(done.returncode == 0 or "busy" in done.stderr, "umount: " + done.stderr)
            return done.returncode == 0

        until(unmounted, 10 * self.t.patience, "unmounted " + self.point)
        self.ended(0)

    def stop(self, number=signal.SIGTERM):
        """End it by a signal; the same must hold, and the mount must be gone."""
        self.audit_at_end(idle=False)
        self.process.send_signal(number)
        self.ended(0)
        check(not self.is_mounted(), "still mounted after signal %d" % number)

    def ended(self, status):
        until(lambda: self.process.poll() is not None, 30 * self.t.patience,
              lambda: "foldfs has ended; its threads:\n" + thread_states(self.process.pid))
        equal(self.process.returncode, status, "exit status of foldfs (log: %s)" % self.log_text())
        self.check_log()

    def check_log(self):
        # Its start may still be asking when it is killed.
        expected = list(self.expected_log)
        if (self.process.returncode or 0) < 0:
            expected += map(re.compile, ("does not answer", "was killed: the mount ends", "the connection was aborted",
                                         "reading device: Software caused connection abort"))
        # Many tests mount a source twice, or again while its last daemon still ends. test_locks.py sees to when it
        # is said.
        expected.append(re.compile("another foldfs mount serves"))
        lines = [line for line in self.log_text().splitlines() if line.strip() and not any(
            pattern.search(line) for pattern in expected)]
        check(not lines, "unexpected in the log of foldfs:\n" + "\n".join(lines[:40]))

    def kill(self):
        """kill -9 and a lazy unmount: what a crash leaves behind, and what the user does then."""
        self._end()
        self.t.run(["umount", "-l", self.point], timeout=20)

    def _end(self):
        serving = self.serving_pid()
        self.process.kill()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            raise Failure("foldfs does not die; its threads:\n" + thread_states(self.process.pid))
        # If it was the keeper, the process that serves ends by itself.
        until(lambda: has_ended(serving), 20, lambda: "all of foldfs ends; its threads:\n" + thread_states(serving))

    def serving_pid(self):
        """The process that serves: a child of the keeper, if there is one (survive=on)."""
        found = [(threads_of(pid), pid) for pid in daemons_of(self.process.pid)]
        threads, pid = max(found, default=(0, 0))
        # The process that asks the mount its first question has one thread.
        return pid if threads > 1 else self.process.pid

    def discard(self):
        """Get rid of it whatever state it is in; for the end of a test that failed."""
        abort_fuse_under(self.point)
        for _ in mounts_under(self.point):
            subprocess.run(["umount", "-l", self.point], timeout=20, stderr=subprocess.DEVNULL)
        if self.process.poll() is None:
            self._end()

    def until_asked(self):
        """Its own first question is answered, so what it does from here on it does for others."""
        until(lambda: len(daemons_of(self.process.pid)) == (self.serving_pid() != self.process.pid), 10 * self.t.patience,
              "its first question is answered")

    def daemon_memory(self):
        """Resident bytes of the daemon that are its own: no file's."""
        pid = self.serving_pid()
        with open("/proc/%d/status" % pid) as status:
            own = [int(line.split()[1]) for line in status if line.startswith(("RssAnon:", "RssShmem:"))]
        check(len(own) == 2, "the kernel says how much memory process %d has" % pid)
        return sum(own) * 1024


def thread_states(pid):
    """Where the threads of a process are, as the kernel says; for reports of what hangs."""
    text = []
    try:
        for thread in sorted(os.listdir("/proc/%d/task" % pid)):
            base = "/proc/%d/task/%s/" % (pid, thread)
            state = [open(base + name, errors="replace").read().strip()
                     for name in ("comm", "wchan")]
            try:
                state.append(open(base + "stack").read().replace("\n", " <")[:900])
            except OSError:
                pass
            text.append("  %s %s" % (thread, " ".join(state)))
    except OSError:
        text.append("  (gone)")
    return "\n".join(text)


# ---- a test's surroundings ----------------------------------------------------------------------

class Test:
    """What a running test is given. t.rng is the only source of randomness, from the printed seed."""

    def __init__(self, identity, directory, preset, suite, transport, seed, build, limit, programs=None):
        self.identity = identity
        self.suite = suite
        self.directory = directory
        self.preset = preset
        self.transport = transport
        self.seed = seed
        self.rng = random.Random(seed)
        self.build = build
        self.programs = programs or build  # foldfs and foldctl, where every user may run them
        self.suppressions = [os.path.join(programs, os.path.basename(path)) if programs else path for path in SUPPRESSIONS]
        self.limit = limit  # seconds, enforced from outside
        self.sanitized = preset in SANITIZERS
        self.patience = 3 if self.sanitized else 1
        self.mounts = []
        self.cleanups = []
        # Programs that run as another user have something to report as well.
        os.mkdir(self.path(REPORTS))
        os.chmod(self.path(REPORTS), 0o1777)

    # -- files and programs

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def make_dir(self, *names):
        path = self.path(*names)
        os.makedirs(path, exist_ok=True)
        return path

    def foldfs_command(self):
        # ThreadSanitizer's shadow needs the classic address layout, which newer kernels randomise away.
        prefix = ["setarch", "-R"] if self.preset == "tsan" else []
        # For a developer: FOLDFS_TEST_WRAPPER="gdb -q -batch -ex run -ex bt --args", or valgrind.
        prefix += shlex.split(os.environ.get("FOLDFS_TEST_WRAPPER", ""))
        return prefix + [os.path.join(self.programs, "foldfs")]

    def foldctl_command(self):
        prefix = ["setarch", "-R"] if self.preset == "tsan" else []
        return prefix + [os.path.join(self.programs, "foldctl")]

    def environment(self):
        environment = dict(os.environ)
        environment.update(sanitizer_environment(self.path(REPORTS, "report"), self.suppressions))
        environment["LC_ALL"] = "C"
        return environment

    def run(self, command, timeout=30, status=0, **kwargs):
        """Run a program that must end with the given status (None: any)."""
        kwargs.setdefault("env", self.environment())
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, **kwargs) as process:
            try:
                output, errors = communicate(process, timeout)
            except BaseException as reason:
                process.kill()
                if isinstance(reason, subprocess.TimeoutExpired):
                    raise Failure("%s: not done after %g s" % (" ".join(command), timeout))
                raise
        result = subprocess.CompletedProcess(command, process.returncode, output, errors)
        if status is not None and result.returncode != status:
            raise Failure("%s: status %d, expected %d: %s%s" % (
                " ".join(command), result.returncode, status, result.stdout[-2000:],
                result.stderr[-2000:]))
        return result

    def skip(self, reason):
        raise Skip(reason)

    def need(self, *programs):
        for program in programs:
            if not shutil.which(program):
                raise Skip("%s is not installed" % program)

    def scaled(self, release, sanitizer):
        """Amount of work: the first in a fast build, the second under a sanitizer."""
        return sanitizer if self.sanitized else release

    # -- mounts

    def mount(self, source, options=(), name="mnt", transport=None, **kwargs):
        point = self.make_dir(name)
        options = list(options)
        transport = transport or self.transport
        if not any(option.startswith("transport=") for option in options):
            options.append("transport=" + transport)
        if "transport=io_uring" in options and not any(option.startswith("locks=") for option in options):
            # Otherwise the log says that there is no other way.
            options.append("locks=mount")
        if not any(option.startswith("pool=") for option in options):
            options.append("pool=128M")
        if not any(option.startswith("state=") for option in options):
            options.append("state=" + self.path("state"))
        if os.geteuid() == 0 and not kwargs.get("user"):
            options.append("allow_other,default_permissions")
        return Mount(self, source, point, options, **kwargs)

    def at_end(self, function):
        self.cleanups.append(function)

    def loop_file_system(self, kind="ext4", size=64 * MIB, name="loop", how=()):
        """A file system of its own in a file, mounted by a loop device: a source that can be filled up. Made with
        options of mkfs in HOW."""
        self.need("mkfs." + kind)
        image, point = self.path(name + ".img"), self.make_dir(name)
        with open(image, "wb") as file:
            file.truncate(size)
        self.run(["mkfs." + kind, "-q", *how, image], timeout=60)
        result = self.run(["mount", "-o", "loop", image, point], status=None)
        if result.returncode:
            self.skip("no loop mount of %s here: %s" % (kind, result.stderr.strip()))
        self.at_end(lambda: self.run(["umount", point], timeout=60))
        return point

    def tmpfs(self, size="64m", name="tmpfs"):
        point = self.make_dir(name)
        self.run(["mount", "-t", "tmpfs", "-o", "size=%s,mode=0755" % size, "tmpfs", point])
        self.at_end(lambda: self.run(["umount", point]))
        return point

    def finish(self, failed):
        """End of the test: everything off; what should have been off already is a failure."""
        problems = []
        for mount in reversed(self.mounts):
            if failed:
                problems += problem_of(mount.discard)
            elif mount.process.poll() is None or mount.is_mounted():
                problems += problem_of(mount.unmount)
                problems += problem_of(mount.discard)
            else:
                problems += problem_of(mount.check_log)
        for cleanup in reversed(self.cleanups):
            problems += problem_of(cleanup)
        for point, _, kind in reversed(mounts_under(self.directory)):
            problems.append("leaked mount of type %s at %s" % (kind, point))
            subprocess.run(["umount", "-l", point], timeout=20, stderr=subprocess.DEVNULL)
        for name in sorted(os.listdir(self.path(REPORTS))):
            with open(self.path(REPORTS, name), errors="replace") as report:
                problems.append("sanitizer report:\n" + report.read()[:6000])
        return problems

    # -- child processes of a test

    def fork(self, function, *args, may_die_of=None):
        """Run function(*args) in a child process; join() waits and fails if it failed."""
        return Child(function, args, may_die_of)

    def join(self, children, seconds=60):
        limit = Limit(seconds * self.patience)
        for child in children:
            child.join(limit)


def finds(t, bug, function, *args):
    """Whether a test fails where each of its mounts has that bug of tests/torture/planted.c."""
    buggy = copy.copy(t)
    buggy.directory = t.make_dir("bug-%d" % len(t.mounts))
    made = []

    def mount(*names, **kwargs):
        made.append(type(t).mount(buggy, *names, **dict(kwargs, bug=bug, audit=False)))
        made[-1].expect_log(".")
        return made[-1]

    buggy.mount = mount
    try:
        function(buggy, *args)
    except Failure:
        return True
    finally:
        for each in made:
            each.discard()
    return False


def problem_of(function):
    try:
        function()
    except (Failure, OSError, subprocess.SubprocessError) as error:
        return [str(error)]
    return []


class Child:
    def __init__(self, function, args, may_die_of):
        self.may_die_of = may_die_of
        sys.stdout.flush()
        sys.stderr.flush()
        self.reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 0
            try:
                function(*args)
            except BaseException as error:  # whatever it is belongs into the parent's report
                status = 1
                text = str(error) if isinstance(error, Failure) else traceback.format_exc()
                os.write(writer, text.encode(errors="replace")[:60000])
            os._exit(status)
        os.close(writer)

    def ended(self):
        """Whether it has; join() is still to be called."""
        return bool(os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))

    def join(self, limit):
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if limit.passed():
                states = thread_states(self.pid)
                os.kill(self.pid, signal.SIGKILL)
                raise Failure("a child process hangs:\n" + states)
            time.sleep(0.01)
        text = os.read(self.reader, 65536).decode(errors="replace")
        os.close(self.reader)
        if self.may_die_of and os.WIFSIGNALED(status) and os.WTERMSIG(status) == self.may_die_of:
            return
        check(status == 0, "child process: " + (text or "wait status %d" % status))


class Gate:
    """Where one process waits until another one lets it go on."""

    def __init__(self):
        self.reader, self.writer = os.pipe()

    def open(self):
        os.write(self.writer, b"x")

    def wait(self, *children):
        """CHILDREN: who may open it. If one of them ends before, that is this process's failure: nobody waits for
        what cannot come, whoever else has the pipe open."""
        while not select.select([self.reader], [], [], 0.02 if children else None)[0]:
            for child in children:
                if child.ended() and not select.select([self.reader], [], [], 0)[0]:
                    child.join(Limit(1))
                    raise Failure("a child process ended before it was to")
        os.read(self.reader, 1)

    def close(self):
        os.close(self.reader)
        os.close(self.writer)


# ---- content ------------------------------------------------------------------------------------

def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def write_file(path, content):
    with open(path, "wb") as file:
        file.write(content)


def sync_source(directory):
    """Have everything written there on the disk, so that dropping it from the cache can work."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        libc_call("syncfs", fd)
    finally:
        os.close(fd)


def pages_of(content):
    for at in range(0, len(content), PAGE):
        page = content[at:at + PAGE]
        yield page if len(page) == PAGE else page + bytes(PAGE - len(page))


ZERO_PAGE = bytes(PAGE)


def make_pages(rng, count, distinct=None):
    """COUNT pages of noise, drawn from DISTINCT different ones (None: all different)."""
    if distinct is None:
        return rng.randbytes(count * PAGE)
    library = [rng.randbytes(PAGE) for _ in range(distinct)]
    return b"".join(rng.choice(library) for _ in range(count))


def make_clone(rng, content, changed):
    """A copy in which CHANGED random pages have other content."""
    clone = bytearray(content)
    for page in rng.sample(range(len(content) // PAGE), changed):
        clone[page * PAGE:(page + 1) * PAGE] = rng.randbytes(PAGE)
    return bytes(clone)


def make_tree(rng, directory, scale=1):
    """Files of every awkward size, with zeroes, holes and pages in common. Returns name -> content."""
    base = make_pages(rng, 512 * scale)
    tree = {
        "empty": b"",
        "one": b"x",
        "page-1": rng.randbytes(PAGE - 1),
        "page": rng.randbytes(PAGE),
        "page+1": rng.randbytes(PAGE + 1),
        "64k-1": rng.randbytes(65535),
        "1m+1": rng.randbytes(MIB + 1),
        "base": base,
        "clone": make_clone(rng, base, 40),
        "clone-tail": make_clone(rng, base, 7)[:-1234],
        "repeats": make_pages(rng, 300 * scale, distinct=17),
        "zeroes": bytes(70 * PAGE + 5),
        "mixed": b"".join(rng.choice((ZERO_PAGE, rng.randbytes(PAGE), base[:PAGE]))
                          for _ in range(400 * scale)) + b"end",
    }
    for name, content in tree.items():
        write_file(os.path.join(directory, name), content)
    sparse = bytearray(3 * MIB + 77)
    with open(os.path.join(directory, "sparse"), "wb") as file:
        file.truncate(len(sparse))
        for at in (0, 5 * PAGE + 9, MIB, 2 * MIB - 3, len(sparse) - 10):
            part = rng.randbytes(10)
            os.pwrite(file.fileno(), part, at)
            sparse[at:at + 10] = part
    tree["sparse"] = bytes(sparse)
    sync_source(directory)
    return tree


def check_tree(directory, tree, what):
    for name, content in tree.items():
        equal(read_file(os.path.join(directory, name)), content, "%s: %s" % (what, name))
