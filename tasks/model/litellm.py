"""LiteLLM itself, imported at the first use, and made quiet.

The project's only import of LiteLLM; importing this module is cheap, `load` is not.
"""

import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from fleet.system.outgoing import unusable_hidden
from tasks.model import echo


@contextmanager
def _models_built_when_used() -> Iterator[None]:
    """Defer the validators of the pydantic models defined in this block to their first use.

    LiteLLM defines two thousand models and a call uses a few; that is a tenth of its import.
    """
    from pydantic import BaseModel

    BaseModel.model_config["defer_build"] = True
    try:
        yield
    finally:
        del BaseModel.model_config["defer_build"]


#: The variable of OpenAI's key.
OPENAI_KEY = "OPENAI_API_KEY"
#: Sent in place of OpenAI's key to a provider that has none of its own.
_NO_KEY = "none"


def adapter(model: str) -> ModuleType:
    """LiteLLM, or for `echo/...` its stand-in, which needs no import.

    LiteLLM sends the environment's key of OpenAI to every provider that speaks OpenAI's protocol
    and has no key. So a caller gives it to OpenAI itself as `api_key`, and nobody else gets it.
    """
    if echo.serves(model):
        return echo
    load()
    import litellm

    litellm.openai_key = _NO_KEY if os.environ.get(OPENAI_KEY) else None
    return litellm


@functools.cache
def load() -> Any:
    """LiteLLM, imported once, silenced, and without a look-up on the network.

    Takes seconds of CPU. Call it before the fork and never inside a time limit: an import cut
    short leaves a half-made module behind for the rest of the process.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    # Otherwise LiteLLM reads any .env file from here up to the root into the environment.
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    with unusable_hidden():
        litellm = _imported()
    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    # Otherwise each piece of a stream starts an event loop in a thread, for callbacks never set.
    litellm.disable_streaming_logging = True
    litellm.disable_hf_tokenizer_download = True
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        # It logs whole tracebacks, with the provider's text, of errors that are reported here.
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    for name in ("openai", "httpx", "httpcore"):
        # Below WARNING they log prompts and URLs, and a URL may hold a key.
        logging.getLogger(name).setLevel(logging.WARNING)
    return litellm


def _imported() -> Any:
    with _models_built_when_used():
        import litellm
        from litellm.llms.custom_httpx.http_handler import HTTPHandler, get_ssl_configuration

    from tasks.model.transport import EnvironmentTransport

    # For every client that LiteLLM makes.
    litellm.sync_transport = EnvironmentTransport(get_ssl_configuration)
    # One client for all calls: LiteLLM's cache makes a client and a connection for each timeout.
    litellm.client_session = HTTPHandler().client
    return litellm
