// The kernels of kernels/cuda, as they are, built by the host's compiler.
#include "kernels/cuda/table.cu"  // NOLINT: the source of the devices' build
