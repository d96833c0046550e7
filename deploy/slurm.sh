#!/bin/bash
# A sweep on Slurm, by Ray's own recipe: `ray symmetric-run` starts a head on the first node and a worker on every other, runs the command once, on the head,
# and ends them all with it. Submit from a clean checkout on a file system that all nodes share:
#
#     sbatch --nodes=8 --cpus-per-task=32 deploy/slurm.sh --track digits
#     sbatch --nodes=8 --cpus-per-task=32 --gpus-per-node=4 deploy/slurm.sh --track cifar10_full --gpus 0.5
#
# A job that ends early is submitted again and goes on.
#SBATCH --job-name=shrinkmark
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
set -euo pipefail

cd "$SLURM_SUBMIT_DIR"
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN="${RAY_AUTH_TOKEN:-$(python -c "import secrets; print(secrets.token_hex(32))")}" # of this job: who has it can run code as its owner
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
export SHRINKMARK_DATA="${SHRINKMARK_DATA:-${TMPDIR:-/tmp}}" # a node's own disk: data and weights are kept there, once a node
SHARED="${SHARED:-$PWD/artefacts/cluster}" # where artefacts come back through
mkdir -p "$SHARED"

head="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
  ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" -- \
  python -m shrinkmark sweep --address auto --remote "$SHARED" "$@"
