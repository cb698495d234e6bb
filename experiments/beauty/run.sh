#!/usr/bin/env bash
# The whole study on one GPU, or the parts of it that are named: target, lists, drafts, and the evaluations greedy,
# sampled, greedy-free, sampled-free, transformers. Needs the data, see data.yaml.
#
# What is finished is not done again, and drafts go on after their last epoch: call it once more after an interruption,
# or remove runs/beauty to start over.
# Fits of drafts run side by side, since a draft leaves most of a GPU idle; whatever is timed runs alone. Arguments after
# -- go to every command: run.sh greedy -- --data.init_args.max_users 100
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
configs=experiments/beauty results=runs/beauty

parts=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  parts+=("$1")
  shift
done
[ $# -eq 0 ] || shift
[ ${#parts[@]} -gt 0 ] || parts=(target lists drafts greedy sampled greedy-free sampled-free transformers)
more=("$@")
mkdir -p $results/finished
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

step() { # name, then arguments of padrec
  local name=$1 started=$SECONDS
  shift
  if [ -e "$results/finished/$name" ]; then
    echo "$name: finished before"
    return
  fi
  echo "$name: begins, see $results/finished/$name.log"
  if padrec "$@" "${more[@]}" >"$results/finished/$name.log" 2>&1; then
    touch "$results/finished/$name"
    echo "$name: $((SECONDS - started)) s"
  else
    echo "$name: failed" >&2
    tail -n 5 "$results/finished/$name.log" >&2
    return 1
  fi
}

wait_for_all() {
  local failed=0 job
  for job in $(jobs -p); do wait "$job" || failed=1; done
  return $failed
}

draft() { # goes on after the last epoch of a fit that was interrupted
  local last=$results/$1/checkpoints/last.ckpt resumed=()
  [ ! -e "$last" ] || resumed=(--ckpt_path "$last")
  step "$1" fit --config $configs/draft.yaml --config "$configs/$1.yaml" "${resumed[@]}"
}

evaluate() { # name, then arguments
  step "$1" test --config $configs/evaluate.yaml --trainer.logger.init_args.name "$1" "${@:2}"
}

for part in "${parts[@]}"; do
  case $part in
    target) step target fit --config $configs/target.yaml ;;
    lists) # and beside them the draft that the others start from, which does without lists
      for how in greedy sampled; do
        step lists-$how predict --config $configs/lists.yaml --config $configs/$how.yaml \
          --ckpt_path $results/target/checkpoints/best.ckpt &
      done
      draft base &
      wait_for_all
      ;;
    drafts)
      for name in eagle hass padrec; do draft $name & done
      wait_for_all
      ;;
    greedy) evaluate greedy ;;
    sampled) evaluate sampled --model.init_args.temperature 1 ;;
    greedy-free) evaluate greedy-free --model.init_args.constraint null ;;
    sampled-free) evaluate sampled-free --model.init_args.constraint null --model.init_args.temperature 1 ;;
    transformers) evaluate transformers --config $configs/transformers.yaml ;;
    *)
      echo "$part: expected target, lists, drafts, greedy, sampled, greedy-free, sampled-free or transformers" >&2
      exit 2
      ;;
  esac
done
