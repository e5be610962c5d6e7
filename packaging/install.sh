#!/bin/bash
# Installs Lighter: binaries to /usr/bin, units to /usr/lib/systemd/system, example settings to /etc/lighter.
# In: BIN_DIR (the three binaries), DESTDIR (empty: this machine). Out: files; nothing is started.
# Settings that are there already are kept.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
bin=${BIN_DIR:-$here/../target/release-bin}
dest=${DESTDIR:-}

for name in lighter lighter-shim lighter-oci; do
    [ -f "$bin/$name" ] || { echo "install: $bin/$name is missing; run \`make release\`" >&2; exit 1; }
    # install(1) unlinks first: a running monitor keeps its old file.
    install -D -m 755 "$bin/$name" "$dest/usr/bin/$name"
done
for unit in "$here"/systemd/*.service; do
    install -D -m 644 "$unit" "$dest/usr/lib/systemd/system/$(basename "$unit")"
done
# The AppArmor profile of containers; apparmor.service loads all of the directory at boot.
install -D -m 644 "$here/apparmor/lighter-default" "$dest/etc/apparmor.d/lighter-default"
if [ -z "$dest" ] && [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ] && command -v apparmor_parser > /dev/null; then
    apparmor_parser -r -W /etc/apparmor.d/lighter-default
fi
install -d -m 755 "$dest/etc/lighter"
for file in "$here"/etc/*.toml; do
    target=$dest/etc/lighter/$(basename "$file")
    [ -e "$target" ] || install -m 600 "$file" "$target"
done
if [ -z "$dest" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
