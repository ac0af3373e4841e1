#include "text/normalizer.h"

#include "text/json_fields.h"
#include "text/unicode.h"

namespace expert {
namespace {

class Nfc final : public Normalizer {
 public:
  std::string normalize(std::string text, bool&) const override { return unicode::to_nfc(text); }
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string normalize(std::string text, bool&) const override { return text.empty() ? text : prefix_ + text; }

 private:
  std::string prefix_;
};

class Replace final : public Normalizer {
 public:
  Replace(std::string pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::string normalize(std::string text, bool& at_text_start) const override {
    if (content_.empty() && text.starts_with(pattern_)) at_text_start = false;
    return replace_all(text, pattern_, content_);
  }

 private:
  std::string pattern_, content_;
};

class NormalizerSequence final : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  std::string normalize(std::string text, bool& at_text_start) const override {
    for (const auto& step : steps_) text = step->normalize(std::move(text), at_text_start);
    return text;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

}  // namespace

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  size_t pos = 0;
  for (size_t hit; (hit = text.find(pattern, pos)) != std::string_view::npos; pos = hit + pattern.size())
    out.append(text, pos, hit - pos).append(content);
  return out.append(text, pos);
}

std::unique_ptr<Normalizer> make_nfc() { return std::make_unique<Nfc>(); }

std::unique_ptr<Normalizer> make_normalizer(const Json& config) {
  if (config.is_null()) return nullptr;
  const std::string& type = fields::need_text(config, "type");
  if (type == "NFC") return make_nfc();
  if (type == "Prepend") return std::make_unique<Prepend>(fields::need_text(config, "prepend"));
  if (type == "Replace")
    return std::make_unique<Replace>(fields::literal_pattern(config), fields::need_text(config, "content"));
  if (type == "Sequence") {
    std::vector<std::unique_ptr<Normalizer>> steps;
    for (const auto& step : fields::list(config, "normalizers"))
      if (auto made = make_normalizer(step)) steps.push_back(std::move(made));
    return std::make_unique<NormalizerSequence>(std::move(steps));
  }
  fail(ErrorCode::unsupported, "normalizer '{}' is not supported", type);
}

}  // namespace expert
