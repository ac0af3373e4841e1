/* A chat: every line of standard input is a turn, the answer streams to standard output. The conversation is kept as
 * JSON, so what a user types is escaped, and it is never read as special tokens.
 *
 *   printf 'Hello\nAnd again?\n' | chat
 */
#include <stdlib.h>
#include <string.h>

#include "report.h"

/* Appends `more` to the text in *text, which grows. */
static void append(char** text, const char* more, size_t length) {
  size_t old = *text != NULL ? strlen(*text) : 0;
  *text = realloc(*text, old + length + 1);
  if (*text == NULL) exit(1);
  memcpy(*text + old, more, length);
  (*text)[old + length] = '\0';
}

/* Appends one message; the text as a JSON string. */
static void append_message(char** messages, const char* role, const char* text) {
  char escape[8];
  append(messages, *messages == NULL ? "[" : ",", 1);
  append(messages, "{\"role\":\"", 9);
  append(messages, role, strlen(role));
  append(messages, "\",\"content\":\"", 13);
  for (; *text != '\0'; ++text) {
    unsigned char byte = (unsigned char)*text;
    if (byte == '"' || byte == '\\' || byte < 0x20) {
      append(messages, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", byte));
    } else {
      append(messages, text, 1);
    }
  }
  append(messages, "\"}", 2);
}

/* Streams the answer to `messages` (a JSON array); gives its text, or NULL. */
static char* answer(expert_engine* engine, const char* messages) {
  expert_request request = EXPERT_REQUEST_INIT;
  expert_stream* stream = NULL;
  expert_chunk* chunk = NULL;
  char* text = NULL;
  request.messages = messages;
  request.flags = EXPERT_REQUEST_BASE_ONLY | EXPERT_REQUEST_PLAIN_TEXT;
  request.max_tokens = 48;
  if (expert_submit(engine, &request, &stream)) return NULL;
  append(&text, "", 0);
  while (expert_stream_next(stream, -1, &chunk) == EXPERT_OK && chunk != NULL) {
    size_t length = 0;
    const char* piece = expert_chunk_text(chunk, &length);
    fwrite(piece, 1, length, stdout);
    fflush(stdout);
    append(&text, piece, strlen(piece));
    expert_chunk_free(chunk);
  }
  putchar('\n');
  expert_stream_free(stream);
  return text;
}

int main(void) {
  expert_engine* engine = NULL;
  char* messages = NULL;
  char line[1024];
  int exit_code = 0;
  if (expert_engine_open(NULL, &engine)) return report();
  while (exit_code == 0 && fgets(line, sizeof line, stdin) != NULL) {
    char* request = NULL;
    char* text;
    line[strcspn(line, "\r\n")] = '\0';
    append_message(&messages, "user", line);
    append(&request, messages, strlen(messages));
    append(&request, "]", 1);
    text = answer(engine, request);
    if (text == NULL) {
      exit_code = report();
    } else {
      append_message(&messages, "assistant", text);
    }
    free(text);
    free(request);
  }
  free(messages);
  expert_engine_free(engine);
  return exit_code;
}
