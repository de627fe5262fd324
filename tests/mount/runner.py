# SPDX-License-Identifier: Apache-2.0
"""Runs the declared tests: one process, one mount namespace and one time limit each.

The runner makes itself the reaper of orphans and works in a mount namespace of its own. After each
test, in time or not, it ends what the test left: FUSE connections are aborted first (a process that
hangs in one cannot be killed before), then every process is killed; the mounts go with the last one.
What a test left behind without having failed is a failure of that test.

The last line counts every test that was chosen: what cannot be run here is skipped, and says why; what
was not run because the runner was ended, or failed itself, has failed.
"""

import argparse
import fnmatch
import importlib
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import harness
import limits
from harness import Failure, Skip, Test

PR_SET_CHILD_SUBREAPER = 36
PR_SET_PDEATHSIG = 1


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tests/mount/run", description="Tests on real mounts (as root).")
    parser.add_argument("--preset", default="release",
                        help="build to test: release, debug, asan, tsan or digest8")
    parser.add_argument("--suite", default="quick", choices=("quick", "full"))
    parser.add_argument("--transport", default="both", choices=("dev", "io_uring", "both"))
    parser.add_argument("--seed", type=int, default=None, help="repeat a run's random choices")
    parser.add_argument("--jobs", type=int, default=2, help="tests at a time")
    parser.add_argument("--repeat", type=int, default=1, help="run each that many times")
    parser.add_argument("--list", action="store_true", help="name the tests, run none")
    parser.add_argument("--keep", action="store_true", help="keep the directories of failed tests")
    parser.add_argument("--build", default=None, help="directory of foldfs and foldctl")
    parser.add_argument("names", nargs="*", metavar="NAME", help="part of a test's name, or a pattern")
    return parser.parse_args()


class Case:
    """One line of the output: a test, one of its variants, one transport."""

    def __init__(self, declared, variant, transport, missing=None):
        self.declared = declared
        self.variant = variant
        self.transport = transport
        self.missing = missing  # why it cannot be run here
        self.name = "%s.%s" % (declared.module, declared.function.__name__)
        if variant is not None:
            self.name += "." + variant
        if declared.transports in ("each", "full"):
            self.name += "[%s]" % transport

    def call(self, t):
        """What the test has to tell of its success, or None."""
        if self.variant is None:
            return self.declared.function(t)
        return self.declared.function(t, self.declared.variants[self.variant])


def collect(arguments, transports, missing):
    """The chosen tests. MISSING: what transports were asked for and cannot be had -> why."""
    cases = []
    for declared in harness.TESTS:
        if declared.suite == "full" and arguments.suite != "full":
            continue
        if declared.presets and arguments.preset not in declared.presets:
            continue
        each = declared.transports == "each" or declared.transports == "full" and arguments.suite == "full"
        for variant in declared.variants or (None,):
            # What runs once takes its turn: a suite exercises every transport with a share of these.
            for transport in transports if each else transports[len(cases) % max(len(transports), 1):][:1]:
                cases.append(Case(declared, variant, transport))
            for transport in missing if each or not transports else ():
                cases.append(Case(declared, variant, transport, missing[transport]))
    if arguments.names:
        cases = [case for case in cases if any(
            name in case.name or fnmatch.fnmatch(case.name, name) for name in arguments.names)]
    return cases * arguments.repeat


class Running:
    """A test at work in its own process."""

    def __init__(self, case, arguments, base, seed):
        self.case = case
        self.directory = tempfile.mkdtemp(prefix=re.sub(r"[^\w.-]+", "-", case.name) + "-", dir=base)
        os.chmod(self.directory, 0o755)
        self.output = os.path.join(self.directory, "output")
        self.result = os.path.join(self.directory, "result")
        self.started = time.monotonic()
        slower = 4 if arguments.preset in harness.SANITIZERS else 1
        self.seconds = case.declared.timeout * slower
        self.limit = limits.Limit(self.seconds)
        sys.stdout.flush()
        ready, tell = os.pipe()
        wait, go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ready)
            os.close(go)
            self._child(arguments, seed, tell, wait)
        self.pidfd = os.pidfd_open(self.pid)
        # Its namespace tells its processes, whoever became their parent. Held open, for a number that
        # nobody holds is given to the next one. It goes on when that is done: one that has ended has none.
        os.close(tell)
        os.close(wait)
        os.read(ready, 1)
        os.close(ready)
        try:
            self.namespace_fd = os.open("/proc/%d/ns/mnt" % self.pid, os.O_RDONLY)
            self.namespace = os.readlink("/proc/self/fd/%d" % self.namespace_fd)
        except OSError:
            # Killed already, by whomever: it has left nothing.
            self.namespace_fd, self.namespace = -1, None
        os.close(go)

    def _child(self, arguments, seed, tell, wait):
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        harness.unshare_mounts()
        os.write(tell, b"x")
        os.close(tell)
        os.read(wait, 1)
        os.close(wait)
        harness.LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        out = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.umask(0o022)
        files = os.path.join(self.directory, "files")
        os.mkdir(files)
        t = Test(self.case.name, files, arguments.preset, arguments.suite,
                 self.case.transport, seed, arguments.build, self.seconds, arguments.programs)
        outcome, text = "passed", ""
        try:
            text = self.case.call(t) or ""
        except Skip as reason:
            outcome, text = "skipped", str(reason)
        except Failure as failure:
            trace = traceback.extract_tb(failure.__traceback__)
            place = next((frame for frame in reversed(trace) if "test_" in frame.filename), trace[-1])
            outcome = "failed"
            text = "%s:%d: %s" % (os.path.basename(place.filename), place.lineno, failure)
        except BaseException:
            outcome, text = "failed", traceback.format_exc()
        try:
            problems = t.finish(outcome == "failed")
        except BaseException:
            problems = ["while cleaning up: " + traceback.format_exc()]
        if problems:
            outcome = "failed"
            text = "\n".join(([text] if text else []) + problems)
        if outcome == "failed":
            for mount in t.mounts:
                text += "\nlog of foldfs (%s, status %s): %s" % (
                    mount.point, mount.process.poll(), mount.log_text()[-12000:])
        with open(self.result, "w") as file:
            json.dump([outcome, text], file)
        os._exit(0)

    def finish(self, late):
        """Collect the verdict, and end whatever is left. Returns (outcome, text)."""
        outcome, text = "failed", ""
        if late:
            text = "no end after %d s\n%s" % (self.seconds, "\n".join(
                "process %d (%s):\n%s" % (pid, name_of(pid), harness.thread_states(pid))
                for pid in processes_in(self.namespace)))
            kill_all_in(self.namespace, self.directory)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        if not late:
            try:
                with open(self.result) as file:
                    outcome, text = json.load(file)
            except (OSError, ValueError):
                text = "the test's process ended with wait status %d" % status
        left = self._left_behind()
        if self.namespace_fd >= 0:
            os.close(self.namespace_fd)
        # Its number may be another's from now on.
        self.namespace_fd, self.namespace = -1, None
        if left and not late:
            outcome, text = "failed", text + "\nprocesses left behind: " + ", ".join(left)
        return outcome, text + (self._printed() if outcome == "failed" else "")

    def _left_behind(self):
        grace = limits.Limit(2)
        while processes_in(self.namespace) and not grace.passed():
            time.sleep(0.02)
        left = ["%d (%s)" % (pid, name_of(pid)) for pid in processes_in(self.namespace)]
        if left:
            kill_all_in(self.namespace, self.directory)
        return left

    def _printed(self):
        try:
            with open(self.output, errors="replace") as file:
                return "\n" + file.read()[-4000:]
        except OSError:
            return ""


def name_of(pid):
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()[:200]
    except OSError:
        return "gone"


def namespace_of(pid):
    try:
        return os.readlink("/proc/%d/ns/mnt" % pid)
    except OSError:
        return None


def processes_in(namespace):
    """Every process of a test: its mount namespace tells, whoever became its parent."""
    return [] if namespace is None else [int(entry) for entry in os.listdir("/proc")
            if entry.isdigit() and namespace_of(int(entry)) == namespace]


def kill_all_in(namespace, directory):
    """End every process of a test. FUSE first: what hangs there could not be killed."""
    processes = processes_in(namespace)
    for pid in processes:
        harness.abort_fuse_under(directory, pid)
    for pid in processes:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def reap_orphans(running):
    """Collect what was left to us, but for the tests' own processes."""
    own = {test.pid for test in running}
    for entry in os.listdir("/proc"):
        try:
            if not entry.isdigit() or int(entry) in own:
                continue
            with open("/proc/%s/stat" % entry) as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            if parent == os.getpid():
                os.waitpid(int(entry), os.WNOHANG)
        except (OSError, ValueError):
            pass


def prepare():
    """Our own namespace, fusectl at hand, orphans come to us."""
    if os.geteuid() != 0:
        sys.exit("run me as root: the tests mount file systems")
    if not os.path.exists("/dev/fuse"):
        sys.exit("there is no /dev/fuse here")
    harness.unshare_mounts()
    if not os.listdir("/sys/fs/fuse/connections"):
        subprocess.run(["mount", "-t", "fusectl", "fusectl", "/sys/fs/fuse/connections"],
                       stderr=subprocess.DEVNULL)
    harness.LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def io_uring_available():
    try:
        with open("/sys/module/fuse/parameters/enable_uring") as file:
            return file.read().strip() in ("Y", "1")
    except OSError:
        return False


def transports_of(arguments, say):
    if arguments.transport == "dev":
        return ["dev"]
    if io_uring_available():
        return ["dev", "io_uring"] if arguments.transport == "both" else ["io_uring"]
    say("FUSE over io_uring is not enabled on this machine")
    return ["dev"] if arguments.transport == "both" else []


def transports_missing(arguments, transports):
    """Which of those asked for cannot be had, and why."""
    asked = ("dev", "io_uring") if arguments.transport == "both" else (arguments.transport,)
    return {name: "FUSE over %s is not enabled on this machine" % name for name in asked if name not in transports}


class Ended(BaseException):
    """The runner is to end: SIGTERM."""


def end_by_signal(number, frame):
    raise Ended("the runner was ended by signal %d" % number)


class Report:
    def __init__(self, cases):
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.failed = []
        self.left = list(cases)  # that have no result yet

    def add_left(self, why):
        """What was chosen and has no result has failed."""
        self.counts["failed"] += len(self.left)
        self.failed += [case.name for case in self.left]
        if self.left:
            print("FAILED  %d tests have no result: %s" % (len(self.left), why.rstrip()), flush=True)

    def add(self, case, outcome, text, seconds):
        self.counts[outcome] += 1
        self.left.remove(case)
        line = "%-8s%s (%.1f s)" % ({"passed": "ok", "failed": "FAILED", "skipped": "skipped"}[outcome],
                                   case.name, seconds)
        if text and outcome != "failed":
            line += ": " + text
        print(line, flush=True)
        if outcome == "failed":
            self.failed.append(case.name)
            print("        " + text.rstrip().replace("\n", "\n        "), flush=True)

    def end(self, seconds, seed):
        if self.failed:
            print("failed: " + " ".join(sorted(set(self.failed))))
            print("the same choices again: --seed %d" % seed)
        print("%.0f s" % seconds)
        summary = "%(passed)d passed, %(failed)d failed" % self.counts
        if self.counts["skipped"]:
            summary += ", %(skipped)d skipped" % self.counts
        print(summary, flush=True)
        return 1 if self.failed or not self.counts["passed"] else 0


def run_all(cases, arguments, base, seed):
    """Run them, and report each; a failure of the runner, or SIGTERM, is one of all that has no result then."""
    report = Report(cases)
    waiting, running = list(cases), []
    signal.signal(signal.SIGTERM, end_by_signal)
    try:
        run_each(waiting, running, report, arguments, base, seed)
    except KeyboardInterrupt:
        for test in running:
            test.finish(True)
        raise
    except BaseException as reason:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        report.add_left(str(reason) if isinstance(reason, Ended) else traceback.format_exc())
        for test in running:
            finish_anyway(test)
    return report


def finish_anyway(test):
    try:
        test.finish(True)
    except Exception:
        traceback.print_exc()


def run_each(waiting, running, report, arguments, base, seed):
    """Take from WAITING, which are in RUNNING until REPORT has their result."""
    while waiting or running:
        while waiting and waiting[0].missing:
            case = waiting.pop(0)
            report.add(case, "skipped", case.missing, 0)
        while waiting and not waiting[0].missing and len(running) < arguments.jobs and may_start(waiting[0], running):
            running.append(Running(waiting.pop(0), arguments, base, seed))
        select.select([test.pidfd for test in running], [], [], 1 if running else 0)
        for test in list(running):
            done = bool(select.select([test.pidfd], [], [], 0)[0])
            late = not done and test.limit.passed()
            if not done and not late:
                continue
            outcome, text = test.finish(late)
            running.remove(test)
            reap_orphans(running)
            report.add(test.case, outcome, text, time.monotonic() - test.started)
            if not (arguments.keep and outcome == "failed"):
                shutil.rmtree(test.directory, ignore_errors=True)


def may_start(case, running):
    if any(test.case.declared.alone for test in running):
        return False
    return not (case.declared.alone and running)


def copy_programs(build, base):
    """foldfs and foldctl, and what sanitizers are to pass over, where plain users can get at them too: build and
    project may lie in a home that is closed to them."""
    directory = os.path.join(base, "programs")
    os.mkdir(directory)
    os.chmod(directory, 0o755)
    for program in ("foldfs", "foldctl"):
        copy = shutil.copy(os.path.join(build, program), directory)
        os.chmod(copy, 0o755)
    for suppressions in harness.SUPPRESSIONS:
        os.chmod(shutil.copy(suppressions, directory), 0o644)
    return directory


def main():
    arguments = parse_arguments()
    arguments.build = os.path.abspath(
        arguments.build or os.path.join(harness.ROOT, "build", arguments.preset))
    for name in sorted(os.listdir(harness.HERE)):
        if re.fullmatch(r"test_\w+\.py", name):
            importlib.import_module(name[:-3])
    transports = transports_of(arguments, lambda text: print("note: " + text))
    cases = collect(arguments, transports, transports_missing(arguments, transports))
    if arguments.list:
        for case in cases:
            print(case.name)
        return 0
    if not cases:
        print("no test of that name")
        print("0 passed, 0 failed")
        return 1
    for program in ("foldfs", "foldctl"):
        if not os.access(os.path.join(arguments.build, program), os.X_OK):
            sys.exit("%s/%s is not built" % (arguments.build, program))
    prepare()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
    print("foldfs of %s, suite %s, seed %d, %d tests" % (arguments.preset, arguments.suite, seed, len(cases)), flush=True)
    base = tempfile.mkdtemp(prefix="foldfs-mount-tests.", dir=os.environ.get("FOLDFS_TEST_DIR", "/var/tmp"))
    os.chmod(base, 0o755)
    arguments.programs = copy_programs(arguments.build, base)
    started = time.monotonic()
    try:
        report = run_all(cases, arguments, base, seed)
    finally:
        if not arguments.keep:
            shutil.rmtree(base, ignore_errors=True)
    return report.end(time.monotonic() - started, seed)
