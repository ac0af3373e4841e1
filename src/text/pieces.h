// Text on its way to token ids: one string cut into pieces, some of which are tokens already.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace expert {

struct Piece {
  size_t begin, end;           // in Pieces::text
  int32_t token = -1;          // >= 0: an added token; no later stage touches it
  bool at_text_start = false;  // begins where the caller's text begins
};

struct Pieces {
  std::string text;
  std::vector<Piece> list;  // in order, none empty

  explicit Pieces(std::string_view input) : text(input) {
    if (!text.empty()) list.push_back({0, text.size(), -1, true});
  }
  std::string_view view(const Piece& piece) const {
    return std::string_view(text).substr(piece.begin, piece.end - piece.begin);
  }

  // cut(view, piece, out) appends the parts (positions in view) that are to remain of each open piece.
  template <typename Cut>
  void split(Cut&& cut) {
    std::vector<Piece> result, parts;
    result.reserve(list.size());
    for (const Piece& piece : list) {
      if (piece.token >= 0) {
        result.push_back(piece);
        continue;
      }
      parts.clear();
      cut(view(piece), parts);
      for (Piece& part : parts) {
        if (part.begin == part.end) continue;
        part.at_text_start = piece.at_text_start && part.begin == 0;
        part.begin += piece.begin;
        part.end += piece.begin;
        result.push_back(part);
      }
    }
    list = std::move(result);
  }

  // rewrite(view, piece, out) appends the new text of each open piece to out.
  template <typename Rewrite>
  void rewrite(Rewrite&& rewrite_piece) {
    std::string result;
    result.reserve(text.size() + text.size() / 4);
    for (Piece& piece : list) {
      const size_t begin = result.size();
      if (piece.token < 0) rewrite_piece(view(piece), piece, result);
      piece.begin = begin;
      piece.end = result.size();
    }
    text = std::move(result);
    std::erase_if(list, [](const Piece& piece) { return piece.token < 0 && piece.begin == piece.end; });
  }
};

}  // namespace expert
