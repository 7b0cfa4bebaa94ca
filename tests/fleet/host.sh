#!/bin/sh
# One host of the fleet, in namespaces of its own: host.sh NAME FOLDER SSHD SIZE PYTHON...
# Shows the unpacked OpenSSH in /usr; has /etc, /opt, /srv and /run of its own.
set -eu
name=$1 folder=$2 sshd=$3 size=$4
shift 4
mount --make-rprivate /
mount -t tmpfs -o size="$size" tmpfs "$folder"
mkdir "$folder/upper" "$folder/work"
mount -t overlay -o lowerdir=/etc,upperdir="$folder/upper",workdir="$folder/work" overlay /etc
mount -t overlay -o lowerdir="$sshd/usr:/usr" overlay /usr
for at in opt srv run; do
    mkdir "$folder/$at"
    mount --bind "$folder/$at" "/$at"
done
mkdir /run/sshd
hostname "$name"
ip link set lo up
echo 'sshd:x:110:65534::/run/sshd:/usr/sbin/nologin' >> /etc/passwd
ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
"$@" &
exec /usr/sbin/sshd -D -e -o HostKey="$folder/key" -o UsePAM=no -o StrictModes=no \
    -o AuthorizedKeysFile="${folder%/*}/key.pub" -o PidFile=none -o Subsystem='sftp internal-sftp' -f /dev/null
