"""Chat models behind one small protocol: OpenAI-compatible endpoints, local Hugging Face models, scripts.

Importing this loads neither torch nor openai; opening a chat model does not either, as long as the cache answers.
"""

from optaware.llm._cache import ReplyCache
from optaware.llm._chat import Chat
from optaware.llm._local import shared_models
from optaware.llm._open import open_chat
from optaware.llm._protocol import ChatModel, request_id
from optaware.llm._scripted import scripted_chat
from optaware.llm._template import Template, load_template
from optaware.llm._usage import OnUsage, Totals

__all__ = [
    "Chat",
    "ChatModel",
    "OnUsage",
    "ReplyCache",
    "Template",
    "Totals",
    "load_template",
    "open_chat",
    "request_id",
    "scripted_chat",
    "shared_models",
]
