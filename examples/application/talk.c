/* Copyright (c) 2026, acrn.ivshmem contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Lines from one VM to another through a region.
 *
 *   talk send REGION [PEER]     reads lines, puts each into the ring, and rings VM PEER, if it is given, on vector 0
 *   talk receive REGION         prints each line; ends after the line "."
 */
#define _GNU_SOURCE
#include "acrn_ivshmem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void rest(void)
{
    const struct timespec millisecond = {.tv_nsec = 1000000};

    nanosleep(&millisecond, NULL);
}

int main(int count, char **words)
{
    struct ivshmem region;
    char line[4096];

    if (count < 3 || (strcmp(words[1], "send") && strcmp(words[1], "receive"))) {
        fprintf(stderr, "usage: talk send REGION [PEER] | talk receive REGION\n");
        return 2;
    }
    if (ivshmem_open(&region, words[2])) {
        fprintf(stderr, "%s: %s\n", words[2], strerror(errno));
        return 1;
    }
    if (!strcmp(words[1], "send")) {
        struct ring *ring = ring_create(region.memory, region.size);
        if (!ring) {
            fprintf(stderr, "%s: too small for a ring\n", words[2]);
            return 1;
        }
        while (fgets(line, sizeof line, stdin)) {
            line[strcspn(line, "\n")] = '\0';
            while (ring_put(ring, line, (uint32_t)strlen(line)))
                rest(); /* the reader is behind */
            if (count > 3 && ivshmem_ring(&region, (unsigned)strtoul(words[3], NULL, 10), 0)) {
                fprintf(stderr, "doorbell: %s\n", strerror(errno));
                return 1;
            }
        }
    } else {
        struct ring *ring;
        long length = 0;
        while (!(ring = ring_attach(region.memory, region.size)))
            rest(); /* the writer has not begun */
        while (length != 1 || line[0] != '.') {
            length = ring_get(ring, line, sizeof line);
            if (length == -2) {
                fprintf(stderr, "%s: what is in the ring is no message\n", words[2]);
                return 1;
            }
            if (length < 0)
                rest();
            else if (length != 1 || line[0] != '.')
                printf("%.*s\n", (int)length, line);
            fflush(stdout);
        }
    }
    ivshmem_close(&region);
    return 0;
}
