// What the router would do.
#include <cstdio>
#include <memory>

#include "command.h"
#include "interrupt.h"
#include "terminal.h"

namespace cli {

namespace {

struct Route {
  ModelOptions model;
  RequestOptions request;
};

std::string number(const Json& value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value.get<double>());
  return text;
}

void print_plan(const Json& plan) {
  std::string text;
  for (const Json& expert : plan.at("experts")) {
    text += expert.at("name").get<std::string>() + "  weight " + number(expert.at("weight")) + "  score " +
            number(expert.at("score")) + "  " + expert.value("reason", "") + "\n";
  }
  if (text.empty()) text = "the base model, without experts\n";
  print(text + plan.value("explanation", "") + "\n");
}

void route(const Route& options, const Common& common) {
  log_to_stderr(common.debug);
  PreparedRequest request(options.request);
  request.set_prompt(read_prompt(options.request.prompt));
  const InterruptScope scope;
  const Engine engine = open_engine(options.model);
  const Json plan = json_from(expert_route, static_cast<const expert_engine*>(engine.get()), request.get());
  common.json ? print(pretty(plan)) : print_plan(plan);
}

}  // namespace

void add_route(CLI::App& app, Common& common) {
  CLI::App& command = add_command(app, common, "route", "Show which experts a prompt would get, and why");
  auto options = std::make_shared<Route>();
  command.add_option("prompt", options->request.prompt, "the question; - or nothing: standard input")
      ->type_name("PROMPT");
  options->request.add_experts_to(command);
  options->model.add_to(command);
  command.callback([options, &common] { route(*options, common); });
}

}  // namespace cli
