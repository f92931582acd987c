#!/bin/sh
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What a guest without Python shows to the controller, which decides by it as the module acrn.ivshmem.guest_device does
# (plugins/plugin_utils/_guest_shell.py). Nothing is decided and nothing is changed here. POSIX sh with the usual
# programs; busybox has them all.
#
# One line for each thing: "f PATH" is a file, whose bytes follow as lines of hexadecimal numbers, "x PATH" one that
# cannot be read, "e PATH" something that is there, "l PATH NAME" a link and the last part of what it points to,
# "n PATH NAME" an entry of a directory, "a GID MODE PATH" who may use a file, "r" the kernel's release, "g" the ID of
# the group.

set -u
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin:/usr/bin:/bin

# Another directory in tests only.
root=${ACRN_IVSHMEM_ROOT:-}
mark='acrn.ivshmem: '

hex() {
    if command -v od >/dev/null; then od -An -v -tx1 -N "$2" "$1"; else hexdump -v -n "$2" -e '16/1 " %02x" "\n"' "$1"; fi
}
file() { # path: the first bytes of a file
    [ -e "$root$1" ] || return 0
    # A FIFO would be waited for, and a device never ends.
    if [ -f "$root$1" ] && bytes=$(hex "$root$1" "${2:-65537}" 2>/dev/null); then
        printf 'f %s\n' "$1"
        [ -z "$bytes" ] || printf '%s\n' "$bytes"
    else
        printf 'x %s\n' "$1"
    fi
}
link() {
    if to=$(readlink "$root$1"); then printf 'l %s %s\n' "$1" "${to##*/}"; fi
}
there() {
    if [ -e "$root$1" ]; then printf 'e %s\n' "$1"; fi
}
owners() {
    for path; do
        if [ -e "$root$path" ]; then stat -c "a %g %a $path" "$root$path"; fi
    done
}
group_id() { # name: its ID, or nothing
    found=''
    if [ -z "$root" ] && command -v getent >/dev/null; then found=$(getent group "$1" | cut -d: -f3); fi
    [ -n "$found" ] || found=$(awk -F: -v g="$1" '$1 == g { print $3; exit }' "$root/etc/group" 2>/dev/null)
    printf '%s' "$found"
}

look() { # vendor device group file...
    vendor=$1 device=$2 group=$3
    shift 3
    release=$(uname -r)
    printf 'r %s\n' "$release"
    for path; do file "$path"; done
    for folder in "$root"/sys/bus/pci/devices/*; do
        address=${folder##*/}
        base=/sys/bus/pci/devices/$address
        first='' second=''
        if [ -r "$root$base/vendor" ]; then read -r first <"$root$base/vendor"; fi
        if [ -r "$root$base/device" ]; then read -r second <"$root$base/device"; fi
        [ "$first $second" = "$vendor $device" ] || continue
        printf 'n /sys/bus/pci/devices %s\n' "$address"
        for name in vendor device subsystem_vendor subsystem_device resource driver_override; do file "$base/$name"; done
        file "$base/config" 256
        link "$base/driver"
        link "$base/iommu_group"
        owners "$base/resource0" "$base/resource2" "$base/resource2_wc"
        for node in "$root$base"/uio/*; do
            if [ -d "$node" ]; then
                printf 'n %s/uio %s\n' "$base" "${node##*/}"
                owners "/dev/${node##*/}"
            fi
        done
    done
    for path in /sys/bus/pci/drivers/uio_pci_generic /sys/bus/pci/drivers/vfio-pci /run/udev/control; do there "$path"; done
    for path in "$root"/dev/vfio/*; do there "/dev/vfio/${path##*/}"; done
    for path in "$root"/dev/ivshmem/*; do
        name=${path##*/}
        # Names of others, which no device of ours can have.
        case $name in *[!A-Za-z0-9_.-]*) continue ;; esac
        if [ -h "$path" ]; then
            printf 'n /dev/ivshmem %s\n' "$name"
            link "/dev/ivshmem/$name"
            there "/dev/ivshmem/$name"
        fi
    done
    for path in "/lib/modules/$release/modules.dep" "/lib/modules/$release/modules.builtin"; do
        if [ ! -f "$root$path" ] || [ ! -r "$root$path" ]; then continue; fi
        # Of a file of 500 kB, what is asked of it. Nothing of it is known where it cannot be read.
        if names=$(sed -n -e 's,^.*\(/uio[-_]pci[-_]generic\.ko\).*$,\1,p' -e 's,^.*\(/vfio[-_]pci\.ko\).*$,\1,p' \
            "$root$path" 2>/dev/null) && bytes=$(printf '%s\n' "$names" | hex - 65537); then
            printf 'f %s\n%s\n' "$path" "$bytes"
        else
            printf 'x %s\n' "$path"
        fi
    done
    [ -z "$group" ] || printf 'g %s\n' "$(group_id "$group")"
}
sum() { printf '%s\n' "$1" | cksum; }
show() { # what there is, and a sum by which the controller knows that it is whole, and this guest that nothing has changed
    seen=$(asked)
    printf '\n%sseen\n%s\n%send %s\n' "$mark" "$seen" "$mark" "$(sum "$seen")"
}
