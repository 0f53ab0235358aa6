#!/bin/sh
# archive_test.sh BUILD [CUDA_PATH]: what `cmake --install` writes runs with an empty environment from where it was moved to, and loads
# nothing from outside but glibc and, since only component `deeper` is installed here, CUDA's libraries out of CUDA_PATH.
set -eu
cuda_path=${2:-}
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cmake --install "$1" --prefix "$directory/here" --component deeper >/dev/null
mkdir "$directory/there"
mv "$directory/here" "$directory/there/archive"
archive=$directory/there/archive

run() {
  echo "run $*"
  env -i HOME="$directory" LD_LIBRARY_PATH="$cuda_path" "$archive/bin/run" "$@" >"$directory/log" 2>&1 || { cat "$directory/log"; exit 1; }
}
run deeper describe --model=nin
run deeper train --synthetic --synthetic_samples=32 --image_size=64 --stem=small --num_classes=10 --global_batch=8 --max_steps=2
run kernels_tests --gtest_filter='Linear*:PlanningDevice*'
run trainer_tests --gtest_filter='*Parity*/nin_cifar'
run comm_mpi_tests --gtest_filter='Comm/*'
run mpirun --oversubscribe --allow-run-as-root --timeout 60 -n 2 comm_mpi_tests --gtest_filter='Comm/*:Mpi*'
run deeper-run -n 2 --oversubscribe -- train --synthetic --synthetic_samples=32 --image_size=64 --stem=small --num_classes=10 --global_batch=8 --max_steps=2
grep -q "$archive/bin/mpirun .* $archive/bin/deeper train" "$directory/log" || { echo "not of the archive:"; cat "$directory/log"; exit 1; }

outside=$(for file in "$archive"/bin/* "$archive"/lib/*.so* "$archive"/lib/openmpi/*; do
  env -i ldd "$file" 2>/dev/null | grep '=>' | grep -vE "=> $archive/|lib(c|dl|m|mvec|pthread|resolv|rt|util)\.so|lib(cudnn|cublasLt)\.so" || true
done | sort -u)
[ -z "$outside" ] || { echo "loaded from outside the archive:"; echo "$outside"; exit 1; }

status=0
env -i OUT="$directory/results" LD_LIBRARY_PATH="$cuda_path" "$archive/bin/gpu-check" device >"$directory/log" 2>&1 || status=$?
case $status in
  0) ;;
  77) grep -q '^not run: device$' "$directory/log" ;;
  *) cat "$directory/log"; exit 1 ;;
esac
