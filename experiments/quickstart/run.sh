#!/usr/bin/env bash
# The whole job on made-up data: target, drafts, evaluation. Needs the `padrec` command on the PATH, and writes to runs/ in
# the current folder.
set -euo pipefail
configs=$(dirname "$0") results=runs/quickstart

if [ -e "$results" ]; then
  echo "$results is already there: look at $results/evaluate/report.md, or remove $results to run again" >&2
  exit 1
fi
mkdir -p $results
# Models this small gain nothing from more threads, and on a busy machine threads wait for each other for minutes.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

stage() { # name, title, then arguments of padrec
  local log=$results/$1.log start=$SECONDS
  echo "== $2"
  if ! padrec "${@:3}" --trainer.enable_progress_bar false 2>"$log"; then
    cat "$log" >&2
    exit 1
  fi
  echo "   $((SECONDS - start)) s"
}

echo "Six stages, about five minutes. What each has to say goes to $results/<stage>.log."
stage target "target: 24 layers, trained on made-up histories" fit --config $configs/target.yaml
stage base "base: a draft of one layer, which the others start from" \
  fit --config $configs/draft.yaml --config $configs/base.yaml
stage eagle "EAGLE: trained on as it was" fit --config $configs/draft.yaml --config $configs/eagle.yaml
stage hass "HASS: trained on its own predictions" fit --config $configs/draft.yaml --config $configs/hass.yaml
stage padrec "PAD-Rec: HASS with slot and step embeddings" \
  fit --config $configs/draft.yaml --config $configs/padrec.yaml
stage evaluate "all arms on the same users" test --config $configs/evaluate.yaml
padrec export --target $results/target/checkpoints/last.ckpt --draft $results/padrec/checkpoints/last.ckpt \
  --decoder.width 3 --decoder.nodes 16 --report $results/evaluate/report.json --output $results/recommender \
  2>$results/export.log || { cat $results/export.log >&2; exit 1; }
echo
echo "Report:      $results/evaluate/report.md"
echo "TensorBoard: tensorboard --logdir $results"
echo "Service:     padrec serve $results/recommender"
