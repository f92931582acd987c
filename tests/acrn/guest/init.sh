# shellcheck shell=dash
# PID 1 of a virtual machine in the emulator.
export PATH=/bin:/usr/bin PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
echo "acrn-test: init"
# What acrn-dm of a Service VM wants.
export TMPDIR=/tmp
mkdir -p /run/acrn /run/lock /tmp/log
python3 -S -E /guest.pyc
echo "acrn-test: ended $?"
while :; do sleep 1000; done
