/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inode_number.h - the inode numbers that clients see
 *
 * The mount shows one device number for everything below the source. But file systems and
 * subvolumes below it have device numbers of their own, and their files may have the same inode
 * numbers. So a shown number stands for one pair of device and number. It never stands for two
 * pairs, and it stands for the same pair in the next mount.
 *
 * Numbers of the source's own device are shown as they are. A number of another device is shown as
 * three parts: a mark of 8 bits, 28 bits for the device and the upper part of the number, and the
 * number's lower 28 bits.
 */
#ifndef FOLDFS_INODE_NUMBER_H
#define FOLDFS_INODE_NUMBER_H

#include "foldfs/page.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* How many pairs of a device and an upper part can be told apart. Each takes at most 96 bytes. A
 * file system needs one or two; only one whose numbers are spread over 64 bits needs many. */
#define INODE_NUMBER_SPACES (1u << 20)

struct inode_numbers;

/* For the source open as ROOT_FD, which is on DEVICE. -errno. */
errint_t inode_numbers_new(int root_fd, dev_t device, struct inode_numbers **ret_numbers);
void inode_numbers_free(struct inode_numbers *numbers);
uint64_t inode_numbers_bytes(struct inode_numbers *numbers);

/* An object on DEVICE was found, open as FD (O_PATH will do). Finds out which file system DEVICE is
 * if that is not known. Also does so if a border to it was CROSSED, because device numbers are
 * reused. -ENOMEM. Any thread; may ask the file system. */
errint_t inode_numbers_meet(struct inode_numbers *numbers, int fd, dev_t device, bool crossed);

/* Whether objects on DEVICE that have one number may turn out to be several files (links.h). Any
 * thread. */
bool inode_numbers_part(struct inode_numbers *numbers, dev_t device);

/* The number to show for NUMBER on DEVICE. -EOVERFLOW: no free number is left, or
 * inode_numbers_meet() never saw the device. -ENOMEM. Any thread. Takes no lock for numbers of the
 * source's own device. */
errint_t inode_numbers_show(struct inode_numbers *numbers, dev_t device, ino_t number,
			    ino_t *ret_shown);

/* The reverse of inode_numbers_show(). -ENOENT: nothing is shown as SHOWN. Any thread. */
errint_t inode_numbers_find(struct inode_numbers *numbers, ino_t shown, dev_t *ret_device,
			    ino_t *ret_number);

#endif
