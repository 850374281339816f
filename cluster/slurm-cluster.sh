#!/bin/bash
# Slurm: one sweep on several nodes. A Ray runs on them for the time of the job; cluster/README.md explains it.
#
#   ray get-auth-token --generate          # once
#   sbatch cluster/slurm-cluster.sh --dataset mnist --seeds 0..9
#
#SBATCH --job-name=dae-sweep
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1                  # leave it out for CPUs
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --output=dae-sweep-%j.out

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
storage=${DAE_SWEEP_STORAGE:-$HOME/sweeps} # a folder that all nodes see, or a bucket
port=$((20000 + SLURM_JOB_ID % 20000))     # other jobs may share a node
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
folder=/tmp/ray-$SLURM_JOB_ID              # of this job alone, short enough for sockets
gpus=${SLURM_GPUS_PER_TASK:-0}

node() {                                   # Ray on some nodes, until its step ends
    srun --overlap --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" "${@:2}" \
        ray start --block --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${gpus##*:}" $1 &
}

node "--head --port=$port --temp-dir=$folder --include-dashboard=false" --nodes=1 --ntasks=1 --nodelist="$head"
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    sleep 10
    node "--address=$head:$port" --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) \
        --exclude="$head"
    sleep 20
fi

# The batch script runs on the first node, which is the head.
dae-sweep run --address "$head:$port" --storage "$storage" --data-dir "$storage/data" --wandb offline "$@" &
run=$!
trap 'kill -USR1 "$run"' USR1
trap 'kill -TERM "$run"' TERM
wait "$run"
code=$?
while kill -0 "$run" 2>/dev/null; do       # a signal ends the waiting, not the run
    wait "$run"
    code=$?
done
exit "$code"                               # Slurm ends the steps with the script
