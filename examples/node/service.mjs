// A small service: POST /answer gives one answer, POST /stream the same as Server-Sent Events.
//
//   npm install express && node service.mjs
//   curl -N localhost:8000/stream -H 'content-type: application/json' -d '{"prompt": "Hello"}'
//
// One engine serves everybody; requests run in one batch. What strangers send is plain text (specialInText: false), so it
// cannot open a system turn. A client that goes away cancels its request.
import { ExpertEngine, ExpertError, InvalidRequestError } from '@hivellm/expert';
import express from 'express';

const engine = new ExpertEngine();
const app = express();
app.use(express.json({ limit: '1mb' }));

// A stranger chooses these, and nothing else.
function requestOf({ prompt, experts = 'auto', maxTokens = 64 }, signal) {
  return { prompt, experts, maxTokens, specialInText: false, signal };
}

function abortOnClose(response) {
  const controller = new AbortController();
  response.on('close', () => controller.abort());
  return controller.signal;
}

app.post('/answer', async (request, response) => {
  const { output, expertsUsed, usage } = await engine.infer(requestOf(request.body, abortOnClose(response)));
  response.json({ text: output, experts: expertsUsed.map(({ name }) => name), usage });
});

app.post('/stream', async (request, response) => {
  const stream = engine.stream(requestOf(request.body, abortOnClose(response)));
  response.set('content-type', 'text/event-stream');
  try {
    for await (const { text, result } of stream) {
      response.write(`data: ${JSON.stringify({ text })}\n\n`);
      if (result) response.write(`event: end\ndata: ${JSON.stringify({ finishReason: result.finishReason })}\n\n`);
    }
  } catch (error) {
    response.write(`event: error\ndata: ${JSON.stringify({ error: error.message })}\n\n`);
  }
  response.end();
});

app.use((error, _request, response, next) => {
  if (response.headersSent) return next(error);
  const status = error instanceof InvalidRequestError || error instanceof TypeError ? 400 : (error.status ?? 503);
  return response.status(status).json({ error: error.message, hint: error instanceof ExpertError ? error.hint : '' });
});

const server = app.listen(Number(process.env.PORT ?? 8000), () => console.log(`listening on ${server.address().port}`));
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => server.close(() => engine.close()));
}
