/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inode_number.h - the inode numbers that clients see
 *
 * The mount has one device number for all that is below the source. There file systems and
 * subvolumes have device numbers of their own, and their files the same inode numbers. So what is
 * shown stands for a pair of device and number: never for two of them, and for the same one in the
 * next mount.
 *
 * The numbers of the source's own device are shown as they are. Others are shown as a mark of 8
 * bits, 28 bits for the device and the upper part of the number, and the lower 28 bits of it.
 */
#ifndef FOLDFS_INODE_NUMBER_H
#define FOLDFS_INODE_NUMBER_H

#include "foldfs/page.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* How many pairs of a device and an upper part can be told apart, at 96 bytes at most. A file
 * system needs one or two; only one whose numbers are spread over 64 bits needs many. */
#define INODE_NUMBER_SPACES (1u << 20)

struct inode_numbers;

/* For the source open as ROOT_FD, which is on DEVICE. -errno. */
errint_t inode_numbers_new(int root_fd, dev_t device, struct inode_numbers **ret_numbers);
void inode_numbers_free(struct inode_numbers *numbers);
uint64_t inode_numbers_bytes(struct inode_numbers *numbers);

/* An object on DEVICE was found, open as FD (O_PATH will do). Learns what file system that is if it
 * is not known, or if a border was CROSSED to it: device numbers are given out again. -ENOMEM. Any
 * thread; may ask the file system. */
errint_t inode_numbers_meet(struct inode_numbers *numbers, int fd, dev_t device, bool crossed);

/* Whether objects on DEVICE that have one number may turn out to be several files (links.h). Any
 * thread. */
bool inode_numbers_part(struct inode_numbers *numbers, dev_t device);

/* What to show for NUMBER on DEVICE. -EOVERFLOW: there is nothing left that nobody else has, or the
 * device was never met. -ENOMEM. Any thread. No lock for numbers of the source's own device. */
errint_t inode_numbers_show(struct inode_numbers *numbers, dev_t device, ino_t number,
			    ino_t *ret_shown);

/* The way back. -ENOENT: nothing is shown as SHOWN. Any thread. */
errint_t inode_numbers_find(struct inode_numbers *numbers, ino_t shown, dev_t *ret_device,
			    ino_t *ret_number);

#endif
