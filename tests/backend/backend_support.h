// The steps every backend test repeats.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "support/random_floats.h"
#include "support/volume.h"
#if defined(EXPERT_EMULATED_CUDA)
#include "backend/cuda/cuda_backend.h"
#include "cuda/emulator/emulated_device.h"
#endif

namespace expert::test {

inline Tensor to_tensor(Backend& backend, const std::vector<float>& values, int64_t rows, int64_t cols) {
  Tensor tensor = backend.allocate(DType::f32, rows, cols);
  backend.upload(tensor, values.data(), values.size() * sizeof(float));
  return tensor;
}

inline std::vector<float> to_vector(Backend& backend, const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.rows * tensor.cols));
  backend.download(values.data(), tensor, values.size() * sizeof(float));
  return values;
}

inline MatrixPtr to_matrix(Backend& backend, const std::vector<float>& values, int64_t rows, int64_t cols,
                           WeightFormat format) {
  MatrixSource source;
  source.rows = rows;
  source.cols = cols;
  source.read = [&](int64_t first, int64_t count, void* destination) {
    std::memcpy(destination, values.data() + first * cols, static_cast<size_t>(count * cols) * sizeof(float));
  };
  return backend.pack(source, format);
}

// The two factors of B (A x) from row-major values: A [rank, in], B [out, rank].
inline LowRankTerm to_low_rank(Backend& backend, const std::vector<float>& a, const std::vector<float>& b, int64_t in,
                               int64_t out, int64_t rank, WeightFormat format, float weight) {
  const auto source = [](FactorSource::Role role, const std::vector<float>& values, int64_t rows, int64_t cols) {
    FactorSource factor;
    factor.role = role;
    factor.values.rows = rows;
    factor.values.cols = cols;
    factor.values.read = [&values, cols](int64_t first, int64_t count, void* destination) {
      std::memcpy(destination, values.data() + first * cols, static_cast<size_t>(count * cols) * sizeof(float));
    };
    return factor;
  };
  const FactorSource sources[] = {source(FactorSource::Role::a, a, rank, in), source(FactorSource::Role::b, b, out, rank)};
  const std::vector<MatrixPtr> packed = backend.pack_factors(sources, format);
  return {packed[0], packed[1], weight};
}

#if defined(EXPERT_EMULATED_CUDA)
// The same tests once more for the CUDA backend, on a device emulated on the host (tests/cuda/emulator).
inline constexpr const char* kIsas[] = {"emulated"};
inline std::unique_ptr<Backend> backend_on(const char*, int threads) {
  return std::make_unique<cuda::CudaBackend>(cuda_emulator::make_device(), kernels::cuda::table(), threads);
}
#elif defined(EXPERT_CUDA_DEVICE)
// On a true device (tests/full, stage cuda).
inline constexpr const char* kIsas[] = {"cuda"};
inline std::unique_ptr<Backend> backend_on(const char* device, int threads) { return make_backend({device, threads, ""}); }
#else
inline constexpr const char* kIsas[] = {"baseline", "avx2", "avxvnni", "avx512",  "avx512bf16",
                                        "amx",      "neon", "neondot", "neoni8mm"};
// The CPU backend on this instruction set; null where the machine does not have it.
inline std::unique_ptr<Backend> backend_on(const char* isa, int threads) {
  try {
    return make_backend({"cpu", threads, isa});
  } catch (const std::exception&) {
    return nullptr;
  }
}
#endif

// The CPU backend on every instruction set of this machine, each with one and with three threads.
inline std::vector<std::unique_ptr<Backend>> cpu_backends() {
  std::vector<std::unique_ptr<Backend>> backends;
  for (const char* isa : kIsas) {
    for (const int threads : {1, 3}) {
      std::unique_ptr<Backend> backend = backend_on(isa, threads);
      if (backend) backends.push_back(std::move(backend));
#if defined(EXPERT_EMULATED_CUDA) || defined(EXPERT_CUDA_DEVICE)
      break;  // threads only pack
#endif
    }
  }
  return backends;
}

inline std::string name_of(const Backend& backend) {
  return backend.info().isa + "/" + std::to_string(backend.info().threads);
}

// max |a - b| / max |b|; infinite where a value is not finite or the sizes differ. `scale`: what |b| is by nature, where
// b is so short that all of it may happen to cancel.
inline double relative_error(const std::vector<float>& a, const std::vector<float>& b, double scale = 0) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0;
  double largest = std::max(scale, 1e-30);
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return INFINITY;
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return worst / largest;
}

inline bool same_bits(const float* a, const float* b, size_t count) {
  return std::memcmp(a, b, count * sizeof(float)) == 0;
}
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && same_bits(a.data(), b.data(), a.size());
}

}  // namespace expert::test
