#include "io/sha256.h"

#include <utility>

#include "core/error.h"

#ifdef EXPERT_HAVE_CRYPTO
#include <openssl/evp.h>
#else
#include <sodium.h>
#endif

namespace expert {

#ifdef EXPERT_HAVE_CRYPTO
struct Sha256::State {
  State() : context(EVP_MD_CTX_new()) {
    if (context == nullptr || EVP_DigestInit_ex(context, EVP_sha256(), nullptr) != 1) {
      EVP_MD_CTX_free(context);
      fail(ErrorCode::internal, "SHA-256 is not available from libcrypto");
    }
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_MD_CTX_free(context); }
  void update(ByteView bytes) {
    if (EVP_DigestUpdate(context, bytes.data(), bytes.size()) != 1) fail(ErrorCode::internal, "SHA-256 failed");
  }
  Digest finish() {
    Digest digest;
    if (EVP_DigestFinal_ex(context, reinterpret_cast<unsigned char*>(digest.data()), nullptr) != 1) {
      fail(ErrorCode::internal, "SHA-256 failed");
    }
    return digest;
  }
  EVP_MD_CTX* context;
};
#else
struct Sha256::State {
  State() { crypto_hash_sha256_init(&context); }
  void update(ByteView bytes) {
    crypto_hash_sha256_update(&context, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  }
  Digest finish() {
    Digest digest;
    crypto_hash_sha256_final(&context, reinterpret_cast<unsigned char*>(digest.data()));
    return digest;
  }
  crypto_hash_sha256_state context;
};
#endif

Sha256::Sha256() : state_(std::make_unique<State>()) {}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

Sha256& Sha256::update(ByteView bytes) {
  if (!bytes.empty()) state_->update(bytes);
  return *this;
}

Sha256& Sha256::update_number(uint64_t value) {
  std::array<std::byte, 8> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(value >> (8 * i) & 0xff);
  return update(ByteView(bytes));
}

Sha256& Sha256::update_framed(ByteView bytes) { return update_number(bytes.size()).update(bytes); }

Digest Sha256::finish() { return state_->finish(); }

std::string to_hex(ByteView bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * bytes.size());
  for (const std::byte byte : bytes) {
    hex.push_back(kDigits[std::to_integer<unsigned>(byte) >> 4]);
    hex.push_back(kDigits[std::to_integer<unsigned>(byte) & 15]);
  }
  return hex;
}

}  // namespace expert
