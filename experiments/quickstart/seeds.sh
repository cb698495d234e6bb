#!/usr/bin/env bash
# What the seed of a draft's training does to its acceptance length. Run it after run.sh, whose target and drafts it takes.
set -euo pipefail
cd "$(dirname "$0")/../.."
configs=experiments/quickstart

for seed in 1 2; do
  for draft in hass padrec; do
    padrec fit --config $configs/draft.yaml --config $configs/$draft.yaml --trainer.logger.init_args.name $draft-$seed \
      --seed_everything $seed --data.init_args.seed $seed
  done
done
padrec test --config $configs/evaluate.yaml --config $configs/seeds.yaml
