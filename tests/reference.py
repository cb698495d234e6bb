"""Plain implementations that the library is compared with: no cache, no batch, no tensors where lists will do."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from scipy.stats import chi2
from torch import Tensor
from transformers import PreTrainedModel

from padrec.catalog import Catalog, SemanticIDVocabulary
from padrec.decoding import Prompts, Sampling

ListLaw = dict[tuple[int, ...], float]


def leaf_tokens(catalog: Catalog, vocabulary: SemanticIDVocabulary) -> list[tuple[int, ...]]:
    """The tokens of every distinct semantic ID, without separator."""
    leaves = sorted({tuple(codes) for codes in catalog.codes.tolist()})
    return [tuple(vocabulary.encode(torch.tensor(codes)).tolist()[: vocabulary.n_slots]) for codes in leaves]


def allowed_tokens(
    leaves: Sequence[tuple[int, ...]], vocabulary: SemanticIDVocabulary, written: Sequence[int], list_length: int
) -> set[int]:
    """Tokens that some item, not yet in the list, continues with."""
    length, n_slots = vocabulary.item_length, vocabulary.n_slots
    items = [tuple(written[start : start + n_slots]) for start in range(0, len(written), length)]
    under_way: tuple[int, ...] = ()
    if items and len(items[-1]) < n_slots:
        under_way = items.pop()
    if len(items) == list_length:
        return set()
    if vocabulary.separator and len(written) % length == n_slots:
        return {vocabulary.separator_token}
    place = len(under_way)
    return {leaf[place] for leaf in leaves if leaf[:place] == under_way and leaf not in items}


def trie_tokens(
    leaves: Sequence[tuple[int, ...]], vocabulary: SemanticIDVocabulary, written: Sequence[int]
) -> set[int]:
    """Tokens that some item continues with, be it in the list already or not."""
    place = len(written) % vocabulary.item_length
    if place == vocabulary.n_slots:
        return {vocabulary.separator_token}
    under_way = tuple(written[len(written) - place :])
    return {leaf[place] for leaf in leaves if leaf[:place] == under_way}


def next_slot(vocabulary: SemanticIDVocabulary, slot: int, token: int) -> int:
    """The slot of `token` after a token in `slot`."""
    if token == vocabulary.separator_token:
        return vocabulary.n_slots
    if token < vocabulary.separator_token:
        return vocabulary.n_slots + 1
    if slot < vocabulary.n_slots - 1:
        return slot + 1
    if slot == vocabulary.n_slots - 1:
        return vocabulary.n_slots + 1 if vocabulary.separator else 0
    return 0


def prompt_tokens(prompts: Prompts, row: int) -> list[int]:
    return [int(token) for token in prompts.tokens[row, : prompts.lengths[row]]]


def forward(model: PreTrainedModel, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Logits `[T, V]` and features `[T, d]` of one whole sequence, without a cache."""
    found = model(input_ids=torch.tensor([list(tokens)]), use_cache=False, output_hidden_states=True)
    return found.logits[0], found.hidden_states[-1][0]


class PlainTarget:
    """Next-token distributions of one prompt's list, token by token.

    Args:
        leaves: what lists are made of; None leaves them free.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompt: Sequence[int],
        vocabulary: SemanticIDVocabulary,
        leaves: Sequence[tuple[int, ...]] | None,
        list_length: int,
    ) -> None:
        self._model = model
        self._prompt = list(prompt)
        self._vocabulary = vocabulary
        self._leaves = leaves
        self._list_length = list_length
        self._n_tokens = vocabulary.list_tokens(list_length)

    def probabilities(self, written: Sequence[int]) -> list[float]:
        """Of every token after `written`."""
        logits = forward(self._model, [*self._prompt, *written])[0][-1].tolist()
        allowed = set(range(len(logits)))
        if self._leaves is not None:
            allowed = allowed_tokens(self._leaves, self._vocabulary, written, self._list_length)
        highest = max(logits[token] for token in allowed)
        weights = [math.exp(logit - highest) if token in allowed else 0.0 for token, logit in enumerate(logits)]
        return [weight / sum(weights) for weight in weights]

    def is_over(self, written: Sequence[int]) -> bool:
        return len(written) == self._n_tokens or self._vocabulary.eos_token in written

    def greedy_list(self) -> tuple[list[int], list[float]]:
        """The most probable tokens, one after the other, and their log-probabilities."""
        written: list[int] = []
        log_probs: list[float] = []
        while not self.is_over(written):
            probabilities = self.probabilities(written)
            best = max(range(len(probabilities)), key=probabilities.__getitem__)
            written.append(best)
            log_probs.append(math.log(probabilities[best]))
        return written, log_probs

    def law(self, sampling: Sampling, n_tokens: int) -> ListLaw:
        """Probability of every beginning of `n_tokens` tokens, or of a shorter list that has ended."""
        law: ListLaw = {}
        open_lists: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
        while open_lists:
            written, probability = open_lists.pop()
            if len(written) == n_tokens or self.is_over(written):
                law[written] = probability
                continue
            chances = sampling_law(self.probabilities(written), sampling)
            open_lists += [((*written, token), probability * chance) for token, chance in enumerate(chances) if chance]
        return law


def item_log_probs(
    model: PreTrainedModel, prompt: Sequence[int], leaves: Sequence[tuple[int, ...]], renormalise: bool
) -> list[list[float]]:
    """Log-probabilities of every item's codes after the prompt; each item is a row of its own, without padding.

    Args:
        renormalise: over the tokens that some item continues with; otherwise over all.
    """
    tokens = torch.tensor([[*prompt, *leaf] for leaf in leaves])
    logits = model(input_ids=tokens, use_cache=False).logits[:, len(prompt) - 1 : -1].tolist()
    scored = []
    for leaf, rows in zip(leaves, logits, strict=True):
        codes = []
        for place, token in enumerate(leaf):
            row = rows[place]
            competing = {other[place] for other in leaves if other[:place] == leaf[:place]}
            weights = [row[other] for other in (competing if renormalise else range(len(row)))]
            highest = max(weights)
            codes.append(row[token] - highest - math.log(sum(math.exp(weight - highest) for weight in weights)))
        scored.append(codes)
    return scored


def beam_search(
    model: PreTrainedModel, prompt: Sequence[int], leaves: Sequence[tuple[int, ...]], width: int, renormalise: bool
) -> list[tuple[int, float]]:
    """The leaves that a beam of this width ends with and their scores, best first; the first leaves win ties."""
    scored = item_log_probs(model, prompt, leaves, renormalise)
    kept: list[tuple[int, ...]] = [()]
    scores: dict[tuple[int, ...], float] = {}
    for length in range(1, len(leaves[0]) + 1):
        for leaf, codes in zip(leaves, scored, strict=True):
            scores[leaf[:length]] = sum(codes[:length])
        children = sorted({leaf[:length] for leaf in leaves if leaf[: length - 1] in kept})
        kept = sorted(children, key=lambda prefix: -scores[prefix])[:width]
    return [(leaves.index(prefix), scores[prefix]) for prefix in kept]


def sampling_law(probabilities: Sequence[float], sampling: Sampling) -> list[float]:
    """Temperature, then top-k, then top-p, each renormalised; tokens as probable as the k-th all stay."""
    weights = [probability ** (1 / sampling.temperature) for probability in probabilities]
    weights = [weight / sum(weights) for weight in weights]
    if sampling.top_k is not None:
        least = sorted(weights, reverse=True)[: sampling.top_k][-1]
        weights = [weight if weight >= least else 0.0 for weight in weights]
        weights = [weight / sum(weights) for weight in weights]
    kept: set[int] = set()
    reached = 0.0
    for token in sorted(range(len(weights)), key=lambda token: -weights[token]):
        if reached >= sampling.top_p:
            break
        kept.add(token)
        reached += weights[token]
    weights = [weight if token in kept else 0.0 for token, weight in enumerate(weights)]
    return [weight / sum(weights) for weight in weights]


def walk(tokens: Sequence[int], parents: Sequence[int], chosen: Sequence[int]) -> tuple[list[int], list[int]]:
    """Descend from the root while a child carries the token chosen at its parent: nodes passed, tokens emitted."""
    path, emitted = [0], [chosen[0]]
    while True:
        children = [node for node in range(1, len(tokens)) if parents[node] == path[-1]]
        following = [node for node in children if tokens[node] == chosen[path[-1]]]
        if not following:
            return path, emitted
        path.append(following[0])
        emitted.append(chosen[path[-1]])


def sequential_rejection_law(
    tokens: Sequence[int], parents: Sequence[int], target: Sequence[Sequence[float]], node: int = 0
) -> Iterator[tuple[tuple[int, ...], float]]:
    """What EAGLE-2 emits below a node: its children are tried one by one, each is accepted with its target
    probability, and each rejection takes it out of the distribution. Yields emitted tokens and their probability;
    one outcome may come more than once."""
    p = list(target[node])
    reached = 1.0
    for child in (child for child in range(1, len(tokens)) if parents[child] == node):
        accepted = p[tokens[child]]
        for rest, probability in sequential_rejection_law(tokens, parents, target, child):
            yield (tokens[child], *rest), reached * accepted * probability
        reached *= 1 - accepted
        p[tokens[child]] = 0.0
        if sum(p) == 0:
            return
        p = [value / sum(p) for value in p]
    for token, probability in enumerate(p):
        yield (token,), reached * probability


def goodness_of_fit(observed: Counter[tuple[int, ...]], law: Mapping[tuple[int, ...], float]) -> float:
    """P-value of Pearson's chi-square test; the rarest outcomes are taken together until five are expected."""
    assert set(observed) <= set(law), "outcomes that the law excludes"
    n = observed.total()
    cells = [(0, 0.0)]
    for outcome in sorted(law, key=law.__getitem__):
        if cells[-1][1] >= 5:
            cells.append((0, 0.0))
        seen, expected = cells[-1]
        cells[-1] = (seen + observed[outcome], expected + n * law[outcome])
    assert len(cells) > 1, "nothing to test: all outcomes were taken together"
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    return float(chi2.sf(statistic, len(cells) - 1))
