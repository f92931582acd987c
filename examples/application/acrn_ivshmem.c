/* Copyright (c) 2026, acrn.ivshmem contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 */
#define _GNU_SOURCE
#include "acrn_ivshmem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0x474e4952u /* "RING" */
#define DOORBELL 0x0c

/* The directory of the function that a name stands for; empty for a plain file. */
static int find(char *sysfs, size_t size, const char *what)
{
    char real[PATH_MAX];
    struct stat found;

    if (!strchr(what, '/') && strchr(what, ':')) {
        snprintf(sysfs, size, "/sys/bus/pci/devices/%s", what);
        return access(sysfs, F_OK);
    }
    if (!realpath(what, real) || stat(real, &found))
        return -1;
    if (S_ISREG(found.st_mode)) {
        sysfs[0] = '\0';
        return 0;
    }
    /* /dev/ivshmem/NAME leads to /dev/uioN, whose number changes from boot to boot. */
    const char *node = strrchr(real, '/') + 1;
    if (!S_ISCHR(found.st_mode) || strncmp(node, "uio", 3) || strlen(node) > 20) {
        errno = ENODEV;
        return -1;
    }
    snprintf(sysfs, size, "/sys/class/uio/%.20s/device", node);
    return 0;
}

int ivshmem_open(struct ivshmem *region, const char *what)
{
    char path[PATH_MAX];
    struct stat found;

    if (find(region->sysfs, sizeof region->sysfs, what))
        return -1;
    if (region->sysfs[0])
        snprintf(path, sizeof path, "%s/resource2", region->sysfs);
    else
        snprintf(path, sizeof path, "%s", what);
    int handle = open(path, O_RDWR | O_CLOEXEC);
    if (handle < 0)
        return -1;
    if (fstat(handle, &found)) {
        close(handle);
        return -1;
    }
    /* The whole of it: the kernel refuses a longer mapping, and read() and write() on resource2 fail. */
    region->size = (size_t)found.st_size;
    region->memory = mmap(NULL, region->size, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    close(handle);
    if (region->memory == MAP_FAILED)
        return -1;
    return 0;
}

void ivshmem_close(struct ivshmem *region)
{
    munmap(region->memory, region->size);
}

int ivshmem_ring(const struct ivshmem *region, unsigned peer, unsigned vector)
{
    char path[PATH_MAX];

    if (!region->sysfs[0]) {
        errno = ENOTSUP;
        return -1;
    }
    snprintf(path, sizeof path, "%s/resource0", region->sysfs);
    int handle = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
    if (handle < 0)
        return -1;
    unsigned char *registers = mmap(NULL, 256, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    close(handle);
    if (registers == MAP_FAILED)
        return -1;
    /* What was written to the memory is to be seen by who is woken. */
    atomic_thread_fence(memory_order_seq_cst);
    *(volatile uint32_t *)(void *)(registers + DOORBELL) = (uint32_t)(peer << 16 | (vector & 0xffff));
    munmap(registers, 256);
    return 0;
}

static uint32_t capacity_of(size_t size)
{
    uint32_t capacity = 1;

    if (size < sizeof(struct ring) + 64)
        return 0;
    while ((size_t)capacity * 2 <= size - sizeof(struct ring) && capacity < 1u << 30)
        capacity *= 2;
    return capacity;
}

struct ring *ring_create(void *memory, size_t size)
{
    struct ring *ring = memory;
    uint32_t capacity = capacity_of(size);

    if (!capacity)
        return NULL;
    ring->magic = 0;
    atomic_thread_fence(memory_order_seq_cst);
    ring->capacity = capacity;
    atomic_store(&ring->written, 0);
    atomic_store(&ring->read, 0);
    atomic_thread_fence(memory_order_seq_cst);
    ring->magic = MAGIC;
    return ring;
}

struct ring *ring_attach(void *memory, size_t size)
{
    struct ring *ring = memory;

    uint32_t magic = *(volatile uint32_t *)&ring->magic;
    atomic_thread_fence(memory_order_seq_cst);
    if (magic != MAGIC || ring->capacity != capacity_of(size))
        return NULL;
    return ring;
}

static void copy(struct ring *ring, uint32_t at, void *bytes, uint32_t length, uint32_t capacity, int in)
{
    for (uint32_t i = 0; i < length; i++) {
        unsigned char *there = &ring->data[(at + i) & (capacity - 1)];
        if (in)
            *there = ((const unsigned char *)bytes)[i];
        else
            ((unsigned char *)bytes)[i] = *there;
    }
}

int ring_put(struct ring *ring, const void *message, uint32_t length)
{
    uint32_t capacity = ring->capacity;
    uint32_t written = atomic_load_explicit(&ring->written, memory_order_relaxed);
    uint32_t used = written - atomic_load_explicit(&ring->read, memory_order_acquire);

    if (used > capacity || length > capacity - used || capacity - used - length < sizeof length)
        return -1;
    copy(ring, written, &length, sizeof length, capacity, 1);
    copy(ring, written + (uint32_t)sizeof length, (void *)(uintptr_t)message, length, capacity, 1);
    atomic_store_explicit(&ring->written, written + (uint32_t)sizeof length + length, memory_order_release);
    return 0;
}

long ring_get(struct ring *ring, void *message, uint32_t size)
{
    /* The peer can write what it likes, at any time: what it says is read once, and held against what there is. */
    uint32_t capacity = ring->capacity;
    uint32_t at = atomic_load_explicit(&ring->read, memory_order_relaxed);
    uint32_t used = atomic_load_explicit(&ring->written, memory_order_acquire) - at;
    uint32_t length;

    if (used == 0)
        return -1;
    if (used < sizeof length || used > capacity || capacity & (capacity - 1))
        return -2;
    copy(ring, at, &length, sizeof length, capacity, 0);
    if (length > used - sizeof length || length > size)
        return -2;
    copy(ring, at + (uint32_t)sizeof length, message, length, capacity, 0);
    atomic_store_explicit(&ring->read, at + (uint32_t)sizeof length + length, memory_order_release);
    return (long)length;
}
