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
read -r arguments </proc/cmdline
case " $arguments " in
    # The program opens it anew: see poll_the_console there.
    *" polled "*) exec </dev/null >/dev/null 2>&1 ;;
esac
# What acrn-dm of a Service VM wants.
export TMPDIR=/tmp
mkdir -p /run/acrn /run/lock /tmp/log
python3 -S -E /guest.pyc
ended=$?
exec >/dev/console 2>&1
echo "acrn-test: ended $ended"
while :; do sleep 1000; done
