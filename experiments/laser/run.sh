#!/usr/bin/env bash
# Drafts by retrieval (LASER) for lists of Amazon Beauty, or the parts of the study that are named. For texts see knowledge.sh.
# Parts: pools warm greedy sampled ablation batch32 retrieval bound. They need what `../beauty/run.sh target lists drafts` makes;
# `small` first trains a target and a draft on a CPU and then does all of it with those. What stands after -- goes to every
# evaluation: run.sh greedy -- --data.init_args.max_users 100
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
configs=experiments/laser

parts=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  parts+=("$1")
  shift
done
[ $# -eq 0 ] || shift
[ ${#parts[@]} -gt 0 ] || parts=(pools greedy sampled ablation batch32 retrieval bound)
more=("$@")

lists() { # name, temperature: of the small target
  padrec predict --config experiments/beauty/lists.yaml --config experiments/beauty/tiny.yaml --trainer.logger.init_args.name lists \
    --data.init_args.max_users 6000 --ckpt_path "$LASER_RUNS/target/checkpoints/best.ckpt" \
    --model.init_args.temperature "$2" \
    --trainer.callbacks "[{class_path: padrec.RecommendationWriter, init_args: {path: $LASER_RUNS/lists/$1.jsonl}}]"
}

pool() { # name, then arguments of padrec pool
  local path=${LASER_RUNS:-runs/beauty}/laser/pool-$1.safetensors
  [ -e "$path" ] || padrec pool --config $configs/pool.yaml --path "$path" "${@:2}"
}

evaluate() { # name, then arguments of padrec test
  padrec test --config $configs/evaluate.yaml --trainer.logger.init_args.name "$1" "${@:2}" "${more[@]}"
}

for part in "${parts[@]}"; do
  case $part in
    small)
      export LASER_RUNS=runs/laser-small
      padrec fit --config experiments/beauty/target.yaml --config experiments/beauty/tiny.yaml
      lists greedy 0
      lists sampled 1
      padrec fit --config experiments/beauty/draft.yaml --config experiments/beauty/tiny_draft.yaml
      "$0" pools
      "$0" greedy sampled ablation -- --config $configs/small_evaluate.yaml "${more[@]}"
      ;;
    pools)
      pool 8 &
      pool 1 --n_groups 1 --embeddings null &
      pool small --n_groups 1 --embeddings null --lists_per_group 500 &
      for job in $(jobs -p); do wait "$job"; done
      ;;
    warm) # short runs, after which greedy and sampled find what they compile in the compiler's cache
      evaluate warm-greedy --data.init_args.max_users 2 &
      evaluate warm-sampled --data.init_args.max_users 2 --model.init_args.temperature 1 &
      for job in $(jobs -p); do wait "$job"; done
      ;;
    greedy) evaluate greedy ;;
    sampled) evaluate sampled --model.init_args.temperature 1 ;;
    ablation) evaluate ablation --config $configs/ablation.yaml ;;
    batch32) evaluate batch32 --data.init_args.eval_batch_size 32 ;;
    retrieval) python -m experiments.laser.retrieval --output runs/laser/retrieval --tokens "[100000, 1000000, 10000000]" ;;
    bound) python -m experiments.laser.bound --output runs/laser/bound ;;
    *)
      echo "$part: expected small, pools, warm, greedy, sampled, ablation, batch32, retrieval or bound" >&2
      exit 2
      ;;
  esac
done
