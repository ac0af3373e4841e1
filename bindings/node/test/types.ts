// Compiled by tsc --strict, never run: what the declarations must allow and refuse.
import expert, { CancelledError, Chunk, Expert, ExpertEngine, Result, packages } from '@hivellm/expert';

async function allowed(): Promise<void> {
  const engine: ExpertEngine = await new ExpertEngine({ baseModel: 'DIR', contextSize: 4096 }).ready();
  const sql: Expert = await engine.loadExpert(new URL('file:///x.expert'));
  const controller = new AbortController();
  const result: Result = await engine.infer({
    prompt: 'x',
    experts: [sql, 'json', [sql, 0.5], ['json', -1]],
    seed: 5n,
    stop: ';',
    logitBias: new Map([[1, 2]]),
    signal: controller.signal,
  });
  const words: string = result.output + result.expertsUsed[0]?.name + result.plan['explanation'];
  for await (const chunk of engine.stream('x')) {
    const typed: Chunk = chunk;
    console.log(typed.text, typed.result?.finishReason === 'stop', words);
  }
  const both: (Result | Error)[] = await engine.inferBatch(['x', { prompt: 'y' }], { returnExceptions: true });
  const all: Result[] = await engine.inferBatch(['x']);
  const row: Float32Array = await engine.logits([1, 2], { experts: ['sql'] });
  try {
    await engine.submit('x').result(10);
  } catch (error) {
    if (error instanceof CancelledError) console.log(error.partial?.text, error.hint, error.code);
  }
  console.log(both, all, row, (await packages.list({ bundled: true }))[0]?.sizeBytes, expert.version);
  await engine.close({ drain: true });
}

async function refused(engine: ExpertEngine): Promise<void> {
  // @ts-expect-error: a prompt is text
  await engine.infer({ prompt: 5 });
  // @ts-expect-error: an unknown option
  await engine.infer({ promt: 'x' });
  // @ts-expect-error: a weight is a number
  await engine.infer({ prompt: 'x', experts: [['sql', 'much']] });
  // @ts-expect-error: an Expert comes from loadExpert()
  new Expert();
  // @ts-expect-error: "max" is no pooling
  await engine.embed('x', { pooling: 'max' });
}

export { allowed, refused };
