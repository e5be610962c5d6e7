#!/bin/bash
# Makes the Debian guest of the VM scenarios: root.raw (ext4), vmlinuz, initrd, and an SSH key.
# In: $1 = folder to fill, packages.txt beside this script. Out: the four files in $1.
# Owns: a temporary root tree under $1, removed at the end. Never: touches the host's configuration.
set -euo pipefail
out=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
root=$out/tree
packages=$(grep -v '^#' "$here/packages.txt" | paste -sd,)

rm -rf "$root"
rm -f "$out/key" "$out/key.pub"
ssh-keygen -q -t ed25519 -N '' -C lighter-vm-test -f "$out/key"

# A small initrd: the root disk's drivers and nothing else. It makes the boot shorter.
initrd_hook='mkdir -p "$1/etc/initramfs-tools/conf.d"
printf "MODULES=list\nCOMPRESS=lz4\n" > "$1/etc/initramfs-tools/conf.d/lighter"
printf "virtio_pci\nvirtio_blk\next4\n" > "$1/etc/initramfs-tools/modules"'

mmdebstrap --mode=root --variant=minbase --format=directory --quiet \
    --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='force-unsafe-io' \
    --include="$packages" --essential-hook="$initrd_hook" bookworm "$root"

# The guest's own settings: one static address towards QEMU's user network, root by key only.
echo lighter-vm > "$root/etc/hostname"
echo '127.0.0.1 localhost lighter-vm' > "$root/etc/hosts"
echo 'nameserver 10.0.2.3' > "$root/etc/resolv.conf"
echo '/dev/vda / ext4 rw,noatime 0 1' > "$root/etc/fstab"
printf '[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n' \
    > "$root/etc/systemd/network/eth0.network"
# eth1 joins the guests; the harness gives it an address when a scenario has several of them.
install -d -m 700 "$root/root/.ssh"
install -m 600 "$out/key.pub" "$root/root/.ssh/authorized_keys"
printf 'UsePAM no\nUseDNS no\nPermitRootLogin prohibit-password\nMaxSessions 200\nMaxStartups 200\n' \
    > "$root/etc/ssh/sshd_config.d/lighter.conf"
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\n' > "$root/etc/systemd/journald.conf.d/lighter.conf"
chroot "$root" systemctl -q enable systemd-networkd ssh
chroot "$root" systemctl -q disable docker-registry
chroot "$root" systemctl -q mask getty@tty1 serial-getty@ttyS0 apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap fstrim.timer systemd-pstore \
    systemd-networkd-wait-online systemd-timesyncd 2>/dev/null
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*

cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
cp "$root"/boot/initrd.img-* "$out/initrd"
rm -f "$out/root.raw"
mke2fs -q -t ext4 -E lazy_itable_init=1,nodiscard -d "$root" "$out/root.raw" 8G
rm -rf "$root"
