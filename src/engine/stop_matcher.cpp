#include "engine/stop_matcher.h"

#include <algorithm>

namespace expert {

// The best any stop string does at held_[position…]: complete, or cut off by the end of the text.
StopMatcher::Match StopMatcher::match_at(size_t position) const {
  const std::string_view rest = std::string_view(held_).substr(position);
  Match best = Match::none;
  for (const std::string& stop : stops_) {
    const size_t length = std::min(stop.size(), rest.size());
    if (rest.substr(0, length) != std::string_view(stop).substr(0, length)) continue;
    if (length == stop.size()) return Match::full;
    best = Match::partial;
  }
  return best;
}

std::string StopMatcher::release(size_t count) {
  std::string text = held_.substr(0, count);
  held_.erase(0, count);
  return text;
}

std::string StopMatcher::push(std::string_view piece) {
  if (found_) return {};
  held_ += piece;
  if (stops_.empty()) return release(held_.size());
  for (size_t position = 0; position < held_.size(); ++position) {
    const Match match = match_at(position);
    if (match == Match::none) continue;
    found_ = match == Match::full;
    return release(position);
  }
  return release(held_.size());
}

std::string StopMatcher::finish() {
  if (found_) return {};
  for (size_t position = 0; position < held_.size(); ++position) {
    if (match_at(position) != Match::full) continue;
    found_ = true;
    return release(position);
  }
  return release(held_.size());
}

}  // namespace expert
