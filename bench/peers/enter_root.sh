# Runs a command in a root of its own: enter_root.sh DIRECTORY QUEUE COMMAND...
# DIRECTORY/upper is laid over the machine's root; QUEUE, a path in there, is DIRECTORY/queue, so that no fsync goes through the
# overlay. To be run in a private mount namespace (unshare --mount): the mounts end with the last process.
set -e
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --rbind /proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount --bind "$1/queue" "$1/root$2"
root=$1/root
shift 2
cd /
exec chroot "$root" "$@"
