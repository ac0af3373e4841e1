#include "io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include "core/error.h"
#include "io/json.h"

namespace expert {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian and read as they are");

constexpr size_t kMostTensors = 1'000'000;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr uint64_t kLengthBytes = 8;

// Bits per element of every type the format names; 0 for names it does not know.
unsigned bits_of(std::string_view dtype_name) {
  static const std::map<std::string_view, unsigned> kBits = {
      {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"BOOL", 8}, {"U8", 8},   {"I8", 8},    {"F8_E5M2", 8},
      {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},    {"U16", 16}, {"F16", 16}, {"BF16", 16}, {"I32", 32},
      {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64}, {"I64", 64}, {"U64", 64}};
  const auto found = kBits.find(dtype_name);
  return found == kBits.end() ? 0 : found->second;
}

std::optional<DType> dtype_of(std::string_view name) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::i32}) {
    if (name == name_of(dtype)) return dtype;
  }
  return std::nullopt;
}

[[noreturn]] void fail_tensor(const std::string& source, std::string_view tensor, std::string_view what) {
  throw Error(ErrorCode::load, fmt::format("{}: tensor {}: {}", source, tensor.substr(0, 200), what),
              "the file is damaged or was not written by safetensors; fetch or export it again");
}

uint64_t unsigned_of(const Json& value, const std::string& source, std::string_view tensor, std::string_view what) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    fail_tensor(source, tensor, fmt::format("{} must be non-negative integers", what));
  }
  return value.get<uint64_t>();
}

// Bytes of `shape` elements of `bits` each, or nothing when that overflows or ends inside a byte.
std::optional<uint64_t> span_of(const std::vector<int64_t>& shape, unsigned bits) {
  uint64_t elements = 1;
  for (const int64_t dim : shape) {
    if (__builtin_mul_overflow(elements, static_cast<uint64_t>(dim), &elements)) return std::nullopt;
  }
  uint64_t total_bits = 0;
  if (__builtin_mul_overflow(elements, uint64_t{bits}, &total_bits) || total_bits % 8 != 0) return std::nullopt;
  return total_bits / 8;
}

std::map<std::string, std::string> parse_metadata(const Json& value, const std::string& source) {
  if (!value.is_object()) fail(ErrorCode::load, "{}: __metadata__ must be an object of strings", source);
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) fail(ErrorCode::load, "{}: __metadata__ \"{}\" must be a string", source, key);
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

// Offsets in the result count from the start of the data section.
TensorEntry parse_entry(const std::string& name, const Json& value, const std::string& source) {
  if (!value.is_object()) fail_tensor(source, name, "must be described by an object");
  for (const auto& [key, unused] : value.items()) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      fail_tensor(source, name, fmt::format("unknown field \"{}\"", key));
    }
  }
  const auto dtype = value.find("dtype"), shape = value.find("shape"), offsets = value.find("data_offsets");
  if (dtype == value.end() || !dtype->is_string()) fail_tensor(source, name, "dtype must be a string");
  if (shape == value.end() || !shape->is_array()) fail_tensor(source, name, "shape must be a list");
  if (offsets == value.end() || !offsets->is_array() || offsets->size() != 2) {
    fail_tensor(source, name, "data_offsets must be two numbers");
  }
  TensorEntry entry{.name = name, .dtype = {}, .dtype_name = dtype->get<std::string>(), .shape = {}};
  entry.dtype = dtype_of(entry.dtype_name);
  entry.shape.reserve(shape->size());
  for (const Json& dim : *shape) {
    entry.shape.push_back(static_cast<int64_t>(unsigned_of(dim, source, name, "dimensions")));
  }
  entry.offset = unsigned_of((*offsets)[0], source, name, "data_offsets");
  const uint64_t end = unsigned_of((*offsets)[1], source, name, "data_offsets");
  if (end < entry.offset) fail_tensor(source, name, "data_offsets end before they begin");
  entry.bytes = end - entry.offset;
  return entry;
}

void check_span(const TensorEntry& entry, const std::string& source) {
  const unsigned bits = bits_of(entry.dtype_name);
  if (bits == 0) {
    // A type from the future: its bytes can be placed but not measured, only the element count must make sense.
    if (!span_of(entry.shape, 8)) fail_tensor(source, entry.name, "the element count overflows");
    return;
  }
  const std::optional<uint64_t> expected = span_of(entry.shape, bits);
  if (!expected) fail_tensor(source, entry.name, fmt::format("{} has no valid size in bytes", entry.describe()));
  if (*expected != entry.bytes) {
    fail_tensor(source, entry.name,
                fmt::format("{} needs {} bytes, data_offsets span {}", entry.describe(), *expected, entry.bytes));
  }
}

// The format demands that tensors cover the data section without gaps or overlaps.
void check_layout(const std::vector<TensorEntry>& entries, uint64_t data_bytes, const std::string& source) {
  std::vector<const TensorEntry*> ordered;
  for (const TensorEntry& entry : entries) ordered.push_back(&entry);
  std::sort(ordered.begin(), ordered.end(), [](const TensorEntry* a, const TensorEntry* b) {
    return std::pair(a->offset, a->bytes) < std::pair(b->offset, b->bytes);
  });
  uint64_t covered = 0;
  for (const TensorEntry* entry : ordered) {
    if (entry->offset > data_bytes || entry->bytes > data_bytes - entry->offset) {
      fail_tensor(source, entry->name,
                  fmt::format("ends at byte {} of a data section of {}: the file is cut or its header lies",
                              entry->offset + entry->bytes, data_bytes));
    }
    if (entry->offset < covered) fail_tensor(source, entry->name, "overlaps the tensor before it");
    if (entry->offset > covered) fail_tensor(source, entry->name, "leaves a gap before it");
    covered += entry->bytes;
  }
  if (covered != data_bytes) {
    fail(ErrorCode::load, "{}: {} bytes after the last tensor belong to nothing", source, data_bytes - covered);
  }
}

float f16_to_f32(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t exponent = (half >> 10) & 31u;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {  // zero and subnormals: mantissa · 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t wide_exponent = exponent == 31 ? 255u : exponent + 112u;
  return std::bit_cast<float>(sign | wide_exponent << 23 | mantissa << 13);
}

void widen(DType dtype, const std::byte* stored, size_t n, float* out) {
  if (dtype == DType::f32) {
    std::memcpy(out, stored, n * sizeof(float));
    return;
  }
  for (size_t i = 0; i < n; ++i) {
    uint16_t bits;
    std::memcpy(&bits, stored + 2 * i, sizeof bits);
    out[i] = dtype == DType::f16 ? f16_to_f32(bits) : std::bit_cast<float>(uint32_t{bits} << 16);
  }
}

}  // namespace

uint64_t TensorEntry::elements() const {
  uint64_t count = 1;
  for (const int64_t dim : shape) count *= static_cast<uint64_t>(dim);
  return count;
}

std::string TensorEntry::describe() const {
  return fmt::format("{} {} [{}]", name.substr(0, 200), dtype_name, fmt::join(shape, ", "));
}

SafeTensors SafeTensors::open(const std::string& path) {
  return from_file(std::make_shared<const File>(File::open(path)), path);
}

SafeTensors SafeTensors::from_file(std::shared_ptr<const File> file, std::string source) {
  SafeTensors tensors;
  tensors.source_ = std::move(source);
  tensors.file_ = std::move(file);
  tensors.parse_header(tensors.file_->size());
  return tensors;
}

SafeTensors SafeTensors::from_memory(std::shared_ptr<const Bytes> bytes, std::string source) {
  SafeTensors tensors;
  tensors.source_ = std::move(source);
  tensors.memory_ = std::move(bytes);
  tensors.parse_header(tensors.memory_->size());
  return tensors;
}

void SafeTensors::parse_header(uint64_t size) {
  if (size < kLengthBytes) fail(ErrorCode::load, "{}: {} bytes are too few for a safetensors file", source_, size);
  uint64_t header_bytes = 0;
  read_bytes(0, &header_bytes, sizeof header_bytes);
  if (std::memcmp(&header_bytes, "version ", sizeof header_bytes) == 0) {  // of a size that no file has
    throw Error(ErrorCode::load, fmt::format("{}: is a Git LFS pointer, not the file it stands for", source_),
                "run `git lfs pull`, or download the file itself");
  }
  if (header_bytes > kMaxHeaderBytes || header_bytes > size - kLengthBytes) {
    throw Error(ErrorCode::load,
                fmt::format("{}: the header claims {} bytes, the file has {} after it and the format allows {}",
                            source_, header_bytes, size - kLengthBytes, kMaxHeaderBytes),
                "the file is cut, or no safetensors file at all; fetch it again");
  }
  std::string header(header_bytes, '\0');
  read_bytes(kLengthBytes, header.data(), header.size());
  if (!header.starts_with('{')) fail(ErrorCode::load, "{}: the header does not begin with '{{'", source_);
  const Json document =
      parse_json(header, fmt::format("{}: header", source_), {.max_bytes = kMaxHeaderBytes, .max_depth = 4});
  if (document.size() > kMostTensors + 1) fail(ErrorCode::load, "{}: has more than {} tensors", source_, kMostTensors);
  for (const auto& [name, value] : document.items()) {
    if (name == "__metadata__") {
      metadata_ = parse_metadata(value, source_);
    } else {
      entries_.push_back(parse_entry(name, value, source_));
      check_span(entries_.back(), source_);
    }
  }
  check_layout(entries_, size - kLengthBytes - header_bytes, source_);
  for (TensorEntry& entry : entries_) entry.offset += kLengthBytes + header_bytes;
  std::sort(entries_.begin(), entries_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
}

const TensorEntry* SafeTensors::find(std::string_view name) const {
  const auto at =
      std::lower_bound(entries_.begin(), entries_.end(), name,
                       [](const TensorEntry& entry, std::string_view wanted) { return entry.name < wanted; });
  return at != entries_.end() && at->name == name ? &*at : nullptr;
}

const TensorEntry& SafeTensors::at(std::string_view name) const {
  const TensorEntry* entry = find(name);
  if (entry == nullptr) fail(ErrorCode::load, "{}: tensor {} is missing", source_, name);
  return *entry;
}

void SafeTensors::read_bytes(uint64_t offset, void* destination, size_t n) const {
  if (file_) return file_->read_at(offset, destination, n);
  if (n > 0) std::memcpy(destination, memory_->data() + offset, n);
}

void SafeTensors::read(const TensorEntry& entry, uint64_t offset, void* destination, size_t n) const {
  if (offset > entry.bytes || n > entry.bytes - offset) {
    fail(ErrorCode::internal, "{}: read of {} bytes at {} outside of {}", source_, n, offset, entry.describe());
  }
  read_bytes(entry.offset + offset, destination, n);
}

std::vector<float> SafeTensors::read_f32(const TensorEntry& entry) const {
  if (!entry.dtype || *entry.dtype == DType::i32) {
    fail(ErrorCode::unsupported, "{}: {} cannot be read as numbers; F32, F16 and BF16 can", source_, entry.describe());
  }
  const size_t element_bytes = size_of(*entry.dtype);
  const size_t total = entry.bytes / element_bytes;
  std::vector<float> values(total);
  Bytes chunk(std::min<uint64_t>(entry.bytes, uint64_t{1} << 20));
  for (size_t done = 0; done < total;) {
    const size_t n = std::min(chunk.size() / element_bytes, total - done);
    read(entry, done * element_bytes, chunk.data(), n * element_bytes);
    widen(*entry.dtype, chunk.data(), n, values.data() + done);
    done += n;
  }
  return values;
}

Bytes make_safetensors(const std::vector<TensorToWrite>& tensors, const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string_view> names = {"__metadata__"};
  uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    const unsigned bits = bits_of(tensor.dtype_name);
    if (!names.insert(tensor.name).second) fail(ErrorCode::invalid_request, "tensor {} is given twice", tensor.name);
    if (bits == 0 || span_of(tensor.shape, bits) != tensor.bytes.size()) {
      fail(ErrorCode::invalid_request, "tensor {}: {} bytes do not fit {} [{}]", tensor.name, tensor.bytes.size(),
           tensor.dtype_name, fmt::join(tensor.shape, ", "));
    }
    header.push_back({tensor.name,
                      {{"dtype", tensor.dtype_name},
                       {"shape", tensor.shape},
                       {"data_offsets", {offset, offset + tensor.bytes.size()}}}});
    offset += tensor.bytes.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data section starts aligned
  const uint64_t length = text.size();
  Bytes file(sizeof length);
  file.reserve(sizeof length + text.size() + offset);
  std::memcpy(file.data(), &length, sizeof length);
  file.append(as_bytes(text));
  for (const TensorToWrite& tensor : tensors) file.append(tensor.bytes);
  return file;
}

void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  write_file_atomically(path, make_safetensors(tensors, metadata));
}

}  // namespace expert
