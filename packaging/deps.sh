#!/bin/bash
# Installs the Debian packages of the named groups (debian-packages.txt) that are missing, and nothing else.
# In: group names. Out: installed packages. Never: starts a service, never upgrades what is there.
set -euo pipefail
list=$(dirname "$(realpath "$0")")/debian-packages.txt

wanted() { # packages of the groups given
    local group
    for group in "$@"; do
        awk -v group="$group" '!/^#/ && NF == 2 && index("," $1 ",", "," group ",") { print $2 }' "$list"
    done | sort -u
}

missing() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || echo "$package"
    done
}

# Packages of one source that must have one version: a newer qemu-utils keeps qemu-system-x86 out.
pinned() {
    local package version
    version=$(apt-cache policy qemu-system-x86 | awk '/Candidate:/ { print $2 }')
    for package in "$@"; do
        case $package in
            qemu-system-x86) echo "qemu-system-x86=$version qemu-utils=$version" ;;
            qemu-utils) ;;
            *) echo "$package" ;;
        esac
    done
}

install_packages() {
    # shellcheck disable=SC2046
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --allow-downgrades \
        -o Dpkg::Use-Pty=0 $(pinned "$@") >"$log" 2>&1
}

mapfile -t packages < <(missing $(wanted "$@"))
if [ ${#packages[@]} -eq 0 ]; then
    exit 0
fi
echo "deps: installing ${packages[*]}"
if [ "$(id -u)" -ne 0 ]; then
    echo "deps: not root; run: sudo apt-get install --no-install-recommends ${packages[*]}" >&2
    exit 1
fi
log=$(mktemp)
policy=/usr/sbin/policy-rc.d
made_policy=
cleanup() {
    rm -f "$log"
    if [ -n "$made_policy" ]; then rm -f "$policy"; fi
}
trap cleanup EXIT
if [ ! -e "$policy" ]; then
    # Debian's own way to keep a package's service from starting while it is installed.
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made_policy=yes
fi
# The package lists may be missing or old; they are fetched only then.
if ! install_packages "${packages[@]}"; then
    echo "deps: fetching the package lists"
    apt-get update -q >"$log" 2>&1 || { tail -5 "$log" >&2; exit 1; }
    install_packages "${packages[@]}" || { tail -20 "$log" >&2; exit 1; }
fi
