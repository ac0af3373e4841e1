// Any bytes as a safetensors file: refused with a typed error, or every entry can be read to its last byte.
#include <cstdint>
#include <memory>

#include "core/error.h"
#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expert;
  const auto* begin = reinterpret_cast<const std::byte*>(data);
  try {
    const auto file = SafeTensors::from_memory(std::make_shared<const Bytes>(begin, begin + size), "fuzz");
    uint64_t total = 0;
    for (const TensorEntry& entry : file.entries()) {
      Bytes bytes(entry.bytes);
      file.read(entry, 0, bytes.data(), bytes.size());
      total += entry.bytes;
      if (entry.dtype && *entry.dtype != DType::i32 && file.read_f32(entry).size() != entry.elements())
        __builtin_trap();
      if (file.find(entry.name) != &entry) __builtin_trap();
    }
    if (total > size) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
