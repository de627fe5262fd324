# SPDX-License-Identifier: Apache-2.0
"""One round of torture: a fresh source, a fresh mount, the program, and everything that is checked after it.

A round is what its configuration says, a dictionary that is printed with a failure and stands at the head
of a script. Whatever happens in a round, nothing of it is left: the mount is aborted before anything is
killed that may hang in it.
"""

import errno
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import tempfile

import harness
from harness import Failure

HEADER = "# foldfs torture script: tests/torture/run --replay FILE\n#config "
OUTCOMES = {1: "model", 2: "trouble", 3: "hang"}
# Of rounds: pages, or files that are equal as a whole, and how these are mounted. README.md says more.
KINDS = {"pages": [], "overlay": ["coherence=overlay"], "ro": ["ro"]}
PHASES = 2  # of a round of whole files


def random_config(seed, transports, operations=None, overrides=None):
    """What a round is like. Tiny budgets, so that eviction and trimming never stop."""
    rng = random.Random(seed)
    processes, threads = rng.choice(((1, 1), (1, 3), (2, 2), (2, 3), (3, 1)))
    config = {
        "seed": seed,
        "transport": transports[seed % len(transports)],
        "options": {
            "pool": rng.choice(("1M", "1M", "2M", "4M")),
            "window": rng.choice(("256K", "256K", "1M", "0")),
            "maps": rng.choice(("64K", "1M")),
            "passthrough_max": rng.choice(("0", "0", "0", "128M")),
        },
        # Some rounds serve some of the files by passthrough in any case, or under one of their names, or have
        # the source watched.
        "words": rng.choice(([], [], ["passthrough=f1*"], ["passthrough=f[13579]"], ["watch"])),
        "files": rng.choice((3, 6, 6, 24)),
        "processes": processes,
        "threads": threads,
        "behind": rng.random() < 0.5,
        # What the files have in common is known before anybody reads them.
        "scan": rng.random() < 0.5,
        "kind": rng.choice(("pages", "pages", "pages", "pages", "pages", "overlay", "ro")),
    }
    config["kind"] = (overrides or {}).get("kind", config["kind"])
    if config["kind"] != "pages":
        config["files"] = rng.choice((12, 24, 48))
        # Whether the kernel believes for a while what a name meant.
        config["believe"] = rng.random() < 0.5
    for name, value in (overrides or {}).items():
        if name == "options":
            config["options"].update(value)
        else:
            config[name] = value
    if config["kind"] == "overlay":
        # Without these no file is shared.
        config["options"]["passthrough_max"] = "128M"
        if config["options"]["window"] == "0":
            config["options"]["window"] = "256K"
    config["operations"] = max(1, (operations or 6000) // workers_of(config))
    return config


def workers_of(config):
    return config["processes"] * config["threads"]


class Result:
    """What came of a round. outcome: "ok", or how the failure was found."""

    def __init__(self, config):
        self.config = config
        self.outcome = "ok"
        self.text = ""
        self.figures = {}
        self.status = {}
        self.script = []

    def failed(self, outcome, text):
        """The first one counts."""
        if self.outcome == "ok":
            self.outcome, self.text = outcome, text

    @property
    def operations(self):
        return self.figures.get("operations", 0)


class Surroundings(harness.Test):
    """A mount test's surroundings in a directory of the round's own; the daemon may be another one."""

    def __init__(self, place, config, directory):
        super().__init__("torture", directory, place.preset, "full", config["transport"], config["seed"],
                         place.build, 3600)
        self.daemon = place.daemon
        self.bug = place.bug

    def foldfs_command(self):
        command = super().foldfs_command()
        if self.daemon:
            command[-1] = self.daemon
        return command

    def environment(self):
        environment = super().environment()
        environment.pop("FOLDFS_PLANTED", None)
        if self.bug:
            environment["FOLDFS_PLANTED"] = self.bug
        return environment


class Place:
    """Where rounds take place: which build, under which directory."""

    leak_seconds = 10  # for what is in use to come to nought

    def __init__(self, preset, build, base, daemon=None, bug=None):
        self.preset = preset
        self.build = build
        self.base = base
        self.daemon = daemon
        self.bug = bug

    @property
    def program(self):
        return os.path.join(self.build, "tests", "torture", "foldfs-torture")

    @property
    def whole_program(self):
        return os.path.join(self.build, "tests", "torture", "foldfs-whole")


def play(place, config, script=None, serial=False, seconds=0):
    """Play a round, or a script's lines instead of its random operations."""
    directory = tempfile.mkdtemp(prefix="torture-", dir=place.base)
    os.chmod(directory, 0o755)
    t = Surroundings(place, config, directory)
    result = Result(config)
    try:
        one_round(t, place, result, script, serial, seconds)
    except Failure as failure:
        result.failed("trouble", str(failure))
    except BaseException:
        result.failed("trouble", "interrupted")
        raise
    finally:
        problems = [("sanitizer" if "sanitizer report" in problem else "log", problem)
                    for problem in t.finish(result.outcome != "ok")]
        # A sanitizer's report is why the daemon's status is not 0.
        for how, problem in sorted(problems, key=lambda problem: problem[0] != "sanitizer"):
            result.failed(how, problem)
        shutil.rmtree(directory, ignore_errors=True)
    return result


def one_round(t, place, result, script, serial, seconds):
    config = result.config
    source = t.make_dir("source")
    if script is not None:
        harness.write_file(t.path("script"), "".join(script).encode())
    try:
        mount = t.mount(source, mount_options(config))
        if config["behind"]:
            mount.expect_log("opened behind the mount")
    except Failure as failure:
        result.failed("trouble", str(failure))
        return
    if config["kind"] == "pages":
        command = program_command(t, place, mount, config, script is not None, serial, seconds)
        run_program(t, mount, result, command, seconds)
    else:
        play_whole(t, place, mount, result, seconds)
    if mount.process.poll() is not None:
        result.outcome = "ok"  # whatever the program saw of it, it is this
        result.failed("crash", "foldfs ended with status %d; its log: %s" % (
            mount.process.returncode, mount.log_text()[-3000:]))
    if result.outcome == "ok":
        result.status = mount.status()
        audit(t, mount, result)
    if result.outcome == "ok" and config["kind"] != "ro":
        check_leaks(t, place, mount, source, result)


def mount_options(config):
    options = ["%s=%s" % item for item in sorted(config["options"].items())] + config["words"]
    if config["kind"] == "ro" and not config["believe"]:
        options += ["entry_timeout=0", "attr_timeout=0"]
    return options + KINDS[config["kind"]]


def may_pass_through(config):
    """Then O_DIRECT may be the source's own, and demand alignment."""
    return config["options"]["passthrough_max"] != "0" or asks_for_own(config)


def asks_for_own(config):
    return any(word.startswith("passthrough=") for word in config["words"])


def program_command(t, place, mount, config, replay, serial, seconds):
    command = [place.program, "--mount", mount.point, "--source", mount.source, "--trace", t.path("trace")]
    for name in ("seed", "files", "processes", "threads", "operations"):
        command += ["--" + name, str(config[name])]
    command += ["--patience", str(60 * t.patience)]
    before = []
    if config.get("scan"):
        scan = t.foldctl_command() + ["scan", "--state=" + t.path("state"), mount.source]
        before.append(shlex.join(scan) + " >/dev/null")
    if asks_for_own(config):
        # Without it the round is worth nothing.
        explain = t.foldctl_command() + ["explain", mount.path("f1")]
        before.append(shlex.join(explain) + " | grep -q 'own passthrough'")
    if before:
        command += ["--before", " && ".join(before)]
    if config["behind"]:
        command += ["--behind"]
    if may_pass_through(config):
        command += ["--passthrough"]
    if seconds:
        command += ["--seconds", str(max(1, int(seconds)))]
    if replay:
        command += ["--replay", t.path("script")]
    if serial:
        command += ["--serial"]
    return command


def run_program(t, mount, result, command, seconds):
    """The program tells a hang by itself; if it hangs too, so that it is late, the mount is aborted."""
    # Into a file: workers that hang keep a pipe open.
    with open(t.path("output"), "w") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                   start_new_session=True)
    try:
        status = process.wait(seconds + 600 * t.patience)
    except BaseException as error:
        harness.abort_fuse_under(mount.point)
        end_group(process.pid)
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        status = 3
    with open(t.path("output"), errors="replace") as file:
        output = file.read()
    text = read_output(output, result)
    if status == 3:
        text += "\nthreads of foldfs:\n" + harness.thread_states(mount.serving_pid())
        for worker in members_of(process.pid):
            text += "\nthreads of worker process %d:\n%s" % (worker, harness.thread_states(worker))
        harness.abort_fuse_under(mount.point)
    if status:
        end_group(process.pid)
        result.failed(OUTCOMES.get(status, "trouble"), text or "status %d" % status)
        try:
            with open(t.path("trace")) as trace:
                result.script = trace.readlines()
        except FileNotFoundError:
            pass


def members_of(group):
    """Processes of a process group."""
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.getpgid(int(name)) == group:
                yield int(name)
        except ProcessLookupError:
            pass


def end_group(group):
    """Workers that are left when the program has given up."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def read_output(output, result):
    """Figures into the result; what is no figure is text about a failure."""
    text = []
    for line in output.splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit() and name.replace(".", "").replace("_", "").replace("-", "").isalpha():
            result.figures[name] = result.figures.get(name, 0) + int(value)
        elif name != "outcome":
            text.append(line.removeprefix("failure "))
    return "\n".join(text)


# ---- files that are equal as a whole ------------------------------------------------------------

def play_whole(t, place, mount, result, seconds):
    """In each phase all files are made anew, scanned, and shared before anything else is done with them."""
    config = result.config
    for phase in range(PHASES):
        command = whole_command(t, place, mount, config, phase, seconds / PHASES)
        try:
            t.run(command + ["--make"], timeout=120 * t.patience)
            scan_all(t, mount)
            share_all(t, mount, config["files"])
        except Failure as failure:
            result.failed("trouble", str(failure))
            return
        run_program(t, mount, result, command, seconds)
        if result.outcome != "ok":
            return
    wanted = "bytes_kept" if config["kind"] == "overlay" else "replaced"
    all_operations = config["operations"] // PHASES * PHASES * workers_of(config)
    ran_out_of_time = seconds and result.operations < all_operations
    if not result.figures[wanted] and not ran_out_of_time:
        result.failed("trouble", "the round shows nothing: %s is 0" % wanted)


def whole_command(t, place, mount, config, phase, seconds):
    command = [place.whole_program, "--mount", mount.point, "--source", mount.source,
               "--seed", str(config["seed"] * PHASES + phase), "--files", str(config["files"]),
               "--classes", str(max(1, config["files"] // 4)), "--threads", str(workers_of(config)),
               "--operations", str(max(1, config["operations"] // PHASES)),
               "--patience", str(60 * t.patience)]
    if seconds:
        command += ["--seconds", str(max(1, int(seconds)))]
    if config["kind"] == "ro":
        command += ["--behind"] + (["--believe"] if config["believe"] else [])
    return command


def scan_all(t, mount):
    """Stamps that are too young to be trusted are not recorded: again until all files are."""
    command = t.foldctl_command() + ["scan", "--json", "--state=" + t.path("state"), mount.source]
    harness.until(lambda: not json.loads(t.run(command, timeout=60 * t.patience).stdout)["unrecorded_files"],
                  20 * t.patience, "every file's stamp is old enough")


def share_all(t, mount, files):
    """All are served as equal ones at the same time. What an earlier phase had open is still being released,
    and with coherence=overlay the copies that back them are yet to be made."""
    def are_shared():
        fds = [os.open(mount.path("w%d" % number), os.O_RDONLY) for number in range(files)]
        try:
            return mount.status()["plans"]["shared"] == files
        finally:
            for fd in fds:
                os.close(fd)

    harness.until(are_shared, 240 * t.patience, "all files are served as equal ones")


# ---- after the operations -----------------------------------------------------------------------

def audit(t, mount, result):
    """foldctl audit: 0 all well, 1 a difference."""
    mount.audited = False
    command = t.foldctl_command() + ["audit", "--idle", "--timeout=%d" % (60 * t.patience), mount.point]
    done = t.run(command, timeout=70 * t.patience, status=None)
    if done.returncode == 1:
        result.failed("audit", done.stdout[-4000:] + done.stderr[-1000:])
    elif done.returncode:
        result.failed("trouble", "foldctl audit: status %d: %s%s" % (
            done.returncode, done.stdout[-2000:], done.stderr[-2000:]))


def remove_open(mount, *names):
    """Remove all names of a file while it is open: with the last descriptor, all that is known of it goes."""
    fd = os.open(mount.path(names[0]), os.O_RDONLY)
    try:
        for name in names:
            os.unlink(mount.path(name))
    finally:
        os.close(fd)


def check_leaks(t, place, mount, source, result):
    """With every file gone, no frame may be in use and no page be known. A count that does not come to
    nought is a user that was never dropped, or dropped twice."""
    for number in range(result.config["files"]):
        name = ("f%d" if result.config["kind"] == "pages" else "w%d") % number
        second = [name + ".b"] if result.config["kind"] == "pages" or number % 2 == 0 else []
        remove_open(mount, name, *second)
    left = {}

    def is_empty():
        status = mount.status()
        left.update((name, status[name]) for name in (
            "frames_used", "pages_shared", "pages_sharing", "pages_volatile", "zero_pages"))
        return not any(left.values())

    try:
        harness.until(is_empty, place.leak_seconds * t.patience, "empty")
    except Failure:
        result.failed("leak", "with every file removed, in use are still: %s" % left)
    harness.check(not os.listdir(source), "files are left in the source: %s" % os.listdir(source))


# ---- scripts ------------------------------------------------------------------------------------

def write_script(path, config, lines, serial, text):
    head = dict(config, serial=serial)
    with open(path, "w") as file:
        file.write(HEADER + json.dumps(head, sort_keys=True) + "\n")
        file.writelines("# %s\n" % line for line in text.splitlines()[:20])
        file.writelines(lines)


def read_script(path):
    """(config, lines, whether one thread plays it)."""
    with open(path) as file:
        lines = file.readlines()
    for line in lines:
        if line.startswith("#config "):
            config = json.loads(line.removeprefix("#config "))
            serial = config.pop("serial")
            config.setdefault("kind", "pages")
            return config, [line for line in lines if not line.startswith("#")], serial
    raise OSError(errno.EINVAL, "no line '#config' in it", path)
