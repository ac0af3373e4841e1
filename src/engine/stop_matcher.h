// Finds stop strings in text that arrives in pieces, and holds back what may still become one.
//
// The text ends before the stop string that begins first, wherever the pieces were cut: "abcd" beats "bc" in "abcd",
// and a completed "bc" waits while "abcd" may still complete. Bytes are compared; pieces and stop strings are whole
// UTF-8, so what is released never splits a character.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace expert {

class StopMatcher {
 public:
  // No empty strings (validated with the request).
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Text that is certain to stand before any stop string. After found() nothing more is released.
  std::string push(std::string_view piece);
  // No more text will come: what was held back, up to a stop string that is in it.
  std::string finish();
  bool found() const noexcept { return found_; }

 private:
  enum class Match { none, partial, full };
  Match match_at(size_t position) const;
  std::string release(size_t count);

  std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

}  // namespace expert
