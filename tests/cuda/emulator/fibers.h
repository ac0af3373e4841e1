// Runs blocks of threads, for emulated_device.cpp and the tests of the emulator itself.
#pragma once

#include <cstddef>
#include <functional>

#include "cuda/emulator/emulator.h"

namespace expert::cuda_emulator {

// In which order the threads of a block go on after each barrier. Results must not depend on it.
enum class Order { forward, backward, shuffled };
void set_order(Order order);

// `body` once per thread of one block. Throws std::logic_error where threads wait for others that never come.
void run_block(const Index& block, int threads, size_t memory_bytes, const std::function<void()>& body);

}  // namespace expert::cuda_emulator
