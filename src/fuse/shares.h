/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shares.h - what one user may have of something that is scarce
 *
 * The rule is that of dynamic thresholds (Choudhury and Hahne, 1998): a user may have no more than
 * what is still free afterwards. One user alone so gets half, n users get 1/(n+1) each, and a
 * newcomer always finds something. Nothing is taken away from who has more than that; he gets no
 * more until he has given back.
 *
 * The privileged (uid 0, and the daemon's own uid) have no share, and a reserve, which counts as
 * free for nobody else. As much is kept for the others: what they have of it is shared out among
 * them in the same way. So root does not stop users either, whatever it has waiting.
 *
 * Any thread, at any time. The lock within is a leaf and is held for some instructions.
 */
#ifndef FOLDFS_SHARES_H
#define FOLDFS_SHARES_H

#include "foldfs/page.h"

#include <stdint.h>
#include <sys/types.h>

struct shares;

/* Shares of BUDGET units, RESERVE of them for the privileged, uid 0 and OWN, and as many for the
 * others. -ENOMEM. */
errint_t shares_new(uint64_t budget, uint64_t reserve, uid_t own, struct shares **ret_shares);
void shares_free(struct shares *shares);

/* UID takes AMOUNT units. -EAGAIN: that is more than his share; -ENOMEM: there is no memory to note
 * it. Nothing is taken then. */
errint_t shares_take(struct shares *shares, uid_t uid, uint64_t amount);
/* The same, whatever his share is: of what cannot be refused. -ENOMEM. */
errint_t shares_force(struct shares *shares, uid_t uid, uint64_t amount);
/* UID gives AMOUNT units back that he took. */
void shares_give(struct shares *shares, uid_t uid, uint64_t amount);

/* Units that are taken, by all. */
uint64_t shares_taken(const struct shares *shares);

#endif
