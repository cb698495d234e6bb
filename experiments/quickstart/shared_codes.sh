#!/usr/bin/env bash
# What positions are worth where a token does not tell its own: the quickstart's job with one set of code tokens for all
# slots and a smaller catalog; HASS, PAD-Rec, PAD-Rec with either half alone, and drafts with one pass an item without and
# with the position-aware part, three seeds each. Needs the `padrec` command on the PATH.
#
# What is finished is not done again; remove runs/shared-codes to start over.
set -euo pipefail
cd "$(dirname "$0")/../.."
configs=experiments/quickstart results=runs/shared-codes

fit() { # name, then arguments
  local checkpoint=$results/$1/checkpoints/last.ckpt
  [ ! -e "$results/$1/finished" ] || return 0
  padrec fit "${@:2}" --data.init_args.shared_codes true --data.init_args.reader.init_args.n_items 300 \
    --data.init_args.reader.init_args.codebook_sizes "[12, 12, 12, 12]" --trainer.logger.init_args.save_dir $results \
    --trainer.logger.init_args.name "$1" $([ ! -e "$checkpoint" ] || echo "--ckpt_path $checkpoint")
  touch "$results/$1/finished"
}

draft() { # name, then arguments
  fit "$1" --config $configs/draft.yaml "${@:2}" --model.init_args.target $results/target/checkpoints/last.ckpt
}

fit target --config $configs/target.yaml
draft base --config $configs/base.yaml
for seed in 0 1 2; do
  while read -r name form; do
    network=()
    [[ $name != item* ]] || network=(--config experiments/base_drafts/item.yaml)
    draft "$name-$seed" "${network[@]}" --seed_everything $seed --data.init_args.seed $seed \
      --model.init_args.position_aware "$form" \
      --model.init_args.initial_weights.init_args.path $results/base/checkpoints/last.ckpt </dev/null
  done <<<"hass null
slots {steps: null}
steps {slots: null}
padrec {}
item null
item-padrec {}"
done
padrec test --config $configs/evaluate.yaml --config $configs/shared_codes.yaml
cat $results/evaluate/report.md
