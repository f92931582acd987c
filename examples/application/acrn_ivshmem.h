/* Copyright (c) 2026, acrn.ivshmem contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The application's side of a region of shared memory: opening it, and a ring of messages in it. acrn_ivshmem.py has the same layout.
 */
#ifndef ACRN_IVSHMEM_H
#define ACRN_IVSHMEM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct ivshmem {
    unsigned char *memory; /* BAR2: the region */
    size_t size;
    char sysfs[128]; /* the function's directory; empty for a plain file */
};

/* Open /dev/ivshmem/NAME (driver uio_pci_generic), an address such as 0000:00:08.0, or a plain file, for trying.
 * Returns 0, or -1 with errno set. */
int ivshmem_open(struct ivshmem *region, const char *what);
void ivshmem_close(struct ivshmem *region);

/* Ring the doorbell of a peer, which is the VM's ID in the scenario, not its IVPosition. hv-land only. */
int ivshmem_ring(const struct ivshmem *region, unsigned peer, unsigned vector);

/* One writer, one reader. 64-byte head lines keep the two counters apart; message lengths are 32 bit, little endian.
 * Both sides run on the same machine, so there is no byte order to agree on. */
struct ring {
    uint32_t magic;
    uint32_t capacity; /* bytes behind the head, a power of two */
    unsigned char pad1[56];
    _Atomic uint32_t written; /* bytes ever written, modulo 2^32; the writer's alone */
    unsigned char pad2[60];
    _Atomic uint32_t read; /* bytes ever read; the reader's alone */
    unsigned char pad3[60];
    unsigned char data[];
};

/* The writer makes the ring. A reader gets NULL until it has. */
struct ring *ring_create(void *memory, size_t size);
struct ring *ring_attach(void *memory, size_t size);
/* 0, or -1 where there is no room. */
int ring_put(struct ring *ring, const void *message, uint32_t length);
/* Length of the message; -1 where there is none, -2 where it is longer than `size` or the ring is damaged. */
long ring_get(struct ring *ring, void *message, uint32_t size);

#endif
