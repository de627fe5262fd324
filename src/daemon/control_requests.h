/* SPDX-License-Identifier: Apache-2.0 */
/* control_requests.h - what foldctl asks for that takes its time: audit, explain */
#ifndef FOLDFS_CONTROL_REQUESTS_H
#define FOLDFS_CONTROL_REQUESTS_H

#include "control.h"

/* Have CONTROL answer them for FS (borrowed). Before control_start(). */
void control_requests_add(struct control *control, struct fusefs *fs);

#endif
