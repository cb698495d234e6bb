#!/usr/bin/env bash
# The study on one GPU, or the parts of it that are named: ids, recipes, sequence, sasrec, lists, test, cost, report.
# `sasrec` is left out by default: it needs the environment of sasrec_requirements.txt, whose interpreter SASREC_PYTHON
# names.
#
# Fits of one part run side by side, since a target of this size leaves most of a GPU idle. EPOCHS is the length of the
# recipes' fits, LIST_EPOCHS of those on lists, RECIPES which fits there are. LISTS names the IDs whose best fit is
# taught lists, LIST_ROUNDS how many times, each time those of the target that came out the time before. IDs and rounds
# that are there already are not made again. Arguments after -- go to every command that fits, predicts or tests, so
# that this is a small trial of all parts:
# RECIPES="shipped-small behaviour-small item-small sequence-small pair-small" EPOCHS=8 LIST_EPOCHS=4 \
#   experiments/quality/run.sh -- --trainer.limit_train_batches 3 --data.init_args.max_users 64
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
configs=experiments/quality results=runs/quality
data=${PADREC_DATA:-../shared/data}/beauty
python=${PYTHON:-python3}
epochs=${EPOCHS:-40} list_epochs=${LIST_EPOCHS:-24} list_rounds=${LIST_ROUNDS:-2}
read -r -a recipes <<<"${RECIPES:-shipped-base shipped-dropout-40 shipped-smooth shipped-averaged behaviour-base \
  behaviour-smooth behaviour-averaged narrow-base item-base item-dropout-40 item-tied item-tied+dropout-40 \
  sequence-base sequence-averaged pair-averaged}"
read -r -a list_ids <<<"${LISTS:-shipped sequence pair}"
# Width of the network, dropout and learning rate of each SASRec.
read -r -a sasrec <<<"${SASREC:-128:0.5:1e-3 128:0.3:1e-3 256:0.5:1e-3 256:0.5:5e-4}"
# Steps are short: many processes with many threads each would only be in each other's way.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

parts=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  parts+=("$1")
  shift
done
[ $# -eq 0 ] || shift
[ ${#parts[@]} -gt 0 ] || parts=(ids recipes sequence lists test cost report)
more=("$@")

# The configs of a run <ids>-<recipe>, or <ids>-<recipe>+<recipe>.
overlays() {
  local ids=${1%%-*} recipe=${1#*-} name
  chosen=(--config $configs/target.yaml --config "$configs/ids/$ids.yaml")
  [ "$recipe" = base ] || for name in ${recipe//+/ }; do chosen+=(--config "$configs/recipes/$name.yaml"); done
}

# All recipes but those whose IDs are made from a fit, or these alone.
fit_recipes() { # recipes or sequence
  local name of
  for name in "${recipes[@]}"; do
    case $name in sequence-* | pair-*) of=sequence ;; *) of=recipes ;; esac
    [ "$of" = "$1" ] || continue
    overlays "$name"
    fit "$name" "${chosen[@]}" --trainer.max_epochs "$epochs" &
  done
  wait
}

fit() { # name, then arguments
  local name=$1
  shift
  "$python" -m padrec fit "$@" --trainer.logger.init_args.name "$name" "${more[@]}" >"$results/$name.log" 2>&1 ||
    { echo "$name failed:" && tail -n 3 "$results/$name.log"; } >&2
}

choose() { "$python" -m experiments.quality.choose "$@" --runs "$results"; }
best() { echo "$results/$1/checkpoints/best.ckpt"; }

# Writes IDs to their folder by `predict`, and the interactions beside them, unless they are there already.
write_ids() { # name, then arguments
  local folder=$results/ids/$1
  [ ! -e "$folder" ] || return 0
  "$python" -m padrec predict --config $configs/behaviour_ids.yaml "${@:2}" --trainer.callbacks.folder "$folder"
  cp "$data"/*.inter.json "$folder/$1.inter.json"
}

evaluate() { # name, run, its IDs, then arguments
  "$python" -m padrec test --config $configs/evaluate.yaml --config "$configs/ids/$3.yaml" \
    --model.init_args.target "$(best "$2")" --trainer.logger.init_args.name "$1" "${@:4}" "${more[@]}" \
    >"$results/test-$1.log" 2>&1 || { echo "test $1 failed:" && tail -n 3 "$results/test-$1.log"; } >&2
}

sasrec() { # width:dropout:rate; trains, and scores its lists as those of the targets
  local factors dropout rate folder part
  IFS=: read -r factors dropout rate <<<"$1"
  folder=$results/sasrec/factors-$factors-dropout-$dropout-rate-$rate
  mkdir -p "$results/sasrec"
  "${SASREC_PYTHON:?the interpreter with the packages of sasrec_requirements.txt}" $configs/sasrec.py --data "$data" \
    --output "$folder" --epochs "$epochs" --factors "$factors" --dropout "$dropout" --learning-rate "$rate" \
    >"$folder.log" 2>&1 || { echo "$folder failed:" && tail -n 3 "$folder.log" && return; } >&2
  for part in validation test; do
    "$python" -m experiments.quality.score_lists "$data" "$folder/$part.jsonl" --part $part >"$folder/$part.json"
  done
}

# Teaches the best fit of some IDs the lists of a teacher: at first of the best among these fits and, where the IDs come
# from behaviour, those with one code for each item, for lists are of items whatever their codes. From then on its own:
# after the marker it ranks better than its teacher.
teach_lists() { # ids
  local ids=$1 round name start student teacher config marker=false teachers=("$1" item)
  [ "$ids" != shipped ] || teachers=(shipped)
  start=$(choose "$ids") && teacher=$(choose "${teachers[@]}") || return
  student=$start config=$teacher
  for ((round = 1; round <= list_rounds; round++)); do
    name=list-$ids-$round
    if [ ! -e "$(best "$name")" ]; then
      overlays "$config"
      "$python" -m padrec predict "${chosen[@]}" --config $configs/lists.yaml --data.init_args.list_marker $marker \
        --trainer.callbacks.path "$results/$name.jsonl" --ckpt_path "$(best "$teacher")" "${more[@]}"
      overlays "$start"
      fit "$name" "${chosen[@]}" --config $configs/list_target.yaml --trainer.max_epochs "$list_epochs" \
        --data.init_args.training_rows "[{class_path: padrec.LoggedSequences}, {class_path: padrec.GeneratedLists, \
          init_args: {paths: [$results/$name.jsonl]}}]" --model.init_args.initial_weights padrec.TargetWeights \
        --model.init_args.initial_weights.init_args.path "$(best "$student")"
    fi
    student=$name teacher=$name config=$start marker=true
  done
}

mkdir -p "$results"
for part in "${parts[@]}"; do
  started=$SECONDS
  case $part in
    ids)
      for ids in behaviour:64 narrow:32; do
        write_ids "${ids%:*}" --data.init_args.embeddings.init_args.dimension "${ids#*:}"
      done
      [ -e "$results/ids/item" ] || "$python" -m experiments.quality.item_ids "$data" "$results/ids/item"
      ;;
    recipes) fit_recipes recipes ;;
    sequence) # IDs from the best fit with one code for each item, and the fits on these
      PADREC_ITEM_TARGET=$(best "$(choose item)")
      export PADREC_ITEM_TARGET
      for ids in sequence:256,256,256 pair:512,512; do
        write_ids "${ids%:*}" --config $configs/sequence_ids.yaml --model.init_args.codebook_sizes "[${ids#*:}]"
      done
      fit_recipes sequence
      ;;
    sasrec)
      for setting in "${sasrec[@]}"; do sasrec "$setting" & done
      wait
      ;;
    lists)
      for ids in "${list_ids[@]}"; do teach_lists "$ids" & done
      wait
      ;;
    test)
      for ids in shipped behaviour narrow sequence pair item; do
        if name=$(choose $ids); then evaluate "$ids" "$name" "$ids" & fi
      done
      for ids in "${list_ids[@]}"; do
        name=$(choose "list-$ids") || continue
        # One target, two kinds of prompts: with the marker the target writes lists, without it the target ranks.
        evaluate "list-$ids" "$name" "$ids" --data.init_args.list_marker true &
        evaluate "list-$ids-unmarked-prompts" "$name" "$ids" &
      done
      wait
      ;;
    cost) # alone on the GPU
      evaluate cost "$(choose "list-${list_ids[0]}")" "${list_ids[0]}" --config $configs/cost.yaml \
        --data.init_args.list_marker true
      ;;
    report) "$python" -m experiments.quality.report --runs "$results" --output "$results/report" ;;
    *)
      echo "$part: expected ids, recipes, sequence, sasrec, lists, test, cost or report" >&2
      exit 2
      ;;
  esac
  echo "$part: $((SECONDS - started)) s" | tee -a "$results/seconds.txt"
done
