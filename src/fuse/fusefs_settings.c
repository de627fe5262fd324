/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_settings.c - what changes while the mount is in use
 *
 * Each part takes its new budget by itself, while requests go on: see there why that is safe.
 */
#include "fusefs_internal.h"

void fusefs_set_timeouts(struct fusefs *fs, const struct options *options)
{
	fs->attr_timeout = options->attr_timeout;
	fs->entry_timeout = options->entry_timeout;
	fs->negative_timeout = options->negative_timeout;
}

errint_t fusefs_set_passthrough(struct fusefs *fs, const struct options *options)
{
	return plan_set_passthrough(fs->plan, options->passthrough, options->passthrough_max);
}

errint_t fusefs_set_pool(struct fusefs *fs, uint64_t bytes)
{
	return page_store_resize(fs->store, bytes);
}

uint64_t fusefs_pool_most(const struct fusefs *fs)
{
	return page_store_most_bytes(fs->store);
}

void fusefs_set_window(struct fusefs *fs, uint64_t bytes)
{
	window_set_budget(fs->window, bytes);
}

void fusefs_set_maps(struct fusefs *fs, uint64_t bytes)
{
	file_table_set_budget(fs->files, bytes);
}
