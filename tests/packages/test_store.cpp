#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "io/fingerprint.h"
#include "packages/make_package.h"
#include "packages/registry.h"
#include "packages/store.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

using namespace expert;
using namespace expert::test;

namespace {

const InstallOptions kTrusting{.skip_verify = true, .force = false};

std::string pack(const TempDir& dir, const std::string& version, float value = 1,
                 const std::string& name = "expert-sql") {
  const std::string path = dir / (name + "-" + version + "-" + std::to_string(value) + ".expert");
  write_archive(path, package_files(version, value, name));
  return path;
}

// Every folder under experts/ is a whole package that the registry knows, and nothing else is there.
void check_consistent(const std::string& home) {
  const Store store(home);
  size_t folders = 0;
  for (const std::string& name : list_directory(home + "/experts")) {
    CHECK_FALSE(name.starts_with("."));
    for (const std::string& version : list_directory(home + "/experts/" + name)) {
      ++folders;
      CHECK(store.find(name + "@" + version));
    }
  }
  CHECK(store.list().size() == folders);
  for (const InstalledExpert& expert : store.list()) CHECK(store.open(expert).name() == expert.name);
}

}  // namespace

TEST_CASE("install, list, find, open, uninstall") {
  const TempDir dir;
  Store store(dir / "home");
  CHECK(store.list().empty());
  CHECK_FALSE(directory_exists(dir / "home"));  // reading creates nothing
  const InstalledExpert expert = store.install(pack(dir, "0.3.0"), kTrusting);
  CHECK(expert.name == "expert-sql");
  CHECK(expert.path == dir / "home/experts/expert-sql/0.3.0");
  CHECK(expert.base_model == "Qwen3-0.6B");
  CHECK_FALSE(expert.verified);
  CHECK(expert.publisher == "");
  CHECK(file_exists(expert.path + "/tests/cases.json"));
  store.install(pack(dir, "0.10.0"), kTrusting);
  store.install(pack(dir, "1.0.0-rc.1"), kTrusting);
  REQUIRE(store.list().size() == 3);
  CHECK(store.list()[0].version == "1.0.0-rc.1");
  CHECK(store.find("sql")->version == "0.10.0");  // the newest release
  CHECK(store.find(" expert-sql@0.3.0 ")->content_hash == expert.content_hash);
  CHECK(store.find("sql@1.0.0-rc.1")->kinds == std::vector<std::string>{"lora"});
  CHECK_FALSE(store.find("sql@9.0.0"));
  CHECK_FALSE(store.find("json"));
  CHECK(store.open(*store.find("sql@0.3.0")).content_hash() == expert.content_hash);
  EXPECT_ERROR(invalid_request, "must be lower-case", store.find("../x"));
  EXPECT_ERROR(invalid_request, "no semantic version", store.find("sql@../.."));
  store.uninstall("sql@0.3.0");
  CHECK_FALSE(directory_exists(expert.path));
  CHECK(store.list().size() == 2);
  store.uninstall("sql");
  CHECK_FALSE(directory_exists(dir / "home/experts/expert-sql"));
  EXPECT_ERROR(invalid_request, "is not installed", store.uninstall("sql"));
  check_consistent(dir / "home");
}

TEST_CASE("a store sees what another one changes, and reads its registry again only then") {
  const TempDir dir;
  Store one(dir / "home");
  Store other(dir / "home");
  CHECK(other.list().empty());
  const InstalledExpert expert = one.install(pack(dir, "0.3.0"), kTrusting);
  CHECK(other.find("sql")->content_hash == expert.content_hash);
  const auto read = other.registry();
  CHECK(other.registry() == read);
  one.uninstall("sql");
  CHECK_FALSE(other.find("sql"));
  CHECK(read->experts.size() == 1);  // who holds it keeps it
  const std::string path = dir / "home/expert-registry.json";
  write_file_atomically(path, std::string_view("{"));
  EXPECT_ERROR(load, "cannot be used", other.list());
  EXPECT_ERROR(load, "cannot be used", other.list());
  std::filesystem::remove(path);
  CHECK(other.list().empty());
  std::filesystem::create_directory(path);
  EXPECT_ERROR(load, "cannot be used", other.list());
}

TEST_CASE("unsigned packages need skip_verify, malformed ones are refused first") {
  const TempDir dir;
  Store store(dir / "home");
  EXPECT_ERROR(signature, "unsigned package", store.install(pack(dir, "0.3.0")));
  CHECK_FALSE(directory_exists(dir / "home"));
  write_archive(dir / "bad.expert", {{"manifest.json", bytes_of("{")}, package_files()[1], package_files()[2]});
  EXPECT_ERROR(manifest, "not valid JSON", store.install(dir / "bad.expert"));
  std::vector<ArchiveEntry> files = package_files();
  files.push_back({"signature.sig", bytes_of("00")});
  write_archive(dir / "signed.expert", files);
  EXPECT_ERROR(signature, "cannot be checked yet", store.install(dir / "signed.expert"));
}

TEST_CASE("reinstalling") {
  const TempDir dir;
  Store store(dir / "home");
  const InstalledExpert first = store.install(pack(dir, "0.3.0"), kTrusting);
  const FileIdentity before = File::open(first.path + "/manifest.json").identity();
  store.install(pack(dir, "0.3.0"), kTrusting);
  CHECK(File::open(first.path + "/manifest.json").identity() == before);  // nothing was touched
  EXPECT_ERROR(invalid_request, "installed with other content", store.install(pack(dir, "0.3.0", 2), kTrusting));
  CHECK(store.open(*store.find("sql")).content_hash() == first.content_hash);
  const InstalledExpert forced = store.install(pack(dir, "0.3.0", 2), {.skip_verify = true, .force = true});
  CHECK(forced.content_hash != first.content_hash);
  CHECK(store.open(*store.find("sql")).content_hash() == forced.content_hash);
  // Altered files are noticed, and the same package repairs them.
  write_file_atomically(forced.path + "/adapter_config.json", std::string_view(R"({"peft_type":"IA3"})"));
  EXPECT_ERROR(signature, "not what was installed", store.open(*store.find("sql")));
  store.install(pack(dir, "0.3.0", 2), kTrusting);
  CHECK(store.open(*store.find("sql")).content_hash() == forced.content_hash);
  check_consistent(dir / "home");
}

TEST_CASE("directories install too, with or without a manifest") {
  const TempDir dir;
  Store store(dir / "home");
  write_folder(dir / "folder", package_files());
  CHECK(store.install(dir / "folder", kTrusting).name == "expert-sql");
  write_folder(dir / "plain", {package_files()[1], package_files()[2]});
  const InstalledExpert plain = store.install(dir / "plain", kTrusting);
  CHECK(plain.name == "expert-plain");
  CHECK(plain.version == "0.0.0");
  CHECK(store.open(plain).name() == "expert-plain");
  CHECK(store.open(plain).version() == "0.0.0");
  write_folder(dir / "Not Fit", {package_files()[1], package_files()[2]});
  EXPECT_ERROR(manifest, "must be lower-case", store.install(dir / "Not Fit", kTrusting));
  check_consistent(dir / "home");
}

TEST_CASE("leftovers of crashed processes are removed by the next change") {
  const TempDir dir;
  Store store(dir / "home");
  write_folder(dir / "home/experts/.staging-1-0", package_files());
  store.install(pack(dir, "0.3.0"), kTrusting);
  CHECK_FALSE(directory_exists(dir / "home/experts/.staging-1-0"));
  check_consistent(dir / "home");
}

TEST_CASE("a process killed at any moment leaves whole packages only") {
  const TempDir dir;
  const std::string home = dir / "home", a = pack(dir, "0.3.0", 1), b = pack(dir, "0.3.0", 2);
  Store(home).install(a, kTrusting);
  for (int round = 0; round < 40; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      Store store(home);
      for (int i = 0;; ++i) {
        try {
          store.install(i % 2 == 0 ? b : a, {.skip_verify = true, .force = true});
          store.uninstall("sql");
        } catch (...) {
          ::_exit(1);
        }
      }
    }
    ::usleep(static_cast<useconds_t>(1500 + 700 * round));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
    Store store(home);
    // Between two steps the registry may lag behind the folders; what it lists can be opened or is reported.
    for (const InstalledExpert& expert : store.list()) {
      try {
        const Package package = store.open(expert);
        CHECK(package.version() == "0.3.0");
      } catch (const Error& error) {
        CHECK((error.code() == ErrorCode::signature || error.code() == ErrorCode::load));
      }
    }
    store.install(a, {.skip_verify = true, .force = true});
    check_consistent(home);
  }
}

TEST_CASE("a full disk fails the install and changes nothing") {
  const TempDir dir;
  Store store(dir / "home");
  store.install(pack(dir, "0.3.0"), kTrusting);
  std::vector<ArchiveEntry> files = package_files("0.4.0");
  files.push_back({"big.txt", Bytes(300'000)});
  write_folder(dir / "big", files);
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 100'000, .rlim_max = before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  EXPECT_ERROR(load, "cannot write", store.install(dir / "big", kTrusting));
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(store.list().size() == 1);
  check_consistent(dir / "home");
}

TEST_CASE("several processes install at once") {
  const TempDir dir;
  const std::string home = dir / "home";
  std::vector<std::string> packages;
  for (int i = 0; i < 12; ++i)
    packages.push_back(pack(dir, "1.0." + std::to_string(i), 1, "expert-e" + std::to_string(i % 3)));
  std::vector<pid_t> children;
  for (int worker = 0; worker < 4; ++worker) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        Store store(home);
        for (int i = worker; i < 12; i += 4) store.install(packages[static_cast<size_t>(i)], kTrusting);
      } catch (...) {
        ::_exit(1);
      }
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
  }
  CHECK(Store(home).list().size() == 12);
  check_consistent(home);
}

TEST_CASE("a broken registry is named, and can be rebuilt from the folders") {
  const TempDir dir;
  Store store(dir / "home");
  store.install(pack(dir, "0.3.0"), kTrusting);
  store.install(pack(dir, "0.4.0"), kTrusting);
  const std::string registry = dir / "home/expert-registry.json";
  for (const char* text :
       {"", "{", "[]", "{}", R"({"version":"9"})", R"({"version":"1.0","experts":3})",
        R"({"version":"1.0","experts":[{"name":"../x","versions":[]}]})",
        R"({"version":"1.0","experts":[{"name":"expert-x","versions":[{"version":"..","path":"/"}]}]})"}) {
    write_file_atomically(registry, std::string_view(text));
    EXPECT_ERROR(load, "the registry cannot be used", store.list());
    EXPECT_ERROR(load, "the registry cannot be used", store.install(pack(dir, "0.5.0"), kTrusting));
  }
  create_directories(dir / "home/experts/expert-broken/1.0.0");
  create_directories(dir / "home/experts/not a name/1.0.0");
  store.rebuild();
  REQUIRE(store.list().size() == 2);
  CHECK(store.find("sql")->version == "0.4.0");
  CHECK_FALSE(store.find("sql")->verified);
  CHECK(store.open(*store.find("sql")).version() == "0.4.0");
}

TEST_CASE("base models") {
  const TempDir dir;
  Store store(dir / "home");
  const Bytes weights = adapter_weights();
  for (const char* name : {"tiny", "other"})
    write_folder(dir / name, {{"config.json", bytes_of("{}")}, {"model.safetensors", weights}});
  CHECK_FALSE(store.default_model());
  const InstalledModel model = store.add_model(dir / "tiny/");
  CHECK(model.name == "tiny");
  CHECK(model.path == dir / "tiny");
  CHECK(model.size_bytes == weights.size());
  store.add_model(dir / "tiny");
  store.add_model(dir / "other", "second");
  CHECK(store.models().size() == 2);
  CHECK(store.default_model()->name == "tiny");
  store.set_default_model("second");
  CHECK(store.default_model()->path == dir / "other");
  store.record_fingerprint("tiny", std::string(64, 'a'));
  CHECK(store.find_model("tiny")->sha256 == std::string(64, 'a'));
  EXPECT_ERROR(invalid_request, "is registered at", store.add_model(dir / "other", "tiny"));
  EXPECT_ERROR(invalid_request, "cannot name a model", store.add_model(dir / "other", "a/b"));
  EXPECT_ERROR(invalid_request, "no model named", store.set_default_model("absent"));
  EXPECT_ERROR(invalid_request, "only paths that are UTF-8", Store(dir / "h\xFF").add_model(dir / "tiny"));
  CHECK_FALSE(directory_exists(dir / "h\xFF"));
  std::filesystem::copy(dir / "tiny", dir / "t\xFF", std::filesystem::copy_options::recursive);
  EXPECT_ERROR(invalid_request, "only paths that are UTF-8", store.add_model(dir / "t\xFF"));
  EXPECT_ERROR(load, "is no directory", store.add_model(dir / "absent"));
  store.remove_model("second");
  CHECK(store.default_model()->name == "tiny");
  EXPECT_ERROR(invalid_request, "no model named", store.remove_model("second"));
  CHECK(directory_exists(dir / "other"));
  // Installing experts keeps the models.
  store.install(pack(dir, "0.3.0"), kTrusting);
  CHECK(store.models().size() == 1);
}

TEST_CASE("the home comes from the environment") {
  const char* old_expert = std::getenv("EXPERT_HOME");
  const std::string kept = old_expert == nullptr ? "" : old_expert;
  ::setenv("EXPERT_HOME", "/somewhere", 1);
  CHECK(default_home() == "/somewhere");
  ::unsetenv("EXPERT_HOME");
  ::setenv("HOME", "/home/me", 1);
  CHECK(default_home() == "/home/me/.expert");
  if (old_expert != nullptr) ::setenv("EXPERT_HOME", kept.c_str(), 1);
}
