// stdout carries results and nothing else; stderr carries everything else.
#pragma once

#include <string>
#include <string_view>

namespace cli {

// Makes sure that no file opened later can take the place of a standard stream that was closed before we started, and
// that a closed pipe is an error of a write, not a signal.
void prepare_streams();

bool stdout_is_terminal();
bool stderr_is_terminal();
bool stdin_is_terminal();

// Writes a result at once. Throws Failure (exit 1) when it cannot be written: closed, or the disk is full.
void print(std::string_view text);
// Writes to stderr; failures are of no interest.
void note(std::string_view text);

enum class Color { red, yellow, dim };
// For stderr; plain when that is no terminal or NO_COLOR is set.
std::string paint(std::string_view text, Color color);

// A bar on stderr, on a terminal only, from the moment the work has taken a while.
class ProgressBar {
 public:
  explicit ProgressBar(std::string label);
  ~ProgressBar();  // wipes it
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void show(double fraction);

 private:
  std::string label_;
  double started_;
  int shown_percent_ = -1;
};

}  // namespace cli
