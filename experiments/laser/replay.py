"""How many tokens a round accepts from pools, where the texts that exact greedy decoding writes are known already.

    python -m experiments.laser.replay --data experiments/laser/knowledge_users_data.yaml --data.init_args.half second \
        --texts users.jsonl --pools "{global: global.pool, behaviour: behaviour.pool}" --output runs/laser/replay

Nothing is decoded, so it needs no GPU, and a minute rather than an hour. `--data` are the evaluated prompts; those
whose texts the file lacks are left out.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from experiments.laser.retrieval import small_runner
from experiments.study import check_positive, circumstances, report_markdown, with_interval
from padrec import InputError, Prompts, RetrievalDraft, RetrievalTree, TextPromptDataModule
from padrec.cli.one_message_parser import call_configured
from padrec.data.tokenizer import n_tokens
from padrec.decoding import DraftPlan, Observation, TextRequest, TokenTree, TreeContext, TreeOperations
from padrec.evaluation.pool_builder import written_texts
from padrec.evaluation.report import check_writable, markdown_table, write_report
from padrec.metrics import paired_bootstrap_speedup

_ROWS = 32  # at a time


def measure(
    output: Path,
    data: TextPromptDataModule,
    texts: Path,
    pools: Mapping[str, Path],
    depth: int = 10,
    nodes: int = 32,
) -> None:
    """Replay the texts of evaluated prompts with each pool; writes report.json and report.md.

    Args:
        output: folder of the report, new or without one.
        data: the evaluated prompts.
        texts: what `TextWriter` wrote for them by exact greedy decoding.
        pools: files of pools by name; the first is what the others are compared with.
        depth: of the trees.
        nodes: of the trees.

    Raises:
        InputError: a wrong file, no text of an evaluated prompt, or a report that is already there.
    """
    check_positive(depth=[depth], nodes=[nodes])
    check_writable(output)
    written = dict(written_texts(texts))
    keys = [key for key in data.user_keys if key in written]
    if not keys:
        raise InputError(f"{texts}: no text of an evaluated prompt, expected some")
    prompts, answers = data.tokenized(data.prompts_of(keys).texts), [written[key] for key in keys]
    lengths = torch.tensor([len(answer) - 1 for answer in answers], dtype=torch.float64)
    content = circumstances("experiments.laser.replay", torch.device("cpu"), torch.float32, 0)
    content |= {"dataset": data.dataset_name, "prompts": len(keys), "tokens": int(lengths.sum()), "pools": {}}
    content |= {"depth": depth, "nodes": nodes}
    reference: Tensor | None = None
    for name, path in pools.items():
        draft, expansion = RetrievalDraft(str(path)), RetrievalTree(depth, nodes)
        passes = passes_of(draft, expansion, prompts, answers, n_tokens(data.tokenizer))
        reference = passes if reference is None else reference
        tau, interval = paired_bootstrap_speedup(lengths, passes)
        ratio, ratio_interval = paired_bootstrap_speedup(reference, passes)
        numbers = {"acceptance_length": tau, "acceptance_length_ci95": interval}
        content["pools"][name] = numbers | {"ratio": ratio, "ratio_ci95": ratio_interval} | draft.facts["pool"]
    write_report(output, content, _markdown(content))


@torch.inference_mode()
def passes_of(
    draft: RetrievalDraft,
    expansion: RetrievalTree,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    vocabulary_size: int,
) -> Tensor:
    """The target passes after the prefill that exact greedy decoding of each answer takes, float64 `[n]`."""
    runner, request = small_runner(vocabulary_size, torch.device("cpu")), TextRequest(vocabulary_size, 1)
    opener, found = draft.bind(runner, request), []
    longest = max(map(len, prompts)) + max(map(len, answers)) + expansion.depth
    for start in range(0, len(prompts), _ROWS):
        asked = [torch.tensor(prompt) for prompt in prompts[start : start + _ROWS]]
        texts = [list(answer) for answer in answers[start : start + _ROWS]]
        lengths = torch.tensor([len(prompt) for prompt in asked])
        tokens, root = pad_sequence(asked, batch_first=True), torch.tensor([text[0] for text in texts])
        session = opener(DraftPlan(runner, request, len(asked), longest, expansion.draft_rows, expansion.depth))
        session.begin(Prompts(tokens, torch.zeros_like(tokens), lengths), torch.empty(0), root, torch.zeros_like(root))
        state = request.constraint.initial(len(asked), root.device)
        choice = request.sampling.choice(lengths, lengths, vocabulary_size, 1)
        at, passes = torch.ones_like(lengths), torch.zeros_like(lengths)
        while bool((at < torch.tensor([len(text) for text in texts])).any()):
            context = TreeContext(root, state, request.constraint, choice, session, TreeOperations())
            emitted = _emitted(expansion.expand(context), texts, at.tolist())
            count = torch.tensor([len(new) for new in emitted])
            new = pad_sequence([torch.tensor(new, dtype=torch.long) for new in emitted], batch_first=True)
            session.observe(Observation(new, new, new, count, torch.empty(len(asked), 0, 0)))
            at, passes = at + count, passes + (count > 0)
            root = torch.tensor([text[place - 1] for text, place in zip(texts, at.tolist(), strict=True)])
        found.append(passes)
    return torch.cat(found).double()


def _emitted(tree: TokenTree, texts: Sequence[Sequence[int]], at: Sequence[int]) -> list[list[int]]:
    """What a round adds to the first tokens of each text: the longest path of the tree, and the target's own token."""
    emitted = []
    rows = zip(tree.tokens.tolist(), tree.parents.tolist(), tree.present.tolist(), texts, at, strict=True)
    for tokens, parents, present, text, place in rows:
        children = {(parents[node], tokens[node]): node for node in range(1, len(tokens)) if present[node]}
        node, end = 0, place
        while end < len(text) and (next_node := children.get((node, text[end]))) is not None:
            node, end = next_node, end + 1
        emitted.append(list(text[place : end + 1]))
    return emitted


def _markdown(content: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            str(found["groups"]),
            f"{found['tokens']:,}",
            *(with_interval(found, key, ".2f") for key in ("acceptance_length", "ratio")),
        ]
        for name, found in content["pools"].items()
    ]
    title = f"# Acceptance lengths from pools, {content['dataset']}"
    about = (
        f"{content['prompts']:,} prompts with {content['tokens']:,} tokens after the first one of each, trees of "
        f"{content['nodes']} nodes, depth {content['depth']}. Ratio: passes from the first pool ÷ from this one. "
        "Intervals over prompts."
    )
    table = markdown_table(["pool", "groups", "tokens", "τ (95 %)", "ratio (95 %)"], rows)
    return report_markdown(content, title, about, table)


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    try:
        call_configured("replay", measure, sys.argv[1:] if arguments is None else arguments, sub_configs=True)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
