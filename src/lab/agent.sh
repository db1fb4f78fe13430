#!/bin/sh
# The guest's side of `armlet run': the first process of a small busybox root in memory.
#
# It finds the ports that armlet made (virtio-serial, by name), takes the job from the port "control", runs
# the command and says how it ended.  Lines on that port:
#   to armlet    ready | started | alive (every 5 s) | exit STATUS
#   from armlet  one line of assignments and `set -- COMMAND ARGUMENT...'; then int | pipe | size ROWS COLS
# Why a script: busybox is there anyway, so nothing must be cross-compiled to build armlet, and whoever
# wonders can read what runs in the guest.  The common path forks as little as it can: every process costs
# milliseconds.
PATH=/sbin:/bin:/usr/sbin:/usr/bin
HOME=/root
export PATH HOME

# armlet reads this on the console.
die() {
    echo "armlet-agent: $*" >/dev/console
    poweroff -f
}

mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
echo -1000 >/proc/self/oom_score_adj

# load LIST: insert the modules that a file names.
load() {
    [ -f "$1" ] || return
    while read -r m; do insmod "$m" || die "cannot load $m"; done <"$1"
}

load /etc/modules

# find_port NAME: $port is its device.  Ports come up some milliseconds after the driver.
find_port() {
    port= tries=0
    while :; do
        for f in /sys/class/virtio-ports/*/name; do
            [ -e "$f" ] && read -r name <"$f" || continue
            d=${f%/name}
            [ "$name" = "armlet.$1" ] && [ -e "/dev/${d##*/}" ] && port=/dev/${d##*/} && return
        done
        tries=$((tries + 1))
        [ $tries -lt 500 ] ||
            die "the kernel does not show the port $1 (are VIRTIO_MMIO and VIRTIO_CONSOLE there?)"
        sleep 0.01
    done
}

find_port control
exec 3<>"$port"
echo ready >&3

mkdir -p /dev/pts /dev/shm /run
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr

# The job: tty rows cols cwd share shareflags root disk host, exports, and the positional parameters.
nl='
'
IFS= read -r job <&3 || die "no job came"
eval "$job"

hostname "$host"
[ -z "$share$root" ] || load /etc/modules.late

# A root of the host's: the command runs in it, the agent stays in memory.
if [ -n "$root" ]; then
    if [ -n "$disk" ]; then
        tries=0
        until [ -b "$root" ] || [ $tries = 500 ]; do tries=$((tries + 1)); sleep 0.01; done
        mount "$root" /mnt || die "cannot mount the root $root"
    else
        ip link set lo up
        ip link set eth0 up || die "there is no network card"
        ip addr add 10.0.2.15/24 dev eth0
        ip route add default via 10.0.2.2
        mount -i -t nfs -o rw,nolock,addr=10.0.2.2,vers=3,proto=tcp "10.0.2.2:$root" /mnt ||
            die "cannot mount the root $root"
    fi
    for d in dev proc sys; do
        mkdir -p /mnt/$d
        mount -o rbind /$d /mnt/$d
    done
    mkdir -p /mnt/tmp /mnt/run
    mount -t tmpfs tmpfs /mnt/run
    top=/mnt
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:$PATH
fi
if [ -n "$share" ]; then
    mkdir -p "$top$share"
    mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,cache=mmap,$shareflags" share "$top$share" ||
        die "cannot mount the shared directory"
fi
mkdir -p "$top$cwd"
if [ -n "$tty" ]; then
    # Held open: the terminal's size is gone when nobody has it open.
    exec 5<>/dev/hvc0
    stty sane rows "$rows" cols "$cols" <&5
fi

# In a process group and session of its own, whose number /run/pid has; as killable as any when memory is
# short.
run() {
    read -r pid rest </proc/self/stat
    echo "$pid" >/run/pid
    echo 0 >/proc/self/oom_score_adj
    exec 3>&- 5>&-
    [ -z "$top" ] || exec setsid ${tty:+-c} chroot "$top" /bin/sh -c 'cd "$0" && exec "$@"' "$cwd" "$@"
    cd "$cwd" || exit 125
    exec setsid ${tty:+-c} "$@"
}

{
    while sleep 5; do echo alive >&3; done
} &

listen() {
    while read -r word a b <&3; do
        case $word in
        int) read -r pid </run/pid && kill -INT "-$pid" ;;
        pipe) kill "$relay" ;;
        size) stty -F /dev/hvc0 rows "$a" cols "$b" ;;
        esac
    done
}

feed() {
    read -r pid rest </proc/self/stat
    echo "$pid" >/run/feeder
    exec cat <&5
}

if [ -n "$tty" ]; then
    listen &
    echo started >&3
    (run "$@") </dev/hvc0 >/dev/hvc0 2>&1
    status=$?
else
    find_port in
    exec 5<>"$port"
    # Blocks until armlet has connected it, and tells armlet that input is wanted.
    echo >&5
    # Through pipes, so that the command may open /dev/stdin and its like again: a port can be opened once.
    mkfifo /run/out /run/err
    find_port out
    cat </run/out >"$port" 2>/dev/null &
    relay=$!
    find_port err
    cat </run/err >"$port" 2>/dev/null &
    relays="$relay $!"
    listen &
    echo started >&3
    # The feeder may wait for input that never comes, so it is ended.  No named pipe for it: opened anew when
    # the feeder is through, that would block.
    feed | {
        (run "$@") >/run/out 2>/run/err
        status=$?
        until read -r pid </run/feeder; do sleep 0.01; done
        kill "$pid"
        exit "$status"
    } 2>/dev/null
    status=$?
    # What a process in the background still says is waited for, for a second.
    { sleep 1; kill $relays; } 2>/dev/null &
    wait $relays
fi
[ -z "$share$root" ] || sync
echo "exit $status" >&3
# armlet ends the machine when it has read that.
sleep 30
poweroff -f
