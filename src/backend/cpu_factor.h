// The factors of an expert as the CPU kernels read them (kernels/factors.h).
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "backend/matrix.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/factors.h"

namespace expert {

class CpuFactor final : public Matrix {
 public:
  using Role = FactorSource::Role;

  CpuFactor(Role role, int64_t rows, int64_t cols, kernels::Storage storage, std::span<const std::byte> bytes,
            std::shared_ptr<const void> owner)
      : Matrix(rows, cols, storage == kernels::Storage::f32 ? WeightFormat::f32 : WeightFormat::bf16, 0, bytes.size()),
        role_(role),
        storage_(storage),
        bytes_(bytes),
        owner_(std::move(owner)) {}

  Role role() const noexcept { return role_; }
  const unsigned char* bytes() const noexcept { return reinterpret_cast<const unsigned char*>(bytes_.data()); }
  kernels::Storage storage() const noexcept { return storage_; }

 private:
  Role role_;
  kernels::Storage storage_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;  // of bytes_
};

// Backend::pack_factors on up to `threads` short-lived threads; each reads every source it takes in pieces of whole
// panels that stay in its cache. The factors share one block of memory, freed with the last of them. `narrow`: BF16 factors may
// be narrow, where the kernels read that and their shape and values allow it; those that turn out not to have memory of their own.
std::vector<MatrixPtr> pack_cpu_factors(const kernels::CpuKernels& kernels, std::span<const FactorSource> sources,
                                        WeightFormat format, int threads, bool narrow);

}  // namespace expert
