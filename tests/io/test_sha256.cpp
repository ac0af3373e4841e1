#include <doctest/doctest.h>

#include "io/sha256.h"

using namespace expert;

TEST_CASE("SHA-256 gives the digests of FIPS 180-4's examples") {
  CHECK(sha256_hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  Sha256 million;
  for (int i = 0; i < 1000; ++i) million.update(std::string(1000, 'a'));
  CHECK(million.finish_hex() == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("framed fields cannot run into each other") {
  CHECK(Sha256().update_framed("ab").update_framed("c").finish_hex() !=
        Sha256().update_framed("a").update_framed("bc").finish_hex());
  CHECK(Sha256().update_number(258).finish_hex() == sha256_hex(std::string_view("\x02\x01\0\0\0\0\0\0", 8)));
}
