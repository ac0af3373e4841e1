// A conversation: every turn sends all turns before it.
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <string>

#include "command.h"
#include "interrupt.h"
#include "run.h"
#include "terminal.h"

namespace cli {

namespace {

struct Chat {
  ModelOptions model;
  RequestOptions request;
  StreamChoice choice;
  std::string system;
};

// Lines of standard input, read so that we know whether more has already been typed or pasted.
class LineReader {
 public:
  enum class End { line, eof, interrupt };

  End next(std::string& line) {
    while (true) {
      const size_t end = buffer_.find('\n');
      if (end != std::string::npos) {
        line = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        if (!line.empty() && line.back() == '\r') line.pop_back();
        return End::line;
      }
      if (const End stop = fill(); stop != End::line) {
        line = std::exchange(buffer_, {});
        return line.empty() || stop == End::interrupt ? stop : End::line;
      }
    }
  }

  // A pasted text of several lines is one message: its next line is there within this time. Files and pipes hold one
  // message per line.
  bool more_is_pasted() const {
    constexpr int kPasteMs = 30;
    if (!stdin_is_terminal()) return false;
    if (!buffer_.empty()) return true;
    pollfd input = {STDIN_FILENO, POLLIN, 0};
    return ::poll(&input, 1, kPasteMs) == 1;
  }

 private:
  End fill() {
    char bytes[4096];
    const ssize_t count = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (count > 0) {
      buffer_.append(bytes, static_cast<size_t>(count));
      return End::line;
    }
    return count < 0 && errno == EINTR ? End::interrupt : End::eof;
  }

  std::string buffer_;
};

class Conversation {
 public:
  Conversation(const Chat& chat, const Common& common)
      : common_(common), stream_(chat.choice.decide(common)), request_(chat.request), system_(chat.system) {
    log_to_stderr(common.debug);
    reset();
    engine_ = open_engine(chat.model);
  }

  // Returns when the user ends it; the exit code of the last turn.
  int talk() {
    if (stdin_is_terminal()) note("/exit ends, /reset forgets the conversation, Ctrl-C stops an answer\n");
    std::string message;
    while (true) {
      switch (read_message(message)) {
        case LineReader::End::eof:
          return exit_;
        case LineReader::End::interrupt:
          note("\n");
          return kInterrupted;
        case LineReader::End::line:
          break;
      }
      if (message == "/exit" || message == "/quit") return exit_;
      if (message == "/reset") {
        reset();
      } else if (message.find_first_not_of(" \t\n") != std::string::npos) {
        exit_ = answer(message);
      }
    }
  }

 private:
  void reset() {
    messages_ = Json::array();
    if (!system_.empty()) messages_.push_back({{"role", "system"}, {"content", system_}});
  }

  LineReader::End read_message(std::string& message) {
    if (stdin_is_terminal()) note("> ");
    const LineReader::End end = reader_.next(message);
    std::string line;
    while (end == LineReader::End::line && reader_.more_is_pasted() && reader_.next(line) == LineReader::End::line) {
      message += "\n" + line;
    }
    return end;
  }

  // One turn. A turn that fails is taken back, so that the conversation can go on.
  int answer(const std::string& message) try {
    messages_.push_back({{"role", "user"}, {"content", message}});
    request_.set_messages(messages_.dump(-1, ' ', false, Json::error_handler_t::replace));
    const Answer answer = generate(engine_.get(), request_.get(), stream_);
    size_t length = 0;
    const char* output = expert_result_output(answer.result.get(), &length);
    const std::string text(output, length);
    if (!stream_) print(text + "\n");
    if (common_.debug) explain(answer.result.get());
    messages_.push_back({{"role", "assistant"}, {"content", text}});
    if (interrupted()) clear_interrupt();
    return kOk;
  } catch (const Failure& failure) {
    if (failure.code == "write") throw;
    messages_.erase(messages_.size() - 1);
    report(failure, false);
    return failure.exit;
  }

  const Common& common_;
  bool stream_;
  PreparedRequest request_;
  std::string system_;
  InterruptScope scope_;
  Engine engine_;
  Json messages_;
  LineReader reader_;
  int exit_ = kOk;
};

void chat(const Chat& options, const Common& common) {
  if (options.request.prompt) return run_once(options.model, options.request, options.choice, common);
  if (common.json) throw usage_error("--json needs --prompt: a conversation is not one document");
  if (options.request.raw) throw usage_error("--raw needs --prompt: a conversation goes through the chat template");
  if (options.request.body == "-") throw usage_error("--body - needs --prompt: the conversation is read there");
  const int exit = Conversation(options, common).talk();
  if (exit != kOk) throw ExitWith{exit};
}

}  // namespace

void add_chat(CLI::App& app, Common& common) {
  CLI::App& command =
      add_command(app, common, "chat", "Hold a conversation: one message per line, or pasted lines together");
  auto options = std::make_shared<Chat>();
  command.add_option("--prompt", options->request.prompt, "behave like run")->type_name("TEXT");
  command.add_option("--system", options->system, "a system message at the beginning")->type_name("TEXT");
  options->request.add_to(command);
  options->choice.add_to(command);
  options->model.add_to(command);
  command.callback([options, &common] { chat(*options, common); });
}

}  // namespace cli
