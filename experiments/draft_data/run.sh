#!/usr/bin/env bash
# Should a draft learn from what users did as well, or from its target's lists alone? Two fits of 250 steps, on a CPU.
# Needs the `padrec` command on the PATH, and the target that `LISTS=pair ../quality/run.sh lists` trains.
set -euo pipefail
cd "$(dirname "$0")/../.."
configs=experiments/draft_data results=runs/draft-data

lists() { # name, temperature
  padrec predict --config experiments/draft_batches/lists.yaml --config experiments/quality/ids/pair.yaml \
    --ckpt_path runs/quality/list-pair-2/checkpoints/best.ckpt --model.init_args.temperature "$2" \
    --data.init_args.max_users 8000 \
    --trainer.callbacks "[{class_path: padrec.RecommendationWriter, init_args: {path: $results/$1.jsonl}}]"
}

fit() { # name, more arguments
  padrec fit --config $configs/draft.yaml --trainer.logger.init_args.name "$@"
}

lists greedy 0
lists sampled 1
fit mixed
fit lists --config $configs/lists_alone.yaml
padrec test --config $configs/evaluate.yaml
cat $results/evaluate/report.md
