// Commands that are known by name and not built yet: refused, never ignored.
#include "command.h"

namespace cli {

void add_unsupported(CLI::App& app, Common& /*common*/) {
  for (const char* name : {"update", "verify", "package", "keygen", "sign", "trust", "dataset", "train", "validate",
                           "compare", "marketplace", "registry", "config", "serve"}) {
    CLI::App& command = *app.add_subcommand(name, "not supported yet");
    command.group("Not built yet");
    command.allow_extras();
    command.callback([name] { throw not_supported_yet("`" + std::string(name) + "`"); });
  }
}

}  // namespace cli
