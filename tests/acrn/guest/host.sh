# shellcheck shell=dash
# PID 1 of a whole host in the emulator: its files are in memory, but for those that a host keeps, which are on its disk.
export PATH=/bin:/usr/bin PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /disk /root
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mkdir -p /run/acrn /run/lock /tmp/log
echo "acrn-host: init"
python3 -S -E /agent.pyc disk &
while [ "$(cat /sys/block/nbd0/size)" = 0 ]; do sleep 0.01; done
mount -t ext2 -o noatime /dev/nbd0 /disk
for place in boot etc var; do
    mkdir -p /$place
    mount --bind /disk/$place /$place
done
echo "acrn-host: $(uname -r), $(cat /proc/uptime) s"
python3 -S -E /agent.pyc mail
echo "acrn-host: ended $?"
while :; do sleep 1000; done
