#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "io/safetensors.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

using namespace expert;
using test::TempDir;

namespace {

// A file with exactly this header text and `data_bytes` counting bytes after it.
std::shared_ptr<const Bytes> document(const std::string& header, size_t data_bytes) {
  Bytes file(8);
  const uint64_t length = header.size();
  std::memcpy(file.data(), &length, 8);
  file.append(as_bytes(header));
  for (size_t i = 0; i < data_bytes; ++i) file.resize(file.size() + 1, static_cast<std::byte>(i));
  return std::make_shared<const Bytes>(std::move(file));
}

SafeTensors parse(const std::string& header, size_t data_bytes) {
  return SafeTensors::from_memory(document(header, data_bytes), "x");
}

TensorToWrite f32(const std::string& name, std::vector<int64_t> shape, const std::vector<float>& values) {
  Bytes bytes(values.size() * 4);
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return {name, "F32", std::move(shape), std::move(bytes)};
}

}  // namespace

TEST_CASE("a written file reads back from disk and from memory") {
  const TempDir dir;
  write_safetensors(dir / "a.safetensors",
                    {f32("w", {2, 3}, {1, 2, 3, 4, 5, 6}), f32("b", {3}, {7, 8, 9}), f32("s", {}, {42})},
                    {{"format", "pt"}});
  const SafeTensors file = SafeTensors::open(dir / "a.safetensors");
  REQUIRE(file.entries().size() == 3);
  CHECK(file.entries()[0].name == "b");
  CHECK(file.metadata().at("format") == "pt");
  const TensorEntry& w = file.at("w");
  CHECK(w.dtype == DType::f32);
  CHECK(w.shape == std::vector<int64_t>{2, 3});
  CHECK(w.elements() == 6);
  CHECK(w.describe() == "w F32 [2, 3]");
  CHECK(file.read_f32(w) == std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(file.read_f32(file.at("s")) == std::vector<float>{42});
  float third = 0;
  file.read(w, 8, &third, 4);
  CHECK(third == 3);
  CHECK(file.find("absent") == nullptr);
  EXPECT_ERROR(load, "tensor absent is missing", file.at("absent"));
  EXPECT_ERROR(internal, "outside", file.read(w, 21, &third, 4));
  CHECK(file.file() != nullptr);
}

TEST_CASE("half types widen exactly") {
  Bytes every(65536 * 2);
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    std::memcpy(every.data() + 2 * i, &bits, 2);
  }
  const auto bytes = make_safetensors({{"h", "F16", {65536}, every}, {"b", "BF16", {65536}, every}});
  const SafeTensors file = SafeTensors::from_memory(std::make_shared<const Bytes>(bytes), "x");
  const std::vector<float> half = file.read_f32(file.at("h")), brain = file.read_f32(file.at("b"));
  for (uint32_t i = 0; i < 65536; ++i) {
    const int exponent = static_cast<int>(i >> 10 & 31), mantissa = static_cast<int>(i & 1023);
    const double sign = (i & 0x8000) != 0 ? -1.0 : 1.0;
    const double expected =
        exponent == 0 ? sign * std::ldexp(mantissa, -24) : sign * std::ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31) {
      CHECK(std::isnan(half[i]) == (mantissa != 0));
      if (mantissa == 0) CHECK(half[i] == sign * std::numeric_limits<double>::infinity());
    } else if (half[i] != expected || std::signbit(half[i]) != (sign < 0)) {
      FAIL_CHECK("F16 ", i, " gave ", half[i], ", wanted ", expected);
    }
    uint32_t got;
    std::memcpy(&got, &brain[i], 4);
    if (got != i << 16) FAIL_CHECK("BF16 ", i, " gave ", got);
  }
}

TEST_CASE("lying headers are refused") {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  CHECK(parse(good, 8).entries().size() == 1);
  CHECK(parse(good + "    ", 8).entries().size() == 1);
  EXPECT_ERROR(load, "ends at byte 8", parse(good, 7));
  EXPECT_ERROR(load, "1 bytes after the last tensor", parse(good, 9));
  auto one = [](const std::string& body) { return R"({"a":{)" + body + "}}"; };
  EXPECT_ERROR(load, "needs 8 bytes", parse(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), 4));
  EXPECT_ERROR(load, "needs 4 bytes", parse(one(R"("dtype":"F16","shape":[2],"data_offsets":[0,8])"), 8));
  EXPECT_ERROR(load, "end before they begin", parse(one(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), 8));
  EXPECT_ERROR(load, "non-negative", parse(one(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), 8));
  EXPECT_ERROR(load, "non-negative", parse(one(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"), 8));
  EXPECT_ERROR(load, "non-negative",
               parse(one(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8])"), 8));
  EXPECT_ERROR(load, "no valid size",
               parse(one(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0])"), 0));
  EXPECT_ERROR(load, "no valid size", parse(one(R"("dtype":"F4","shape":[3],"data_offsets":[0,1])"), 1));
  EXPECT_ERROR(load, "dtype must be", parse(one(R"("shape":[2],"data_offsets":[0,8])"), 8));
  EXPECT_ERROR(load, "shape must be", parse(one(R"("dtype":"F32","data_offsets":[0,8])"), 8));
  EXPECT_ERROR(load, "two numbers", parse(one(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), 8));
  EXPECT_ERROR(load, "unknown field", parse(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1)"), 8));
  EXPECT_ERROR(load, "an object", parse(R"({"a":[1]})", 0));
  EXPECT_ERROR(load, "must be a string", parse(R"({"__metadata__":{"a":1}})", 0));
  EXPECT_ERROR(load, "object of strings", parse(R"({"__metadata__":[]})", 0));
  EXPECT_ERROR(load, "given twice", parse(R"({"__metadata__":{},"__metadata__":{}})", 0));
  EXPECT_ERROR(load, "not valid JSON", parse("{\"a\xff\":1}", 0));
  EXPECT_ERROR(load, "not valid JSON", parse(R"({"a":)", 0));
  EXPECT_ERROR(load, "nested deeper", parse(R"({"a":[[[[[[[[)", 0));
  EXPECT_ERROR(load, "begin with", parse(" {}", 0));
  EXPECT_ERROR(load, "begin with", parse("", 0));
}

TEST_CASE("overlaps and gaps are refused, empty tensors are not") {
  auto two = [](const char* a, const char* b) {
    return std::string(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)") + a +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}";
  };
  CHECK(parse(two("[4,8]", "[0,4]"), 8).at("a").bytes == 4);
  EXPECT_ERROR(load, "overlaps", parse(two("[0,4]", "[2,6]"), 6));
  EXPECT_ERROR(load, "overlaps", parse(two("[0,4]", "[0,4]"), 4));
  EXPECT_ERROR(load, "gap", parse(two("[0,4]", "[5,9]"), 9));
  EXPECT_ERROR(load, "gap", parse(two("[1,5]", "[5,9]"), 9));
  const SafeTensors empty = parse(
      R"({"e":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
      4);
  CHECK(empty.read_f32(empty.at("e")).empty());
  CHECK(parse("{}", 0).entries().empty());
}

TEST_CASE("types that cannot be read are kept by name") {
  const SafeTensors file = parse(
      R"({"q":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]},"z":{"dtype":"NEW9","shape":[3],"data_offsets":[4,6]}})",
      6);
  CHECK(!file.at("q").dtype);
  CHECK(file.at("z").dtype_name == "NEW9");
  EXPECT_ERROR(unsupported, "q F8_E4M3 [4]", file.read_f32(file.at("q")));
  EXPECT_ERROR(unsupported, "NEW9", file.read_f32(file.at("z")));
}

TEST_CASE("header lengths that lie are refused before anything is allocated") {
  const TempDir dir;
  for (const uint64_t length : {uint64_t{1} << 62, uint64_t{100'000'001}, uint64_t{9}, ~uint64_t{0}}) {
    Bytes file(16);
    std::memcpy(file.data(), &length, 8);
    write_file_atomically(dir / "x.safetensors", file);
    EXPECT_ERROR(load, "the header claims", SafeTensors::open(dir / "x.safetensors"));
  }
  write_file_atomically(dir / "pointer", std::string_view("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"));
  EXPECT_ERROR(load, "is a Git LFS pointer", SafeTensors::open(dir / "pointer"));
  write_file_atomically(dir / "short", std::string_view("1234567"));
  EXPECT_ERROR(load, "too few", SafeTensors::open(dir / "short"));
}

TEST_CASE("every cut of a file is an error, never a crash") {
  const Bytes whole = make_safetensors({f32("w", {2, 3}, {1, 2, 3, 4, 5, 6}), f32("b", {3}, {7, 8, 9})});
  for (size_t n = 0; n < whole.size(); ++n) {
    const auto cut = std::make_shared<const Bytes>(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n));
    CHECK_THROWS_AS(SafeTensors::from_memory(cut, "x"), Error);
  }
}

TEST_CASE("random tensors survive the round trip") {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    std::vector<TensorToWrite> tensors;
    const size_t count = random() % 8;
    for (size_t i = 0; i < count; ++i) {
      std::vector<int64_t> shape;
      size_t elements = 1;
      for (size_t rank = random() % 4; rank > 0; --rank) {
        shape.push_back(static_cast<int64_t>(random() % 5));
        elements *= static_cast<size_t>(shape.back());
      }
      std::vector<float> values(elements);
      for (float& value : values) value = static_cast<float>(random()) * 1e-3f;
      tensors.push_back(f32("t" + std::to_string(random() % 1000) + "." + std::to_string(i), shape, values));
    }
    const SafeTensors file = SafeTensors::from_memory(std::make_shared<const Bytes>(make_safetensors(tensors)), "x");
    REQUIRE(file.entries().size() == tensors.size());
    for (const TensorToWrite& tensor : tensors) {
      const TensorEntry& entry = file.at(tensor.name);
      CHECK(entry.shape == tensor.shape);
      Bytes bytes(entry.bytes);
      file.read(entry, 0, bytes.data(), bytes.size());
      CHECK(bytes == tensor.bytes);
    }
  }
}

TEST_CASE("a file that is cut after it was opened is a LoadError, not a crash") {
  const TempDir dir;
  write_safetensors(dir / "a.safetensors", {f32("w", {1000}, std::vector<float>(1000, 1.5f))});
  const SafeTensors file = SafeTensors::open(dir / "a.safetensors");
  std::filesystem::resize_file(dir / "a.safetensors", 2000);
  EXPECT_ERROR(load, "was cut while it was read", file.read_f32(file.at("w")));
  EXPECT_ERROR(load, "was changed", file.file()->require_unchanged());
}

TEST_CASE("the writer refuses what it cannot describe") {
  EXPECT_ERROR(invalid_request, "given twice", make_safetensors({f32("a", {1}, {1}), f32("a", {1}, {1})}));
  EXPECT_ERROR(invalid_request, "do not fit", make_safetensors({f32("a", {2}, {1})}));
  EXPECT_ERROR(invalid_request, "do not fit", make_safetensors({{"a", "X1", {1}, Bytes(1)}}));
}
