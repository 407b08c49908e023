"""`GET /metrics`: the daemon in numbers, for Prometheus and its like."""

from __future__ import annotations

from collections import Counter

from backends.asgi import send_whole
from backends.base import Receive, Scope, Send
from router.exposition import CONTENT_TYPE, Family, exposition
from router.pool import Pool


class Metrics:
    """Tokens are not among them: answers of engines pass through unread."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = exposition([*_happened(self.pool), *_now(self.pool)])
        await send_whole(send, 200, CONTENT_TYPE, text.encode("utf-8", "replace"))


def _happened(pool: Pool) -> list[Family]:
    tally = pool.tally
    return [
        Family(
            "router_requests_total",
            "counter",
            "Answers that were begun, by path and status.",
            [({"path": path, "status": n}, count) for (path, n), count in tally.answers.items()],
        ),
        Family(
            "router_errors_total",
            "counter",
            "Requests that failed, by the code of the error, in the middle of an answer too.",
            [({"code": code}, count) for code, count in tally.errors.items()],
        ),
        Family(
            "router_loads_total",
            "counter",
            "Starts of an engine with a model, by outcome.",
            [
                ({"engine": engine, "outcome": "ready" if worked else "failed"}, count)
                for (engine, worked), count in tally.loads.items()
            ],
        ),
        Family(
            "router_load_seconds_total",
            "counter",
            "Time that these starts took, in seconds.",
            [({"engine": engine}, seconds) for engine, seconds in tally.load_seconds.items()],
        ),
        Family(
            "router_unloads_total",
            "counter",
            "Instances that were ended or had died.",
            [({"engine": engine}, count) for engine, count in tally.unloads.items()],
        ),
        Family(
            "router_evictions_total",
            "counter",
            "Those of them that made room for another model or for the machine.",
            [({}, pool.scheduler.evictions)],
        ),
    ]


def _now(pool: Pool) -> list[Family]:
    loaded = pool.status()
    caches = [
        ({"model": one.model, "engine": one.engine}, one.instance.prefix_cache)
        for one in loaded
        if one.instance.prefix_cache is not None
    ]
    states = Counter((one.engine, one.state) for one in loaded)
    waits = Counter(wait.reason for wait in pool.waits())
    return [
        Family("router_budget_bytes", "gauge", "Memory that all models together may take.",
               [({}, pool.scheduler.budget_bytes)]),
        Family("router_instances", "gauge", "Engines that run, by state.",
               [({"engine": engine, "state": s}, n) for (engine, s), n in states.items()]),
        Family("router_active_requests", "gauge", "Requests that an engine has.",
               [({}, sum(one.leases for one in loaded))]),
        Family("router_waiting_requests", "gauge", "Requests that wait, in all.",
               [({}, waits.total())]),
        Family("router_waiting_requests_by_reason", "gauge", "Requests that wait, and for what.",
               [({"reason": reason}, count) for reason, count in waits.items()]),
        Family("router_reserved_bytes", "gauge", "Memory reserved for a loaded model.",
               [({"model": one.model, "engine": one.engine}, one.reserved_bytes)
                for one in loaded]),
        Family("router_measured_bytes", "gauge", "Memory that its engine was last seen to hold.",
               [({"model": one.model, "engine": one.engine}, one.measured_bytes)
                for one in loaded if one.measured_bytes is not None]),
        Family("router_prefix_cache_bytes", "gauge", "Memory in which prompts are kept.",
               [(labels, cache.nbytes) for labels, cache in caches]),
        Family("router_prefix_cache_hits_total", "counter", "Requests that a kept prompt began.",
               [(labels, cache.hits) for labels, cache in caches]),
        Family("router_prefix_cache_misses_total", "counter", "Requests that did not.",
               [(labels, cache.misses) for labels, cache in caches]),
        Family("router_prompt_tokens_total", "counter", "Tokens of prompts, since it was loaded.",
               [(labels, cache.prompt_tokens) for labels, cache in caches]),
        Family("router_cached_prompt_tokens_total", "counter", "Those not computed again.",
               [(labels, cache.cached_tokens) for labels, cache in caches]),
        Family("router_failing_models", "gauge", "Models that have failed and not worked since.",
               [({}, len(pool.scheduler.circuits))]),
    ]  # fmt: skip
