"""A chat endpoint on this machine, in a process of its own, that notes every request that reaches it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from optaware.llm import open_chat, request_id
from optaware.records import ChatMessage, ChatModelRef, ChatRequest

__all__ = ["Endpoint", "scripted_answer"]

ROOT = Path(__file__).parents[2]
LATENCY_S = 0.01


def scripted_answer(body: dict[str, Any]) -> str:
    """A rewriter that adds two words, and a judge that turns down every rewrite that mentions an invoice."""
    texts = [message["content"] for message in body["messages"]]
    last = texts[-1].strip().splitlines()[-1].partition(": ")[2]
    last = json.loads(last) if last.startswith('"') else last
    if "same | not the same" in texts[0]:
        return "not the same" if "invoice" in last.lower() else "same"
    return f"{last} Please help."


def _loopback() -> Any:
    spec = importlib.util.spec_from_file_location("loopback_torture", ROOT / "tests" / "loopback.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Endpoint:
    """The endpoint; `notes` gets a line with the request's id (as the reply cache names it) per arrival.

    Args:
        notes: The file.
    """

    def __init__(self, notes: Path) -> None:
        self.notes = notes
        notes.write_bytes(b"")
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            self._serve(writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            self.base_url = answer.readline().decode().strip()

    def ref(self, **changes: Any) -> dict[str, Any]:
        """What a study says of it."""
        chat = {"provider": "openai", "model": "scripted", "api_key_env": "OPTAWARE_TORTURE_KEY"}
        return {**chat, "base_url": self.base_url, **changes}

    def arrivals(self) -> list[str]:
        """Ids of all requests so far, in the order in which they came."""
        return self.notes.read_text("ascii").split()

    def close(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def _serve(self, writer: int) -> None:
        parent = os.getppid()
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        file = os.open(self.notes, os.O_WRONLY | os.O_APPEND)
        made: dict[str, str] = {}

        def arrived(number: int, body: dict[str, Any]) -> None:
            if not made:
                made["identity"] = open_chat(ChatModelRef(**self.ref()), cache=None).identity
            request = ChatRequest(
                key="",
                messages=tuple(ChatMessage(**message) for message in body["messages"]),
                max_tokens=body.get("max_tokens") or body["max_completion_tokens"],
                temperature=body.get("temperature", 0.0),
                seed=body.get("seed", 0),
            )
            os.write(file, request_id(made["identity"], request).encode() + b"\n")
            time.sleep(LATENCY_S)

        server = _loopback().LoopbackServer(answer=scripted_answer, fault=arrived)
        with server:
            self.base_url = server.base_url
            os.write(writer, f"{server.base_url}\n".encode())
            os.close(writer)
            while os.getppid() == parent:
                time.sleep(1)
        os._exit(0)
