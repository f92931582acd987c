# shellcheck shell=dash
# PID 1 of a VM that a whole host has launched: all its files are in memory, and its disk is its mailbox.
export PATH=/bin:/usr/bin PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /root /var/lib /var/tmp
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mkdir -p /run/lock
echo "acrn-vm: init"
python3 -S -E /agent.pyc guest
echo "acrn-vm: ended $?"
while :; do sleep 1000; done
