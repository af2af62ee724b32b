#!/usr/bin/env bash
# A machine with nothing but Python, git and make, in a folder: the README's commands and the tutorials, as typed, timed.
#   sudo tests/docs/fresh_root.sh FOLDER    # needs root and debootstrap, 8 GB; the newest commit is what is cloned
# What this machine needs for a network goes with it: name server, certificates, pip's settings and the folders they name.
set -euo pipefail
root=$(realpath -m "${1:?usage: fresh_root.sh FOLDER}")
checkout=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
suite=${SUITE:-bookworm} mirror=${MIRROR:-http://deb.debian.org/debian}

pip_files=() pip_folders=()
for file in /etc/pip.conf /etc/xdg/pip/* "$HOME/.config/pip/pip.conf"; do
    [ -f "$file" ] || continue
    pip_files+=("$file")
    while read -r folder; do [ ! -d "$folder" ] || pip_folders+=("$folder"); done < <(grep -oE '/[^/ ][^ ]*' "$file")
done

if [ ! -d "$root/home/someone/mind" ]; then
    debootstrap --variant=minbase --include=ca-certificates,git,make,python3,python3-venv "$suite" "$root" "$mirror"
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    chroot "$root" useradd --create-home --shell /bin/bash someone
    mkdir -p "$root/etc/xdg/pip" "$root/home/someone/.config/pip"
    for file in "${pip_files[@]}"; do
        case $file in "$HOME"/*) cp "$file" "$root/home/someone/.config/pip/" ;; *) cp "$file" "$root$file" ;; esac
    done
    git clone --quiet --no-local "$checkout" "$root/home/someone/mind"
    chroot "$root" chown -R someone:someone /home/someone
fi

# Mounts and processes in namespaces of their own: whatever happens, nothing of them stays.
type_in() {
    unshare --mount --pid --fork --kill-child bash -euo pipefail -c '
        root=$1 typed=$2; shift 2
        mount --make-rprivate /
        mount -t proc proc "$root/proc"; mount --rbind /sys "$root/sys"; mount --rbind /dev "$root/dev"
        mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
        for folder; do mkdir -p "$root$folder"; mount --bind -o ro "$folder" "$root$folder"; done
        exec chroot --userspec=someone:someone "$root" env -i HOME=/home/someone USER=someone TERM=dumb \
            PATH=/usr/local/bin:/usr/bin:/bin bash -c "cd ~/mind && $typed"
    ' _ "$root" "$1" "${pip_folders[@]}"
}

type_in "python3 --version && git log --oneline -1 && python3 -m tests.docs.typed . README.md"
type_in "source .venv/bin/activate && \
    python3 -m tests.docs.typed ~/shop docs/tutorials/own-log.md docs/tutorials/campaign.md docs/tutorials/production.md"
