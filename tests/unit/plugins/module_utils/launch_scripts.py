# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Launch scripts as people write them by hand.

``READ``: those of which all is known: the text, and for each VM its ivshmem devices as (slot, name with prefix, size).
``TOLD``: those that only a run tells, or that no region can be declared for: the text, and how what is told begins
behind the name of the file. The sample VMs are vm1 and vm2.
"""

from __future__ import annotations

PLC, LOG = (7, "hv:/plc", 2), (8, "dm:/log", 2)
ONE = {"vm1": [PLC]}
BASE = "acrn-dm -A -m 512M -s 0:0,hostbridge"

READ = {
    "launch_uos": (
        """#!/bin/bash
offline_path="/sys/class/vhm/acrn_vhm"
plc_slot=7
shm="hv:/plc,2"
function launch_ubuntu()
{
hd_dir=$1
vm_name=vm$2
#check if the vm is running or not
vm_ps=$(pgrep -a -f acrn-dm)
result=$(echo $vm_ps | grep -w "${vm_name}")
if [[ "$result" != "" ]]; then
  echo "$vm_name is running, can't create twice!"
  exit
fi
#logger_setting, format: logger_name,level; like following
logger_setting="--logger_setting console,level=4;kmsg,level=3;disk,level=5"
mem_size=1024M
acrn-dm -A -m $mem_size -s 0:0,hostbridge \\
   -s 3,virtio-blk,$hd_dir/uos.img \\
   -s ${plc_slot},ivshmem,${shm} \\
   -s $((plc_slot + 2)),virtio-rnd \\
   --mac_seed seed-1 -V 2 \\
   $logger_setting \\
   -B "root=/dev/vda2 rw console=ttyS0" $vm_name
}
launch_ubuntu /home/acrn 1
""",
        ONE,
    ),
    "uuid": (
        """#!/bin/bash
mac=$(cat /sys/class/net/lo/address)
mac_seed=${mac:9:8}-vm1
acrn-dm -A -U d2795438-25d6-11e8-864e-cb7a18b34643 -m 512M -s 0:0,hostbridge \\
  -V 3 --mac_seed $mac_seed -i /run/acrn/ioc_vm1,0x20 -l com2,/run/acrn/ioc_vm1 \\
  -s 7:0,ivshmem,hv:/plc,2 -s 1:0,lpc -W --pm_notify_channel uart vm1
""",
        ONE,
    ),
    "comments in an array": (
        """#!/bin/bash
args=(
   -A -m 512M   # memory
   -s 0:0,hostbridge
   # -s 6,ivshmem,hv:/old,2   retired
   -s 7,ivshmem,hv:/plc,2     # "the" PLC's region
   -s '8,ivshmem,dm:/log,2'
)
args+=( vm1 )
exec /usr/bin/acrn-dm "${args[@]}"
""",
        {"vm1": [PLC, LOG]},
    ),
    "comments in backticks": (
        f"#!/bin/bash\n{BASE} `# memory` \\\n  `# the PLC` \\\n  -s 7,ivshmem,hv:/plc,2 \\\n  vm1\n",
        ONE,
    ),
    "a usage text": (
        f"""#!/bin/bash
usage() {{
cat <<USAGE
Usage: $0 [start]
   acrn-dm -A -s 5,ivshmem,hv:/plc,2 vmX
USAGE
}}
usage
{BASE} -s 7,ivshmem,hv:/plc,2 vm1
""",
        ONE,
    ),
    "set": (
        """#!/bin/sh
set -- -A -m 512M -s 0:0,hostbridge
set -- "$@" -s 7,ivshmem,hv:/plc,2
set -- "$@" -s 8,ivshmem,dm:/log,2
exec acrn-dm "$@" vm1
""",
        {"vm1": [PLC, LOG]},
    ),
    "a text that grows": (
        """#!/bin/bash
args="-A -m 512M"
args="$args -s 0:0,hostbridge"
args="$args -s 7,ivshmem,hv:/plc,2"
args+=" -s 8,ivshmem,dm:/log,2"
acrn-dm $args vm1
""",
        {"vm1": [PLC, LOG]},
    ),
    "several calls": (
        """#!/bin/bash
run() { echo "starting $1"; }
run vm1
sudo -E /usr/bin/acrn-dm -A -m 512M -s 0:0,hostbridge -s 7,ivshmem,hv:/plc,2 \\
     -s 8,ivshmem,dm:/log,2 vm1 &
wait
run vm2
taskset -c 0 nice acrn-dm -A -m 512M -s 0:0,hostbridge -s 9,ivshmem,hv:/plc,2 -s 10,ivshmem,dm:/log,2 vm2 &
wait
""",
        {"vm1": [PLC, LOG], "vm2": [(9, "hv:/plc", 2), (10, "dm:/log", 2)]},
    ),
    "a call for each word": (
        f"""#!/bin/bash
for each in vm1 vm2; do
case "$each" in
  vm1) {BASE} -s 7,ivshmem,hv:/plc,2 vm1 ;;
  vm2) {BASE} -s 9,ivshmem,hv:/plc,2 vm2 ;;
  *) echo "usage: $0 vm1|vm2" ; exit 1 ;;
esac
done
""",
        {"vm1": [PLC], "vm2": [(9, "hv:/plc", 2)]},
    ),
    "quotes": (
        """#!/bin/bash
acrn-dm -A -m "512M" "-s" "0:0,hostbridge" -s"7,ivshmem,hv:/plc,2" '-s' '8,ivshmem,'"dm:/log"',2' \\
  --pci_slot 9,virtio-rnd --pci_slot=10,ivshmem,dm:/cam,4 "vm1"
""",
        {"vm1": [PLC, LOG, (10, "dm:/cam", 4)]},
    ),
    "again and again": (
        f"#!/bin/bash\nwhile [ 1 ]; do\n  {BASE} -s 7,ivshmem,hv:/plc,2 vm1\n  [ $? -ne 2 ] && break\ndone\n",
        ONE,
    ),
    "a subshell": (
        f"#!/bin/bash\n( cd / && nohup {BASE} -s 7,ivshmem,hv:/plc,2 vm1 >/dev/null 2>&1 & wait )\n",
        ONE,
    ),
    "all in one text": (
        """#!/bin/sh
DAEMON=/usr/bin/acrn-dm
ARGS="-A -m 512M -s 0:0,hostbridge
   -s 7,ivshmem,hv:/plc,2
   vm1"
case "$1" in
  ''|start) $DAEMON $ARGS & wait ;;
  stop) pkill -f "$DAEMON" ;;
esac
""",
        ONE,
    ),
    "numbers with more behind them": (
        f"#!/bin/bash\n{BASE} -s 7,ivshmem,hv:/plc,2M -s 8,ivshmem,dm:/log,2,0x1388 vm1\n",
        {"vm1": [PLC, LOG]},
    ),
    "numbers that stay": (
        f"#!/bin/bash\ndeclare -ri slot=7\nnext=$((slot+1))\n[ $next = 8 ] && {BASE} -s $slot,ivshmem,hv:/plc,2 vm1\n",
        ONE,
    ),
    "the name first": ("#!/bin/sh\nacrn-dm vm1 -A -m 512M -s 0:0,hostbridge -s 7,ivshmem,hv:/plc,2\n", ONE),
}

_UNKNOWN = "which ivshmem device this is, at which slot, or whether the VM gets it, is only known when"
_NAME = "which VM this call of acrn-dm starts is not clear"
_HIDDEN = "acrn-dm may be run here in a way that cannot be read"

TOLD = {
    "a loop over VMs": (
        f"#!/bin/bash\nfor vm in vm1 vm2; do\n  {BASE} -s 7,ivshmem,dm:/log,2 $vm &\ndone\nwait\n",
        f"line 3: {_NAME} (vm1 or vm2)",
    ),
    "a loop over numbers": (
        f"#!/bin/bash\nfor i in {{1..2}}\ndo\n  {BASE} -s $((5+i)),ivshmem,dm:/log,2 vm$i &\ndone\nwait\n",
        f"line 4: {_NAME} (the name vm$i is only known when the script runs)",
    ),
    "a loop over seq": (
        f"#!/bin/bash\nfor i in `seq 1 2`; do {BASE} -s 5,ivshmem,dm:/log,2 vm$i & done; wait\n",
        f"line 2: {_NAME}",
    ),
    "a function for all": (
        """#!/bin/bash
dm() { local n=$1; shift; acrn-dm -A -m 512M -s 0:0,hostbridge "$@" "$n"; }
dm vm1 -s 7,ivshmem,hv:/plc,2
dm vm2 -s 9,ivshmem,hv:/plc,2
""",
        f"line 2: {_NAME}",
    ),
    "a script for all": (
        f"#!/bin/sh\nname=$1\nslot=$2\n{BASE} -s $slot,ivshmem,hv:/plc,2 $name\n",
        f"line 4: {_NAME}",
    ),
    "the name of the file": (
        f'#!/bin/bash\nVM=$(basename "$0" .sh)\n{BASE} -s 7,ivshmem,hv:/plc,2 "$VM"\n',
        f"line 3: {_NAME}",
    ),
    "arguments of the caller": (
        f'#!/bin/sh\nexec {BASE} -s 7,ivshmem,hv:/plc,2 "$@" vm1\n',
        'line 2: "$@" is only known when the script runs',
    ),
    "slots in a map": (
        """#!/bin/bash
declare -A SLOT=([plc]=7 [log]=8)
OPTS=(-A -m 512M -s 0:0,hostbridge)
OPTS+=(-s "${SLOT[plc]},ivshmem,hv:/plc,2")
acrn-dm "${OPTS[@]}" vm1
""",
        f"line 4: {_UNKNOWN}",
    ),
    "a slot of the environment": (
        f'#!/bin/bash\n: "${{SLOT:=7}}"\n{BASE} -s $SLOT,ivshmem,hv:/plc,2 vm1\n',
        f"line 3: {_UNKNOWN}",
    ),
    "a slot of a file": (
        f"#!/bin/bash\n[ ! -e ./vm1.conf ] || . ./vm1.conf\nSLOT=${{SLOT-7}}\n{BASE} -s $SLOT,ivshmem,hv:/plc,2 vm1\n",
        f"line 4: {_UNKNOWN}",
    ),
    "a slot of a branch": (
        f"#!/bin/bash\nif true; then slot=7; else slot=9; fi\n{BASE} -s $slot,ivshmem,hv:/plc,2 vm1\n",
        f"line 3: {_UNKNOWN}",
    ),
    "a size of a branch": (
        f"#!/bin/bash\nsize=4\n[ -e /proc ] && size=2\n{BASE} -s 7,ivshmem,hv:/plc,$size vm1\n",
        f"line 4: {_UNKNOWN}",
    ),
    "a cut of a text": (
        f"#!/bin/bash\nsize=2M\n{BASE} -s 7,ivshmem,hv:/plc,${{size%M}} vm1\n",
        f"line 3: {_UNKNOWN}",
    ),
    "a device of a branch": (
        f"""#!/bin/bash
if [ -e /proc ]; then
  SHM="-s 7,ivshmem,hv:/plc,2"
else
  SHM="-s 9,ivshmem,hv:/plc,2"
fi
{BASE} $SHM vm1
""",
        f"line 7: {_UNKNOWN}",
    ),
    "a device of the only branch": (
        f'#!/bin/bash\nif [ -e /proc ]; then SHM="-s 7,ivshmem,hv:/plc,2"; fi\n{BASE} $SHM vm1\n',
        f"line 3: {_UNKNOWN}",
    ),
    "a device that a branch adds": (
        f'#!/bin/bash\n[ -e /proc ] && SHM+=" -s 7,ivshmem,hv:/plc,2"\n{BASE} $SHM vm1\n',
        f"line 3: {_UNKNOWN}",
    ),
    "a device of a case": (
        f'#!/bin/bash\ncase x in\n  x) SHM="-s 7,ivshmem,hv:/plc,2" ;;\nesac\n{BASE} $SHM vm1\n',
        f"line 5: {_UNKNOWN}",
    ),
    "devices in braces": (
        f"#!/bin/bash\n{BASE} -s 7,ivshmem,{{hv:/plc,dm:/log}},2 vm1\n",
        f"line 2: {_UNKNOWN}",
    ),
    "an option in braces": (
        f"#!/bin/bash\n{BASE} {{-s,7}},ivshmem,hv:/plc,2 vm1\n",
        "line 2: {-s,7},ivshmem,hv:/plc,2 is only known when the script runs",
    ),
    "another call for the case that the first one fails": (
        f"#!/bin/bash\n{BASE} -s 7,ivshmem,hv:/plc,2 vm1 ||\n  {BASE} -s 9,ivshmem,hv:/plc,2 vm1\n",
        "line 2: VM 'vm1' is started with other ivshmem devices than in line 3",
    ),
    "another call without the device": (
        f"#!/bin/bash\nif [ -e /proc ]; then {BASE} vm1\nelse\n  {BASE} -s 9,ivshmem,hv:/plc,2 vm1\nfi\n",
        "line 2: VM 'vm1' is started with other ivshmem devices than in line 4",
    ),
    "a device behind another option": (
        '#!/bin/bash\nall="-A"\n[ -e /proc ] && all="$all -s 7,ivshmem,hv:/plc,2"\nacrn-dm $all vm1\n',
        f"line 4: {_UNKNOWN}",
    ),
    "devices that a function gathers": (
        """#!/bin/bash
all="-A"
add() { all="$all -s $1"; }
add 7,ivshmem,hv:/plc,2
add 8,ivshmem,dm:/log,2
acrn-dm $all vm1
""",
        "line 6: $all is only known when the script runs",
    ),
    "a default that is set": (
        f"#!/bin/bash\nSHM=\n: ${{SHM:=-s 7,ivshmem,hv:/plc,2}}\n{BASE} $SHM vm1\n",
        "line 4: $SHM is only known when the script runs",
    ),
    "a slot that is counted": (
        f"#!/bin/bash\nn=6\n{BASE} -s $((n++)),virtio-rnd -s $n,ivshmem,hv:/plc,2 vm1\n",
        f"line 3: {_UNKNOWN}",
    ),
    "a slot that arithmetic sets": (
        f'#!/bin/sh\nn=6\n: "at $((n += 1))"\n{BASE} -s $n,ivshmem,hv:/plc,2 vm1\n',
        f"line 4: {_UNKNOWN}",
    ),
    "a slot in old arithmetic": (
        f"#!/bin/bash\nn=6\nmade[n++]=x\nslot=$[n]\n{BASE} -s $slot,ivshmem,hv:/plc,2 vm1\n",
        f"line 5: {_UNKNOWN}",
    ),
    "a number that grows": (
        f"#!/bin/bash\ndeclare -i n=1\nn+=1\n{BASE} -s $n,ivshmem,hv:/plc,2 vm1\n",
        f"line 4: {_UNKNOWN}",
    ),
    "small letters": (
        f"#!/bin/bash\ndeclare -l vm=VM1\n{BASE} -s 7,ivshmem,hv:/plc,2 $vm\n",
        f"line 3: {_NAME}",
    ),
    "read as a command": (
        f"#!/bin/bash\nslot=7\ncommand read -r slot <<< 9\n{BASE} -s $slot,ivshmem,hv:/plc,2 vm1\n",
        f"line 4: {_UNKNOWN}",
    ),
    "a file by a command": (
        f"#!/bin/sh\nslot=7\necho slot=9 > ./conf\ncommand . ./conf\n{BASE} -s $slot,ivshmem,hv:/plc,2 vm1\n",
        f"line 5: {_UNKNOWN}",
    ),
    "a function that a variable names": (
        f"#!/bin/bash\nslot=7\nat_line() {{ slot=9; }}\nhost=line\nat_$host\n{BASE} -s $slot,ivshmem,hv:/plc,2 vm1\n",
        f"line 6: {_UNKNOWN}",
    ),
    "an array that a function sets on its line": (
        f"#!/bin/bash\nall=({BASE} -s 7,ivshmem,hv:/plc,2 vm1)\nother() {{ local all=({BASE} vm1); }}\n"
        'other\n"${all[@]}"\n',
        'line 5: "${all[@]}" is only known when the script runs',
    ),
    "an array of the other branch": (
        f"#!/bin/bash\nshm=()\nif [ -e /proc ]; then shm=(-s 7,ivshmem,hv:/plc,2); else shm=(); fi\n"
        f'[ -e /proc ] || {{ shm=(); }}\n{BASE} "${{shm[@]}}" vm1\n',
        'line 5: "${shm[@]}" is only known when the script runs',
    ),
    "a function that runs an array": (
        f'#!/bin/bash\nrun() {{ echo "+ $*"; "$@"; }}\nall=({BASE} -s 7,ivshmem,hv:/plc,2 vm1)\nrun "${{all[@]}}"\n',
        f"line 4: {_HIDDEN}",
    ),
    "what only a subshell sets": (
        f"#!/bin/bash\nslot=7\n(slot=9)\n{BASE} -s $slot,ivshmem,hv:/plc,2 vm1\n",
        f"line 4: {_UNKNOWN}",
    ),
    "what only a part of a pipe sets": (
        f"#!/bin/bash\nslot=7\ntrue | slot=9\n{BASE} -s $slot,ivshmem,hv:/plc,2 vm1\n",
        f"line 4: {_UNKNOWN}",
    ),
    "what only the command itself is given": (
        f"#!/bin/bash\nslot=7\nslot=9 {BASE} -s $slot,ivshmem,hv:/plc,2 vm1\n",
        f"line 3: {_UNKNOWN}",
    ),
    "another name for a variable": (
        f"#!/bin/bash\nslot=7\ndeclare -n other=slot\nother=9\n{BASE} -s $slot,ivshmem,hv:/plc,2 vm1\n",
        f"line 5: {_UNKNOWN}",
    ),
    "an element that goes": (
        f"#!/bin/bash\nall=({BASE} -s 7,ivshmem,hv:/plc,2 -s 8,ivshmem,dm:/log,2 vm1)\n"
        'unset "all[9]" "all[8]"\n"${all[@]}"\n',
        'line 4: "${all[@]}" is only known when the script runs',
    ),
    "a text that is one argument": (
        f'#!/bin/bash\nSHM="-s 7,ivshmem,hv:/plc,2"\n{BASE} "$SHM" vm1\n',
        'line 3: "$SHM" is only known when the script runs',
    ),
    "letters together": (
        "#!/bin/bash\nacrn-dm -m 512M -s 0:0,hostbridge -As 7,ivshmem,hv:/plc,2 vm1\n",
        "line 2: 7,ivshmem,hv:/plc,2 is only known when the script runs",
    ),
    "a part of an option's name": (
        f"#!/bin/bash\n{BASE} --pci 7,ivshmem,hv:/plc,2 vm1\n",
        "line 2: 7,ivshmem,hv:/plc,2 is only known when the script runs",
    ),
    "quotes within a text": (
        f"#!/bin/bash\nSHM='-s \"7,ivshmem,hv:/plc,2\"'\n{BASE} $SHM vm1\n",
        "line 3: region 'hv:/plc': its slot is none that acrn-dm reads",
    ),
    "a device that may come": (
        """#!/bin/bash
base=(-A -m 512M -s 0:0,hostbridge)
shm=(-s 7,ivshmem,hv:/plc,2)
[ -n "$WITH_LOG" ] && shm+=(-s 8,ivshmem,dm:/log,2)
all=("${base[@]}" "${shm[@]}" vm1)
sudo -E taskset -c 0 acrn-dm "${all[@]}"
""",
        f"line 4: {_UNKNOWN}",
    ),
    "a device of a function": (
        f"""#!/bin/bash
add_shm() {{ echo "-s $1,ivshmem,$2,$3"; }}
{BASE} $(add_shm 7 hv:/plc 2) vm1
""",
        "line 3: $(add_shm 7 hv:/plc 2) is only known when the script runs",
    ),
    "a comment between": (
        f"#!/bin/bash\n{BASE} \\\n#   -s 6,ivshmem,hv:/old,2 \\\n   -s 7,ivshmem,hv:/plc,2 \\\n   vm1\n",
        f"line 2: {_NAME} (no name: the comment in line 3 ends the command)",
    ),
    "a command in a variable": (
        f'#!/bin/bash\nCMD="{BASE} -s 7,ivshmem,hv:/plc,2 vm1"\necho $CMD\n$CMD\n',
        f"line 4: {_HIDDEN}: $CMD",
    ),
    "eval": (
        f'#!/bin/bash\nCMD="{BASE} -s 7,ivshmem,hv:/plc,2 vm1"\neval "$CMD"\n',
        f"line 3: {_HIDDEN}",
    ),
    "a shell's text": (f'#!/bin/bash\nsh -c "{BASE} -s 7,ivshmem,hv:/plc,2 vm1"\n', f"line 2: {_HIDDEN}"),
    "a shell's here-document": (
        f"#!/bin/bash\nbash -s <<'X'\n{BASE} -s 7,ivshmem,hv:/plc,2 vm1\nX\n",
        f"line 3: {_HIDDEN}",
    ),
    "a terminal's command": (
        f'#!/bin/bash\nscreen() {{ shift 2; "$@"; }}\nscreen -dmS vm1 {BASE} -s 7,ivshmem,hv:/plc,2 vm1\n',
        f"line 3: {_HIDDEN}",
    ),
    "functions of a slot": (
        f"#!/bin/sh\n{BASE} -s 3:0,virtio-blk,/img/a.img -s 3:1,virtio-net,tap0 \\\n  -s 3.2,ivshmem,dm:/log,2 vm1\n",
        "line 3: dm:/log is at 00:03.2, and a region has a slot of bus 0 to itself",
    ),
    "the slot of a GPU": (
        f"#!/bin/sh\n{BASE} -s 2,ivshmem,dm:/log,2 vm1\n",
        "line 2: dm:/log is at slot 2, which is that of a passed-through GPU, and a region has one from 3 to 30",
    ),
    "a region ID that nobody can declare": (
        f"#!/bin/sh\n{BASE} -s 7,ivshmem,dm:/log,2,1 vm1\n",
        "line 2: region 'dm:/log': region_id 1 must be 0 (none) or 4096 to 65535",
    ),
    "a region twice": (
        f"#!/bin/sh\n{BASE} -s 7,ivshmem,dm:/log,2 \\\n  -s 8,ivshmem,dm:/log,2 vm1\n",
        "line 3: dm:/log is there twice (line 2)",
    ),
    "a size that acrn-dm refuses": (
        f"#!/bin/sh\n{BASE} -s 7,ivshmem,hv:/plc,0x2 vm1\n",
        "line 2: region 'hv:/plc': size 0 must be a power of two",
    ),
    "a name of long ago": (
        f"#!/bin/sh\n{BASE} -s 7,ivshmem,shm-plc,33554432 vm1\n",
        "line 2: region 'shm-plc': provided_by is missing",
    ),
}
