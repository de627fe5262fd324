# SPDX-License-Identifier: Apache-2.0
"""A daemon that is root of a user namespace alone, and one where the system's own directories cannot be written to."""

import os

from harness import check, equal, read_file, test, write_file
from test_program import device_for_everybody
from users import USER

# All that is done in the namespaces, as its root: prints what foldctl says, or that it says nothing.
WITHIN = """
set -eu
foldfs=$1 foldctl=$2 source=$3 point=$4
$foldfs "$source" "$point" -o pool=16M 2>"$5"
trap 'umount "$point"' EXIT
[ "$(cat "$point/file")" = content ]
echo more >>"$point/file"
mkdir "$point/new"
chmod 0700 "$point/new"
mv "$point/new" "$point/newer"
if $foldctl status "$point" >/dev/null 2>&1; then echo answers; else echo silent; fi
"""


def as_root_of_a_namespace(t, **environment):
    """Mount, use, ask and unmount as the root of a plain user's namespaces; what foldctl and the daemon said."""
    source, point = t.make_dir("source"), t.make_dir("mnt")
    write_file(source + "/file", b"content")
    write_file(t.path("said"), b"")
    for path in (source, source + "/file", point, t.path("said")):
        os.chown(path, USER, USER)
    command = ["setpriv", "--reuid=%d" % USER, "--regid=%d" % USER, "--clear-groups", "unshare", "--user", "--map-root-user",
               "--mount"]
    probe = t.run(command + ["true"], status=None)
    if probe.returncode:
        t.skip("no user namespaces here: " + probe.stderr.strip())
    hidden = ("XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY", "XDG_STATE_HOME", "HOME")
    kept = {name: value for name, value in t.environment().items() if name not in hidden}
    answer = t.run(command + ["sh", "-c", WITHIN, "-"] + t.foldfs_command()[-1:] + t.foldctl_command()[-1:] +
                   [source, point, t.path("said")], env=dict(kept, HOME="/proc/nowhere", **environment), timeout=40).stdout
    equal(read_file(source + "/file"), b"contentmore\n", "what was written, in the source")
    equal(os.stat(source + "/newer").st_uid, USER, "owner of what was made")
    return answer.strip(), read_file(t.path("said")).decode()


def users_directory(t):
    """A directory that is the user's own, and so is nothing that leads to it but root's."""
    os.makedirs("/run/user", exist_ok=True)
    t.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run/user"])
    t.at_end(lambda: t.run(["umount", "/run/user"]))
    path = "/run/user/%d" % USER
    os.mkdir(path, 0o700)
    os.chown(path, USER, USER)
    return path


@test(transports="none", timeout=60, presets=("release", "debug", "asan"))
def root_of_a_user_namespace(t):
    """It mounts, is asked and unmounts as a plain user does, with its socket and catalogue in the user's directories."""
    device_for_everybody(t)
    own = users_directory(t)
    answer, said = as_root_of_a_namespace(t, XDG_RUNTIME_DIR=own, XDG_STATE_HOME=own + "/state")
    equal(answer, "answers", "foldctl")
    check("control socket" not in said and "catalogue" not in said, "it complains: " + said)
    check(os.listdir(own + "/state/foldfs"), "its catalogue is there")
    answer, said = as_root_of_a_namespace_again(t, RUNTIME_DIRECTORY=own)
    equal(answer, "answers", "foldctl, with RUNTIME_DIRECTORY")


def as_root_of_a_namespace_again(t, **environment):
    os.rmdir(t.path("source", "newer"))
    return as_root_of_a_namespace(t, **environment)


@test(transports="none", timeout=60, presets=("release", "debug", "asan"))
def root_of_a_user_namespace_without_a_place(t):
    """Where there is no place for the socket and the catalogue, it mounts, and says so."""
    device_for_everybody(t)
    answer, said = as_root_of_a_namespace(t)
    equal(answer, "silent", "foldctl")
    check("no control socket" in said, "what it says: " + said)


@test(transports="none", timeout=60)
def run_is_read_only(t):
    """With a read-only /run the socket is where RUNTIME_DIRECTORY says; without a place there is a warning."""
    source, point = t.make_dir("source"), t.make_dir("mnt")
    write_file(source + "/file", b"content")
    t.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/run"])
    t.at_end(lambda: t.run(["umount", "/run"]))
    t.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/mnt"])
    t.at_end(lambda: t.run(["umount", "/mnt"]))
    for place, status in (("/mnt", 0), ("/proc/nowhere", 1)):
        environment = dict(t.environment(), RUNTIME_DIRECTORY=place, HOME="/proc/nowhere", XDG_STATE_HOME="/proc/nowhere")
        environment.pop("XDG_RUNTIME_DIR", None)
        if status:
            t.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", os.path.expanduser("~root")])
        result = t.run(t.foldfs_command() + [source, point, "-o", "pool=16M,state=" + t.path("state")], env=environment)
        equal("no control socket" in result.stderr, bool(status), "the warning: " + result.stderr)
        equal(read_file(point + "/file"), b"content", "by the mount")
        t.run(t.foldctl_command() + ["status", point], env=environment, status=status)
        t.run(["umount", point])
    t.run(["umount", os.path.expanduser("~root")])


@test("namespaces")
def control_directory_is_named(t):
    """-o control=DIR has the socket there and nowhere else, or nothing is mounted; foldctl --control=DIR finds it."""
    t.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/mnt"])
    t.at_end(lambda: t.run(["umount", "/mnt"]))
    source, point = t.make_dir("source"), t.make_dir("mnt")
    options = "pool=16M,state=%s,control=" % t.path("state")
    t.run(t.foldfs_command() + [source, point, "-o", options + "/mnt/place"])
    t.run(t.foldctl_command() + ["status", point], status=1)
    t.run(t.foldctl_command() + ["--control=/mnt/place", "status", point])
    t.run(t.foldctl_command() + ["status", point], env=dict(t.environment(), FOLDFS_CONTROL="/mnt/place"))
    equal(len(os.listdir("/mnt/place")), 1, "sockets")
    t.run(["umount", point])
    os.chmod("/mnt/place", 0o777)
    for place, word in (("/mnt/place", "others may write there"), ("/proc/nowhere", "No such file"), ("here", "absolute")):
        result = t.run(t.foldfs_command() + [source, point, "-o", options + place], status=1)
        equal(word in result.stderr, True, "the sentence: " + result.stderr)
        equal(os.path.ismount(point), False, "mounted")
    result = t.run(t.foldctl_command() + ["--control=here", "status", point], status=1)
    equal("absolute" in result.stderr, True, "the sentence: " + result.stderr)
