#!/usr/bin/env bash
# Targets and drafts of one or all data sets on a GPU: run.sh [beauty|games|leave_one_out …]. Needs the data, see
# data.yaml, and the `padrec` command on the PATH. What is finished is not done again, and drafts go on after their last
# epoch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
configs=experiments/atspeed

fit() { # data set, run, configs
  local results=runs/atspeed/$1 overlay=() resumed=()
  [ "$1" = beauty ] || overlay=(--config "$configs/$1.yaml")
  [ ! -e "$results/$2/finished" ] || return 0
  [ ! -e "$results/$2/checkpoints/last.ckpt" ] || resumed=(--ckpt_path "$results/$2/checkpoints/last.ckpt")
  padrec fit "${@:3}" "${overlay[@]}" "${resumed[@]}" --trainer.logger.init_args.save_dir "$results"
  touch "$results/$2/finished"
}

[ $# -gt 0 ] || set -- beauty games leave_one_out
for data in "$@"; do
  fit "$data" target --config $configs/target.yaml
  for objective in top_k_alignment total_variation word_kd tvd_kd seq_kd; do
    fit "$data" $objective --config $configs/draft.yaml --config $configs/$objective.yaml \
      --model.init_args.target "runs/atspeed/$data/target/checkpoints/best.ckpt"
  done
done
