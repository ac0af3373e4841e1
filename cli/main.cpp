// expert-cli: results to stdout, everything else to stderr, exit codes as in failure.h.
#include <algorithm>
#include <cstring>
#include <iostream>
#include <sstream>

#include "command.h"
#include "terminal.h"

namespace cli {

namespace {

constexpr const char* kFooter =
    "Environment: EXPERT_HOME (default ~/.expert), EXPERT_DEVICE, EXPERT_MODELS_PATH, EXPERT_ISA, NO_COLOR.\n"
    "Exit codes: 0 ok, 1 general, 2 usage or not supported yet, 3 missing dependency, 4 incompatible, 5 signature,\n"
    "10 training, 11 validation, 12 packaging, 130 interrupted. With --json an error is a document too.";

using AddCommand = void (*)(CLI::App&, Common&);
constexpr AddCommand kCommands[] = {add_run,  add_chat, add_route, add_install, add_uninstall,
                                    add_list, add_info, add_model, add_bench,   add_unsupported};

// --help and --version are results; every other complaint of the parser is a usage error.
int finish_parse(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() != 0) {
    throw usage_error(error.what(), "expert-cli --help, or --help after a command");
  }
  std::ostringstream out;
  std::ostringstream err;
  app.exit(error, out, err);
  print(out.str());
  return kOk;
}

// The parser would only say that a command is missing.
void require_known_command(const CLI::App& app, int argc, char** argv) {
  const auto first = std::find_if(argv + 1, argv + argc, [](const char* word) { return word[0] != '-'; });
  if (first == argv + argc) return;
  std::string names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (command->check_name(*first)) return;
    names += (names.empty() ? "" : ", ") + command->get_name();
  }
  throw usage_error("\"" + std::string(*first) + "\" is no command", "commands: " + names);
}

int run(int argc, char** argv, Common& common) {
  CLI::App app("One resident base model, many experts.", "expert-cli");
  app.footer(kFooter);
  app.set_version_flag("--version", std::string("expert-cli ") + expert_version());
  app.require_subcommand(1);
  for (AddCommand add : kCommands) add(app, common);
  if (argc > 1) require_known_command(app, argc, argv);
  try {
    app.parse(argc, argv);
    return kOk;
  } catch (const CLI::ParseError& error) {
    return finish_parse(app, error);
  } catch (const ExitWith& exit) {
    return exit.code;
  }
}

}  // namespace

CLI::App& add_command(CLI::App& app, Common& common, const std::string& name, const std::string& description) {
  CLI::App& command = *app.add_subcommand(name, description);
  command.add_flag("--json", common.json, "print one JSON document");
  command.add_flag("--debug", common.debug, "routing decision, timings and the log, to stderr");
  return command;
}

}  // namespace cli

int main(int argc, char** argv) {
  using namespace cli;
  prepare_streams();
  Common common;
  // Known before parsing, so that a usage error is a document too.
  const bool json =
      std::any_of(argv + 1, argv + std::max(argc, 1), [](const char* a) { return !std::strcmp(a, "--json"); });
  Failure failure(kGeneral, "internal", "");
  try {
    return run(argc, argv, common);
  } catch (const Failure& caught) {
    failure = caught;
  } catch (const std::exception& caught) {
    failure = Failure(kGeneral, "internal", caught.what());
  }
  try {
    report(failure, json && failure.code != "write");
  } catch (const Failure&) {  // stdout cannot be written either; stderr has the message
  }
  return failure.exit;
}
