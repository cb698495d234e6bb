#!/usr/bin/env bash
# Beauty and Games on one GPU, what matters most first: study.sh [all]. After BUDGET seconds, 720 by default, it stops; call
# it again to go on, what is finished is not done again. Needs what run.sh needs. While models train, evaluations of models
# with one untrained layer compile what the real ones need, many at a time.
#
# study.sh rehearsal compiles alone; study.sh smoke goes through every step with such models and a few users, and compiles
# nothing. Caches of compilers outlive both where TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR say where they are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
configs=experiments/atspeed results=runs/atspeed budget=${BUDGET:-720}

within() { # a command, until the budget is spent; a failure does not keep others from running
  local left=$((budget - SECONDS)) status=0
  [ $left -gt 0 ] || { echo "study.sh: $budget s are over" >&2 && exit 0; }
  timeout $left "$@" || status=$?
  echo "study.sh: $SECONDS s, status $status of: $*" >&2
}

models() { # data set, objectives, seeds
  within env OBJECTIVES="$2" SEEDS="$3" JOBS="${JOBS:-3}" $configs/run.sh "$1"
}

compare() { # folder of a data set, options
  python -m experiments.atspeed.compare --runs "$@"
}

timed() { # the same, within the budget
  within python -m experiments.atspeed.compare --runs "$@"
}

untrained() { # folder, objectives
  RUNS=$1 SIZE=rehearsal OBJECTIVES=$2 JOBS=8 $configs/run.sh beauty
}

rehearse() {
  local folder=$results/rehearsal batch temperature lengths
  export TORCHINDUCTOR_COMPILE_THREADS=${TORCHINDUCTOR_COMPILE_THREADS:-3}
  untrained $folder "top_k_alignment total_variation"
  for batch in 1 32; do
    for lengths in '[10, 20]' '[5, 1, 3]'; do
      for temperature in 0 1; do
        compare $folder/beauty --parts '[arms]' --lengths "$lengths" --batches "[$batch]" \
          --temperatures "[$temperature]" --users 64 &
      done
    done
    compare $folder/beauty --parts '[widths]' --batches "[$batch]" --users 64 &
  done
  wait
}

smoke() {
  export TORCHDYNAMO_DISABLE=1
  untrained $results/smoke "top_k_alignment total_variation word_kd tvd_kd seq_kd"
  compare $results/smoke/beauty --lengths '[10]' --batches '[4]' --users 8 --transformers_users 2
  python -m experiments.atspeed.table --folders "[$results/smoke/beauty/compare]" --output $results/smoke/table
}

study() {
  local beauty=$results/beauty main="top_k_alignment total_variation"
  setsid nice $configs/study.sh rehearsal >$results/rehearsal.log 2>&1 &
  local rehearsal=$!
  trap 'kill -- -'$rehearsal' 2>/dev/null || true' EXIT
  models beauty "$main" 0
  kill -- -$rehearsal 2>/dev/null || true # what is timed runs alone
  for batch in 1 32; do
    timed $beauty --parts '[arms, widths]' --batches "[$batch]" --users 320
  done
  models beauty "word_kd tvd_kd seq_kd" 0
  timed $beauty --parts '[objectives, transformers]'
  models beauty "$main word_kd tvd_kd seq_kd" "1 2"
  timed $beauty --parts '[objectives]' --seeds '[1, 2]'
  models games "$main" 0
  timed $results/games --parts '[arms]' --lengths '[10]' --batches '[1]' --configs "[$configs/games.yaml]"
}

mkdir -p $results
case ${1:-all} in
  all) study ;;
  rehearsal) rehearse ;;
  smoke) smoke ;;
  *)
    echo "$1: expected all, rehearsal or smoke" >&2
    exit 2
    ;;
esac
