"""llama.cpp's own HTTP server, embedded.

    python -m backends.workers.llama_cpp --model FILE --socket SOCKET --alias ID

For those who have no `llama-server` binary: the `xllamacpp` wheel carries the same server. It
listens on a Unix socket and ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Any


def main() -> int:
    arguments = _arguments()
    ended = {signal.SIGTERM, signal.SIGINT}
    # Before the engine's threads exist, so that none of them takes the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, ended)
    import xllamacpp

    try:
        server = xllamacpp.Server(_parameters(xllamacpp, arguments))
    except RuntimeError as error:
        sys.stderr.write(f"llama.cpp could not load the model: {error}\n")
        return 1
    signal.sigwait(ended)
    del server
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="backends.workers.llama_cpp")
    parser.add_argument("--model", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--context", type=int, default=0)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--mmproj")
    parser.add_argument("--cache-ram", type=int, default=0)
    parser.add_argument("--embedding", action="store_true")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--pooling", choices=("rank",))
    return parser.parse_args()


def _parameters(xllamacpp: Any, arguments: argparse.Namespace) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = arguments.model
    parameters.model_alias = {arguments.alias}
    parameters.hostnames = [arguments.socket]
    parameters.n_ctx = arguments.context
    parameters.n_parallel = arguments.parallel
    # One pool of KV for all slots: a request that is alone has the whole context.
    parameters.kv_unified = True
    # A last message of the assistant's is a whole one, as on the other engines.
    parameters.prefill_assistant = False
    parameters.ui = False
    parameters.cors_origins = ""
    parameters.cache_ram_mib = arguments.cache_ram
    parameters.embedding = arguments.embedding
    if arguments.batch:
        # A text that is looked at all at once has to fit into one.
        parameters.n_batch = parameters.n_ubatch = arguments.batch
    if arguments.pooling:
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    if arguments.mmproj:
        parameters.mmproj.path = arguments.mmproj
    return parameters


if __name__ == "__main__":
    sys.exit(main())
