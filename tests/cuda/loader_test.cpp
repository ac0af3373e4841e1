// Finding, refusing and using the CUDA plug-in, by what make_backend() says.
#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <functional>

#include "backend/backend.h"
#include "backend/cuda/choose_device.h"
#include "backend/cuda_loader.h"
#include "core/error.h"
#include "core/log.h"
#include "support/temp_dir.h"

using namespace expert;
using namespace expert::test;

namespace {

struct Plugin {
  explicit Plugin(const std::string& path) { setenv("EXPERT_CUDA_PLUGIN", path.c_str(), 1); }
  ~Plugin() { unsetenv("EXPERT_CUDA_PLUGIN"); }
};

// What make_backend() refuses with; fails where it does not.
struct Refusal {
  ErrorCode code = ErrorCode::ok;
  std::string message;
  std::string hint;
  bool says(const std::string& part) const { return message.find(part) != std::string::npos; }
};

Refusal refusal_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return {error.code(), error.what(), error.hint()};
  }
  return {};
}

Refusal refusal(const std::string& device) {
  return refusal_of([&] { make_backend({device, 1, ""}); });
}

struct Lines {
  std::vector<std::string> all;
  Lines() {
    set_log_sink([this](LogLevel, std::string_view line) { all.emplace_back(line); }, LogLevel::debug);
  }
  ~Lines() { set_log_sink({}); }
};

cuda::Survey machine(int driver, std::vector<cuda::FoundDevice> devices) {
  cuda::Survey survey;
  survey.toolkit = 13000;
  survey.driver = driver;
  survey.devices = std::move(devices);
  return survey;
}

const cuda::FoundDevice kHopper{"NVIDIA H200", 9, 0};
const cuda::FoundDevice kTuring{"Tesla T4", 7, 5};

}  // namespace

TEST_CASE("a device is named strictly") {
  const Plugin plugin(EXPERT_EMULATED_PLUGIN);
  for (const char* device : {"cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda: 1", "cuda:1 ", "cuda:01", "cuda:1x", "cuda:0x1",
                             "cuda:99999999999999999999", "cuda::0"}) {
    CAPTURE(device);
    const Refusal refused = refusal(device);
    CHECK(refused.code == ErrorCode::invalid_request);
    CHECK(refused.says(device));
  }
  for (const char* device : {"cuda0", "CUDA", "gpu", "cudax"}) CHECK(refusal(device).code == ErrorCode::unsupported);
  CHECK(refusal("cuda:99").code == ErrorCode::unsupported);
  CHECK(refusal("cuda:99").says("cuda:99"));
}

TEST_CASE("without a plug-in an explicit device is refused by name, and auto is silent") {
  unsetenv("EXPERT_CUDA_PLUGIN");
  const Lines lines;
  CHECK(cuda_plugin_path().filename() == "libexpert_cuda.so");
  CHECK(cuda_plugin_path().is_absolute());
  const Refusal refused = refusal("cuda");
  CHECK(refused.code == ErrorCode::unsupported);
  CHECK(refused.says("libexpert_cuda.so"));
  CHECK(refused.hint.find("cpu") != std::string::npos);
  CHECK(make_backend({"auto", 1, ""})->info().device == "cpu");
  CHECK(lines.all.empty());
}

TEST_CASE("what is no plug-in, or one of another build, is refused by name; auto says so once and computes on the CPU") {
  const TempDir dir;
  const std::string text = dir / "libexpert_cuda.so";
  std::ofstream(text) << "not a library";
  const std::pair<std::string, std::string> cases[] = {
      {text, "cannot be loaded"},
      {EXPERT_ENTRYLESS_PLUGIN, "is no CUDA plug-in"},
      {EXPERT_FOREIGN_PLUGIN, "is of another build: it is 'libexpert of another day', this library is 'libexpert"}};
  for (const auto& one : cases) {
    const std::string& path = one.first;
    const std::string& part = one.second;
    CAPTURE(path);
    const Plugin plugin(path);
    const Lines lines;
    const Refusal refused = refusal("cuda:0");
    CHECK(refused.code == ErrorCode::unsupported);
    CHECK(refused.says(part));
    CHECK(refused.says(path));
    for (int i = 0; i < 3; ++i) CHECK(make_backend({"auto", 1, ""})->info().device == "cpu");
    REQUIRE(lines.all.size() == 1);
    CHECK(lines.all.front().find(part) != std::string::npos);
  }
}

TEST_CASE("a plug-in that fits is used, and what it throws is an Error here, with code and hint") {
  const Plugin plugin(EXPERT_EMULATED_PLUGIN);
  const Lines lines;
  for (const char* device : {"cuda", "cuda:0", "auto"}) {
    const auto backend = make_backend({device, 2, ""});
    CHECK(backend->info().device == "cuda:0");
    CHECK(backend->info().threads == 2);
  }
  CHECK(make_backend({"cpu", 1, ""})->info().device == "cpu");
  CHECK(lines.all.empty());
  const auto backend = make_backend({"cuda", 1, ""});
  const Refusal memory = refusal_of([&] { backend->allocate(DType::f32, int64_t{1} << 40, 1); });
  CHECK(memory.code == ErrorCode::out_of_memory);
  const Refusal shape = refusal_of([&] { backend->add(Tensor{}, Tensor{}); });
  CHECK(shape.code == ErrorCode::internal);
  const Refusal size = refusal_of([&] { backend->allocate(DType::f32, int64_t{1} << 60, int64_t{1} << 60); });
  CHECK(size.code == ErrorCode::out_of_memory);
  CHECK(size.hint != "");
  // What a callback of this module throws through the plug-in's frames keeps its type as well.
  MatrixSource source;
  source.rows = source.cols = 4;
  source.read = [](int64_t, int64_t, void*) { throw Error(ErrorCode::load, "short read", "look again"); };
  const Refusal read = refusal_of([&] { backend->pack(source, WeightFormat::bf16); });
  CHECK(read.code == ErrorCode::load);
  CHECK(read.message == "short read");
  CHECK(read.hint == "look again");
}

TEST_CASE("every reason why there is no device has words of its own") {
  const auto refused = [](const cuda::Survey& survey, int wanted = -1) {
    return refusal_of([&] { cuda::choose_device(survey, wanted); });
  };
  CHECK(refused(machine(0, {})).says("no NVIDIA driver"));
  CHECK(refused(machine(12040, {})).says("knows CUDA up to 12.4, the CUDA plug-in needs 13.0"));
  CHECK(refused(machine(12040, {})).hint.find("580.65.06") != std::string::npos);
  CHECK(refused(machine(13000, {})).says("finds no CUDA device"));
  CHECK(refused(machine(13000, {kTuring})).says("Tesla T4"));
  CHECK(refused(machine(13000, {kTuring})).says("7.5"));
  CHECK(refused(machine(13000, {kHopper, kTuring}), 1).says("CUDA device 1 (Tesla T4)"));
  CHECK(refused(machine(13000, {kHopper}), 1).says("there is 1 CUDA device"));
  CHECK(refused(machine(13000, {kHopper, kHopper}), 99).says("'cuda:99': there are 2 CUDA devices"));
  cuda::Survey hidden = machine(13000, {});
  hidden.visible = "";
  CHECK(refused(hidden).says("CUDA_VISIBLE_DEVICES is set to nothing"));
  hidden.visible = "-1";
  CHECK(refused(hidden).says("CUDA_VISIBLE_DEVICES is '-1'"));
  cuda::Survey failed = machine(13000, {});
  failed.failure = "system not yet initialized";
  CHECK(refused(failed).says("system not yet initialized"));
  for (const auto& survey : {machine(0, {}), machine(13000, {}), failed, hidden}) {
    CHECK(refused(survey).code == ErrorCode::unsupported);
    CHECK(refused(survey).hint.find("cpu") != std::string::npos);
  }
  CHECK(cuda::choose_device(machine(13000, {kTuring, kHopper}), -1) == 1);
  CHECK(cuda::choose_device(machine(13010, {kHopper, kHopper}), 1) == 1);
}

#if defined(EXPERT_TRUE_PLUGIN)
TEST_CASE("the true plug-in loads where there is no driver, and says so") {
  const Plugin plugin(EXPERT_TRUE_PLUGIN);
  const Lines lines;
  const Refusal refused = refusal("cuda");
  if (refused.code == ErrorCode::ok) return;  // a machine with a GPU
  CHECK(refused.code == ErrorCode::unsupported);
  CHECK(make_backend({"auto", 1, ""})->info().device == "cpu");
  REQUIRE(lines.all.size() == 1);
  CHECK(lines.all.front().find(refused.message) != std::string::npos);
  setenv("CUDA_VISIBLE_DEVICES", "", 1);
  CHECK(refusal("cuda").says("CUDA_VISIBLE_DEVICES is set to nothing"));
  unsetenv("CUDA_VISIBLE_DEVICES");
}
#endif
