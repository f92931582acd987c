#!/bin/sh
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What the module acrn.ivshmem.guest_device does, for guests without Python: the same steps in the same order, the same
# files, byte for byte. POSIX sh with the usual programs (busybox has them all): awk, sed, sort, stat -c, mktemp.
#
#   guest_device.sh [--check] [--absent] [--driver D] [--method M] [--force] [--no-persist] [--exclusive] [--group G]
#                   [--mode 0660] [--unsafe-noiommu] [--all | --device NAME,BDF,REGION_ID,SIZE_MB ...]
#
# A value of a device that is not known is "-". Prints one line for each step, and at the end changed=0 or changed=1.

set -u
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin:/usr/bin:/bin

# Another directory in tests only.
root=${ACRN_IVSHMEM_ROOT:-}
release=${ACRN_IVSHMEM_RELEASE:-$(uname -r)}

sysfs=/sys/bus/pci
rules=/etc/udev/rules.d/70-acrn-ivshmem.rules
run_rules=/run/udev/rules.d/70-acrn-ivshmem.rules
noiommu_conf=/etc/modprobe.d/acrn-ivshmem.conf
noiommu_parameter=/sys/module/vfio/parameters/enable_unsafe_noiommu_mode
marker='# Managed by the Ansible module acrn.ivshmem.guest_device: changes made by hand are lost.'
resources='resource0 resource2 resource2_wc'

check=0 absent=0 driver=uio_pci_generic method=new_id force=0 persist=1 exclusive=0 group='' mode='' noiommu=0 all=0
devices=''
nl='
'

work=$(mktemp -d) || exit 1
mine=''
trap 'rm -rf "$work" ${mine:+"$mine"}' EXIT

fail() {
    printf 'acrn.ivshmem: %s\n' "$1" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        --check) check=1 ;;
        --absent) absent=1 ;;
        --force) force=1 ;;
        --no-persist) persist=0 ;;
        --exclusive) exclusive=1 ;;
        --unsafe-noiommu) noiommu=1 ;;
        --all) all=1 ;;
        --driver) driver=$2; shift ;;
        --method) method=$2; shift ;;
        --group) group=$2; shift ;;
        --mode) mode=$2; shift ;;
        --device) devices="$devices$2$nl"; shift ;;
        *) fail "unknown option '$1'" ;;
    esac
    shift
done

# The same forms as the module accepts: they go into a udev rule, and into a shell command inside it.
case $driver in uio_pci_generic | vfio-pci) ;; *) fail "driver '$driver' is neither uio_pci_generic nor vfio-pci" ;; esac
case $method in new_id | driver_override) ;; *) fail "method '$method' is neither new_id nor driver_override" ;; esac
case $group in *[!A-Za-z0-9_.-]* | [0-9.-]*) fail "group '$group' is not the name of a group" ;; esac
case $mode in
    '' | [0-7][0-7][0-7] | 0[0-7][0-7][0-7]) ;;
    *) fail "mode '$mode': write it as octal digits in quotes, such as '0660'" ;;
esac
[ -n "$group" ] && [ -z "$mode" ] && mode=0660
[ -z "$mode" ] || mode=$(printf '%o' "0$mode")

text() { # first line of a file
    head_line=''
    if [ -r "$root$1" ]; then IFS= read -r head_line <"$root$1" || :; fi
    printf '%s' "$head_line"
}
target() { # last part of what a link points to
    place=$(readlink "$root$1") || place=''
    printf '%s' "${place##*/}"
}
short() { printf '%s' "${1#0000:}"; }

# What there is. One line for each function in $work/functions: address driver override sub_vendor sub_device bytes uio
# iommu_group, with "-" where there is nothing.

observe() {
    : >"$work/functions"
    for folder in "$root$sysfs"/devices/*; do
        address=${folder##*/}
        base=$sysfs/devices/$address
        [ "$(text "$base/vendor") $(text "$base/device")" = '0x1af4 0x1110' ] || continue
        held=$(target "$base/driver")
        override=$(text "$base/driver_override")
        [ "$override" = '(null)' ] && override=''
        bar=$(sed -n 3p "$root$base/resource")
        # shellcheck disable=SC2086
        set -- $bar
        bytes=0
        [ "$(($3))" -ne 0 ] && bytes=$(($2 - $1 + 1))
        uio=''
        for node in "$root$base"/uio/*; do
            if [ -z "$uio" ] && [ -d "$node" ]; then uio=${node##*/}; fi
        done
        iommu=$(target "$base/iommu_group")
        printf '%s %s %s %d %d %d %s %s\n' "$address" "${held:--}" "${override:--}" \
            "$(text "$base/subsystem_vendor")" "$(text "$base/subsystem_device")" "$bytes" "${uio:--}" "${iommu:--}" \
            >>"$work/functions"
    done
}
field() { # address column
    awk -v a="$1" -v c="$2" '$1 == a { print $c }' "$work/functions"
}
describe() { # address: 00:06.0 (2 MB)
    awk -v a="$1" '$1 == a {
        sub(/^0000:/, "", $1)
        s = ($6 && $6 % 1048576 == 0) ? $6 / 1048576 " MB" : $6 " bytes"
        if ($4 == 32902 && $5) s = s ", region ID " $5
        print $1 " (" s ")" }' "$work/functions"
}
listing() {
    awk '{ print $1 }' "$work/functions" | while read -r address; do describe "$address"; done |
        awk '{ s = s (NR > 1 ? ", " : "") $0 } END { print s ? s : "none" }'
}

# Which function is which device. $work/selected has lines "address name" in the order of the options.

known() { # a device for messages
    printf "'%s' (bdf %s, region ID %s, size %s MB)" "$1" "$2" "$3" "$4"
}
choose() {
    : >"$work/taken"
    : >"$work/chosen"
    printf '%s' "$devices" | awk -F, '{ print ($2 == "-" ? ($3 == "-" || $3 == 0 ? 3 : 2) : 1) "," NR "," $0 }' |
        sort -t, -k1,1n -k2,2n >"$work/devices"
    while IFS=, read -r _class number name bdf id size; do
        case $name in
            *[!A-Za-z0-9_.-]* | [.-]?* | '')
                fail "device name '$name': it becomes a file name in /dev/ivshmem, so use letters, digits, '_', '-' and '.'" ;;
        esac
        [ "$id" = 0 ] && id=-
        case $bdf in
            -) ;;
            ????:??:??.?) bdf=$(printf '%s' "$bdf" | tr A-F a-f) ;;
            *) bdf=0000:$(printf '%s' "$bdf" | tr A-F a-f) ;;
        esac
        [ "$bdf$id$size" = --- ] && fail "device '$name': give bdf (or slot), region_id or size, so that its function can be told"
        awk -v bdf="$bdf" -v id="$id" -v size="$size" -v taken="$(cat "$work/taken")" '
            bdf != "-" { if ($1 == bdf) print $1; next }
            index(taken, $1) { next }
            size != "-" && $6 != size * 1048576 { next }
            id != "-" && $4 == 32902 { if ($5 == id) with_id = with_id $1 "\n"; next }
            id != "-" && size == "-" { next }
            { fits = fits $1 "\n" }
            END { printf "%s", (with_id != "" ? with_id : fits) }' "$work/functions" >"$work/fits"
        case $(wc -l <"$work/fits") in
            *[!0-9]*1 | 1) ;;
            *0)
                [ "$absent" -eq 1 ] && continue
                fail "device $(known "$name" "$bdf" "$id" "$size"): the guest has no such ivshmem function${nl}ivshmem functions of this guest: $(listing)" ;;
            *) fail "device $(known "$name" "$bdf" "$id" "$size") fits several functions: $(tr '\n' ' ' <"$work/fits"); add its bdf or region_id" ;;
        esac
        address=$(cat "$work/fits")
        grep -q "^$address\$" "$work/taken" && fail "two devices are one function: $(short "$address")"
        bytes=$(field "$address" 6)
        [ "$size" = - ] || [ "$bytes" -eq "$((size * 1048576))" ] ||
            fail "device '$name': size should be $size MB, but function $(describe "$address") has not; correct the declaration, or the launch script or scenario that made the function"
        if [ "$id" != - ] && [ "$(field "$address" 4)" -eq 32902 ] && [ "$(field "$address" 5)" -ne "$id" ]; then
            fail "device '$name': region ID should be $id, but function $(describe "$address") has not; correct the declaration, or the launch script or scenario that made the function"
        fi
        printf '%s\n' "$address" >>"$work/taken"
        printf '%s %s %s\n' "$number" "$address" "$name" >>"$work/chosen"
    done <"$work/devices" || exit 1
    sort -n "$work/chosen" | sed 's/^[0-9]* //' >"$work/selected"
    double=$(sed 's/^[^ ]* //' "$work/selected" | grep -v '^-$' | sort | uniq -d | sed -n 1p)
    [ -z "$double" ] || fail "two devices are named '$double', but /dev/ivshmem/$double can be one only: rename one"
}

# Rules files: each function has a block, here in a file of its own below $work/KIND/.

split() { # path directory
    mkdir -p "$work/$2"
    [ -s "$root$1" ] || return 0
    [ "$(text "$1")" = "$marker" ] ||
        fail "$1 was not written by acrn.ivshmem.guest_device: move it away, nothing was changed"
    awk -v d="$work/$2/" '/^# function / { f = d $3 } f && NF { print > f }' "$root$1"
}
header() { # directory key column
    sed -n '1p' "$work/$1/$2" | awk -v c="$3" '{ print $c }'
}
block() { # key name with_driver
    [ "$3" -eq 1 ] && bound=$driver || bound=-
    printf '# function %s name %s driver %s\n' "$1" "$2" "$bound"
    [ "$1" = all ] && one='' nodes='' || one="KERNEL==\"$1\", " nodes="KERNELS==\"$1\", "
    pci="ACTION==\"add\", SUBSYSTEM==\"pci\", ${one}ATTR{vendor}==\"0x1af4\", ATTR{device}==\"0x1110\""
    # shellcheck disable=SC2016
    [ "$3" -eq 1 ] && printf '%s, ATTR{driver_override}="%s", RUN{builtin}+="kmod load %s", ATTR{[subsystem/pci]drivers_probe}="$kernel"\n' "$pci" "$driver" "$driver"
    [ "$bound" = vfio-pci ] && return 0
    settings=''
    [ "$2" = - ] || settings="SYMLINK+=\"ivshmem/$2\", "
    [ -z "$group" ] || settings="${settings}GROUP=\"$group\", "
    if [ -n "$mode" ]; then
        four=$(printf '%04o' "0$mode")
        settings="${settings}MODE=\"$four\", "
        # shellcheck disable=SC2016
        change=$(printf 'chmod %s $$f' "$four")
        # shellcheck disable=SC2016
        [ -z "$group" ] || change=$(printf 'chgrp %s $$f && %s' "$group" "$change")
        # shellcheck disable=SC2016
        printf '%s, RUN+="/bin/sh -c '\''cd /sys$devpath && for f in %s; do [ ! -e $$f ] || { %s; }; done'\''"\n' "$pci" "$resources" "$change"
    fi
    [ -z "$settings" ] || printf 'SUBSYSTEM=="uio", %sATTRS{vendor}=="0x1af4", ATTRS{device}=="0x1110", %s\n' "$nodes" "${settings%, }"
}
render() { # directory: the file of its blocks, nothing without blocks
    first=1
    for name in all $(cd "$work/$1" && ls); do
        [ -f "$work/$1/$name" ] || continue
        [ "$name" = all ] && [ "$first" -eq 0 ] && continue
        [ "$first" -eq 1 ] && printf '%s\n' "$marker"
        first=0
        printf '\n'
        cat "$work/$1/$name"
    done
}

# Steps: one line each in $work/actions, as the module returns them.

: >"$work/actions"
say() { printf '%s\n' "$*" >>"$work/actions"; }

file() { # path new-content-file: a step if it differs
    if [ -s "$2" ]; then
        if ! cmp -s "$root$1" "$2"; then
            mkdir -p "$work/new"
            cp "$2" "$work/new/$(printf '%s' "$1" | tr / _)"
            say "replace $1"
            return 0
        fi
    elif [ -e "$root$1" ]; then
        say "remove $1"
        return 0
    fi
    return 1
}
write_rules() { # lasting-directory fleeting-directory
    render "$1" >"$work/lasting.text"
    render "$2" >"$work/fleeting.text"
    news=0
    file "$rules" "$work/lasting.text" && news=1
    file "$run_rules" "$work/fleeting.text" && news=1
    [ "$news" -eq 0 ] || say reload
}
access() { # group-ID and mode of a file, or nothing
    if [ -n "$root" ]; then
        awk -v p="$1" '$1 == p { print $2, $3 }' "$root/access"
    else
        stat -c '%g %a' "$1" 2>/dev/null
    fi
}
group_id() {
    awk -F: -v g="$1" '$1 == g { print $3 }' "$root/etc/group"
}
release_function() { # address drivers ours
    held=$(field "$1" 2)
    override=$(field "$1" 3)
    case " $2 " in *" $held "*) say "unbind $1 $held" ;; esac
    case " $2 " in *" $override "*) say "override $1" ;; esac
    [ "$3" -eq 1 ] || return 0
    for name in $resources; do
        found=$(access "$sysfs/devices/$1/$name")
        [ -z "$found" ] || [ "$found" = '0 600' ] || say "access $sysfs/devices/$1/$name root 600"
    done
}
take_back() {
    awk '$1 == "unbind" && ($3 == "uio_pci_generic" || $3 == "vfio-pci") && !seen[$3]++ { print $3 }' "$work/actions" |
        while read -r freed; do
            grep -q "^remove_id $freed " "$work/actions" || say "remove_id $freed 1af4 1110"
        done
}
selected_has() { grep -q "^$1 " "$work/selected"; }

refuse() {
    while read -r address _name; do
        held=$(field "$address" 2)
        case $held in "$driver" | -) continue ;; esac
        ours=''
        for place in passing old; do
            [ -f "$work/$place/$address" ] && ours="$ours $(header $place "$address" 7)"
            [ -f "$work/$place/all" ] && ours="$ours $(header $place all 7)"
        done
        case " $ours " in *" $held "*) continue ;; esac
        [ "$force" -eq 1 ] || fail "function $(short "$address") is held by driver '$held', wanted is '$driver': stop what uses it and set force, or leave it out of devices"
    done <"$work/selected" || exit 1
    locked=$(text /sys/kernel/security/lockdown | sed -n 's/.*\[\(.*\)\].*/\1/p')
    # Where nothing is bound there is nothing that could not work, and all can be given back.
    if [ -s "$work/selected" ] && [ "$driver" = uio_pci_generic ] && [ "${locked:-none}" != none ]; then
        fail "the kernel is locked down ($locked, as with Secure Boot), so that no program may map the shared memory (resource2): boot the guest without lockdown, or use driver vfio-pci with an IOMMU"
    fi
    if [ -s "$work/pending" ]; then
        lists=$root/lib/modules/$release
        name=$(printf '%s' "$driver" | sed 's/[_-]/[-_]/g')
        if [ ! -d "$root$sysfs/drivers/$driver" ] && [ -r "$lists/modules.dep" ] &&
            ! grep -q "/$name\.ko" "$lists/modules.dep" 2>/dev/null && ! grep -q "/$name\.ko" "$lists/modules.builtin" 2>/dev/null; then
            case $(sed -n 's/^ID="\{0,1\}\([a-z0-9._-]*\).*/\1/p' "$root/etc/os-release" 2>/dev/null) in
                ubuntu) mend="install linux-modules-extra-$release" ;;
                debian) mend='install linux-image-amd64 (the cloud kernel leaves some out) and reboot, or another kernel' ;;
                *) mend='install the extra modules of that kernel, or one built with CONFIG_UIO_PCI_GENERIC or CONFIG_VFIO_PCI' ;;
            esac
            fail "kernel $release has no module $driver: $mend"
        fi
        major=${release%%.*}
        minor=${release#*.}
        minor=${minor%%[!0-9]*}
        if [ "$driver" = uio_pci_generic ] && { [ "$major" -lt 4 ] || { [ "$major" -eq 4 ] && [ "${minor:-0}" -lt 13 ]; }; }; then
            fail "kernel $release: before Linux 4.13 uio_pci_generic refuses a function without an interrupt line, which every ivshmem function of ACRN is ('No IRQ assigned to device'): use a newer kernel or driver vfio-pci"
        fi
        if [ "$driver" = vfio-pci ] && [ "$noiommu" -eq 0 ] && [ "$noiommu_on" -eq 0 ]; then
            while read -r address; do
                [ "$(field "$address" 8)" != - ] || fail "vfio-pci needs an IOMMU, and $(short "$address") is in no IOMMU group: give the guest one (and intel_iommu=on), or set unsafe_noiommu on a kernel with CONFIG_VFIO_NOIOMMU, which taints it"
            done <"$work/pending" || exit 1
        fi
    fi
    if [ -s "$work/selected" ] && [ "$persist" -eq 1 ] && [ "$udev" -eq 0 ]; then
        fail 'this guest runs no udev, which binds after a reboot: set persist to false'
    fi
    if [ -s "$root$noiommu_conf" ] && [ "$(text "$noiommu_conf")" != "$marker" ]; then
        fail "$noiommu_conf was not written by acrn.ivshmem.guest_device: move it away"
    fi
}
narrow() { # address: the narrowest id that fits it and no function of $work/others, or nothing
    [ -s "$work/others" ] || { echo '1af4 1110'; return; }
    vendor=$(field "$1" 4)
    device=$(field "$1" 5)
    while read -r other; do
        [ "$(field "$other" 4)" = "$vendor" ] && [ "$(field "$other" 5)" = "$device" ] && return
    done <"$work/others"
    printf '1af4 1110 %04x %04x\n' "$vendor" "$device"
}
refuse_beside_all() { # one function cannot be told from the rest where the rules name all
    if [ -f "$work/old/all" ] || [ -f "$work/passing/all" ]; then
        fail 'an earlier call without devices made every ivshmem function of this guest persistent: first name those that shall stay (state present, exclusive), or release all (state absent without devices)'
    fi
}
present() {
    [ "$all" -eq 1 ] || [ "$exclusive" -eq 1 ] || refuse_beside_all
    mkdir -p "$work/lasting" "$work/fleeting"
    cut -d' ' -f1 "$work/selected" >"$work/keys"
    [ "$all" -eq 0 ] || echo all >"$work/keys"
    # What earlier calls made persistent: released and dropped, or kept.
    for key in $(cd "$work" && find old passing -type f | sed 's,.*/,,' | sort -u); do
        grep -q "^$key\$" "$work/keys" && continue
        place=passing
        [ -f "$work/old/$key" ] && place=old
        if [ "$exclusive" -eq 1 ]; then
            earlier=$(header "$place" "$key" 7)
            case $earlier in uio_pci_generic | vfio-pci) ;; *) earlier=$driver ;; esac
            cut -d' ' -f1 "$work/functions" | while read -r address; do
                [ "$key" = all ] || [ "$key" = "$address" ] || continue
                selected_has "$address" || release_function "$address" "$earlier" 1
            done
        elif [ "$all" -eq 0 ]; then
            if [ "$place" = old ]; then cp "$work/old/$key" "$work/lasting/"; else cp "$work/passing/$key" "$work/fleeting/"; fi
        fi
    done
    [ "$exclusive" -eq 0 ] || take_back
    while read -r key; do
        name=$(awk -v a="$key" '$1 == a { print $2 }' "$work/selected")
        [ "$persist" -eq 1 ] && place=lasting || place=fleeting
        block "$key" "${name:--}" "$persist" >"$work/block"
        rm -f "$work/lasting/$key" "$work/fleeting/$key"
        [ "$(wc -l <"$work/block")" -le 1 ] || cp "$work/block" "$work/$place/$key"
    done <"$work/keys"
    if [ "$udev" -eq 0 ]; then rm -rf "$work/fleeting"; mkdir "$work/fleeting"; fi
    if [ "$noiommu" -eq 1 ] && [ "$driver" = vfio-pci ]; then
        if [ "$persist" -eq 1 ]; then
            printf '%s\noptions vfio enable_unsafe_noiommu_mode=1\n' "$marker" >"$work/conf"
            file "$noiommu_conf" "$work/conf"
        fi
    elif [ "$exclusive" -eq 1 ]; then
        file "$noiommu_conf" /dev/null
    fi
    write_rules lasting fleeting
    bind_all
    [ "$driver" = vfio-pci ] || while read -r address name; do open_up "$address" "$name"; done <"$work/selected"
}
bind_all() {
    [ -s "$work/pending" ] || return 0
    if [ "$noiommu" -eq 1 ] && [ "$driver" = vfio-pci ] && [ "$noiommu_on" -eq 0 ]; then say noiommu; fi
    [ -d "$root$sysfs/drivers/$driver" ] || say "modprobe $driver"
    while read -r address; do
        held=$(field "$address" 2)
        [ "$held" = - ] || say "unbind $address $held"
    done <"$work/pending"
    take_back
    cut -d' ' -f1 "$work/functions" | while read -r address; do
        selected_has "$address" && continue
        [ "$(field "$address" 2)" = - ] || grep -q "^unbind $address " "$work/actions" || continue
        printf '%s\n' "$address"
    done >"$work/others"
    : >"$work/ids"
    while read -r address; do
        override=$(field "$address" 3)
        id=''
        [ "$method" = new_id ] && id=$(narrow "$address")
        if [ -z "$id" ]; then
            [ "$override" = "$driver" ] || say "override $address $driver"
            continue
        fi
        case $override in - | "$driver") ;; *) say "override $address" ;; esac
        grep -q "^$id\$" "$work/ids" || printf '%s\n' "$id" >>"$work/ids"
    done <"$work/pending"
    while read -r id; do say "new_id $driver $id"; done <"$work/ids"
    while read -r address; do say "bind $address $driver"; done <"$work/pending"
}
open_up() { # address name
    uio=$(field "$1" 7)
    if [ -n "$mode$group" ]; then
        wanted_gid=''
        [ -z "$group" ] || wanted_gid=$(group_id "$group")
        node=''
        [ "$uio" = - ] || node=/dev/$uio
        for path in "$sysfs/devices/$1/resource0" "$sysfs/devices/$1/resource2" "$sysfs/devices/$1/resource2_wc" "$node"; do
            found=$(access "$path")
            case $path in
                */resource*) [ -n "$found" ] || continue ;;
                *) found=${found:-0 600} ;;
            esac
            bits=${mode:-${found#* }}
            wanted="${wanted_gid:-${found% *}} $bits"
            if [ "$wanted" != "$found" ] || { [ -n "$group" ] && [ -z "$wanted_gid" ]; }; then
                say "access ${path:-$1} $group $bits"
            fi
        done
    fi
    if [ "$2" != - ] && [ "$udev" -eq 1 ]; then
        if [ "$uio" = - ] || [ "$(target "/dev/ivshmem/$2")" != "$uio" ]; then say "link $1 $2"; fi
    fi
}
gone() { # absent: drop the blocks of what is released
    : >"$work/gone"
    if [ "$all" -eq 1 ]; then
        (cd "$work" && find old passing -type f | sed 's,.*/,,' | sort -u) >"$work/gone"
    else
        refuse_beside_all
        for key in $(cd "$work" && find old passing -type f | sed 's,.*/,,' | sort -u); do
            place=passing
            [ -f "$work/old/$key" ] && place=old
            named=$(header "$place" "$key" 5)
            if grep -q "^$key " "$work/selected" ||
                awk -F, -v k="$key" -v n="$named" '($4 != "-" && (tolower($4) == k || "0000:" tolower($4) == k)) || (n != "-" && $3 == n) { hit = 1 } END { exit !hit }' "$work/devices"; then
                printf '%s\n' "$key" >>"$work/gone"
            fi
        done
    fi
    while read -r address _name; do
        ours=0
        taken=$driver
        for key in "$address" all; do
            grep -q "^$key\$" "$work/gone" || continue
            ours=1
            place=passing
            [ -f "$work/old/$key" ] && place=old
            # What an earlier call bound to another driver is given back just so: its rule goes, too.
            earlier=$(header "$place" "$key" 7)
            case $earlier in uio_pci_generic | vfio-pci) taken="$taken $earlier" ;; esac
        done
        release_function "$address" "$taken" "$ours"
    done <"$work/selected"
    take_back
    [ "$all" -eq 0 ] || file "$noiommu_conf" /dev/null
    while read -r key; do rm -f "$work/old/$key" "$work/passing/$key"; done <"$work/gone"
    write_rules old passing
}

# Carrying out.

store() { # path content-file: in one step, mode 0644
    mkdir -p "${1%/*}"
    # Under the lock nobody else has one, so what is there was left by a run that was killed.
    rm -f "${1%/*}"/.acrn-ivshmem-*
    fresh=${1%/*}/.acrn-ivshmem-new
    cat "$2" >"$fresh" && chmod 0644 "$fresh" && mv "$fresh" "$1"
}
put() { printf '%s\n' "$2" 2>/dev/null >"$1"; }
holder() { target "$sysfs/devices/$1/driver"; }

act() { # a step in words
    case $1 in
        replace) store "$2" "$work/new/$(printf '%s' "$2" | tr / _)" || fail "$2 cannot be written: is this root?" ;;
        remove) rm -f "$2" ;;
        reload) udevadm control --reload >/dev/null 2>&1 ;;
        modprobe)
            output=$(modprobe "$2" 2>&1)
            [ -d "$sysfs/drivers/$2" ] || fail "modprobe $2 failed ($output): install the extra modules of that kernel"
            ;;
        noiommu)
            modprobe vfio >/dev/null 2>&1
            put "$noiommu_parameter" 1 || fail "kernel $release was built without CONFIG_VFIO_NOIOMMU: give the guest an IOMMU, or a kernel with that option"
            ;;
        unbind) put "$sysfs/drivers/$3/unbind" "$2" || fail "unbind $2 $3 failed: is this root?" ;;
        override) put "$sysfs/devices/$2/driver_override" "${3:-}" || fail "override $2 failed: is this root?" ;;
        new_id)
            driver_file=$sysfs/drivers/$2/new_id
            shift 2
            # An id that is there already is an error of the write; whether it has worked shows in the next step.
            put "$driver_file" "$*" || :
            ;;
        remove_id)
            driver_file=$sysfs/drivers/$2/remove_id
            shift 2
            turn=0
            while [ "$turn" -lt 16 ] && put "$driver_file" "$*"; do turn=$((turn + 1)); done
            ;;
        bind)
            [ "$(holder "$2")" = "$3" ] || put "$sysfs/drivers/$3/bind" "$2" || :
            [ "$(holder "$2")" = "$3" ] || fail "function $(short "$2") was not bound to $3 (driver now: $(holder "$2")): see the guest's kernel log (dmesg)"
            ;;
        access)
            path=$2
            # Without a group there are two blanks in the line, and so one word less.
            if [ $# -eq 3 ]; then to='' bits=$3; else to=$3 bits=$4; fi
            if [ "${path#/}" = "$path" ]; then
                for node in "$sysfs/devices/$path/uio"/*; do path=/dev/${node##*/}; break; done
            fi
            [ -e "$path" ] || return 0
            if [ -n "$to" ]; then
                [ -n "$(group_id "$to")" ] || fail "the guest has no group '$to': create it first"
                chgrp "$to" "$path" || fail "chgrp $to $path failed"
            fi
            chmod "$bits" "$path" || fail "chmod $bits $path failed"
            ;;
        link)
            udevadm settle --timeout=10
            for node in "$sysfs/devices/$2/uio"/*; do uio=${node##*/}; break; done
            if [ "$(target "/dev/ivshmem/$3")" != "$uio" ]; then
                udevadm trigger --action=change --subsystem-match=uio --sysname-match="$uio"
                udevadm settle --timeout=10
            fi
            [ "$(target "/dev/ivshmem/$3")" = "$uio" ] || fail "udev has not made /dev/ivshmem/$3 for $uio: see 'udevadm test' on the guest"
            ;;
        *) fail "unknown step '$*'" ;;
    esac
}
undo() { # after a failed step: the files as they were
    for path in "$rules" "$run_rules" "$noiommu_conf"; do
        kept=$work/before$(printf '%s' "$path" | tr / _)
        if [ -f "$kept" ]; then
            store "$path" "$kept"
        else
            rm -f "$path"
        fi
    done
    udevadm control --reload >/dev/null 2>&1
}

# One writer at a time. A lock by flock ends with its process; the other one tells its process, and is void without it.
hold() {
    lock=$root/run/acrn-ivshmem/shell.lock
    (umask 077 && mkdir -p "${lock%/*}") || fail "${lock%/*} cannot be made: is this root?"
    tool=0
    if [ -z "${ACRN_IVSHMEM_NO_FLOCK:-}" ] && command -v flock >/dev/null 2>&1; then
        tool=1
        exec 9>>"$lock" || fail "$lock cannot be opened: is this root?"
    fi
    waited=0
    until { [ "$tool" -eq 1 ] && flock -n 9; } || { [ "$tool" -eq 0 ] && mkdir "$lock.d" 2>/dev/null; }; do
        owner=$(cat "$lock.d/pid" "$lock.pid" 2>/dev/null | head -n 1)
        if [ "$tool" -eq 0 ] && [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then
            rm -rf "$lock.d"
            continue
        fi
        [ "$waited" -lt "${ACRN_IVSHMEM_LIMIT:-300}" ] || fail "process ${owner:-(unknown)} of this guest has held $lock for $waited s: wait for it or end it"
        waited=$((waited + 1))
        sleep 1
    done
    if [ "$tool" -eq 1 ]; then echo $$ >"$lock.pid"; else mine=$lock.d; echo $$ >"$mine/pid"; fi
}

[ "$check" -eq 1 ] || hold
observe
split "$rules" old
split "$run_rules" passing
udev=0
[ -e "$root/run/udev/control" ] && udev=1
noiommu_on=0
case $(text "$noiommu_parameter") in Y | 1) noiommu_on=1 ;; esac
: >"$work/devices"
if [ "$all" -eq 1 ]; then
    awk '{ print $1, "-" }' "$work/functions" >"$work/selected"
    if [ "$absent" -eq 0 ] && [ ! -s "$work/functions" ]; then
        fail 'this guest has no ivshmem function (1af4:1110): start its VM with the device (acrn-dm -s SLOT,ivshmem,NAME,SIZE; for pre-launched and Service VM by the scenario)'
    fi
else
    choose
fi
cut -d' ' -f1 "$work/selected" | while read -r address; do
    [ "$(field "$address" 2)" = "$driver" ] || printf '%s\n' "$address"
done >"$work/pending"

if [ "$absent" -eq 1 ]; then
    gone
else
    refuse
    present
fi

cat "$work/actions"
if [ "$check" -eq 1 ]; then
    # What the files would hold, for --diff and for tests.
    for path in "$rules" "$run_rules" "$noiommu_conf"; do
        content=$work/new/$(printf '%s' "$path" | tr / _)
        if [ -f "$content" ]; then sed "s,^,| ," "$content"; fi
    done
elif [ -s "$work/actions" ]; then
    for path in "$rules" "$run_rules" "$noiommu_conf"; do
        if [ -f "$path" ]; then cp "$path" "$work/before$(printf '%s' "$path" | tr / _)"; fi
    done
    while IFS= read -r line; do
        # shellcheck disable=SC2086
        (act $line) </dev/null || { undo; exit 1; }
    done <"$work/actions"
fi
[ -s "$work/actions" ] && echo changed=1 || echo changed=0
