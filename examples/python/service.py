"""A small service: POST /answer gives one answer, POST /stream the same as Server-Sent Events.

    pip install fastapi uvicorn
    uvicorn service:app
    curl -N localhost:8000/stream -H 'content-type: application/json' -d '{"prompt": "Hello"}'

One engine serves everybody; requests run in one batch. What strangers send is plain text (special_in_text=False), so it
cannot open a system turn. A client that goes away cancels its request.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import expert
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict


class Question(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str
    experts: list[str] | None = None
    max_tokens: int = 64

    def options(self) -> dict[str, Any]:
        experts = "auto" if self.experts is None else self.experts
        return {"prompt": self.prompt, "experts": experts, "max_tokens": self.max_tokens, "special_in_text": False}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with expert.Engine() as app.state.engine:
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(expert.ExpertError)
async def refused(_: Request, error: expert.ExpertError) -> JSONResponse:
    status = 400 if isinstance(error, expert.InvalidRequestError) else 503
    return JSONResponse({"error": error.message, "hint": error.hint}, status)


@app.post("/answer")
async def answer(question: Question) -> dict[str, Any]:
    result = await app.state.engine.ainfer(**question.options())
    return {"text": result.output, "experts": [used.name for used in result.experts_used], "usage": result.usage._asdict()}


@app.post("/stream")
async def stream(question: Question) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        try:
            async for chunk in app.state.engine.astream(**question.options()):
                yield f"data: {json.dumps({'text': chunk.text})}\n\n"
                if chunk.result:
                    yield f"event: end\ndata: {json.dumps({'finish_reason': chunk.result.finish_reason})}\n\n"
        except expert.ExpertError as error:
            yield f"event: error\ndata: {json.dumps({'error': error.message})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
