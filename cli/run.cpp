#include "run.h"

#include <fstream>
#include <memory>

#include "command.h"
#include "interrupt.h"
#include "terminal.h"

namespace cli {

namespace {

struct Run {
  ModelOptions model;
  RequestOptions request;
  StreamChoice choice;
};

void print_answer(const expert_result* result, const Common& common) {
  if (common.json) return print(pretty(Json::parse(expert_result_json(result))));
  size_t length = 0;
  const char* output = expert_result_output(result, &length);
  print(std::string(output, length) + "\n");
}

// One event per line.
void write_trace(const expert_result* result, const std::string& path) {
  std::ofstream file(path);
  const Json events = Json::parse(expert_result_json(result)).value("trace", Json::array());
  for (const Json& event : events) file << event.dump() << '\n';
  file.flush();
  if (!file) throw Failure(kGeneral, "load", "cannot write the trace to " + path, "name a file in a folder that exists");
}

}  // namespace

void run_once(const ModelOptions& model, const RequestOptions& options, const StreamChoice& choice,
              const Common& common) {
  const bool stream = choice.decide(common);
  if (options.body == "-" && options.prompt.value_or("-") == "-") {
    throw usage_error("the prompt and --body cannot both be standard input", "give the prompt as an argument");
  }
  log_to_stderr(common.debug);
  PreparedRequest request(options);
  request.set_prompt(read_prompt(options.prompt));
  const InterruptScope scope;
  const Engine engine = open_engine(model);
  const Answer answer = generate(engine.get(), request.get(), stream);
  if (!stream) print_answer(answer.result.get(), common);
  if (!options.trace.empty()) write_trace(answer.result.get(), options.trace);
  if (common.debug) explain(answer.result.get());
  if (answer.interrupted) throw ExitWith{kInterrupted};
}

void add_run(CLI::App& app, Common& common) {
  CLI::App& command = add_command(app, common, "run", "Answer one prompt");
  auto run = std::make_shared<Run>();
  command.add_option("prompt", run->request.prompt, "the question; - or nothing: standard input")->type_name("PROMPT");
  run->request.add_to(command);
  command.add_option("--trace", run->request.trace, "write what happens to the request, step by step, as JSON lines")
      ->type_name("FILE");
  run->choice.add_to(command);
  run->model.add_to(command);
  command.callback([run, &common] { run_once(run->model, run->request, run->choice, common); });
}

}  // namespace cli
