#!/bin/bash
# Try the workflow on a real SLURM of one machine: two jobs are killed in mid-run, the workflow is started again, and
# the table must be that of a run without SLURM; a job that asks for a GPU must wait, and say why.
#
#     apt-get install slurm-wlm munge
#     pip install snakemake-executor-plugin-slurm
#     workflow/try_slurm.sh                # as root: SLURM starts jobs as the user who asks
#
# About five minutes on two cores. Everything lies in a temporary folder, with daemons and a key of its own, which end
# with the script. Jobs look for the settings in /etc/slurm alone, so links lie there meanwhile; where settings are there
# already, the script does nothing.
set -euo pipefail

cd "$(dirname "$0")/.."
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
export PATH="$(dirname "$PYTHON"):$PATH" OMP_NUM_THREADS=1
"$PYTHON" -c "import snakemake_executor_plugin_slurm" || { echo "pip install snakemake-executor-plugin-slurm"; exit 2; }
for program in munged slurmctld slurmd squeue; do
    command -v "$program" > /dev/null || { echo "$program is missing: apt-get install slurm-wlm munge"; exit 2; }
done

ETC=${ETC:-/etc/slurm}
for file in slurm.conf cgroup.conf gres.conf; do
    [ ! -e "$ETC/$file" ] || { echo "$ETC/$file is there: this machine has a SLURM of its own"; exit 2; }
done

PLACE=$(mktemp -d)
chmod 755 "$PLACE"
mkdir -m 755 "$PLACE"/{state,spool,munge,runs}
export RMTLLMF_HOME="$PLACE/store"
HOST=$(hostname -s)

stop() {
    scancel --user="$(id -un)" 2> /dev/null || true
    for file in "$PLACE"/{slurmd,slurmctld,munge/munged}.pid; do
        [ -f "$file" ] || continue
        PID=$(cat "$file")
        kill "$PID" 2> /dev/null || true
        for _ in $(seq 100); do  # they write into the folder until they end
            kill -0 "$PID" 2> /dev/null || break
            sleep 0.1
        done
    done
    rm -f "$ETC"/{slurm,cgroup,gres}.conf
    [ "${KEEP:-}" ] || rm -rf "$PLACE"
}
trap stop EXIT
mkdir -p "$ETC"
ln -s "$PLACE"/{slurm,cgroup,gres}.conf "$ETC"

say() { echo "== $*"; }

# --- one node that works, and one with a GPU that is down -------------------------------------------------------------

dd if=/dev/urandom of="$PLACE/munge/key" bs=1024 count=1 2> /dev/null
chmod 400 "$PLACE/munge/key"
munged --force --key-file="$PLACE/munge/key" --socket="$PLACE/munge/socket" --pid-file="$PLACE/munge/munged.pid" \
    --log-file="$PLACE/munge/log" --seed-file="$PLACE/munge/seed"

cat > "$PLACE/slurm.conf" << END
ClusterName=try
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$PLACE/munge/socket
StateSaveLocation=$PLACE/state
SlurmdSpoolDir=$PLACE/spool
SlurmctldPidFile=$PLACE/slurmctld.pid
SlurmdPidFile=$PLACE/slurmd.pid
SlurmctldLogFile=$PLACE/slurmctld.log
SlurmdLogFile=$PLACE/slurmd.log
SlurmctldPort=${PORT:-16817}
SlurmdPort=$((${PORT:-16817} + 1))
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
KillWait=2
MinJobAge=3600
SchedulerParameters=sched_interval=2
GresTypes=gpu
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
NodeName=gpu1 NodeAddr=127.0.0.2 CPUs=2 RealMemory=4000 Gres=gpu:1 State=DOWN Reason="not there"
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
# Processes are followed by /proc, so no control groups are used; SLURM 22.05 loads a plugin for them nevertheless.
echo -e "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nIgnoreSystemd=yes" > "$PLACE/cgroup.conf"
: > "$PLACE/gres.conf"
slurmctld
slurmd -N "$HOST"
for _ in $(seq 60); do
    sinfo --noheader --nodes="$HOST" --format=%t | grep -q idle && break
    sleep 1
done
sinfo
say "a job runs: $(timeout 60 srun --time=1 echo yes)"

# --- the workflow -----------------------------------------------------------------------------------------------------

cat > "$PLACE/setting.yaml" << END
runs: $PLACE/runs
backbone: tiny
tasks: [signs, digits]
finetune: {steps: ${STEPS:-400}, batch_size: 16, checkpoint_every: 20}
chapters: {04_fusion: {}}
END
VECTORS=("$PLACE"/runs/tau/{signs,digits}.safetensors)
FLOW=(snakemake --profile workflow/profiles/slurm --configfile "$PLACE/setting.yaml" --retries 0 --latency-wait 10
    --slurm-status-command squeue --slurm-init-seconds-before-status-checks 5 --seconds-between-status-checks 5
    --default-resources runtime=30 mem_mb=1500 cpus_per_task=1 --slurm-logdir "$PLACE/logs" --directory "$PWD")

say "two jobs start"
"$PYTHON" -m "${FLOW[@]}" "${VECTORS[@]}" > "$PLACE/first.log" 2>&1 &
FIRST=$!
until [ "$(find "$PLACE/runs" -name '.*.checkpoint.safetensors' | wc -l)" = 2 ]; do
    kill -0 "$FIRST" 2> /dev/null || { cat "$PLACE/first.log"; exit 1; }
    sleep 1
done
squeue --format="%i %T %k %S"
say "both are killed after a checkpoint"
scancel --full --signal=KILL --user="$(id -un)"
wait "$FIRST" && { echo "the workflow did not notice"; exit 1; }
ls -A "$PLACE/runs/tau"
[ "$(find "$PLACE/runs" -name '.*.checkpoint.safetensors' | wc -l)" = 2 ] || {
    echo "a job was through before it was killed: raise STEPS"; exit 1  # and Snakemake removed its vector
}

say "the workflow is started again"
"$PYTHON" -m "${FLOW[@]}" "${VECTORS[@]}" > "$PLACE/second.log" 2>&1 || { cat "$PLACE/second.log"; exit 1; }
rmtllmf evaluate "${VECTORS[@]}" --csv "$PLACE/resumed.csv"

say "the same without SLURM and without a kill"
rmtllmf finetune signs digits --out "$PLACE/plain" --steps "${STEPS:-400}" --batch-size 16
rmtllmf evaluate "$PLACE"/plain/*.safetensors --csv "$PLACE/plain.csv" > /dev/null
sort "$PLACE/resumed.csv" > "$PLACE/a" && sort "$PLACE/plain.csv" > "$PLACE/b"
cmp "$PLACE/a" "$PLACE/b" && say "the same table"

say "a job asks for a GPU, and there is none"
sed -i "s/^backbone: tiny/&\ndevice: cuda/; s#^runs: .*#runs: $PLACE/gpu#" "$PLACE/setting.yaml"
"$PYTHON" -m "${FLOW[@]}" "$PLACE/gpu/tau/signs.safetensors" > "$PLACE/third.log" 2>&1 &
THIRD=$!
for _ in $(seq 120); do
    squeue --states=PENDING --noheader | grep -q . && break
    sleep 1
done
sleep 5
WAITS=$(squeue --states=PENDING --noheader --Format="State:.8,Reason:.40,tres-per-job:.20")
echo "$WAITS"
scancel --state=PENDING --user="$(id -un)"  # Snakemake, asked to stop, would wait for the job
wait "$THIRD" && { echo "the workflow did not notice"; exit 1; }
[ "$WAITS" ] || { cat "$PLACE/third.log"; exit 1; }
say "done"
