#!/usr/bin/env bash
# All of the study on one GPU, most important first, within a budget: study.sh SECONDS. What is finished is not done again:
# call it once more to go on. Models, texts, pools, the click model, and short runs that fill the compiler's cache go on in
# the background, which stands still while something is timed.
#
# Needs the data and, at runs/laser/language-model, the model of unpack_language_model.py. LASER_USERS says how many users
# get lists, PADREC_KNOWLEDGE_PROMPTS how many prompts are answered one at a time. See run.sh and knowledge.sh for the steps.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
budget=${1:?study.sh SECONDS} finished=runs/laser/finished users=${LASER_USERS:-200} limit=()
mkdir -p $finished
rm -f $finished/*.failed
if ! command -v padrec >/dev/null; then
  padrec() { python -m padrec "$@"; }
  export -f padrec
fi
export PADREC_KNOWLEDGE_PROMPTS=${PADREC_KNOWLEDGE_PROMPTS:-100}
export TORCHINDUCTOR_COMPILE_THREADS=${TORCHINDUCTOR_COMPILE_THREADS:-4} # of each of several processes

step() { # name, then a command
  local name=$1 start=$SECONDS
  shift
  [ ! -e "$finished/$name" ] || return 0
  if "${limit[@]}" "$@" >"$finished/$name.log" 2>&1; then
    touch "$finished/$name"
    echo "$name: $((SECONDS - start)) s, $SECONDS s in all"
  else
    touch "$finished/$name.failed"
    echo "$name: failed or stopped after $((SECONDS - start)) s"
    tail -n 3 "$finished/$name.log"
    return 1
  fi
}

knowledge() { # items or users, stage
  step "$1-$2" env PADREC_KNOWLEDGE_KINDS="$1" bash experiments/laser/knowledge.sh "$2"
}

lists() { # data set, part of run.sh, then options
  step "$1-$2" env DATA="$1" bash experiments/laser/run.sh "$2" -- "${@:3}"
}

warm() { # the same: a short run
  step "$1-warm-$2" env DATA="$1" bash experiments/laser/run.sh "$2" -- --data.init_args.max_users 2 \
    --trainer.logger.init_args.name "warm-$2"
}

texts() {
  knowledge items first && knowledge items warm && knowledge items second && knowledge items relaxed && knowledge items clicks
  knowledge users first && knowledge users warm && knowledge users second && knowledge users relaxed && knowledge users clicks
}

after_target() { # data set
  lists "$1" lists || return
  lists "$1" pools &
  lists "$1" draft
  wait
  warm "$1" greedy &
  warm "$1" sampled &
  wait
}

models() {
  lists beauty target
  after_target beauty &
  lists games target && after_target games
  wait
  warm beauty ablation
}

timed() { # what it waits for, then a function of the above and its arguments
  until [ -e "$finished/$1" ]; do
    if compgen -G "$finished/${1%%-*}-*.failed" >/dev/null || [ $((budget - SECONDS)) -lt 20 ]; then
      echo "${*:2}: left out, $1 is not finished"
      return
    fi
    sleep 1
  done
  kill -STOP -- -$background 2>/dev/null
  local limit=(timeout -s KILL $((budget - SECONDS)))
  "${@:2}"
  kill -CONT -- -$background 2>/dev/null
}

set -m # the background is a process group of its own
(
  texts &
  models
  wait
) &
background=$!
set +m
trap 'kill -KILL -- -$background 2>/dev/null' EXIT # Lightning would end what it does first

timed items-warm knowledge items evaluate
timed items-warm knowledge items float32
timed beauty-warm-greedy lists beauty greedy --data.init_args.max_users "$users"
timed beauty-warm-sampled lists beauty sampled --data.init_args.max_users "$users"
timed items-warm knowledge items evaluate_32
timed users-warm knowledge users evaluate
timed items-warm knowledge items sizes
timed games-warm-greedy lists games greedy --data.init_args.max_users "$users"
timed games-warm-sampled lists games sampled --data.init_args.max_users "$users"
timed items-warm step retrieval bash experiments/laser/run.sh retrieval
timed beauty-warm-ablation lists beauty ablation --data.init_args.max_users 100
timed users-first knowledge users old
timed items-warm knowledge items transformers
timed beauty-warm-greedy lists beauty batch32 --data.init_args.max_users 320
while [ $SECONDS -lt "$budget" ] && kill -0 $background 2>/dev/null; do sleep 1; done
