// Activations in the form that kernels want them in, made once per call and shared by the outputs that read the same rows.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/crew.h"
#include "kernels/cpu/cpu_kernels.h"

namespace expert {

// Rows that are prepared where they are made, part by part, for the call that reads them next.
class RowsInTheMaking {
 public:
  // Inputs [begin, end) of a row are written: whole groups, but for its last. Any thread; parts of their own.
  void prepare(int64_t row, int64_t begin, int64_t end) const {
    if (to_ != nullptr) kernels_->prepare_row(values_, x_ + row * inputs_, inputs_, {begin, end}, to_ + row * row_bytes_);
  }

 private:
  friend class PreparedInputs;

  const kernels::CpuKernels* kernels_ = nullptr;
  kernels::Storage values_ = kernels::Storage::f32;
  const float* x_ = nullptr;
  int64_t inputs_ = 0;
  int64_t row_bytes_ = 0;
  unsigned char* to_ = nullptr;  // null: they are read as they are
};

// Memory that the members of a crew make rows in: one is read while the other is written.
struct RoomForRows {
  struct Room {
    size_t capacity = 0;
    std::shared_ptr<std::byte> bytes;
  };
  Room rooms[2];
};

// As one member of a crew has them. Rows that it is given it prepares for itself; those in the making are common to all.
class PreparedInputs {
 public:
  PreparedInputs(const kernels::CpuKernels& kernels, CrewMember& member, RoomForRows& common)
      : kernels_(kernels), member_(member), common_(common) {}

  // Before a walk: the same for all.
  void begin_walk() noexcept {
    forget_made();
    turn_ = 0;
  }

  // Forgets the rows of the last call, whose memory is used again, and what was made for this one unless it is x [rows,
  // inputs].
  void begin(const float* x, int64_t rows, int64_t inputs);
  // x [rows, inputs] for weights stored so, unless they read x itself.
  void prepare(kernels::Storage storage, const float* x, int64_t rows, int64_t inputs);
  // kernels::GemmArgs::prepared of row 0; null where x was not prepared. Any thread, while nothing is prepared.
  const unsigned char* find(kernels::Storage storage, const float* x) const;

  // Room for x [rows, inputs], all of which will be prepared before the next call begins. By all members of a walk.
  RowsInTheMaking make(kernels::Storage storage, const float* x, int64_t rows, int64_t inputs);
  // Something else was written since.
  void forget_made() noexcept { made_x_.store(nullptr, std::memory_order_relaxed); }
  // x was, perhaps. From any thread.
  void forget_made(const void* x) noexcept {
    const float* made = static_cast<const float*>(x);
    made_x_.compare_exchange_strong(made, nullptr, std::memory_order_relaxed);
  }

 private:
  struct Entry {
    kernels::Storage values = kernels::Storage::f32;  // of the weights
    const float* x = nullptr;
    int64_t rows = 0;
    int64_t inputs = 0;
    unsigned char* data = nullptr;
  };
  struct OwnEntry {
    Entry entry;
    RoomForRows::Room room;
  };

  bool holds(const Entry& entry, kernels::Storage storage, const float* x) const;
  void fill(const Entry& entry);
  void enlarge_common(size_t bytes);

  const kernels::CpuKernels& kernels_;
  CrewMember& member_;
  RoomForRows& common_;
  std::vector<OwnEntry> entries_;
  size_t used_ = 0;
  Entry made_[2];  // in the common rooms
  int turn_ = 0;   // of the one that was made last: for the next call, if it reads made_x_
  const Entry* given_ = nullptr;  // that this call reads
  std::atomic<const float*> made_x_{nullptr};
};

}  // namespace expert
