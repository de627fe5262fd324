/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shares.h - how much of a scarce resource one user may have
 *
 * The rule is that of dynamic thresholds (Choudhury and Hahne, 1998): a user may have no more than
 * what is still free afterwards. So one user alone gets half, n users get 1/(n+1) each, and a
 * newcomer always finds something free. Nothing is taken away from a user who has more than that.
 * He gets no more until he has given some back.
 *
 * The privileged (uid 0, and the daemon's own uid) have no share limit. They have a reserve, which
 * does not count as free for other users. The same amount is kept for the other users: what they
 * take of it is shared out among them by the same rule. So root cannot starve the users either,
 * however much it has waiting.
 *
 * Any thread, at any time. The lock within is a leaf and is held for only some instructions.
 */
#ifndef FOLDFS_SHARES_H
#define FOLDFS_SHARES_H

#include "foldfs/page.h"

#include <stdint.h>
#include <sys/types.h>

struct shares;

/* Shares of BUDGET units. RESERVE of them are for the privileged (uid 0 and OWN), and as many for
 * the others. -ENOMEM. */
errint_t shares_new(uint64_t budget, uint64_t reserve, uid_t own, struct shares **ret_shares);
void shares_free(struct shares *shares);

/* Take AMOUNT units for UID. -EAGAIN: that exceeds his share. -ENOMEM: there is no memory to note
 * it. On error nothing is taken. */
errint_t shares_take(struct shares *shares, uid_t uid, uint64_t amount);
/* Take AMOUNT units for UID, whatever his share is. For what cannot be refused. -ENOMEM. */
errint_t shares_force(struct shares *shares, uid_t uid, uint64_t amount);
/* Give back AMOUNT units that UID took. */
void shares_give(struct shares *shares, uid_t uid, uint64_t amount);

/* Number of units that are taken, by all users. */
uint64_t shares_taken(const struct shares *shares);

#endif
