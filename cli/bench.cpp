// Tokens per second, swaps and memory, beside the bandwidth of the machine.
#include <algorithm>
#include <memory>

#include "command.h"
#include "interrupt.h"
#include "table.h"
#include "terminal.h"

namespace cli {

namespace {

struct Bench {
  std::string model;
  std::string device;
  std::string weights;
  std::string kv;
  std::vector<std::string> experts = {"0", "1", "3", "10"};
  std::vector<int64_t> prompt_tokens = {128, 512};
  int64_t decode_tokens = 64;
  int64_t repeat = 3;
  int32_t threads = 0;
  int64_t requests = 0;
  int64_t experts_per_request = 1;
  int64_t rank = 16;
};

// Numbers of random experts, or names of real ones.
Json experts_of(const std::vector<std::string>& values) {
  const bool numbers = std::all_of(values.begin(), values.end(), [](const std::string& value) {
    return !value.empty() && value.size() < 7 && value.find_first_not_of("0123456789") == std::string::npos;
  });
  if (!numbers) return values;
  Json counts = Json::array();
  for (const std::string& value : values) counts.push_back(std::stoll(value));
  return counts;
}

Json options_of(const Bench& bench) {
  Json options = {{"experts", experts_of(bench.experts)},
                  {"prompt_tokens", bench.prompt_tokens},
                  {"decode_tokens", bench.decode_tokens},
                  {"repeat", bench.repeat},
                  {"threads", bench.threads},
                  {"requests", bench.requests},
                  {"experts_per_request", bench.experts_per_request},
                  {"rank", bench.rank}};
  for (const auto& [key, value] :
       {std::pair{"model", &bench.model}, {"device", &bench.device}, {"weights", &bench.weights}, {"kv", &bench.kv}}) {
    if (!value->empty()) options[key] = *value;
  }
  return options;
}

std::string percentiles(const Json& of) {
  return fixed(of.at("p50").get<double>(), 3) + " / " + fixed(of.at("p99").get<double>(), 3) + " ms";
}

std::string loads_of(const Json& load) {
  if (load.is_null()) return {};
  return "loading an expert of " + human_bytes(load.at("bytes").get<double>()) + " p50 / p99: hashed " +
         percentiles(load.at("hashed_ms")) + ", recognised " + percentiles(load.at("recognised_ms")) + "\n";
}

void print_report(const Json& report, const Bench& bench) {
  std::vector<std::string> header = {"EXPERTS"};
  for (int64_t tokens : bench.prompt_tokens) header.push_back("PREFILL " + std::to_string(tokens));
  header.insert(header.end(), {"DECODE", "TIME/BASE", "MB/TOKEN", "OF BANDWIDTH"});
  Table table(header);
  for (const Json& row : report.at("rows")) {
    std::vector<std::string> cells = {std::to_string(row.at("experts").get<int64_t>())};
    for (const Json& rate : row.at("prefill_tokens_per_second")) cells.push_back(fixed(rate.get<double>(), 1));
    cells.push_back(fixed(row.at("decode_tokens_per_second").get<double>(), 1));
    const Json& over_base = row.at("decode_time_over_base");
    cells.push_back(over_base.is_null() ? "-" : fixed(over_base.get<double>(), 3));
    cells.push_back(fixed(row.at("bytes_per_token").get<double>() / 1e6, 1));
    cells.push_back(fixed(100 * row.at("share_of_bandwidth").get<double>(), 1) + " %");
    table.add(std::move(cells));
  }
  const Json& swap = report.at("swap_ms");
  print(report.at("model").get<std::string>() + ", " + report.at("weights").get<std::string>() + ", " +
        report.at("isa").get<std::string>() + ", " + std::to_string(report.at("threads").get<int>()) + " threads, " +
        fixed(report.at("bandwidth_gb_s").get<double>(), 1) + " GB/s; tokens per second:\n" + table.text() +
        "forming a set p50 / p99: seen " + percentiles(swap.at("seen")) + ", new " + percentiles(swap.at("new")) + "\n" +
        loads_of(report.at("load_expert")) + "load " +
        fixed(report.at("load_ms").get<double>(), 0) + " ms, peak memory " +
        human_bytes(report.at("peak_memory_bytes").get<double>()) + "\n");
}

void print_load(const Json& report) {
  Table table({"", "TOKENS/S", "QUEUE P50/P99", "FIRST TOKEN P50/P99", "TOKEN P50/P99", "TOTAL P50/P99"});
  for (const char* kind : {"base", "with_experts"}) {
    const Json& load = report.at(kind);
    std::vector<std::string> cells = {kind == std::string("base") ? "base" : "with experts",
                                      fixed(load.at("tokens_per_second").get<double>(), 1)};
    for (const char* key : {"queue_ms", "first_token_ms", "token_ms", "total_ms"}) {
      const auto part = [&](const char* at) { return fixed(load.at(key).at(at).get<double>(), 1); };
      cells.push_back(load.contains(key) ? part("p50") + " / " + part("p99") + " ms" : "");
    }
    table.add(std::move(cells));
  }
  print(report.at("model").get<std::string>() + ", " + report.at("weights").get<std::string>() + ", " +
        std::to_string(report.at("requests").get<int64_t>()) + " requests at once, " +
        std::to_string(report.at("experts_per_request").get<int64_t>()) + " of " +
        std::to_string(report.at("experts").get<int64_t>()) + " experts each\n" + table.text() + "with experts: " +
        fixed(100 * report.at("share_of_base").get<double>(), 1) + " % of the base's tokens per second\n");
}

Json measure(const Bench& bench) {
  const InterruptScope scope(/*cleans_up=*/true);  // the random experts lie in a scratch folder
  ProgressBar bar("measuring");
  const auto progress = [](void* shown, double fraction) {
    static_cast<ProgressBar*>(shown)->show(fraction);
    return interrupted() ? 1 : 0;
  };
  const std::string options = options_of(bench).dump();
  char* text = nullptr;
  check(expert_bench(options.c_str(), progress, &bar, &text));
  return Json::parse(Text(text).get());
}

}  // namespace

void add_bench(CLI::App& app, Common& common) {
  CLI::App& command = add_command(app, common, "bench", "Measure tokens per second, swaps, memory and bandwidth");
  auto bench = std::make_shared<Bench>();
  command.add_option("--model", bench->model, "a directory or a registered name")->type_name("DIR|NAME");
  command.add_option("--device", bench->device)->type_name("NAME");
  command.add_option("--weights", bench->weights)->type_name("FORMAT");
  command.add_option("--kv", bench->kv)->type_name("FORMAT");
  command.add_option("--experts", bench->experts, "numbers of random experts, or names of real ones")
      ->delimiter(',')
      ->allow_extra_args(false);
  command.add_option("--prompt-tokens", bench->prompt_tokens)->delimiter(',')->allow_extra_args(false);
  command.add_option("--decode-tokens", bench->decode_tokens);
  command.add_option("--repeat", bench->repeat);
  command.add_option("--requests", bench->requests, "this many at once, instead of one after the other");
  command.add_option("--experts-per-request", bench->experts_per_request, "random experts of each, with --requests");
  command.add_option("--rank", bench->rank, "of random experts, with --requests");
  command.add_option("--threads", bench->threads, "default: every processor this process may use");
  command.callback([bench, &common] {
    log_to_stderr(common.debug);
    const Json report = measure(*bench);
    if (common.json) return print(pretty(report));
    bench->requests > 0 ? print_load(report) : print_report(report, *bench);
  });
}

}  // namespace cli
