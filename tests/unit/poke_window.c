/* SPDX-License-Identifier: Apache-2.0 */
/* poke_window.c - the window, with ways to damage it: see poke.h */
#include "poke.h"

#include "window/window_internal.h"

void poke_window_pages(struct window *window, int by)
{
	atomic_fetch_add(&window->pages, (uint64_t)(int64_t)by);
}

void poke_window_closing(struct window *window, int by)
{
	pthread_mutex_lock(&window->lock);
	window->closing_pages += (uint64_t)(int64_t)by;
	pthread_mutex_unlock(&window->lock);
}

void poke_trimming(struct window *window, bool trimming)
{
	pthread_mutex_lock(&window->lock);
	window->trimming += trimming ? 1u : -1u;
	pthread_mutex_unlock(&window->lock);
}
