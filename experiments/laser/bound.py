"""Whether a pool keeps within its bound of memory over many insertions.

From the repository's root: python -m experiments.laser.bound --output runs/laser/bound
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from experiments.study import check_positive, circumstances, report_markdown, resident_bytes, run_command
from padrec import TokenPool
from padrec.evaluation.report import check_writable, markdown_table, write_report

_SAMPLES = 20


def measure(
    output: Path,
    insertions: int = 1_000_000,
    text_tokens: int = 50,
    max_tokens: int = 1_000_000,
    vocabulary: int = 1_000,
    seed: int = 0,
) -> None:
    """Insert random texts one by one, and credit some of those that are kept; writes report.json and report.md.

    Args:
        output: folder of the report, new or without one.
        insertions: texts that are added.
        text_tokens: tokens of each.
        max_tokens: bound of the pool.
        vocabulary: of the texts.
        seed: of the texts.

    Raises:
        InputError: a size below 1, or a report that is already there.
    """
    check_positive(insertions=[insertions], text_tokens=[text_tokens], max_tokens=[max_tokens], vocabulary=[vocabulary])
    check_writable(output)
    content = circumstances("experiments.laser.bound", torch.device("cpu"), torch.float32, seed)
    content |= {"insertions": insertions, "text_tokens": text_tokens, "max_tokens": max_tokens}
    pool, generator = TokenPool(max_tokens), torch.Generator().manual_seed(seed)
    rows, seconds, most = [], 0.0, 0
    step = max(1, insertions // _SAMPLES)
    for first in range(0, insertions, step):
        texts = torch.randint(vocabulary, (min(step, insertions - first), text_tokens), generator=generator).tolist()
        start = time.perf_counter()
        for text in texts:
            pool.add(text)
            most = max(most, len(pool.settled.tokens) + pool.waiting)
        kept = len(pool.texts.tokens)
        seconds += time.perf_counter() - start
        pool.credit(torch.randint(2, (len(pool.settled.lengths),), generator=generator))
        rows.append({"inserted": first + len(texts), "tokens": kept, "megabytes": resident_bytes() / 1e6})
    content |= {"seconds": seconds, "most_tokens_with_waiting": most, "samples": rows}
    write_report(output, content, _markdown(content))


def _markdown(content: Mapping[str, Any]) -> str:
    rows = [[f"{row['inserted']:,}", f"{row['tokens']:,}", f"{row['megabytes']:.0f}"] for row in content["samples"]]
    title = f"# A pool of {content['max_tokens']:,} tokens under {content['insertions']:,} insertions"
    each = content["seconds"] / content["insertions"] * 1e6
    about = (
        f"Texts of {content['text_tokens']} tokens, {each:.1f} µs for each; "
        f"at most {content['most_tokens_with_waiting']:,} tokens with those that wait."
    )
    table = markdown_table(["texts inserted", "tokens kept", "memory of the process (MB)"], rows)
    return report_markdown(content, title, about, table)


if __name__ == "__main__":
    run_command(measure)
