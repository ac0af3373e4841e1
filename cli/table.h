// Columns of text for people; programs use --json.
#pragma once

#include <string>
#include <vector>

namespace cli {

class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

std::string human_bytes(double bytes);        // "19.6 MB"
std::string fixed(double value, int digits);  // "12.50"

}  // namespace cli
