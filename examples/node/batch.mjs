// Three requests with three different experts run together, in one batch.
import { ExpertEngine } from '@hivellm/expert';

const engine = new ExpertEngine();
const requests = [
  { prompt: 'Find all users', experts: ['sql'], maxTokens: 16 },
  { prompt: 'List the files here', experts: ['shell'], maxTokens: 16 },
  { prompt: 'Hello there', experts: ['json'], maxTokens: 16 },
];
const results = await engine.inferBatch(requests);
results.forEach(({ output }, i) => console.log(requests[i].prompt, '->', output));
await engine.close();
