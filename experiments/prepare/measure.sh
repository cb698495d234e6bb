#!/usr/bin/env bash
# Time and peak memory of `padrec prepare` on made-up logs of 10 and 30 million interactions (docs/data.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

folder=runs/prepare
for rows in 10000000 30000000; do
  log="$folder/log-$rows.parquet"
  python experiments/prepare/synthetic_log.py "$rows" 250000 "$log"
  python - prepare --source padrec.TableLog --source.interactions "[$log]" --source.rating rating --min_rating 2 \
    --output "$folder/$rows" <<'PYTHON'
import resource
import subprocess
import sys
import time

start = time.monotonic()
subprocess.run([sys.executable, "-m", "padrec", *sys.argv[1:]], check=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(f"{time.monotonic() - start:.0f} s, at most {peak:.0f} MiB resident")
PYTHON
done
