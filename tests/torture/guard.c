/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard.c - mapped memory behind the end of a file
 *
 * A mapped page that the file no longer has raises SIGBUS. Beside a truncate this is a valid
 * answer, so copies from and to mappings are guarded, a page at a time. A bus error anywhere else
 * is a fault of this program and ends it.
 */
#include "torture.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>

static _Thread_local sigjmp_buf place;
static _Thread_local volatile sig_atomic_t guarded;

static void bus_error(int number)
{
	if (guarded)
		siglongjmp(place, 1);
	signal(number, SIG_DFL);
	raise(number);
}

errint_t guard_install(void)
{
	struct sigaction action = {.sa_handler = bus_error, .sa_flags = SA_NODEFER};

	return sigaction(SIGBUS, &action, NULL) ? -errno : 0;
}

size_t guarded_copy(void *to, const void *from, size_t length)
{
	volatile size_t done = 0;
	uint8_t *target = to;
	const uint8_t *bytes = from;

	if (sigsetjmp(place, 0)) {
		guarded = 0;
		return done;
	}
	guarded = 1;
	while (done < length) {
		/* Up to the end of a page of either side: one of them is the mapped one. */
		size_t in_target = PAGE - ((uintptr_t)target + done) % PAGE;
		size_t in_bytes = PAGE - ((uintptr_t)bytes + done) % PAGE;
		size_t part = in_target < in_bytes ? in_target : in_bytes;

		if (part > length - done)
			part = length - done;
		memcpy(target + done, bytes + done, part);
		done = done + part;
	}
	guarded = 0;
	return done;
}
