#!/bin/bash
# roots_trial.sh WHEEL BUILD [SUITE...]: installs the wheel and the archive into new roots of Debian's suites (bookworm trixie), each in every way
# that docs/start/install.md shows, and trains on two ranks. Needs root, mmdebstrap, and the mirrors of Debian and PyPI. Not part of ./launch/test.
# Prints per way the Open MPI that ran, the MiB and the seconds from the bare root to the end of the first step. Fails if a way does not train.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,4s/^# //p' "$0" >&2 && exit 2; }
wheel=$(realpath "$1")
build=$(realpath "$2")
shift 2
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(bookworm trixie)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$build" && cpack -B "$work" >"$work/log" 2>&1) || { cat "$work/log" && exit 1; }
train='train --synthetic --synthetic_samples=64 --image_size=64 --stem=small --num_classes=10 --global_batch=8 --max_steps=1'

# try SUITE NAME COMMANDS: runs the commands in a new copy of the bare root. They set `deeper` and `pair`, which start one rank and two.
try() {
  local suite=$1 name=$2 root=$work/root began
  cp -a "$work/$suite" "$root"
  cp "$wheel" "$work"/deeper-*.tar.gz "$root/tmp"
  cp /etc/resolv.conf "$root/etc"
  cp /etc/ssl/certs/ca-certificates.crt "$root/tmp"  # of a mirror of PyPI with its own authority
  began=$(date +%s.%N)
  # shellcheck disable=SC2016  # bash inside expands
  # A process namespace, so that nothing survives the trial; sysfs shows the processors to Open MPI.
  if ! unshare --mount --pid --fork --kill-child bash -c '
    mount --bind /dev "$1/dev" && mount -t proc proc "$1/proc" && mount --rbind /sys "$1/sys" &&
    chroot "$1" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin PIP_CERT=/tmp/ca-certificates.crt \
      ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} DEBIAN_FRONTEND=noninteractive bash -euc "$2
        date +%s.%N >/tmp/installed; \$pair $3 >/tmp/trained 2>&1 || { cat /tmp/trained; exit 1; }
        grep -q \"ranks  *2 over mpi\" /tmp/trained; \$deeper --version | tail -1 >/tmp/version"' _ "$root" "$3" "$train" >"$work/log" 2>&1; then
    cat "$work/log"
    echo "$suite, $name: FAILED"
    exit 1
  fi
  awk -v what="$suite, $name" -v began="$began" -v ended="$(date +%s.%N)" -v installed="$(cat "$root/tmp/installed")" \
    -v mib="$(($(du -sm "$root" | cut -f1) - $(du -sm "$work/$suite" | cut -f1)))" -v version="$(grep -o 'Open MPI v[0-9.]*' "$root/tmp/version")" \
    'BEGIN { printf "%-45s %-16s %4d MiB  installed in %4.0f s, trained in %4.0f s\n", what, version, mib, installed - began, ended - installed }'
  rm -rf "$root"
}

echo "wheel $(du -m "$wheel" | cut -f1) MiB; $(cd "$work" && du -m deeper-*.tar.gz | awk '{ printf "%s %d MiB; ", $2, $1 }')"
apt='apt-get update -qq && apt-get install -qq -y --no-install-recommends'
venv="$apt python3-venv ca-certificates && python3 -m venv /opt/venv && /opt/venv/bin/pip install --quiet"
for suite in "${suites[@]}"; do
  mmdebstrap --quiet --mode=root --variant=minbase "$suite" "$work/$suite"
  pair="deeper=/opt/venv/bin/deeper pair='/opt/venv/bin/deeper-run -n 2 --oversubscribe --'"
  try "$suite" "wheel[mpi], PyPI's Open MPI" "$venv \"\$(echo /tmp/*.whl)[mpi]\"; $pair"
  try "$suite" "wheel, Debian's Open MPI" "$venv /tmp/*.whl; apt-get install -qq -y --no-install-recommends openmpi-bin openssh-client; $pair"
  pair="deeper='/opt/deeper/bin/run deeper' pair='/opt/deeper/bin/run mpirun --allow-run-as-root --oversubscribe -n 2 deeper'"
  unpack="mkdir /opt/deeper; for file in \$(ls /tmp/*.tar.gz"
  into="); do tar -xzf \$file -C /opt/deeper --strip-components=1; done"
  try "$suite" "archive, Debian's Open MPI" "$apt openmpi-bin openssh-client libstdc++6; $unpack | grep -v openmpi$into; $pair"
  try "$suite" "archive with its Open MPI" "$unpack$into; $pair"
  rm -rf "${work:?}/$suite"
done
