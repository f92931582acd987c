/*
 * Copyright (c) 2026, acrn.ivshmem contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The lab's stand-in for the hypervisor of a boot entry.
 *
 * ACRN needs VMX, which an emulated machine has not. This image takes ACRN's place behind GRUB's multiboot2 command: it
 * reads the modules by their tags and the command line as ACRN does, and then, where ACRN would start the Service VM,
 * starts its kernel on the bare machine. No hypervisor runs afterwards. Built with -DHANG it stops instead, as a
 * hypervisor does that cannot boot.
 *
 * Linux is entered by its 32-bit boot protocol (Documentation/arch/x86/boot.rst, zero-page.rst).
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define MULTIBOOT2 0x36d76289u
#define KERNEL_TAG "Linux_bzImage"
#define RAMDISK_TAG "Linux_ramdisk"
#define MEGABYTE 0x100000u
/* Below 1 MB, which Linux leaves alone. What GRUB left there has been read before this is written. */
#define ZERO_PAGE ((u8 *)0x10000)
#define CMDLINE ((char *)0x11000)
#define RSDP ((u8 *)0x12000)

struct tag { u32 type, size; };
struct area { u32 start, end; };
struct range { u64 start, size; u32 type, reserved; };
struct e820 { u64 start, size; u32 type; } __attribute__((packed));

static struct area taken[16], kernel, ramdisk;
static u32 taken_count, e820_count, rsdp_size;
static struct e820 map[128];
static char cmdline[2048];
static u8 rsdp[64];
extern char image_start[], image_end[];

static void put(const char *text)
{
	for (; *text; text++) {
		u8 status;
		do
			__asm__ volatile("inb %1, %0" : "=a"(status) : "Nd"((u16)0x3fd));
		while (!(status & 0x20));
		__asm__ volatile("outb %0, %1" : : "a"(*text), "Nd"((u16)0x3f8));
	}
}

static void stop(const char *why)
{
	put("stand-in: ");
	put(why);
	put("\r\n");
	for (;;)
		__asm__ volatile("cli; hlt");
}

/* Also what the compiler calls by itself. */
void *memcpy(void *to, const void *from, u32 size)
{
	void *result = to;
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
	return result;
}

void *memset(void *to, int value, u32 size)
{
	void *result = to;
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
	return result;
}

static void append(const char *text)
{
	u32 used = 0;

	while (cmdline[used])
		used++;
	if (used && *text)
		cmdline[used++] = ' ';
	while (*text && used < sizeof(cmdline) - 1)
		cmdline[used++] = *text++;
}

/* What follows the tag in a module's string; 0 if the string has another tag. */
static const char *after(const char *string, const char *tag)
{
	while (*tag)
		if (*string++ != *tag++)
			return 0;
	if (*string == ' ')
		return string + 1;
	return *string ? 0 : string;
}

static void take(u32 start, u32 end)
{
	if (taken_count < sizeof(taken) / sizeof(taken[0]))
		taken[taken_count++] = (struct area){start, end};
}

static int is_free(u32 start, u32 end)
{
	u32 i;
	int ram = 0;

	for (i = 0; i < taken_count; i++)
		if (start < taken[i].end && taken[i].start < end)
			return 0;
	for (i = 0; i < e820_count; i++)
		if (map[i].type == 1 && map[i].start <= start && end <= map[i].start + map[i].size)
			ram = 1;
	return ram;
}

static void read_info(u8 *info)
{
	u8 *at = info + 8, *entry;
	const char *own = "", *rest;

	take((u32)image_start, (u32)image_end);
	take((u32)info, (u32)info + *(u32 *)info);
	for (; ((struct tag *)at)->type; at += (((struct tag *)at)->size + 7) & ~7u) {
		u32 type = ((struct tag *)at)->type, size = ((struct tag *)at)->size;

		if (type == 1) { /* command line */
			own = (char *)at + 8;
		} else if (type == 3) { /* module */
			struct area area = *(struct area *)(at + 8);

			take(area.start, area.end);
			if ((rest = after((char *)at + 16, KERNEL_TAG))) {
				kernel = area;
				append(rest);
			} else if (!at[16] || after((char *)at + 16, RAMDISK_TAG)) { /* no string: as a scenario without a tag has it */
				ramdisk = area;
			}
		} else if (type == 6) { /* memory map */
			for (entry = at + 16; entry < at + size; entry += *(u32 *)(at + 8)) {
				struct range *range = (struct range *)entry;

				if (e820_count < sizeof(map) / sizeof(map[0]))
					map[e820_count++] = (struct e820){range->start, range->size, range->type};
			}
		} else if (type == 14 || type == 15) { /* ACPI's root pointer; 15 is the newer form */
			rsdp_size = size - 8 < sizeof(rsdp) ? size - 8 : sizeof(rsdp);
			memcpy(rsdp, at + 8, rsdp_size);
		}
	}
	append(own); /* behind the module's, as ACRN does, so that it wins */
}

void start(u32 magic, u8 *info)
{
	u8 *setup;
	u32 to, setup_size, init_size, header_end;

	if (magic != MULTIBOOT2)
		stop("not started by multiboot2");
#ifdef HANG
	(void)info;
	stop("this image does not boot");
#endif
	read_info(info);
	if (!kernel.start)
		stop("no module " KERNEL_TAG);
	setup = (u8 *)kernel.start;
	if (*(u32 *)(setup + 0x202) != 0x53726448u || *(u16 *)(setup + 0x206) < 0x020a || !setup[0x234])
		stop("the kernel is no relocatable bzImage");
	setup_size = ((setup[0x1f1] ? setup[0x1f1] : 4) + 1) * 512u;
	init_size = *(u32 *)(setup + 0x260);
	header_end = 0x202u + setup[0x201];
	for (to = 16 * MEGABYTE; !is_free(to, to + init_size); to += 2 * MEGABYTE)
		if (to > 1024 * MEGABYTE)
			stop("no room for the kernel");
	put("stand-in: starting the kernel: ");
	put(cmdline);
	put("\r\n");

	memset(ZERO_PAGE, 0, 4096);
	memcpy(ZERO_PAGE + 0x1f1, setup + 0x1f1, header_end - 0x1f1);
	memcpy(CMDLINE, cmdline, sizeof(cmdline));
	ZERO_PAGE[0x210] = 0xff; /* type_of_loader: none that has a number */
	*(u32 *)(ZERO_PAGE + 0x214) = to;
	*(u32 *)(ZERO_PAGE + 0x218) = ramdisk.start;
	*(u32 *)(ZERO_PAGE + 0x21c) = ramdisk.end - ramdisk.start;
	*(u32 *)(ZERO_PAGE + 0x228) = (u32)CMDLINE;
	if (rsdp_size) {
		memcpy(RSDP, rsdp, rsdp_size);
		*(u64 *)(ZERO_PAGE + 0x70) = (u32)RSDP;
	}
	ZERO_PAGE[0x1e8] = (u8)e820_count;
	memcpy(ZERO_PAGE + 0x2d0, map, e820_count * sizeof(map[0]));
	memcpy((u8 *)to, setup + setup_size, kernel.end - kernel.start - setup_size);
	__asm__ volatile("xor %%ebx, %%ebx; xor %%edi, %%edi; push %%eax; xor %%ebp, %%ebp; ret" : : "a"(to), "S"(ZERO_PAGE));
	__builtin_unreachable();
}

/* The segments that Linux wants: code at 0x10, data at 0x18, both flat. */
__asm__(
	".section .head, \"ax\"\n"
	".balign 8\n"
	"header: .long 0xe85250d6, 0, end - header, -(0xe85250d6 + (end - header))\n"
	"	.short 0, 0; .long 8\n"
	"end:\n"
	".globl _start\n"
	"_start: cli\n"
	"	mov $stack, %esp\n"
	"	lgdt pointer\n"
	"	ljmp $0x10, $1f\n"
	"1:	mov $0x18, %cx\n"
	"	mov %cx, %ds; mov %cx, %es; mov %cx, %fs; mov %cx, %gs; mov %cx, %ss\n"
	"	push %ebx; push %eax; call start\n"
	".balign 8\n"
	"table:	.quad 0, 0, 0x00cf9a000000ffff, 0x00cf92000000ffff\n"
	"pointer: .short 31; .long table\n"
	".section .bss\n"
	".balign 16\n"
	"	.skip 16384\n"
	"stack:\n"
	".text\n");
