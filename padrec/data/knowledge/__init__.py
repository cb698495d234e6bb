"""Prompts that ask a language model what it knows about items and users."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.data.knowledge.item_knowledge import ItemKnowledge as ItemKnowledge
    from padrec.data.knowledge.text_prompts import PromptSource as PromptSource
    from padrec.data.knowledge.text_prompts import TextPrompts as TextPrompts
    from padrec.data.knowledge.user_knowledge import UserKnowledge as UserKnowledge
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
