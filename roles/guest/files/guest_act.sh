#!/bin/sh
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Carries out in a guest without Python what the controller has decided. plugins/plugin_utils/_guest_shell.py puts this
# text behind guest_look.sh, and behind it a call of try for each step. The steps are those of
# plugins/module_utils/_guest/_act.py, by the same names.
#
# shellcheck disable=SC2154 # mark and root are set in guest_look.sh

sysfs=/sys/bus/pci
noiommu_parameter=/sys/module/vfio/parameters/enable_unsafe_noiommu_mode
mine=''
trap '[ -z "$mine" ] || rm -f "$mine"' EXIT
trap 'exit 1' HUP INT TERM

end() { # word detail: how it ended, in one line
    printf '\n%s%s %s\n' "$mark" "$1" "$(printf '%s' "$2" | tr -c ' -~' ' ' | cut -c 1-2000)"
    exit 0
}

# One writer at a time. The kernel drops a lock by flock with its process. Without that program a link names the process,
# and is void without it.
held_by() { sed -n -e 's/[^ -~]/?/g' -e '1s/^/process /p' -e '4s/^/for /p' "$1" 2>/dev/null | tr '\n' ' '; }
own() { # folder: whether it is a directory, and no other user's, and nobody else may put files into it
    case $(stat -c '%F %u %A' "$1") in
        "directory $(id -u) "d????-??-?) return 0 ;;
        *) return 1 ;;
    esac
}
hold() { # path seconds
    lock=$root$1 waited=0
    usual=$(umask)
    # Nobody else may open it, or they could hold it for ever.
    umask 077
    mkdir -p "${lock%/*}" || end unlockable "${lock%/*} cannot be made"
    for folder in "${lock%/*/*}" "${lock%/*}"; do
        own "$folder" || end unlockable "$folder is open to other users, who could hold the lock for ever: remove it"
    done
    if [ -h "$lock" ] || { [ -e "$lock" ] && [ ! -f "$lock" ]; }; then end unlockable "$lock is not a regular file: remove it"; fi
    if command -v flock >/dev/null; then
        while :; do
            exec 9>>"$lock" || end unlockable "$lock cannot be opened"
            flock -n 9 && code=0 || code=$?
            # Others have it where it ends with 1. With more it could not even try.
            [ "$code" -le 1 ] || end unlockable "flock ends with $code"
            if [ "$code" -eq 0 ]; then
                # Who sweeps away old ones may have taken it between the two.
                [ "$(stat -Lc %d:%i "/proc/$$/fd/9")" != "$(stat -c %d:%i "$lock" 2>/dev/null)" ] || break
                continue
            fi
            [ "$waited" -lt "$2" ] || end locked "$(held_by "$lock")"
            waited=$((waited + 1))
            sleep 1
        done
        printf '%s\n%s\n%s\nguest_device\nsh\n' $$ "$(date +%s)" "$(uname -n)" >"$lock"
        umask "$usual"
        return 0
    fi
    until ln -s $$ "$lock.link" 2>/dev/null; do
        owner=$(readlink "$lock.link")
        if [ -n "$owner" ] && [ ! -d "/proc/$owner" ] && mv "$lock.link" "$lock.$$" 2>/dev/null; then
            # Somebody else may have been as quick, and hold it by now.
            [ "$(readlink "$lock.$$")" = "$owner" ] || mv "$lock.$$" "$lock.link"
            rm -f "$lock.$$"
            continue
        fi
        [ "$waited" -lt "$2" ] || end locked "process ${owner:-unknown}"
        waited=$((waited + 1))
        sleep 1
    done
    mine=$lock.link
    umask "$usual"
}

put() { # path text: the kernel's answer is that of this one write
    said=$({ printf '%s\n' "$2" >"$root$1"; } 2>&1) || fail error "$said"
}
new() { # path text: not every shell tells of a write that fails, so it is read again
    (umask 077 && printf '%s' "$2" >"$1") && [ "$(cat "$1" && echo .)" = "$2." ] && chmod 0644 "$1" && sync "$1"
}
store() { # path text: in one step, mode 0644
    place=$root$1
    fresh=${place%/*}/.acrn-ivshmem-${place##*/}.new
    # To mv, a directory is where the file is to go.
    said=$({ [ ! -d "$place" ] && mkdir -p "${place%/*}" && new "$fresh" "$2" && mv -f "$fresh" "$place"; } 2>&1) && return 0
    rm -f "$fresh"
    fail error "$said"
}
sweep() { # what runs that were killed have left of a file that they were about to replace
    for path; do rm -f "$root$path"/.acrn-ivshmem-*; done
}
holder() { link "$sysfs/devices/$1/driver" | cut -d' ' -f3; }
uio_of() {
    for node in "$root$sysfs/devices/$1/uio"/*; do
        if [ -d "$node" ]; then
            printf '%s' "${node##*/}"
            return
        fi
    done
}
named() { # name uio
    [ "$(link "/dev/ivshmem/$1")" = "l /dev/ivshmem/$1 $2" ]
}

number=0 why='' detail=''
fail() { # word detail: why a step has failed
    why=$1 detail=${2:-}
    return 1
}
step() { # kind target value
    why='' detail=''
    case $1 in
        replace) store "$2" "$3" ;;
        remove) rm -f "$root$2" || fail error ;;
        # udevd watches its directories, too; where this program is missing, so is what it would talk to.
        reload) udevadm control --reload >/dev/null 2>&1 || : ;;
        modprobe)
            output=$(modprobe "$2" 2>&1)
            [ -d "$root$sysfs/drivers/$2" ] || fail module "$output"
            ;;
        noiommu)
            modprobe vfio >/dev/null 2>&1
            [ -e "$root$noiommu_parameter" ] || fail noiommu || return 1
            put "$noiommu_parameter" 1
            ;;
        unbind) put "$sysfs/drivers/$3/unbind" "$2" ;;
        override) put "$sysfs/devices/$2/driver_override" "$3" ;;
        new_id)
            [ -d "$root$sysfs/drivers/$2" ] || fail error "there is no such driver" || return 1
            # One that is there already is an error of the write, too; whether it has worked shows in the bind.
            put "$sysfs/drivers/$2/new_id" "$3" || :
            ;;
        remove_id)
            [ -d "$root$sysfs/drivers/$2" ] || fail error "there is no such driver" || return 1
            # Kernels before 5.11 keep an id as often as it was written. When it is gone, the write is an error.
            turn=0
            while [ "$turn" -lt 16 ] && put "$sysfs/drivers/$2/remove_id" "$3"; do turn=$((turn + 1)); done
            ;;
        bind)
            [ "$(holder "$2")" = "$3" ] || put "$sysfs/drivers/$3/bind" "$2" || :
            found=$(holder "$2")
            [ "$found" = "$3" ] || fail unbound "${found:--} $detail"
            ;;
        access)
            path=$2
            if [ "${path#/}" = "$path" ]; then
                found=$(uio_of "$path")
                [ -n "$found" ] || return 0
                path=/dev/$found
            fi
            if [ -n "${3% *}" ]; then
                found=$(group_id "${3% *}")
                [ -n "$found" ] || fail group || return 1
                chgrp "$found" "$root$path" || fail error || return 1
            fi
            chmod "${3#* }" "$root$path" || fail error
            ;;
        link)
            udevadm settle --timeout=10 >/dev/null 2>&1
            found=$(uio_of "$2")
            [ -n "$found" ] || fail nodeless || return 1
            if ! named "$3" "$found"; then
                # udev has named the node before the rule was there: let it look again.
                udevadm trigger --action=change --subsystem-match=uio "--sysname-match=$found" >/dev/null 2>&1
                udevadm settle --timeout=10 >/dev/null 2>&1
            fi
            named "$3" "$found" || fail nameless "$found"
            ;;
        *) fail error "unknown step $1" ;;
    esac
}
try() { # kind target value: a step, the last one where it fails
    number=$((number + 1))
    if step "$@"; then return 0; fi
    set -- "$why" "$detail"
    undo
    end "failed $number $1" "$2"
}
unchanged() { # sum: what was decided by has to be what there is, now that nobody else can change it
    [ "$(sum "$(asked)")" = "$1" ] || end other ''
}
