"""AtSpeed: small language models that search beams ahead of a target."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.drafts.atspeed.atspeed_beam_draft import AtSpeedBeamDraft as AtSpeedBeamDraft
    from padrec.drafts.atspeed.atspeed_draft import AtSpeedDraft as AtSpeedDraft
    from padrec.drafts.atspeed.branched_rows import BranchedRows as BranchedRows
    from padrec.drafts.atspeed.objectives import TVDKD as TVDKD
    from padrec.drafts.atspeed.objectives import AdaptiveAcceptance as AdaptiveAcceptance
    from padrec.drafts.atspeed.objectives import CodeChoices as CodeChoices
    from padrec.drafts.atspeed.objectives import DistillationObjective as DistillationObjective
    from padrec.drafts.atspeed.objectives import LogAcceptance as LogAcceptance
    from padrec.drafts.atspeed.objectives import SeqKD as SeqKD
    from padrec.drafts.atspeed.objectives import TopKAlignment as TopKAlignment
    from padrec.drafts.atspeed.objectives import TotalVariation as TotalVariation
    from padrec.drafts.atspeed.objectives import WordKD as WordKD
    from padrec.drafts.atspeed.objectives import nodes_before as nodes_before
    from padrec.drafts.atspeed.objectives import prefix_nodes as prefix_nodes
    from padrec.drafts.atspeed.prefix_search import PrefixSearch as PrefixSearch
    from padrec.drafts.atspeed.prefix_search import contained as contained
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
