from __future__ import annotations

import re
from typing import Any

import httpx

from router.exposition import Family, exposition
from router.tally import Tally
from tests.fake_engine import FakeBackend
from tests.router.entries import entry
from tests.router.sites import Site, serving
from tests.slack import run

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
HELP = re.compile(rf"# HELP ({NAME}) (?:[^\\\n]|\\[\\n])*")
TYPE = re.compile(rf"# TYPE ({NAME}) (counter|gauge)")
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Read = dict[str, dict[tuple[tuple[str, str], ...], float]]


def read(text: str) -> Read:
    """The format's grammar: each family once, HELP and TYPE before its samples, no sample twice."""
    assert text.endswith("\n")
    families: Read = {}
    lines = text.removesuffix("\n").split("\n")
    while lines:
        helped, typed = HELP.fullmatch(lines.pop(0)), TYPE.fullmatch(lines.pop(0))
        assert helped and typed and helped[1] == typed[1]
        assert typed[1] not in families
        assert typed[1].endswith("_total") == (typed[2] == "counter")
        samples = families[typed[1]] = {}
        while lines and (sample := SAMPLE.fullmatch(lines[0])):
            assert sample[1] == typed[1]
            pairs = re.findall(LABEL, sample[2] or "")
            key = tuple((name, _unescaped(value)) for name, value in pairs)
            assert key not in samples
            samples[key] = float(sample[sample.re.groups])
            lines.pop(0)
        assert samples
    return families


def _unescaped(value: str) -> str:
    return re.sub(r"\\.", lambda found: ESCAPES[found[0]], value)


async def metrics(site: Site) -> Read:
    answer = await site.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return read(answer.text)


def chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}]}


def test_a_value_may_hold_what_the_format_uses_itself() -> None:
    hostile = 'a"b\\c\nd{e="f"} 1'
    family = Family("router_x", "gauge", "What it is.", [({"model": hostile, "n": 2}, 1.5)])
    assert read(exposition([family])) == {"router_x": {(("model", hostile), ("n", "2")): 1.5}}
    assert exposition([Family("router_y", "gauge", "Nothing is known of it.", [])]) == ""


def test_what_clients_may_make_up_is_counted_as_one() -> None:
    tally = Tally()
    for path in ("/a", "/b", "/v1/models/x", "/v1/models"):
        tally.answered(path, 404)
    assert tally.answers == {("other", 404): 3, ("/v1/models", 404): 1}


def test_loads_requests_errors_and_evictions_are_counted(tmp_path: Any) -> None:
    async def main() -> None:
        fake = FakeBackend(tmp_path)
        models = (entry("a", weights_bytes=60), entry("b", weights_bytes=60))
        async with serving(fake, *models) as site:
            before = await metrics(site)
            assert "router_instances" not in before
            assert before["router_waiting_requests"] == {(): 0.0}
            for model in ("a", "b", "nobody"):
                answer: httpx.Response = await site.chat(chat(model))
                assert answer.status_code == (404 if model == "nobody" else 200)
            after = await metrics(site)
        chats = ("path", "/v1/chat/completions")
        assert after["router_requests_total"][chats, ("status", "200")] == 2
        assert after["router_requests_total"][chats, ("status", "404")] == 1
        assert after["router_errors_total"] == {(("code", "model_not_found"),): 1}
        assert after["router_loads_total"] == {(("engine", "fake"), ("outcome", "ready")): 2}
        assert after["router_load_seconds_total"][(("engine", "fake"),)] > 0
        assert after["router_unloads_total"] == {(("engine", "fake"),): 1}
        assert after["router_evictions_total"] == {(): 1}
        assert after["router_instances"] == {(("engine", "fake"), ("state", "ready")): 1}
        assert after["router_reserved_bytes"].keys() == {(("model", "b"), ("engine", "fake"))}
        assert after["router_budget_bytes"] == {(): 100}
        assert after["router_active_requests"] == {(): 0}
        assert after["router_failing_models"] == {(): 0}

    run(main())
