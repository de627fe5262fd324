# SPDX-License-Identifier: Apache-2.0
"""The runner of these tests: whatever happens to a test or to the runner, every test that was chosen is counted."""

import itertools
import os
import re
import subprocess
import sys

from harness import HERE, Failure, Gate, check, equal, read_file, test, write_file

# What a runner of its own has in place of the tests: their bodies, and what is done to it before it runs them.
TESTS = """
import os, signal, sys
sys.path.insert(0, %r)
import harness, runner
runner.importlib.import_module = lambda name: None
del harness.TESTS[:]
test = harness.test

%%s

runner.io_uring_available = lambda: False
sys.argv = ["run", "--build", %r] + sys.argv[1:]
sys.exit(runner.main())
"""

PLAIN = """
@test(transports="each")
def both_ways(t): pass
@test()
def one_way(t): pass
@test()
def fails(t): raise harness.Failure("as it is to")
"""

ENDS_EARLY = PLAIN + """
child = runner.Running._child
def killed(self, *args):
    if "fails" in self.case.name: os.kill(os.getpid(), signal.SIGKILL)
    child(self, *args)
runner.Running._child = killed
"""

RUNNER_FAILS = PLAIN + """
add = runner.Report.add
def broken(self, case, *args):
    if "one_way" in case.name: raise ZeroDivisionError("planted")
    add(self, case, *args)
runner.Report.add = broken
"""

RUNNER_ENDED = PLAIN + """
@test(timeout=600)
def waits(t):
    os.kill(os.getppid(), signal.SIGTERM)
    signal.pause()
"""


def run(t, tests, *arguments):
    """The lines and the status of a runner with these tests."""
    result = subprocess.run([sys.executable, "-c", TESTS % (HERE, t.build) % tests, *arguments], text=True, timeout=60,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            env=dict(os.environ, FOLDFS_TEST_DIR=t.directory))
    return result.stdout.splitlines(), result.returncode


@test(transports="none", timeout=120)
def every_test_is_counted(t):
    """Tests that pass, fail, cannot be run, are killed before their namespace is known, or were to be run by a
    runner that fails, or is ended."""
    lines, status = run(t, PLAIN)
    equal((lines[-1], status), ("2 passed, 1 failed, 1 skipped", 1), "with io_uring off")
    skipped = [line for line in lines if line.startswith("skipped")]
    check(len(skipped) == 1 and "both_ways[io_uring]" in skipped[0] and "not enabled" in skipped[0],
          "the skipped test says why: %s" % skipped)
    check(any(re.search(r", 4 tests$", line) for line in lines), "the number of tests comes first")
    equal(run(t, PLAIN, "--transport", "io_uring")[0][-1], "0 passed, 0 failed, 3 skipped", "io_uring alone")
    equal(run(t, PLAIN, "--transport", "dev")[0][-1], "2 passed, 1 failed", "without io_uring")
    lines, status = run(t, ENDS_EARLY)
    equal((lines[-1], status), ("2 passed, 1 failed, 1 skipped", 1), "one is killed")
    lines, status = run(t, RUNNER_FAILS, "--jobs", "1")
    equal((lines[-1], status), ("1 passed, 2 failed, 1 skipped", 1), "the runner fails")
    check(any("planted" in line for line in lines), "why it failed")
    lines, status = run(t, RUNNER_ENDED, "--jobs", "1")
    equal((lines[-1], status), ("2 passed, 2 failed, 1 skipped", 1), "the runner is ended")


@test(transports="none", timeout=60)
def the_closing_line_counts_a_killed_runner(t):
    """scripts/test counts what a runner had told before it was killed, and the rest of its tests as failed."""
    with open(os.path.join(SCRIPTS, "test")) as script:
        function = re.search(r"^count_mounts\(\) \{.*?^\}$", script.read(), re.M | re.S).group(0)
    start = "foldfs of release, suite quick, seed 1, 40 tests"
    for lines, expected in (
            ([start, "ok      a (0.1 s)", "FAILED  b (0.1 s)", "        ok no result", "skipped c (0.0 s): why"], "1 38 1"),
            ([start, "ok      a (0.1 s)", "3 s", "39 passed, 1 failed"], "39 1 0"),
            ([start, "ok      a (0.1 s)", "3 s", "30 passed, 1 failed, 9 skipped"], "30 1 9"),
            (["no such thing"], "0 0 0")):
        with open(t.path("output"), "w") as file:
            file.write("\n".join(lines) + "\n")
        found = t.run(["bash", "-c", "output=$1\n" + function + "\ncount_mounts", "-", t.path("output")]).stdout
        equal(found.strip(), expected, "counts of %r" % lines)


SCRIPTS = os.path.join(HERE, "..", "..", "scripts")

# scripts/run up to its functions, with the foldfs of this test, and without its last lines, which set things up.
TRIES = """
. "$1/lib.sh"
eval "$(sed -n '/^need_fuse()/,/^}/p; /^try_options()/,/^}/p' "$1/run")"
foldfs=$2
shift 2
try_options "$@"
"""

# A run with the switch of this test. It says when it has it, and gives it back once it is told to.
BORROWS = """
. "$1/lib.sh"
uring_switch=$2/switch uring_note=$3
trap uring_return EXIT
uring_borrow
echo has it
read -r
"""

MEASURES = """
import sys
sys.path.insert(0, sys.argv[1])
from harness import machine
machine.URING_SWITCH, machine.URING_NOTE = sys.argv[2] + "/switch", sys.argv[3]
assert machine.enable_uring() is None
print("has it", flush=True)
sys.stdin.readline()
"""


@test(transports="none", timeout=60)
def io_uring_stays_on_until_the_last_run_has_ended(t):
    """The switch is put back as it was by whichever of several runs ends last, also where one is killed, and where each
    has a /run of its own."""
    def begin(measures, note):
        command = [sys.executable, "-c", MEASURES, os.path.join(HERE, "..", "..", "bench")] if measures else \
            ["bash", "-c", BORROWS, "-", SCRIPTS]
        run = subprocess.Popen(command + [t.directory, t.path(note)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        equal(run.stdout.readline(), "has it\n", "a run")
        return run

    def end(run):
        run.communicate("\n", timeout=20)
        equal(run.returncode, 0, "status of a run")

    def kill(run):
        run.kill()
        run.communicate(timeout=20)

    cases = itertools.product(("N", "Y"), ((False, False), (False, True), (True, False)), (end, kill), ("one", "other"))
    for before, kinds, first, note in cases:
        write_file(t.path("switch"), before.encode() + b"\n")
        one, two = begin(kinds[0], "one"), begin(kinds[1], note)
        equal(read_file(t.path("switch")), b"Y\n", "while there are two")
        first(one)
        equal(read_file(t.path("switch")), b"Y\n", "while there is one")
        end(two)
        equal(read_file(t.path("switch")), before.encode() + b"\n", "after the last one")
        if os.path.exists(t.path("one")):
            os.unlink(t.path("one"))


@test(transports="none", timeout=60)
def io_uring_left_on_by_a_killed_run(t):
    """The next run puts back what the only one, which was killed, had borrowed."""
    def begin():
        run = subprocess.Popen(["bash", "-c", BORROWS, "-", SCRIPTS, t.directory, t.path("note")], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
        equal(run.stdout.readline(), "has it\n", "a run")
        return run

    write_file(t.path("switch"), b"N\n")
    run = begin()
    run.kill()
    run.communicate(timeout=20)
    begin().communicate("\n", timeout=20)
    equal(read_file(t.path("switch")), b"N\n", "after the next one")


@test(transports="none", timeout=60, presets=("release", "debug", "asan"))
def options_are_tried_first(t):
    """scripts/run tries its options on a mount of nothing, of which nothing is left, before it sets anything up."""
    with open(os.path.join(SCRIPTS, "run")) as script:
        text = script.read()
    for function in ("demonstrate", "demonstrate_containers"):
        body = re.search(r"^%s\(\) \{(.*?)^\}$" % function, text, re.M | re.S).group(1)
        check(body.index("try_options") < body.index("install_packages"), "%s tries them first" % function)
    places = t.make_dir("places")
    for options, status, said in ((["-o", "pool=16M,ro"], 0, ""), (["--foo"], 1, "--foo"), (["-o", "pool=x"], 1, "pool=x")):
        result = t.run(["bash", "-c", TRIES, "-", SCRIPTS, t.foldfs_command()[-1]] + options, status=status,
                       env=dict(t.environment(), TMPDIR=places))
        check(said in result.stderr, "%s: %r" % (options, result.stderr))
        equal(os.listdir(places), [], "what is left of it")


@test(transports="none", timeout=20)
def nobody_waits_for_a_process_that_has_ended(t):
    """A child that ends before it opens a gate is the failure of who waits there, at once, with what it failed by."""
    def fails():
        raise Failure("as it is to")

    for function, text in ((fails, "as it is to"), (lambda: None, "before it was to")):
        try:
            Gate().wait(t.fork(function))
        except Failure as failure:
            check(text in str(failure), "why: %s" % failure)
        else:
            raise Failure("the gate was never opened")
    gate = Gate()
    child = t.fork(gate.open)
    gate.wait(child)
    t.join([child])
