#!/usr/bin/env bash
# Drafts by retrieval (LASER) for lists, or the parts of the study that are named; for texts see knowledge.sh. Parts:
#
#   target lists draft   models and lists, unless they are there: ../beauty/run.sh makes better ones of Beauty, in more time
#   pools                of the lists
#   greedy sampled ablation groups batch32   evaluations
#   retrieval bound      time and memory of pools of made-up texts
#
# DATA=games takes AtSpeed's Games in place of Amazon Beauty, SIZE=small a small target on a CPU. Arguments after -- go
# to every evaluation: run.sh greedy -- --data.init_args.max_users 100
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
configs=experiments/laser beauty=experiments/beauty data=${DATA:-beauty}

parts=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  parts+=("$1")
  shift
done
[ $# -eq 0 ] || shift
[ ${#parts[@]} -gt 0 ] || parts=(target lists draft pools greedy sampled ablation groups batch32 retrieval bound)

export LASER_RUNS=${LASER_RUNS:-runs/$data}
reader=() embedded=() epochs=6 lists_size=() draft_size=(--trainer.max_epochs 2) size=()
if [ "$data" = games ]; then
  reader=(--config experiments/atspeed/games.yaml) epochs=3
  embedded=(--embeddings.init_args.reader "{class_path: padrec.AtSpeedReader, init_args: {folder: ${PADREC_DATA:-../shared/data}/atspeed/games}}")
  lists_size=(--data.init_args.max_users 20000)
fi
target_size=(--trainer.max_epochs $epochs --trainer.check_val_every_n_epoch $epochs)
if [ "${SIZE:-}" = small ]; then
  LASER_RUNS=runs/laser-small/$data target_size=(--config $beauty/tiny.yaml) draft_size=(--config $beauty/tiny_draft.yaml)
  lists_size=("${target_size[@]}" --data.init_args.max_users 6000) size=(--config $configs/small_evaluate.yaml)
fi
target=$LASER_RUNS/target/checkpoints/best.ckpt draft=$LASER_RUNS/padrec/checkpoints/last.ckpt
greedy=$LASER_RUNS/lists/greedy.jsonl sampled=$LASER_RUNS/lists/sampled.jsonl
at=(--trainer.logger.init_args.save_dir "$LASER_RUNS")
more=("${size[@]}" "$@")

lists() { # file, temperature
  [ -e "$1" ] || padrec predict --config $beauty/lists.yaml "${reader[@]}" "${lists_size[@]}" "${at[@]}" \
    --ckpt_path "$target" --model.init_args.temperature "$2" \
    --trainer.callbacks "[{class_path: padrec.RecommendationWriter, init_args: {path: $1}}]"
}

fit_draft() { # goes on after the last epoch of a fit that was interrupted
  local resumed=()
  [ ! -e "$draft" ] || resumed=(--ckpt_path "$draft")
  padrec fit --config $beauty/draft.yaml "${reader[@]}" "${draft_size[@]}" "${at[@]}" --trainer.logger.init_args.name padrec \
    --model.init_args.target "$target" --model.init_args.initial_weights null "${resumed[@]}" \
    --data.init_args.training_rows "[{class_path: padrec.GeneratedLists, init_args: {paths: [$greedy, $sampled]}}]"
}

pool() { # name, then arguments of padrec pool
  local path=$LASER_RUNS/laser/pool-$1.safetensors
  [ -e "$path" ] || padrec pool --config $configs/pool.yaml "${reader[@]}" --path "$path" "${@:2}"
}

evaluate() { # name, then arguments of padrec test
  padrec test --config $configs/evaluate.yaml "${reader[@]}" --trainer.logger.init_args.name "$1" "${@:2}" "${more[@]}"
}

wait_for_all() {
  local job
  for job in $(jobs -p); do wait "$job"; done
}

for part in "${parts[@]}"; do
  case $part in
    target) [ -e "$target" ] || padrec fit --config $beauty/target.yaml "${reader[@]}" "${target_size[@]}" "${at[@]}" ;;
    lists)
      lists "$greedy" 0 &
      lists "$sampled" 1 &
      wait_for_all
      ;;
    draft) fit_draft ;;
    pools)
      pool 8 "${embedded[@]}" &
      pool 32 "${embedded[@]}" --n_groups 32 &
      pool 1 --n_groups 1 &
      pool small --n_groups 1 --lists_per_group 500 &
      wait_for_all
      ;;
    greedy) evaluate greedy ;;
    sampled) evaluate sampled --model.init_args.temperature 1 ;;
    ablation) evaluate ablation --config $configs/ablation.yaml ;;
    groups) evaluate groups --config $configs/groups.yaml ;;
    batch32) evaluate batch32 --data.init_args.eval_batch_size 32 ;;
    retrieval) python -m experiments.laser.retrieval --output runs/laser/retrieval --tokens "[1000000, 10000000]" ;;
    bound) python -m experiments.laser.bound --output runs/laser/bound ;;
    *)
      echo "$part: expected target, lists, draft, pools, greedy, sampled, ablation, groups, batch32, retrieval or bound" >&2
      exit 2
      ;;
  esac
done
