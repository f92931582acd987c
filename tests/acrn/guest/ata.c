/*
 * Copyright (c) 2026, acrn.ivshmem contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The emulator's disk by its ports, polled: under ACRN its interrupt does not reach the Service VM.
 */
#include <stdint.h>
#include <sys/io.h>

enum { DATA = 0x1f0, COUNT = 0x1f2, LOW, MIDDLE, HIGH, DRIVE, COMMAND, CONTROL = 0x3f6 };
enum { ERROR = 0x21, DRQ = 0x08, READY = 0x40, BUSY = 0x80 };

int opened(void)
{
	return ioperm(DATA, 8, 1) || ioperm(CONTROL, 1, 1);
}

static int wait_for(uint8_t wanted)
{
	for (long tries = 0; tries < 100000000; tries++) {
		uint8_t status = inb(COMMAND);

		if (status & BUSY)
			continue;
		if (status & ERROR)
			return -1;
		if ((status & wanted) == wanted)
			return 0;
	}
	return -2;
}

/* At most 256 sectors. */
int transfer(int writes, uint32_t lba, uint32_t count, uint16_t *words)
{
	int failed;

	outb(2, CONTROL);
	outb(0xe0 | (lba >> 24 & 15), DRIVE);
	failed = wait_for(READY);
	if (failed)
		return failed;
	outb(count, COUNT);
	outb(lba, LOW);
	outb(lba >> 8, MIDDLE);
	outb(lba >> 16, HIGH);
	outb(writes ? 0x30 : 0x20, COMMAND);
	for (; count; count--, words += 256) {
		failed = wait_for(DRQ);
		if (failed)
			return failed;
		if (writes)
			outsw(DATA, words, 256);
		else
			insw(DATA, words, 256);
	}
	return wait_for(READY);
}
