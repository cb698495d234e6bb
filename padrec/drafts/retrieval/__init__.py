"""LASER: drafts that retrieve earlier texts of the target from pools."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.drafts.retrieval.combined_draft import CombinedDraft as CombinedDraft
    from padrec.drafts.retrieval.prompt_groups import PromptGroups as PromptGroups
    from padrec.drafts.retrieval.retrieval_draft import RetrievalDraft as RetrievalDraft
    from padrec.drafts.retrieval.retrieval_draft import RetrievalSession as RetrievalSession
    from padrec.drafts.retrieval.retrieval_tree import RetrievalTree as RetrievalTree
    from padrec.drafts.retrieval.suffix_index import SuffixIndex as SuffixIndex
    from padrec.drafts.retrieval.token_pool import TokenPool as TokenPool
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
