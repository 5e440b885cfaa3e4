"""A JSON view in Flask."""

from __future__ import annotations

from flask import Flask, Response, jsonify

app = Flask(__name__)


@app.get("/")
def index() -> Response:
    """The answer of all three frameworks."""
    return jsonify(message="Hello, world!")
