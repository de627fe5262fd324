/* SPDX-License-Identifier: Apache-2.0 */
/* test_locks.c - who waits for a lock: how long, and what ends it */
#include "foldfs/clock.h"
#include "fuse/locks.h"
#include "scratch.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include <cmocka.h>

#define USER 1001u

static char path[64];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static const uint64_t a_file = 7, b_file = 8;
static struct locks *interrupt_when_armed;

struct client {
	struct lock_wait wait;
	bool done; /* under lock, like the next */
	errint_t result;
	unsigned turn; /* the how-manyth to be answered */
};
static unsigned turns;

static void give(struct lock_wait *wait, errint_t result)
{
	struct client *client = caa_container_of(wait, struct client, wait);

	pthread_mutex_lock(&lock);
	client->done = true;
	client->result = result;
	client->turn = ++turns;
	pthread_cond_broadcast(&answered);
	pthread_mutex_unlock(&lock);
}

static void arm(struct lock_wait *wait)
{
	if (interrupt_when_armed)
		locks_interrupt(interrupt_when_armed, wait);
}

static errint_t wait_for(struct client *client)
{
	errint_t result;

	pthread_mutex_lock(&lock);
	while (!client->done)
		pthread_cond_wait(&answered, &lock);
	result = client->result;
	pthread_mutex_unlock(&lock);
	return result;
}

static bool is_done(struct client *client)
{
	bool done;

	pthread_mutex_lock(&lock);
	done = client->done;
	pthread_mutex_unlock(&lock);
	return done;
}

/* Of its open file. */
static uint64_t number_of(const struct client *client)
{
	return (uintptr_t)client;
}

/* Each client is an owner with an open file of its own. */
static void client_new(struct client *client)
{
	*client = (struct client){.wait.arm = arm, .wait.answer = give};
	client->wait.request.fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(client->wait.request.fd >= 0);
	client->wait.request.handle = number_of(client);
	client->wait.request.owner = (uintptr_t)client;
	client->wait.request.user = USER;
}

static void client_free(struct locks *locks, struct client *client)
{
	locks_released(locks, a_file, number_of(client));
	locks_released(locks, b_file, number_of(client));
	close(client->wait.request.fd);
}

static errint_t ask(struct locks *locks, struct client *client, uint64_t file, short type, off_t at,
		    bool blocks)
{
	client->wait.kind = LOCK_RANGE;
	client->wait.questions = false;
	client->wait.blocks = blocks;
	client->wait.request.type = type;
	client->wait.request.first = client->wait.request.last = at;
	client->done = false;
	client->wait.stopped = false;
	return locks_ask(locks, file, &client->wait);
}

static errint_t ask_whole(struct locks *locks, struct client *client, short type, bool blocks)
{
	client->wait.kind = LOCK_WHOLE;
	client->wait.questions = false;
	client->wait.blocks = blocks;
	client->wait.request.type = type;
	client->done = false;
	client->wait.stopped = false;
	return locks_ask(locks, a_file, &client->wait);
}

static struct locks *make(bool with_thread)
{
	struct locks *locks;

	assert_int_equal(locks_new(0, NULL, &locks), 0);
	if (with_thread)
		assert_int_equal(locks_start(locks), 0);
	return locks;
}

static void end(struct locks *locks)
{
	struct locks_usage usage;

	locks_stop(locks);
	locks_usage(locks, &usage);
	assert_int_equal(usage.held, 0);
	assert_int_equal(usage.waiting, 0);
	locks_free(locks);
}

static void they_get_it_in_their_order(void **state)
{
	struct locks *locks = make(false);
	struct client clients[5];

	(void)state;
	for (unsigned i = 0; i < 5; i++)
		client_new(&clients[i]);
	assert_int_equal(ask(locks, &clients[0], a_file, F_WRLCK, 0, true), 0);
	for (unsigned i = 1; i < 5; i++)
		assert_int_equal(ask(locks, &clients[i], a_file, F_WRLCK, 0, true), -EINPROGRESS);
	for (unsigned i = 0; i < 4; i++) {
		assert_false(is_done(&clients[i + 1]));
		if (i % 2)
			locks_closed(locks, a_file, number_of(&clients[i]),
				     clients[i].wait.request.owner);
		else
			locks_released(locks, a_file, number_of(&clients[i]));
		assert_true(is_done(&clients[i + 1]));
		assert_int_equal(clients[i + 1].result, 0);
	}
	for (unsigned i = 0; i < 5; i++)
		client_free(locks, &clients[i]);
	end(locks);
}

/* Whoever converts a lock for writing lets readers go on. */
static void readers_go_on_together(void **state)
{
	struct locks *locks = make(false);
	struct client clients[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		client_new(&clients[i]);
	assert_int_equal(ask(locks, &clients[0], a_file, F_WRLCK, 0, true), 0);
	for (unsigned i = 1; i < 4; i++)
		assert_int_equal(ask(locks, &clients[i], a_file, F_RDLCK, 0, true), -EINPROGRESS);
	assert_int_equal(ask(locks, &clients[0], a_file, F_RDLCK, 0, true), 0);
	for (unsigned i = 1; i < 4; i++)
		assert_int_equal(wait_for(&clients[i]), 0);
	for (unsigned i = 0; i < 4; i++)
		client_free(locks, &clients[i]);
	end(locks);
}

static void an_interrupt_ends_a_wait(void **state)
{
	struct locks *locks = make(true);
	struct client holder, waiter;

	(void)state;
	client_new(&holder);
	client_new(&waiter);
	assert_int_equal(ask(locks, &holder, a_file, F_WRLCK, 0, true), 0);
	assert_int_equal(ask(locks, &waiter, a_file, F_WRLCK, 0, true), -EINPROGRESS);
	locks_interrupt(locks, &waiter.wait);
	assert_int_equal(wait_for(&waiter), -EINTR);
	client_free(locks, &waiter);
	client_new(&waiter);
	/* It comes before the request waits. */
	interrupt_when_armed = locks;
	assert_int_equal(ask(locks, &waiter, a_file, F_WRLCK, 0, true), -EINTR);
	interrupt_when_armed = NULL;
	client_free(locks, &holder);
	client_free(locks, &waiter);
	end(locks);
}

static void a_deadlock_is_told(void **state)
{
	struct locks *locks = make(false);
	struct client one, two, three;

	(void)state;
	client_new(&one);
	client_new(&two);
	client_new(&three);
	assert_int_equal(ask(locks, &one, a_file, F_WRLCK, 1, true), 0);
	assert_int_equal(ask(locks, &two, b_file, F_WRLCK, 2, true), 0);
	assert_int_equal(ask(locks, &three, a_file, F_WRLCK, 3, true), 0);
	assert_int_equal(ask(locks, &one, b_file, F_WRLCK, 2, true), -EINPROGRESS);
	assert_int_equal(ask(locks, &two, a_file, F_WRLCK, 3, true), -EINPROGRESS);
	assert_int_equal(ask(locks, &three, a_file, F_WRLCK, 1, true), -EDEADLK);
	client_free(locks, &three);
	assert_int_equal(wait_for(&two), 0);
	client_free(locks, &two);
	assert_int_equal(wait_for(&one), 0);
	client_free(locks, &one);
	end(locks);
}

/* Somebody in the source has it: nobody tells when he gives it back. */
static void the_source_is_asked_again(void **state)
{
	struct locks *locks = make(true);
	struct flock all = {.l_type = F_WRLCK};
	int stranger = open(path, O_RDWR | O_CLOEXEC);
	struct client range, whole, question;

	(void)state;
	client_new(&range);
	client_new(&whole);
	client_new(&question);
	assert_int_equal(fcntl(stranger, F_OFD_SETLK, &all), 0);
	assert_int_equal(flock(stranger, LOCK_EX), 0);
	assert_int_equal(ask(locks, &range, a_file, F_WRLCK, 0, false), -EAGAIN);
	assert_int_equal(ask_whole(locks, &whole, F_RDLCK, false), -EAGAIN);
	question.wait.questions = true;
	question.wait.request.type = F_RDLCK;
	assert_int_equal(locks_ask(locks, a_file, &question.wait), 0);
	assert_int_equal(question.wait.found.l_type, F_WRLCK);
	assert_int_equal(ask(locks, &range, a_file, F_WRLCK, 0, true), -EINPROGRESS);
	assert_int_equal(ask_whole(locks, &whole, F_RDLCK, true), -EINPROGRESS);
	assert_int_equal(flock(stranger, LOCK_UN), 0);
	assert_int_equal(wait_for(&whole), 0);
	assert_false(is_done(&range));
	close(stranger);
	assert_int_equal(wait_for(&range), 0);
	client_free(locks, &range);
	client_free(locks, &whole);
	client_free(locks, &question);
	end(locks);
}

/* A descriptor was closed just now, so the end of the lock may be on its way. */
static void a_release_on_its_way_is_waited_for(void **state)
{
	struct locks *locks = make(true);
	struct client holder, waiter, asker;

	(void)state;
	client_new(&holder);
	client_new(&waiter);
	client_new(&asker);
	assert_int_equal(ask_whole(locks, &holder, F_WRLCK, false), 0);
	assert_int_equal(ask(locks, &holder, a_file, F_WRLCK, 0, false), 0);
	assert_int_equal(ask_whole(locks, &waiter, F_WRLCK, false), -EAGAIN);
	/* Another owner's close, of a descriptor of the same open file. */
	locks_closed(locks, a_file, number_of(&holder), 1);
	assert_int_equal(ask_whole(locks, &waiter, F_WRLCK, false), -EINPROGRESS);
	asker.wait.questions = true;
	asker.wait.request.type = F_RDLCK;
	assert_int_equal(locks_ask(locks, a_file, &asker.wait), -EINPROGRESS);
	locks_released(locks, a_file, number_of(&holder));
	assert_int_equal(wait_for(&waiter), 0);
	assert_int_equal(wait_for(&asker), 0);
	assert_int_equal(asker.wait.found.l_type, F_UNLCK);
	/* If none comes, the open file is still open elsewhere. */
	locks_closed(locks, a_file, number_of(&waiter), 1);
	assert_int_equal(ask_whole(locks, &asker, F_WRLCK, false), -EINPROGRESS);
	assert_int_equal(wait_for(&asker), -EAGAIN);
	client_free(locks, &holder);
	client_free(locks, &waiter);
	client_free(locks, &asker);
	end(locks);
}

static atomic_bool is_time;

static bool ready(struct lock_wait *wait)
{
	(void)wait;
	return atomic_load(&is_time);
}

static void a_delayed_answer_comes_when_it_is_ready(void **state)
{
	struct locks *locks = make(true);
	struct client one, other;

	(void)state;
	client_new(&one);
	client_new(&other);
	assert_true(locks_delay(locks, &one.wait, ready));
	/* Nobody else is held up. */
	assert_int_equal(ask(locks, &other, a_file, F_WRLCK, 0, true), 0);
	assert_false(is_done(&one));
	atomic_store(&is_time, true);
	assert_int_equal(wait_for(&one), 0);
	/* One that never is. */
	atomic_store(&is_time, false);
	one.done = false;
	assert_true(locks_delay(locks, &one.wait, ready));
	assert_int_equal(wait_for(&one), 0);
	one.done = false;
	assert_true(locks_delay(locks, &one.wait, ready));
	locks_stop(locks);
	assert_int_equal(wait_for(&one), 0);
	assert_false(locks_delay(locks, &one.wait, ready));
	client_free(locks, &one);
	client_free(locks, &other);
	end(locks);
}

static void the_end_answers_all(void **state)
{
	struct locks *locks = make(true);
	struct client holder, waiter;

	(void)state;
	client_new(&holder);
	client_new(&waiter);
	assert_int_equal(ask(locks, &holder, a_file, F_WRLCK, 0, true), 0);
	assert_int_equal(ask(locks, &waiter, a_file, F_WRLCK, 0, true), -EINPROGRESS);
	locks_stop(locks);
	assert_int_equal(wait_for(&waiter), -ENOTCONN);
	client_free(locks, &holder);
	client_free(locks, &waiter);
	end(locks);
}

static void one_user_waits_for_a_share(void **state)
{
	static struct client waiters[4096];
	struct locks *locks = make(false);
	struct client holder, other;
	unsigned count = 0;

	(void)state;
	client_new(&holder);
	client_new(&other);
	other.wait.request.user = USER + 1;
	assert_int_equal(ask(locks, &holder, a_file, F_WRLCK, 0, true), 0);
	for (errint_t error = -EINPROGRESS; error == -EINPROGRESS && count < 4096; count++) {
		waiters[count] = holder;
		waiters[count].wait.request.owner = (uintptr_t)&waiters[count];
		error = ask(locks, &waiters[count], a_file, F_WRLCK, 0, true);
		assert_true(error == -EINPROGRESS || error == -ENOLCK);
	}
	assert_in_range(count, 1000, 2048);
	assert_int_equal(ask(locks, &other, a_file, F_WRLCK, 0, true), -EINPROGRESS);
	locks_stop(locks);
	assert_int_equal(wait_for(&other), -ENOTCONN);
	client_free(locks, &holder);
	client_free(locks, &other);
	end(locks);
}

/* Many threads take and give back what a counter then shows to be theirs alone. */
struct worker {
	struct locks *locks;
	struct client client;
	unsigned seed;
};
static unsigned inside[4]; /* not atomic: the locks are to protect them */

static void *work(void *argument)
{
	struct worker *worker = argument;

	for (unsigned i = 0; i < 2000; i++) {
		off_t at = rand_r(&worker->seed) % 4;
		errint_t error = ask(worker->locks, &worker->client, a_file, F_WRLCK, at, true);

		if (error == -EINPROGRESS) {
			if (rand_r(&worker->seed) % 8 == 0)
				locks_interrupt(worker->locks, &worker->client.wait);
			error = wait_for(&worker->client);
		}
		if (error)
			continue;
		inside[at]++;
		inside[at]--;
		(void)ask(worker->locks, &worker->client, a_file, F_UNLCK, at, false);
	}
	return NULL;
}

static void one_at_a_time(void **state)
{
	struct locks *locks = make(true);
	struct worker workers[8];
	pthread_t threads[8];

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		workers[i] = (struct worker){.locks = locks, .seed = i};
		client_new(&workers[i].client);
	}
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	for (unsigned i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(inside[i], 0);
	for (unsigned i = 0; i < 8; i++)
		client_free(locks, &workers[i].client);
	end(locks);
}

static int make_file(void **state)
{
	int fd;

	(void)state;
	if (!scratch_name(path, "locks", SCRATCH_ANY))
		return -1;
	fd = mkstemp(path);
	return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(they_get_it_in_their_order),
		cmocka_unit_test(readers_go_on_together),
		cmocka_unit_test(an_interrupt_ends_a_wait),
		cmocka_unit_test(a_deadlock_is_told),
		cmocka_unit_test(the_source_is_asked_again),
		cmocka_unit_test(a_release_on_its_way_is_waited_for),
		cmocka_unit_test(a_delayed_answer_comes_when_it_is_ready),
		cmocka_unit_test(the_end_answers_all),
		cmocka_unit_test(one_user_waits_for_a_share),
		cmocka_unit_test(one_at_a_time),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
