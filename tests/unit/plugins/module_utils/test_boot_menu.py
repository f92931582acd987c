# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _menu as menu

# As ACRN's package grub-acrn writes it (25_linux_acrn).
PACKAGED = """\
menuentry 'Debian with ACRN hypervisor, with Linux 6.1 (ACRN 3.3)' --class acrn $menuentry_id_option 'acrn-gnulinux-5' {
\tinsmod part_gpt
\tif [ x$feature_platform_search_hint = xy ]; then
\t  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt2 9bd5
\telse
\t  search --no-floppy --fs-uuid --set=root 9bd5
\tfi
\techo\t'Loading ACRN hypervisor 3.3 ...'
\tmultiboot2\t/boot/acrn-3.3.bin cpu_perf_policy=Performance uart=bdf@0xc1 root=UUID=9bd5 ro quiet
\techo\t'Loading ACRN Service VM Linux kernel 6.1 ...'
\tmodule2\t/boot/vmlinuz-6.1 Linux_bzImage\x20
\tmodule2 --nounzip\t/boot/initrd.img-6.1\x20
}
"""
BY_HAND = """
submenu "Other {ways}" --id other {
  menuentry "ACRN \\"hybrid\\"" --id=ACRN { # a comment with { in it
    multiboot --quirk-modules-after-kernel /acrn/acrn.32.out root=/dev/sda3; module /kernel RT_bzImage isolcpus=1 rw
  }
  menuentry Linux { linux /vmlinuz root=/dev/sda3
    initrd /acrn-initrd }
}
function multiboot2 { true; }
"""


def test_packaged_entry():
    (entry,) = menu.acrn_entries(PACKAGED)
    assert entry.id == "acrn-gnulinux-5"
    assert entry.arguments == ("cpu_perf_policy=Performance", "uart=bdf@0xc1", "root=UUID=9bd5", "ro", "quiet")
    assert entry.modules == (("/boot/vmlinuz-6.1", "Linux_bzImage", ()), ("/boot/initrd.img-6.1", "", ()))


def test_entry_by_hand_in_a_submenu():
    (entry,) = menu.acrn_entries(BY_HAND)
    assert (entry.title, entry.id, entry.image) == ('ACRN "hybrid"', "ACRN", "/acrn/acrn.32.out")
    assert entry.modules == (("/kernel", "RT_bzImage", ("isolcpus=1", "rw")),)


def test_the_entry_in_use():
    entries = menu.acrn_entries(PACKAGED + BY_HAND)
    assert menu.in_use(entries, None) == entries[0]
    assert menu.in_use(entries, ["rw", "root=/dev/sda3"]) == entries[1]
    assert menu.in_use(entries, ["rw", "root=x", *entries[0].arguments]) == entries[0]
    assert menu.in_use(entries, ["root=UUID=other"]) is None
    assert menu.in_use([], None) is None


@pytest.mark.parametrize(
    "text", ["", "menuentry {", "}}}{{{", "menuentry 'x", '"', "menuentry 'x' { multiboot2\n}", "\\"]
)
def test_text_that_is_no_script(text):
    assert menu.acrn_entries(text) == []


def test_any_text_is_read():
    hypothesis = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    words = ["menuentry ", "if ", "then ", "fi", " multiboot2 /acrn "]
    piece = st.sampled_from([*words, *"x'\"{}\n;\\#"])

    @hypothesis.given(st.lists(piece, max_size=30))
    def check(pieces):
        menu.acrn_entries("".join(pieces))

    check()
