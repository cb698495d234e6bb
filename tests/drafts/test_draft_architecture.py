"""Networks other than EAGLE's, from training over files to lists; on a GPU, if there is one."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.data import SemanticIDDataModule
from padrec.decoding import (
    AutoregressiveDecoder,
    DynamicTree,
    ListRequest,
    Prompts,
    Sampling,
    SpeculativeDecoder,
    TransformersRunner,
)
from padrec.drafts import (
    EAGLE,
    EAGLE3,
    DraftArchitecture,
    DraftCheckpoint,
    DraftWeights,
    FeatureBeamDraft,
    FeatureDraft,
    LogAcceptance,
)
from padrec.drafts.position_aware import PAD_REC
from padrec.targets import TargetRecommender, to_precision
from tests.drafts.reference_drafting import randomise
from tests.kernel_device import DEVICE, ON_GPU
from tests.stubs import tiny_target
from tests.tiny_training import first_prompts, fitted, tiny_draft

_EAGLE3 = EAGLE3(n_layers=2, feature_layers=(0, 1, -1))
# Enough for each loss to have its say: no feature loss, gradients through the steps, what the catalog allows.
_TRAINING: dict[str, Any] = {"feature_weight": 0.0, "through_steps": True, "distillation": LogAcceptance()}


@pytest.mark.parametrize("position_aware", [True, False])
@pytest.mark.parametrize("architecture", [EAGLE(n_layers=2), _EAGLE3], ids=str)
def test_a_trained_draft_leaves_lists_as_they_are(
    architecture: DraftArchitecture,
    position_aware: bool,
    data: SemanticIDDataModule,
    target_folder: Path,
    tmp_path: Path,
) -> None:
    form = PAD_REC if position_aware else None
    draft = tiny_draft(data, target_folder, architecture=architecture, position_aware=form, **_TRAINING)
    before = {name: weight.clone() for name, weight in draft.network.named_parameters()}
    fitted(draft, tmp_path, list(data.train_dataloader())[:3])
    assert all((weight != before[name]).any() for name, weight in draft.network.named_parameters())
    draft.save_pretrained(tmp_path / "draft")

    model = TargetRecommender.load(target_folder).backbone.eval().requires_grad_(False).to(DEVICE)
    to_precision(model, torch.float32 if ON_GPU else torch.float64)
    runner = TransformersRunner(model, draft.target.fingerprint)
    batch = first_prompts(data).to(DEVICE)
    prompts = Prompts(batch.tokens, batch.slots, batch.lengths)
    decoders = [
        AutoregressiveDecoder(),
        SpeculativeDecoder(FeatureDraft(str(tmp_path / "draft")), DynamicTree(3, 3, 8)),
    ]
    for sampling in (Sampling(), Sampling(1.0)):
        request = ListRequest.build(data.catalog, data.vocabulary, 3, sampling=sampling, device=DEVICE)
        with torch.compiler.set_stance("force_eager"):  # on a GPU, compiling takes minutes
            results = [one.bind(runner, request).decode(prompts, torch.Generator().manual_seed(3)) for one in decoders]
        assert torch.equal(results[0][0].tokens, results[1][0].tokens)
        assert int(results[1][1].target_passes.sum()) < int(results[0][1].target_passes.sum())


def test_a_larger_draft_starts_where_a_smaller_one_ended(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    smaller = tiny_draft(data, target_folder)
    randomise(smaller.network)
    smaller.save_pretrained(tmp_path / "smaller")
    larger = tiny_draft(
        data,
        target_folder,
        architecture=EAGLE(n_layers=3, feature_layers=(0, 1, -1)),
        initial_weights=DraftWeights(str(tmp_path / "smaller")),
    )
    batch = next(iter(data.train_dataloader()))
    losses = [fitted(draft, tmp_path, [batch]).callback_metrics["train/loss_step_3"] for draft in (smaller, larger)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=0)


def test_gradients_pass_through_the_steps_if_asked(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    batch, weights = next(iter(data.train_dataloader())), []
    for through_steps in (False, True):
        draft = tiny_draft(data, target_folder, through_steps=through_steps)
        logged = fitted(draft, tmp_path, [batch]).callback_metrics
        weights.append((float(logged["train/loss"]), draft.network.fusion.weight.detach().clone()))
    assert weights[0][0] == weights[1][0]
    assert not torch.equal(weights[0][1], weights[1][1])


def test_a_draft_of_other_features_searches_no_beams(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    tiny_draft(data, target_folder, architecture=_EAGLE3).save_pretrained(tmp_path / "draft")
    with pytest.raises(InputError, match=r"reads the target's layers \[0, 1, -1\]: expected one"):
        FeatureBeamDraft(str(tmp_path / "draft"))


@pytest.mark.parametrize(
    "description",
    [
        7,
        {},
        {"class_path": "os.system", "init_args": {"command": "true"}},
        {"class_path": "antigravity.fly", "init_args": {}},
    ],
)
def test_a_file_names_nothing_but_an_architecture(
    description: object, data: SemanticIDDataModule, target_folder: Path
) -> None:
    checkpoint = tiny_draft(data, target_folder).checkpoint()
    settings = {**checkpoint.settings, "architecture": description}
    with pytest.raises(InputError, match="expected the class path of a DraftArchitecture"):
        _ = DraftCheckpoint(settings, {}, "", data.vocabulary).architecture
    assert "antigravity" not in sys.modules, "nothing is imported for a file"


@pytest.mark.parametrize("description", [None, {**EAGLE().description, "init_args": {"n_layers": 1}}])
def test_a_draft_of_an_earlier_version_is_not_taken_for_one_of_this(
    description: object, data: SemanticIDDataModule, target_folder: Path
) -> None:
    checkpoint = tiny_draft(data, target_folder).checkpoint()
    settings = {**checkpoint.settings, "architecture": description}
    with pytest.raises(InputError, match=r"without .*: written by an earlier version, .*: train it again"):
        _ = DraftCheckpoint(settings, {}, "", data.vocabulary).architecture


def test_embeddings_are_read_at_the_scale_of_features_unless_as_published() -> None:
    config = tiny_target(SemanticIDVocabulary([4, 4])).config
    embeddings = 0.01 * torch.randn(3, config.hidden_size)
    normed, published = (
        EAGLE(normed_embeddings=on).network(config, n_slot_states=4, n_steps=2) for on in (True, False)
    )
    assert torch.equal(published.embedded(embeddings), embeddings)
    size = embeddings.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(normed.embedded(embeddings), embeddings / size, rtol=0.01, atol=0)


def test_a_draft_starts_from_one_that_reads_the_same_embeddings(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    tiny_draft(data, target_folder, architecture=EAGLE(normed_embeddings=False)).save_pretrained(tmp_path / "draft")
    weights = DraftWeights(str(tmp_path / "draft"))
    with pytest.raises(InputError, match="the initial draft has normed_embeddings False: expected True"):
        tiny_draft(data, target_folder, initial_weights=weights)


@pytest.mark.parametrize("arguments", [{"n_layers": 0}, {"feature_layers": ()}, {"feature_layers": (-2,)}])
def test_an_architecture_without_meaning_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"(n_layers|feature_layers) is .*, expected at least"):
        EAGLE(**arguments)


def test_a_layer_that_the_target_lacks_is_refused_at_once(data: SemanticIDDataModule, target_folder: Path) -> None:
    with pytest.raises(InputError, match=r"feature_layers \[2, 14, 25\] of 2 layers"):
        tiny_draft(data, target_folder, architecture=EAGLE3(feature_layers=(2, 14, 25)))
