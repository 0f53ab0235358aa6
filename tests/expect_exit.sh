#!/bin/bash
# expect_exit.sh CODE TEXT COMMAND...: COMMAND must exit with CODE and print TEXT, to either stream.
set -uo pipefail
code=$1 text=$2
shift 2
output=$("$@" 2>&1)
actual=$?
printf '%s\n' "$output"
if [ "$actual" -ne "$code" ]; then
  echo "expected exit code $code, got $actual" >&2
  exit 1
fi
if ! grep -qF -- "$text" <<<"$output"; then
  echo "expected the output to say: $text" >&2
  exit 1
fi
