/* SPDX-License-Identifier: Apache-2.0 */
/* window_threads.c - the window's threads: trimmers, the dropper, the answerer; begin and end */
#include "foldfs/rcu.h"
#include "window_internal.h"

#include <sys/resource.h>

static void *trim(void *argument)
{
	struct window *window = argument;

	(void)setpriority(PRIO_PROCESS, 0, TRIMMER_NICE);
	fold_rcu_register();
	pthread_mutex_lock(&window->lock);
	while (!window->stopping)
		if (!window_trim_locked(window))
			pthread_cond_wait(&window->wanted, &window->lock);
	pthread_mutex_unlock(&window->lock);
	return NULL;
}

errint_t window_start(struct window *window)
{
	unsigned *run = &window->trimmers_run;
	int error = 0;

	/* window_stop() may be called before all threads are started. */
	pthread_mutex_lock(&window->stop_lock);
	while (!error && *run < window->trimmers_most) {
		error = pthread_create(&window->trimmers[*run], NULL, trim, window);
		*run += !error;
	}
	if (!error)
		error = pthread_create(&window->dropper, NULL, window_run_dropper, window);
	window->dropper_runs = !error;
	if (!error)
		error = pthread_create(&window->answerer, NULL, window_run_answerer, window);
	window->answerer_runs = !error;
	pthread_mutex_unlock(&window->stop_lock);
	return -error;
}

static void join(pthread_t thread, bool *runs)
{
	if (*runs)
		pthread_join(thread, NULL);
	*runs = false;
}

void window_stop(struct window *window)
{
	pthread_mutex_lock(&window->lock);
	window->stopping = true;
	pthread_mutex_unlock(&window->lock);
	pthread_cond_broadcast(&window->wanted);
	pthread_cond_signal(&window->suspected);
	pthread_cond_broadcast(&window->trimmed_some);
	pthread_cond_signal(&window->answer_bounded);
	pthread_mutex_lock(&window->stop_lock);
	/* The answerer first, for the other threads may be waiting for an answer. */
	join(window->answerer, &window->answerer_runs);
	pthread_mutex_lock(&window->lock);
	window_give_answers_locked(window, true);
	pthread_mutex_unlock(&window->lock);
	join(window->dropper, &window->dropper_runs);
	while (window->trimmers_run)
		pthread_join(window->trimmers[--window->trimmers_run], NULL);
	pthread_mutex_unlock(&window->stop_lock);
}
