#!/bin/sh
# compare_full.sh TRAINER_TESTS: compares every element of every gradient with a new run of PyTorch. Exits with 77 (ctest: not run) if
# PyTorch is missing.
set -eu
here=$(dirname "$0")
for python in python3 /usr/bin/python3 none; do
  "$python" -c 'import torch, h5py' 2>/dev/null && break
done
[ "$python" != none ] || { echo "not run: no python3 here has torch and h5py"; exit 77; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
"$python" "$here/torch_reference.py" --dump "$directory" googlenet googlenet-small-stem googlenet-blurred googlenet-bn googlenet-torchvision \
  nin nin-bn nin-cifar nin-cifar-bn
DEEPER_PARITY_DIR=$directory "$1" --gtest_filter='Parity.*'
