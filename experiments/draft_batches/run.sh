#!/usr/bin/env bash
# Is a draft better trained by few steps of many rows or by many steps of few? Three fits of 15,360 rows each, on a CPU.
# Needs the `padrec` command on the PATH, and the target that the part `lists` of ../quality/run.sh trains.
set -euo pipefail
cd "$(dirname "$0")/../.."
configs=experiments/draft_batches results=runs/draft-batches
target=runs/quality/list-shipped-1/checkpoints/best.ckpt

lists() { # name, temperature
  padrec predict --config $configs/lists.yaml --ckpt_path $target --model.init_args.temperature "$2" \
    --trainer.callbacks "[{class_path: padrec.RecommendationWriter, init_args: {path: $results/$1.jsonl}}]"
}

fit() { # rows of a batch, batches of a step, steps, warm-up
  padrec fit --config $configs/draft.yaml --trainer.logger.init_args.name "rows-$(($1 * $2))" \
    --data.init_args.batch_size "$1" --trainer.accumulate_grad_batches "$2" --trainer.max_steps "$3" \
    --model.init_args.warmup_steps "$4"
}

lists greedy 0
lists sampled 1
fit 128 2 60 11
fit 64 1 240 43
fit 32 1 480 86
padrec test --config $configs/evaluate.yaml
cat $results/evaluate/report.md
