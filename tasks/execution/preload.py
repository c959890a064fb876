"""Imports done in a worker's parent before it forks: its children start fast and share memory.

LiteLLM's import takes seconds, and the first call imports hundreds of modules more. Done once in
the parent, every child has them already, on pages shared by all. The parent itself must never make
a call: LiteLLM starts threads with the first one, and a fork with threads may inherit held locks.
"""

import importlib
import logging
from collections.abc import Iterable

from fleet.config.agents import AgentConfig
from tasks.model import echo, litellm

_log = logging.getLogger(__name__)

#: The modules that a first call imports and `import litellm` does not, down to those that import
#: the rest. A test notices when a new LiteLLM needs others.
_FIRST_CALL = (
    "litellm.llms.litellm_proxy.chat.transformation",
    "litellm.llms.openai_like.dynamic_config",
    "litellm.proxy.openai_files_endpoints.common_utils",
    "litellm.llms.vertex_ai.vertex_ai_partner_models.anthropic.transformation",
    "litellm.llms.openai.chat.gpt_audio_transformation",
    "openai.resources.beta.assistants",
    "litellm.integrations.prometheus_services",
    "litellm._service_logger",
    "tiktoken_ext.openai_public",
    "litellm.litellm_core_utils.default_encoding",
    "litellm.types.litellm_core_utils.streaming_chunk_builder_utils",
    "litellm.llms.edenai.chat.transformation",
    "litellm.llms.fal_ai.cost_calculator",
    "litellm.llms.fal_ai.chat.transformation",
)


def preload(agents: Iterable[AgentConfig]) -> None:
    """Import LiteLLM and a first call's modules, if a model of `agents` needs them.

    Starts no thread and opens no connection.
    """
    if all(echo.serves(model) for agent in agents for model in agent.models):
        return
    litellm.load()
    for name in _FIRST_CALL:
        try:
            importlib.import_module(name)
        except ImportError as error:
            # Another version of LiteLLM: its first call imports for itself.
            _log.info("%s is not imported ahead of the first call: %s", name, error)
