// Streams an answer of two experts composed at weights 1 and 1, over the C header.
//
//   stream "Find all users older than 25" "users(id,name,age)" sql jsonfmt
#include <expert/expert.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace {

template <auto Free>
struct Freed {
  template <typename T>
  void operator()(T* handle) const {
    Free(handle);
  }
};
template <typename T, auto Free>
using Owned = std::unique_ptr<T, Freed<Free>>;

using Engine = Owned<expert_engine, expert_engine_free>;
using Stream = Owned<expert_stream, expert_stream_free>;
using Chunk = Owned<expert_chunk, expert_chunk_free>;

int fail() {
  std::fprintf(stderr, "error: %s\n", expert_last_error()->message);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<expert_use> experts;
  for (int i = 3; i < argc; ++i) experts.push_back({nullptr, argv[i], 1.0F});
  expert_request request = EXPERT_REQUEST_INIT;
  request.prompt = argc > 1 ? argv[1] : "Find all users older than 25";
  request.schema = argc > 2 ? argv[2] : "users(id,name,age)";
  request.experts = experts.data();
  request.expert_count = experts.size();
  request.temperature = 0;

  expert_engine* opened = nullptr;
  if (expert_engine_open(nullptr, &opened) != EXPERT_OK) return fail();
  const Engine engine(opened);

  expert_stream* submitted = nullptr;
  if (expert_submit(engine.get(), &request, &submitted) != EXPERT_OK) return fail();
  const Stream stream(submitted);

  while (true) {
    expert_chunk* next = nullptr;
    if (expert_stream_next(stream.get(), -1, &next) != EXPERT_OK) return fail();
    const Chunk chunk(next);
    if (chunk == nullptr) break;
    size_t length = 0;
    const char* text = expert_chunk_text(chunk.get(), &length);
    std::fwrite(text, 1, length, stdout);
    std::fflush(stdout);
  }
  std::puts("");
}
