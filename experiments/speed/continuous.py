"""Lists per second where finished rows begin other lists, and where a batch waits for its slowest list.

From the repository's root, behind `make quickstart`:
python -m experiments.speed.continuous --output runs/speed/continuous --data experiments/quickstart/data.yaml
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.speed.timing import Timing, Work, interleaved_seconds
from experiments.study import check_positive, chosen_device, circumstances, circumstances_markdown, run_command
from padrec import (
    BatchwiseDecoder,
    DynamicTree,
    FeatureDraft,
    InputError,
    ListRequest,
    Prompts,
    Sampling,
    SemanticIDDataModule,
    SpeculativeDecoder,
    TargetRecommender,
    TransformersRunner,
)
from padrec.decoding import Decoder, TokenTree
from padrec.evaluation.report import check_writable, markdown_table, write_report
from padrec.targets import to_precision


class _CountingRunner(TransformersRunner):
    """Counts the passes that the host asks for."""

    passes = 0

    def verify(self, tree: TokenTree) -> tuple[Tensor, Tensor]:
        self.passes += 1
        return super().verify(tree)


@dataclass(frozen=True)
class _Stream:
    """Prompts that wait to be decoded, and what decodes them."""

    runner: _CountingRunner
    request: ListRequest
    prompts: Prompts

    def decode(self, decoder: Decoder) -> tuple[Tensor, Tensor]:
        """Tokens `[N, T]` and passes `[N]` of all lists."""
        generator = torch.Generator().manual_seed(0)
        lists, trace = decoder.decode(self.runner, self.prompts, self.request, generator)
        return lists.tokens, trace.target_passes


def measure(
    output: Path,
    data: SemanticIDDataModule,
    target: str = "runs/quickstart/target/checkpoints/last.ckpt",
    draft: str = "runs/quickstart/padrec/checkpoints/last.ckpt",
    rows: Sequence[int] = (16, 32),
    users: int = 256,
    temperature: float = 0.0,
    repeats: int = 5,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Decode the same users with as many rows, refilled and not; writes report.json and report.md.

    Args:
        output: folder of the report, new or without one.
        data: whose first test users are decoded.
        target: checkpoint or folder of the target.
        draft: checkpoint of its draft.
        rows: lists that are written at the same time; the users should be several times as many.
        users: at most.
        temperature: 0 decodes greedily.
        repeats: measurements of everything.
        device: cpu or cuda; by default a GPU where there is one.
        seed: recorded in the report; nothing but sampled lists is random, and these are always the same.

    Raises:
        InputError: a size that is too small, a wrong device, files that do not fit, or a report that is already there.
    """
    check_positive(users=[users], repeats=[repeats])
    if min(rows, default=0) < 2:
        raise InputError(f"rows {list(rows)}: expected numbers from 2")
    check_writable(output)
    place, dtype = chosen_device(device)
    recommender = TargetRecommender.load(target)
    data.vocabulary.check_same(recommender.vocabulary, f"the target {target}")
    fingerprint, model = recommender.fingerprint(), recommender.backbone.eval().requires_grad_(False)
    to_precision(model, dtype)
    runner = _CountingRunner(model.to(place), fingerprint)
    sampling = Sampling(temperature)
    request = ListRequest.build(data.catalog, data.vocabulary, data.list_length, sampling=sampling, device=place)
    stream = _Stream(runner, request, _first_prompts(data, users, place))
    content = circumstances("experiments.speed.continuous", place, dtype, seed)
    content |= {"users": len(stream.prompts.tokens), "list_length": data.list_length, "temperature": temperature}
    content["rows"] = [_compared(stream, draft, batch, repeats, place) for batch in rows]
    write_report(output, content, _markdown(content))


def _first_prompts(data: SemanticIDDataModule, users: int, device: torch.device) -> Prompts:
    batches = list(data.test_dataloader())
    width = max(batch.tokens.shape[1] for batch in batches)
    tokens, slots = (
        torch.cat([torch.nn.functional.pad(values, (0, width - values.shape[1])) for values in parts])[:users].to(
            device
        )
        for parts in ([batch.tokens for batch in batches], [batch.slots for batch in batches])
    )
    return Prompts(tokens, slots, torch.cat([batch.lengths for batch in batches])[:users].to(device))


def _compared(stream: _Stream, draft: str, rows: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """The same decoder, refilled and not, beside each other."""
    n_users = len(stream.prompts.tokens)
    lists, passes, works = {}, {}, {}
    refilled = SpeculativeDecoder(FeatureDraft(draft), DynamicTree(4, 3, 10), rows=rows)
    decoders: dict[str, Decoder] = {"batches": BatchwiseDecoder(refilled, rows), "refilled": refilled}
    refilled.prepare(stream.runner, stream.request.vocabulary)
    for kind, decoder in decoders.items():
        works[kind] = Work(partial(stream.decode, decoder))
        before = stream.runner.passes
        lists[kind], row_passes = stream.decode(decoder)
        passes[kind] = stream.runner.passes - before
    seconds = interleaved_seconds(works, device, repeats)
    return {
        "rows": rows,
        **Timing.of(n_users / seconds["batches"]).to_dict("batches_lists_per_second"),
        **Timing.of(n_users / seconds["refilled"]).to_dict("refilled_lists_per_second"),
        **Timing.of(seconds["batches"], seconds["refilled"]).to_dict("speedup"),
        # Where rounds are replayed, nobody sees their passes.
        "batches_passes": passes["batches"] if device.type == "cpu" else None,
        "refilled_passes": passes["refilled"] if device.type == "cpu" else None,
        "fewest_passes": math.ceil(int(row_passes.sum()) / rows),
        "identical_lists": float((lists["batches"] == lists["refilled"]).all(1).double().mean()),
    }


def _markdown(content: dict[str, Any]) -> str:
    header = ["rows", "batches: lists/s", "refilled: lists/s", "speedup", "passes", "refilled", "fewest", "identical"]
    table = [
        [
            str(row["rows"]),
            f"{row['batches_lists_per_second']:.1f}",
            f"{row['refilled_lists_per_second']:.1f}",
            "{:.2f} ({:.2f} – {:.2f})".format(row["speedup"], *row["speedup_ci95"]),
            *(str(row[name] or "–") for name in ("batches_passes", "refilled_passes", "fewest_passes")),
            f"{100 * row['identical_lists']:.0f} %",
        ]
        for row in content["rows"]
    ]
    settings = f"{content['users']} users, lists of {content['list_length']}, temperature {content['temperature']:g}."
    return "\n\n".join(
        ["# Continuous batching", settings, markdown_table(header, table), circumstances_markdown(content)]
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    run_command(measure, arguments)


if __name__ == "__main__":
    main()
