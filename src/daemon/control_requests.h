/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_requests.h - all that foldctl can ask a daemon for
 *
 *	{"request":"status"}              the figures of figures_json.h
 *	{"request":"audit","idle":false}  the report of audit_json.h, when it is there
 *	{"request":"set","words":[…]}     what is set now, of words of -o: settings.h
 *	{"request":"explain","inode":N}   plan, reason, whether it is open, known pages
 *	{"request":"upgrade"}             the client is to send a program: exchange.h
 */
#ifndef FOLDFS_CONTROL_REQUESTS_H
#define FOLDFS_CONTROL_REQUESTS_H

#include "control.h"

/* For control_new(); the context of these requests is a struct figures_context. */
extern const struct control_request control_requests[];

#endif
