#!/usr/bin/env bash
# All speed measurements on one GPU, or the parts that are named: engine, profile, assistant, evaluate, batches.
# `evaluate` and `batches` need the models of experiments/beauty/run.sh and of `assistant`. Arguments after -- go to every
# command of the part: run.sh engine -- --batches '[1]' --repeats 5
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
configs=experiments/speed results=runs/speed

parts=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  parts+=("$1")
  shift
done
[ $# -eq 0 ] || shift
[ ${#parts[@]} -gt 0 ] || parts=(engine profile assistant evaluate batches)

for part in "${parts[@]}"; do
  case $part in
    engine) # a report for each target: what one costs is not lost when another fails
      for shape in 28x1024 16x2048 32x4096; do
        python -m experiments.speed.engine --output "$results/engine/$shape" --shapes "[$shape]" "$@"
      done
      ;;
    profile) python -m experiments.speed.round_profile --output "$results/profile" "$@" ;;
    assistant) padrec fit --config $configs/assistant.yaml "$@" ;;
    evaluate)
      for overlay in "" sampled temperatures batch32 transformers; do
        padrec test --config $configs/evaluate.yaml ${overlay:+--config "$configs/$overlay.yaml"} "$@"
      done
      ;;
    batches) # the tree that is chosen for every number of users, and what it gains
      for size in 1 2 4 8 16 32 64; do
        padrec test --config $configs/evaluate.yaml --config $configs/batch32.yaml --data.init_args.max_users 256 \
          --data.init_args.eval_batch_size "$size" --trainer.logger.init_args.name "batches/$size" "$@"
      done
      ;;
    *)
      echo "$part: expected engine, profile, assistant, evaluate or batches" >&2
      exit 2
      ;;
  esac
done
