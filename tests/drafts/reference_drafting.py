"""Feature drafts written out without cache and unrolling, and what their tests share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.drafts import EAGLE, DraftArchitecture, FeatureDraftNetwork, PositionAware, StepCache
from padrec.drafts.position_aware import PAD_REC
from padrec.targets import to_precision


def random_network(
    model: PreTrainedModel,
    n_slot_states: int,
    position_aware: PositionAware | None = PAD_REC,
    architecture: DraftArchitecture = EAGLE(),  # noqa: B008  # frozen
) -> FeatureDraftNetwork:
    """A draft for a target, in its precision, with every parameter away from its initial value."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = {"n_slot_states": n_slot_states, "n_steps": 3, "position_aware": position_aware}
        network = architecture.network(model.config, **settings)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)
    to_precision(network, model.dtype)
    return network.eval()


def randomise(network: nn.Module) -> None:
    """Move every parameter away from its initial value."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)


def inputs_by_step(
    network: FeatureDraftNetwork, embeddings: Tensor, features: Sequence[Tensor], slots: Tensor, n_true: int
) -> Tensor:
    """Inputs of the decoder layer, `[1, n, d]`; the first `n_true` features are the target's own."""
    hidden, embeddings = [], network.embedded(embeddings)
    for place, feature in enumerate(features):
        step = max(0, place + 1 - n_true)
        hidden.append(network.position_aware(network.fusion, embeddings[place], feature, slots[place], step))
    return torch.stack(hidden)[None]


def simulated_drafting(
    network: FeatureDraftNetwork, embeddings: Tensor, features: Tensor, slots: Tensor, position: int, step: int
) -> Tensor:
    """What a draft predicts at a position of one row after `step` own predictions, `[d]`.

    It has the target's features up to `position - step` and goes on with the true tokens and its own features, reading
    everything anew for each prediction.

    Args:
        embeddings: e(x_{t+1}), `[T, d]`.
        features: f_t, `[T, d]`.
        slots: slot of x_{t+1}, int64 `[T]`.
    """
    n_true = position - step + 1
    so_far = list(features[:n_true])
    predicted = features[0]
    for _ in range(step + 1):
        n = len(so_far)
        causal = torch.ones(n, n, dtype=torch.bool).tril()[None]
        hidden = inputs_by_step(network, embeddings, so_far, slots, n_true)
        predicted = network.attend(hidden, torch.arange(n)[None], causal, StepCache())[0, -1]
        so_far.append(predicted)
    return predicted
