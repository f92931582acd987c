# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The board XML of the emulated machine, and the pages that GRUB has to prepare for it.

ACRN's board inspector writes this file on a machine; the emulator has neither VT-d nor MMCONFIG for it to look at, so
that what it would say is written down here. Three lines are not what the inspector finds on real hardware:

- The one DMA remapping unit is ignored (``DRHD0_IGNORE``), and its registers are a page of RAM which GRUB fills. ACRN
  reads three of them before it leaves an ignored unit alone (arch/x86/vtd.c).
- Nothing decodes the MMCONFIG window, so that the hypervisor finds no physical PCI device.
- Physical addresses have 40 bits, because the hypervisor compares that with what CPUID says (arch/x86/cpu_caps.c).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

KB = 1 << 10
MB = 1 << 20
GB = 1 << 30

# RAM below 4 GB ends here at most. Its last 64 KB are the BIOS's tables; before them lies the page of the registers.
LOW = 3 * GB
TABLES = 64 * KB
MMCFG = 0xE0000000
HIGH = 4 * GB

# Version, capabilities, extended capabilities and global status of the remapping unit: offset -> 32 bits.
DRHD_REGISTERS = {0x08: 0x20260402, 0x0C: 0x0000000C, 0x10: 0x0000101B, 0x1C: 0}

# What the emulator's processor has and ACRN asks for, by ACRN's names.
CAPABILITIES = [
    "sse3",
    "pclmulqdq",
    "vmx",
    "ssse3",
    "fma",
    "cmpxchg16b",
    "sse4_1",
    "sse4_2",
    "x2apic",
    "movbe",
    "popcnt",
    "tsc_deadline",
    "aes",
    "xsave",
    "avx",
    "f16c",
    "rdrand",
    "fpu",
    "vme",
    "de",
    "pse",
    "tsc",
    "msr",
    "pae",
    "mce",
    "cx8",
    "apic",
    "sep",
    "mtrr",
    "pge",
    "mca",
    "cmov",
    "pat",
    "pse36",
    "clfsh",
    "mmx",
    "fxsr",
    "sse",
    "sse2",
    "fsgsbase",
    "bmi1",
    "avx2",
    "smep",
    "bmi2",
    "erms",
    "invpcid",
    "rdseed",
    "adx",
    "smap",
    "clflushopt",
    "lahf_sahf_64",
    "prefetchw",
    "syscall_sysret_64",
    "execute_disable",
    "gbyte_pages",
    "rdtscp_ia32_tsc_aux",
    "intel_64",
    "invariant_tsc",
]


@dataclass(frozen=True)
class Machine:
    """The emulated machine: number of processors, and bytes of RAM (3 GB below the PCI window, the rest above 4 GB).

    The emulator's own start takes time with the square of the RAM: a minute and more of processor time for 5 GB.
    """

    cpus: int = 2
    memory: int = 2 * GB
    # The memory map that ACRN v2.x makes wants one PCI device with a BAR in the window of the host bridge.
    display: bool = False

    @property
    def tables(self) -> int:
        """Where the tables of the BIOS begin."""
        return min(self.memory, LOW) - TABLES

    @property
    def drhd(self) -> int:
        """The page that plays the registers of the remapping unit, behind the last byte of RAM that is anybody's."""
        return self.tables - TABLES

    @property
    def given(self) -> int:
        """Where the RAM of pre-launched VMs begins.

        Below 4 GB GRUB leaves it out of the memory map, so that neither GRUB nor the hypervisor puts anything into it
        before these VMs get it.
        """
        return HIGH if self.memory > 4 * GB else 0x50000000

    @property
    def high_end(self) -> int | None:
        """The last byte of RAM above 4 GB, if there is any."""
        # The machine has its PCI window between 3 and 4 GB, and as much less RAM above 4 GB.
        return HIGH + self.memory - 4 * GB - 1 if self.memory > 4 * GB else None


def _define(name: str, value: str) -> str:
    return f"        #define {name} {value}"


def _section(tag: str, *lines: str) -> str:
    return "\n".join([f"  <{tag}>", *(f"        {line.strip()}" for line in lines), f"        </{tag}>"])


def _pm_registers() -> list[str]:
    lines = []
    for name, width, address, space in (
        ("PM1A_EVT", 0x20, 0xB000, "SPACE_SYSTEM_IO"),
        ("PM1B_EVT", 0, 0, "SPACE_SYSTEM_MEMORY"),
        ("PM1A_CNT", 0x10, 0xB004, "SPACE_SYSTEM_IO"),
        ("PM1B_CNT", 0, 0, "SPACE_SYSTEM_MEMORY"),
    ):
        lines += [
            _define(f"{name}_SPACE_ID", space),
            _define(f"{name}_BIT_WIDTH", f"{width:#X}U".replace("0X", "0x")),
            _define(f"{name}_BIT_OFFSET", "0x0U"),
            _define(f"{name}_ADDRESS", f"0x{address:X}UL"),
            _define(f"{name}_ACCESS_SIZE", "0x0U"),
        ]
    return lines


def low_ram(machine: Machine, given: int) -> list[tuple[int, int]]:
    """First and last byte of RAM between 1 MB and 4 GB, without so many bytes that pre-launched VMs have of it."""
    first, last = MB, machine.drhd - 1
    if not given or machine.given >= HIGH:
        return [(first, last)]
    return [(first, machine.given - 1), (machine.given + given, last)]


def _iomem(machine: Machine, given: int) -> list[str]:
    return [
        "00000000-00000fff : Reserved",
        "00001000-0009efff : System RAM",
        "0009f000-0009ffff : Reserved",
        "000a0000-000bffff : PCI Bus 0000:00",
        "000e8000-000fffff : Reserved",
        *(f"{first:08x}-{last:08x} : System RAM" for first, last in low_ram(machine, given)),
        f"{machine.tables:08x}-{machine.tables + TABLES - 1:08x} : ACPI Tables",
        "c0000000-dfffffff : PCI Bus 0000:00",
        *(["  d0000000-d0ffffff : 0000:00:02.0"] if machine.display else []),
        f"{MMCFG:08x}-{MMCFG + MB - 1:08x} : PCI MMCONFIG 0000 [bus 00-00]",
        "fec00000-fec003ff : IOAPIC 0",
        "fed00000-fed003ff : HPET 0",
        f"{machine.drhd:08x}-{machine.drhd + 0xFFF:08x} : dmar0",
        "fee00000-fee00fff : Local APIC",
        "fffc0000-ffffffff : Reserved",
        *([] if machine.high_end is None else [f"100000000-{machine.high_end:09x} : System RAM"]),
    ]


def _text_sections(machine: Machine, given: int) -> list[str]:
    """What ACRN's tools read as text."""
    return [
        _section("BIOS_INFO", "BIOS Information", "Vendor: Bochs", "Version: 2.7"),
        _section("BASE_BOARD_INFO"),
        _section("PCI_DEVICE"),
        _section("PCI_VID_PID"),
        _section("WAKE_VECTOR_INFO"),
        _section(
            "RESET_REGISTER_INFO",
            _define("RESET_REGISTER_ADDRESS", "0xCF9UL"),
            _define("RESET_REGISTER_SPACE_ID", "SPACE_SYSTEM_IO"),
            _define("RESET_REGISTER_VALUE", "0x6U"),
        ),
        _section("PM_INFO", *_pm_registers()),
        _section("S3_INFO"),
        _section("S5_INFO"),
        _section(
            "DRHD_INFO",
            _define("DRHD_COUNT", "1U"),
            _define("DRHD0_DEV_CNT", "0x1U"),
            _define("DRHD0_SEGMENT", "0x0U"),
            _define("DRHD0_FLAGS", "0x1U"),
            _define("DRHD0_REG_BASE", f"0x{machine.drhd:X}UL"),
            _define("DRHD0_IGNORE", "true"),
            _define("DRHD0_DEVSCOPE0_TYPE", "0x3U"),
            _define("DRHD0_DEVSCOPE0_ID", f"0x{machine.cpus:X}U"),
            _define("DRHD0_DEVSCOPE0_BUS", "0xf0U"),
            _define("DRHD0_DEVSCOPE0_PATH", "0xf8U"),
        ),
        _section("CPU_BRAND", '"Bochs"'),
        _section("CX_INFO", "/* Cx data is not available */"),
        _section("PX_INFO", "/* Px data is not available */"),
        _section(
            "MMCFG_BASE_INFO", "/* PCI mmcfg base of MCFG */", _define("DEFAULT_PCI_MMCFG_BASE", f"0x{MMCFG:x}UL")
        ),
        _section("TPM_INFO", "/* no TPM device */"),
        _section("CLOS_INFO"),
        _section("IOMEM_INFO", *_iomem(machine, given)),
        _section("BLOCK_DEVICE_INFO"),
        _section("TTYS_INFO", "seri:/dev/ttyS0 type:portio base:0x3F8 irq:4"),
        _section("AVAILABLE_IRQ_INFO", "3, 5, 6, 7, 10, 11, 13, 14, 15"),
        _section("TOTAL_MEM_INFO", f"{machine.memory // KB - MB} kB"),
        _section("CPU_PROCESSOR_INFO", ", ".join(map(str, range(machine.cpus)))),
        _section("MAX_MSIX_TABLE_NUM", "16"),
    ]


_CPU = """\
          <family_id>0x6</family_id>
          <model_id>0x8c</model_id>
          <stepping_id>0x1</stepping_id>
          <core_type></core_type>
          <native_model_id></native_model_id>"""


def _processors(machine: Machine) -> list[str]:
    lines = ["  <processors>", '    <model description="Bochs">']
    lines += [line for line in _CPU.splitlines() if "stepping" not in line]
    lines += [f'      <capability id="{name}"/>' for name in CAPABILITIES]
    lines += [
        '      <attribute id="physical_address_bits">40</attribute>',
        '      <attribute id="linear_address_bits">48</attribute>',
        "    </model>",
        '    <die id="0">',
    ]
    for cpu in range(machine.cpus):
        lines += [
            f'      <core id="{cpu:#x}">',
            f'        <thread id="{cpu:#x}">',
            f"          <cpu_id>{cpu}</cpu_id>",
            f"          <apic_id>{cpu:#x}</apic_id>",
            f"          <x2apic_id>{cpu:#x}</x2apic_id>",
            _CPU,
            "        </thread>",
            "      </core>",
        ]
    return [*lines, "    </die>", "  </processors>"]


def _caches(machine: Machine) -> list[str]:
    facts = {
        "cache_size": 8 * MB,
        "line_size": 64,
        "ways": 16,
        "sets": 8192,
        "partitions": 1,
        "self_initializing": 1,
        "fully_associative": 0,
        "write_back_invalidate": 0,
        "cache_inclusiveness": 1,
        "complex_cache_indexing": 0,
    }
    return [
        "  <caches>",
        '    <cache level="3" id="0x0" type="3">',
        *(f"      <{name}>{value}</{name}>" for name, value in facts.items()),
        "      <processors>",
        *(f"        <processor>{cpu:#x}</processor>" for cpu in range(machine.cpus)),
        "      </processors>",
        "    </cache>",
        "  </caches>",
    ]


def _devices(machine: Machine) -> list[str]:
    display = [
        '        <device address="0x20000" description="VGA compatible controller: Bochs">',
        "          <vendor>0x1234</vendor>",
        "          <identifier>0x1111</identifier>",
        "          <class>0x030000</class>",
        '          <resource id="bar0" type="memory" min="0xd0000000" max="0xd0ffffff" len="0x1000000"/>',
        "        </device>",
    ]
    return [
        "  <devices>",
        '    <bus type="system">',
        "      <acpi_object>\\_SB_</acpi_object>",
        '      <bus id="PNP0A03" type="pci" address="0x0" description="Host bridge: Intel Corporation 440FX">',
        "        <vendor>0x8086</vendor>",
        "        <identifier>0x1237</identifier>",
        "        <class>0x060000</class>",
        "        <acpi_object>\\_SB_.PCI0</acpi_object>",
        '        <resource id="res0" type="bus_number" min="0x0" max="0xff" len="0x100"/>',
        '        <resource id="res2" type="io_port" min="0x0" max="0xcf7" len="0xcf8"/>',
        '        <resource id="res3" type="io_port" min="0xd00" max="0xffff" len="0xf300"/>',
        '        <resource id="res5" type="memory" min="0xc0000000" max="0xdfffffff" len="0x20000000"/>',
        *(display if machine.display else []),
        "      </bus>",
        "    </bus>",
        "  </devices>",
        "  <device-classes>",
        "    <inputs/>",
        "    <ttys>",
        "      <serial>",
        "        <dev_path>/dev/ttyS0</dev_path>",
        "        <type>portio</type>",
        "        <base>0x3F8</base>",
        "        <irq>4</irq>",
        "      </serial>",
        "    </ttys>",
        "  </device-classes>",
    ]


def _memory(machine: Machine) -> list[str]:
    ranges = [(0, 0x9EFFF), (MB, machine.drhd - 1)]
    if machine.high_end is not None:
        ranges.append((HIGH, machine.high_end))
    return [
        "  <memory>",
        *(f'    <range start="{start:#018x}" end="{end:#018x}" size="{end - start + 1}"/>' for start, end in ranges),
        "  </memory>",
        "  <ioapics>",
        f'    <ioapic id="{machine.cpus:#x}">',
        "      <address>0xfec00000</address>",
        "      <gsi_base>0x0</gsi_base>",
        "      <gsi_number>24</gsi_number>",
        "    </ioapic>",
        "  </ioapics>",
    ]


def board_xml(machine: Machine, given: int = 0, *, named: bool = True) -> str:
    """The board XML of a machine, in the form that both v2.x and v3.x read.

    ``given``: bytes of RAM that pre-launched VMs have; below 4 GB they are not in the memory map (grub_prelude).
    ``named``: the resources of the bus have IDs, as v2.6 and later write and read them.
    """
    text = "\n".join(
        [
            '<acrn-config board="bochs">',
            *_text_sections(machine, given),
            *_processors(machine),
            *_caches(machine),
            *_memory(machine),
            *_devices(machine),
            "</acrn-config>",
            "",
        ]
    )
    return text if named else re.sub(r'<resource id="res\d"', "<resource", text)


def grub_prelude(machine: Machine, given: int = 0) -> list[str]:
    """Commands of GRUB for what nobody else may have: the page of the remapping unit's registers, which they also fill.

    ``given``: bytes of RAM that pre-launched VMs have.
    """
    return [
        *([f"cutmem {machine.given:#x} {machine.given + given:#x}"] if given and machine.given < HIGH else []),
        f"cutmem {machine.drhd:#x} {machine.tables:#x}",
        *(f"write_dword {machine.drhd + offset:#x} {value:#x}" for offset, value in sorted(DRHD_REGISTERS.items())),
    ]
