"""An engine without a model, that misbehaves as it is told. A program of its own:

    python engine.py (--unix SOCKET | --port PORT) --behaviour FILE --record FILE

`FILE` holds a JSON object of `BEHAVIOUR`'s keys, read at the start. How an answer goes is told by
the request itself, whose body may carry `"fake": {…}` with `ANSWER`'s keys: the router passes
bodies on untouched. Where it translates them, the last message's text says it: `{"fake": {…}}`.
What happened is recorded, one JSON object a line, with monotonic seconds.

Imports little and runs without `site`, because hundreds are started; one thread per connection,
because only raw sockets misbehave at the byte level.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time

TYPE_CHECKING = False  # as mypy knows it, without importing `typing`
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

BEHAVIOUR: Json = {
    "words": [],  # lines for stderr, first of all
    "flood_bytes": 0,  # to stderr at the start, without a newline
    "start_seconds": 0.0,  # before it listens
    "ready_seconds": 0.0,  # before its health turns green
    "never_ready": False,
    "exit_at_start": None,  # a status; before it listens
    "exit_at_canary": None,
    "canary_status": 200,
    "canary_answer": None,  # text of the whole body instead of an answer
    "canary_hangs": False,
    "deaf": False,  # to SIGTERM, like its grandchild
    "grandchild": None,  # "group": in the engine's process group; "session": in one of its own
    "wrapper": False,  # forks the real server and exits with status 0
    "balloon_bytes": 0,  # touched at the canary
}

ANSWER: Json = {
    "status": 200,
    "headers": [],  # pairs, after our own
    "raw": None,  # the whole response, verbatim (latin-1)
    "chunks": None,  # of the body (latin-1), each sent alone
    "gated": False,  # each chunk after the first waits for POST /fake/release
    "silent": False,  # not even a header, until the client leaves
    "length": False,  # with a Content-Length instead of chunked
    "end": "clean",  # or "close", "reset", "die", "hang", "malformed"
}

SENTENCE = "I am not a model, and I say so in every answer."


def main(argv: list[str]) -> int:
    arguments = dict(zip(argv[::2], argv[1::2], strict=True))
    with open(arguments["--behaviour"]) as file:
        behaviour = {**BEHAVIOUR, **json.load(file)}
    record = Record(arguments["--record"])
    for line in behaviour["words"]:
        os.write(2, (line + "\n").encode())
    flood(behaviour["flood_bytes"])
    if behaviour["deaf"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour["grandchild"]:
        fork_grandchild(behaviour["grandchild"], record)
    time.sleep(behaviour["start_seconds"])
    if behaviour["exit_at_start"] is not None:
        return int(behaviour["exit_at_start"])
    if behaviour["wrapper"] and os.fork():
        return 0
    listener = listen(arguments)
    record("listening", pid=os.getpid())
    Server(behaviour, record).run(listener)
    return 0


def listen(arguments: dict[str, str]) -> socket.socket:
    if "--unix" in arguments:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(arguments["--unix"])
    else:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", int(arguments["--port"])))
        except OSError as error:
            sys.exit(f"cannot listen: {error}")
    listener.listen(256)
    return listener


def flood(count: int) -> None:
    block = b"x" * 65536
    while count > 0:
        count -= os.write(2, block[:count])


def fork_grandchild(where: str, record: Record) -> None:
    if os.fork():
        return
    if where == "session":
        os.setsid()
    record("grandchild", pid=os.getpid())
    while True:
        signal.pause()


class Record:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, event: str, **facts: Any) -> None:
        line = json.dumps({"event": event, "at": time.monotonic(), **facts})
        os.write(self._file, line.encode() + b"\n")


class Server:
    def __init__(self, behaviour: Json, record: Record) -> None:
        self.behaviour = behaviour
        self.record = record
        self.began = time.monotonic()
        self.balloon = b""
        self.gate, self._opener = os.pipe()

    def run(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            method, path, headers, body = read_request(connection)
            self._answer(connection, method, path, headers, body)
        except (OSError, EOFError):
            pass
        finally:
            connection.close()

    def _answer(
        self,
        connection: socket.socket,
        method: str,
        path: str,
        headers: list[list[str]],
        body: bytes,
    ) -> None:
        if path == "/health":
            respond(connection, 200 if self._healthy() else 503, b"{}")
        elif path == "/fake/release":
            os.write(self._opener, b"." * int(body or b"1"))
            respond(connection, 200, b"{}")
        else:
            asked = json.loads(body)
            if asked.get("canary"):
                self._prove(connection)
            else:
                facts = {"method": method, "path": path, "headers": headers}
                self.record("request", **facts, body=body.decode("latin-1"))
                Answer(self, connection, asked).give()

    def _healthy(self) -> bool:
        waited = time.monotonic() - self.began
        return not self.behaviour["never_ready"] and waited >= float(
            self.behaviour["ready_seconds"]
        )

    def _prove(self, connection: socket.socket) -> None:
        behaviour = self.behaviour
        self.balloon = b"\1" * behaviour["balloon_bytes"]
        self.record("canary")
        if behaviour["exit_at_canary"] is not None:
            os._exit(behaviour["exit_at_canary"])
        if behaviour["canary_hangs"]:
            gone(connection, None)
            return
        words = behaviour["canary_answer"]
        body = json.dumps(completion({})) if words is None else words
        respond(connection, behaviour["canary_status"], body.encode())


class Answer:
    """One answer, as its request told."""

    def __init__(self, server: Server, connection: socket.socket, asked: Json) -> None:
        self.server = server
        self.connection = connection
        self.asked = asked
        self.how = {**ANSWER, **(asked.get("fake") or told_in_text(asked))}
        self.stream = bool(asked.get("stream"))

    def give(self) -> None:
        how = self.how
        if how["silent"]:
            self.wait()
        elif how["raw"] is not None:
            self.connection.sendall(how["raw"].encode("latin-1"))
        else:
            chunks = [chunk.encode("latin-1") for chunk in how["chunks"] or self.default()]
            self.connection.sendall(self.head(chunks))
            if self.body(chunks):
                self.end()

    def default(self) -> list[str]:
        if not self.stream:
            return [json.dumps(completion(self.asked))]
        words = [f"{word} " for word in SENTENCE.split()]
        said = [chunk(self.asked, {"content": word}, None) for word in words]
        said.append(chunk(self.asked, {}, "stop"))
        return [*(f"data: {json.dumps(c)}\n\n" for c in said), "data: [DONE]\n\n"]

    def head(self, chunks: list[bytes]) -> bytes:
        kind = "text/event-stream" if self.stream else "application/json"
        lines = [f"HTTP/1.1 {self.how['status']} Said", f"content-type: {kind}"]
        if self.how["length"]:
            lines.append(f"content-length: {sum(map(len, chunks))}")
        else:
            lines.append("transfer-encoding: chunked")
        lines += [f"{name}: {value}" for name, value in self.how["headers"]]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def body(self, chunks: list[bytes]) -> bool:
        """Send them; False when the client left meanwhile."""
        for index, data in enumerate(chunks):
            if self.how["gated"] and index and not self.wait(self.server.gate):
                return False
            self.connection.sendall(data if self.how["length"] else framed(data))
            self.server.record("sent", index=index)
        return True

    def end(self) -> None:
        end = self.how["end"]
        if end == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif end == "hang":
            self.wait()
        elif end == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        elif end == "malformed":
            self.connection.sendall(b"zz\r\nthis is not a chunk\r\n")
        elif end == "clean" and not self.how["length"]:
            self.connection.sendall(b"0\r\n\r\n")
            self.server.record("finished")

    def wait(self, gate: int | None = None) -> bool:
        """Until the gate lets one pass: True; or until the client has left: False."""
        if gone(self.connection, gate):
            self.server.record("cancelled")
            return False
        return True


def told_in_text(asked: Json) -> Json:
    messages = asked.get("messages") or [{}]
    text = messages[-1].get("content")
    if not isinstance(text, str) or not text.startswith('{"fake":'):
        return {}
    told: Json = json.loads(text)["fake"]
    return told


def gone(connection: socket.socket, gate: int | None) -> bool:
    """True when the client leaves, False when the gate lets one pass first."""
    watched: list[Any] = [connection] if gate is None else [connection, gate]
    while True:
        readable, _, _ = select.select(watched, [], [])
        if gate is not None and gate in readable:
            os.read(gate, 1)
            return False
        try:
            if not connection.recv(4096):
                return True
        except OSError:
            return True


def read_request(connection: socket.socket) -> tuple[str, str, list[list[str]], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = [line.split(": ", 1) for line in lines]
    length = int(next((v for n, v in headers if n.lower() == "content-length"), 0))
    while len(body) < length:
        body += received(connection)
    return method, path, headers, body


def received(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 20)
    if not data:
        raise EOFError
    return data


def respond(connection: socket.socket, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} Said\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)


def framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def completion(asked: Json) -> Json:
    message = {"role": "assistant", "content": SENTENCE}
    return {
        "id": "fake-1",
        "object": "chat.completion",
        "created": 1,
        "model": asked.get("model", ""),
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 12, "total_tokens": 13},
    }


def chunk(asked: Json, delta: Json, reason: str | None) -> Json:
    return {
        "id": "fake-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": asked.get("model", ""),
        "choices": [{"index": 0, "finish_reason": reason, "delta": delta}],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
