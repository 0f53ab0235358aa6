#!/bin/sh
# archive_test.sh BUILD [CUDA_PATH]: what `cmake --install` writes runs with an empty environment from where it was moved to: component
# `deeper` alone with the Open MPI of the machine, and, where the build has component `openmpi`, with that. It then loads nothing from outside but
# the C and C++ run time and, since component `cuda-libraries` is not installed, CUDA's libraries out of CUDA_PATH.
set -eu
cuda_path=${2:-}
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
mkdir "$directory/there"
archive=$directory/there/archive

# add COMPONENT: to the archive.
add() {
  cmake --install "$1" --prefix "$directory/here" --component "$2" >/dev/null
  rm -rf "$archive"
  cp -a "$directory/here" "$archive"
}
run() {
  echo "run $*"
  env -i HOME="$directory" LD_LIBRARY_PATH="$cuda_path" "$archive/bin/run" "$@" >"$directory/log" 2>&1 || { cat "$directory/log"; exit 1; }
}
train='train --synthetic --synthetic_samples=32 --image_size=64 --stem=small --num_classes=10 --global_batch=8 --max_steps=2'
# shellcheck disable=SC2086  # words of $train
two_ranks() {
  run deeper-run -n 2 --oversubscribe -- $train
  grep -q "$1/mpirun .* $archive/bin/deeper train" "$directory/log" || { echo "not of $1:"; cat "$directory/log"; exit 1; }
}

add "$1" deeper
[ -e "$archive/licenses/deeper.md" ] || ! command -v dpkg >/dev/null || { echo "no licences"; exit 1; }
two_ranks ""
add "$1" openmpi
if [ -e "$archive/bin/mpirun" ]; then
  two_ranks "$archive/bin"
  run mpirun --oversubscribe --allow-run-as-root --mca orte_allowed_exit_without_sync 1 --timeout 240 -n 2 comm_mpi_tests --gtest_filter='Comm/*:Mpi*'
  run comm_mpi_tests --gtest_filter='Comm/*'
  outside=$(for file in "$archive"/bin/* "$archive"/lib/*.so* "$archive"/lib/openmpi/*; do
    env -i ldd "$file" 2>/dev/null | grep '=>' |
      grep -vE "=> $archive/|lib(c|dl|m|mvec|pthread|resolv|rt|util|gcc_s|stdc\+\+)\.so|lib(cudnn|cublasLt)\.so" || true
  done | sort -u)
  [ -z "$outside" ] || { echo "loaded from outside the archive:"; echo "$outside"; exit 1; }
fi
run deeper describe --model=nin
run kernels_tests --gtest_filter='Linear*:PlanningDevice*'
run trainer_tests --gtest_filter='*Parity*/nin_cifar'

status=0
env -i OUT="$directory/results" LD_LIBRARY_PATH="$cuda_path" "$archive/bin/gpu-check" device >"$directory/log" 2>&1 || status=$?
case $status in
  0) ;;
  77) grep -q '^not run: device$' "$directory/log" ;;
  *) cat "$directory/log"; exit 1 ;;
esac
