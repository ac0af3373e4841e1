// JSON from untrusted files: nesting is limited, a repeated key is an error, and large parts can be taken off the
// stream.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace expert {

// Builds a document from SAX events. A subclass may take a value for itself: takes_object() / takes_array() is asked
// where one begins; while one is taken its events go to the taken_*() functions and the document holds null there.
class JsonReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  // Errors: load, with the position, for anything that is not one JSON document within the limits.
  nlohmann::json read(std::string_view text);

 protected:
  // path: keys from the root to the value that begins (empty string for list elements); none for the root.
  virtual bool takes_object(const std::vector<std::string>& /*path*/) { return false; }
  virtual bool takes_array(const std::vector<std::string>& /*path*/) { return false; }
  // Only these may occur inside; anything else is an error. Depth 0 is the taken value itself, at most 1 list below.
  virtual void taken_integer(const std::string& key, int64_t value);
  virtual void taken_string(std::string& value);
  virtual void taken_list_begin();
  virtual void taken_list_end();

 private:
  bool null() override;
  bool boolean(bool value) override;
  bool number_integer(int64_t value) override;
  bool number_unsigned(uint64_t value) override;
  bool number_float(double value, const std::string& text) override;
  bool string(std::string& value) override;
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool start_object(size_t) override;
  bool key(std::string& name) override;
  bool end_object() override;
  bool start_array(size_t) override;
  bool end_array() override;
  bool parse_error(size_t position, const std::string& last_token, const nlohmann::json::exception& error) override;

  bool put_scalar(nlohmann::json value);
  nlohmann::json* place(nlohmann::json value);
  bool open(nlohmann::json container);
  bool close();

  nlohmann::json root_;
  std::vector<nlohmann::json*> open_;
  std::vector<std::string> path_;  // one entry per open container: the key being filled
  std::string taken_key_;
  int taken_depth_ = 0;  // > 0: inside a taken value
};

// One document, nothing taken.
nlohmann::json read_json(std::string_view text);

}  // namespace expert
