from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from padrec.catalog import Catalog
from padrec.data import PromptBatch
from padrec.evaluation.figures import comparison_figures, write_figures
from padrec.evaluation.report import main_metrics
from padrec.evaluation.tensorboard import SampleLists, log_report, sample_lists_markdown
from tests.evaluation.toy_comparison import toy_metrics, toy_report, toy_results

# Items 2 and 3 share a leaf; leaves are numbered 0, 1, 2, 3 in the order of the items.
CODES = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 0], [2, 0]])
KEYS = ("i0", "i1", "i2", "i3", "i4")
TITLES = ("Lip | balm", "", "Soap <b>", "Soap bar", "x" * 100)


def toy_samples(users: int = 2) -> SampleLists:
    unused = torch.zeros(users, 1, dtype=torch.long)
    prompts = PromptBatch(
        tokens=unused,
        slots=unused,
        lengths=torch.ones(users, dtype=torch.long),
        users=torch.arange(users),
        history=torch.tensor([[0, 1, 2, 3, 4, 0], [4, -1, -1, -1, -1, -1]]).repeat(users, 1)[:users],
        relevant=torch.tensor([[1, -1]]).expand(users, 2),
        relevant_items=torch.tensor([[1, -1]]).expand(users, 2),
        counted=torch.ones(users, dtype=torch.bool),
    )
    first = torch.tensor([[1, 2], [0, -1]]).repeat(users, 1)[:users]
    return SampleLists(prompts, {"autoregressive": first, "padrec": first.clone(), "transformers": first.flip(1)})


def toy_catalog(texts: tuple[str, ...] | None = TITLES) -> Catalog:
    return Catalog(CODES, KEYS, texts)


def logged(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_figures(comparison_figures(toy_results()), tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, figures: dict[str, Path]) -> Path:
    """What TensorBoard reads of a comparison."""
    logger = TensorBoardLogger(tmp_path_factory.mktemp("board"), default_hp_metric=False)
    settings = {"target": "runs/target", "temperature": 0.0, "top_k": None}
    log_report(
        [logger],
        toy_report(),
        figures,
        {"test/sample_lists": sample_lists_markdown([toy_samples()], toy_catalog())},
        settings,
    )
    logger.finalize("success")
    return Path(logger.log_dir)


def test_figures_and_texts_are_logged(folder: Path, figures: dict[str, Path]) -> None:
    events = logged(folder)
    tags = events.Tags()
    assert set(tags["images"]) == {f"test/{name}" for name in figures}
    assert {"speedup", "acceptance/padrec"} <= set(figures)
    report = events.Tensors("test/report/text_summary")[0].tensor_proto.string_val[0].decode()
    assert report == toy_report().markdown()
    lists = events.Tensors("test/sample_lists/text_summary")[0].tensor_proto.string_val[0].decode()
    assert lists.count("### User") == 2
    assert tags["scalars"] == []


def test_every_arm_is_a_run_with_the_same_tags(folder: Path) -> None:
    main = {f"test/{name}" for name in main_metrics(toy_metrics(1.0, 0))}
    assert len(main) == 4, "with the fits' epoch as many as HParams shows"
    padrec, reference = logged(folder / "padrec"), logged(folder / "autoregressive")
    assert set(reference.Tags()["scalars"]) == set(padrec.Tags()["scalars"]) == main
    assert padrec.Scalars("test/speedup")[0].value == 2.5


def test_what_an_arm_draws_on_takes_no_column_of_hparams(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    pool = {"texts": 9, "tokens": 90, "groups": 1, "online": False, "own_answers": None}
    facts = {"pool": pool, "accepted_by": {"retrieval": 3}}
    log_report([logger], toy_report(arms={"a": toy_metrics(1.0, 0) | facts}), {}, {})
    logger.finalize("success")
    found = logged(Path(logger.log_dir))
    names = ("accepted_by/retrieval", "pool/texts", "pool/tokens", "pool/groups", "pool/online")
    assert set(found.Tags()["scalars"]) == {f"test/{name}/a" for name in names}
    assert found.Scalars("test/pool/texts/a")[0].value == 9


def test_every_arm_has_a_row_in_hparams(folder: Path) -> None:
    metadata = logged(folder / "padrec").summary_metadata
    data = plugin_data_pb2.HParamsPluginData()
    data.ParseFromString(metadata["_hparams_/session_start_info"].plugin_data.content)
    hyperparameters = data.session_start_info.hparams
    assert hyperparameters["arm"].string_value == "padrec"
    assert hyperparameters["target"].string_value == "runs/target"
    assert hyperparameters["batch_size"].number_value == 4
    # The columns of one run would be those of all.
    assert "_hparams_/experiment" not in metadata


def test_the_layout_groups_charts(folder: Path) -> None:
    layout = layout_pb2.Layout()
    layout.ParseFromString(logged(folder).Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == ["Training", "Validation"]
    assert list(layout.category[0].chart[0].multiline.tag) == [r"train/loss$"]


def test_other_loggers_get_all_numbers(tmp_path: Path, figures: dict[str, Path]) -> None:
    csv = CSVLogger(tmp_path)
    log_report([csv], toy_report(), figures, {})
    csv.save()
    header, row = (Path(csv.log_dir) / "metrics.csv").read_text().splitlines()
    found = dict(zip(header.split(","), row.split(","), strict=True))
    assert {name: float(found[name]) for name in toy_report().scalars()} == pytest.approx(toy_report().scalars())


def test_sample_lists_show_titles_and_merge_arms_that_agree() -> None:
    found = sample_lists_markdown([toy_samples()], toy_catalog())
    assert r"History: 1 earlier, i1; Soap &lt;b>; Soap bar; " + "x" * 79 + r"…; Lip \| balm" in found
    assert "Ground truth: i1" in found
    assert "| rank | autoregressive, padrec | transformers |" in found
    assert "| 1 | **i1** | Soap &lt;b> (or 1 more) |" in found
    assert "| 2 | no such item | Lip \\| balm |" in found


def test_items_without_titles_show_their_keys() -> None:
    assert "| 1 | **i1** | i2 (or 1 more) |" in sample_lists_markdown([toy_samples()], toy_catalog(texts=None))


def test_only_a_few_users_that_count_are_shown() -> None:
    samples = toy_samples(users=6)
    samples.prompts.counted[1] = False
    found = sample_lists_markdown([samples, toy_samples()], toy_catalog(), n_users=6)
    assert found.count("### User") == 6
    assert found.count("no such item") == 4  # users 3 and 5, in both columns
    assert sample_lists_markdown([], toy_catalog()) == ""
