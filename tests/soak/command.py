# SPDX-License-Identifier: Apache-2.0
"""The command line of tests/soak/run, and its rounds."""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import harness
import phases
import runner
import standing
import summary
from harness import Failure

# A round: this long for a soak of hours, shorter for a short one.
ROUND_SECONDS = 300
TORTURE_SHARE = 0.5


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tests/soak/run", description=(
        "Torture, verified writes, audits and crashes in turn, for HOURS (as root); docs/reliability.md."))
    parser.add_argument("hours", type=float, metavar="HOURS", help="fractions are allowed")
    parser.add_argument("--preset", default="release", help="build: release, debug, asan, tsan or digest8")
    parser.add_argument("--build", help="directory of foldfs and foldctl")
    parser.add_argument("--transport", default="both", choices=("dev", "io_uring", "both"))
    parser.add_argument("--seed", type=int, help="repeat a soak's random choices")
    parser.add_argument("--output", metavar="FILE", help="default: build/soak/PRESET.json; .md beside it")
    parser.add_argument("--hold", action="store_true",
                        help="after a failure keep the mount up until a key is pressed")
    arguments = parser.parse_args()
    if not 0 < arguments.hours < 10000:
        parser.error("HOURS must be above 0")
    arguments.build = os.path.abspath(
        arguments.build or os.path.join(harness.ROOT, "build", arguments.preset))
    arguments.output = os.path.abspath(
        arguments.output or os.path.join(harness.ROOT, "build", "soak", arguments.preset + ".json"))
    return arguments


class Interrupted(Exception):
    """Somebody ends the soak early."""


def interrupt(_number, _frame):
    raise Interrupted()


class Soak:
    def __init__(self, arguments, directory, transports, seed):
        self.arguments = arguments
        self.directory = directory
        self.seed = seed
        self.rng = random.Random(seed)
        self.totals = dict.fromkeys(summary.FIGURES, 0)
        self.again = "scripts/soak %g --preset %s --transport %s --seed %d" % (
            arguments.hours, arguments.preset, arguments.transport, seed)
        self.phase = "start"
        self.started = time.monotonic()
        self.failure = None
        self.outcome = "clean"
        files = os.path.join(directory, "files")
        os.mkdir(files)
        self.t = harness.Test("soak", files, arguments.preset, "full", transports[0], seed, arguments.build,
                              3600 * arguments.hours)
        self.standing = standing.Standing(self.t, self.rng, transports, self.totals)

    def left(self):
        return self.started + 3600 * self.arguments.hours - time.monotonic()

    def enter(self, phase):
        self.phase = phase
        print("%7.0f s  round %d: %s" % (time.monotonic() - self.started, self.totals["rounds"] + 1, phase),
              flush=True)

    def round(self):
        seconds = min(ROUND_SECONDS, max(20, self.arguments.hours * 3600 / 6))
        self.enter("torture")
        phases.torture(self, max(1, min(seconds, self.left()) * TORTURE_SHARE))
        end = time.monotonic() + min(seconds, self.left()) * (1 - TORTURE_SHARE)
        while True:
            self.enter("mix")
            phases.mix(self)
            if time.monotonic() > end:
                break
        self.enter("crash")
        phases.crash(self)
        self.totals["rounds"] += 1

    def run(self):
        """Rounds until the time is over. False: a failure, or interrupted."""
        try:
            self.standing.start()
            while not self.totals["rounds"] or self.left() > 0:
                self.round()
            self.enter("end")
            self.standing.stop()
        except Interrupted:
            self.outcome = "interrupted"
        except (Failure, OSError, subprocess.SubprocessError) as failure:
            self.failed(str(failure))
        except Exception:
            self.failed(traceback.format_exc())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.clean_up()
        return self.outcome == "clean"

    def failed(self, text):
        self.outcome = "failed"
        self.failure = {"round": self.totals["rounds"] + 1, "phase": self.phase, "text": text[:20000],
                        "again": self.again}
        self.save_state()
        if self.arguments.hold and sys.stdin.isatty() and self.standing.mount:
            print(text + "\nThe mount is up: nsenter --mount --target %d. Press Enter to end it." % os.getpid(),
                  flush=True)
            sys.stdin.readline()

    def save_state(self):
        """What tells of the failure goes beside the files, while the daemon is still there."""
        mount = self.standing.mount
        if not mount:
            return
        with open(os.path.join(self.directory, "threads"), "w") as file:
            file.write(harness.thread_states(mount.serving_pid()) + "\n")
        for name in ("status", "audit"):
            done = subprocess.run(["timeout", "-s", "KILL", "60"] + self.t.foldctl_command() +
                                  [name, "--json", mount.point], capture_output=True, check=False)
            harness.write_file(os.path.join(self.directory, name + ".json"), done.stdout + done.stderr)

    def clean_up(self):
        """Everything off. What only shows now is a failure too."""
        problems = self.t.finish(self.outcome != "clean")
        if problems and self.outcome == "clean":
            self.phase = "end"
            self.failed("\n".join(problems))

    def document(self):
        return {
            "format": 1, "outcome": self.outcome, "failure": self.failure,
            "about": summary.about(self.t.foldctl_command()),
            "preset": self.arguments.preset, "transport": self.arguments.transport, "seed": self.seed,
            "hours": self.arguments.hours, "seconds": round(time.monotonic() - self.started),
            "figures": self.totals,
            "lives": [life.result() for life in self.standing.lives],
        }


def write_summary(document, path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
    with open(os.path.splitext(path)[0] + ".md", "w", encoding="utf-8") as file:
        file.write(summary.markdown(document))


def main():
    arguments = parse_arguments()
    for program in ("foldfs", "foldctl", "tests/torture/foldfs-torture"):
        if not os.access(os.path.join(arguments.build, program), os.X_OK):
            sys.exit("%s/%s is not built" % (arguments.build, program))
    if not shutil.which("fio"):
        sys.exit("fio is not installed")
    # A small quarantine: what the daemon takes is watched.
    os.environ["ASAN_OPTIONS"] = ":".join(filter(None, (
        os.environ.get("ASAN_OPTIONS"), "quarantine_size_mb=16")))
    runner.prepare()
    transports = runner.transports_of(arguments, lambda text: print("note: " + text))
    if not transports:
        sys.exit("that transport is not to be had here")
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 31)
    print("foldfs of %s, %g hours, seed %d" % (arguments.preset, arguments.hours, seed), flush=True)
    directory = tempfile.mkdtemp(prefix="foldfs-soak.", dir=os.environ.get("FOLDFS_TEST_DIR", "/var/tmp"))
    os.chmod(directory, 0o755)
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    soak = Soak(arguments, directory, transports, seed)
    clean = soak.run()
    document = soak.document()
    write_summary(document, arguments.output)
    print(summary.markdown(document))
    print("summary: " + arguments.output)
    if soak.outcome == "failed":
        print("kept: " + directory)
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if clean else 1
