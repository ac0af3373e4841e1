// Every command of expert-cli: one file, one line in the table of main.cpp.
#pragma once

#include <CLI/CLI.hpp>

#include "options.h"

namespace cli {

// Each adds a subcommand whose callback throws Failure, or ExitWith for an exit code that is no error message.
void add_run(CLI::App& app, Common& common);
void add_chat(CLI::App& app, Common& common);
void add_route(CLI::App& app, Common& common);
void add_install(CLI::App& app, Common& common);
void add_uninstall(CLI::App& app, Common& common);
void add_list(CLI::App& app, Common& common);
void add_info(CLI::App& app, Common& common);
void add_model(CLI::App& app, Common& common);
void add_bench(CLI::App& app, Common& common);
void add_unsupported(CLI::App& app, Common& common);

struct ExitWith {
  int code;
};

// A subcommand with --json and --debug.
CLI::App& add_command(CLI::App& app, Common& common, const std::string& name, const std::string& description);

}  // namespace cli
