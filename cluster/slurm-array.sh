#!/bin/bash
# Slurm: an array of runs, a sweep each, on one storage that all nodes see. cluster/README.md explains it.
#
#   sbatch cluster/slurm-array.sh --seeds 0..4 --epochs 15
#
#SBATCH --job-name=dae-sweep
#SBATCH --array=0-2
#SBATCH --nodes=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1                  # leave it out for CPUs
#SBATCH --ntasks=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120                # two minutes before the time is up: the run stops, every finished epoch is kept
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=dae-sweep-%A_%a.out

datasets=(mnist fashion-mnist kmnist)      # the element's own: one run at a time holds a sweep
storage=${DAE_SWEEP_STORAGE:-$HOME/sweeps}

dae-sweep run --storage "$storage" --data-dir "$storage/data" --dataset "${datasets[$SLURM_ARRAY_TASK_ID]}" \
    --temp-dir "${SLURM_TMPDIR:-/tmp}" --wandb offline "$@" &
run=$!
trap 'kill -USR1 "$run"' USR1
trap 'kill -TERM "$run"' TERM
wait "$run"
code=$?
while kill -0 "$run" 2>/dev/null; do       # a signal ends the waiting, not the run
    wait "$run"
    code=$?
done
if [ "$code" = 138 ]; then                 # stopped by USR1: the same command goes on where it was
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
