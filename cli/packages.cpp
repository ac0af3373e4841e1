// install, uninstall, list, info.
#include <filesystem>
#include <iostream>
#include <memory>

#include "command.h"
#include "table.h"
#include "terminal.h"

namespace cli {

namespace {

struct Install {
  std::string source;
  bool skip_verify = false;
  bool yes = false;
  bool force = false;
};

bool begins_with(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

void refuse_remote_sources(const std::string& source) {
  if (begins_with(source, "git+") || begins_with(source, "https://") || begins_with(source, "http://")) {
    throw not_supported_yet("installing from a repository (" + source + ")");
  }
  std::error_code ignored;
  const bool file_like = source.find('/') != std::string::npos || source.ends_with(".expert");
  if (!file_like && !std::filesystem::exists(source, ignored)) {
    throw not_supported_yet("installing by name from an index (" + source + ")");
  }
}

bool confirmed(const std::string& question) {
  note(question + " [y/N] ");
  std::string line;
  return std::getline(std::cin, line) && (line == "y" || line == "Y" || line == "yes");
}

// A package that is there and cannot be used is a packaging error, whichever part of it is broken.
Failure packaging(Failure failure, const std::string& source) {
  std::error_code ignored;
  if (failure.code == "load" && std::filesystem::exists(source, ignored)) failure.exit = kPackaging;
  return failure;
}

Json install(const std::string& source, uint32_t flags) try {
  return json_from(expert_package_install, static_cast<const char*>(nullptr), source.c_str(), flags);
} catch (const Failure& failure) {
  throw packaging(failure, source);
}

// On a terminal an unsigned package is a question; without one it is an error.
Json install_or_ask(const Install& options, uint32_t flags) try {
  return install(options.source, flags);
} catch (const Failure& failure) {
  const bool ask = failure.code == "signature" && stdin_is_terminal() && stderr_is_terminal();
  if (!ask) throw;
  note(paint("warning:", Color::yellow) + " " + failure.what() + "\n");
  if (!options.yes && !confirmed("install it anyway?")) throw;
  return install(options.source, flags | EXPERT_INSTALL_SKIP_VERIFY);
}

void install_command(const Install& options, const Common& common) {
  log_to_stderr(common.debug);
  refuse_remote_sources(options.source);
  const uint32_t flags =
      (options.skip_verify ? EXPERT_INSTALL_SKIP_VERIFY : 0) | (options.force ? EXPERT_INSTALL_FORCE : 0);
  const Json installed = install_or_ask(options, flags);
  if (common.json) return print(pretty(installed));
  print("installed " + installed.at("name").get<std::string>() + " " + installed.at("version").get<std::string>() +
        " in " + installed.at("path").get<std::string>() + "\n");
}

void list_command(bool bundled, const Common& common) {
  log_to_stderr(common.debug);
  const Json list =
      json_from(expert_package_list, static_cast<const char*>(nullptr), bundled ? EXPERT_LIST_BUNDLED : 0);
  if (common.json) return print(pretty(list));
  Table table({"NAME", "VERSION", "KINDS", "SIZE", "VERIFIED", "BASE MODEL"});
  for (const Json& expert : list) {
    std::string kinds;
    for (const Json& kind : expert.at("kinds")) kinds += (kinds.empty() ? "" : ",") + kind.get<std::string>();
    table.add({expert.at("name"), expert.at("version"), kinds, human_bytes(expert.at("size_bytes").get<double>()),
               expert.at("verified").get<bool>() ? "yes" : "no", expert.at("base_model")});
  }
  print(table.text());
  if (list.empty()) note("nothing is installed; --bundled shows the experts that come with the library\n");
}

void info_command(const std::string& name, const Common& common) try {
  log_to_stderr(common.debug);
  // The manifest is open-ended, so people get the document too.
  print(pretty(json_from(expert_package_info, static_cast<const char*>(nullptr), name.c_str())));
} catch (const Failure& failure) {
  throw packaging(failure, name);
}

}  // namespace

void add_install(CLI::App& app, Common& common) {
  CLI::App& command = add_command(app, common, "install", "Install an expert from a .expert file or a directory");
  auto options = std::make_shared<Install>();
  command.add_option("source", options->source)->required()->type_name("SOURCE");
  command.add_flag("--skip-verify", options->skip_verify, "take an unsigned package");
  command.add_flag("--yes", options->yes, "on a terminal: answer questions with yes");
  command.add_flag("--force", options->force, "replace the same name and version with other content");
  command.callback([options, &common] { install_command(*options, common); });
}

void add_uninstall(CLI::App& app, Common& common) {
  CLI::App& command = add_command(app, common, "uninstall", "Remove an installed expert");
  auto name = std::make_shared<std::string>();
  command.add_option("name", *name, "every version, or one: sql@0.3.0")->required()->type_name("NAME");
  command.callback([name, &common] {
    log_to_stderr(common.debug);
    check(expert_package_uninstall(nullptr, name->c_str()));
    print(common.json ? pretty({{"uninstalled", *name}}) : "uninstalled " + *name + "\n");
  });
}

void add_list(CLI::App& app, Common& common) {
  CLI::App& command = add_command(app, common, "list", "List the installed experts");
  auto bundled = std::make_shared<bool>(false);
  command.add_flag("--bundled", *bundled, "also those that come with the library");
  command.callback([bundled, &common] { list_command(*bundled, common); });
}

void add_info(CLI::App& app, Common& common) {
  CLI::App& command = add_command(app, common, "info", "Show the manifest of an expert and where it is");
  auto name = std::make_shared<std::string>();
  command.add_option("name", *name, "an installed expert, a .expert file or a directory")
      ->required()
      ->type_name("NAME");
  command.callback([name, &common] { info_command(*name, common); });
}

}  // namespace cli
