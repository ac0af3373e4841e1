#!/bin/sh
# Builds the kernels for AArch64 and runs the kernel and backend tests under emulation.
#   tests/kernels/run_neon.sh [BUILD_DIR]
# Needs: apt-get install --no-install-recommends g++-aarch64-linux-gnu qemu-user-static, doctest and fmt headers.
# Exit code 3: a tool is missing.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$(mktemp -d)}
cxx=aarch64-linux-gnu-g++
for tool in $cxx qemu-aarch64-static; do
  command -v $tool >/dev/null || { echo "$tool is missing: apt-get install --no-install-recommends g++-aarch64-linux-gnu qemu-user-static" >&2; exit 3; }
done

mkdir -p "$build/include"
for library in doctest fmt; do  # header-only here; the host's other headers must stay out
  ln -sfn "/usr/include/$library" "$build/include/$library"
done
flags="-std=c++20 -O2 -static -pthread -DFMT_HEADER_ONLY -I$root -I$root/src -isystem $build/include"

isa() {  # name, set whose floats it uses, compiler flags
  name=$1
  floats=$2
  shift 2
  units="table gemm_quantised gemm_screen attention_int8"
  [ "$name" = "$floats" ] && units="$units gemm gemm_narrow quantise_weights delta pack_factors attention elementwise"
  for unit in $units; do
    $cxx $flags -O3 -ffp-contract=off -fno-math-errno "$@" "-DEXPERT_ISA_NAMESPACE=$name" "-DEXPERT_ISA_FLOATS=$floats" \
      -c "$root/kernels/cpu/$unit.cpp" -o "$build/${name}_$unit.o"
  done
  "$root/tests/kernels/check_symbols.sh" "$build/${name}"_*.o
}
isa neon neon
isa neondot neon -march=armv8.2-a+dotprod
isa neoni8mm neon -march=armv8.2-a+dotprod+i8mm
for unit in kernels/cpu/dispatch kernels/cpu/panels kernels/cpu/screen kernels/cpu/factors kernels/reference/reference src/core/thread_pool src/core/crew src/core/cores src/core/pages src/core/log \
            src/backend/registry src/backend/cuda_loader src/backend/weight_format src/backend/host_memory src/backend/factors src/backend/cpu_backend src/backend/cpu_operations \
            src/backend/cpu_factor src/backend/cpu_linear src/backend/cpu_attention src/backend/cpu_matrix \
            src/backend/cpu_prepared_input src/backend/cpu_screen src/backend/cpu_terms src/backend/reference_backend; do
  $cxx $flags -ffp-contract=off '-DEXPERT_BACKEND_STAMP="none"' -c "$root/$unit.cpp" -o "$build/$(echo $unit | tr / _).o"
done

$cxx $flags -c "$root/tests/support/doctest_main.cpp" -o "$build/doctest_main.o"

status=0
for test in kernels/kernels_test kernels/delta_test kernels/quantised_test kernels/screen_test backend/backend_test backend/linear_test backend/screen_test backend/attention_test backend/walk_test; do
  $cxx $flags -I"$root/tests" "$root/tests/$test.cpp" "$build"/*.o -o "$build/$(basename $test)"
  echo "== $test (NEON, with dot products and i8mm, emulated)"
  qemu-aarch64-static -cpu max "$build/$(basename $test)" || status=1
done
exit $status
