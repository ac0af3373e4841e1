#include "backend/cpu_prepared_input.h"

#include <algorithm>
#include <utility>

#include "backend/host_memory.h"

namespace expert {

namespace {

constexpr int64_t kLeastValues = 16384;  // worth a task of their own

}  // namespace

namespace {

void enlarge(RoomForRows::Room& room, size_t bytes) {
  if (bytes <= room.capacity) return;
  room.capacity = 0;
  room.bytes = allocate_host(bytes);
  room.capacity = bytes;
}

}  // namespace

void PreparedInputs::begin(const float* x, int64_t rows, int64_t inputs) {
  used_ = 0;
  const Entry& made = made_[turn_];
  const bool is_it = made_x_.exchange(nullptr, std::memory_order_relaxed) == x && made.rows == rows && made.inputs == inputs;
  given_ = is_it ? &made : nullptr;
}

bool PreparedInputs::holds(const Entry& entry, kernels::Storage storage, const float* x) const {
  return entry.x == x && entry.values == kernels::values_of(storage);
}

void PreparedInputs::prepare(kernels::Storage storage, const float* x, int64_t rows, int64_t inputs) {
  const int64_t row_bytes = kernels_.prepared_row_bytes(storage, inputs);
  if (row_bytes == 0 || find(storage, x) != nullptr) return;
  if (used_ == entries_.size()) entries_.emplace_back();
  OwnEntry& own = entries_[used_];
  enlarge(own.room, static_cast<size_t>(rows * row_bytes));
  own.entry = {kernels::values_of(storage), x, rows, inputs, reinterpret_cast<unsigned char*>(own.room.bytes.get())};
  ++used_;
  fill(own.entry);
}

const unsigned char* PreparedInputs::find(kernels::Storage storage, const float* x) const {
  if (given_ != nullptr && holds(*given_, storage, x)) return given_->data;
  for (size_t i = 0; i < used_; ++i) {
    if (holds(entries_[i].entry, storage, x)) return entries_[i].entry.data;
  }
  return nullptr;
}

RowsInTheMaking PreparedInputs::make(kernels::Storage storage, const float* x, int64_t rows, int64_t inputs) {
  forget_made();
  RowsInTheMaking making;
  making.row_bytes_ = kernels_.prepared_row_bytes(storage, inputs);
  if (making.row_bytes_ == 0) return making;
  turn_ = 1 - turn_;
  enlarge_common(static_cast<size_t>(rows * making.row_bytes_));
  Entry& made = made_[turn_];
  made = {kernels::values_of(storage), x, rows, inputs,
          reinterpret_cast<unsigned char*>(common_.rooms[turn_].bytes.get())};
  made_x_.store(x, std::memory_order_relaxed);
  making.kernels_ = &kernels_;
  making.values_ = made.values;
  making.x_ = x;
  making.inputs_ = inputs;
  making.to_ = made.data;
  return making;
}

void PreparedInputs::enlarge_common(size_t bytes) {
  RoomForRows::Room& room = common_.rooms[turn_];
  member_.once(bytes > room.capacity, [&] { enlarge(room, bytes); });
}

void PreparedInputs::fill(const Entry& entry) {
  const int64_t row_bytes = kernels_.prepared_row_bytes(entry.values, entry.inputs);
  const int64_t pieces = std::clamp<int64_t>(entry.rows * entry.inputs / kLeastValues, 1, std::min(entry.rows, int64_t{64}));
  member_.by_itself(pieces, [&](int64_t piece) {
    for (int64_t r = entry.rows * piece / pieces; r < entry.rows * (piece + 1) / pieces; ++r) {
      kernels_.prepare_row(entry.values, entry.x + r * entry.inputs, entry.inputs, {0, entry.inputs},
                           entry.data + r * row_bytes);
    }
  });
}

}  // namespace expert
