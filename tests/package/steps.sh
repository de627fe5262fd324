# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# steps.sh - what scenario and unit share; sourced, never run
#
# Each step prints one line. The first that fails ends the script.
set -euo pipefail
shopt -s inherit_errexit

# The step that is under way; none at the end.
step=

fail() {
	printf 'FAILED  %s: %s\n' "$step" "$*"
	step=
	exit 1
}
begin() { step=$1; }
passed() {
	printf 'ok      %s\n' "$step"
	step=
}
trap '[[ -z $step ]] || printf "FAILED  %s\n" "$step"' EXIT

# Run a command again and again until it succeeds, for ten seconds at most.
until_true() {
	local tries=100
	until "$@"; do
		((tries--)) || return 1
		sleep 0.1
	done
}

# The process that serves the mount at $1, as its socket tells.
pid_of() { foldctl list | awk -v point="$1" '$1 == point {print $4}'; }
# Another one than $2 serves the mount at $1.
another_serves() { [[ $(pid_of "$1") =~ ^[0-9]+$ && $(pid_of "$1") != "$2" ]]; }

# By the program that runs: one that has ended, and that nobody asks for its status, has none.
nobody_serves() {
	local program
	for program in /proc/[0-9]*/exe; do
		[[ $(readlink "$program" || true) != */bin/foldfs* ]] || return 1
	done
}

# grep that reads all of its input. One that ends early may end what writes it by a signal, and so the pipe would fail.
has() { grep "$@" >/dev/null; }
