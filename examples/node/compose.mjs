// Two experts bend one base in one request: each alone, then both.
import { ExpertEngine } from '@hivellm/expert';

const engine = new ExpertEngine();
const sql = await engine.loadExpert('sql');
for (const experts of [[sql], ['jsonfmt'], [sql, ['jsonfmt', 0.8]]]) {
  const result = await engine.infer({
    prompt: 'Find all users older than 25',
    schema: 'users(id,name,age)',
    experts,
    temperature: 0,
    maxTokens: 48,
  });
  const used = result.expertsUsed.map(({ name, weight }) => `${name} x ${weight}`).join(' + ');
  console.log(used, '->', result.output);
}
await engine.close();
