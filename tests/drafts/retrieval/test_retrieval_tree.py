"""Trees of what was retrieved, beside a plain search through all continuations."""

import math
from collections import defaultdict
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    CatalogDraft,
    DraftPlan,
    ListRequest,
    Prompts,
    Request,
    Sampling,
    SpeculativeDecoder,
    TextRequest,
    TransformersRunner,
    TreeContext,
    TreeOperations,
)
from padrec.drafts.retrieval import RetrievalDraft, RetrievalTree, TokenPool
from padrec.drafts.retrieval.retrieval_draft import RetrievalSession
from padrec.drafts.retrieval.token_pool import END
from tests.stubs import random_catalog, random_prompts, tiny_target

_SIZES, _K, _DEPTH = (5, 6, 4), 3, 3
_CATALOG = random_catalog(_SIZES, 30)
_VOCABULARY = SemanticIDVocabulary(_SIZES)
_RUNNER = TransformersRunner(tiny_target(_VOCABULARY))
_TEXT = st.lists(st.integers(0, 3), min_size=1, max_size=7)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_lists_and_texts_are_the_targets_own(temperature: float) -> None:
    sampling, prompts = Sampling(temperature), random_prompts(_CATALOG, _VOCABULARY, [3, 0, 4])
    requests: list[Request[Any]] = [
        ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=sampling),
        TextRequest(_VOCABULARY.size, 20, (3,), sampling=sampling),
    ]
    for request in requests:
        expected, slow = (
            AutoregressiveDecoder().bind(_RUNNER, request).decode(prompts, torch.Generator().manual_seed(0))
        )
        pool = TokenPool(2_000)
        for text in [*expected.tokens.tolist(), *torch.randint(4, 19, (9, 12)).tolist()]:
            pool.add(text)
        for nodes in (2, 12, 200):
            decoder = SpeculativeDecoder(RetrievalDraft(pool), RetrievalTree(6, nodes))
            found, fast = decoder.bind(_RUNNER, request).decode(prompts, torch.Generator().manual_seed(0))
            assert torch.equal(found.tokens, expected.tokens)
        assert fast.target_passes.sum() < slow.target_passes.sum() / 2, "it knows these very texts"


def plain_tree(following: list[list[int]], votes: list[float], unseen: float, nodes: int) -> set[tuple[int, ...]]:
    """The paths of the best nodes, each with the product of its shares of the votes."""
    share: dict[tuple[int, ...], float] = {(): 1.0}
    level: dict[tuple[int, ...], list[int]] = {(): [place for place, vote in enumerate(votes) if vote > 0]}
    for depth in range(_DEPTH):
        deeper: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for path, places in level.items():
            total = sum(votes[place] for place in places) + unseen
            for place in places:
                if following[place][depth] != END:
                    deeper[(*path, following[place][depth])].append(place)
            children = [child for child in deeper if child[:-1] == path]
            chances = [sum(votes[place] for place in deeper[child]) / total for child in children]
            others = 1 - sum(chances)
            for child, chance in zip(children, chances, strict=True):
                share[child] = share[path] * chance / (sum(chances) + max(others, 1e-6))
        level = deeper
    best = sorted(share, key=lambda path: -round(share[path], 5))[:nodes]
    lowest = min(round(share[path], 5) for path in best)
    return {path for path in share if round(share[path], 5) > lowest} | {()}


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(_TEXT, max_size=8), prompt=_TEXT, first=st.integers(0, 3), nodes=st.integers(2, 12))
def test_the_most_voted_paths_become_the_tree(
    texts: list[list[int]], prompt: list[int], first: int, nodes: int
) -> None:
    pool = TokenPool(500)
    for text in texts:
        pool.add(text)
    request, tree_shape = TextRequest(_VOCABULARY.size, 20), RetrievalTree(_DEPTH, nodes)
    draft = RetrievalDraft(pool, context=3, places=100)
    session = draft.bind(_RUNNER, request)(DraftPlan(_RUNNER, request, 1, 40, 1, _DEPTH))
    assert isinstance(session, RetrievalSession)
    tokens, root = torch.tensor([prompt]), torch.tensor([first])
    session.begin(Prompts(tokens, tokens, torch.tensor([len(prompt)])), torch.empty(0), root, tokens[0])
    constraint: Any = request.constraint
    state, choice = constraint.initial(1, torch.device("cpu")), request.sampling.choice(root, root, _DEPTH, 1)
    tree = tree_shape.expand(TreeContext(root, state, constraint, choice, session, TreeOperations()))
    following, votes = session.retrieve()
    must = plain_tree(following[0].tolist(), votes[0].tolist(), draft.unseen, nodes)
    assert tree.tokens.shape == (1, min(nodes, 1 + _DEPTH * following.shape[1]))
    paths: list[tuple[int, ...]] = [()]
    for token, parent in zip(tree.tokens[0, 1:].tolist(), tree.parents[0, 1:].tolist(), strict=True):
        assert parent < len(paths), "parents come first"
        paths.append((*paths[parent], token))
    found = [path for path, present in zip(paths, tree.present[0].tolist(), strict=True) if present]
    assert len(set(found)) == len(found), "no path twice"
    assert must <= set(found), "all that are better than the last"
    assert tree.depths[0].tolist() == [len(path) for path in paths]
    assert all(math.isfinite(score) for score in tree.scores[tree.present].tolist())


def test_another_draft_is_refused() -> None:
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    session = SpeculativeDecoder(CatalogDraft(), RetrievalTree(3, 8)).bind(_RUNNER, request)
    with pytest.raises(InputError, match="expected a RetrievalDraft"):
        session.decode(random_prompts(_CATALOG, _VOCABULARY, [2]), torch.Generator())
