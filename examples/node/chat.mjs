// A chat: every line of standard input is a turn, the answer streams to standard output.
import { createInterface } from 'node:readline';
import { ExpertEngine } from '@hivellm/expert';

const engine = new ExpertEngine();
const messages = [];
for await (const line of createInterface({ input: process.stdin })) {
  messages.push({ role: 'user', content: line });
  const stream = engine.stream({ messages, experts: [], maxTokens: 48, specialInText: false });
  for await (const chunk of stream) process.stdout.write(chunk.text);
  process.stdout.write('\n');
  messages.push({ role: 'assistant', content: stream.result.text });
}
await engine.close();
