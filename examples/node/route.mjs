// What the router would do with a prompt, and why. Nothing is generated.
import { ExpertEngine } from '@hivellm/expert';

const engine = new ExpertEngine();
const plan = await engine.route(process.argv[2] ?? 'Find all users older than 25');
for (const { name, weight, score, reason } of plan.experts) {
  console.log(`${name} x ${weight}  score ${score.toFixed(3)}  ${reason}`);
}
console.log(plan.explanation);
await engine.close();
