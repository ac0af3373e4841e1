#include <doctest/doctest.h>

#include "packages/make_package.h"
#include "packages/package.h"
#include "packages/store.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

using namespace expert;
using namespace expert::test;

TEST_CASE("a hash is remembered for files as they are, in this process and the next") {
  const TempDir dir;
  write_folder(dir / "folder", package_files());
  settle();
  HashMemo memo(dir / "memo");
  const Package first = Package::open(dir / "folder", {}, &memo);
  CHECK(first.content_hash() == Package::open(dir / "folder").content_hash());
  first.remember(memo);
  CHECK(Package::open(dir / "folder", {}, &memo).content_hash() == first.content_hash());

  HashMemo next_process(dir / "memo");
  const Package again = Package::open(dir / "folder", {}, &next_process);
  CHECK(again.content_hash_is_known());
  CHECK(again.content_hash() == first.content_hash());

  write_file_atomically(dir / "folder/adapter_model.safetensors", adapter_weights(2));
  settle();
  CHECK(Package::open(dir / "folder", {}, &next_process).content_hash() != first.content_hash());
}

TEST_CASE("what a memo says is taken for the files it names, so only their own entry counts") {
  const TempDir dir;
  write_folder(dir / "a", package_files("0.3.0", 1));
  write_folder(dir / "b", package_files("0.3.0", 2));
  write_archive(dir / "c.expert", package_files("0.3.0", 3));
  settle();
  HashMemo memo;
  for (const char* name : {"a", "b", "c.expert"}) Package::open(dir / name, {}, &memo).remember(memo);
  for (const char* name : {"a", "b", "c.expert"})
    CHECK(Package::open(dir / name, {}, &memo).content_hash() == Package::open(dir / name).content_hash());
}

TEST_CASE("tensors that are recognised are read in place, and a change meanwhile is noticed") {
  const TempDir dir;
  write_folder(dir / "folder", package_files());
  settle();
  HashMemo memo;
  Package::open(dir / "folder", {}, &memo).remember(memo);
  const Package in_memory = Package::open(dir / "folder");
  const Package package = Package::open(dir / "folder", {}, &memo);
  REQUIRE(package.tensors().file() != nullptr);
  CHECK(in_memory.tensors().file() == nullptr);
  CHECK(package.size_bytes() == in_memory.size_bytes());
  package.require_unchanged();
  std::filesystem::resize_file(dir / "folder/adapter_model.safetensors", 10);
  EXPECT_ERROR(load, "changed while it was read", package.require_unchanged());
  in_memory.require_unchanged();  // has nothing left to read
}

TEST_CASE("limits hold for tensors that stay in their file") {
  const TempDir dir;
  write_folder(dir / "folder", package_files());
  write_safetensors(dir / "folder/adapter_model.safetensors", {{"w", "F32", {1 << 14}, Bytes(size_t{1} << 16)}});
  settle();
  HashMemo memo;
  ArchiveLimits limits;
  limits.max_entry_bytes = size_t{1} << 16;  // the header comes on top
  EXPECT_ERROR(load, "adapter_model.safetensors: 65", Package::open(dir / "folder", limits, &memo));
  Package::open(dir / "folder", {}, &memo).remember(memo);
  EXPECT_ERROR(load, "adapter_model.safetensors: 65", Package::open(dir / "folder", limits, &memo));
}

TEST_CASE("a large file is hashed while it is read") {
  const TempDir dir;
  write_folder(dir / "folder", package_files());
  settle();
  write_safetensors(dir / "folder/adapter_model.safetensors",
                    {{"w", "F32", {3, 1 << 20}, Bytes(size_t{12} << 20, std::byte{1})}});
  const HashMemo memo;
  const Package package = Package::open(dir / "folder", {}, &memo);
  CHECK(package.tensors().file() == nullptr);
  CHECK(package.content_hash() == Package::open(dir / "folder").content_hash());
}

TEST_CASE("an installed expert that was changed is refused, with a memo too") {
  const TempDir dir;
  write_archive(dir / "a.expert", package_files());
  Store store(dir / "home");
  const InstalledExpert installed = store.install(dir / "a.expert", {.skip_verify = true});
  settle();
  HashMemo memo;
  store.open(installed, memo).remember(memo);
  CHECK(store.open(installed, memo).content_hash() == installed.content_hash);
  write_file_atomically(installed.path + "/adapter_model.safetensors", adapter_weights(7));
  EXPECT_ERROR(signature, "not what was installed",
               Store::require_installed(installed, store.open(installed, memo)));
}
