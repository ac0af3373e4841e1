// model add, list, remove, default.
#include <memory>

#include "command.h"
#include "table.h"
#include "terminal.h"

namespace cli {

namespace {

constexpr const char* kHome = nullptr;

void add_model_add(CLI::App& group, Common& common) {
  CLI::App& command = add_command(group, common, "add", "Register a Hugging Face directory");
  auto directory = std::make_shared<std::string>();
  auto name = std::make_shared<std::string>();
  command.add_option("directory", *directory)->required()->type_name("DIR");
  command.add_option("--name", *name, "default: the last segment of the path");
  command.callback([=, &common] {
    log_to_stderr(common.debug);
    const Json model = json_from(expert_model_add, kHome, directory->c_str(), or_null(*name));
    print(common.json ? pretty(model) : "added " + model.at("name").get<std::string>() + "\n");
  });
}

void add_model_list(CLI::App& group, Common& common) {
  add_command(group, common, "list", "List the registered models").callback([&common] {
    log_to_stderr(common.debug);
    const Json list = json_from(expert_model_list, kHome);
    if (common.json) return print(pretty(list));
    Table table({"NAME", "SIZE", "DEFAULT", "PATH"});
    for (const Json& model : list) {
      table.add({model.at("name"), human_bytes(model.at("size_bytes").get<double>()),
                 model.at("default").get<bool>() ? "yes" : "", model.at("path")});
    }
    print(table.text());
  });
}

void add_model_change(CLI::App& group, Common& common, const std::string& verb, const std::string& description,
                      const std::string& done, expert_status (*change)(const char*, const char*)) {
  CLI::App& command = add_command(group, common, verb, description);
  auto name = std::make_shared<std::string>();
  command.add_option("name", *name)->required()->type_name("NAME");
  command.callback([=, &common] {
    log_to_stderr(common.debug);
    check(change(kHome, name->c_str()));
    print(common.json ? pretty({{done, *name}}) : done + " " + *name + "\n");
  });
}

}  // namespace

void add_model(CLI::App& app, Common& common) {
  CLI::App& group = *app.add_subcommand("model", "Base models: add, list, remove, default");
  group.require_subcommand(1);
  add_model_add(group, common);
  add_model_list(group, common);
  add_model_change(group, common, "remove", "Forget a model; its directory stays", "removed", expert_model_remove);
  add_model_change(group, common, "default", "Use a model when none is named", "default", expert_model_set_default);
  CLI::App& download = *group.add_subcommand("download", "not supported yet");
  download.allow_extras();
  download.callback([] { throw not_supported_yet("`model download`"); });
}

}  // namespace cli
