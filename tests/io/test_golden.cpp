// Files as the reference implementations write them; made by tests/golden/make_io.py.
#include <doctest/doctest.h>

#include "io/archive.h"
#include "io/fingerprint.h"
#include "io/json.h"
#include "io/safetensors.h"

using namespace expert;

namespace {
const std::string kFolder = std::string(EXPERT_SOURCE_DIR) + "/tests/golden/io/";
}

TEST_CASE("a file written by safetensors is read to the same values and fingerprint") {
  const Json expected = read_json_file(kFolder + "mixed.json");
  const TensorSet tensors(SafeTensors::open(kFolder + "mixed.safetensors"));
  REQUIRE(tensors.names().size() == expected["shapes"].size());
  for (const std::string& name : tensors.names()) {
    CAPTURE(name);
    CHECK(tensors.at(name)->shape == expected["shapes"][name].get<std::vector<int64_t>>());
    CHECK(tensors.at(name)->dtype_name == expected["dtypes"][name].get<std::string>());
    if (!expected["sums"].contains(name)) continue;
    double sum = 0;
    for (const float value : tensors.at(name).read_f32()) sum += value;
    CHECK(sum == doctest::Approx(expected["sums"][name].get<double>()).epsilon(1e-12));
  }
  CHECK(base_fingerprint(tensors) == expected["fingerprint"].get<std::string>());
  CHECK(SafeTensors::open(kFolder + "empty.safetensors").entries().empty());
}

TEST_CASE("archives written by tarfile and zipfile are read") {
  for (const char* file : {"gnu.tar.gz", "pax.tar.gz", "deflated.zip", "stored.zip"}) {
    CAPTURE(file);
    const std::vector<ArchiveEntry> entries = read_archive(kFolder + file);
    REQUIRE(entries.size() == 3);
    CHECK(entries[0].name == "dir/weights.bin");
    REQUIRE(entries[0].bytes.size() == 5120);
    CHECK(entries[0].bytes[5119] == std::byte{255});
    CHECK(entries[1].bytes.empty());
    CHECK(as_text(entries[2].bytes) == "{}");
  }
}
