"""A JSON route in FastAPI."""

from __future__ import annotations

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def index() -> dict[str, str]:
    """The answer of all three frameworks."""
    return {"message": "Hello, world!"}
