#!/usr/bin/env bash
# All of the study on one GPU, most important first, within a budget: study.sh SECONDS. What is finished is not done again:
# call it once more to go on. No step begins in the last 20 seconds, and one that runs is stopped at the end.
#
# Needs the language model of unpack_language_model.py at runs/laser/language-model, and for lists what
# `../beauty/run.sh target lists drafts` makes. See run.sh and knowledge.sh for the steps.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
budget=${1:?study.sh SECONDS} finished=runs/laser/finished
mkdir -p $finished
if ! command -v padrec >/dev/null; then
  padrec() { python -m padrec "$@"; }
  export -f padrec
fi
export PADREC_KNOWLEDGE_PROMPTS=${PADREC_KNOWLEDGE_PROMPTS:-100}
items=(env PADREC_KNOWLEDGE_KINDS=items bash experiments/laser/knowledge.sh)
users=(env PADREC_KNOWLEDGE_KINDS=users bash experiments/laser/knowledge.sh)

step() { # name, then a command
  local name=$1 left=$((budget - SECONDS)) start=$SECONDS
  shift
  [ ! -e "$finished/$name" ] || return 0
  if [ $left -lt 20 ]; then
    echo "$name: no time left"
  elif timeout $left "$@" >"$finished/$name.log" 2>&1; then
    touch "$finished/$name"
    echo "$name: $((SECONDS - start)) s, $SECONDS s in all"
  else
    echo "$name: failed or stopped after $((SECONDS - start)) s"
    tail -n 3 "$finished/$name.log"
  fi
}

lists() { # name, then arguments of run.sh
  [ ! -e runs/beauty/padrec/checkpoints/last.ckpt ] || step "$1" bash experiments/laser/run.sh "${@:2}"
}

# Untimed, side by side: texts, pools, and short runs that fill the compiler's cache.
(
  lists pools pools
  lists lists-warm warm
) &
step items-first "${items[@]}" first
step items-warm "${items[@]}" warm
wait
step items-evaluate "${items[@]}" evaluate
step items-evaluate-32 "${items[@]}" evaluate_32
lists lists-greedy greedy -- --data.init_args.max_users 300
lists lists-sampled sampled -- --data.init_args.max_users 300
step retrieval bash experiments/laser/run.sh retrieval
step items-float32 "${items[@]}" float32
step items-sizes "${items[@]}" sizes
step items-second "${items[@]}" second
step items-relaxed "${items[@]}" relaxed
step clicks "${items[@]}" clicks
step users-first "${users[@]}" first
step users-evaluate "${users[@]}" evaluate
step items-transformers "${items[@]}" transformers
lists lists-ablation ablation -- --data.init_args.max_users 100
lists lists-batch32 batch32
wait
