// Installing and listing through the C interface, in a home of its own.
#include <doctest/doctest.h>
#include <expert/expert.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

struct Home {
  std::string path;
  Home() {
    std::string pattern = (fs::temp_directory_path() / "expert-home-XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~Home() { fs::remove_all(path); }
  const char* c_str() const { return path.c_str(); }
};

Json parsed(char* text) {
  const Json json = Json::parse(text);
  expert_free(text);
  return json;
}

Json list(const Home& home, uint32_t flags = 0) {
  char* text = nullptr;
  REQUIRE(expert_package_list(home.c_str(), flags, &text) == EXPERT_OK);
  return parsed(text);
}

const std::string kSql = std::string(EXPERT_SOURCE_DIR) + "/models/experts/sql";
const std::string kBase = std::string(EXPERT_SOURCE_DIR) + "/models/base";

}  // namespace

TEST_CASE("an unsigned package needs skip_verify and is listed as unverified") {
  const Home home;
  char* text = nullptr;
  CHECK(expert_package_install(home.c_str(), kSql.c_str(), 0, &text) == EXPERT_ERROR_SIGNATURE);
  CHECK(text == nullptr);
  CHECK(list(home).empty());
  REQUIRE(expert_package_install(home.c_str(), kSql.c_str(), EXPERT_INSTALL_SKIP_VERIFY, &text) == EXPERT_OK);
  const Json installed = parsed(text);
  CHECK(installed.at("name") == "expert-sql");
  CHECK(installed.at("verified") == false);
  const Json listed = list(home);
  REQUIRE(listed.size() == 1);
  CHECK(listed[0] == installed);
  for (const char* key : {"name", "version", "base_model", "kinds", "size_bytes", "path", "verified", "publisher"}) {
    CHECK_MESSAGE(listed[0].contains(key), key);
  }
  CHECK(fs::is_directory(listed[0].at("path").get<std::string>()));
}

TEST_CASE("info is the manifest plus the fields of the list, for a name and for a path") {
  const Home home;
  char* text = nullptr;
  REQUIRE(expert_package_info(home.c_str(), kSql.c_str(), &text) == EXPERT_OK);
  const Json by_path = parsed(text);
  CHECK(by_path.at("capabilities").is_array());
  CHECK(by_path.at("kinds") == Json::array({"lora"}));
  REQUIRE(expert_package_install(home.c_str(), kSql.c_str(), EXPERT_INSTALL_SKIP_VERIFY, &text) == EXPERT_OK);
  expert_free(text);
  REQUIRE(expert_package_info(home.c_str(), "sql", &text) == EXPERT_OK);
  const Json by_name = parsed(text);
  CHECK(by_name.at("capabilities") == by_path.at("capabilities"));
  CHECK(by_name.at("path") == list(home)[0].at("path"));
  CHECK(expert_package_info(home.c_str(), "no-such-expert", &text) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_package_info(home.c_str(), "/nonexistent/a.expert", &text) == EXPERT_ERROR_LOAD);
  CHECK(text == nullptr);
}

TEST_CASE("uninstalling leaves nothing, and what is not installed is named") {
  const Home home;
  char* text = nullptr;
  REQUIRE(expert_package_install(home.c_str(), kSql.c_str(), EXPERT_INSTALL_SKIP_VERIFY, &text) == EXPERT_OK);
  expert_free(text);
  CHECK(expert_package_uninstall(home.c_str(), "sql") == EXPERT_OK);
  CHECK(list(home).empty());
  CHECK(expert_package_uninstall(home.c_str(), "sql") == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(std::string(expert_last_error()->message).find("sql") != std::string::npos);
}

TEST_CASE("bundled experts are listed when asked for") {
  const Home home;
  bool found = false;
  for (const Json& expert : list(home, EXPERT_LIST_BUNDLED)) found = found || expert.at("name") == "expert-sql";
  CHECK(found);
}

TEST_CASE("base models: add, default, remove") {
  const Home home;
  char* text = nullptr;
  REQUIRE(expert_model_add(home.c_str(), kBase.c_str(), "tiny", &text) == EXPERT_OK);
  CHECK(parsed(text).at("default") == true);
  REQUIRE(expert_model_add(home.c_str(), kBase.c_str(), "other", &text) == EXPERT_OK);
  CHECK(parsed(text).at("default") == false);
  CHECK(expert_model_set_default(home.c_str(), "other") == EXPERT_OK);
  REQUIRE(expert_model_list(home.c_str(), &text) == EXPERT_OK);
  for (const Json& model : parsed(text)) CHECK(model.at("default") == (model.at("name") == "other"));
  CHECK(expert_model_remove(home.c_str(), "tiny") == EXPERT_OK);
  CHECK(expert_model_remove(home.c_str(), "tiny") == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_model_set_default(home.c_str(), "tiny") == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_model_add(home.c_str(), "/nonexistent/model", nullptr, &text) == EXPERT_ERROR_LOAD);
}
