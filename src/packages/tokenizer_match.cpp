#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "packages/package.h"

namespace expert {
namespace {

using TokenId = std::pair<std::string_view, int64_t>;
using Merge = std::pair<std::string_view, std::string_view>;

const Json* member(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::vector<TokenId> added_tokens(const Json& tokenizer) {
  std::vector<TokenId> tokens;
  const Json* list = member(tokenizer, "added_tokens");
  if (list == nullptr || !list->is_array()) return tokens;
  for (const Json& item : *list) {
    const Json *content = member(item, "content"), *id = member(item, "id");
    if (content == nullptr || !content->is_string() || id == nullptr || !id->is_number_integer()) continue;
    tokens.emplace_back(content->get_ref<const std::string&>(), id->get<int64_t>());
  }
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

// The vocabulary without the added tokens, which some writers repeat in it.
std::vector<TokenId> plain_tokens(const Json& tokenizer, const std::vector<TokenId>& added) {
  std::vector<TokenId> tokens;
  const Json* model = member(tokenizer, "model");
  const Json* vocabulary = model == nullptr ? nullptr : member(*model, "vocab");
  if (vocabulary == nullptr || !vocabulary->is_object()) return tokens;
  for (const auto& [token, id] : vocabulary->get_ref<const Json::object_t&>()) {
    if (!id.is_number_integer()) continue;
    const TokenId entry(token, id.get<int64_t>());
    if (!std::binary_search(added.begin(), added.end(), entry)) tokens.push_back(entry);
  }
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

// In order, because order is priority. Spelled "a b" or ["a", "b"].
std::vector<Merge> merges_of(const Json& tokenizer) {
  std::vector<Merge> merges;
  const Json* model = member(tokenizer, "model");
  const Json* list = model == nullptr ? nullptr : member(*model, "merges");
  if (list == nullptr || !list->is_array()) return merges;
  for (const Json& item : *list) {
    if (item.is_string()) {
      const std::string_view text = item.get_ref<const std::string&>();
      const size_t space = std::min(text.find(' ', 1), text.size());
      merges.emplace_back(text.substr(0, space), text.substr(std::min(space + 1, text.size())));
    } else if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string()) {
      merges.emplace_back(item[0].get_ref<const std::string&>(), item[1].get_ref<const std::string&>());
    }
  }
  return merges;
}

// Vocabularies that are lists (Unigram's [token, score]) are compared as they are.
bool same_listed_vocabulary(const Json& a, const Json& b) {
  const Json *model_a = member(a, "model"), *model_b = member(b, "model");
  if (model_a == nullptr || model_b == nullptr) return model_a == model_b;
  const Json *x = member(*model_a, "vocab"), *y = member(*model_b, "vocab");
  if (x == nullptr || y == nullptr) return x == y;
  if (x->is_array() != y->is_array()) return false;
  return !x->is_array() || *x == *y;
}

}  // namespace

bool same_tokenizer(const Json& a, const Json& b) {
  const std::vector<TokenId> added = added_tokens(a);
  return added == added_tokens(b) && plain_tokens(a, added) == plain_tokens(b, added) && merges_of(a) == merges_of(b) &&
         same_listed_vocabulary(a, b);
}

}  // namespace expert
