// SHA-256 (FIPS 180-4), streaming: libcrypto where it was found at configure time, libsodium otherwise.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "io/file.h"

namespace expert {

using Digest = std::array<std::byte, 32>;

std::string to_hex(ByteView bytes);  // lower case

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  Sha256& update(ByteView bytes);
  Sha256& update(std::string_view text) { return update(as_bytes(text)); }
  // The length as 8 bytes little-endian, then the bytes: fields hashed so cannot run into each other.
  Sha256& update_framed(ByteView bytes);
  Sha256& update_framed(std::string_view text) { return update_framed(as_bytes(text)); }
  Sha256& update_number(uint64_t value);  // 8 bytes, little-endian
  Digest finish();                        // once
  std::string finish_hex() { return to_hex(finish()); }

 private:
  struct State;
  std::unique_ptr<State> state_;
};

inline std::string sha256_hex(ByteView bytes) { return Sha256().update(bytes).finish_hex(); }
inline std::string sha256_hex(std::string_view text) { return Sha256().update(text).finish_hex(); }

}  // namespace expert
