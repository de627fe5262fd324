/* SPDX-License-Identifier: Apache-2.0 */
/* plan.c - how an open file is served: from the window, or by direct I/O where there is none */
#include "foldfs/plan.h"

#include <fcntl.h>

void plan_open(const struct plan *plan, bool unchanged, struct fuse_file_info *fi)
{
	fi->direct_io = plan->direct;
	/* Writers of one file go one after the other in cow_break where they have to. */
	fi->parallel_direct_writes = plan->direct;
	fi->keep_cache = !plan->direct && unchanged;
	/* close(2) has nothing to write back: writes are write-through. But the source may have
	 * something to say (NFS, quotas), so the flush stays. */
	fi->noflush = 0;
}

int plan_source_flags(int client_flags)
{
	/* O_TRUNC comes as a setattr of its own; creation flags were dealt with where the name is.
	 */
	return (client_flags & (O_ACCMODE | O_SYNC | O_DSYNC | O_NOATIME)) | O_CLOEXEC;
}
