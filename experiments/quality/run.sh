#!/usr/bin/env bash
# The study on one GPU, or the parts of it that are named: ids, recipes, sasrec, lists, test, cost, report. `sasrec` is
# left out by default: it needs the environment of sasrec_requirements.txt, whose interpreter SASREC_PYTHON names.
#
# Fits of one part run side by side, since a target of this size leaves most of a GPU idle. EPOCHS is the length of the
# recipes' fits, LIST_EPOCHS of those on lists, RECIPES which fits there are. Whatever stands behind -- goes to every
# command that fits, predicts or tests, so that this is a small trial of all parts:
# RECIPES="shipped-small behaviour-small item-small" EPOCHS=8 LIST_EPOCHS=2 experiments/quality/run.sh \
#   -- --trainer.limit_train_batches 3 --data.init_args.max_users 64
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
configs=experiments/quality results=runs/quality
data=${PADREC_DATA:-../shared/data}/beauty
python=${PYTHON:-python3}
epochs=${EPOCHS:-40} list_epochs=${LIST_EPOCHS:-24}
read -r -a recipes <<<"${RECIPES:-shipped-base shipped-dropout-40 shipped-smooth shipped-averaged behaviour-base \
  behaviour-smooth behaviour-averaged narrow-base item-base item-dropout-40}"
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
[ ${#parts[@]} -gt 0 ] || parts=(ids recipes lists test cost report)
more=("$@")

# The configs of a run <ids>-<recipe>, or <ids>-<recipe>+<recipe>.
overlays() {
  local ids=${1%%-*} recipe=${1#*-} name
  chosen=(--config $configs/target.yaml)
  [ "$ids" = shipped ] || chosen+=(--config "$configs/ids/$ids.yaml")
  [ "$recipe" = base ] || for name in ${recipe//+/ }; do chosen+=(--config "$configs/recipes/$name.yaml"); done
}

fit() { # name, then arguments
  local name=$1
  shift
  "$python" -m padrec fit "$@" --trainer.logger.init_args.name "$name" "${more[@]}" >"$results/$name.log" 2>&1 ||
    { echo "$name failed:" && tail -n 3 "$results/$name.log"; } >&2
}

choose() { "$python" -m experiments.quality.choose "$@" --runs "$results"; }
best() { echo "$results/$1/checkpoints/best.ckpt"; }

# Everything that a test has to know of a run's data: the folder of its IDs.
folder_of() { case $1 in behaviour-* | narrow-*) echo "$results/ids/${1%%-*}" ;; *) echo "$data" ;; esac; }

evaluate() { # name, target, folder with the data, then arguments
  "$python" -m padrec test --config $configs/evaluate.yaml --model.init_args.target "$2" \
    --data.init_args.reader.init_args.folder "$3" --trainer.logger.init_args.name "$1" "${@:4}" "${more[@]}" \
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

# What the fits on lists go on from.
teacher() { choose shipped behaviour narrow; }

mkdir -p "$results"
for part in "${parts[@]}"; do
  started=$SECONDS
  case $part in
    ids)
      for ids in behaviour:64 narrow:32; do
        name=${ids%:*}
        "$python" -m padrec predict --config $configs/behaviour_ids.yaml --trainer.callbacks.folder "$results/ids/$name" \
          --data.init_args.embeddings.init_args.dimension "${ids#*:}"
        cp "$data"/*.inter.json "$results/ids/$name/$name.inter.json"
      done
      "$python" -m experiments.quality.item_ids "$data" "$results/ids/item"
      ;;
    recipes)
      for name in "${recipes[@]}"; do
        overlays "$name"
        fit "$name" "${chosen[@]}" --trainer.max_epochs "$epochs" &
      done
      wait
      ;;
    sasrec)
      for setting in "${sasrec[@]}"; do sasrec "$setting" & done
      wait
      ;;
    lists)
      name=$(teacher)
      overlays "$name"
      "$python" -m padrec predict "${chosen[@]}" --config $configs/lists.yaml --ckpt_path "$(best "$name")" "${more[@]}"
      for marker in true false; do
        fit "list-marker-$marker" "${chosen[@]}" --config $configs/list_target.yaml --trainer.max_epochs "$list_epochs" \
          --data.init_args.list_marker $marker --model.init_args.initial_target "$(best "$name")" &
      done
      wait
      ;;
    test)
      for ids in shipped behaviour narrow; do
        if name=$(choose $ids); then evaluate "$ids" "$(best "$name")" "$(folder_of "$name")" & fi
      done
      if name=$(choose item); then
        evaluate item "$(best "$name")" "$results/ids/item" --data.init_args.separator false &
      fi
      folder=$(folder_of "$(teacher)")
      # One target, two kinds of prompts: behind the marker it writes lists, without it it ranks.
      evaluate list "$(best list-marker-true)" "$folder" --data.init_args.list_marker true &
      evaluate list-unmarked-prompts "$(best list-marker-true)" "$folder" &
      evaluate list-without-marker "$(best list-marker-false)" "$folder" &
      wait
      ;;
    cost) # alone on the GPU
      evaluate cost "$(best list-marker-true)" "$(folder_of "$(teacher)")" --config $configs/cost.yaml \
        --data.init_args.list_marker true
      ;;
    report) "$python" -m experiments.quality.report --runs "$results" --output "$results/report" ;;
    *)
      echo "$part: expected ids, recipes, sasrec, lists, test, cost or report" >&2
      exit 2
      ;;
  esac
  echo "$part: $((SECONDS - started)) s" | tee -a "$results/seconds.txt"
done
