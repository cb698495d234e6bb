#!/usr/bin/env bash
# Targets and drafts of one or all data sets on a GPU: run.sh [beauty|games|leave_one_out …]. Needs the data, see
# data.yaml. What is finished is not done again, and drafts go on after their last epoch. SEEDS and OBJECTIVES say which
# drafts are trained, EPOCHS how long, JOBS how many of them side by side, RUNS where they go; SIZE=small trains the small
# models, on a CPU in minutes, SIZE=rehearsal models of one layer for one step.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
command -v padrec >/dev/null || padrec() { python -m padrec "$@"; }
configs=experiments/atspeed runs=${RUNS:-runs/atspeed}
read -r -a seeds <<<"${SEEDS:-0}"
read -r -a objectives <<<"${OBJECTIVES:-top_k_alignment total_variation word_kd tvd_kd seq_kd}"
target_size=() draft_size=()
case ${SIZE:-} in
  small) target_size=(--config $configs/small_target.yaml) draft_size=(--config $configs/small.yaml) ;;
  rehearsal)
    target_size=(--config $configs/rehearsal.yaml --model.init_args.backbone.num_hidden_layers 1)
    draft_size=("${target_size[@]}")
    ;;
esac
[ -z "${EPOCHS:-}" ] || draft_size+=(--trainer.max_epochs "$EPOCHS" --trainer.check_val_every_n_epoch "$EPOCHS")

fit() { # data set, run, configs
  local results=$runs/$1 overlay=() resumed=()
  [ "$1" = beauty ] || overlay=(--config "$configs/$1.yaml")
  [ ! -e "$results/$2/finished" ] || return 0
  [ ! -e "$results/$2/checkpoints/last.ckpt" ] || resumed=(--ckpt_path "$results/$2/checkpoints/last.ckpt")
  padrec fit "${@:3}" "${overlay[@]}" "${resumed[@]}" --trainer.logger.init_args.save_dir "$results" \
    --trainer.logger.init_args.name "$2"
  touch "$results/$2/finished"
}

[ $# -gt 0 ] || set -- beauty games leave_one_out
for data in "$@"; do
  fit "$data" target --config $configs/target.yaml "${target_size[@]}"
  for seed in "${seeds[@]}"; do
    for objective in "${objectives[@]}"; do
      fit "$data" "seed-$seed/$objective" --config $configs/draft.yaml --config $configs/$objective.yaml \
        "${draft_size[@]}" --model.init_args.target "$runs/$data/target/checkpoints/best.ckpt" \
        --seed_everything "$seed" --model.init_args.seed "$seed" --data.init_args.seed "$seed" &
      [ "$(jobs -r | wc -l)" -lt "${JOBS:-1}" ] || wait -n
    done
  done
  wait
done
