"""OpenAI's Responses: `/v1/responses`, and what is kept of them."""

from __future__ import annotations

import json
from typing import Any

from backends.base import Receive, Scope, Send
from backends.wire.request import CHAT_PATH
from router.api.answer import send_json
from router.api.body import Asked
from router.api.conversations import Conversation, Conversations
from router.api.responses_answer import ResponseStream, whole
from router.api.responses_request import Question, question
from router.errors import LostResponseError, UnknownResponseError

Json = dict[str, Any]


class Responding:
    """One request; a `Translation`."""

    path = CHAT_PATH

    def __init__(self, read: Question, conversations: Conversations) -> None:
        fields = frozenset(read.body)
        self.asked = Asked(read.model, read.stream, read.keep_alive, fields, read.picture)
        self.question = read.body
        self._read = read
        self._conversations = conversations

    def whole(self, answer: Json) -> Json:
        return whole(answer, self._read.head, self._keep)

    def stream(self) -> ResponseStream:
        return ResponseStream(self._read.head, self._keep)

    def _keep(self, response: Json) -> None:
        if not self._read.store:
            return
        items = (*self._read.items, *response["output"])
        nbytes = self._read.nbytes + len(json.dumps(response))
        self._conversations.keep(Conversation(response, items, nbytes))


class Responses:
    """The dialect, with the memory that it has."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    def __call__(self, body: bytes) -> Responding:
        return Responding(question(body, self._past), self._conversations)

    def _past(self, identity: str) -> Conversation:
        """OpenAI calls the field wrong, and the path right."""
        try:
            return self._conversations.find(identity)
        except UnknownResponseError as error:
            raise LostResponseError(error.message, param="previous_response_id") from None


class KeptResponse:
    """`GET` and `DELETE /v1/responses/{id}`."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        identity = scope["path_params"]["response"]
        if scope["method"] == "DELETE":
            self._conversations.forget(identity)
            deleted = {"id": identity, "object": "response", "deleted": True}
            await send_json(send, 200, deleted)
            return
        await send_json(send, 200, self._conversations.find(identity).response)
