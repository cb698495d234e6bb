"""Texts through the program itself: written, interrupted, continued, gathered in pools, and arms side by side."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from transformers import AutoModelForCausalLM

from padrec.catalog import InputError
from padrec.cli import main
from padrec.data import ItemJSON, ItemKnowledge, TextPromptBatch, TextPromptDataModule
from padrec.decoding import AutoregressiveDecoder, GeneratedText
from padrec.drafts.retrieval import PromptGroups, TokenPool
from padrec.evaluation import TextEvaluator, TextPoolBuilder, TextWriter
from padrec.evaluation.text_evaluator import marked_text
from padrec.quantization import EmbeddingSource, ItemEmbeddings
from tests.tiny_language_model import save_tiny_language_model
from tests.tiny_training import quiet_trainer
from tests.two_processes import on_two_processes

_CONF = Path(__file__).parents[1] / "conf" / "texts.yaml"
_KINDS = ("pen", "lamp")
_TREE = "expansion: {class_path: padrec.DynamicTree, init_args: {depth: 4, width: 2, nodes: 8}}"


def retrieval_arm(draft: str = "", more: str = "") -> str:
    """An arm in YAML, with arguments of its draft and more of its own."""
    named = f"draft: {{class_path: padrec.RetrievalDraft, init_args: {{{draft}}}}}"
    return f"{{class_path: padrec.SpeculativeDecoder, init_args: {{{named}, {_TREE}{more}}}}}"


@pytest.fixture(scope="module", autouse=True)
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A shop of fourteen items, and a language model."""
    folder = tmp_path_factory.mktemp("texts")
    items = {f"i{number}": {"title": f"{_KINDS[number % 2]} {number}", "brand": "Acme"} for number in range(14)}
    (folder / "shop.item.json").write_text(json.dumps(items))
    save_tiny_language_model(folder / "language-model", tie_word_embeddings=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADREC_TEST_RUNS", str(folder))
        yield folder


class TwoKinds(EmbeddingSource):
    """Items of even numbers point one way, all others another."""

    def __init__(self, n_items: int) -> None:
        self._n_items = n_items

    def embed(self) -> ItemEmbeddings:
        vectors = torch.eye(2).repeat(self._n_items, 1)[: self._n_items]
        return ItemEmbeddings([f"i{number}" for number in range(self._n_items)], vectors)


def data_of(runs: Path, **arguments: Any) -> TextPromptDataModule:
    prompts = ItemKnowledge(ItemJSON(str(runs / "shop.item.json")), "<|user|>{title} by {brand}: ")
    return TextPromptDataModule(prompts, str(runs / "language-model"), **{"batch_size": 3, **arguments})


def write(path: Path, *arguments: str) -> None:
    """`padrec predict`."""
    writer = ["--trainer.callbacks+=padrec.TextWriter", f"--trainer.callbacks.init_args.path={path}"]
    name = f"--trainer.logger.init_args.name={path.stem}"
    main(["predict", f"--config={_CONF}", *writer, name, *arguments])


def predict(path: Path, *arguments: str) -> list[dict[str, Any]]:
    """The lines that `padrec predict` writes."""
    write(path, *arguments)
    return lines(path)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_a_line_holds_key_text_tokens_and_their_probability(runs: Path, tmp_path: Path) -> None:
    rows = predict(tmp_path / "texts.jsonl")
    data = data_of(runs)
    assert [row["key"] for row in rows] == list(data.user_keys)
    model = AutoModelForCausalLM.from_pretrained(runs / "language-model", dtype=torch.float64)
    for row, prompt in list(zip(rows, data.tokenized(data.texts), strict=True))[:4]:
        tokens = torch.tensor([prompt + row["tokens"]])
        with torch.inference_mode():
            log_probs = model(tokens).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        written = tokens[0, len(prompt) :]
        assert torch.equal(log_probs.argmax(-1), written)
        assert row["log_probability"] == pytest.approx(float(log_probs.gather(1, written[:, None]).sum()), abs=1e-3)
        assert row["text"] == data.text(written)


@pytest.mark.parametrize("temperature", ["0.0", "1.0"])
def test_an_interrupted_run_continues_without_repeating_or_losing_a_text(
    temperature: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled = f"--model.init_args.temperature={temperature}"
    expected = predict(tmp_path / "whole.jsonl", sampled)
    seen: list[int] = []
    plain = TextEvaluator.predict_step

    def watched(self: TextEvaluator, batch: TextPromptBatch, batch_idx: int) -> GeneratedText:
        if len(seen) == 6:
            raise KeyboardInterrupt
        seen.extend(batch.users.tolist())
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(TextEvaluator, "predict_step", watched)
    path = tmp_path / "texts.jsonl"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        predict(path, sampled)
    assert not path.exists()
    part = path.with_name("texts.jsonl.parts") / "process-0.jsonl"
    whole = part.read_bytes()
    part.write_bytes(whole + b'{"key": "i6", "te')  # what a kill in the middle of a write leaves
    with pytest.raises(SystemExit):
        predict(path, sampled, "--model.init_args.max_tokens=7")
    seen.append(-1)
    assert predict(path, sampled) == expected
    assert seen == [*range(6), -1, *range(6, 14)]
    assert not part.parent.exists()
    with pytest.raises(SystemExit):
        predict(path, sampled)  # nothing is overwritten


def test_a_run_that_is_interrupted_after_its_last_text_still_gets_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: TextWriter, trainer: Trainer, pl_module: LightningModule) -> None:
        raise KeyboardInterrupt

    expected = predict(tmp_path / "whole.jsonl")
    path = tmp_path / "texts.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(TextWriter, "on_predict_end", interrupted)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            predict(path)
    assert predict(path) == expected


def write_share(rank: int, runs: Path, path: Path, *arguments: str) -> None:
    os.environ["PADREC_TEST_RUNS"] = str(runs)
    write(path, *arguments, "--trainer.devices=2", "--trainer.strategy=ddp")


def test_two_processes_write_the_texts_of_one(runs: Path, tmp_path: Path) -> None:
    odd = "--data.init_args.max_prompts=13"  # one row of the second process does not count
    alone = predict(tmp_path / "alone.jsonl", odd)
    on_two_processes(write_share, runs, tmp_path / "shared.jsonl", odd)
    shared = lines(tmp_path / "shared.jsonl")
    for row, expected in zip(shared, alone, strict=True):
        assert row == expected | {"log_probability": pytest.approx(expected["log_probability"], abs=1e-4)}


def test_parts_of_other_texts_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.jsonl.parts").mkdir()
    (tmp_path / "texts.jsonl.parts" / "made_of.json").write_text('{"prompts": "others", "arm": "autoregressive"}')
    with pytest.raises(SystemExit):
        predict(tmp_path / "texts.jsonl")
    assert "texts of another prompts, fingerprint" in capsys.readouterr().err


def test_arms_write_the_texts_of_the_reference_from_pools_of_other_answers(runs: Path, tmp_path: Path) -> None:
    rows = predict(tmp_path / "first.jsonl", "--data.init_args.half=first")
    data = data_of(runs, half="second")
    assert not {row["key"] for row in rows} & set(data.user_keys)
    pool = TextPoolBuilder(data, [str(tmp_path / "first.jsonl")], str(tmp_path / "pool"), 2, TwoKinds(14)).run()
    assert pool.settings == {"own_answers": False, "refused": 0, "grouped_by": "TwoKinds"}
    assert len(pool.texts.lengths) <= 7
    pooled = f"pool: {tmp_path / 'pool'}"
    arms = {
        "autoregressive": "{class_path: padrec.AutoregressiveDecoder}",
        "own-exact": retrieval_arm(),
        "groups-exact": retrieval_arm(pooled),
        "groups-relaxed": retrieval_arm(pooled, ", verification: {class_path: padrec.RelaxedVerification}"),
        "transformers": "{class_path: padrec.TransformersDecoder}",
    }
    given = "{" + ", ".join(f"{name}: {arm}" for name, arm in arms.items()) + "}"
    name = f"--trainer.logger.save_dir={tmp_path}"
    main(["test", f"--config={_CONF}", f"--model.init_args.arms={given}", "--data.init_args.half=second", name])
    report = json.loads((tmp_path / "texts" / "report.json").read_text())
    assert (report["users"], report["max_tokens"], report["dataset"]) == (7, 24, "shop.item.json")
    found = report["arms"]
    for exact in ("autoregressive", "own-exact", "groups-exact", "transformers"):
        assert found[exact]["identical_texts"] == 1
        assert found[exact]["tokens"] == found["autoregressive"]["tokens"]
    assert found["groups-exact"]["target_passes"] < found["autoregressive"]["target_passes"]
    assert "identical" in (tmp_path / "texts" / "report.md").read_text()
    assert "ndcg@10" not in found["autoregressive"]


def test_prompt_lookup_of_transformers_writes_the_same_texts(runs: Path, tmp_path: Path) -> None:
    lookup = "{class_path: padrec.TransformersDecoder, init_args: {prompt_lookup_tokens: 4}}"
    few = ("--data.init_args.max_prompts=3", "--data.init_args.batch_size=1")
    expected = predict(tmp_path / "expected.jsonl", *few)
    found = predict(tmp_path / "lookup.jsonl", *few, f"--model.init_args.arms={{lookup: {lookup}}}")
    for row in (*expected, *found):
        row.pop("log_probability")
    assert found == expected


def test_answers_of_evaluated_prompts_do_not_enter_a_pool(runs: Path, tmp_path: Path) -> None:
    data = data_of(runs, half="second")
    path = tmp_path / "texts.jsonl"
    lines = [{"key": key, "tokens": [5, number]} for number, key in enumerate(data_of(runs).user_keys)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    pool = TextPoolBuilder(data, [str(path)], str(tmp_path / "pool")).run()
    kept = {int(token) for token in pool.texts.tokens[2::4]}
    evaluated = {number for number, line in enumerate(lines) if line["key"] in data.user_keys}
    assert kept == set(range(14)) - evaluated
    assert pool.settings == {"own_answers": False, "refused": 7}
    leaking = TextPoolBuilder(data, [str(path)], str(tmp_path / "leaking"), own_answers=True).run()
    assert len(leaking.texts.lengths) == 14
    assert TokenPool.load(tmp_path / "leaking").settings["own_answers"]
    only = tmp_path / "only.jsonl"
    only.write_text(json.dumps(lines[min(evaluated)]) + "\n")
    with pytest.raises(InputError, match="only answers of evaluated prompts, expected some of others"):
        TextPoolBuilder(data, [str(only)], str(tmp_path / "none")).run()
    for tokens in ("null", "[]", "[1.5]", '["a"]', "[3, -1]"):
        only.write_text(f'{{"key": "i0", "tokens": {tokens}}}\n')
        with pytest.raises(InputError, match=r"only.jsonl, line 1: key 'i0' and tokens "):
            TextPoolBuilder(data, [str(only)], str(tmp_path / "none")).run()


def test_prompts_that_show_alike_items_form_a_group(runs: Path, tmp_path: Path) -> None:
    items = {
        f"i{number}": {"title": f"{('fountain pen', 'glass lamp')[number % 2]} {number // 7}"} for number in range(14)
    }
    (tmp_path / "shop.item.json").write_text(json.dumps(items))
    prompts = ItemKnowledge(ItemJSON(str(tmp_path / "shop.item.json"), ["title"]), "{title}: ")
    data = TextPromptDataModule(prompts, str(runs / "language-model"), max_prompts=1)
    path = tmp_path / "texts.jsonl"
    lines = [{"key": key, "tokens": [int(key[1:]) + 1]} for key in items if key not in data.user_keys]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    texts = TextPoolBuilder(data, [str(path)], str(tmp_path / "pool"), 2, TwoKinds(14)).run().texts
    kinds = [(token - 1) % 2 for token in texts.tokens[1::3].tolist()]
    assert len(kinds) == 13
    assert len(set(zip(kinds, texts.groups.tolist(), strict=True))) == len(set(texts.groups.tolist())) == 2
    groups = PromptGroups.of_pool(TokenPool.load(tmp_path / "pool"), torch.device("cpu"))
    assert groups is not None
    (asked,) = data.test_dataloader()
    of_kind = texts.groups[kinds.index(int(data.user_keys[0][1:]) % 2)]
    assert groups.of(asked.tokens, asked.lengths).tolist() == [int(of_kind)], "the prompt alone tells its group"
    with pytest.raises(InputError, match="no vector of item 'i13', expected one of every item"):
        TextPoolBuilder(data, [str(path)], str(tmp_path / "none"), 2, TwoKinds(13)).run()
    with pytest.raises(InputError, match="n_groups 2 without embeddings"):
        TextPoolBuilder(data, [str(path)], str(tmp_path / "none"), 2)


def test_runs_of_drafted_tokens_are_bold(runs: Path) -> None:
    data = data_of(runs)
    tokens = torch.tensor(data.tokenizer("a <b> c")["input_ids"])
    drafted = torch.tensor([False] * 2 + [True] * (len(tokens) - 2))
    found = marked_text(data, tokens, drafted)
    assert found.count("<b>") == found.count("</b>") == 1
    assert found.replace("<b>", "").replace("</b>", "") == "a &lt;b> c"
    assert "<b>" not in marked_text(data, tokens, None)


def test_a_second_comparison_has_the_weights_as_they_were_read(runs: Path, tmp_path: Path) -> None:
    evaluator = TextEvaluator(str(runs / "language-model"), {"autoregressive": AutoregressiveDecoder()}, max_tokens=2)
    read = [weight.clone() for weight in evaluator.load_target()[0].parameters()]
    for precision in ("bf16-true", "32-true"):
        trainer = quiet_trainer(tmp_path / precision, precision=precision, limit_test_batches=1)
        trainer.test(evaluator, datamodule=data_of(runs), verbose=False)
    weights = list(evaluator.load_target()[0].parameters())
    assert all(torch.equal(now, before) for now, before in zip(weights, read, strict=True))


def test_a_stop_token_must_be_a_token(runs: Path) -> None:
    with pytest.raises(InputError, match=r"stop \['<nothing>'\]: expected tokens of the language model, such as"):
        TextEvaluator(str(runs / "language-model"), {"a": AutoregressiveDecoder()}, stop=["<nothing>"])
