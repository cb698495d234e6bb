#!/usr/bin/env bash
# Other base drafts for the target of ../beauty/run.sh, each without and with the position-aware part, by acceptance
# length. Needs the parts target and lists of ../beauty/run.sh or ../laser/run.sh. What is finished is not done again.
#
#   run.sh                        all of them
#   DRAFTS="hass eagle3" run.sh   some; hass is the one that the others differ from
#   FORMS=null run.sh             without the position-aware part alone
#   SHORT=1 run.sh                400 steps each
#   SEEDS="0 1 2" run.sh          a draft for each seed; all of them start from the same base draft
#   JOBS=4 run.sh                 fits side by side, 2 by default: a draft leaves most of a GPU idle
#   TREES="12/6/52/0.35 15/4/64/0.25/false" run.sh
#                                 an arm for each tree of each draft: depth, width, nodes, greedy_temperature, and
#                                 whether forced tokens are added to it (at most 12 nodes, true by default)
#   DRAFTS=item TREES=items/20/4/64/0.13/false run.sh
#                                 a draft with one pass an item takes trees of its own
#   ALONE=1 run.sh                one user at a time, whose lists are timed
#   DATA=games run.sh             for AtSpeed's Games, after DATA=games ../laser/run.sh target lists
#   DATA=office run.sh            for a pretrained language model, after ../office/run.sh
# Arguments go to every fit: run.sh --trainer.max_epochs 2
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
configs=experiments/base_drafts data=${DATA:-beauty}
runs=runs/$data of_data=() base_size=(--trainer.limit_val_batches 0) of_items=""
results=$runs/base_drafts target=$runs/target/checkpoints/best.ckpt
case $data in
  beauty) results=runs/base_drafts ;;
  games) of_data=(--config experiments/atspeed/games.yaml) ;;
  office)
    of_data=(--data experiments/office/data.yaml) target=$runs/target/checkpoints/last.ckpt
    base_size+=(--trainer.max_epochs 5) of_items=", item_length: 4"
    ;;
  *)
    echo "DATA=$data: expected beauty, games or office" >&2
    exit 2
    ;;
esac
lists="[{class_path: padrec.GeneratedLists, init_args: {paths: [$runs/lists/greedy.jsonl, $runs/lists/sampled.jsonl]}}]"
drafts=${DRAFTS:-hass eagle3 features layers2 through_steps constrained log_acceptance adaptive_acceptance item}
forms=${FORMS:-null {\}} trees=(${TREES:-12/6/52/0.35 items/20/4/64/0.13/false}) seeds=(${SEEDS:-0})
mkdir -p $results
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

fit() { # name, then arguments
  local name=$1 started=$SECONDS
  shift
  [ ! -e "$results/$name/finished" ] || return 0
  padrec fit --config experiments/beauty/draft.yaml "${of_data[@]}" --model.init_args.target "$target" "$@" \
    --trainer.logger.init_args.save_dir "$results" --trainer.logger.init_args.name "$name" >"$results/$name.log" 2>&1 ||
    { echo "$name: failed, see $results/$name.log" >&2; return 1; }
  touch "$results/$name/finished"
  echo "$name: $((SECONDS - started)) s"
}

# The draft that all start from; for Beauty, ../beauty/run.sh may have made it.
base=$results/base/checkpoints/last.ckpt
if [ -e "$runs/base/checkpoints/last.ckpt" ]; then
  base=$runs/base/checkpoints/last.ckpt
else
  fit base --config experiments/beauty/base.yaml "${base_size[@]}"
fi
from_base=(
  --data.init_args.training_rows "$lists"
  --model.init_args.initial_weights "{class_path: padrec.DraftWeights, init_args: {path: $base}}"
)

arms="{autoregressive: {class_path: padrec.AutoregressiveDecoder}"
for draft in $drafts; do
  given=() kind=DynamicTree own=() length=""
  [ "$draft" != item ] || kind=ItemTree length=$of_items
  for tree in "${trees[@]}"; do
    case $kind-$tree in ItemTree-items/* | DynamicTree-[0-9]*) own+=("${tree#items/}") ;; esac
  done
  [ ! -e "$configs/$draft.yaml" ] || given+=(--config "$configs/$draft.yaml")
  [ -z "${SHORT:-}" ] || given+=(--config $configs/short.yaml)
  for position_aware in $forms; do
    for seed in "${seeds[@]}"; do
      name=$draft
      [ "$position_aware" = null ] || name+=-padrec
      [ "$seed" = 0 ] || name+=-seed$seed
      while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-2}" ]; do wait -n; done
      fit "$name" "${from_base[@]}" "${given[@]}" --model.init_args.position_aware "$position_aware" --seed_everything "$seed" \
        --model.init_args.seed "$seed" --data.init_args.seed "$seed" "$@" &
      for tree in "${own[@]}"; do
        IFS=/ read -r depth width nodes greedy_temperature forced_tokens <<<"$tree"
        arm=$name
        [ ${#own[@]} = 1 ] || arm+=-${tree//\//-}
        arms+=", $arm: {class_path: padrec.SpeculativeDecoder, init_args: {draft: {class_path: padrec.FeatureDraft,"
        arms+=" init_args: {checkpoint: $results/$name/checkpoints/last.ckpt}}, forced_tokens: ${forced_tokens:-true},"
        arms+=" expansion: {class_path: padrec.$kind, init_args: {depth: $depth, width: $width, nodes: $nodes,"
        arms+=" greedy_temperature: $greedy_temperature$length}}}}"
      done
    done
  done
done
evaluation=(
  --config experiments/beauty/evaluate.yaml "${of_data[@]}" --config $configs/evaluate.yaml --model.init_args.target "$target"
  --trainer.logger.init_args.save_dir "$results"
)
[ -z "${ALONE:-}" ] || evaluation+=(--data.init_args.eval_batch_size 1 --data.init_args.max_users 400)
for job in $(jobs -p); do wait "$job"; done
for temperature in 0 1; do
  padrec test "${evaluation[@]}" --model.init_args.arms "$arms}" \
    --model.init_args.temperature $temperature --trainer.logger.init_args.name evaluate-$temperature
done
