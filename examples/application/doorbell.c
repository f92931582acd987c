/* Copyright (c) 2026, acrn.ivshmem contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Doorbells of an hv-land region, for a guest whose function is bound to vfio-pci (guest_driver: vfio-pci).
 *
 *   doorbell wait 0000:00:08.0 VECTOR       sleeps until it rings, and says how often it has rung
 *   doorbell ring 0000:00:08.0 PEER VECTOR  rings the VM whose ID in the scenario is PEER
 *
 * A guest with uio_pci_generic can ring (ivshmem_ring in acrn_ivshmem.c), and with a mainline kernel cannot wait.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/vfio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#ifndef VFIO_NOIOMMU_IOMMU
#define VFIO_NOIOMMU_IOMMU 8
#endif
#define DOORBELL 0x0c

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

/* The function's file handle. The container and the group stay open as long as the program runs. */
static int function(const char *address)
{
    char path[PATH_MAX], group_link[PATH_MAX];

    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/iommu_group", address);
    ssize_t length = readlink(path, group_link, sizeof group_link - 1);
    if (length < 0)
        fail(path);
    group_link[length] = '\0';
    const char *number = strrchr(group_link, '/') + 1;

    int unsafe = 0;
    snprintf(path, sizeof path, "/dev/vfio/%.20s", number);
    int group = open(path, O_RDWR);
    if (group < 0 && errno == ENOENT) {
        unsafe = 1;
        snprintf(path, sizeof path, "/dev/vfio/noiommu-%.20s", number);
        group = open(path, O_RDWR);
    }
    if (group < 0)
        fail(path);
    int container = open("/dev/vfio/vfio", O_RDWR);
    if (container < 0)
        fail("/dev/vfio/vfio");
    if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container))
        fail("group");
    int kind = unsafe ? VFIO_NOIOMMU_IOMMU
                      : ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) > 0 ? VFIO_TYPE1v2_IOMMU : VFIO_TYPE1_IOMMU;
    if (ioctl(container, VFIO_SET_IOMMU, kind))
        fail("IOMMU");
    int device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, address);
    if (device < 0)
        fail(address);
    return device;
}

static uint64_t place(int device, uint32_t index)
{
    struct vfio_region_info info = {.argsz = sizeof info, .index = index};

    if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info))
        fail("region");
    return info.offset;
}

int main(int count, char **words)
{
    int wait = count == 4 && !strcmp(words[1], "wait");

    if (!wait && (count != 5 || strcmp(words[1], "ring"))) {
        fprintf(stderr, "usage: doorbell wait ADDRESS VECTOR | doorbell ring ADDRESS PEER VECTOR\n");
        return 2;
    }
    int device = function(words[2]);

    /* Memory, so that registers answer, and bus mastering, so that MSI-X is delivered. */
    uint64_t config = place(device, VFIO_PCI_CONFIG_REGION_INDEX);
    uint16_t command;
    if (pread(device, &command, sizeof command, (off_t)config + 4) != sizeof command)
        fail("config");
    command |= 0x06;
    if (pwrite(device, &command, sizeof command, (off_t)config + 4) != sizeof command)
        fail("config");

    if (!wait) {
        uint32_t value = (uint32_t)(strtoul(words[3], NULL, 10) << 16 | strtoul(words[4], NULL, 10));
        uint64_t registers = place(device, VFIO_PCI_BAR0_REGION_INDEX);
        if (pwrite(device, &value, sizeof value, (off_t)registers + DOORBELL) != sizeof value)
            fail("doorbell");
        return 0;
    }

    int event = eventfd(0, EFD_CLOEXEC);
    uint32_t vector = (uint32_t)strtoul(words[3], NULL, 10);
    /* All vectors up to this one, since MSI-X is switched on once; those before it go nowhere. */
    size_t size = sizeof(struct vfio_irq_set) + (vector + 1) * sizeof(int32_t);
    struct vfio_irq_set *set = calloc(1, size);
    if (event < 0 || !set)
        fail("eventfd");
    set->argsz = (uint32_t)size;
    set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    set->index = VFIO_PCI_MSIX_IRQ_INDEX;
    set->count = vector + 1;
    for (uint32_t i = 0; i <= vector; i++)
        ((int32_t *)(void *)set->data)[i] = i == vector ? event : -1;
    if (ioctl(device, VFIO_DEVICE_SET_IRQS, set))
        fail("MSI-X");
    printf("waiting\n");
    fflush(stdout);
    uint64_t times;
    if (read(event, &times, sizeof times) != sizeof times)
        fail("eventfd");
    printf("rung %llu times\n", (unsigned long long)times);
    return 0;
}
